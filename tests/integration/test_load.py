"""Ladders and sustained loads against a simulated server, whose slots and pace are known."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli import LOAD, Home
from tokrig.simulate.process import Simulated, simulated
from tokrig.simulate.simulation import Simulation
from tokrig.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def server() -> Iterator[Simulated]:
    """128 tokens take a quarter of a second; a fifth request waits."""
    with simulated(Simulation(ttft_s=0.02, itl_s=0.002, slots=4)) as found:
        yield found


def words(server: Simulated, *more: str) -> tuple[str, ...]:
    return ("run", "--url", f"http://127.0.0.1:{server.port}", "--even-if-busy", *more)


def test_a_ladder_that_is_killed_goes_on_with_its_steps_and_ends_where_requests_wait(
    home: Home, server: Simulated
) -> None:
    process = home.start(*words(server, "--concurrency", "ladder"))
    home.wait_for_cells(2)
    process.kill()
    process.communicate()
    kept = (home.state / "runs" / home.unfinished()[0] / "cells.jsonl").read_bytes()
    done = home.in_process("run", "--resume", "--even-if-busy")
    assert done.code == 0, done.err
    assert "the ladder of chat ends at 8: more requests would wait for a slot" in done.err
    [record] = home.records()
    [ladder] = record["ladders"]
    assert ladder == {
        "workload": "chat",
        "steps": [1, 2, 4, 8],
        "most": 64,
        "ended_by": "slots",
        "knee": 4,
    }
    assert "concurrency_not_reached" in record["results"][-1]["validity"]["reasons"]
    assert set(record["validity"].get("reasons", [])) <= LOAD
    assert home.checks()
    # What was there before is what stands in the record.
    assert kept.count(b"\n") >= 2
    [path] = home.record_paths()
    found = Store(home.content).read_samples(path.stem)
    ones = [s for s in found if s.concurrency == 1 and s.phase == "measured"]
    assert all(s.salt.encode() in kept for s in ones)
    path.write_text(path.read_text().replace("knee: 4", "knee: 2"))
    assert not home.checks()
    shown = home.in_process("show", path.stem)
    assert "4 knee" in shown.out or "2 knee" in shown.out


def test_a_sustained_load_lasts_and_its_rate_is_known(home: Home, server: Simulated) -> None:
    done = home.in_process(*words(server, "--sustain", "4s", "--concurrency", "2"))
    assert done.code == 0, done.err
    [record] = home.records()
    [result] = record["results"]
    found = result["sustained"]
    # 128 tokens in 20 ms and 127 steps of 2 ms, of two workers.
    assert found["tok_per_s_last"] == pytest.approx(2 * 128 / 0.274, rel=0.5)
    assert found["last_over_first"] == pytest.approx(1, abs=0.5)
    assert len(found["tok_per_s"]) == 4
    assert result["load"] == "sustained"
    assert 10 <= result["requests"] <= 34
    assert set(record["validity"].get("reasons", [])) <= LOAD
    assert home.checks()


def test_one_that_is_ended_early_is_kept_as_what_it_was(home: Home, server: Simulated) -> None:
    process = home.start(*words(server, "--sustain", "10m", "--concurrency", "2"))
    assert process.stderr is not None
    line = next(line for line in process.stderr if "measuring" in line)
    assert "chat, sustained × 2" in line
    time.sleep(2)  # it measures meanwhile
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    [record] = home.records()
    assert record["status"] == "interrupted"
    assert "incomplete" in record["validity"]["reasons"]
    assert 0 < record["results"][0]["sustained"]["seconds"] < 300
    assert "chat, sustained × 2" in out
    assert home.unfinished() == []
    assert home.checks()
