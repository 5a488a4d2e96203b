"""All results by how long the first token takes: what a chat feels like, and what rag costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tokrig.site import Output, table
from tokrig.site.charts.runs import by_workload
from tokrig.site.context import Site, key_of
from tokrig.store.load import Row, Run

MOST_DRAWN = 12


@dataclass(frozen=True)
class Shape:
    """The results of one shape that are shown, lowest TTFT first."""

    name: str
    rows: Sequence[Row]
    left_out: int


def outputs(site: Site) -> Iterable[Output]:
    """``latency.html``; the data of its table is that of the first page, ``assets/rows.js``."""
    key = key_of([run.digest for run in site.runs])
    yield Output("latency.html", key, lambda: _page(site))


def _page(site: Site) -> bytes:
    rows = by_ttft(site.runs)
    names = table.shapes(site.runs)
    most = table.MOST_LINES if len(rows) <= table.MOST_LINES else table.MOST_LINES // len(names)
    quickest = quickest_runs(rows)[:MOST_DRAWN]
    valid = sum(table.is_headline(r) for run in site.runs for r in run.record.plain)
    return site.page(
        "latency.html",
        "latency.html",
        title="Latency",
        shapes=[_shape(name, rows, most) for name in names],
        drawn=len(quickest),
        chart=by_workload(quickest, "ttft"),
        results=valid,
        without=valid - len(rows),
    )


def by_ttft(runs: Iterable[Run]) -> list[Row]:
    """Valid results that have a TTFT, the lowest first."""
    found = [
        Row(run, result)
        for run in runs
        for result in run.record.plain
        if table.is_headline(result) and result.ttft_s is not None
    ]
    return sorted(found, key=lambda row: (_ttft_s(row), row.run.id))


def quickest_runs(rows: Iterable[Row]) -> list[Run]:
    """Runs by the median of their shapes' TTFT, at the lowest concurrency that any has."""
    lowest = min((row.result.concurrency for row in rows), default=0)
    waits: dict[str, list[float]] = {}
    runs = {}
    for row in rows:
        if row.result.concurrency == lowest:
            runs[row.run.id] = row.run
            waits.setdefault(row.run.id, []).append(_ttft_s(row))
    return [runs[run_id] for run_id in sorted(runs, key=lambda one: (median(waits[one]), one))]


def _shape(name: str, rows: Iterable[Row], most: int) -> Shape:
    of_shape = [row for row in rows if row.result.workload.name == name]
    return Shape(name, of_shape[:most], max(0, len(of_shape) - most))


def _ttft_s(row: Row) -> float:
    return row.result.ttft_s.median if row.result.ttft_s else 0.0


PAGE = outputs
