"""``tokrig.load()``: rows, Arrow and DataFrames say what the records say; the notebook runs."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tokrig
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.compare.marked import load_marked
from tokrig.errors import InputError, RecordError
from tokrig.query import row
from tokrig.store import Store, table

ROOT = Path(__file__).parents[2]
CONTENT = ROOT / "content"
NOTEBOOK = ROOT / "docs" / "examples" / "records.ipynb"


def test_rows_are_those_of_the_page() -> None:
    rows = tokrig.load(CONTENT)
    assert [tuple(one) for one in rows] == list(table.flat_rows(load_marked(Store(CONTENT)).runs))
    assert rows[0].run_id == rows[0][0]
    assert isinstance(rows[1:3], type(rows)) and list(rows[1:3]) == [rows[1], rows[2]]


def test_arrow_and_frame_have_the_same_values() -> None:
    rows = tokrig.load(CONTENT)
    assert [tuple(one.values()) for one in rows.arrow().to_pylist()] == [tuple(r) for r in rows]
    frame: Any = rows.frame()
    assert list(frame.columns) == [column.name for column in table.COLUMNS]
    for name in ("concurrency", "ttft_s_median", "reasoning", "variant"):
        for found, one in zip(frame[name], rows, strict=True):
            value = getattr(one, name)
            missing = found is None or str(found) in ("nan", "<NA>")
            assert missing if value is None else found == value
    assert str(frame["gpu_vram_bytes"].dtype) == "Int64"  # not a float where some are missing


def test_filters_are_those_of_the_list() -> None:
    ours = tokrig.load(CONTENT, model="gemma-3-270m", rig="amd")
    assert {one.rig for one in ours} == {"amd-epyc-2c-24gb"}
    assert len(tokrig.load(CONTENT, model="no such model")) == 0
    assert "results of" in repr(ours)


def test_broken_files_are_an_error_or_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record_of([sample()]), [sample()])
    (store.runs / "test-rig" / "broken.yaml").write_text("id: [\n")
    with pytest.raises(RecordError, match=r"broken\.yaml:2"):
        tokrig.load(tmp_path)
    rows = tokrig.load(tmp_path, keep_going=True)
    assert (len(rows), [problem.path for problem in rows.problems]) == (1, ["test-rig/broken.yaml"])
    with pytest.raises(InputError, match="no such folder"):
        tokrig.load(tmp_path / "nowhere")


def test_the_types_of_a_row_are_written_down() -> None:
    """A type checker reads row.pyi; ``python -m tokrig.query.row`` makes it."""
    assert (ROOT / row.STUB).read_text(encoding="utf-8") == row.stub()
    types = {"text": str, "integer": int, "number": float | int, "boolean": bool}
    always = {line.split(":")[0].strip() for line in row.stub().splitlines() if "None" not in line}
    for one in tokrig.load(CONTENT):
        for column, value in zip(table.COLUMNS, one, strict=True):
            if value is None:
                assert column.name not in always
            else:
                assert isinstance(value, types[column.kind])


def test_importing_tokrig_loads_nothing() -> None:
    code = "import tokrig, sys; print(sorted(m for m in sys.modules if m.startswith('tokrig.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="nothing"):
        tokrig.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_notebook_runs_and_says_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of code, in order, in one namespace; the last expression is its output."""
    monkeypatch.chdir(ROOT)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    outputs = []
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop()
            assert isinstance(last, ast.Expr)
            exec(compile(tree, str(NOTEBOOK), "exec"), names)
            outputs.append(eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names))
    assert len(outputs) >= 7 and all(output is not None for output in outputs)
    depths = names["depths"]
    assert list(depths.index) == sorted(depths.index) and len(depths) >= 4
    assert 0 < names["loss"] < 1 and not math.isnan(names["loss"])
    assert "slower at" in str(outputs[-2])
