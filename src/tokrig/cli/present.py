"""What commands print: figures and names as short text, tables for people, JSON for machines.

Everything here is about looks; nothing is computed. Rich is imported by the functions that use it:
a list of a thousand records does without.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tokrig import naming, units
from tokrig.units import human_seconds

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from tokrig.record.block import Summary
    from tokrig.record.loads import Ladder, SessionFigures
    from tokrig.record.metric import Metric
    from tokrig.record.model import Raw, Record, Result, Validity
    from tokrig.store import Problem

NULL = "–"
# Before a mean where a median belongs.
MEAN = "ø "
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


def complain(problems: Iterable[Problem]) -> None:
    """Names on stderr the files that could not be read."""
    for problem in (found := list(problems)):
        print(f"unreadable: {problem.message}", file=sys.stderr)
    if found:
        print("hint: tokrig check names what is wrong in each", file=sys.stderr)


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of thing that is counted, on a terminal; silence elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn())
    console, tasks = Console(stderr=True), {}
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    # Drawn when told, never by a thread: what is counted may fork.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as shown:

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done, refresh=done % 20 == 0 or done == of)

        yield tell


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
    if value is None:
        return NULL
    if metric.kind == "share":
        return f"{100 * value:.1f} %"
    if metric.kind in ("text", "flag"):
        return str(value)
    if metric.kind == "count" or metric.unit == "tokens":
        return f"{value:,.0f}"
    return figure_text(metric.unit, value)


def count(number: int, word: str) -> str:
    """``1 run``, ``1,200 runs``."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def line(text: str) -> str:
    """One line of printable text: what others wrote moves no cursor and turns no colour on."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def subject(record: Record) -> str:
    """What was measured: ``Gemma-3 270m · Q4_K_M · llama.cpp b9174 (cuda) · rig my-rig``; the mode
    before the rig, unless it is the baseline."""
    backend, mode = naming.backend_label(record.backend), naming.mode_label(record.mode.name)
    what = (naming.model_label(record.model), backend, mode, f"rig {record.rig.id}")
    return " · ".join(filter(None, what))


def verdict(validity: Validity) -> str:
    """``valid``, ``unverified`` or ``INVALID``."""
    return "INVALID" if validity.verdict == "invalid" else validity.word


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


def print_pairs(out: Console, pairs: Iterable[tuple[str | Text, str]]) -> None:
    """Labels and values, values wrapped beside their label."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, style="bold") if isinstance(name, str) else name, value)
    if grid.row_count:
        put(out, grid)


# Headings where a metric's label is too wide, in the order of the columns: others stand behind.
HEADINGS = {
    "output_tok_per_s": "gen\ntok/s",
    "ttft_s": "\nTTFT",
    "prefill_tok_per_s": "prefill\ntok/s",
    "end_to_end_tok_per_s": "end to\nend t/s",
    "system_tok_per_s": "system\ntok/s",
    "server.output_tok_per_s": "engine\ntok/s",
    "server.difference": "diff.\n%",
    "cached_tokens": "\ncached",
    "client_cpu_share": "client\nCPU %",
    "ceiling_share": "of the\nceiling",
    "prompt_tokens": "prompt\ntokens",
    "output_tokens": "output\ntokens",
    "requests": "\nrequests",
}
# Shown where some result has it: many machines tell no bandwidth.
WHERE_THERE = {"ceiling_share"}
# What whoever has just asked for it knows.
ASKED = {"prompt_tokens", "output_tokens", "requests"}


def print_results(out: Console, results: Sequence[Result], *, asked: bool = False) -> None:
    """The result table, with what was ``asked`` for; two where the terminal is too narrow."""
    from tokrig.record.metrics import shown_in

    shown = {
        metric.name: metric for metric in shown_in("show") if asked or metric.name not in ASKED
    }
    for name in WHERE_THERE & shown.keys():
        if all(shown[name].of(result) is None for result in results):
            del shown[name]
    ordered = [shown[name] for name in dict.fromkeys([*HEADINGS, *shown]) if name in shown]
    speeds = [metric for metric in ordered if "compare" in metric.shown]
    proof = [metric for metric in ordered if metric not in speeds]
    whole = _table(results, [*speeds, *proof], validity=True)
    if fits(out, whole):
        put(out, whole)
        return
    put(out, _table(results, speeds, validity=True))
    out.print()
    put(out, _table(results, proof, validity=False))


