"""Ratios of two figures, whether they can be told apart, and ranks that honour ties. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tokrig.query.load import Row
from tokrig.record.model import Metric

# (t) Ratios nearer to 1 than this are noise, whatever their intervals say.
SMALLEST_EFFECT = 0.02

Verdict = Literal["faster", "slower", "not_distinguishable", "tie", "none"]
Basis = Literal["interval", "range", "medians", "none"]


@dataclass(frozen=True)
class Ratio:
    """A figure / the reference's. ``low`` and ``high`` exist where both have an interval.

    ``basis`` is what the verdict rests on: 95 % intervals, ranges of single values, or bare
    medians, where a difference under 2 % is called a tie and one above it is of unknown
    significance. Without a value there is no verdict.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    basis: Basis


NO_RATIO = Ratio(None, None, None, "none", "none")


def ratio(metric: Metric | None, reference: Metric | None, *, higher_is_better: bool) -> Ratio:
    """``metric`` / ``reference``.

    The interval is [low/reference's high, high/reference's low]: dividing the ends of two
    intervals (interval arithmetic) covers every ratio that both allow. It is wider than the
    ratio's own 95 % interval, so it never finds a difference that is not there.
    """
    if metric is None or reference is None or not usable(metric.median, reference.median):
        return NO_RATIO
    value = metric.median / reference.median
    basis, mine, other = _spreads(metric, reference)
    low = high = None
    if basis == "interval":
        low, high = mine[0] / other[1], mine[1] / other[0]
    overlap = basis != "medians" and mine[0] <= other[1] and other[0] <= mine[1]
    if overlap or max(value, 1 / value) - 1 <= SMALLEST_EFFECT:
        verdict: Verdict = "tie" if basis == "medians" else "not_distinguishable"
    else:
        verdict = "faster" if (value > 1) == higher_is_better else "slower"
    return Ratio(value, low, high, verdict, basis)


def usable(*values: float) -> bool:
    """Whether values can be divided: no rate or time of a machine lies beyond these bounds."""
    return all(1e-12 < value < 1e12 for value in values)


Spread = tuple[float, float]


def _spreads(metric: Metric, reference: Metric) -> tuple[Basis, Spread, Spread]:
    """The spreads to be compared, of one kind for both."""
    if metric.ci95 and reference.ci95 and usable(*metric.ci95, *reference.ci95):
        return "interval", metric.ci95, reference.ci95
    mine, other = _range(metric), _range(reference)
    if mine and other:
        return "range", mine, other
    return "medians", (metric.median,) * 2, (reference.median,) * 2


def _range(metric: Metric) -> Spread | None:
    """Lowest and highest value; one value alone has no range."""
    low, high, count = metric.min, metric.max, metric.n
    if low is None or high is None or count is None or count < 2 or not usable(low, high):
        return None
    return low, high


def ties(rows: Sequence[Row]) -> list[str]:
    """Ranks of rows sorted by gen tok/s, fastest first: ``1``, ``2=``, ``2=``, ``4``.

    A row has the rank of the leader of its group while the two are not distinguishable; the
    first that is leads a group of its own. Rows that are invalid or have no figure get "".
    """
    leaders: list[int] = []
    ranked = [row for row in rows if _ranks(row)]
    for place, row in enumerate(ranked):
        tied = leaders and _tied(ranked[leaders[-1]], row)
        leaders.append(leaders[-1] if tied else place)
    sizes = Counter(leaders)
    ranks = iter(f"{lead + 1}=" if sizes[lead] > 1 else f"{lead + 1}" for lead in leaders)
    return [next(ranks) if _ranks(row) else "" for row in rows]


def _ranks(row: Row) -> bool:
    figure = row.result.output_tok_per_s
    return row.result.validity.verdict != "invalid" and figure is not None and usable(figure.median)


def _tied(leader: Row, row: Row) -> bool:
    found = ratio(
        row.result.output_tok_per_s, leader.result.output_tok_per_s, higher_is_better=True
    )
    return found.verdict in ("not_distinguishable", "tie")


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean logarithm; for ratios over identical sets of shapes only."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))
