"""When requests arrive that nobody's answer triggers: pure, and the same for the same seed.

As many as rate × duration, at the times of a process that has so many in that time: by *poisson*
intervals (then they are spread like as many independent throws), by *gamma* intervals of a shape
(*burstiness*; their coefficient of variation is 1/√shape), evenly (*constant*), or by poisson
intervals of a rate that grows evenly (*ramp*). The same seed gives the same pattern at every rate,
only faster: what two rates differ in is the rate.

Random bits are PCG64's raw stream, which numpy guarantees never to change; all else is made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from tokrig.spec.arrivals import Arrival

# 2⁻⁵³: of the raw 64 bits the upper 53 make a number in [0, 1).
_STEP = 2.0**-53


def due_times(
    arrival: Arrival,
    rate_per_s: tuple[float, float],
    lasts_s: float,
    seed: int,
    burstiness: float | None = None,
) -> list[float]:
    """Seconds after the start at which requests are due, ascending, all before ``lasts_s``. A rate
    is given by its first and its last value, which differ in a ramp."""
    first, last = rate_per_s
    count = round((first + last) / 2 * lasts_s)
    if arrival == "constant":
        return [number / first for number in range(count)]
    uniform = _uniform(seed)
    shape = (burstiness or 1.0) if arrival == "gamma" else 1.0
    gap = _exponential if shape == 1.0 else _gamma
    *arrived, end = accumulate(gap(uniform, shape) for _ in range(count + 1))
    shares = [one / end for one in arrived]
    if first == last:
        return [share * lasts_s for share in shares]
    # Λ(t) = first·t + growth·t²/2 requests have arrived after t seconds: its inverse.
    growth, whole = (last - first) / lasts_s, (first + last) / 2 * lasts_s
    return [(math.sqrt(first**2 + 2 * growth * share * whole) - first) / growth for share in shares]


def _uniform(seed: int) -> Iterator[float]:
    """Numbers in (0, 1)."""
    import numpy as np

    bits = np.random.PCG64(seed)
    while True:
        for raw in bits.random_raw(1024).tolist():
            yield ((raw >> 11) + 0.5) * _STEP


def _exponential(uniform: Iterator[float], shape: float) -> float:
    return -math.log(next(uniform))


def _gamma(uniform: Iterator[float], shape: float) -> float:
    """Marsaglia and Tsang, A simple method for generating gamma variables (2000); below a shape of
    1 by their boost from one above."""
    boost = 1.0
    if shape < 1:
        boost, shape = next(uniform) ** (1 / shape), shape + 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = math.sqrt(-2 * math.log(next(uniform))) * math.cos(2 * math.pi * next(uniform))
        v = (1 + c * x) ** 3
        if v > 0 and math.log(next(uniform)) < x * x / 2 + d * (1 - v + math.log(v)):
            return d * v * boost
