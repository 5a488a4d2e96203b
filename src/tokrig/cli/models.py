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
    """Download models of a hub, list and remove those that tokrig keeps."""


@command.command("list", epilog=example("tokrig models list", "tokrig models list --json"))
@content_and_json
def list_command(content: Path, as_json: bool) -> None:
    """List the models that tokrig downloaded or made, the least recently used first.

    That is the order in which they are removed when room is needed; none is removed while it is
    in use.
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
    help="Keep at most this much: the least recently used models are removed.",
)
@content_and_json
def fetch_command(reference: str, budget_gb: float | None, content: Path, as_json: bool) -> None:
    """Download a model of a hub, check it, print its path.

    REFERENCE is hf:owner/name/FILE.gguf, or hf:owner/name for a folder of safetensors; @revision
    may follow the name. The same command continues an interrupted download.
    """
    from tokrig.cli import live, present
    from tokrig.models import shelf
    from tokrig.naming import Reference, of_hub

    if not of_hub(reference):
        raise InputError(
            f"{reference!r} is not a reference to a model on a hub",
            hint="write hf:owner/name/FILE.gguf",
        )
    steps = live.Status(sys.stderr)
    budget = None if budget_gb is None else round(budget_gb * 1e9)
    try:
        with live.signals_interrupt():
            path = shelf.resolve(reference, steps.tell, budget_bytes=budget)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: what was downloaded is kept",
            hint=f"go on with: tokrig models fetch {reference}",
        ) from None
    finally:
        steps.end()
    if as_json:
        from tokrig.models.identity import repository_of

        found = repository_of(path)
        assert found is not None
        note = f"{Reference.parse(reference)} at commit {found.revision}"
        present.print_json({"path": str(path), "note": note})
    else:
        click.echo(path)


@command.command("remove", epilog=example("tokrig models remove hf:owner/name/FILE.gguf"))
@click.argument("names", nargs=-1, required=True, shell_complete=completing(_kept))
@content_and_json
def remove_command(names: tuple[str, ...], content: Path, as_json: bool) -> None:
    """Remove models that tokrig keeps, by the names that list shows."""
    from tokrig.cli import present
    from tokrig.models import shelf

    removed = [entry for name in names for entry in shelf.remove(name)]
    if as_json:
        present.print_json([_as_json(entry) for entry in removed])
        return
    for entry in removed:
        click.echo(f"removed {entry.name}, {human_bytes(entry.bytes)}", err=True)


def _as_json(entry: Entry) -> dict[str, Any]:
    kept = entry.manifest
    return {
        "name": entry.name,
        "path": str(entry.path),
        "kind": kept.kind,
        "bytes": entry.bytes,
        "whole": entry.whole,
        "last_used": _time(entry).isoformat(timespec="seconds"),
        "evictable": not entry.in_use,
        "repo": kept.repo,
        "revision": kept.commit,
        "quantized_from": kept.quantized_from and kept.quantized_from.model_dump(mode="json"),
    }


def _time(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.last_used, UTC)


def _print(entries: Sequence[Entry]) -> None:
    """On a narrow terminal the last column gives way, then names are broken."""
    from tokrig.cli import present

    out = present.console()
    headings = ("model", "size", "last used", "state", "from")
    for wanted in (headings, headings[:-1]):
        table = present.plain_table(*wanted, right=("size",))
        for entry in entries:
            made_of, commit = entry.manifest.quantized_from, entry.manifest.commit or ""
            cells = (
                entry.name,
                human_bytes(entry.bytes),
                f"{_time(entry):%Y-%m-%d %H:%M}",
                "in use" if entry.in_use else "" if entry.whole else "unfinished",
                f"made here of {made_of.file}" if made_of else f"commit {commit[:12]}",
            )
            table.add_row(*cells[: len(wanted)])
        if present.fits(out, table):
            break
        table.columns[0].no_wrap = False
    present.put(out, table)
