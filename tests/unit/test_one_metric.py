"""A metric is one entry of ``METRICS``: a made-up one is found wherever metrics are."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.anew import Tokrig, anew

NAME, LABEL, COLUMN = "odd_chunks_s", "odd chunks", "odd_chunks_s_median"
RUNS = ("20261122-120000-tiny-aaaa", "20261122-130000-tiny-bbbb")


def _odd(metrics: ModuleType) -> None:
    def third_chunk_s(sample: Any) -> float | None:
        return sample.chunks[2].t_ns / 1e9 if len(sample.chunks) > 2 else None

    metrics.METRICS[NAME] = metrics.Metric(
        "summary",
        LABEL,
        "time to the third chunk",
        "s",
        compute=lambda of: of.summary(third_chunk_s, compared=True),
        higher_is_better=False,
        shown=metrics.EVERYWHERE,
        later=True,
    ).named(NAME)


@pytest.fixture(scope="module")
def odd() -> Iterator[Tokrig]:
    with anew("tokrig.record.metrics", _odd) as tokrig:
        yield tokrig


@pytest.fixture(scope="module")
def content(odd: Tokrig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; the third chunk came after 0.522 s in the first, after 0.9 s in the second."""
    folder = tmp_path_factory.mktemp("content")
    store = odd.store.Store(folder, cache=folder / "cache")
    sample = importlib.import_module("tests.unit.samples").sample
    record_of = importlib.import_module("tests.unit.records").record_of
    for run_id, gaps in zip(RUNS, ((0.01, 0.012), (0.2, 0.2)), strict=True):
        samples = [sample(gap_s=gap, sent_ns=n * 800_000_000) for n, gap in enumerate(gaps)]
        store.save(record_of(samples, run_id), samples)
    return folder


def test_it_is_in_model_schema_and_yaml(odd: Tokrig, content: Path) -> None:
    schema = json.loads(odd.record__model.schema_text())["$defs"]["Result"]["properties"][NAME]
    assert schema["description"] == "time to the third chunk, s"
    store = odd.store.Store(content)
    path = store.find(RUNS[0])
    written = path.read_text(encoding="utf-8")
    assert f"{NAME}: {{median: 0.522, " in written
    record = store.read(path)
    assert odd.record__model.record_text(record) == written


def test_check_computes_it_again(odd: Tokrig, content: Path) -> None:
    store = odd.store.Store(content)
    samples = store.read_samples(RUNS[0])
    written = store.find(RUNS[0]).read_text(encoding="utf-8")
    parse, contradictions = odd.record__model.parse_record, odd.record__consistency.contradictions
    assert contradictions(parse(written, "as-is.yaml"), samples) == []
    edited = written.replace("{median: 0.522,", "{median: 0.622,")
    found = map(str, contradictions(parse(edited, "edited.yaml"), samples))
    assert any("odd_chunks_s.median is 0.622, the samples give 0.522" in one for one in found)


def test_it_is_a_column_of_csv_json_and_parquet(odd: Tokrig, content: Path) -> None:
    table, load = odd.store__table, odd.store__load.load
    rows = list(table.flat_rows(load(odd.store.Store(content)).runs))
    read = csv.DictReader(io.StringIO(table.to_csv(rows).decode()))
    assert [row[COLUMN] for row in read] == ["0.522", "0.9"]
    data = json.loads(table.to_json(rows))
    place = data["columns"].index(COLUMN)
    assert [row[place] for row in data["data"]] == [0.522, 0.9]
    parquet = importlib.import_module("pyarrow.parquet")
    found = parquet.read_table(io.BytesIO(table.to_parquet(rows)), use_threads=False)
    assert found.column(COLUMN).to_pylist() == [0.522, 0.9]


def test_show_and_compare_have_it(odd: Tokrig, content: Path) -> None:
    assert "522 ms" in odd.says(content, "show", RUNS[0]).stdout
    told = odd.says(content, "compare", *RUNS).stdout
    assert [line.split()[:6] for line in told.splitlines() if LABEL in line] == [
        [*LABEL.split(), "522", "ms", "900", "ms"]
    ]


def test_list_has_it_and_sorts_by_it(odd: Tokrig, content: Path) -> None:
    lines = odd.says(content, "list", "--sort", NAME).stdout.splitlines()
    assert LABEL in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [*RUNS]
    assert "522 ms" in lines[1]
    found = json.loads(odd.says(content, "list", "--sort", "-odd", "--json").stdout)
    assert [(row[f"{NAME}_min"], row[f"{NAME}_max"]) for row in found] == [(0.9, 0.9), (0.522,) * 2]


def test_the_pages_have_it(odd: Tokrig, content: Path) -> None:
    runs = odd.store__load.load(odd.store.Store(content)).runs
    data = odd.site__table.columns(runs, {})
    assert data["rows"][NAME] == [0.522, 0.9]
    term = odd.site__context.definitions()[NAME]
    assert (term.label, term.text, term.unit) == (LABEL, "Time to the third chunk.", "s")
    site = odd.site__context.Site(
        odd.store.Store(content), runs, families={}, rigs={}, redirects={}
    )
    files = odd.files(site, "run", "compare", "downloads", "index")
    html = files[f"runs/{RUNS[0]}.html"]
    assert f'data-term="{NAME}">{LABEL}<' in html
    assert "522 ms" in html
    for path in ("data.html", "assets/rows.js", "assets/rules.js", f"runs/{RUNS[0]}.js"):
        assert NAME in files[path], path
