"""Which records stand on which side: lists, folders, filters, pooling and pairing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from tests.unit.compared import cell, measured, with_value
from tests.unit.simulated import record
from tokrig.cli.main import main
from tokrig.compare.pool import groups, matched
from tokrig.record.model import Record, record_text

RIG = "geforce-rtx-5070-12gb"


def make(run_id: str, build: str, *, faster: float = 1.0, seed: int = 1) -> Record:
    found = record(Random(f"{run_id} {seed}"), "standard", 0.01, faster=faster)
    return with_value(with_value(found, "id", run_id), "backend.build", build)


def write(content: Path, *records: Record) -> Path:
    for one in records:
        folder = content / "benchmarks" / "runs" / one.rig.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{one.id}.yaml").write_text(record_text(one), encoding="utf-8")
    return content


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Two builds, twice each; the newer one 8 % slower with 8 threads, alike with 4."""
    four = [
        with_value(make(f"2026-four-{b}", b), "backend.resolved.threads", 4) for b in ("b1", "b2")
    ]
    return write(
        tmp_path / "content",
        make("2026-old-1", "b1"),
        make("2026-old-2", "b1"),
        make("2026-new-1", "b2", faster=0.92),
        make("2026-new-2", "b2", faster=0.92),
        *four,
    )


def compare(content: Path, *words: str) -> Result:
    env = {"TOKRIG_CONTENT": str(content), "COLUMNS": "120"}
    return CliRunner(env=env).invoke(main, ["compare", *words])


def test_filters_pool_like_records_and_pair_what_differs_least(content: Path) -> None:
    done = compare(content, "build=b1 build=b2", "rig=geforce", "--json")
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    sides = [one["records"] for one in told["comparisons"]]
    assert sorted(map(str, sides)) == sorted(
        map(
            str,
            [
                {"a": ["2026-old-2", "2026-old-1"], "b": ["2026-new-2", "2026-new-1"]},
                {"a": ["2026-four-b1"], "b": ["2026-four-b2"]},
            ],
        )
    )
    assert told["family"]["tests"] == 40 and "2 pairs of configurations" in told["family"]["of"]
    pooled = next(n for n, one in enumerate(sides) if len(one["a"]) == 2)
    by_pair = {
        n: {one["verdict"] for one in told["verdicts"] if one["pair"] == n} for n in range(2)
    }
    assert by_pair[pooled] == {"FAIL"} and by_pair[1 - pooled] <= {"PASS", "INCONCLUSIVE"}
    assert {tuple(v["starts"]) for v in told["verdicts"] if v["pair"] == pooled} == {(12, 12)}


def test_a_filter_takes_variables_and_fields_too(content: Path) -> None:
    for words in (["threads=4"], ["backend.resolved.threads=4"]):
        done = compare(content, "build=b1", "build=b2", *words, "--json")
        assert json.loads(done.stdout)["comparisons"][0]["records"]["a"] == ["2026-four-b1"]
    done = compare(content, "threads=4", "threads=8", "build=b1", "--json")
    told = json.loads(done.stdout)
    assert told["changed"] == ["threads"]
    assert told["comparisons"][0]["records"] == {
        "a": ["2026-four-b1"],
        "b": ["2026-old-2", "2026-old-1"],
    }


def test_lists_of_ids(content: Path) -> None:
    done = compare(content, "2026-old-1,2026-old-2", "2026-new-1", "--json")
    told = json.loads(done.stdout)
    assert {tuple(one["starts"]) for one in told["verdicts"]} == {(12, 6)}


def test_two_folders(content: Path, tmp_path: Path) -> None:
    before = write(tmp_path / "before", make("2026-old-1", "b1"))
    plain = tmp_path / "after" / "some" / "where"
    plain.mkdir(parents=True)
    (plain / "x.yaml").write_text(record_text(make("2026-new-1", "b2", faster=0.92)))
    (plain / "spec.yaml").write_text("model: smollm2-135m\n")
    done = compare(content, str(before), str(tmp_path / "after"))
    assert done.exit_code == 1, done.output
    assert "FAIL: B is slower than A by more than the noise in " in " ".join(done.stdout.split())
    # A folder that has grown: what it always had counts for A.
    write(before, make("2026-new-1", "b2", faster=0.92))
    shutil.copytree(before, tmp_path / "grown")
    (next(before.rglob("2026-new-1.yaml"))).unlink()
    done = compare(content, str(before), str(tmp_path / "grown"))
    assert done.exit_code == 1
    assert "note: 1 records are in both folders: they count as those of A" in done.stderr


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    other = with_value(make("2026-other", "b1"), "model.family", "Another")
    other = with_value(other, "model.sha256", "d" * 64)
    before = write(tmp_path / "before", make("2026-old", "b1"), other)
    after = write(tmp_path / "after", make("2026-new", "b2"))
    done = compare(tmp_path, str(before), str(after))
    assert "left out: A: 2026-other" in done.stdout


