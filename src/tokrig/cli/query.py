"""``tokrig query``: SQL over the records."""

from __future__ import annotations

import csv
import datetime
import decimal
import importlib
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tokrig.cli.options import content_and_json, example
from tokrig.cli.present import NULL, bars, bounded, complain, console, line, put
from tokrig.errors import InputError, StoreError
from tokrig.files import replacing
from tokrig.units import seconds_of

if TYPE_CHECKING:
    from rich.table import Table

    from tokrig.query.ask import Answer
    from tokrig.query.views import View

VIEWS = ("rows", "runs", "samples", "rigs", "models")
SHOWN_ROWS = 200
# A cell of the table that is longer than this is cut: CSV, JSON and Parquet have all of it.
SHOWN_CHARACTERS = 80
WRITERS = (".csv", ".json", ".parquet")
_SPREAD = re.compile(r"(.+)_(?:median|min|max|n|ci95_low|ci95_high)")


def _seconds(ctx: click.Context, param: click.Parameter, given: str) -> float:
    try:
        found = float(given) if re.fullmatch(r"\d+(\.\d*)?", given) else seconds_of(given)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None
    if not 0 < found <= 86400:
        raise click.BadParameter("should be more than nothing and at most 24h")
    return found


@click.command(
    "query",
    epilog=example(
        'tokrig query "SELECT variant, quant, max(output_tok_per_s_median) FROM rows GROUP BY ALL"',
        "tokrig query --describe runs",
        "tokrig query \"SELECT * FROM rows WHERE verdict = 'valid'\" -o valid.parquet",
    ),
)
@click.argument("sql", metavar="[SQL]", required=False)
@click.option("--describe", type=click.Choice(VIEWS), help="Columns of a view, and what they mean.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE, whole or not at all: .csv, .json or .parquet.",
)
@click.option(
    "--parquet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write Parquet to FILE.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Print at most N rows.  [default: {SHOWN_ROWS} in a table, else all]",
)
@click.option(
    "--timeout",
    "timeout_s",
    default="30s",
    show_default=True,
    callback=_seconds,
    metavar="TIME",
    help="Stop a query that takes longer: 90s, 5m.",
)
@content_and_json
def command(sql: str | None, describe: str | None, content: Path, **given: Any) -> None:
    """Ask the records in SQL (DuckDB's).

    The views are rows (one a result), runs (one a record), samples (one a request), rigs and
    models; without SQL they are listed with their columns. SQL is one statement that asks, or -
    for one on stdin. Nothing can be written, and no files are read.
    """
    wanted = Wanted(**given)
    if sql is None or describe:
        if sql is not None:
            raise InputError("--describe takes no SQL", hint="leave one of them out")
        _describe(VIEWS if describe is None else (describe,), wanted.as_json)
        return
    _ask(sys.stdin.read() if sql == "-" else sql, content, wanted)


@dataclass
class Wanted:
    """What becomes of an answer."""

    as_csv: bool
    as_json: bool
    output: Path | None
    parquet: Path | None
    limit: int | None
    timeout_s: float

    def __post_init__(self) -> None:
        if sum([self.as_json, self.as_csv, bool(self.output), bool(self.parquet)]) > 1:
            raise InputError("one output at a time", hint="take --json, --csv, --parquet or -o")
        if self.output and self.output.suffix not in WRITERS:
            raise InputError(
                f"{self.output} should end with one of {', '.join(WRITERS)}",
                hint="the end of its name says what is written",
            )

    @property
    def file(self) -> Path | None:
        """The file to write, if any."""
        return self.parquet or self.output

    @property
    def ending(self) -> str | None:
        """What it is, by the end of its name."""
        return ".parquet" if self.parquet else self.output.suffix if self.output else None


def _ask(sql: str, content: Path, wanted: Wanted) -> None:
    from tokrig.query.ask import asked
    from tokrig.store import Store

    if not content.is_dir():
        raise InputError(f"no such folder: {content}", hint="--content names the folder of records")
    with (
        bars() as tell,
        asked(
            Store(content),
            sql,
            timeout_s=wanted.timeout_s,
            as_arrow=wanted.ending == ".parquet",
            progress=lambda done, of: tell("records", done, of),
        ) as answer,
    ):
        complain(answer.problems)
        if wanted.file:
            rows = _write(answer, wanted.file, wanted.ending or "", wanted.limit)
            click.echo(f"{rows:,} rows: {wanted.file}", err=True)
        elif wanted.as_json or wanted.as_csv:
            write = _json if wanted.as_json else _csv
            write(answer, islice(answer.rows(), wanted.limit), sys.stdout)
        else:
            _print(answer, wanted.limit or SHOWN_ROWS)


# Views


def _describe(names: Sequence[str], as_json: bool) -> None:
    from tokrig.query.views import VIEWS as VIEWS_THERE

    views = [VIEWS_THERE[name] for name in names]
    if as_json:
        told = {
            view.name: {
                "text": view.text,
                "columns": [{"name": c.name, "kind": c.kind, "text": c.text} for c in view.columns],
            }
            for view in views
        }
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    for number, view in enumerate(views):
        if number:
            click.echo()
        click.echo(f"{view.name}: {view.text}")
        _print_columns(view)


