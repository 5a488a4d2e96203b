"""Requests that arrive by themselves, sent to a server of a known pace by the real command."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import LOAD, Home
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

# Answers have 128 tokens.
TTFT_S, ITL_S = 0.05, 0.001
SERVICE_S = TTFT_S + 127 * ITL_S


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One slot: whoever finds it taken waits."""
    with simulated(Simulation(ttft_s=TTFT_S, itl_s=ITL_S, slots=1)) as server:
        yield f"http://{server.host}:{server.port}/v1"


def measured(home: Home, url: str, *words: str) -> dict[str, Any]:
    done = home.in_process("run", "--url", url, "--even-if-busy", *words)
    assert done.code == 0, done.err
    assert home.checks()
    [record] = home.records()
    return record


def test_below_capacity_the_ttft_is_the_servers_own(home: Home, url: str) -> None:
    words = ("--rate", "2/s", "--arrival", "constant", "--duration", "6s", "--slo", "ttft=1s")
    [result] = measured(home, url, *words)["results"]
    assert result["arrivals"] == {
        "duration_s": 6.0,
        "warm_up_window_s": 1.0,
        "slo": {"ttft_s": 1.0},
    }
    found = result["open_loop"]
    assert result["requests"] == 10
    assert found["sent_per_s"] == pytest.approx(2.0)
    assert 0.9 * TTFT_S < found["ttft_s"]["p50"] < 10 * TTFT_S
    assert (found["goodput_share"], found["overloaded"], found["unfinished"]) == (1.0, False, 0)
    assert set(result["validity"].get("reasons", [])) <= LOAD


def test_above_capacity_requests_wait_for_all_that_came_before(home: Home, url: str) -> None:
    """16 a second where 5.6 can be done: the n-th waits n × (service − interval)."""
    words = ("--rate", "16/s", "--arrival", "constant", "--duration", "3s", "--slo", "ttft=2s")
    record = measured(home, url, *words)
    [result] = record["results"]
    found, interval_s = result["open_loop"], 1 / 16
    last_s = TTFT_S + 47 * (SERVICE_S - interval_s)
    assert 0.85 * last_s < found["ttft_s"]["max"] < 3 * last_s
    met = sum(TTFT_S + n * (SERVICE_S - interval_s) <= 2 for n in range(8, 48))
    assert 0 < found["goodput_share"] <= met / 40 + 0.1
    assert found["overloaded"] is True
    assert "overloaded" in record["validity"]["unverified"]


def test_a_search_killed_on_its_way_goes_on_with_the_same_rates(home: Home) -> None:
    """Capacity is 37 a second. Kill -9 after two probes."""
    with simulated(Simulation(ttft_s=0.002, itl_s=0.0002, slots=1)) as server:
        url = f"http://{server.host}:{server.port}/v1"
        words = ("--find-rate", "--rate", "16/s", "--duration", "1s", "--slo", "ttft=0.5s")
        begun = home.start("run", "--url", url, "--even-if-busy", *words)
        home.wait_for_cells(2)
        begun.send_signal(signal.SIGKILL)
        begun.communicate()
        done = home.in_process("run", "--resume", "--even-if-busy")
    assert done.code == 0, done.err
    assert "2 of them kept" in done.err
    assert home.checks()
    [record] = home.records()
    [limit] = record["rate_limits"]
    rates = [result["rate_per_s"] for result in record["results"]]
    assert {16.0, 32.0} <= set(rates) or {16.0, 8.0} <= set(rates)
    assert rates == sorted(rates)
    assert limit["rates"] == len(rates)
    assert limit["rate_per_s"] in rates
    assert 4 <= limit["rate_per_s"] < limit["missed_per_s"] <= 64
    assert "requests/s meet TTFT ≤ 500 ms" in done.out


def test_a_trace_is_sent_as_it_was(home: Home, url: str) -> None:
    """Of its lengths, at its times, stretched to twice the time."""
    (home.root / "trace.csv").write_text(
        "timestamp,input,output\n0,100,20\n0.2,400,40\n1.0,100,20\n2.0,1000,10\n"
    )
    with contextlib.chdir(home.root):
        record = measured(home, url, "--trace", "trace.csv", "--rate", "0.75/s")
    [result] = record["results"]
    assert (result["load"], result["rate_per_s"], result["requests"]) == ("trace", 0.75, 2)
    told = result["arrivals"]["trace"]
    assert (told["file"], told["format"], told["requests"]) == ("trace.csv", "csv", 4)
    assert "answer_tokens" not in result["workload"]
    assert result["output_tokens"] == {"median": 15.0, "min": 10.0, "max": 20.0, "n": 2}
    prompts = result["prompt_tokens"]
    assert (prompts["min"], prompts["max"]) == (
        pytest.approx(100, rel=0.05),
        pytest.approx(1000, rel=0.05),
    )
    assert set(result["validity"].get("reasons", [])) <= LOAD


def test_what_cannot_be_asked_is_one_message(home: Home, url: str) -> None:
    for words, why in (
        (("--slo", "ttft=0.5"), "--slo: ttft=0.5 has no unit: write ttft=0.5s or ttft=0.5ms"),
        (("--find-rate",), "--find-rate looks for the highest rate that meets an SLO"),
        (("--rate", "9000/s"), "540,000 requests at 9000/s for 60 s, and 50,000 are the limit"),
        (("--rate", "1/s", "--concurrency", "1,2"), "one number"),
        (
            ("--rate", "500/s", "--workload", "codegen"),
            "500 requests/s of codegen for 60 s are answers of 30,720,000 tokens, and 5,000,000",
        ),
        (("--trace", "none.csv"), "cannot read the trace none.csv: No such file or directory"),
    ):
        done = home.in_process("run", "--url", url, *words)
        assert done.code == 2
        assert why in done.err
        assert len(done.err.splitlines()) <= 2
