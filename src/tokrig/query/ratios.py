"""Ratios of two figures: whether one may be called faster, and what would settle it. Pure.

docs/methodology.md, *Statistics*, has the rules; ``site/static/compare.js`` repeats them in the
browser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from tokrig.query.spread import (
    STARTS_NEEDED,
    Spread,
    of_interval,
    of_starts,
    ratio_interval,
    starts_needed,
    usable,
)
from tokrig.record.model import Metric

# (t) Ratios nearer to 1 than this are noise, whatever their intervals say.
SMALLEST_EFFECT = 0.02
# (t) An interval that reaches farther from 1 than this has not shown that there is no difference.
WIDEST = 0.05
NO_INTERVAL = "the figures of the single starts are not in the record: measure it again"

Shown = Literal["faster", "slower", "not_distinguishable", "inconclusive"]
Verdict = Literal[Shown, "none"]
Basis = Literal["starts", "intervals", "none"]


@dataclass(frozen=True)
class Side:
    """A figure and of how many starts of the engine it is; None where nobody knows."""

    metric: Metric
    starts: int | None


@dataclass(frozen=True)
class Ratio:
    """A figure / the reference's. ``low`` and ``high`` exist where both sides have six starts.

    ``basis`` is what they were made of: the medians of the single starts, or the two figures' own
    intervals where a record has no more. ``settle`` says what would settle what is inconclusive,
    else it is empty. Without a value there is no verdict.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    basis: Basis
    settle: str


NO_RATIO = Ratio(None, None, None, "none", "none", "")


def ratio(
    of: Side | None,
    reference: Side | None,
    *,
    higher_is_better: bool,
    tests: int = 1,
    least: float = SMALLEST_EFFECT,
) -> Ratio:
    """``of`` / ``reference``, one of ``tests`` ratios that are read together. ``least`` is the
    smallest effect that counts: 2 %, or the noise of two runs of the same where that is more."""
    if of is None or reference is None or not usable(of.metric.median, reference.metric.median):
        return NO_RATIO
    value = of.metric.median / reference.metric.median
    if not (_enough(of.starts) and _enough(reference.starts)):
        return _open(value, _too_few(reference.starts, of.starts))
    spreads = _spreads(of, reference)
    if spreads is None:
        return _open(value, NO_INTERVAL)
    basis, mine, other = spreads
    low, high = ratio_interval(mine, other, tests)
    if basis == "intervals" and of.metric.ci95 and reference.metric.ci95:
        # The ends divided: wider than the ratio's own interval, it errs towards no difference.
        low = of.metric.ci95[0] / reference.metric.ci95[1]
        high = of.metric.ci95[1] / reference.metric.ci95[0]
    # A median may lie outside of an interval of means.
    low, high = min(low, value), max(high, value)
    verdict = judged(value, low, high, least, higher_is_better=higher_is_better)
    settle = "" if verdict != "inconclusive" else more(mine, other, value, least, tests)
    return Ratio(value, low, high, verdict, basis, settle)


def judged(value: float, low: float, high: float, least: float, *, higher_is_better: bool) -> Shown:
    """What a ratio and its interval show."""
    if max(value, 1 / value) - 1 > least and (low > 1 or high < 1):
        return "faster" if (value > 1) == higher_is_better else "slower"
    within = max(high, 1 / low) - 1 <= max(WIDEST, least)
    return "not_distinguishable" if within else "inconclusive"


def more(mine: Spread, other: Spread, value: float, least: float, tests: int) -> str:
    """How many starts would settle what is inconclusive, if these are like the next ones."""
    seen = abs(math.log(value))
    apart = seen if math.expm1(seen) > least else 0.0
    room = math.log1p(max(WIDEST, least)) - seen
    needed = starts_needed(mine, other, tests, apart=apart, room=room)
    return f"about {needed} starts on each side" if needed else "more than 100 starts on each side"


def decided(of: Side | None, reference: Side | None) -> bool:
    """Whether the ratio of two figures has an interval of its own: such are counted as tests."""
    if of is None or reference is None:
        return False
    return all(of_starts(side.metric, side.starts) for side in (of, reference))


def _enough(starts: int | None) -> bool:
    return starts is not None and starts >= STARTS_NEEDED


def _open(value: float, settle: str) -> Ratio:
    return Ratio(value, None, None, "inconclusive", "none", settle)


def _too_few(a: int | None, b: int | None) -> str:
    told = [f"{side} {'unknown' if n is None else n}" for side, n in (("A", a), ("B", b))]
    return f"starts of the engine: {', '.join(told)}; it takes {STARTS_NEEDED} on each side"


def _spreads(of: Side, reference: Side) -> tuple[Basis, Spread, Spread] | None:
    """What is known of the starts of both, of one kind."""
    kinds: tuple[tuple[Basis, Callable[[Metric, int | None], Spread | None]], ...] = (
        ("starts", of_starts),
        ("intervals", of_interval),
    )
    for basis, spread in kinds:
        mine, other = (spread(side.metric, side.starts) for side in (of, reference))
        if mine and other:
            return basis, mine, other
    return None


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean logarithm; for ratios over identical sets of shapes only."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))
