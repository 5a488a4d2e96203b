"""Small charts of block characters for the terminal. Pure: values in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
MAX_BARS = 60


def sparkline(values: Sequence[float]) -> str:
    """One block a value, from the lowest to the highest; at most 60, evenly picked.

    Values within 1 % of each other are all drawn as the same block: noise is no shape.
    """
    if not values:
        return ""
    if len(values) > MAX_BARS:
        step = len(values) / MAX_BARS
        values = [values[int(i * step)] for i in range(MAX_BARS)]
    low, high = min(values), max(values)
    if high - low <= 0.01 * abs(high):
        return BLOCKS[3] * len(values)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / (high - low) * top)] for value in values)


def histogram(counts: Sequence[int]) -> str:
    """One block a bin; an empty bin is a space, so that a lone value far out is seen."""
    highest = max(counts, default=0)
    top = len(BLOCKS) - 1
    return "".join(
        " " if count == 0 else BLOCKS[math.ceil(count / highest * top)] for count in counts
    )


def bins(values: Sequence[float], number: int) -> tuple[list[int], float, float, int]:
    """Counts in ``number`` equal bins from the lowest value to the 99th percentile (nearest
    rank), both edges, and how many values lie beyond. A few stalls would flatten the rest."""
    if not values:
        return [], 0.0, 0.0, 0
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    within = [value for value in ordered if value <= high]
    counts = [0] * number
    for value in within:
        share = (value - low) / (high - low) if high > low else 0.0
        counts[min(number - 1, int(share * number))] += 1
    return counts, low, high, len(ordered) - len(within)
