"""Tables and lines for people. Everything here is about looks; nothing is computed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tokrig.cli.words import NULL, label, rate, spread, verdict
from tokrig.record.checks import HINTS
from tokrig.record.model import Metric, Record, Result, Validity
from tokrig.units import human_seconds

# Wide enough that nothing wraps in a file or a pipe.
UNBOUNDED = 200
VERDICT_STYLES = {"valid": "green", "unverified": "yellow", "INVALID": "bold red"}


def console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (default: stdout) that prints text as it is."""
    stream = stream or sys.stdout
    bounded = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        file=stream,
        width=None if bounded else UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def put(out: Console, renderable: RenderableType) -> None:
    """Print without the spaces that fill up the last column."""
    with out.capture() as captured:
        out.print(renderable, crop=False)
    for line in captured.get().splitlines():
        out.file.write(line.rstrip() + "\n")


def record_json(record: Record) -> dict[str, Any]:
    """A record as its YAML has it: what is not known is left out."""
    return record.model_dump(mode="json", by_alias=True, exclude_none=True)


def verdict_text(validity: Validity) -> Text:
    """The verdict in its colour."""
    word = verdict(validity)
    return Text(word, style=VERDICT_STYLES[word])


def _median(metric: Metric | None) -> float | None:
    return metric.median if metric else None


def _prefill(result: Result) -> str:
    mark = "~" if result.prefill_source == "ttft_derived" else ""
    return mark + rate(_median(result.prefill_tok_per_s))


def _engine_rate(result: Result) -> str:
    return rate(_median(result.server.output_tok_per_s) if result.server else None)


def _difference(result: Result) -> str:
    """Client against engine in percent; without a sign where it rounds to nothing."""
    if result.server is None or result.server.difference is None:
        return NULL
    percent = round(100 * result.server.difference, 1)
    return f"{percent:+.1f}" if percent else "0.0"


def _cpu(result: Result) -> str:
    share = result.client_cpu_share
    return NULL if share is None else f"{share * 100:.1f}"


def _count(metric: Metric | None) -> str:
    return NULL if metric is None else f"{metric.median:,.0f}"


@dataclass(frozen=True)
class Column:
    """A heading (two lines at most) and how a result fills it."""

    heading: str
    cell: Callable[[Result], str | Text]
    right: bool = True


WORKLOAD = Column("workload\n× conc.", label, right=False)
SPEED = (
    Column("gen\ntok/s", lambda r: rate(_median(r.output_tok_per_s))),
    Column("\nmin–max", lambda r: spread(r.output_tok_per_s)),
    Column("\nTTFT", lambda r: human_seconds(_median(r.ttft_s))),
    Column("prefill\ntok/s", _prefill),
    Column("end to\nend t/s", lambda r: rate(_median(r.end_to_end_tok_per_s))),
    Column("system\ntok/s", lambda r: rate(_median(r.system_tok_per_s))),
)
PROOF = (
    Column("engine\ntok/s", _engine_rate),
    Column("diff.\n%", _difference),
    Column("\ncached", lambda r: NULL if r.cached_tokens is None else f"{r.cached_tokens:,}"),
    Column("client\nCPU %", _cpu),
)
TOKENS = (
    Column("prompt\ntokens", lambda r: _count(r.prompt_tokens)),
    Column("output\ntokens", lambda r: _count(r.output_tokens)),
    Column("\nrequests", lambda r: NULL if r.requests is None else str(r.requests)),
)
VALIDITY = Column("\nvalidity", lambda r: verdict_text(r.validity), right=False)


def print_results(out: Console, results: Sequence[Result], *, tokens: bool = False) -> None:
    """The result table; two tables where one would be wider than the terminal."""
    proof = PROOF + (TOKENS if tokens else ())
    whole = _table((WORKLOAD, *SPEED, *proof, VALIDITY), results)
    wide = out.options.update(width=UNBOUNDED, max_width=UNBOUNDED)
    if Measurement.get(out, wide, whole).maximum <= out.width:
        put(out, whole)
        return
    put(out, _table((WORKLOAD, *SPEED, VALIDITY), results))
    out.print()
    put(out, _table((WORKLOAD, *proof), results))


