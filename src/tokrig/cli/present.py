"""What commands print: figures and names as short text, tables for people, JSON for machines.

Everything here is about looks; nothing is computed. Rich is imported by the functions that use it:
a list of a thousand records does without.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tokrig import naming, units
from tokrig.units import human_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from tokrig.record.metrics import Metric
    from tokrig.record.model import Model, Record, Result, Summary, Validity

NULL = "–"
# Wide enough that nothing wraps in a file or a pipe.
UNBOUNDED = 200
STYLES = {
    "valid": "green",
    "unverified": "yellow",
    "INVALID": "bold red",
    "broken": "bold red",
    "unchecked": "dim",
}
rate = units.human_rate


def print_json(data: Any) -> None:
    """``data`` on stdout, for machines."""
    print(json.dumps(data, indent=1, ensure_ascii=False))


def record_json(record: Record) -> dict[str, Any]:
    """A record as its YAML has it: what is not known is left out."""
    return record.model_dump(mode="json", by_alias=True, exclude_none=True)


def spread(metric: Summary | None) -> str:
    """The interval where there is one, else the range: ``148–152``; ``–`` without either."""
    if metric is None:
        return NULL
    low, high = metric.ci95 or (metric.min, metric.max)
    if low is None or high is None:
        return NULL
    decimals = 0 if high >= 100 else 1 if high >= 10 else 2
    return f"{low:,.{decimals}f}–{high:,.{decimals}f}"


def figure_text(unit: str, value: float | None) -> str:
    """A figure as its unit wants it: ``412 ms``, ``148.3``."""
    return human_seconds(value) if unit == "s" else rate(value)


def figure_cell(metric: Metric[Any], value: Any) -> str:
    """A metric's value, or its median, as its kind and its unit want it."""
    if metric.kind in ("text", "flag", "count"):
        return _number(value, "{}")
    if metric.kind == "share":
        return _number(value and 100 * value, "{:.1f} %")
    return figure_text(metric.unit, value)


def count(number: int, word: str) -> str:
    """``1 run``, ``1,200 runs``."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def line(text: str) -> str:
    """One line of printable text: what others wrote moves no cursor and turns no colour on."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def model_name(model: Model) -> str:
    """``Gemma-3 270m · Q4_K_M``."""
    return " · ".join(filter(None, (naming.model_name(model), model.quant)))


def subject(record: Record) -> str:
    """What was measured: ``Gemma-3 270m · Q4_K_M · llama.cpp b9174 (cuda) · rig my-rig``; the mode
    before the rig, unless it is the baseline."""
    backend, mode = naming.backend_label(record.backend), naming.mode_label(record.mode.name)
    what = (model_name(record.model), backend, mode, f"rig {record.rig.id}")
    return " · ".join(filter(None, what))


def label(result: Result) -> str:
    """``agent × 4``."""
    return f"{result.workload.name} × {result.concurrency}"


def verdict(validity: Validity) -> str:
    """``valid``, ``unverified`` or ``INVALID``."""
    return "INVALID" if validity.verdict == "invalid" else validity.word


def caption(record: Record) -> str:
    """How often was measured, and so what the range beside a median is."""
    if not record.results:
        return ""
    level = record.provenance.level or record.provenance.kind
    requests = sorted({r.requests for r in record.results if r.requests is not None})
    if not requests:
        return f"{level}: medians; the number of requests is not known"
    number = "–".join(map(str, dict.fromkeys((requests[0], requests[-1]))))
    interval = any(r.output_tok_per_s and r.output_tok_per_s.ci95 for r in record.results)
    spread_is = "95 % interval" if interval else "range, no interval"
    text = f"{level}: medians of {number} requests, {spread_is}"
    if any(r.prefill_source == "ttft_derived" for r in record.results):
        text += "; ~ prefill derived from TTFT"
    return text


def bounded(stream: TextIO) -> bool:
    """Whether lines have to end where a terminal does."""
    return stream.isatty() or "COLUMNS" in os.environ


def console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (default: stdout) that prints text as it is."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if bounded(stream) else UNBOUNDED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def put(out: Console, renderable: RenderableType) -> None:
    """Print without the spaces that fill up the last column."""
    with out.capture() as captured:
        out.print(renderable, crop=False)
    for text in captured.get().splitlines():
        out.file.write(text.rstrip() + "\n")


def plain_table(*headings: str, right: Sequence[str] = (), fold: bool = False) -> Table:
    """A table with one line under its headings and two spaces between columns; cells of a column
    in ``right`` stand on the right, none is broken unless ``fold``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    for heading in headings:
        justify: Any = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=not fold, overflow="fold")
    return table


def fits(out: Console, table: Table) -> bool:
    """Whether the terminal is wide enough for ``table`` without breaking anything in it."""
    from rich.measure import Measurement

    wide = out.options.update(width=UNBOUNDED, max_width=UNBOUNDED)
    return Measurement.get(out, wide, table).maximum <= out.width


def pairs_table() -> Table:
    """A grid of labels and values, values wrapped beside their label."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def print_pairs(out: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Labels and values, values wrapped beside their label."""
    grid = pairs_table()
    for name, value in pairs:
        grid.add_row(name, value)
    put(out, grid)


def _median(metric: Summary | None) -> float | None:
    return metric.median if metric else None


def _prefill(result: Result) -> str:
    mark = "~" if result.prefill_source == "ttft_derived" else ""
    return mark + rate(_median(result.prefill_tok_per_s))


