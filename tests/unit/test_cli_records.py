"""``tokrig list``, ``show`` and ``check`` over records made here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli.main import main
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.block import Summary
from tokrig.record.checks import judge_run
from tokrig.record.loads import LoadNodes
from tokrig.record.model import (
    Erratum,
    Failure,
    Model,
    Provenance,
    Record,
    Resolved,
    Skipped,
    Validity,
    WorkloadFacts,
)
from tokrig.record.model import Result as Cell
from tokrig.record.samples import Sample
from tokrig.run.monitor import Load
from tokrig.store import Store

GOOD, SLOW = "20261122-120000-tiny-aaaa", "20261121-120000-tiny-bbbb"
FOREIGN = "20261120-120000-tiny-cccc"


def three(**changes: Any) -> list[Sample]:
    return [
        replace(sample(**changes), iteration=number, sent_ns=number * 10**9) for number in range(3)
    ]


def tokrig(content: Path, *words: str, columns: int | None = None) -> Result:
    env = {"TOKRIG_CONTENT": str(content)}
    env |= {"COLUMNS": str(columns)} if columns else {}
    return CliRunner(env=env).invoke(main, words)


def save(content: Path, samples: Sequence[Sample], run_id: str = GOOD, **changes: Any) -> Path:
    record = record_of(samples or three(), run_id).model_copy(update=changes)
    return Store(content).save(record, samples)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Three records: a valid one, one marked INVALID for cached tokens, a failed one."""
    folder = tmp_path / "content"
    save(folder, three(), provenance=started("2026-11-22T12:00:00Z"))
    save(
        folder,
        three(cached_tokens=9),
        SLOW,
        provenance=started("2026-11-21T12:00:00Z"),
        model=Model(family="Gemma-3", variant="270m", quant="Q4_K_M"),
    )
    save(
        folder,
        [],
        FOREIGN,
        provenance=started("2026-11-20T12:00:00Z"),
        status="failed",
        results=[],
        validity=judge_run([], complete=False),
        failure=Failure(code="engine_died", message="it died", log_tail="last\nwords"),
    )
    return folder


def started(at: str) -> Provenance:
    return Provenance(
        kind="measured",
        level="quick",
        started_at=at,
        tokrig_version="0.1.0",
        seed=1,
        methodology=METHODOLOGY_VERSION,
    )


# list


def ids(done: Result) -> list[str]:
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


def test_list_shows_the_newest_first(content: Path) -> None:
    done = tokrig(content, "list")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert ids(done) == [GOOD, SLOW, FOREIGN]
    for word in ("Tiny", "Q4_K_M", "llama.cpp (cpu)", "test-rig", "100.0", "valid", "2026-11-22"):
        assert word in done.stdout.splitlines()[1]
    assert "INVALID" in done.stdout.splitlines()[2]
    assert "failed" in done.stdout.splitlines()[3]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--model", "gemma-3-270m"], [SLOW]),
        (["--model", "tiny"], [GOOD, FOREIGN]),
        (["--rig", "test"], [GOOD, SLOW, FOREIGN]),
        (["--backend", "llama.cpp"], [GOOD, SLOW, FOREIGN]),
        (["--backend", "vllm"], []),
        (["--status", "valid"], [GOOD]),
        (["--status", "invalid"], [SLOW, FOREIGN]),
        (["--status", "failed"], [FOREIGN]),
        (["--status", "complete", "--model", "gemma"], [SLOW]),
    ],
)
def test_list_filters(content: Path, words: list[str], found: list[str]) -> None:
    done = tokrig(content, "list", *words)
    assert done.exit_code == 0
    assert ids(done) == found
    rows = json.loads(tokrig(content, "list", *words, "--json").stdout)
    assert [row["id"] for row in rows] == found
    if not found:
        assert "none of 3 records matches" in done.stderr


@pytest.mark.parametrize("columns", [50, 60, 80, 100, 140])
def test_list_fits_the_terminal_and_its_ids_find_their_records(content: Path, columns: int) -> None:
    done = tokrig(content, "list", columns=columns)
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert [Store(content).find(shown).stem for shown in ids(done)] == [GOOD, SLOW, FOREIGN]
    assert {"model", "rig", "date"} <= set(done.stdout.splitlines()[0].split())


