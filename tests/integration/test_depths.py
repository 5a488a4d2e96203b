"""Cells at a depth through the real command line, against the simulated server, which reads at a
known rate, remembers what it has read, and does not tell its context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import Home
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

PREFILL = 20_000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left()


def measured(home: Home, *words: str, **made: Any) -> tuple[dict[str, Any], str]:
    paced = {"ttft_s": 0.01, "itl_s": 0.002, "prefill_tok_per_s": PREFILL, "slots": 1}
    with simulated(Simulation(**{**paced, **made})) as server:
        done = home.in_process("run", "--url", f"http://127.0.0.1:{server.port}", *words)
    assert done.code == 0, done.err
    assert home.checks()
    [record] = home.records()
    return record, done.err


def test_each_depth_is_read_anew_at_the_rate_of_the_engine(home: Home) -> None:
    """One cache over all requests has the context of the variant from the warm-up on."""
    record, _ = measured(home, "--depth", "0,2k,8k", cache="all", timings=True)
    results = {result.get("depth_tokens", 0): result for result in record["results"]}
    assert [*results] == [0, 2048, 8192]
    for depth, result in results.items():
        assert result["workload"]["name"] == "chat"
        assert result["cached_tokens"] == 0
        assert "cached_tokens" not in result["validity"].get("reasons", [])
        assert "prompt_length" not in result["validity"].get("reasons", [])
        read = result["prompt_tokens"]["median"]
        assert read == pytest.approx(64 + depth, rel=0.01, abs=2)
        assert result["ttft_s"]["min"] >= read / PREFILL
    for depth in (2048, 8192):  # beside it every request has 10 ms of its own
        rate = results[depth]["prefill_tok_per_s"]["median"]
        assert rate == pytest.approx(PREFILL, rel=0.5)


def test_a_depth_that_a_silent_server_refuses_is_left_out_in_its_words(home: Home) -> None:
    record, said = measured(home, "--depth", "0,2k,16k", context=8192)
    assert "the server does not tell its context" in said
    assert [result.get("depth_tokens", 0) for result in record["results"]] == [0, 2048]
    [skipped] = record["skipped"]
    assert (skipped["depth_tokens"], skipped["code"]) == (16384, "context_too_small")
    assert "maximum context length is 8192 tokens" in skipped["message"]
