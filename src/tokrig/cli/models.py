"""``tokrig models``: what lies on the shelf, fetch a model of a hub, remove one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import completing, content_and_json, example
from tokrig.errors import InputError, Interrupted
from tokrig.units import human_bytes

if TYPE_CHECKING:
    from tokrig.models.shelf import Entry


def _kept(ctx: click.Context) -> list[str]:
    from tokrig.models import shelf

    return [entry.name for entry in shelf.entries()]


@click.group(
    "models",
    epilog=example("tokrig models list", "tokrig models fetch hf:owner/name/FILE.gguf"),
)
def command() -> None:
    """Keep models of a hub here: list, fetch, remove."""


@command.command("list", epilog=example("tokrig models list", "tokrig models list --json"))
@content_and_json
def list_command(content: Path, as_json: bool) -> None:
    """List the models that tokrig fetched or made, the least recently used first.

    That is the order in which they go when room is needed; none goes while it is in use.
    """
    from tokrig.cli import present
    from tokrig.models import shelf

    entries = shelf.entries()
    if as_json:
        present.print_json([_as_json(entry) for entry in entries])
    elif entries:
        _print(entries)
        total = human_bytes(sum(entry.bytes for entry in entries))
        click.echo(f"{total} in total", err=True)
    else:
        click.echo("tokrig keeps no models; get one with: tokrig models fetch hf:…", err=True)


@command.command("fetch", epilog=example("tokrig models fetch hf:owner/name@main/FILE.gguf"))
@click.argument("reference", shell_complete=completing(_kept))
@click.option(
    "--budget",
    "budget_gb",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Keep no more than this on the shelf: what was used least recently goes.",
)
@content_and_json
def fetch_command(reference: str, budget_gb: float | None, content: Path, as_json: bool) -> None:
    """Fetch a model of a hub, check it, print where it lies.

    REFERENCE is hf:owner/name/FILE.gguf, or hf:owner/name for a folder of safetensors; @revision
    may follow the name. What breaks off goes on with the same command.
    """
    from tokrig.cli import live, present
    from tokrig.models import shelf
    from tokrig.naming import of_hub

    if not of_hub(reference):
        raise InputError(
            f"{reference!r} is not a reference to a model on a hub",
            hint="write hf:owner/name/FILE.gguf",
        )
    steps = live.Status(sys.stderr)
    budget = None if budget_gb is None else round(budget_gb * 1e9)
    try:
        with live.signals_interrupt():
            found = shelf.resolve(reference, steps.tell, budget_bytes=budget)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: what has come is kept",
            hint=f"go on with: tokrig models fetch {reference}",
        ) from None
    finally:
        steps.end()
    if as_json:
        present.print_json({"path": str(found.path), "note": found.note})
    else:
        click.echo(found.path)


@command.command("remove", epilog=example("tokrig models remove hf:owner/name/FILE.gguf"))
@click.argument("names", nargs=-1, required=True, shell_complete=completing(_kept))
@content_and_json
def remove_command(names: tuple[str, ...], content: Path, as_json: bool) -> None:
    """Remove models from the shelf, by the names that list shows."""
    from tokrig.cli import present
    from tokrig.models import shelf

    removed = [entry for name in names for entry in shelf.remove(name)]
    if as_json:
        present.print_json([_as_json(entry) for entry in removed])
        return
    for entry in removed:
        click.echo(f"removed {entry.name}, {human_bytes(entry.bytes)}", err=True)


def _as_json(entry: Entry) -> dict[str, Any]:
    made_of = entry.manifest.quantized_from
    return {
        "name": entry.name,
        "path": str(entry.path),
        "kind": entry.kind,
        "bytes": entry.bytes,
        "whole": entry.whole,
        "last_used": _time(entry).isoformat(timespec="seconds"),
        "evictable": not entry.in_use,
        "repo": entry.manifest.repo,
        "revision": entry.manifest.commit,
        "quantized_from": made_of.model_dump(mode="json") if made_of else None,
    }


def _time(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.last_used, UTC)


def _print(entries: Sequence[Entry]) -> None:
    rows = [("model", "size", "last used", "state", "from")]
    for entry in entries:
        state = "in use" if entry.in_use else "" if entry.whole else "unfinished"
        size, used = human_bytes(entry.bytes), f"{_time(entry):%Y-%m-%d %H:%M}"
        rows.append((entry.name, size, used, state, _origin(entry)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            text.rjust(width) if number == 1 else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


def _origin(entry: Entry) -> str:
    if entry.manifest.quantized_from:
        return f"made here of {entry.manifest.quantized_from.file}"
    return f"commit {(entry.manifest.commit or '')[:12]}"