def test_list_keeps_model_rig_and_date_at_80_columns(content: Path) -> None:
    long = Model(family="Qwen2.5-Coder", variant="7B-Instruct", quant="Q4_K_M")
    one = record_of(three(), "20261123-120000-qwen-aaaa")
    machine = one.rig.model_copy(update={"id": "intel-xeon-processor-2c-24gb"})
    provenance = started("2026-11-23T12:00:00Z")
    save(content, three(), one.id, model=long, rig=machine, provenance=provenance)
    rows = [line.split() for line in tokrig(content, "list", columns=80).stdout.splitlines()]
    assert rows[0] == ["id", "model", "rig", "date"]
    assert rows[1][0] == "20261123-120000"
    assert rows[1][1:3] == ["Qwen2.5-Coder", "7B-Instruct"]
    assert rows[1][3].startswith("intel-xeon-processor")
    assert rows[1][4] == "2026-11-23"


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("date", [FOREIGN, SLOW, GOOD]),
        ("-date", [GOOD, SLOW, FOREIGN]),
        ("id", [FOREIGN, SLOW, GOOD]),
        ("gen", [GOOD, SLOW, FOREIGN]),
        ("-gen", [GOOD, SLOW, FOREIGN]),
        ("model", [SLOW, GOOD, FOREIGN]),
    ],
)
def test_list_sorts_and_what_has_no_value_stands_last(
    content: Path, sort: str, found: list[str]
) -> None:
    assert ids(tokrig(content, "list", "--sort", sort)) == found
    some = tokrig(content, "list", "--sort", sort, "--limit", "2")
    assert ids(some) == found[:2]
    assert "2 of 3 records" in some.stderr
    rows = json.loads(tokrig(content, "list", "--sort", sort, "--limit", "1", "--json").stdout)
    assert [row["id"] for row in rows] == found[:1]


def test_list_sorts_by_known_columns_only(content: Path) -> None:
    done = tokrig(content, "list", "--sort", "-rg")
    assert done.exit_code == 2
    assert "--sort: 'rg' is unknown" in done.stderr
    assert "did you mean 'rig'?" in done.stderr


def test_list_names_what_it_cannot_read_and_shows_the_rest(content: Path) -> None:
    broken = content / "benchmarks" / "runs" / "test-rig" / "broken.yaml"
    broken.write_text("schema: 1\nid: [\n")
    done = tokrig(content, "list")
    assert done.exit_code == 0
    assert len(ids(done)) == 3
    assert "broken.yaml:3" in done.stderr
    assert "tokrig check" in done.stderr


