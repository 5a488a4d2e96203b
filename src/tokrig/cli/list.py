"""``tokrig list``: one line a record, newest first."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tokrig.cli.options import (
    UnknownWord,
    completing,
    content_and_json,
    example,
    record_filters,
)
from tokrig.cli.present import NULL, bounded, complain, figure_cell, print_json
from tokrig.record.metric import Metric
from tokrig.record.metrics import shown_in

if TYPE_CHECKING:
    from tokrig.store import Row

SHORTEST_ID = 15  # the time a run began: 20261122-171500
SHORTEST_NAME = 8


FIGURES = shown_in("list")
HEADLINE = FIGURES[0]


def _range(metric: Metric[Any], row: Row) -> str | None:
    """The lowest and the highest; what is missing in it is named once."""
    if metric.name not in row.figures:
        return None
    low, high = (figure_cell(metric, value) for value in row.figures[metric.name])
    found = low if low == high else f"{low}–{high}"
    return f"{found}; {row.left_out}" if row.left_out and metric is HEADLINE else found


def _highest(metric: Metric[Any], row: Row) -> float | None:
    return row.figures[metric.name][1] if metric.name in row.figures else None


def _verdict(row: Row) -> str:
    if row.status != "complete":
        return row.status
    return "INVALID" if row.verdict == "invalid" else row.verdict


class Column(NamedTuple):
    """A column: its text, and what it is sorted by where that is not its text."""

    text: Callable[[Row], str | None]
    order: Callable[[Row], Any] | None = None


COLUMNS = {
    "id": Column(lambda row: row.id),
    "model": Column(lambda row: row.model),
    "quant": Column(lambda row: row.quant),
    "backend": Column(lambda row: row.backend),
    "mode": Column(lambda row: row.choices),
    "rig": Column(lambda row: row.rig),
    **{m.label: Column(partial(_range, m), partial(_highest, m)) for m in FIGURES},
    "validity": Column(_verdict),
    "date": Column(lambda row: row.started_at and row.started_at[:10], lambda row: row.started_at),
}
# What gives way on a narrow terminal, the first first; names are cut only after all of these.
DISPENSABLE = ("backend", "quant", "validity", *(m.label for m in reversed(FIGURES)))
# A column is sorted by the first word of its heading, a figure also by its name in the record.
SORTABLE = {heading.split()[0]: column for heading, column in COLUMNS.items()}
SORTABLE |= {m.name: COLUMNS[m.label] for m in FIGURES}


def _sort_column(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    if given is not None and given.removeprefix("-") not in SORTABLE:
        raise UnknownWord(given.removeprefix("-"), list(SORTABLE), ctx, param)
    return given


@click.command(
    "list",
    epilog=example(
        "tokrig list --model gemma --status valid",
        "tokrig list --sort -gen --limit 10",
        "tokrig list --mode n-gram --json",
    ),
)
@record_filters
@click.option(
    "--sort",
    metavar="COLUMN",
    callback=_sort_column,
    shell_complete=completing(lambda ctx: [*SORTABLE, *(f"-{name}" for name in SORTABLE)]),
    help=f"Sort by {', '.join(SORTABLE)}; -COLUMN sorts descending.  [default: -date]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N records.")
@content_and_json
def command(
    sort: str | None,
    limit: int | None,
    content: Path,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """List the records of a content folder, newest first.

    Files that cannot be read are named on stderr. gen tok/s is the range of medians over the
    valid workloads at the lowest concurrency; what is missing in it is named. On a narrow
    terminal an ID is its shortest beginning that no other record has.
    """
    from tokrig.store import Store
    from tokrig.store.filters import Filters

    listing = Store(content).listing()
    rows = Filters(**wanted).of(listing.rows)
    shown = _sorted(rows, sort)[:limit]
    complain(listing.problems)
    if as_json:
        print_json([_as_json(row) for row in shown])
    elif shown:
        _print(
            shown,
            [*(row.id for row in listing.rows), *(Path(p.path).stem for p in listing.problems)],
        )
        if len(shown) < len(rows):
            click.echo(f"{len(shown):,} of {len(rows):,} records", err=True)
    elif listing.rows:
        click.echo(f"none of {len(listing.rows)} records matches", err=True)
    else:
        click.echo(f"no records in {content}; make one with: tokrig run", err=True)


def _sorted(rows: list[Row], by: str | None) -> list[Row]:
    """In the order of a column; rows without a value stand at the end either way."""
    if by is None:
        return rows
    column = SORTABLE[by.removeprefix("-")]
    order: Callable[[Row], Any] = column.order or column.text
    known = [row for row in rows if order(row) not in (None, "")]
    known.sort(key=order, reverse=by.startswith("-"))
    return known + [row for row in rows if order(row) in (None, "")]


def _as_json(row: Row) -> dict[str, object]:
    data = dataclasses.asdict(row)
    figures = data.pop("figures")
    for name in (metric.name for metric in FIGURES):
        data[f"{name}_min"], data[f"{name}_max"] = figures.get(name, (None, None))
    return {**data, "model": row.model, "backend": row.backend}


def _print(rows: Sequence[Row], ids: Iterable[str]) -> None:
    """The table, with the columns that the terminal has room for.

    Not by Rich: it takes half a second for a thousand rows, and leaves no column out.
    """
    cells = {name: [column.text(row) or NULL for row in rows] for name, column in COLUMNS.items()}
    if set(cells["mode"]) == {NULL}:
        del cells["mode"]
    room = shutil.get_terminal_size().columns + 2 if bounded(sys.stdout) else sys.maxsize

    def lacking() -> int:
        widths = (max(map(len, (name, *column))) for name, column in cells.items())
        return sum(width + 2 for width in widths) - room

    if lacking() > 0:
        short = shortest_beginnings(ids)
        cells["id"] = [short[row.id] for row in rows]
    for name in DISPENSABLE:
        if lacking() > 0:
            cells.pop(name, None)
    for name in filter(cells.__contains__, ("rig", "model", "mode")):
        width = max(SHORTEST_NAME, max(map(len, cells[name])) - max(0, lacking()))
        cells[name] = [t if len(t) <= width else f"{t[: width - 1]}…" for t in cells[name]]
    widths = {name: max(map(len, (name, *column))) for name, column in cells.items()}
    numbers = {metric.label for metric in FIGURES}
    for line in zip(*([name, *column] for name, column in cells.items()), strict=True):
        padded = (
            text.rjust(width) if name in numbers else text.ljust(width)
            for text, (name, width) in zip(line, widths.items(), strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def shortest_beginnings(ids: Iterable[str]) -> dict[str, str]:
    """Each id's shortest beginning that no other has, of 15 characters at least."""
    ordered = sorted(set(ids))
    alike = [_alike(*pair) for pair in itertools.pairwise(ordered)]
    needs = zip(ordered, [0, *alike], [*alike, 0], strict=True)
    return {one: one[: max(SHORTEST_ID, before + 1, after + 1)] for one, before, after in needs}


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