def test_an_attached_server_is_one_start_however_many_records_there_are() -> None:
    records = [
        with_value(with_value(measured(), "backend.managed", False), "id", f"run-{n}")
        for n in range(8)
    ]
    (found,) = groups(records)
    assert {one.starts for one in found.subject.cells} == {1}


def test_quick_records_are_a_start_each() -> None:
    records = []
    for n in range(7):
        quick = cell("chat", speed=100.0 + n, spread=None).model_copy(update={"repeats": 1})
        one = with_value(with_value(measured(), "results", [quick]), "id", f"run-{n}")
        records.append(with_value(one, "provenance.server_starts", 1))
    (found,) = groups(records)
    figure = found.subject.cells[0].figures["output_tok_per_s"]
    assert figure is not None
    assert (figure.median, sorted(figure.starts)) == (103.0, [100.0 + n for n in range(7)])
    assert found.subject.cells[0].starts == 7


def test_machines_that_nobody_named_are_never_one(tmp_path: Path) -> None:
    unknown = [
        with_value(with_value(measured(), "rig.id", "unknown-rig"), "id", f"run-{n}")
        for n in range(3)
    ]
    assert len(groups(unknown)) == 3


def test_invalid_results_do_not_count_beside_others() -> None:
    bad = with_value(measured(), "results", [cell("chat", speed=10.0, valid=False)])
    good = with_value(measured(), "results", [cell("chat")])
    (found,) = groups([good, with_value(bad, "id", "run-bad")])
    (only,) = found.subject.cells
    assert (only.verdict, only.starts) == ("valid", 6)


def test_more_configurations_than_can_be_paired_are_refused() -> None:
    many = groups(
        with_value(with_value(measured(), "id", f"run-{n}"), "backend.resolved.threads", n)
        for n in range(1, 103)
    )
    with pytest.raises(Exception, match="side A has 102 configurations; 100 can be paired"):
        matched(many, many[:2])


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["2026-old-1", "2026-old-1"], "2026-old-1 is on both sides", "name another"),
        (["2026-old-1,2026-old-1", "2026-new-1"], "two records of one id on one side", "once"),
        (["2026-old-1", "2026-new-1", "2026-new-2"], "3 records, not two", "ID,ID"),
        ([], "Missing argument 'A'", "build=b9174"),
        (["build=b1"], "no key has two values", "such as build=b1 build=b2"),
        (["build=b1", "build=b1"], "no key has two values", "such as build=b1 build=b2"),
        (["build=b1", "build=b2", "build=b3"], "build has 3 values; two name two sides", "build="),
        (["bild=b1", "bild=b2"], "no key 'bild' to filter by", "did you mean 'build'"),
        (["build=b1", "build=b9"], "nothing matches build=b9", "there are: b1, b2"),
        (["build=b1", "build=b2", "rig=gefroce"], "nothing matches rig=gefroce", RIG),
        (["build=b1", "build=b"], "2026-four-b1 matches both sides", "in full"),
        (["build=", "build=b2"], "build= has no value", "give two records"),
        (["build=b1", "2026-old-1"], "'2026-old-1' stands among filters", "give two records"),
        (["build='b1 build=b2"], "cannot be read", "give two records"),
        (["2026-old-1", "2026-new-1", "--fail-on", "regression=3"], "'3' is no share", "--help"),
        (
            ["2026-old-1", "2026-new-1", "--fail-on", "regression=3ms"],
            "'3ms' is no share",
            "--help",
        ),
        (["2026-old-1", "2026-new-1", "--fail-on", "ttft=-3%"], "'-3%' is no share", "--help"),
        (["2026-old-1", "2026-new-1", "--fail-on", "ttft=0%"], "'0%' is no share", "--help"),
        (["2026-old-1", "2026-new-1", "--fail-on", "ttft=1e9%"], "'1e9%' is no share", "--help"),
        (["2026-old-1", "2026-new-1", "--fail-on", "tftt=3%"], "'tftt' is unknown", "'ttft'"),
        (["2026-old-1", "2026-new-1", "--fail-on", "regression"], "names no share", "--help"),
        (["2026-old-1", "2026-new-1", "--json", "--markdown"], "two forms of one answer", "one"),
        (["2026-old-1", "2026-new-1", "--plot", "x.gif"], "neither PNG nor SVG", ".png"),
        (["2026-old-1", "2026-new-1", "--starts", "9"], "--starts says how two specs", "--measure"),
        (["2026-old-1", "2026-new-1", "--no-control"], "--control says how two", "--measure"),
        (["--measure", "only.yaml"], "--measure takes two spec files, not 1", "--measure"),
        (["--measure", "a.yaml", "b.yaml"], "a.yaml", "path of a YAML file"),
    ],
)
def test_what_cannot_be_meant(content: Path, words: list[str], message: str, hint: str) -> None:
    done = compare(content, *words)
    assert (done.exit_code, "Traceback" in done.output) == (2, False), done.output
    assert message in done.stderr
    assert hint in done.stderr


