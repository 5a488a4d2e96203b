"""Sessions through the real command line, against the simulated server with a prefix cache in each
slot, and against the embedded engine: what engines say they had cached is what messages share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import Home, is_sound
from tokrig.record.samples import Sample
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation
from tokrig.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left()


def served(home: Home, *words: str, **made: Any) -> list[dict[str, Any]]:
    fast = {"ttft_s": 0.002, "itl_s": 0.002, "prefill_tok_per_s": 100_000, "slots": 2}
    with simulated(Simulation(**{**fast, **made})) as server:
        url = f"http://127.0.0.1:{server.port}"
        done = home.in_process("run", "--url", url, "--workload", "session", *words)
    assert done.code == 0, done.err
    assert home.checks()
    [record] = home.records()
    results: list[dict[str, Any]] = record["results"]
    return results


def samples(home: Home) -> list[Sample]:
    [record] = home.records()
    return Store(home.content).read_samples(record["id"])


def test_what_is_cached_is_what_turns_share(home: Home) -> None:
    one, two = served(home, "--concurrency", "1,2", cache="slot")
    assert (one["load"], one["concurrency"], two["concurrency"]) == ("session", 1, 2)
    for result, sessions in ((one, 1), (two, 2)):
        found = result["session"]
        assert (found["turns"], found["sessions"]) == (11, sessions)
        assert found["hit_rate"] == pytest.approx(found["reusable_share"], abs=0.002)
        assert found["hit_rate"] > 0.8
        assert found["by_turn"][0]["cached_tokens"] <= 8
        assert not {"cached_tokens", "warm_first_turn"} & {*result["validity"].get("reasons", [])}
    walked = [s for s in samples(home) if s.concurrency == 2 and s.phase == "measured"]
    # Each worker sends its own session in order, a turn when the one before has been answered.
    for worker in (0, 1):
        mine = [s for s in walked if s.worker == worker]
        assert [s.iteration for s in mine] == list(range(11))
        assert {s.variant for s in mine} == {worker}
        assert len({s.salt for s in mine}) == 1
        for before, after in pairwise(mine):
            assert after.sent_ns >= before.sent_ns + before.chunks[-1].t_ns
    assert {s.output_tokens for s in walked} == {64, 256}
    assert len({s.salt for s in samples(home)}) == 2 * (1 + 2)  # warm-ups and sessions


def test_an_engine_without_a_cache_reads_every_prompt_whole(home: Home) -> None:
    [result] = served(home, cache="off")
    assert result["session"].get("hit_rate", 0.0) == 0.0
    shown = home.in_process("show", home.records()[0]["id"])
    assert "the engine has no prompt cache, or it is switched off" in shown.out


def test_a_killed_run_goes_on_with_the_session_that_is_left(home: Home) -> None:
    slow = Simulation(ttft_s=0.002, itl_s=0.006, slots=2, cache="slot")
    with simulated(slow) as server:
        url = f"http://127.0.0.1:{server.port}"
        words = ("run", "--url", url, "--workload", "session", "--concurrency", "1,2")
        process = home.start(*words)
        home.wait_for_cells(1)
        process.kill()
        process.communicate()
        done = home.in_process("run", "--resume")
    assert done.code == 0, done.err
    assert home.checks()
    [record] = home.records()
    assert [(r["concurrency"], r["session"]["sessions"]) for r in record["results"]] == [
        (1, 1),
        (2, 2),
    ]


@pytest.mark.engine
@pytest.mark.alone
def test_the_embedded_engine_counts_what_messages_share(home: Home, shallow: Path) -> None:
    """Two turns in a small context, of two sessions: slots keep them apart by themselves."""
    done = home.tokrig(
        *("run", "--model", str(shallow), "--workload", "session", "--concurrency", "2"),
        *("--context", "2560"),
        env={"OMP_WAIT_POLICY": "passive"},
    )
    assert done.code == 0, done.err
    assert "2 of 11 turns fit into a context of 2560 tokens" in done.err
    assert home.checks()
    [record] = home.records()
    [result] = record["results"]
    assert is_sound(result["validity"]), result["validity"]
    assert result["workload"]["turn_answer_tokens"] == [64, 64]
    assert (result["session"]["turns"], result["session"]["sessions"]) == (2, 2)
    template = record["backend"]["prompting"]["template_tokens"]
    measured = [s for s in samples(home) if s.phase == "measured"]
    for worker in (0, 1):
        first, second = [s for s in measured if s.worker == worker]
        assert (first.cached_tokens or 0) <= template
        # An answer may begin as the written one does.
        assert -4 <= (first.prompt_tokens or 0) - (second.cached_tokens or 0) <= template
