"""Figures of runs as points: what is drawn, what the table beside it holds, what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tokrig.query.load import Run
from tokrig.record.checks import headline
from tokrig.record.model import Metric, Result
from tokrig.site.charts.labels import Label, of_runs
from tokrig.site.words import bounds, rate
from tokrig.units import human_seconds, significant

NULL = "–"


@dataclass(frozen=True)
class Quantity:
    """A metric of results. ``field`` is its name in the record, ``name`` what people say."""

    field: str
    name: str
    unit: Literal["tok/s", "s"]

    @property
    def less_is_better(self) -> bool:
        """Times are to be short, rates to be high."""
        return self.unit == "s"

    @property
    def logarithmic(self) -> bool:
        """Times to the first token span decades between workloads."""
        return self.unit == "s"

    def label(self, value: float) -> str:
        """A value beside its mark: ``148.3`` (tok/s), ``412 ms``."""
        return rate(value) if self.unit == "tok/s" else human_seconds(value)

    def said(self, value: float) -> str:
        """A value in a sentence, with its unit."""
        return f"{rate(value)} tok/s" if self.unit == "tok/s" else human_seconds(value)

    def cell(self, value: float | None) -> str:
        """A value in a column that names the unit."""
        if value is None:
            return NULL
        return rate(value) if self.unit == "tok/s" else f"{significant(value, 4):.10g}"


DECODE = Quantity("output_tok_per_s", "decode speed", "tok/s")
SYSTEM = Quantity("system_tok_per_s", "system speed", "tok/s")
PREFILL = Quantity("prefill_tok_per_s", "prefill speed", "tok/s")
END_TO_END = Quantity("end_to_end_tok_per_s", "end-to-end speed", "tok/s")
TTFT = Quantity("ttft_s", "time to first token", "s")


@dataclass(frozen=True)
class Point:
    """One figure of one valid result. ``median``, ``low`` and ``high`` are in the quantity's
    unit; ``spread`` says what lies between the last two, and is empty where they are unknown."""

    run: Run
    label: Label
    workload: str
    concurrency: int
    median: float
    low: float
    high: float
    spread: Literal["95 % interval", "range", ""]
    n: int | None


def points(runs: Sequence[Run], quantity: Quantity) -> list[Point]:
    """The points of all valid results that have the quantity, in the order of ``runs``."""
    return [
        _point(run, label, result, metric)
        for run, label in zip(runs, of_runs(runs), strict=True)
        for result in headline(run.record)
        if (metric := getattr(result, quantity.field)) is not None
    ]


def _point(run: Run, label: Label, result: Result, metric: Metric) -> Point:
    known = bounds(metric)
    low, high = known or (metric.median, metric.median)
    spread: Literal["95 % interval", "range", ""] = ""
    if known:
        spread = "95 % interval" if metric.ci95 else "range"
    return Point(
        run=run,
        label=label,
        workload=result.workload.name,
        concurrency=result.concurrency,
        median=metric.median,
        low=low,
        high=high,
        spread=spread,
        n=metric.n,
    )


def at_lowest_concurrency(found: Sequence[Point]) -> list[Point]:
    """Those of the lowest concurrency that any point has: speeds at others do not compare."""
    lowest = min((point.concurrency for point in found), default=0)
    return [point for point in found if point.concurrency == lowest]


def best_first(found: Sequence[Point], quantity: Quantity) -> list[Point]:
    """Run after run, the one with the best median over its workloads first."""
    of_run: dict[str, list[float]] = {}
    for point in found:
        of_run.setdefault(point.run.id, []).append(point.median)
    sign = 1 if quantity.less_is_better else -1
    rank = {run: sign * median(values) for run, values in of_run.items()}
    return sorted(found, key=lambda point: (rank[point.run.id], point.run.id))


def columns(quantity: Quantity) -> tuple[str, ...]:
    """The headings over ``rows``."""
    unit = quantity.unit
    return (
        "run",
        "workload",
        "concurrency",
        f"median, {unit}",
        f"lowest, {unit}",
        f"highest, {unit}",
        "lowest to highest is",
        "values",
    )


def rows(found: Iterable[Point], quantity: Quantity) -> tuple[tuple[str, ...], ...]:
    """The points as texts, one row each."""
    return tuple(
        (
            point.label.full,
            point.workload,
            str(point.concurrency),
            quantity.cell(point.median),
            quantity.cell(point.low if point.spread else None),
            quantity.cell(point.high if point.spread else None),
            point.spread or ("one value" if point.n == 1 else "not known"),
            NULL if point.n is None else str(point.n),
        )
        for point in found
    )


def said(point: Point, quantity: Quantity) -> str:
    """``35.0 tok/s (range 34.8–35.3)``."""
    if not point.spread:
        return quantity.said(point.median)
    low, high = quantity.label(point.low), quantity.label(point.high)
    return f"{quantity.said(point.median)} ({point.spread} {low}–{high})"


def spreads_key(found: Iterable[Point]) -> list[str]:
    """What the lines through the marks of these points are."""
    drawn = {"95 % interval": "thick line: 95 % interval", "range": "thin line: lowest to highest"}
    spreads = {point.spread for point in found}
    return [text for spread, text in drawn.items() if spread in spreads]
