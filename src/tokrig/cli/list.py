"""``tokrig list``: one line a record, newest first."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli import words
from tokrig.cli.options import (
    Word,
    complete_backend,
    complete_model,
    complete_rig,
    content_and_json,
    example,
)
from tokrig.cli.words import NULL, print_json, rate
from tokrig.query import labels

if TYPE_CHECKING:
    from tokrig.store import Listing, Row

STATUSES = ("complete", "failed", "interrupted", "valid", "unverified", "invalid")
# Shown where the terminal has room, in this order of importance; the id tells most of it anyway.
DISPENSABLE = ("mode", "rig", "model", "quant", "backend", "date")


@click.command(
    "list",
    epilog=example(
        "tokrig list --model gemma --status valid",
        "tokrig list --mode n-gram",
        "tokrig list --json",
    ),
)
@click.option("--model", metavar="TEXT", shell_complete=complete_model, help="Name contains TEXT.")
@click.option("--rig", metavar="TEXT", shell_complete=complete_rig, help="Rig contains TEXT.")
@click.option(
    "--backend", metavar="TEXT", shell_complete=complete_backend, help="Engine contains TEXT."
)
@click.option("--mode", metavar="TEXT", help="Mode contains TEXT: baseline, n-gram, reasoning off.")
@click.option("--status", type=Word(STATUSES), help="Only records of this status or verdict.")
@content_and_json
def command(
    model: str | None,
    rig: str | None,
    backend: str | None,
    mode: str | None,
    status: str | None,
    content: Path,
    as_json: bool,
) -> None:
    """List the records of a content folder.

    Files that cannot be read are named on stderr. gen tok/s is the range of medians over the
    valid workloads at the lowest concurrency; what is missing in it is named.
    """
    from tokrig.store import Store

    listing = Store(content).listing()
    rows = [
        row
        for row in listing.rows
        if _holds(model, f"{row.model} {row.quant or ''}")
        and _holds(rig, row.rig)
        and _holds(backend, row.backend)
        and _holds(mode, f"{row.mode} {labels.mode(row.mode)}")
        and (status is None or status in (row.status, row.verdict))
    ]
    _complain(listing)
    if as_json:
        print_json([_as_json(row) for row in rows])
    elif rows:
        _print(rows)
    elif listing.rows:
        click.echo(f"none of {len(listing.rows)} records matches", err=True)
    else:
        click.echo(f"no records in {content}; make one with: tokrig run", err=True)


def _holds(wanted: str | None, text: str) -> bool:
    """Whether all words of ``wanted`` occur in ``text``; "gemma-3-270m" finds "Gemma-3 270m"."""
    if wanted is None:
        return True
    plain = text.lower().replace("-", " ")
    return all(word in plain for word in wanted.lower().replace("-", " ").split())


def _complain(listing: Listing) -> None:
    for problem in listing.problems:
        click.echo(f"unreadable: {problem.message}", err=True)
    if listing.problems:
        click.echo("hint: tokrig check names what is wrong in each", err=True)


def _as_json(row: Row) -> dict[str, object]:
    return {**dataclasses.asdict(row), "model": row.model, "backend": row.backend}


def _print(rows: list[Row]) -> None:
    """The table with as many columns as the terminal has room for; the id is never cut.

    By hand, not by rich: a thousand rows must not take a second.
    """
    cells = {
        "id": [row.id for row in rows],
        "model": [row.model for row in rows],
        "quant": [row.quant or NULL for row in rows],
        "backend": [row.backend for row in rows],
        "mode": [words.mode(row.mode) or NULL for row in rows],
        "rig": [row.rig for row in rows],
        "gen tok/s": [_rates(row) for row in rows],
        "validity": [_verdict(row) for row in rows],
        "date": [(row.started_at or NULL)[:10] for row in rows],
    }
    if not any(words.mode(row.mode) for row in rows):
        del cells["mode"]
    widths = {name: max(len(name), *map(len, column)) for name, column in cells.items()}
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    room = shutil.get_terminal_size().columns + 2 if bounded else sys.maxsize
    room -= sum(widths[name] + 2 for name in cells if name not in DISPENSABLE)
    for name in filter(cells.__contains__, DISPENSABLE):
        if widths[name] + 2 <= room:
            room -= widths[name] + 2
        else:
            del widths[name]
    for line in zip(*([name, *cells[name]] for name in widths), strict=True):
        padded = (
            text.rjust(width) if name == "gen tok/s" else text.ljust(width)
            for text, (name, width) in zip(line, widths.items(), strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _rates(row: Row) -> str:
    low, high = row.output_tok_per_s_min, row.output_tok_per_s_max
    if low is None or high is None:
        return NULL
    rates = rate(low) if low == high else f"{rate(low)}–{rate(high)}"
    return f"{rates}; {row.left_out}" if row.left_out else rates


def _verdict(row: Row) -> str:
    if row.status != "complete":
        return row.status
    return "INVALID" if row.verdict == "invalid" else row.verdict
