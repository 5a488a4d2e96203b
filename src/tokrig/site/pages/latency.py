"""All results by how long the first token takes, like with like: within one shape, one concurrency
and prompts of about one length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tokrig import naming
from tokrig.compare.statistics import Side, Span, rank_words, starts_of, tie_span
from tokrig.record.model import Result
from tokrig.site import Output, formats, table
from tokrig.site.charts.runs import by_workload
from tokrig.site.context import Site, key_of, script
from tokrig.store.load import Row, Run
from tokrig.units import significant

MOST_DRAWN = 12


@dataclass(frozen=True)
class Alike:
    """The results of one shape, load and length of prompt that are shown, lowest TTFT first.
    ``length`` is the power of two that the prompts' tokens are nearest to, 0 where nobody knows;
    ``ranks`` are words: ``1``, ``2=`` for a tie."""

    shape: str
    concurrency: int
    length: int
    rows: Sequence[Row]
    ranks: Sequence[str]
    left_out: int

    @property
    def title(self) -> str:
        """``chat, 1 at once, prompts of about 64 tokens``."""
        prompts = f"prompts of about {self.length:,} tokens" if self.length else ""
        return ", ".join(filter(None, (self.shape, f"{self.concurrency} at once", prompts)))


def outputs(site: Site) -> Iterable[Output]:
    """``latency.html``; the data of its table is that of the first page, ``assets/rows.js``, and
    what only waits have, ``assets/waits.js``."""
    key = key_of([run.digest for run in site.runs])
    yield Output("assets/waits.js", key, lambda: script("waits", columns(site.runs)))
    yield Output("latency.html", key, lambda: _page(site))


def _page(site: Site) -> bytes:
    rows = by_ttft(site.runs)
    classes = alike(rows, table.shapes(site.runs))
    most = table.MOST_LINES if len(rows) <= table.MOST_LINES else table.MOST_LINES // len(classes)
    quickest = quickest_runs(rows)[:MOST_DRAWN]
    valid = sum(table.is_headline(r) for run in site.runs for r in run.record.plain)
    return site.page(
        "latency.html",
        "latency.html",
        reproduced=site.reproduced,
        title="Latency",
        headings=table.LATENCY_HEADINGS,
        classes=[_shown(one, most) for one in classes],
        apart=naming.apart(run.record for run in site.runs),
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
    return sorted(found, key=lambda row: (_ttft_s(row), -table.speed(row.result), row.run.id))


def prompt_tokens(result: Result) -> float | None:
    """How long the prompt was: as measured, else as the shape asks for."""
    if result.prompt_tokens is not None:
        return result.prompt_tokens.median
    return result.workload.target_prompt_tokens or result.workload.prompt_tokens


def length_class(tokens: float | None) -> int:
    """The power of two that a prompt's tokens are nearest to, by their ratio."""
    return 2 ** math.floor(math.log2(tokens) + 0.5) if tokens else 0


def alike(rows: Iterable[Row], shapes: Sequence[str]) -> list[Alike]:
    """The rows in classes, each in the order they had: by shape, load, and of one load the class
    with most rows first."""
    found: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        of = row.result
        length = length_class(prompt_tokens(of))
        found.setdefault((of.workload.name, of.concurrency, length), []).append(row)
    order = sorted(found, key=lambda key: (shapes.index(key[0]), key[1], -len(found[key]), key[2]))
    return [Alike(*key, found[key], ranks(found[key]), 0) for key in order]


def ranks(rows: Sequence[Row]) -> list[str]:
    """Ranks by TTFT, lowest first, with ties: those of the valid results; where none is valid,
    those of the unverified ones among themselves. All others get ""."""
    is_any_valid = any(row.result.validity.word == "valid" for row in rows)
    ranked = "valid" if is_any_valid else "unverified"
    spans = [_span(row) if row.result.validity.word == ranked else None for row in rows]
    words = iter(rank_words(filter(None, spans)))
    return [next(words) if span else "" for span in spans]


def _span(row: Row) -> Span | None:
    figure = row.result.ttft_s
    return tie_span(Side(figure, starts_of(row.run.record, row.result))) if figure else None


def columns(runs: Iterable[Run]) -> dict[str, Any]:
    """What the page's script needs of each row beside ``table.columns``, in its order: tokens of
    the ``prompt``; ``low`` and ``high`` of the TTFT, s, ``spread`` as there; what it covers,
    ``from`` and ``to``."""
    found: dict[str, list[Any]] = {
        name: [] for name in ("prompt", "low", "high", "spread", "from", "to")
    }
    for run in runs:
        for result in run.record.plain:
            bounds = formats.bounds(result.ttft_s)
            span = _span(Row(run, result)) or (None, None)
            kind = 0 if bounds is None else 2 if result.ttft_s and result.ttft_s.ci95 else 1
            values = (prompt_tokens(result), *(bounds or (None, None)), kind, *span)
            for column, value in zip(found.values(), values, strict=True):
                column.append(value if isinstance(value, int | None) else significant(value, 5))
    return found


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


def _shown(one: Alike, most: int) -> Alike:
    left = max(0, len(one.rows) - most)
    return Alike(one.shape, one.concurrency, one.length, one.rows[:most], one.ranks, left)


def _ttft_s(row: Row) -> float:
    return row.result.ttft_s.median if row.result.ttft_s else 0.0


PAGE = outputs
