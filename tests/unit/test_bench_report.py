"""The page of bench/instrument, from figures that are made up."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.instrument import report
from bench.instrument.__main__ import PEERS
from bench.instrument.figures import Usage, figures
from bench.instrument.loads import CEILING, FAST, LOADS, START, Truth
from bench.instrument.peers import Reading
from bench.instrument.report import Facts

FACTS = Facts(
    "2026-11-28",
    "a processor",
    "Linux",
    {peer.title: "1.0" for peer in PEERS.values()},
    {"AIPerf": "no room"},
    {"server": 0, "client": 1},
)
USAGE = Usage(cpu_s=3.0, peak_bytes=10**8, start_s=0.4)


def truth(streams: int = 2, tokens: int = 101, gap_ns: int = 1_000_000) -> Truth:
    sent = [np.arange(tokens) * gap_ns + 50_000_000 for _ in range(streams)]
    zero = np.zeros(streams, dtype=np.int64)
    closed = np.array([one[-1] for one in sent])
    return Truth(zero, closed, 0, sent, [one - 2_000 for one in sent])


def one(tool: str, repeat: int, load: str = FAST, **changed: float) -> dict[str, Any]:
    was = truth()
    reading = Reading(was.ttft_s + 0.001, was.gaps_s * 1.01)
    found = figures(LOADS[load], was, reading, USAGE)
    return {
        "tool": tool,
        "load": load,
        "repeat": repeat,
        "means": False,
        "foreign": 0.0,
        "command": f"{tool} --port PORT",
        "figures": found | changed,
    }


def test_errors_are_what_a_tool_says_less_what_the_server_did() -> None:
    found = figures(LOADS[FAST], truth(), Reading(truth().ttft_s + 0.002, truth().gaps_s), USAGE)
    assert found["ttft_p50_ms"] == pytest.approx(2)
    assert found["ttft_p99_ms"] == pytest.approx(2)
    assert found["itl_p99_ms"] == pytest.approx(0, abs=1e-9)
    slower = figures(LOADS[FAST], truth(), Reading(truth().ttft_s, truth().gaps_s * 1.5), USAGE)
    assert slower["itl_mean_percent"] == pytest.approx(50)
    assert slower["itl_p99_ms"] == pytest.approx(0.5)
    assert slower["itl_p99_percent"] == pytest.approx(50)
    assert slower["late_p99_us"] == pytest.approx(2)


def test_the_ceiling_lasts_until_all_is_read() -> None:
    was = truth()
    later = replace(was, closed=was.closed + 100_000_000)
    assert figures(LOADS[CEILING], later, None, USAGE)["taken_per_s"] == pytest.approx(202 / 0.2)


def test_the_page_has_medians_spreads_and_ratios_by_repeat() -> None:
    runs = [
        *(one("tokrig", n, ttft_p50_ms=ms) for n, ms in enumerate((0.1, 0.2, 0.4))),
        *(one("vllm", n, ttft_p50_ms=ms) for n, ms in enumerate((10, 10, 10))),
    ]
    page = report.page(FACTS, runs, [PEERS["tokrig"], PEERS["vllm"]], [LOADS[FAST]])
    assert "| tokrig | +0.20 (+0.10 to +0.40) |" in page
    assert "| vllm bench serve | +10.00, × 50 (25 to 100) |" in page
    assert "| 64 streams: TTFT p50 within 0.1 ms | 0.20 | **no** |" in page
    best = "| 64 streams: TTFT p50 at most 1/20 of the best peer's | 0.20; vllm bench serve 10.00 |"
    assert f"{best} yes |" in page
    assert "- AIPerf is left out: no room" in page
    assert "nan" not in page


def test_what_a_token_costs_beyond_the_start() -> None:
    runs = [
        one("tokrig", 0, tokens=200_000, cpu_s=3.0, peak_bytes=120_000_000),
        one("tokrig", 0, START, tokens=1_600, cpu_s=1.016, peak_bytes=100_160_000),
    ]
    page = report.page(FACTS, runs, [PEERS["tokrig"]], [LOADS[FAST], LOADS[START]])
    assert "| tokrig | 15.0 | 10.0 | 100 | – | 0.40 |" in page


def test_means_of_requests_are_not_the_best_p99() -> None:
    runs = [
        one("tokrig", 0, itl_p99_ms=0.04),
        one("vllm", 0, itl_p99_ms=4.0),
        one("guidellm", 0, itl_p99_ms=0.01) | {"means": True},
    ]
    peers = [PEERS[name] for name in ("tokrig", "vllm", "guidellm")]
    page = report.page(FACTS, runs, peers, [LOADS[FAST]])
    assert "1/10 of the best peer's | 0.040; vllm bench serve 4.000 | yes |" in page
    assert "Not ranked by its p99" in page


def test_what_failed_and_what_was_disturbed_is_told() -> None:
    runs = [
        one("tokrig", 0) | {"foreign": 0.31},
        {"tool": "c", "load": FAST, "repeat": 0, "failed": "it ended with 3: no luck"},
    ]
    page = report.page(FACTS, runs, [PEERS["tokrig"], PEERS["c"]], [LOADS[FAST]])
    assert "failed: it ended with 3: no luck" in page
    assert "in 1 of 1 runs other programs had more than 5% of the tool's processor" in page
    assert "(tokrig, *fast*, repeat 1: 31%)" in page
    assert "| C client | – | – |" in page