def test_list_of_nothing(tmp_path: Path) -> None:
    done = tokrig(tmp_path / "nowhere", "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no records in" in done.stderr
    assert tokrig(tmp_path / "nowhere", "list", "--json").stdout == "[]\n"


# show


def test_show_tells_everything(content: Path) -> None:
    done = tokrig(content, "show", "20261122", columns=100)
    assert done.exit_code == 0, done.stderr
    for words in (
        *("Tiny · Q4_K_M", "llama.cpp (cpu)", "complete, valid", "quick, 2026-11-22T12:00:00Z"),
        *("chat × 1", "100.0", "500 ms", "medians of 3 requests, range, no interval"),
        *("between chunks", "TTFT, each", "(60 gaps)", "(3 requests)", "test-rig", "▄▄▄"),
    ):
        assert words in done.stdout
    assert "INVALID" not in done.stdout
    assert f"{GOOD}.yaml" in done.stderr


def test_show_speaks_in_words(tmp_path: Path) -> None:
    found = Resolved(cache_type_k="q8_0", ubatch=512, context_per_slot=6144, kv_unified=True)
    backend = record_of(three()).backend.model_copy(update={"resolved": found})
    save(tmp_path, three(), backend=backend)
    text = tokrig(tmp_path, "show", GOOD).stdout
    for words in ("KV cache type, keys    q8_0", "Micro-batch", "Slots share one cache  yes"):
        assert words in text
    assert not re.search("cache_type|Ubatch|Cache type k|Kv unified", text)


def test_show_tells_where_requests_were_sent_from(tmp_path: Path) -> None:
    record = record_of(three(), GOOD)
    assert "Sent from" not in tokrig(tmp_path, "show", str(Store(tmp_path).save(record, []))).stdout
    for nodes, told in ((3, "3 load nodes"), (1, "1 load node, 2 lost")):
        block = LoadNodes(nodes=nodes, lost=3 - nodes)
        result = record.results[0].model_copy(update={"load_nodes": block})
        path = save(tmp_path, three(), f"{GOOD}{nodes}", results=[result])
        shown = tokrig(tmp_path, "show", str(path)).stdout
        assert re.search(rf"^Sent from +{told}$", shown, re.MULTILINE)


def test_show_explains_what_is_wrong(content: Path) -> None:
    done = tokrig(content, "show", SLOW)
    assert "INVALID" in done.stdout
    assert "cached_tokens: the engine reused cached prompt tokens" in done.stdout


def test_show_a_failure_with_its_log(content: Path) -> None:
    done = tokrig(content, "show", FOREIGN)
    assert done.exit_code == 0, done.stderr
    assert "failed: engine_died: it died" in done.stdout
    assert "| words" in done.stdout
    assert "incomplete" in done.stdout


def test_show_skipped_shapes_errata_and_notes(tmp_path: Path) -> None:
    skipped = Skipped(workload="rag", concurrency=1, code="context_too_small", message="too long")
    erratum = Erratum(date="2026-11-30", field="rig.cpu", text="was another one")
    save(tmp_path, three(), skipped=[skipped], errata=[erratum], notes="fans at full speed")
    text = tokrig(tmp_path, "show", GOOD).stdout
    assert "not measured: rag × 1: too long" in text
    assert "erratum 2026-11-30, rig.cpu: was another one" in text
    assert "fans at full speed" in text


def test_show_without_samples_falls_back_on_the_record(content: Path) -> None:
    Store(content).samples_path(GOOD).unlink()
    done = tokrig(content, "show", GOOD)
    assert done.exit_code == 0
    assert "no charts" in done.stderr
    assert "p50 10 ms" in done.stdout
    assert "500 ms … 500 ms … 500 ms" in done.stdout


def test_show_by_path_from_anywhere(content: Path, tmp_path: Path) -> None:
    path = next(Store(content).iter_paths())
    done = tokrig(tmp_path / "elsewhere", "show", str(path))
    assert done.exit_code == 0, done.stderr


def test_show_json_is_the_record(content: Path) -> None:
    data = json.loads(tokrig(content, "show", GOOD, "--json").stdout)
    assert Record.model_validate(data) == Store(content).read(Store(content).find(GOOD))


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_result_table_does_not_wrap(content: Path, columns: int) -> None:
    done = tokrig(content, "show", GOOD, columns=columns)
    table = [line for line in done.stdout.splitlines() if "chat × 1  " in line]
    assert all(len(line) <= columns for line in table)
    # Narrow terminals get two tables instead of broken cells.
    assert len(table) == (1 if columns == 200 else 2)
    assert "valid" in table[0]
    assert "…" not in "".join(table)


# check


def edited(content: Path, change: Callable[[str], str], run_id: str = GOOD) -> Path:
    path = Store(content).find(run_id)
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    path.write_text(after, encoding="utf-8")
    return path


def test_check_of_honest_records_passes(content: Path) -> None:
    done = tokrig(content, "check")
    assert done.exit_code == 0, done.stdout
    assert "3 records: 1 valid, 0 unverified, 2 INVALID, 0 broken" in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 5, "a line a record, and the summary"
    assert any(line.startswith("INVALID") and line.endswith("  cached_tokens") for line in lines)
    told = tokrig(content, "check", "--verbose").stdout
    assert "INVALID: cached_tokens" in told
    assert "the engine reused cached prompt tokens" in told


def test_check_finds_a_median_edited_by_hand(content: Path) -> None:
    path = edited(content, lambda text: text.replace("median: 100", "median: 120", 1))
    done = tokrig(content, "check")
    assert done.exit_code == 1
    assert f"broken     {path}" in done.stdout
    assert "chat × 1: output_tok_per_s.median is 120" in done.stdout
    assert "the samples give 100" in done.stdout
    assert "1 broken" in done.stdout


def test_check_finds_a_verdict_that_was_polished(content: Path) -> None:
    def polish(text: str) -> str:
        return text.replace("verdict: invalid", "verdict: valid").replace(
            "reasons: [cached_tokens]", "reasons: []"
        )

    edited(content, polish, SLOW)
    done = tokrig(content, "check", SLOW)
    assert done.exit_code == 1
    assert "chat × 1: validity.verdict is valid, the samples give invalid" in done.stdout
    assert "validity.reasons is empty, the samples give cached_tokens" in done.stdout


def test_check_finds_a_run_more_valid_than_its_results(tmp_path: Path) -> None:
    save(tmp_path, three(cached_tokens=9), validity=Validity(verdict="valid"))
    done = tokrig(tmp_path, "check")
    assert done.exit_code == 1
    assert "validity.verdict is valid, the results give invalid" in done.stdout


def test_check_finds_a_result_left_out(tmp_path: Path) -> None:
    samples = [*three(), *three(workload="rag")]
    record = record_of(three(), GOOD)
    Store(tmp_path).save(record, samples)
    done = tokrig(tmp_path, "check")
    assert done.exit_code == 1
    assert "rag × 1: there are samples, but no result" in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("schema: 2", "schema: 99", 1), "newer than this tokrig reads"),
        (lambda text: text.replace("status:", "staus:", 1), ":6: unknown key 'staus'"),
        (lambda text: text + "tail: [\n", "while parsing"),
        (
            lambda text: text.replace(f"id: {GOOD}", "id: another", 1),
            "does not match the file name",
        ),
        (
            lambda text: text.replace("id: test-rig", "id: moved", 1),
            "does not match the folder name",
        ),
    ],
)
def test_check_names_what_is_broken(content: Path, change: Callable[[str], str], says: str) -> None:
    path = edited(content, change)
    done = tokrig(content, "check")
    assert done.exit_code == 1
    assert says in done.stdout
    assert str(path) in done.stdout
    assert "3 records: 0 valid, 0 unverified, 2 INVALID, 1 broken" in done.stdout


