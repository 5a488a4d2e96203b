"""What figures show of each other: intervals of ratios, the exact test, ranks with ties. Pure.

docs/methodology.md, *Statistics*, has the rules; ``site/static/compare.js`` repeats those of
ratios in the browser.

The units are starts of the engine: requests inside one start share its memory layout, its clocks
and its luck. Of six to ten values the percentile bootstrap of a median tells too narrow an
interval, so the interval of a ratio is Welch's (1947) of the logarithms of the starts' medians:
exact for log-normal spreads, and on the safe side for heavier tails (docs/decisions/0012).

The test is Wilcoxon's (1945; Mann and Whitney 1947): all C(n_a + n_b, n_a) ways of handing out
the labels count as equally likely, and the two-sided p-value is the share of them whose rank sum
lies at least as far from its mean as the one that was found. Ranks, because an outlier stays,
and because seconds and their inverse have to give the same answer. The smallest p-value is
2 / C(2n, n): 0.1 with 3 repeats, 0.029 with 4, 0.0079 with 5, 0.0022 with 6, 0.000011 with 10.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from statistics import fmean, median
from typing import Literal

from tokrig.record.block import Summary
from tokrig.record.model import Record, Result
from tokrig.store.load import Row

# With fewer starts there is a range, and no interval.
STARTS_NEEDED = 6
# The chance of calling a difference real that is not: that of a 95 % interval.
LEVEL = Fraction(1, 20)
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
    starts, repeats = record.provenance.server_starts, result.repeats
    return starts if starts is None or repeats is None else min(starts, repeats)


def of_starts(metric: Summary, starts: int | None) -> Spread | None:
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


def of_interval(metric: Summary, starts: int | None) -> Spread | None:
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
    half = critical(_freedom(mine, other), tests) * math.sqrt(error)
    centre = mine.mean - other.mean
    return math.exp(centre - half), math.exp(centre + half)


def welch_p(mine: Spread, other: Spread) -> float:
    """The two-sided p-value of two geometric means that are the same: ``ratio_interval`` of one
    test excludes 1 where it is below 5 %."""
    apart, error = abs(mine.mean - other.mean), mine.error + other.error
    if error == 0:
        return 0.0 if apart else 1.0
    return max(0.0, beyond(apart / math.sqrt(error), _freedom(mine, other)))


def _freedom(mine: Spread, other: Spread) -> int:
    """Welch's degrees of freedom, rounded down."""
    error = mine.error + other.error
    freedom = error**2 / sum(one.error**2 / (one.count - 1) for one in (mine, other))
    # A hair more, so that rounding cannot cost a whole degree.
    return math.floor(freedom + 1e-9)


@lru_cache(maxsize=4096)
def critical(freedom: int, tests: int = 1) -> float:
    """Student's t that a true zero exceeds, either way, in 5 % / ``tests`` of all cases."""
    low, high, level = 0.0, 2.0, float(LEVEL) / tests
    while beyond(high, freedom) > level:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle, freedom) > level else (low, middle)
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


# (t) Ratios nearer to 1 than this are noise, whatever their intervals say.
SMALLEST_EFFECT = 0.02
# (t) An interval that reaches farther from 1 than this has not shown that there is no difference.
WIDEST = 0.05
NO_INTERVAL = "the figures of the single starts are not in the record: measure it again"

Span = tuple[float, float]
Verdict = Literal["faster", "slower", "not_distinguishable", "inconclusive", "none"]
Basis = Literal["starts", "intervals", "none"]


@dataclass(frozen=True)
class Side:
    """A figure and of how many starts of the engine it is; None where nobody knows."""

    metric: Summary
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
    spreads = _spreads(of, reference)
    if spreads is None:
        enough = min(of.starts or 0, reference.starts or 0) >= STARTS_NEEDED
        settle = NO_INTERVAL if enough else too_few(reference.starts, of.starts)
        return Ratio(value, None, None, "inconclusive", "none", settle)
    basis, mine, other = spreads
    interval = ratio_interval(mine, other, tests)
    if basis == "intervals" and of.metric.ci95 and reference.metric.ci95:
        # The ends divided: wider than the ratio's own interval, it errs towards no difference.
        low, high = reference.metric.ci95
        interval = of.metric.ci95[0] / high, of.metric.ci95[1] / low
    found = judged(value, interval, mine, other, tests, least, higher_is_better=higher_is_better)
    return replace(found, basis=basis)


