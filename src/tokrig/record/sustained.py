"""Does it stay that fast? The rate of one shape that was kept going, window by window, and why it
fell. Pure: from samples and from what was seen beside them, so ``tokrig check`` finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from tokrig.record.conditions import FAULTS, LIMITS
from tokrig.record.loads import Cause, OverTime, Sustained
from tokrig.record.samples import Sample
from tokrig.units import significant

POINTS = 120
"""The most points of a series."""
LEAST_POINT_S = 1.0
WINDOW_S = 60.0
"""The first and the last minute; of shorter loads the first and the last sixth."""
RATE_FELL, CLOCKS_FELL = 0.97, 0.98
"""Last over first, below which something fell."""
_HEAT = frozenset("sw_thermal_slowdown hw_thermal_slowdown thermal".split())


def window_s(seconds: float) -> float:
    """The length of the first and of the last window."""
    return WINDOW_S if seconds >= 3 * WINDOW_S else significant(seconds / 6, 6)


def edges(seconds: float) -> list[float]:
    """Where the points begin and end, in seconds since the start."""
    step = max(LEAST_POINT_S, seconds / POINTS)
    return [*(number * step for number in range(math.ceil(seconds / step - 1e-9))), seconds]


def sustained(
    samples: Sequence[Sample], seconds: float, seen: OverTime | None = None
) -> Sustained | None:
    """The figures of a load that was kept up for ``seconds``. None where the tokens of an answer
    were not counted, or none came.

    A token counts at the stamp of its chunk; where chunks have several, each has its share of the
    answer. What came after the time was over is in no rate.
    """
    import numpy as np

    good = [s for s in samples if s.phase == "measured" and s.error is None and s.chunks]
    if not good or any(s.output_tokens is None for s in good):
        return None
    stamps_s = np.concatenate([(s.sent_ns + s.stream.times_ns()) / 1e9 for s in good])
    tokens = np.concatenate(
        [np.full(len(s.chunks), (s.output_tokens or 0) / len(s.chunks)) for s in good]
    )
    in_time = stamps_s < seconds
    stamps_s, tokens = stamps_s[in_time], tokens[in_time]
    bounds, wide = edges(seconds), window_s(seconds)

    def rate(begin: float, end: float) -> float:
        inside = (begin <= stamps_s) & (stamps_s < end)
        return significant(float(tokens[inside].sum()) / (end - begin), 6)

    counts, _ = np.histogram(stamps_s, bounds, weights=tokens)
    begin = _all_began_s(good)
    first, last = None, rate(seconds - wide, seconds)
    if begin + wide <= seconds - wide:
        first = rate(begin, begin + wide)
    ratio = significant(last / first, 6) if first else None
    seen = seen or OverTime()
    clocks = seen.gpu_clock_mhz or seen.cpu_clock_mhz
    clock = _last_over_first(clocks, bounds, begin, wide)
    return Sustained(
        seconds=seconds,
        window_s=wide,
        tok_per_s_first=first,
        tok_per_s_last=last,
        last_over_first=ratio,
        clock_last_over_first=clock,
        cause=_cause(ratio, clock, seen.reasons),
        point_s=significant(bounds[1] - bounds[0], 6),
        tok_per_s=[
            significant(float(count) / (b - a), 5)
            for count, (a, b) in zip(counts, pairwise(bounds), strict=True)
        ],
        seen=seen,
    )


def _all_began_s(good: Sequence[Sample]) -> float:
    """When every worker had the first token of its first answer."""
    first: dict[int, float] = {}
    for sample in sorted(good, key=lambda s: s.sent_ns):
        first.setdefault(sample.worker, (sample.sent_ns + sample.stream.stamps_ns[0]) / 1e9)
    return max(first.values())


def _last_over_first(
    values: Sequence[float | None], bounds: Sequence[float], begin: float, wide: float
) -> float | None:
    """The mean of the points in the last window over that in the first; None where one has none."""
    end, means = bounds[-1], []
    for low, high in ((begin, begin + wide), (end - wide, end)):
        inside = [
            value
            for value, (a, b) in zip(values, pairwise(bounds), strict=False)
            if value is not None and b > low and a < high
        ]
        means.append(sum(inside) / len(inside) if inside else 0.0)
    return significant(means[1] / means[0], 5) if all(means) else None


def _cause(rate: float | None, clock: float | None, reasons: Sequence[str]) -> Cause | None:
    """Why the clocks fell, or the rate; None where neither did."""
    words = frozenset(reasons)
    if clock is not None and clock < CLOCKS_FELL:
        if words & _HEAT:
            return "heat"
        if words & FAULTS:
            return "slowdown"
        return "power_limit" if words & LIMITS else "clocks_fell"
    if rate is not None and rate < RATE_FELL:
        return "unknown" if clock is None else "same_clocks"
    return None