def test_check_misses_lost_samples(content: Path) -> None:
    Store(content).samples_path(GOOD).unlink()
    done = tokrig(content, "check", GOOD)
    assert done.exit_code == 1
    assert "no samples of run" in done.stdout
    assert "hint: " in done.stdout


TRANSCRIBED = Provenance(kind="transcribed", source="a published page")
UNSEEN = Validity(verdict="valid", unchecked=["samples"])
BARE = Cell(
    workload=WorkloadFacts(name="chat"),
    concurrency=1,
    validity=UNSEEN,
    output_tok_per_s=Summary(median=761.9),
    ttft_s=Summary(median=0.5),
)


def transcribed(folder: Path, **changes: Any) -> Path:
    """A record of bare medians without samples."""
    data: dict[str, Any] = {"provenance": TRANSCRIBED, "results": [BARE], "validity": UNSEEN}
    path = save(folder, [], **(data | changes))
    Store(folder).samples_path(GOOD).unlink()
    return path


def test_transcribed_records_need_no_samples(tmp_path: Path) -> None:
    transcribed(tmp_path)
    done = tokrig(tmp_path, "check")
    assert done.exit_code == 0, done.stdout
    assert "1 unverified" in done.stdout
    assert "  samples" in done.stdout.splitlines()[0]
    assert "unchecked: samples" in tokrig(tmp_path, "check", "-v").stdout


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"results": [BARE.model_copy(update={"validity": Validity(verdict="valid")})]},
            "chat × 1: there are no samples, and validity.unchecked does not say so",
        ),
        ({"validity": Validity(verdict="valid")}, "unchecked is empty, the results give samples"),
        ({"status": "interrupted"}, "verdict is valid, the results give invalid"),
        ({"provenance": started("2026-11-22T12:00:00Z")}, "no samples of run"),
    ],
)
def test_without_samples_nothing_counts_as_checked(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    transcribed(tmp_path, **changes)
    done = tokrig(tmp_path, "check")
    assert done.exit_code == 1
    assert says in done.stdout


def test_bare_medians_are_shown_without_a_range(tmp_path: Path) -> None:
    transcribed(tmp_path)
    done = tokrig(tmp_path, "show", GOOD)
    assert done.exit_code == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("chat × 1 "))
    assert row.split()[3:6] == ["761.9", "–", "500"]
    assert "transcribed: medians; the number of requests is not known" in done.stdout
    assert "TTFT            500 ms\n" in done.stdout
    assert "761.9" in tokrig(tmp_path, "list").stdout


def test_a_shape_without_a_chart_has_no_heading(tmp_path: Path) -> None:
    transcribed(tmp_path, results=[BARE.model_copy(update={"ttft_s": None})])
    assert "chat × 1\n" not in tokrig(tmp_path, "show", GOOD).stdout


def test_check_refuses_a_measured_median_without_its_range(content: Path) -> None:
    edited(content, lambda text: re.sub(r"(median: 100[.\d]*), min: .*", r"\1}", text, count=1))
    done = tokrig(content, "check", GOOD)
    assert done.exit_code == 1
    for name in ("min", "max", "n"):
        assert f"output_tok_per_s.{name} is missing, the samples give" in done.stdout