def _print_columns(view: View) -> None:
    """A line a column; the parts of a figure in one."""
    from rich.table import Table
    from rich.text import Text

    from tokrig.store.table import SUMMARIES

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    figures = set(SUMMARIES) if view.name == "rows" else set()
    told: set[str] = set()
    for column in view.columns:
        found = _SPREAD.fullmatch(column.name)
        if found and found[1] in figures:
            if found[1] not in told:
                parts = "_median, _min, _max, _n, _ci95_low, _ci95_high"
                text = f"{_definition(found[1])}: {parts}"
                grid.add_row(Text(f"  {found[1]}_…", style="bold"), "number", text)
            told.add(found[1])
        else:
            grid.add_row(Text(f"  {column.name}", style="bold"), column.kind, column.text)
    put(console(), grid)


def _definition(metric: str) -> str:
    from tokrig.record.metrics import leaves

    label = {one.column: (one.label, one.unit) for one in leaves()}
    name, unit = label.get(metric, (metric, ""))
    return name if not unit or name.endswith(unit) else f"{name}, {unit}"


# Answers


def _print(answer: Answer, limit: int) -> None:
    """A table, or a block a row where the terminal is too narrow for it."""
    from tokrig.cli.present import fits, plain_table

    rows = list(islice(answer.rows(), limit + 1))
    more, rows = len(rows) > limit, rows[:limit]
    cells = [[_shown(value) for value in row] for row in rows]
    out = console()
    numbers = [
        name
        for n, name in enumerate(answer.columns)
        if all(isinstance(row[n], int | float | decimal.Decimal | None) for row in rows)
    ]
    headings = [line(name)[:SHOWN_CHARACTERS] for name in answer.columns]
    table = plain_table(*headings, right=[line(n)[:SHOWN_CHARACTERS] for n in numbers])
    if bounded(sys.stdout) and len(headings) * 3 > out.width:
        _print_blocks(headings, cells)
    else:
        from rich.text import Text

        for row in cells:
            table.add_row(*map(Text, row))
        if not bounded(sys.stdout) or fits(out, table):
            _put_whole(table)
        else:
            _print_blocks(headings, cells)
    if not rows:
        click.echo("no rows", err=True)
    if more:
        click.echo(
            f"note: the first {limit:,} rows; --limit prints more, --csv, --json and -o FILE have"
            " all of them",
            err=True,
        )


def _put_whole(table: Table) -> None:
    out = console()
    if not bounded(sys.stdout):
        out.width = 100_000
    put(out, table)


def _print_blocks(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    width = max(map(len, headings), default=0)
    for number, row in enumerate(cells):
        if number:
            click.echo()
        for heading, cell in zip(headings, row, strict=True):
            click.echo(f"{heading.ljust(width)}  {cell}")


def _shown(value: Any) -> str:
    """A value as a table shows it: short, on one line."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value) if isinstance(value, str | int) else str(_plain(value))
    text = line(text[: 4 * SHOWN_CHARACTERS]) if "\n" not in text else line(text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _plain(value: Any) -> Any:
    """A value of SQL as JSON can have it; infinity and not-a-number are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.hex() if isinstance(value, bytes) else str(value)


def _json(answer: Answer, rows: Iterable[tuple[Any, ...]], out: TextIO) -> int:
    """An array of objects, one a line; how many."""
    written = -1
    for written, row in enumerate(rows):
        found = dict(zip(answer.columns, map(_plain, row), strict=True))
        out.write(f"{',' if written else '['}\n{json.dumps(found, ensure_ascii=False)}")
    out.write("[]\n" if written < 0 else "\n]\n")
    return written + 1


def _csv(answer: Answer, rows: Iterable[tuple[Any, ...]], out: TextIO) -> int:
    """As the page's CSV: null is an empty cell, and no text is a formula; how many rows."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(answer.columns)
    written = 0
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        written += 1
    return written


def _cell(value: Any) -> Any:
    from tokrig.store.table import no_formula

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | None):
        return value
    found = _plain(value)
    text = json.dumps(found, ensure_ascii=False) if isinstance(found, list | dict) else str(found)
    return no_formula(text)


def _write(answer: Answer, file: Path, ending: str, limit: int | None) -> int:
    try:
        with replacing(file) as temporary:
            if ending == ".parquet":
                return _parquet(answer, temporary, limit)
            with open(temporary, "x", encoding="utf-8", errors="replace", newline="") as out:
                write = _json if ending == ".json" else _csv
                return write(answer, islice(answer.rows(), limit), out)
    except OSError as problem:
        raise StoreError(
            f"{file}: cannot be written: {problem.strerror or problem}",
            hint="see to room and permissions, or choose another file",
        ) from None


def _parquet(answer: Answer, path: Path, limit: int | None) -> int:
    """Batch after batch as they come."""
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    writer, written = None, 0
    try:
        for chunk in answer.chunks:
            found = pa.ipc.open_stream(io.BytesIO(chunk)).read_all()
            if limit is not None:
                found = found.slice(0, limit - written)
            writer = writer or parquet.ParquetWriter(path, found.schema, compression="zstd")
            if len(found):
                writer.write_table(found)
            written += len(found)
            if written == limit:
                break
    except pa.ArrowException as problem:
        raise InputError(
            f"Parquet cannot hold that: {problem}", hint="cast the column in SQL, or write CSV"
        ) from None
    finally:
        if writer is not None:
            writer.close()
    return written