def test_folders_that_hold_nothing_to_compare(content: Path, tmp_path: Path) -> None:
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    other.mkdir()
    (other / "x.yaml").write_text("a: 1\n")
    failed = write(tmp_path / "failed", with_value(make("x", "b1"), "results", []))
    for folder, told in ((empty, "no record in"), (other, "x.yaml"), (failed, "has results")):
        done = compare(content, str(folder), str(content))
        assert done.exit_code == 2 and told in done.stderr, done.output
    done = compare(content, str(content), str(content))
    assert done.exit_code == 2 and "both folders hold the same" in done.stderr


def test_two_files_of_one_id(content: Path, tmp_path: Path) -> None:
    twin = write(tmp_path / "twin", make("2026-old-1", "b1", seed=9))
    done = compare(content, "2026-old-1", str(next(twin.rglob("*.yaml"))))
    assert done.exit_code == 2 and "two records of one id" in done.stderr
    assert "2026-old-1.yaml" in done.stderr


def test_a_limit_on_what_cannot_be_judged_is_bad_input(content: Path) -> None:
    path = next(content.rglob("2026-new-1.yaml"))
    path.write_text(record_text(with_value(make("2026-new-1", "b2"), "provenance.methodology", 1)))
    for words in (["--fail-on", "regression=3%"], ["--strict"]):
        done = compare(content, "2026-old-1", "2026-new-1", *words)
        assert done.exit_code == 2
        assert "nothing here can be judged: not comparable: the methodology differs" in done.stderr
    assert compare(content, "2026-old-1", "2026-new-1").exit_code == 0


def test_inconclusive_is_no_failure_unless_that_is_asked_for(content: Path) -> None:
    for run_id, build in (("2026-old-1", "b1"), ("2026-new-1", "b2")):
        path = next(content.rglob(f"{run_id}.yaml"))
        path.write_text(record_text(with_value(make(run_id, build), "provenance.server_starts", 1)))
    assert compare(content, "2026-old-1", "2026-new-1").exit_code == 0
    done = compare(content, "2026-old-1", "2026-new-1", "--strict")
    assert done.exit_code == 1
    assert "INCONCLUSIVE: 20 of 20 figures are open" in " ".join(done.stdout.split())


def test_markdown_calls_nobody_and_breaks_no_table(content: Path) -> None:
    path = next(content.rglob("2026-new-1.yaml"))
    path.write_text(record_text(make("2026-new-1", "@all | `x` <b>*y*", faster=0.9)))
    done = compare(content, "2026-old-1", "2026-new-1", "--markdown", "--fail-on", "gen=3%")
    assert done.exit_code == 1
    assert done.stdout.startswith("### tokrig compare: FAIL\n")
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4 and {line.count("|") for line in lines} == {9}
    outside = "".join(done.stdout.split("`")[::2])
    assert "@all" not in outside and "<b>" not in outside


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_plot_has_every_figure(content: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"ratios.{suffix}"
    done = compare(content, "2026-old-1", "2026-new-1", "--plot", str(file))
    assert done.exit_code == 1 and f"chart compared: {file}" in done.stderr
    drawn = file.read_bytes()
    if suffix == "png":
        assert drawn.startswith(b"\x89PNG")
    else:
        text = drawn.decode()
        assert text.count("chat × 1") == 5 and "FAIL: is B slower than A" in text


def test_keys_and_values_are_completed(content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = ShellComplete(main, {}, "tokrig", "_TOKRIG_COMPLETE")
    words = ["compare", "--content", str(content)]

    def found(incomplete: str) -> list[str]:
        return [item.value for item in complete.get_completions(words, incomplete)]

    assert found("bui") == ["build="]
    assert found("build=") == ["build=b1", "build=b2"]
    assert found("2026-old") == ["2026-old-1", "2026-old-2"]
    files = complete.get_completions([*words, "--measure"], "be")
    assert [(item.value, item.type) for item in files] == [("be", "file")]
    assert [item.type for item in complete.get_completions(words, "./ba")] == ["file"]


def test_more_records_than_can_be_compared_are_refused(
    content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokrig.cli.sides.MOST_RECORDS", 2)
    done = compare(content, "build=b1", "build=b2")
    assert done.exit_code == 2 and "3 records match side A; 2 can be compared" in done.stderr
    done = compare(content, "threads=4", "threads=8")
    assert done.exit_code == 2 and "threads would be looked up in 6 records" in done.stderr


def test_only_invalid_results(content: Path) -> None:
    path = next(content.rglob("2026-new-1.yaml"))
    bad = with_value(make("2026-new-1", "b2"), "results", [cell("chat", valid=False)])
    path.write_text(record_text(bad))
    done = compare(content, "2026-old-1", "2026-new-1", "--fail-on", "gen=3%")
    assert done.exit_code == 2
    assert "no shape with a valid result on both sides" in done.stderr
    assert "chat × 1: B INVALID (cached_tokens)" in done.stderr


def test_every_key_of_the_json_is_documented(content: Path) -> None:
    told = json.loads(compare(content, "2026-old-1", "2026-new-1", "--json").stdout)
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    whole = {*told} - {*told["comparisons"][0]}
    assert all(f"`{key}`" in page for key in {*told["verdicts"][0], *whole})
