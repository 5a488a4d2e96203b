"""The highest rate that meets an SLO: looked for probe by probe, and told by results. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tokrig.record.open_loop import SLO_SHARE
from tokrig.record.samples import Cell
from tokrig.units import significant

if TYPE_CHECKING:
    from tokrig.record.loads import RateLimit
    from tokrig.record.model import Result

# Two rates nearer than this are one; a search has so many probes at most, and goes so many times
# down to half before it gives up.
NEAR = 1.05
MOST_PROBES = 16
MOST_HALVINGS = 5
# A probe of fewer requests tells little about a share of them.
LEAST_REQUESTS = 30


def limits(probed: Mapping[float, bool]) -> tuple[float | None, float | None]:
    """The highest rate that met an SLO below all that did not, and the lowest that did not."""
    missed = min((rate for rate, met in probed.items() if not met), default=None)
    below = [r for r, met in probed.items() if met and (missed is None or r < missed)]
    return max(below, default=None), missed


def next_rate(probed: Mapping[float, bool], first: float) -> float | None:
    """The rate to try next, after those of which is known whether they met the SLO; None where the
    search is over. It depends on nothing else: the same answers lead the same way."""
    if not probed:
        return first
    low, high = limits(probed)
    if len(probed) >= MOST_PROBES:
        return None
    if high is None:
        assert low is not None
        return 2 * low
    if low is None:
        return high / 2 if high / 2 * 2**MOST_HALVINGS >= first else None
    return None if high <= NEAR * low else significant(math.sqrt(low * high), 4)


def same_load(one: Cell, other: Cell) -> bool:
    """Whether two cells differ in their rate alone."""
    return replace(one, rate_per_s=None) == replace(other, rate_per_s=None)


def meets(result: Result) -> bool | None:
    """Whether the SLO was met and the server kept up; None where that is not known."""
    found = result.open_loop
    if found is None or found.goodput_share is None:
        return None
    return found.goodput_share >= SLO_SHARE and not found.overloaded


def rate_limits(results: Iterable[Result]) -> list[RateLimit]:
    """One for each load that was measured at several rates under an SLO."""
    from tokrig.record.loads import RateLimit

    loads: dict[Cell, dict[float, bool]] = {}
    for result in results:
        if result.rate_per_s is not None and (met := meets(result)) is not None:
            load = replace(result.cell, rate_per_s=None)
            loads.setdefault(load, {})[result.rate_per_s] = met
    found = []
    for load, probed in loads.items():
        low, high = limits(probed)
        if len(probed) > 1:
            told = vars(load) | {"rate_per_s": low}
            found.append(RateLimit(**told, missed_per_s=high, rates=len(probed)))
    return found