def _table(results: Sequence[Result], metrics: Iterable[Metric[Any]], *, validity: bool) -> Table:
    from rich.text import Text

    columns: dict[str, list[Text]] = {"workload\n× conc.": [Text(r.cell.label) for r in results]}
    for metric in metrics:
        heading = HEADINGS.get(metric.name) or "\n".join(metric.label.rsplit(" ", 1))
        columns[heading] = [Text(_cell(metric, result, heading)) for result in results]
        if metric.name == "output_tok_per_s":
            speeds = [result.output_tok_per_s for result in results]
            intervals = all(speed and speed.ci95 for speed in speeds)
            range_is = "gen 95 %\ninterval" if intervals else "\nmin–max"
            columns[range_is] = [Text(spread(speed)) for speed in speeds]
    right = list(columns)[1:]
    if validity:
        words = [verdict(result.validity) for result in results]
        columns["\nvalidity"] = [Text(word, style=STYLES[word]) for word in words]
    table = plain_table(*columns, right=right)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _cell(metric: Metric[Any], result: Result, heading: str) -> str:
    value = metric.of(result)
    mark = MEAN if getattr(value, "is_mean", False) else ""
    value = getattr(value, "median", value)
    if value is not None and heading.endswith("%"):
        percent = round(100 * value, 1) or 0.0
        return f"{percent:+.1f}" if metric.name == "server.difference" and percent else f"{percent}"
    derived = metric.name == "prefill_tok_per_s" and result.prefill_source == "ttft_derived"
    return mark + "~" * derived + figure_cell(metric, value)


class Finding(NamedTuple):
    """A validity code, where it was found, and what it means. ``where`` is empty for a code
    that all results share."""

    kind: str
    code: str
    where: str
    hint: str

    def __str__(self) -> str:
        return f"{self.code} ({self.where})" if self.where else self.code


def findings(record: Record) -> Iterator[Finding]:
    """Everything that keeps a record from being simply valid, the gravest first."""
    from tokrig.record.checks import HINTS

    fields = {"INVALID": "reasons", "unverified": "unverified", "unchecked": "unchecked"}
    for kind, field in fields.items():
        held = [(result.cell.label, getattr(result.validity, field)) for result in record.results]
        codes = [code for _, found in held for code in found] + getattr(record.validity, field)
        for code in dict.fromkeys(codes):
            holders = [name for name, found in held if code in found]
            where = "" if len(holders) == len(held) else ", ".join(holders)
            yield Finding(kind, code, where, HINTS.get(code, "a code this tokrig does not know"))


def print_findings(out: Console, record: Record, *, full: bool = False) -> None:
    """Findings with their hints; what is merely unchecked in one line unless ``full``."""
    from rich.text import Text

    rows: list[tuple[str | Text, str]] = []
    unchecked = []
    for found in findings(record):
        if found.kind == "unchecked" and not full:
            unchecked.append(found.code)
        else:
            rows.append((Text(found.kind, style=STYLES[found.kind]), f"{found}: {found.hint}"))
    if unchecked:
        rows.append((Text("unchecked", style="dim"), ", ".join(unchecked)))
    print_pairs(out, rows)


def print_figures(out: Console, record: Record, *, asked: bool = False) -> None:
    """The results with a line that says what they are, those of an engine's own benchmark, and
    what could not be measured."""
    arrived = [result for result in record.results if result.open_loop]
    if len(arrived) < len(record.results):
        print_results(out, [r for r in record.results if not r.open_loop], asked=asked)
        out.print()
        out.print(_caption(record), style="dim")
    for ladder in record.ladders:
        _print_ladder(out, record, ladder)
    for curve in naming.depth_curves(record):
        out.print(naming.depth_line(curve), soft_wrap=True)
    for result in record.results:
        if result.sustained:
            rates, why = naming.sustained_lines(result.sustained)
            out.print(f"{result.cell.label}: {rates}", soft_wrap=True)
            out.print(f"  {why}", soft_wrap=True)
        if result.session:
            _print_session(out, result, result.session)
    if arrived:
        _print_open_loops(out, record, arrived)
    if record.raw:
        _print_raw(out, record)
    if record.quality is not None:
        from tokrig.compare.quality import lines

        for number, text in enumerate(lines(record.quality)):
            out.print(f"{'         ' if number else 'answers: '}{text}", soft_wrap=True)
    for skipped in record.skipped:
        where = skipped.cell.label
        out.print(f"not measured: {where}: {skipped.message}", style="yellow", soft_wrap=True)


def _print_ladder(out: Console, record: Record, ladder: Ladder) -> None:
    """The steps of a ladder, with a line that says where and why it ended."""
    from rich.text import Text

    headings = ("in flight", "each, tok/s", "all, tok/s", "TTFT", "served at once", "validity")
    table = plain_table(*headings, right=headings[:5])
    for result in record.results:
        if ladder.has(result.cell):
            summaries: tuple[Summary | None, ...] = (
                result.output_tok_per_s,
                result.system_tok_per_s,
                result.ttft_s,
            )
            each, together, ttft = (one.median if one else None for one in summaries)
            mean = result.concurrency_mean
            word = verdict(result.validity)
            table.add_row(
                f"{result.concurrency}{' knee' if result.concurrency == ladder.knee else ''}",
                rate(each),
                rate(together),
                human_seconds(ttft),
                NULL if mean is None else f"{mean:.1f}",
                Text(word, style=STYLES[word]),
            )
    out.print()
    put(out, table)
    out.print()
    out.print(f"the ladder of {ladder.workload} {naming.ladder_end(ladder)}", soft_wrap=True)


