"""``tokrig run`` without an engine: what is asked for, kept, resumed, told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.unit import quantize_tool
from tests.unit.records import record_of
from tests.unit.samples import sample
from tests.unit.test_gguf import Meta, gguf
from tokrig import measure
from tokrig.cli.main import main
from tokrig.errors import EngineDied, EngineError, PutOff, StoreError
from tokrig.models import hub, shelf
from tokrig.models.hub import Listing
from tokrig.naming import Reference
from tokrig.quants import Size
from tokrig.record.model import Failure, Rig, Skipped
from tokrig.run import journal, quantize
from tokrig.run.execute import Find, Outcome
from tokrig.run.journal import CellRecord, Journal, Observed
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener, Note, RunBegan
from tokrig.store import Store

ENDPOINT = ("--url", "http://127.0.0.1:9", "--served-model", "tiny", "--workload", "chat,rag")
SAMPLES = [replace(sample(), iteration=i, sent_ns=i * 10**9) for i in range(3)]


@dataclass
class Bench:
    """The command line with an ``execute`` of our own behind it."""

    folder: Path
    runs: list[Prepared] = field(default_factory=list)
    cells: int = 2
    error: EngineError | None = None
    interrupt: Callable[[], None] | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> Path:
        return self.folder / "content"

    def tokrig(self, *words: str, **env: str) -> Result:
        given = {
            "TOKRIG_CONTENT": str(self.content),
            "TOKRIG_STATE": str(self.folder / "state"),
            "COLUMNS": "100",
        }
        return CliRunner(env=given | env).invoke(main, words)

    def execute(
        self, prepared: Prepared, rig: Rig, kept: Journal, listen: Listener, find: Find
    ) -> Outcome:
        self.runs.append(prepared)
        listen(RunBegan(prepared.run_id, prepared.model, rig, prepared.cells, 1))
        listen(Note("something to know"))
        for cell in prepared.cells[len(kept.cells()) : self.cells]:
            kept.add(CellRecord(cell, 0, SAMPLES, Observed()))
        if self.interrupt:
            self.interrupt()
        kept.log_path.write_text("its last words")
        record = record_of(SAMPLES, prepared.run_id).model_copy(update=self.changes)
        return Outcome(record, SAMPLES, self.error)

    def unfinished(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("TOKRIG_STATE", str(self.folder / "state"))
        return journal.unfinished()

    def records(self) -> list[Path]:
        return list(Store(self.content).iter_paths())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    monkeypatch.setattr(measure, "execute", made.execute)
    monkeypatch.setattr(measure, "require_answer", lambda endpoint: None)
    return made


def interrupted() -> None:
    raise KeyboardInterrupt


def test_a_run_ends_with_the_table_and_the_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 0, done.stderr
    [path] = bench.records()
    assert f"record: {path}" in done.stderr
    assert "something to know" in done.stderr
    assert "chat × 1" in done.stdout
    assert "quick: medians of 3 requests, range, no interval" in done.stdout
    assert str(path) not in done.stdout
    assert bench.unfinished(monkeypatch) == []
    assert bench.tokrig("check").exit_code == 0


def test_quiet_says_nothing_but_the_table(bench: Bench) -> None:
    done = bench.tokrig("run", *ENDPOINT, "--quiet")
    assert done.stderr == ""
    assert "chat × 1" in done.stdout


def test_json_is_one_document(bench: Bench) -> None:
    done = bench.tokrig("run", *ENDPOINT, "--json")
    data = json.loads(done.stdout)
    assert data["path"] == str(bench.records()[0])
    assert data["record"]["schema"] == 2
    assert data["record"]["results"][0]["workload"]["name"] == "chat"


def test_a_shape_left_out_is_told(bench: Bench) -> None:
    skipped = Skipped(workload="rag", concurrency=1, code="context_too_small", message="too long")
    bench.changes["skipped"] = [skipped]
    assert "not measured: rag × 1: too long" in bench.tokrig("run", *ENDPOINT).stdout


def test_a_failed_run_is_stored_and_exits_3(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prepared: Prepared, rig: Rig, kept: Journal, listen: Listener, find: Find) -> Outcome:
        outcome = bench.execute(prepared, rig, kept, listen, find)
        return replace(outcome, error=EngineDied("it died", hint=f"its log: {kept.log_path}"))

    monkeypatch.setattr(measure, "execute", fail)
    failure = Failure(code="engine_died", message="it died")
    bench.changes |= {"status": "failed", "failure": failure}
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 3
    assert "error: it died" in done.stderr
    assert "chat × 1" in done.stdout, "what was measured before is shown"
    assert len(bench.records()) == 1
    log = Path(done.stderr.partition("its log: ")[2].splitlines()[0])
    assert log.read_text() == "its last words", "the hint leads to a log that is there"
    assert bench.unfinished(monkeypatch) == []
    assert json.loads(bench.tokrig("run", *ENDPOINT, "--json").stdout)["error"]["code"] == (
        "engine_died"
    )


def test_interrupted_before_the_first_result_keeps_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.cells, bench.interrupt = 0, interrupted
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 130
    assert "nothing is kept" in done.stderr
    assert bench.unfinished(monkeypatch) == []


def test_interrupted_later_can_be_resumed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.cells, bench.interrupt = 1, interrupted
    done = bench.tokrig("run", *ENDPOINT, "--notes", "first words")
    assert done.exit_code == 130
    [run_id] = bench.unfinished(monkeypatch)
    assert "interrupted: 1 of 2 results are kept" in done.stderr
    assert f"tokrig run --resume {run_id}" in done.stderr
    assert bench.records() == []

    bench.cells, bench.interrupt = 2, None
    done = bench.tokrig("run", "--resume", "--patience", "7", TOKRIG_CONTENT="/nowhere")
    assert done.exit_code == 0, done.stderr
    assert [path.stem for path in bench.records()] == [run_id]
    first, again = bench.runs
    assert (again.run_id, again.spec.notes) == (run_id, "first words")
    assert again.started == first.started.replace(microsecond=0)
    assert again.spec.patience_s == 7
    assert bench.unfinished(monkeypatch) == []


def test_resume_may_write_elsewhere(bench: Bench) -> None:
    bench.cells, bench.interrupt = 1, interrupted
    bench.tokrig("run", *ENDPOINT)
    bench.interrupt = None
    other = bench.folder / "other"
    assert bench.tokrig("run", "--resume", "--content", str(other)).exit_code == 0
    assert len(list(Store(other).iter_paths())) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_signal_is_an_interruption(bench: Bench, name: str) -> None:
    number = getattr(signal, name)
    bench.cells, bench.interrupt = 1, lambda: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 130
    assert "1 of 2 results are kept" in done.stderr
    assert signal.getsignal(number) is before


def test_nohup_is_respected(bench: Bench) -> None:
    bench.interrupt = lambda: os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert bench.tokrig("run", *ENDPOINT).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def unfinished_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    bench.cells, bench.interrupt = 1, interrupted
    bench.tokrig("run", *ENDPOINT)
    bench.interrupt = None
    return bench.folder / "state" / "runs" / bench.unfinished(monkeypatch)[0]


def test_a_new_run_mentions_the_unfinished_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = unfinished_run(bench, monkeypatch)
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 0
    assert f"{left.name} (1 result)" in done.stderr
    assert "tokrig run --resume ID" in done.stderr
    assert "tokrig run --discard ID" in done.stderr


def test_discard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    left = unfinished_run(bench, monkeypatch)
    wrong = bench.tokrig("run", "--discard", left.name[:-1] + "x")
    assert wrong.exit_code == 2
    assert f"did you mean {left.name!r}?" in wrong.stderr
    assert bench.tokrig("run", "--discard", left.name).exit_code == 0
    assert not left.exists()


def test_nothing_to_resume(bench: Bench) -> None:
    done = bench.tokrig("run", "--resume")
    assert done.exit_code == 2
    assert "there is no unfinished run" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model_sha256", "00" * 32, "the model's file changed"),
        ("methodology", 0, "the methodology changed"),
        ("rig", "another", "the machine changed"),
        ("workloads", {"chat": "0"}, "the text of workload 'chat'"),
    ],
)
def test_resume_never_mixes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, key: str, value: object, says: str
) -> None:
    left = unfinished_run(bench, monkeypatch)
    facts = json.loads((left / "run.json").read_text())
    (left / "run.json").write_text(json.dumps(facts | {key: value}))
    done = bench.tokrig("run", "--resume", left.name)
    assert done.exit_code == 2
    assert says in done.stderr
    assert f"tokrig run --discard {left.name}" in done.stderr
    assert len(bench.runs) == 1, "nothing was measured"
    assert left.exists(), "nothing was lost"


@pytest.mark.parametrize("text", ["{}", '{"spec": {"modle": "x"}, "started": "2026-11-22"}', "{"])
def test_a_damaged_journal_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    left = unfinished_run(bench, monkeypatch)
    (left / "run.json").write_text(text)
    done = bench.tokrig("run", "--resume", left.name)
    assert done.exit_code == 2
    assert done.stderr.count("error:") == 1
    assert "bug" not in done.stderr


def test_a_record_that_cannot_be_saved_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise StoreError("No space left on device", hint="free some space")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", refuse)
        done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 2
    [run_id] = bench.unfinished(monkeypatch)
    assert f"free some space; then go on with: tokrig run --resume {run_id}" in done.stderr
    assert bench.tokrig("run", "--resume", run_id).exit_code == 0
    assert len(bench.records()) == 1


def test_a_folder_that_cannot_be_written_shows_before_measuring(bench: Bench) -> None:
    bench.content.write_text("a file")
    done = bench.tokrig("run", *ENDPOINT)
    assert done.exit_code == 2
    assert "is no folder" in done.stderr
    assert "--content" in done.stderr
    assert bench.runs == []


def test_a_wrong_key_in_a_spec_is_named_with_its_line(bench: Bench) -> None:
    spec = bench.folder / "spec.yaml"
    spec.write_text("backend: openai\nurl: http://127.0.0.1:9\nworkload: [chat]\n")
    done = bench.tokrig("run", str(spec))
    assert done.exit_code == 2
    assert f"{spec}:3: unknown key 'workload'" in done.stderr
    assert "did you mean 'workloads'?" in done.stderr


def test_a_refusal_names_what_the_user_wrote(bench: Bench) -> None:
    """The key and its line where the file has it, the option where that was typed."""
    spec = bench.folder / "spec.yaml"
    spec.write_text("backend: transformers\nbatch: 256\n")
    of_file = bench.tokrig("run", str(spec), "--dry-run").stderr
    assert f"has no switch for batch ({spec}:2)\n" in of_file
    assert "hint: leave batch out, or take another backend" in of_file
    typed = bench.tokrig("run", str(spec), "--dry-run", "--batch", "128").stderr
    assert "has no switch for --batch\nhint: leave --batch out" in typed


def test_options_win_over_the_spec(bench: Bench) -> None:
    spec = bench.folder / "spec.yaml"
    spec.write_text("url: http://127.0.0.1:9\nworkloads: [chat]\nseed: 5\nnotes: from the file\n")
    done = bench.tokrig(
        *("run", str(spec), "--workload", "rag", "--workload", "agent,codegen"),
        *("--concurrency", "1,2", "--seed", "6"),
    )
    assert done.exit_code == 0, done.stderr
    asked = bench.runs[0].spec
    assert asked.backend == "openai", "an address means a running server"
    assert asked.workloads == ["rag", "agent", "codegen"]
    assert asked.concurrency == [1, 2]
    assert (asked.seed, asked.notes) == (6, "from the file")


def test_a_binary_means_llamacpp(bench: Bench) -> None:
    done = bench.tokrig("run", "--server-bin", "no-such-server", "--model", "smollm2-135m")
    assert done.exit_code == 2
    assert "no runnable llama-server at 'no-such-server'" in done.stderr


def test_a_dry_run_of_the_real_model_starts_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--model", "smollm2-135m", "--workload", "chat,agent", "--dry-run")
    done = bench.tokrig(*words, "--option", "ubatch=256", "--option", "flash_attention=on")
    assert done.exit_code == 0, done.stderr
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" in done.stdout
    assert "backends.embedded" in done.stdout
    assert "2048 tokens in each of 4 slots" in done.stdout
    assert bench.runs == []
    assert not bench.content.exists()
    assert bench.unfinished(monkeypatch) == []

    plan = json.loads(bench.tokrig(*words, "--json", "--level", "standard").stdout)
    assert plan["server_starts"] == 6
    agent = plan["cells"][-1]
    assert (agent["workload"], agent["concurrency"]) == ("agent", 4)
    assert (agent["requests"], agent["warmup_requests"]) == (72, 24)


def test_a_dry_run_tells_what_would_be_fetched_and_fetches_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing_of(asked: Reference) -> Listing:
        raise PutOff("the hub cannot be reached")

    def resolve(*_: object, **__: object) -> None:
        raise AssertionError("it would be fetched")

    monkeypatch.setattr(hub, "listing_of", listing_of)
    monkeypatch.setattr(shelf, "resolve", resolve)
    monkeypatch.setattr(shelf, "known_size", lambda reference: Size(5 << 30))
    model = "hf:owner/name@main/big-Q4_K_M.gguf"
    words = ("run", "--model", model, "--workload", "chat", "--dry-run")
    done = bench.tokrig(*words, "--quantize", "Q2_K", "--kv-type", "q8_0", COLUMNS="200")
    assert done.exit_code == 0, done.stderr
    assert f"{model}, 5.00 GiB: not here yet" in done.stdout
    assert "Q2_K, once the model is here" in done.stdout
    assert "q8_0" in done.stdout
    plan = json.loads(bench.tokrig(*words, "--json").stdout)
    assert plan["fetch"] == [{"model": model, "bytes": 5 << 30}]
    assert (plan["command"], plan["run_id"], plan["model"]) == (None, None, model)
    assert plan["server_starts"] == 1
    assert [cell["workload"] for cell in plan["cells"]] == ["chat"]


def test_a_dry_run_makes_no_quant(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZE_CALLS", str(bench.folder / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.folder / "cache"))
    monkeypatch.setenv("TOKRIG_LLAMA_QUANTIZE", str(quantize_tool.put(bench.folder)))
    source = bench.folder / "tiny-f16.gguf"
    meta: dict[str, Meta] = {"general.architecture": "llama", "general.file_type": 1}
    source.write_bytes(gguf(meta, (("output.weight", (32, 4), 1, 256),)))
    words = ("run", "--model", str(source), "--quantize", "q8_0", "--dry-run", "--power-cap", "99")
    done = bench.tokrig(*words, COLUMNS="200")
    assert done.exit_code == 0, done.stderr
    assert "Q8_0, from tiny-f16.gguf by llama-quantize b11434: about " in done.stdout
    assert "99 W on every graphics card" in done.stdout
    plan = json.loads(bench.tokrig(*words, "--json").stdout)
    assert plan["quantize"]["made"] is False
    assert plan["model_file"] == "tiny-Q8_0-b11434.gguf"
    assert "tiny-Q8_0-b11434.gguf" in " ".join(plan["command"])
    assert plan["mode"] == "cap-99w"
    assert not (bench.folder / "calls").exists()

    quantize.made(source, "Q8_0", server_bin=None)
    assert "made already" in bench.tokrig(*words, COLUMNS="200").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--power-cap", "0"), "--power-cap: should be greater than 0"),
        (("--power-cap", "much"), "'much' is not a valid float"),
        (("--kv-type", "q8"), "does not take 'q8' for --kv-type"),
        (("--quantize", "Q8_0", "--backend", "ollama"), "models of its own store"),
    ],
)
def test_what_cannot_be_asked_for(bench: Bench, words: tuple[str, ...], says: str) -> None:
    done = bench.tokrig("run", "--model", "smollm2-135m", "--dry-run", *words)
    assert done.exit_code == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("option", "typed", "offered"),
    [("--quantize", "Q4_K", "Q4_K_M"), ("--kv-type", "q8", "q8_0")],
)
def test_the_shell_offers_quants_and_kv_types(option: str, typed: str, offered: str) -> None:
    command = main.get_command(click.Context(main), "run")
    assert command is not None
    parameter = next(p for p in command.params if option in p.opts)
    found = parameter.shell_complete(click.Context(command), typed)
    assert offered in [item.value for item in found]


def test_a_dry_run_knows_what_will_not_fit(bench: Bench) -> None:
    words = ("run", "--model", "smollm2-135m", "--context", "512", "--dry-run")
    plan = json.loads(bench.tokrig(*words, "--json").stdout)
    assert {c["workload"]: c["fits_context"] for c in plan["cells"]} == {
        "chat": True,
        "rag": False,
        "codegen": False,
        "agent": False,
    }
    assert "context too small" in bench.tokrig(*words).stdout


def test_a_dry_run_tells_how_many_turns_of_a_session_fit(bench: Bench) -> None:
    words = ("run", "--model", "smollm2-135m", "--workload", "session", "--dry-run")
    plan = json.loads(bench.tokrig(*words, "--context", "6000", "--json").stdout)
    [cell] = plan["cells"]
    assert (cell["turns"], cell["requests"], cell["warmup_requests"]) == (4, 4, 1)
    assert cell["fits_context"] is True
    assert "about 4 of 11 turns fit" in bench.tokrig(*words, "--context", "6000").stdout
    refused = bench.tokrig(*words, "--context", "2048")
    assert refused.exit_code == 2
    assert (
        "first 2 turns need about 2,429 tokens of context, and a slot has 2,048" in refused.stderr
    )
    assert "all 11 turns need about 18,241: give more with --context" in refused.stderr
    # The model was made for 8,192 tokens: a slot gets all of them.
    whole = json.loads(bench.tokrig(*words, "--json").stdout)
    assert (whole["context_per_slot"], whole["cells"][0]["turns"]) == (8192, 6)


def test_engine_options_keep_their_kind(bench: Bench) -> None:
    given = ("whole=1", "part=1.5", "yes=true", "no=False", "word=on", "equal=x=y", "empty=")
    words = [word for pair in given for word in ("--option", pair)]
    done = bench.tokrig("run", *ENDPOINT, *words)
    assert "--option: a server that is already running" in done.stderr
    binary = bench.folder / "llama-server"
    flags = [f"{name} N" for name in ("model", "host", "port", "ctx-size", "parallel", "threads")]
    flags += ["whole N", "part N", "yes", "no", "word W", "equal E", "empty E"]
    listed = "\n".join(f"--{flag}    a setting" for flag in flags)
    binary.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}\nEND\n")
    binary.chmod(0o755)
    words = [*words, "--server-bin", str(binary), "--model", "smollm2-135m", "--dry-run"]
    done = bench.tokrig("run", *words, "--json")
    command = json.loads(done.stdout)["command"]
    assert command[command.index("--whole") :] == [
        *("--whole", "1", "--part", "1.5", "--yes", "--word", "on", "--equal", "x=y"),
        *("--empty", ""),
    ]
