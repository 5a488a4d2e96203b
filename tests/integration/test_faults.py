"""Every way an engine or a server can fail ends in one readable message, a hint, the right exit
code, no half-written file and no orphan, and what was measured before is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cli import FAKE, Home, faulty, is_sound


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left(), "an engine outlived its run"
    assert not [f for f in home.files() if ".tmp" in f], "a half-written file was left"


def test_a_sound_run_is_valid_and_checks(home: Home) -> None:
    done = home.tokrig(*faulty("", "--api", "cpu"))
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["status"] == "complete"
    assert is_sound(record["validity"])
    assert "quality" not in record and not (home.content / "benchmarks" / "quality").exists()
    assert record["results"][0]["output_tokens"]["median"] == 128
    # The fake's log says that the weights are in main memory, whatever is asked.
    assert (record["backend"]["api"], record["backend"]["api_asked"]) == ("cpu", "cpu")
    assert home.checks()
    assert home.unfinished() == []


def test_level_standard_has_six_server_starts_and_intervals(home: Home) -> None:
    done = home.in_process(*faulty("", "--level", "standard"))
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["provenance"]["server_starts"] == 6
    [result] = record["results"]
    assert (result["repeats"], result["requests"]) == (6, 18)
    metric = result["output_tok_per_s"]
    low, high = metric["ci95"]
    assert metric["min"] <= low <= metric["median"] <= high <= metric["max"]
    assert result["system_tok_per_s"]["n"] == 6
    assert home.checks()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("exit-at-start", "made to fail"),
        ("http-500", "made to answer 500"),
        ("http-429", "retry after 1 s"),
        ("http-401", "made to answer 401"),
        ("no-tokens", "carried no token"),
        ("cut", "middle of its answer"),
        ("invalid-json", "not JSON"),
        ("error-event", "slot was lost"),
        ("die", "killed by SIGKILL"),
        ("other-model", "changed its model during the run: 'another'"),
    ],
)
def test_a_failing_engine_leaves_a_failed_record(home: Home, fault: str, says: str) -> None:
    done = home.in_process(*faulty(fault))
    assert done.code == 3, done.err
    assert says in done.err
    assert "hint:" in done.err
    assert "Traceback" not in done.err
    assert ("--api-key-env" in done.err) == (fault == "http-401")
    [record] = home.records()
    assert record["status"] == "failed"
    assert says in record["failure"]["message"]
    assert record["validity"]["verdict"] == "invalid"
    assert home.checks(), "an honest failure is no broken record"
    assert home.unfinished() == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("never-ready", ("--patience", "1")),
        ("hang", ("--request-timeout", "1")),
        ("stall", ("--request-timeout", "1")),
    ],
)
def test_a_hanging_engine_runs_out_of_patience(
    home: Home, fault: str, words: tuple[str, ...]
) -> None:
    began = time.monotonic()
    done = home.in_process(*faulty(fault, *words))
    assert done.code == 3, done.err
    assert time.monotonic() - began < 300
    assert "hint:" in done.err


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("cached", "cached_tokens"),
        ("lying-usage", "count_mismatch"),
        ("slow-clock", "clock_mismatch"),
        ("negative-clock", "timings_impossible"),
        ("no-clock", "timings_impossible"),
        ("not-resident", "not_resident"),
        ("short-answer", "output_length"),
    ],
)
def test_figures_that_would_lie_are_marked_invalid(home: Home, fault: str, code: str) -> None:
    done = home.in_process(*faulty(fault))
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["status"] == "complete"
    assert record["validity"]["verdict"] == "invalid"
    assert code in record["results"][0]["validity"]["reasons"]
    assert code in done.out + done.err


def test_a_server_that_counts_nothing_is_unverified_not_refused(home: Home) -> None:
    done = home.in_process(*faulty("no-tokenizer"))
    assert done.code == 0, done.err
    [result] = home.records()[0]["results"]
    assert "prompt_length_unverified" in result["validity"]["unverified"]
    # As many chunks as were asked for, of an answer that ended for its length.
    assert result["token_count_source"] == "length"


def test_a_death_between_cells_keeps_the_cells_before(home: Home) -> None:
    """Probe, warm-up and three requests of chat are five; the engine dies in codegen."""
    done = home.in_process(*faulty("die=6", "--workload", "codegen"))
    assert done.code == 3, done.err
    [record] = home.records()
    assert record["status"] == "failed"
    assert [r["workload"]["name"] for r in record["results"]] == ["chat"]
    assert home.checks()


def test_a_shape_too_long_for_the_context_is_refused_and_the_rest_measured(home: Home) -> None:
    done = home.in_process(*faulty("", "--workload", "rag", "--context", "512"))
    assert done.code == 0, done.err
    assert "context" in done.err
    [record] = home.records()
    assert [r["workload"]["name"] for r in record["results"]] == ["chat"]
    assert record["skipped"][0]["workload"] == "rag"


def test_a_strict_endpoint_gets_plain_requests(home: Home, tmp_path: Path) -> None:
    with attached(tmp_path, "strict") as url:
        done = home.in_process("run", "--url", url, "--model", "fake", "--workload", "chat")
    assert done.code == 0, done.err
    assert home.records()[0]["backend"]["managed"] is False
    assert url not in home.record_paths()[0].read_text()


def test_a_server_of_several_models_wants_to_know_which(home: Home, tmp_path: Path) -> None:
    with attached(tmp_path, "two-models") as url:
        unclear = home.in_process("run", "--url", url, "--workload", "chat")
        unknown = home.in_process("run", "--url", url, "--workload", "chat", "--model", "otter")
        clear = home.in_process(
            "run", "--url", url, "--workload", "chat", "--served-model", "other"
        )
    assert (unclear.code, unknown.code, clear.code) == (2, 2, 0), clear.err
    assert "fake, other" in unclear.err
    assert "--model" in unclear.err
    assert "did you mean 'other'" in unknown.err
    assert [r["model"]["family"] for r in home.records()] == ["other"]
    assert home.unfinished() == []


def test_an_attached_server_is_not_said_to_have_been_started(home: Home, tmp_path: Path) -> None:
    with attached(tmp_path, "") as url:
        done = home.in_process("run", "--url", url, "--workload", "chat", "--level", "standard")
    assert done.code == 0, done.err
    [record] = home.records()
    assert "server_starts" not in record["provenance"]
    assert record["results"][0]["repeats"] == 6
    assert home.checks()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1", "nobody answers"),
        ("http://no-such-host.invalid:8000", "nobody answers"),
        ("https://127.0.0.1:{port}", "no TLS"),
        ("http://127.0.0.1:{port}/elsewhere", "404"),
    ],
)
def test_an_address_without_a_server_is_bad_input_and_leaves_nothing(
    home: Home, tmp_path: Path, url: str, says: str
) -> None:
    with attached(tmp_path, "") as there:
        port = there.removesuffix("/v1").rpartition(":")[2]
        done = home.in_process("run", "--url", url.format(port=port), "--workload", "chat")
    assert done.code == 2, done.err
    assert says in done.err
    assert "hint:" in done.err
    assert "Traceback" not in done.err
    assert home.files() == []
    assert home.unfinished() == []


@pytest.mark.parametrize("fault", ["http-401", "http-404", "no-tokens", "hang"])
def test_a_server_that_cannot_be_measured_is_bad_input_and_leaves_nothing(
    home: Home, tmp_path: Path, fault: str
) -> None:
    with attached(tmp_path, fault) as url:
        done = home.in_process("run", "--url", url, "--workload", "chat", "--request-timeout", "1")
    assert done.code == 2, done.err
    assert "hint:" in done.err
    assert home.files() == []
    assert home.unfinished() == []


def test_a_server_that_dies_while_it_is_measured_is_a_failed_run(
    home: Home, tmp_path: Path
) -> None:
    with attached(tmp_path, "die=6") as url:
        done = home.in_process("run", "--url", url, "--workload", "chat,codegen")
    assert done.code == 3, done.err
    [record] = home.records()
    assert (record["status"], record["failure"]["code"]) == ("failed", "no_answer")
    assert [r["workload"]["name"] for r in record["results"]] == ["chat"]


def test_ctrl_c_keeps_what_was_measured_and_resume_finishes_it(home: Home) -> None:
    process = home.start(*faulty("", "--workload", "codegen"))
    home.wait_for_cells(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert home.records() == []
    assert home.no_engines_left()
    done = home.tokrig("run", "--resume")
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["status"] == "complete"
    assert [r["workload"]["name"] for r in record["results"]] == ["chat", "codegen"]
    assert record["provenance"]["server_starts"] == 2
    assert home.checks()
    assert home.unfinished() == []


def test_kill_9_at_any_moment_loses_only_the_cell_in_flight(home: Home) -> None:
    words = faulty("", "--workload", "codegen", "--concurrency", "1,2")
    kept = 0
    process = home.start(*words)
    for moment in (0.8, 1.9, 3.2):
        time.sleep(moment)
        process.kill()
        process.communicate()
        assert home.no_engines_left()
        assert not [f for f in home.files() if ".tmp" in f]
        runs = home.unfinished()
        if not runs:
            process = home.start(*words)
            continue
        cells = home.state / "runs" / runs[-1] / "cells.jsonl"
        now = cells.read_bytes().count(b"\n") if cells.exists() else 0
        assert now >= kept
        kept = now
        process = home.start("run", "--resume", runs[-1])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    [record] = home.records()
    assert len(record["results"]) == 4
    assert [r["requests"] for r in record["results"]] == [3, 6, 3, 6]
    assert home.checks()


def test_a_record_that_cannot_be_saved_keeps_the_run(home: Home) -> None:
    """Root gets a full disk, a real small tmpfs; others may not mount one and take permissions
    away instead, which root would not notice."""
    home.content.mkdir()
    broken = full_disk if os.geteuid() == 0 else not_writable
    with broken(home.content) as mend:
        done = home.in_process(*faulty())
        assert done.code == 2, done.err
        assert "No space left" in done.err or "Permission denied" in done.err
        assert "--resume" in done.err
        assert home.records() == []
        mend()
        again = home.in_process("run", "--resume")
        assert again.code == 0, again.err
        assert home.records()[0]["status"] == "complete"
        assert home.checks()


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], object]]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], check=True)
    try:
        (folder / "filler").write_bytes(b"x" * 4096)
        larger = ["mount", "-o", "remount,size=4m", str(folder)]
        yield lambda: subprocess.run(larger, check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def not_writable(folder: Path) -> Iterator[Callable[[], object]]:
    """The folder of the runs exists and takes no new file; its parents do."""
    runs = folder / "benchmarks" / "runs"
    runs.mkdir(parents=True)
    runs.chmod(0o500)
    try:
        yield lambda: runs.chmod(0o700)
    finally:
        runs.chmod(0o700)


class attached:
    """The fake server, started by somebody else."""

    def __init__(self, folder: Path, fault: str) -> None:
        self.folder, self.fault = folder, fault

    def __enter__(self) -> str:
        from tokrig.run.server import free_port

        port = free_port()
        argv = [str(FAKE), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "8192"]
        self.process = subprocess.Popen(
            [*argv, "--parallel", "1", "--fault", self.fault],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}/v1"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
