"""``tokrig compare`` over records made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from tests.unit.compared import cell, measured, with_value
from tokrig.cli.main import main
from tokrig.compare import comparison, subject
from tokrig.record.model import Record, record_text

A, B, FAILED = "20261122-gemma-aaaa", "20261123-gemma-bbbb", "20261124-gemma-cccc"
RESULTS = [cell("agent", 1, 120.0), cell("agent", 4, 50.0)]


def records() -> list[Record]:
    """A run, one with another quant that is faster at one concurrency, one without results."""
    first = with_value(measured(), "results", [cell("agent", 1), cell("agent", 4, 50.0)])
    second = with_value(with_value(measured(), "results", RESULTS), "model.quant", "Q8_0")
    second = with_value(with_value(second, "model.sha256", None), "model.license", "\x1b[31mred")
    failed = with_value(measured(), "results", [])
    ids = zip((A, B, FAILED), (first, second, failed), strict=True)
    return [with_value(record, "id", run_id) for run_id, record in ids]


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content" / "benchmarks" / "runs" / "geforce-rtx-5070-12gb"
    folder.mkdir(parents=True)
    for record in records():
        (folder / f"{record.id}.yaml").write_text(record_text(record), encoding="utf-8")
    return tmp_path / "content"


def compare(content: Path, *words: str, columns: int | None = None) -> Result:
    env = {"TOKRIG_CONTENT": str(content)}
    env |= {"COLUMNS": str(columns)} if columns else {}
    return CliRunner(env=env).invoke(main, ["compare", *words])


def test_class_keys_and_figures(content: Path) -> None:
    done = compare(content, A, B)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert f"A {A} Gemma-4 E2B-it · Q4_K_M · llama.cpp b9174 (cuda)" in lines[0]
    assert "class A: same machine, one changed variable: quant" in lines
    assert "model.quant quant Q4_K_M Q8_0" in lines
    assert "agent × 1 gen tok/s 100.0 120.0 ×1.20 (1.19–1.21) PASS, 20 % faster" in lines
    assert "TTFT 100 ms 83 ms ×0.83 (0.83–0.84) PASS, 20 % faster" in lines
    assert "agent × 4 gen tok/s 50.0 50.0 ×1.00 (0.99–1.01) PASS" in lines
    assert any(line.startswith("not known for both: model.sha256") for line in lines)
    assert lines[-1] == "PASS: B is not slower than A by more than the noise, in any of 10 figures"
    assert "\x1b" not in done.stdout


def test_the_noise_of_a_rig_is_told_where_it_counts(content: Path) -> None:
    """Two records of the same that are 30 % apart: 20 % are then no difference."""
    again = with_value(records()[0], "results", [cell("agent", 1, 130.0)])
    folder = next(content.rglob(f"{A}.yaml")).parent
    path = folder / "20261125-gemma-dddd.yaml"
    path.write_text(record_text(with_value(again, "id", path.stem)), encoding="utf-8")
    done = compare(content, A, B, "--concurrency", "1")
    told = " ".join(done.stdout.split())
    assert "identical runs on this rig differ by up to 30 %: so must these" in told
    assert "faster" not in told
    data = json.loads(compare(content, A, B, "--json").stdout)
    assert data["pairs"][0]["figures"][0]["ratio"]["verdict"] == "not_distinguishable"


def test_an_attached_server_is_one_start_and_that_is_said(content: Path) -> None:
    for run_id in (A, B):
        path = next(content.rglob(f"{run_id}.yaml"))
        attached = with_value(records()[run_id == B], "backend.managed", False)
        path.write_text(record_text(attached), encoding="utf-8")
    told = " ".join(compare(content, A, B).stdout.split())
    assert "inconclusive: engine starts: A 1, B 1; 6 are needed on each side" in told
    assert "let tokrig start it with --level standard" in told
    assert "faster" not in told and "INCONCLUSIVE: 10 of 10 figures are open" in told


def test_class_d_has_no_ratios(content: Path) -> None:
    path = next(content.rglob(f"{B}.yaml"))
    old = with_value(records()[1], "provenance.methodology", 1)
    path.write_text(record_text(old), encoding="utf-8")
    told = " ".join(compare(content, A, B).stdout.split())
    assert "class D: the methodology differs" in told
    assert "×" not in told.replace("workload ×", "").replace("agent ×", "")
    assert "INCONCLUSIVE: not judged: not comparable: the methodology differs" in told
    data = json.loads(compare(content, A, B, "--json").stdout)
    ratios = [figure["ratio"] for pair in data["pairs"] for figure in pair["figures"]]
    assert {ratio["value"] for ratio in ratios} == {None}


def test_one_concurrency(content: Path) -> None:
    done = compare(content, A, B, "--concurrency", "4")
    assert done.exit_code == 0
    assert "agent × 4" in done.stdout and "agent × 1" not in done.stdout


def test_json_is_the_comparison(content: Path) -> None:
    done = compare(content, A, B, "--concurrency", "1", "--json")
    first, second, _ = records()
    expected = comparison(subject(first, concurrency=1), subject(second, concurrency=1))
    told, whole = json.loads(done.stdout), expected.as_dict()
    assert {key: told[key] for key in whole} == whole
    assert told["comparisons"][0]["records"] == {"a": [A], "b": [B]}
    assert told["verdict"] == "PASS" and told["family"]["tests"] == len(told["verdicts"]) == 5


def test_beginnings_of_ids_and_paths(content: Path) -> None:
    path = next(content.rglob(f"{B}.yaml"))
    done = compare(content, "20261122", str(path))
    assert done.exit_code == 0
    assert A in done.stdout and B in done.stdout


def test_results_that_are_not_compared_say_why(content: Path) -> None:
    path = next(content.rglob(f"{B}.yaml"))
    results = [cell("agent", 1, valid=False), cell("agent", 4, hash="ffff")]
    changed = with_value(records()[1], "results", results)
    path.write_text(record_text(changed), encoding="utf-8")
    done = compare(content, A, B)
    assert done.exit_code == 0
    assert "class D: other workload texts under the same shape name" in done.stdout
    assert "not compared; B INVALID (cached_tokens)" in " ".join(done.stdout.split())
    assert "another shape of the same name" in done.stdout
    assert "×" not in done.stdout.replace("agent ×", "").replace("workload ×", "")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([A, FAILED], f"{FAILED} has no results to compare", "tokrig show"),
        ([A, B, "--concurrency", "2"], f"{A} has no result at concurrency 2", "it has: 1, 4"),
        ([A, "nothing"], "no record 'nothing'", "hint:"),
        ([A], "Missing argument 'B'", "--help"),
        ([A, B, "--concurrency", "0"], "--concurrency: 0 is not in the range", "--help"),
    ],
)
def test_what_cannot_be_compared(content: Path, words: list[str], message: str, hint: str) -> None:
    done = compare(content, *words)
    assert done.exit_code == 2
    assert message in done.stderr and hint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_narrow_terminals_lose_nothing(content: Path, columns: int) -> None:
    done = compare(content, A, B, columns=columns)
    assert done.exit_code == 0
    assert done.stdout.count("…") == 1  # the licence, whose control characters were left out
    assert max(map(len, done.stdout.splitlines())) <= columns
    for text in ("Q8_0", "×1.20", "faster"):
        assert text in done.stdout


def test_ids_are_completed(content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = ShellComplete(main, {}, "tokrig", "_TOKRIG_COMPLETE")
    monkeypatch.setenv("TOKRIG_CONTENT", str(content))
    words = ["compare", "--content", str(content)]
    assert [item.value for item in complete.get_completions(words, "20261122")] == [A]
    found = complete.get_completions([*words, A], "")
    assert [item.value for item in found] == [A, B, FAILED]