def _print_session(out: Console, result: Result, session: SessionFigures) -> None:
    """A row a turn, with a line on the whole."""
    headings = ("turn", "prompt", "cached", "new", "answer", "TTFT", "whole turn")
    table = plain_table(*headings, right=headings)
    for number, turn in enumerate(session.by_turn, 1):
        tokens = (turn.prompt_tokens, turn.cached_tokens, turn.new_tokens, turn.output_tokens)
        table.add_row(
            str(number),
            *(NULL if count is None else f"{count:,.0f}" for count in tokens),
            human_seconds(turn.ttft_s),
            human_seconds(turn.total_s),
        )
    out.print()
    put(out, table)
    out.print()
    each = f" in {human_seconds(result.session_s.median)} each" if result.session_s else ""
    often = count(session.sessions, "session")
    out.print(
        f"{result.cell.label}: {often} of {session.turns} turns{each};"
        f" {naming.session_cache(session)}",
        soft_wrap=True,
    )


def _caption(record: Record) -> str:
    """How often was measured, and so what the range beside a median is."""
    level = record.provenance.level or record.provenance.kind
    requests = sorted({r.requests for r in record.results if r.requests is not None})
    means = f"; {MEAN}means" if _has_means(record) else ""
    if not requests:
        return f"{level}: medians; the number of requests is not known{means}"
    number = "–".join(map(str, dict.fromkeys((requests[0], requests[-1]))))
    interval = any(r.output_tok_per_s and r.output_tok_per_s.ci95 for r in record.results)
    spread_is = "95 % interval" if interval else "range, no interval"
    text = f"{level}: medians of {number} requests, {spread_is}"
    if any(r.prefill_source == "ttft_derived" for r in record.results):
        text += "; ~ prefill derived from TTFT"
    return text + means


def _has_means(record: Record) -> bool:
    """Whether others published means where a median belongs."""
    found = ["mean_not_median" in result.validity.unverified for result in record.results]
    return any(found) or any(figure.tok_per_s.is_mean for figure in record.raw)


def _print_open_loops(out: Console, record: Record, results: Sequence[Result]) -> None:
    """What became of requests that arrived by themselves, and which rate met the SLO."""
    table = plain_table(*naming.OPEN_LOOP, "validity", right=naming.OPEN_LOOP[1:])
    for result in results:
        cells = (cell or NULL for cell in naming.open_loop_row(result))
        table.add_row(*cells, verdict(result.validity))
    put(out, table)
    out.print()
    first = results[0].arrivals
    slo = naming.slo_text(first.slo if first else None)
    requests = sorted({r.requests or 0 for r in results})
    number = "–".join(map(str, dict.fromkeys((requests[0], requests[-1]))))
    said = f"requests that arrive by themselves, {number} measured; times count from when they"
    out.print(f"{said} were due{f'; SLO: {slo}' if slo else ''}", style="dim", soft_wrap=True)
    for limit in record.rate_limits:
        out.print(naming.rate_limit_text(limit, results), style="bold", soft_wrap=True)


def _print_raw(out: Console, record: Record) -> None:
    """The figures of an engine's own benchmark, with a line that says what they are not."""
    headings = ["test", "at once", "tok/s", "min–max", "repetitions"]
    first = any(figure.ttft_s for figure in record.raw)
    table = plain_table(*headings, *["TTFT"] * first, right=[*headings[1:], "TTFT"])
    for figure in record.raw:
        found = figure.tok_per_s
        table.add_row(
            figure.test,
            str(figure.concurrency),
            MEAN * found.is_mean + rate(found.median),
            NULL if found.n == 1 else spread(found),
            NULL if found.n is None else str(found.n),
            *[_ttft_of(figure)] * first,
        )
    put(out, table)
    out.print()
    middle = "medians" if not _has_means(record) else f"{MEAN}means"
    out.print(
        f"raw engine figures by {record.backend.name}: no server, no client, no chat template;"
        f" {middle} of its repetitions, all sequences together",
        style="dim",
        soft_wrap=True,
    )


def _ttft_of(figure: Raw) -> str:
    found = figure.ttft_s
    return MEAN * found.is_mean + human_seconds(found.median) if found else NULL
