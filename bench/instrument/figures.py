"""What one run of one tool showed, against the truth of its server."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.instrument.loads import CEILING, Load, Truth, Values
from bench.instrument.peers import Reading


@dataclass(frozen=True)
class Usage:
    """What the tool's processes took, all together: CPU seconds, peak bytes of memory, and the
    seconds from its start to when the server had its first request."""

    cpu_s: float
    peak_bytes: int
    start_s: float


def figures(load: Load, truth: Truth, reading: Reading | None, usage: Usage) -> dict[str, float]:
    """By name, with the unit in it. Errors are what the tool says − what the server did: of the
    percentile of all requests or all gaps, so that they need no matching. Without a reading (the
    tool was only timed) there are none."""
    found = {
        "tokens": truth.tokens,
        "cpu_s": usage.cpu_s,
        "peak_bytes": usage.peak_bytes,
        "start_s": usage.start_s,
        "late_p50_us": _percentile(truth.late_s, 50) * 1e6,
        "late_p99_us": _percentile(truth.late_s, 99) * 1e6,
        "blocked": truth.blocked,
    }
    if load.name == CEILING:
        return found | {"taken_per_s": truth.taken_per_s}
    if reading is None:
        return found
    said, was = reading.gaps_s, truth.gaps_s
    p99 = _percentile(was, 99)
    p99_error = _percentile(said, 99) - p99
    return found | {
        "ttft_p50_ms": (_percentile(reading.ttft_s, 50) - _percentile(truth.ttft_s, 50)) * 1e3,
        "ttft_p99_ms": (_percentile(reading.ttft_s, 99) - _percentile(truth.ttft_s, 99)) * 1e3,
        "itl_mean_percent": (float(np.mean(said)) / float(np.mean(was)) - 1) * 100,
        "itl_p99_ms": p99_error * 1e3,
        "itl_p99_percent": p99_error / p99 * 100,
    }


def _percentile(values: Values, which: float) -> float:
    return float(np.percentile(values, which))