def _difference(result: Result) -> str:
    """Client against engine in percent; without a sign where it rounds to nothing."""
    if result.server is None or result.server.difference is None:
        return NULL
    percent = round(100 * result.server.difference, 1)
    return f"{percent:+.1f}" if percent else "0.0"


def _number(value: float | None, text: str = "{:,.0f}") -> str:
    return NULL if value is None else text.format(value)


def _engine_rate(result: Result) -> float | None:
    return _median(result.server.output_tok_per_s) if result.server else None


def _verdict_text(result: Result) -> Text:
    from rich.text import Text

    word = verdict(result.validity)
    return Text(word, style=STYLES[word])


class Column(NamedTuple):
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
    Column("engine\ntok/s", lambda r: rate(_engine_rate(r))),
    Column("diff.\n%", _difference),
    Column("\ncached", lambda r: _number(r.cached_tokens)),
    Column("client\nCPU %", lambda r: _number(r.client_cpu_share and r.client_cpu_share * 100,
                                             "{:.1f}")),
)  # fmt: skip
TOKENS = (
    Column("prompt\ntokens", lambda r: _number(_median(r.prompt_tokens))),
    Column("output\ntokens", lambda r: _number(_median(r.output_tokens))),
    Column("\nrequests", lambda r: _number(r.requests, "{}")),
)
# The metrics that have these columns.
SHOWN = {
    *("output_tok_per_s", "ttft_s", "prefill_tok_per_s", "end_to_end_tok_per_s"),
    *("system_tok_per_s", "server.output_tok_per_s", "server.difference", "cached_tokens"),
    *("client_cpu_share", "prompt_tokens", "output_tokens", "requests"),
}
VALIDITY = Column("\nvalidity", _verdict_text, right=False)


def print_results(out: Console, results: Sequence[Result], *, tokens: bool = False) -> None:
    """The result table; two tables where one would be wider than the terminal."""
    proof = PROOF + (TOKENS if tokens else ()) + _further()
    whole = _table((WORKLOAD, *SPEED, *proof, VALIDITY), results)
    if fits(out, whole):
        put(out, whole)
        return
    put(out, _table((WORKLOAD, *SPEED, VALIDITY), results))
    out.print()
    put(out, _table((WORKLOAD, *proof), results))


def _further() -> tuple[Column, ...]:
    """Columns of the metrics that are shown beside those above."""
    from tokrig.record.metrics import shown_in

    return tuple(
        Column("\n".join(metric.label.rsplit(" ", 1)), partial(_figure, metric))
        for metric in shown_in("show")
        if metric.name not in SHOWN
    )


def _figure(metric: Metric[Any], result: Result) -> str:
    value = metric.of(result)
    return figure_cell(metric, getattr(value, "median", value))


def _table(columns: Sequence[Column], results: Sequence[Result]) -> Table:
    speeds = [r.output_tok_per_s for r in results]
    range_is = "gen 95 %\ninterval" if all(s and s.ci95 for s in speeds) else "\nmin–max"
    headings = [range_is if c.heading == "\nmin–max" else c.heading for c in columns]
    right = [heading for heading, c in zip(headings, columns, strict=True) if c.right]
    table = plain_table(*headings, right=right)
    for result in results:
        table.add_row(*(column.cell(result) for column in columns))
    return table


class Finding(NamedTuple):
    """A validity code, where it was found, and what it means. ``where`` is empty for a code
    that all results share."""

    kind: str
    code: str
    where: str
    hint: str


def findings(record: Record) -> Iterator[Finding]:
    """Everything that keeps a record from being simply valid, the gravest first."""
    from tokrig.record.checks import HINTS

    for kind, field in (
        ("INVALID", "reasons"),
        ("unverified", "unverified"),
        ("unchecked", "unchecked"),
    ):
        held: list[tuple[Result, list[str]]]
        held = [(result, getattr(result.validity, field)) for result in record.results]
        codes = dict.fromkeys(code for _, found in held for code in found)
        for code in codes | dict.fromkeys(getattr(record.validity, field)):
            holders = [label(result) for result, found in held if code in found]
            where = "" if len(holders) == len(held) else ", ".join(holders)
            yield Finding(kind, code, where, HINTS.get(code, "a code this tokrig does not know"))


def print_findings(out: Console, record: Record, *, full: bool = False) -> None:
    """Findings with their hints; what is merely unchecked in one line unless ``full``."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    unchecked = []
    for kind, code, where, hint in findings(record):
        if kind == "unchecked" and not full:
            unchecked.append(code)
            continue
        where = f" ({where})" if where else ""
        grid.add_row(Text(kind, style=STYLES[kind]), Text(f"{code}{where}: {hint}"))
    if unchecked:
        grid.add_row(Text("unchecked", style="dim"), Text(", ".join(unchecked), style="dim"))
    if grid.row_count:
        put(out, grid)


def print_raw(out: Console, record: Record) -> None:
    """The figures of an engine's own benchmark, with a line that says what they are not."""
    headings = ("test", "at once", "tok/s", "min–max", "repetitions")
    table = plain_table(*headings, right=headings[1:])
    for figure in record.raw:
        found = figure.tok_per_s
        table.add_row(
            figure.test,
            str(figure.concurrency),
            rate(found.median),
            NULL if found.n == 1 else spread(found),
            _number(found.n, "{}"),
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
