"""Charts of waiting: time to the first token, and the prefill speed behind it."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.query.load import Run
from tokrig.site.charts import Figure, dots
from tokrig.site.charts.points import (
    PREFILL,
    TTFT,
    Quantity,
    at_lowest_concurrency,
    best_first,
    points,
)


def ttft_by_workload(runs: Sequence[Run]) -> Figure | None:
    """Time to the first token of each run in each workload, at the lowest concurrency."""
    return _by_workload("ttft", "Time to first token by workload", runs, TTFT)


def prefill_by_workload(runs: Sequence[Run]) -> Figure | None:
    """Prefill tok/s of each run in each workload, at the lowest concurrency."""
    return _by_workload("prefill", "Prefill speed by workload", runs, PREFILL)


def _by_workload(slug: str, title: str, runs: Sequence[Run], quantity: Quantity) -> Figure | None:
    found = best_first(at_lowest_concurrency(points(runs, quantity)), quantity)
    if not found:
        return None
    titled = f"{title}, concurrency {found[0].concurrency}"
    return dots.figure(slug, titled, found, quantity)