def test_check_takes_folders_files_and_ids(content: Path, tmp_path: Path) -> None:
    path = Store(content).find(GOOD)
    for words in ([str(path)], [GOOD], [str(path.parent)], [str(content)], [str(path), GOOD]):
        done = tokrig(tmp_path / "elsewhere" if words != [GOOD] else content, "check", words[0])
        assert done.exit_code == 0, done.stdout + done.stderr
        assert f"valid      {path}" in done.stdout


def test_facts_about_models_are_no_records(content: Path) -> None:
    (content / "models").mkdir()
    (content / "models" / "gemma.yaml").write_text("family: Gemma\n")
    assert "3 records" in tokrig(content, "check", str(content)).stdout


def test_check_of_nothing(tmp_path: Path) -> None:
    done = tokrig(tmp_path, "check")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no records in" in done.stderr


def test_check_json(content: Path) -> None:
    edited(content, lambda text: text.replace("median: 100", "median: 120", 1))
    done = tokrig(content, "check", "--json")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert data["ok"] is False
    by_id = {record["id"]: record for record in data["records"]}
    assert by_id[GOOD]["outcome"] == "broken"
    [problem] = [p for p in by_id[GOOD]["problems"] if "output_tok_per_s.median" in p]
    assert re.search(rf"{GOOD}\.yaml:\d+: chat × 1: ", problem)
    assert by_id[SLOW]["validity"]["reasons"] == ["cached_tokens"]
    assert "cached" in data["codes"]["cached_tokens"]


# doctor, rig


def test_doctor_tells_what_is_here_and_what_is_missing(tmp_path: Path) -> None:
    done = tokrig(tmp_path / "content", "doctor")
    assert done.exit_code == 0, done.stdout
    for word in ("backends", "embedded", "llamacpp", "smollm2-135m", "linux", "state folder"):
        assert word in done.stdout
    data = json.loads(tokrig(tmp_path / "content", "doctor", "--json").stdout)
    assert {f["group"] for f in data["findings"]} >= {
        *("backends", "models", "probes", "permissions")
    }
    assert all(f["ok"] or f["hint"] or f["detail"] for f in data["findings"])


def test_doctor_fails_where_nothing_can_be_measured(tmp_path: Path) -> None:
    (tmp_path / "content").write_text("a file")
    done = tokrig(tmp_path / "content", "doctor")
    assert done.exit_code == 1
    assert "is no folder" in done.stdout
    assert "choose another folder with --content" in done.stdout


def test_rig(tmp_path: Path) -> None:
    done = tokrig(tmp_path, "rig", "probe")
    assert done.exit_code == 0
    assert "Processor" in done.stdout
    data = json.loads(tokrig(tmp_path, "rig", "--json").stdout)
    assert data["memory_bandwidth"] is None
    assert data["rig"]["id"] in done.stdout


def test_instrument_measures_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path / "state"))
    words = ("instrument", "--streams", "1,2", "--tokens", "50", "--interval", "0.002")
    done = tokrig(tmp_path, *words, "--no-ceiling")
    assert done.exit_code == 0, done.stderr
    assert "stamp p50" in done.stdout
    assert "2 streams of 50 tokens every 2 ms: 1,000 tok/s" in done.stderr
    assert not (tmp_path / "state").exists()
    monkeypatch.setattr("tokrig.run.instrument.LADDER", (1000,))
    data = json.loads(tokrig(tmp_path, *words, "--quick", "--json", "--even-if-busy").stdout)
    assert [load["streams"] for load in data["loads"]] == [2]
    assert data["loads"][0]["client_us_per_token"] > 0
    assert data["ladder"][0]["streams"] == 64
    # On a busy machine it may be true at no rate; then nothing is kept.
    assert (tmp_path / "state").exists() == bool(data["ceiling"])


def test_what_a_busy_machine_gives_is_told_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("tokrig.run.instrument.LADDER", (1000,))
    monkeypatch.delenv("TOKRIG_EVEN_IF_BUSY", raising=False)
    monkeypatch.setattr("tokrig.run.monitor.load", lambda: Load(cores=2.0, cpus=2))
    done = tokrig(tmp_path, "instrument", "--quick", "--streams", "1")
    assert "no, unless --even-if-busy: 2.0 of 2 cores are busy" in done.stdout
    assert not (tmp_path / "state").exists()
