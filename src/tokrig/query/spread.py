"""How far the starts of an engine lie apart, and what that leaves open of a ratio. Pure.

The units are starts: requests inside one start share its memory layout, its clocks and its luck.
Of six to ten values the percentile bootstrap of a median tells too narrow an interval, so the
interval of a ratio is Welch's (1947) of the logarithms of the starts' medians: exact for
log-normal spreads, and on the safe side for heavier tails (docs/decisions/0012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from tokrig.record.model import Metric, Record, Result

# With fewer starts there is a range, and no interval.
STARTS_NEEDED = 6
LEVEL = 0.05
# Of a 95 % interval of the normal distribution, and of a difference found four times of five.
NORMAL_95 = 1.959964
POWER_80 = 0.841621
MOST_STARTS = 100


@dataclass(frozen=True)
class Spread:
    """The logarithms of ``count`` starts' medians: their mean and standard deviation."""

    mean: float
    deviation: float
    count: int

    @property
    def error(self) -> float:
        """Squared standard error of the mean."""
        return self.deviation**2 / self.count


def starts_of(record: Record, result: Result) -> int | None:
    """How many starts of the engine a result's figures are of; None where nobody knows.

    A server that tokrig only attached to has one, whatever the number of repeats.
    """
    if record.backend.managed is False:
        return 1
    counts = (record.provenance.server_starts, result.repeats)
    known = [count for count in counts if count is not None]
    return min(known) if counts[0] is not None else None


def of_starts(metric: Metric, starts: int | None) -> Spread | None:
    """The spread between the starts that a record tells one by one; None where it does not, or
    where there were fewer than six."""
    values = metric.starts
    if min(len(values), starts or 0) < STARTS_NEEDED or not usable(*values):
        return None
    return of_values(values)


def of_values(values: Sequence[float]) -> Spread:
    """The spread of at least two values."""
    logs = [math.log(value) for value in values]
    mean = fmean(logs)
    squares = math.fsum((one - mean) ** 2 for one in logs)
    return Spread(mean, math.sqrt(squares / (len(logs) - 1)), len(logs))


def of_interval(metric: Metric, starts: int | None) -> Spread | None:
    """The same from a 95 % interval, which older records have instead."""
    if metric.ci95 is None or starts is None or not usable(metric.median, *metric.ci95):
        return None
    low, high = metric.ci95
    if low > high:
        return None
    error = math.log(high / low) / 2 / NORMAL_95
    return Spread(math.log(metric.median), error * math.sqrt(starts), starts)


def usable(*values: float) -> bool:
    """Whether values can be divided: no rate or time of a machine lies beyond these bounds."""
    return all(1e-12 < value < 1e12 for value in values)


def ratio_interval(mine: Spread, other: Spread, tests: int) -> tuple[float, float]:
    """Welch's interval of the ratio of two geometric means; over ``tests`` of them together all
    are right in 95 of 100 cases (Bonferroni)."""
    error = mine.error + other.error
    if error == 0:
        ratio = math.exp(mine.mean - other.mean)
        return ratio, ratio
    freedom = error**2 / sum(one.error**2 / (one.count - 1) for one in (mine, other))
    # A hair more, so that rounding cannot cost a whole degree.
    half = critical(math.floor(freedom + 1e-9), tests) * math.sqrt(error)
    centre = mine.mean - other.mean
    return math.exp(centre - half), math.exp(centre + half)


def starts_needed(
    mine: Spread, other: Spread, tests: int, *, apart: float, room: float
) -> int | None:
    """About how many starts of each side settle it, with these spreads; None for more than 100.

    ``apart`` is the logarithm of the ratio that was seen, to be shown in 80 of 100 trials; where
    it is 0, within the smallest effect, ``room`` is how wide half the interval may be instead.
    """
    both = math.sqrt(mine.deviation**2 + other.deviation**2)
    for count in range(max(mine.count, other.count) + 1, MOST_STARTS + 1):
        quantile, error = critical(2 * count - 2, tests), both / math.sqrt(count)
        if (quantile + POWER_80) * error <= apart if apart else quantile * error <= room:
            return count
    return None


@lru_cache(maxsize=4096)
def critical(freedom: int, tests: int = 1) -> float:
    """Student's t that a true zero exceeds, either way, in 5 % / ``tests`` of all cases."""
    low, high = 0.0, 2.0
    while beyond(high, freedom) > LEVEL / tests:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle, freedom) > LEVEL / tests else (low, middle)
    return (low + high) / 2


def beyond(t: float, freedom: int) -> float:
    """Chance of a value farther from zero than ``t`` under Student's t distribution.

    Closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 if odd else 1, freedom - 2, 2):
        term *= cosine * cosine * power / (power + 1)
        total += term
    within = math.sin(angle) * total
    return 1 - (2 / math.pi * (angle + within) if odd else within)