def judged(
    value: float,
    interval: Span,
    mine: Spread,
    other: Spread,
    tests: int,
    least: float,
    *,
    higher_is_better: bool,
) -> Ratio:
    """What a ratio and its interval show."""
    # A median may lie outside of an interval of means.
    low, high = min(interval[0], value), max(interval[1], value)
    verdict: Verdict = "inconclusive"
    settle = ""
    if max(value, 1 / value) - 1 > least and (low > 1 or high < 1):
        verdict = "faster" if (value > 1) == higher_is_better else "slower"
    elif max(high, 1 / low) - 1 <= max(WIDEST, least):
        verdict = "not_distinguishable"
    else:
        settle = more(mine, other, value, least, tests)
    return Ratio(value, low, high, verdict, "starts", settle)


def more(mine: Spread, other: Spread, value: float, least: float, tests: int) -> str:
    """About how many starts would settle what is inconclusive, if these are like the next ones.

    The ratio that was seen is to be shown in 80 of 100 trials; where it is within the smallest
    effect, the interval is to be narrow enough instead.
    """
    seen = abs(math.log(value))
    is_apart = math.expm1(seen) > least
    room = math.log1p(max(WIDEST, least)) - seen
    both = math.sqrt(mine.deviation**2 + other.deviation**2)
    for count in range(max(mine.count, other.count) + 1, MOST_STARTS + 1):
        quantile, error = critical(2 * count - 2, tests), both / math.sqrt(count)
        if (quantile + POWER_80) * error <= seen if is_apart else quantile * error <= room:
            return f"about {count} starts on each side"
    return f"more than {MOST_STARTS} starts on each side"


def decided(of: Side | None, reference: Side | None) -> bool:
    """Whether the ratio of two figures has an interval of its own: such are counted as tests."""
    if of is None or reference is None:
        return False
    return all(of_starts(side.metric, side.starts) for side in (of, reference))


def too_few(a: int | None, b: int | None) -> str:
    """What would settle the difference of two figures of so few starts."""
    told = (f"{side} {'unknown' if n is None else n}" for side, n in (("A", a), ("B", b)))
    return f"engine starts: {', '.join(told)}; {STARTS_NEEDED} are needed on each side"


def _spreads(of: Side, reference: Side) -> tuple[Basis, Spread, Spread] | None:
    """What is known of the starts of both, of one kind; None where there were fewer than six."""
    if min(of.starts or 0, reference.starts or 0) < STARTS_NEEDED:
        return None
    kinds: tuple[tuple[Basis, Callable[[Summary, int | None], Spread | None]], ...] = (
        ("starts", of_starts),
        ("intervals", of_interval),
    )
    for basis, spread in kinds:
        mine, other = (spread(side.metric, side.starts) for side in (of, reference))
        if mine and other:
            return basis, mine, other
    return None


# The exact test


def aa_noise(*arms: Sequence[float]) -> Fraction | None:
    """Median of larger / smaller - 1 over consecutive values of the same arm; None without any."""
    consecutive = [
        Fraction(max(pair)) / Fraction(min(pair)) - 1
        for values in arms
        for pair in itertools.pairwise(values)
    ]
    return median(consecutive) if consecutive else None


def permutation_p(a: Sequence[float], b: Sequence[float]) -> Fraction:
    """Two-sided exact p-value of the rank sum over all C(n_a + n_b, n_a) relabelings, equal values
    sharing their mean rank."""
    together = sorted([*a, *b])
    # Doubled, so that a mean rank is a whole number.
    ranks = {x: bisect_left(together, x) + bisect_right(together, x) + 1 for x in together}
    chosen, of = len(b), len(together)
    mean = chosen * (of + 1)
    distance = abs(sum(ranks[x] for x in b) - mean)
    ways = _rank_sums(tuple(ranks[x] for x in together), chosen)
    as_far = sum(count for total, count in enumerate(ways) if abs(total - mean) >= distance)
    return Fraction(as_far, math.comb(of, chosen))


