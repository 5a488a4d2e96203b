"""``tokrig show ID --plot FILE``: a chart as a file, or a clear reason why not."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli.main import main
from tokrig.record.model import Validity
from tokrig.registry import get_extra
from tokrig.store import Store

RUN_ID = "20261122-120000-tiny-aaaa"


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    samples = [sample()]
    Store(folder).save(record_of(samples, RUN_ID), samples)
    return folder


def show(content: Path, *words: str | Path) -> Result:
    return CliRunner(env={"TOKRIG_CONTENT": str(content)}).invoke(
        main, ["show", RUN_ID, *map(str, words)]
    )


def test_a_png_of_decode_speed_by_default(content: Path, tmp_path: Path) -> None:
    file = tmp_path / "speed.png"
    outcome = show(content, "--plot", file)
    assert outcome.exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert f"chart decode: {file}" in outcome.stderr
    assert "Tiny" in outcome.stdout
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["speed.png"]


def test_an_svg_of_the_chart_that_is_named(content: Path, tmp_path: Path) -> None:
    file = tmp_path / "waiting.SVG"
    assert show(content, "--plot", file, "--chart", "requests").exit_code == 0
    texts = list(ElementTree.fromstring(file.read_text(encoding="utf-8")).itertext())
    assert "Time to first token of each request" in texts
    assert "Tiny · Q4_K_M · test-rig · llama.cpp (cpu)" in texts


def test_json_and_a_chart(content: Path, tmp_path: Path) -> None:
    outcome = show(content, "--json", "--plot", tmp_path / "x.png")
    assert outcome.stdout.startswith("{")
    assert (tmp_path / "x.png").exists()


def test_a_wrong_name_lists_the_charts(content: Path, tmp_path: Path) -> None:
    outcome = show(content, "--plot", tmp_path / "x.png", "--chart", "spede")
    assert outcome.exit_code == 2
    assert "has no chart 'spede'" in outcome.stderr
    assert "chunks, decode, end-to-end, prefill, requests, ttft" in outcome.stderr
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", ["chart.pdf", "chart", ".png"])
def test_other_kinds_of_files_are_refused(content: Path, tmp_path: Path, name: str) -> None:
    outcome = show(content, "--plot", tmp_path / name)
    assert outcome.exit_code == 2
    assert "is neither PNG nor SVG" in outcome.stderr


def test_a_file_that_cannot_be_written_stays_what_it_was(content: Path, tmp_path: Path) -> None:
    missing = show(content, "--plot", tmp_path / "nowhere" / "x.png")
    assert missing.exit_code == 2
    assert "cannot write" in missing.stderr
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert show(content, "--plot", folder).exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["content", "folder.png"]


def test_a_chart_without_a_file_is_told_so(content: Path) -> None:
    outcome = show(content, "--chart", "ttft")
    assert outcome.exit_code == 2
    assert "--chart needs --plot" in outcome.stderr


def test_a_record_with_nothing_valid_has_nothing_to_draw(content: Path, tmp_path: Path) -> None:
    record = record_of([sample()], RUN_ID)
    invalid = Validity(verdict="invalid", reasons=["throttled"])
    results = [r.model_copy(update={"validity": invalid}) for r in record.results]
    changed = record.model_copy(update={"results": results, "validity": invalid})
    Store(content).save(changed, [], overwrite=True)
    outcome = show(content, "--plot", tmp_path / "x.png")
    assert outcome.exit_code == 2
    assert "has nothing to draw" in outcome.stderr


def test_a_missing_package_is_named(
    content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    outcome = show(content, "--plot", tmp_path / "x.png")
    assert outcome.exit_code == 2
    assert "charts need the package 'vl_convert'" in outcome.stderr
    assert get_extra("site") in outcome.stderr
