"""Runs as labelled points: what is drawn, what the table beside it holds, what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tokrig.naming import apart, full_name
from tokrig.record.block import Summary
from tokrig.record.checks import headline
from tokrig.record.model import Record, Result
from tokrig.site.charts import short
from tokrig.site.formats import NULL, bounds, rate
from tokrig.store.load import Run
from tokrig.units import human_seconds, significant

MAX_LABEL = 48
UNVERIFIED = "unverified"

Spread = Literal["95 % interval", "range", ""]


def subject(record: Record) -> str:
    """``Gemma-4 E2B-it · Q4_K_M · GeForce RTX 5070 · 12 GB · llama.cpp b9174 (cuda)``."""
    return " · ".join(filter(None, full_name(record)))


@dataclass(frozen=True)
class Label:
    """``short`` is drawn and unique in its chart, ``full`` stands in the table."""

    short: str
    full: str


def label_runs(runs: Sequence[Run]) -> list[Label]:
    """A label a run: those parts of its name that differ among ``runs``, else model and quant;
    what tells it apart from others of its name; and its mark, where a figure is unverified."""
    parts = [full_name(run.record) for run in runs]
    differing = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(differing):
        differing[:2] = True, True
    told_apart = apart([run.record for run in runs])
    found: list[Label] = []
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for run, row in zip(runs, parts, strict=True):
        chosen = [part for part, differs in zip(row, differing, strict=True) if differs and part]
        chosen += filter(None, (told_apart.get(run.id),))
        unverified = any(r.validity.word == "unverified" for r in headline(run.record))
        end = f" · {UNVERIFIED}" if unverified else ""
        text = short(" · ".join(map(short, chosen)), MAX_LABEL - len(end)) + end
        unique = text
        while unique in taken:  # equal texts are numbered from the second on
            seen[text] += 1
            unique = f"{text} ({seen[text] + 1})"
        taken.add(unique)
        found.append(Label(unique, " · ".join(chosen) + end))
    return found


@dataclass(frozen=True)
class Quantity:
    """A metric of results. ``field`` is its name in the record, ``name`` what people say."""

    field: str
    name: str
    unit: Literal["tok/s", "s"]

    @property
    def is_time(self) -> bool:
        """Times are to be short, and span decades between workloads; rates are to be high."""
        return self.unit == "s"

    def label(self, value: float) -> str:
        """A value beside its mark: ``148.3`` (tok/s), ``412 ms``."""
        return human_seconds(value) if self.is_time else rate(value)

    def said(self, value: float) -> str:
        """A value in a sentence, with its unit."""
        return human_seconds(value) if self.is_time else f"{rate(value)} tok/s"

    def cell(self, value: float | None) -> str:
        """A value in a column that names the unit."""
        if value is None:
            return NULL
        return f"{significant(value, 4):.10g}" if self.is_time else rate(value)


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
    spread: Spread
    n: int | None


def points(runs: Sequence[Run], quantity: Quantity) -> list[Point]:
    """The points of all valid results that have the quantity, in the order of ``runs``."""
    return [
        _point(run, label, result, metric)
        for run, label in zip(runs, label_runs(runs), strict=True)
        for result in headline(run.record)
        if (metric := getattr(result, quantity.field)) is not None
        # Axes of time are logarithmic; a wait of nothing is no measurement.
        if metric.median > 0 or not quantity.is_time
    ]


def _point(run: Run, label: Label, result: Result, metric: Summary) -> Point:
    known = bounds(metric)
    low, high = known or (metric.median, metric.median)
    low = low or metric.median
    spread: Spread = "" if known is None else "95 % interval" if metric.ci95 else "range"
    workload, concurrency = result.workload.name, result.concurrency
    return Point(run, label, workload, concurrency, metric.median, low, high, spread, metric.n)


def at_lowest_concurrency(found: Sequence[Point]) -> list[Point]:
    """Those of the lowest concurrency that any point has: speeds at others do not compare."""
    lowest = min((point.concurrency for point in found), default=0)
    return [point for point in found if point.concurrency == lowest]


def best_first(found: Sequence[Point], quantity: Quantity) -> list[Point]:
    """Run after run, the one with the best median over its workloads first."""
    of_run: dict[str, list[float]] = {}
    for point in found:
        of_run.setdefault(point.run.id, []).append(point.median)
    sign = 1 if quantity.is_time else -1
    rank = {run: sign * median(values) for run, values in of_run.items()}
    return sorted(found, key=lambda point: (rank[point.run.id], point.run.id))


def columns(quantity: Quantity) -> tuple[str, ...]:
    """The headings over ``rows``."""
    figures = (f"{what}, {quantity.unit}" for what in ("median", "lowest", "highest"))
    return ("run", "workload", "concurrency", *figures, "lowest to highest is", "values")


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