@lru_cache(maxsize=64)
def _rank_sums(ranks: tuple[int, ...], chosen: int) -> tuple[int, ...]:
    """How many ways to choose so many of the ranks add up to 0, 1, 2 …

    The coefficients of y^chosen in the product of (1 + y x^rank): for each power of y one long
    integer whose digits, wide enough for any count, are the coefficients of the powers of x.
    """
    width = math.comb(len(ranks), chosen).bit_length() // 8 + 1
    ways = [1] + [0] * chosen
    for rank in ranks:
        for size in range(chosen, 0, -1):
            ways[size] += ways[size - 1] << (8 * width * rank)
    digits = ways[chosen].to_bytes(width * (sum(ranks) + 1), "little")
    return tuple(
        int.from_bytes(digits[at : at + width], "little") for at in range(0, len(digits), width)
    )


def smallest_p(a: int, b: int) -> Fraction:
    """The p-value of arms of so many values, all different, that do not overlap: the least."""
    return min(Fraction(1), Fraction(2, math.comb(a + b, a)))


def holm(p_values: Sequence[Fraction]) -> list[Fraction]:
    """Holm's step-down correction: the smallest of m p-values times m, the next one times m - 1 …,
    none below the one before it. It bounds the chance of any false one, however they depend."""
    adjusted = [Fraction(1)] * len(p_values)
    reached = Fraction(0)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for place, index in enumerate(order):
        reached = max(reached, min(Fraction(1), (len(order) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted


def repeats_needed(tests: int) -> int:
    """The fewest repeats with which one of so many tests can show a difference at all."""
    return next(n for n in itertools.count(1) if tests * smallest_p(n, n) <= LEVEL)


# Ranks

# (t) Two single starts that lie 2 % around their mean differ by more than this in 3 of 100 cases.
UNKNOWN_SPREAD = 0.06


def tie_span(side: Side | None) -> Span | None:
    """What a figure covers; None without a usable figure.

    From six starts on the 95 % interval around its median, at least 1 % to either side, so that
    differences within 2 % tie. With fewer the spread between starts is not known: 3 % to either
    side, and all single values.
    """
    if side is None or not usable(side.metric.median):
        return None
    metric, spread = side.metric, of_starts(side.metric, side.starts)
    half = math.log1p(SMALLEST_EFFECT) / 2
    values: list[float] = []
    if spread is not None:
        half = max(half, critical(spread.count - 1) * math.sqrt(spread.error))
    elif (side.starts or 0) >= STARTS_NEEDED and of_interval(metric, side.starts) and metric.ci95:
        values += metric.ci95
    else:
        half = math.log1p(UNKNOWN_SPREAD) / 2
        values += [one for one in (metric.min, metric.max) if one is not None and usable(one)]
    low, high = metric.median / math.exp(half), metric.median * math.exp(half)
    return min(low, *values, high), max(low, *values, high)


def rank_words(spans: Iterable[Span]) -> list[str]:
    """Ranks of figures sorted from the best on: ``1``, ``2=``, ``2=``, ``4``.

    A figure joins the group before it while it ties with every member of that group; the first
    that does not leads a group of its own.
    """
    leaders: list[int] = []
    lowest = highest = 0.0  # the part that all of the group share
    for place, (low, high) in enumerate(spans):
        if leaders and max(lowest, low) <= min(highest, high):
            lowest, highest = max(lowest, low), min(highest, high)
            leaders.append(leaders[-1])
        else:
            lowest, highest = low, high
            leaders.append(place)
    sizes = Counter(leaders)
    return [f"{lead + 1}=" if sizes[lead] > 1 else f"{lead + 1}" for lead in leaders]


def ties(rows: Sequence[Row]) -> list[str]:
    """Ranks of rows sorted by gen tok/s, fastest first, over the whole list.

    Only valid results have a rank, so that nothing unverified stands before one of them; where
    none is valid the unverified ones are ranked among themselves. All others get "".
    """
    is_any_valid = any(row.result.validity.word == "valid" for row in rows)
    ranked = "valid" if is_any_valid else "unverified"
    spans: list[Span | None] = []
    for row in rows:
        figure = row.result.output_tok_per_s if row.result.validity.word == ranked else None
        starts = starts_of(row.run.record, row.result)
        spans.append(tie_span(Side(figure, starts)) if figure else None)
    words = iter(rank_words(filter(None, spans)))
    return [next(words) if span else "" for span in spans]
