"""Ranks that honour ties, over a whole list. Pure.

Every figure covers a span; two figures tie where their spans overlap. A group ties where all of
its spans share a point, which is the same as every two of its members being tied: intervals that
overlap pairwise have a point in common.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from tokrig.query.load import Row
from tokrig.query.ratios import SMALLEST_EFFECT, Side
from tokrig.query.spread import STARTS_NEEDED, critical, of_interval, of_starts, starts_of, usable

# (t) Two single starts that lie 2 % around their mean differ by more than this in 3 of 100 cases.
UNKNOWN_SPREAD = 0.06

Span = tuple[float, float]


def tie_span(side: Side | None) -> Span | None:
    """What a figure covers; None without a usable figure.

    From six starts on the 95 % interval around its median, at least 1 % to either side, so that
    differences within 2 % tie. With fewer the spread between starts is not known: 3 % to either
    side, and all single values.
    """
    if side is None or not usable(side.metric.median):
        return None
    metric = side.metric
    spread = of_starts(metric, side.starts)
    half = math.log1p(SMALLEST_EFFECT) / 2
    if spread is not None:
        half = max(half, critical(spread.count - 1) * math.sqrt(spread.error))
        return _around(metric.median, half)
    low, high = _around(metric.median, half)
    if (side.starts or 0) >= STARTS_NEEDED and of_interval(metric, side.starts) and metric.ci95:
        return min(low, metric.ci95[0]), max(high, metric.ci95[1])
    low, high = _around(metric.median, math.log1p(UNKNOWN_SPREAD) / 2)
    values = [one for one in (metric.min, metric.max) if one is not None and usable(one)]
    return min(low, *values) if values else low, max(high, *values) if values else high


def _around(median: float, half: float) -> Span:
    return median / math.exp(half), median * math.exp(half)


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
    verdicts = [row.result.validity.word for row in rows]
    ranked = "valid" if "valid" in verdicts else "unverified"
    spans = [
        tie_span(_side(row)) if verdict == ranked else None
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    words = iter(rank_words(span for span in spans if span))
    return [next(words) if span else "" for span in spans]


def _side(row: Row) -> Side | None:
    figure = row.result.output_tok_per_s
    return None if figure is None else Side(figure, starts_of(row.run.record, row.result))