def _table(columns: Iterable[Column], results: Sequence[Result]) -> Table:
    intervals = bool(results) and all(
        r.output_tok_per_s and r.output_tok_per_s.ci95 for r in results
    )
    table = plain_table()
    columns = list(columns)
    for column in columns:
        heading = (
            "gen 95 %\ninterval" if intervals and "min–max" in column.heading else (column.heading)
        )
        justify = "right" if column.right else "left"
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for result in results:
        table.add_row(*(column.cell(result) for column in columns))
    return table


def plain_table() -> Table:
    """A table with one line under its headings and two spaces between columns."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )


def print_pairs(out: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Labels and values, values wrapped beside their label."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    put(out, grid)


@dataclass(frozen=True)
class Finding:
    """A validity code, where it was found, and what it means. ``where`` is empty for a code
    that all results share."""

    kind: str
    code: str
    where: str
    hint: str


def findings(record: Record) -> Iterator[Finding]:
    """Everything that keeps a record from being simply valid, the gravest first."""
    for kind, lists in (
        ("INVALID", [(r, r.validity.reasons) for r in record.results]),
        ("unverified", [(r, r.validity.unverified) for r in record.results]),
        ("unchecked", [(r, r.validity.unchecked) for r in record.results]),
    ):
        attribute = {"INVALID": "reasons"}.get(kind, kind)
        codes = dict.fromkeys(code for _, codes in lists for code in codes)
        codes |= dict.fromkeys(getattr(record.validity, attribute))
        for code in codes:
            holders = [label(r) for r, held in lists if code in held]
            everywhere = len(holders) == len(lists) or not holders
            where = "" if everywhere else ", ".join(holders)
            yield Finding(kind, code, where, HINTS.get(code, "a code this tokrig does not know"))


def print_findings(out: Console, record: Record, *, full: bool = False) -> None:
    """Findings with their hints; what is merely unchecked in one line unless ``full``."""
    found = list(findings(record))
    styles = {"INVALID": "bold red", "unverified": "yellow", "unchecked": "dim"}
    grid = Table.grid(padding=(0, 2, 0, 0))
    for finding in found:
        if finding.kind != "unchecked" or full:
            where = f" ({finding.where})" if finding.where else ""
            grid.add_row(
                Text(finding.kind, style=styles[finding.kind]),
                Text(f"{finding.code}{where}: {finding.hint}"),
            )
    unchecked = [finding.code for finding in found if finding.kind == "unchecked"]
    if unchecked and not full:
        grid.add_row(Text("unchecked", style="dim"), Text(", ".join(unchecked), style="dim"))
    if grid.row_count:
        put(out, grid)


def print_raw(out: Console, record: Record) -> None:
    """The figures of an engine's own benchmark, with a line that says what they are not."""
    table = plain_table()
    for heading in ("test", "at once", "tok/s", "min–max", "repetitions"):
        table.add_column(heading, justify="left" if heading == "test" else "right", no_wrap=True)
    for figure in record.raw:
        found = figure.tok_per_s
        table.add_row(
            figure.test,
            str(figure.concurrency),
            rate(found.median),
            NULL if found.n == 1 else spread(found),
            NULL if found.n is None else str(found.n),
        )
    put(out, table)
    out.print()
    out.print(
        f"raw engine figures by {record.backend.name}: no server, no client, no chat template;"
        " medians of its repetitions, all sequences together",
        style="dim",
        soft_wrap=True,
    )


def print_skipped(out: Console, record: Record) -> None:
    """The shapes that could not be measured, and why."""
    for skipped in record.skipped:
        where = f"{skipped.workload} × {skipped.concurrency}"
        out.print(f"not measured: {where}: {skipped.message}", style="yellow", soft_wrap=True)
