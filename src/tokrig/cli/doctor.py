"""``tokrig doctor``: what can be used here, what is missing, and how to get it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig import __version__, registry
from tokrig.cli.options import content_and_json, example

if TYPE_CHECKING:
    from rich.console import Console

PERF = Path("/proc/sys/kernel/perf_event_paranoid")


@dataclass(frozen=True)
class Finding:
    """One thing that is here or missing. ``needed``: without it no run is possible at all."""

    group: str
    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = False


@click.command("doctor", epilog=example("tokrig doctor"))
@content_and_json
@click.pass_context
def command(ctx: click.Context, content: Path, as_json: bool) -> None:
    """Tell which backends, probes, models and permissions are here.

    For everything that is missing there is a hint how to get it. Exit code 1 only when nothing
    can be measured at all.
    """
    from tokrig.cli import present, words

    found = [*backends(), *models(), *probes(), *permissions(content)]
    if as_json:
        versions = {"tokrig": __version__, "python": platform.python_version()}
        words.print_json({"versions": versions, "findings": [dataclasses.asdict(f) for f in found]})
    else:
        _print(present.console(), found)
    engine = any(f.ok for f in found if f.group == "backends")
    if not engine or any(f.needed and not f.ok for f in found):
        ctx.exit(1)


def backends() -> Iterator[Finding]:
    """Every engine, usable or not."""
    for name in registry.names("backends"):
        state = registry.load("backends", name, "BACKEND").availability()
        yield Finding("backends", name, state.ok, state.detail, state.hint)


def probes() -> Iterator[Finding]:
    """Every window on the machine, open or not."""
    for name in registry.names("probes"):
        state = registry.load("probes", name, "PROBE").availability()
        yield Finding("probes", name, state.ok, state.detail, state.hint)


def models() -> Iterator[Finding]:
    """The catalog: what its packages bring, or how to install them."""
    from tokrig.models.catalog import CATALOG

    for name, entry in CATALOG.items():
        here = importlib.util.find_spec(entry.module) is not None
        detail = f"{entry.note}; {entry.license_note}" if here else "not installed"
        yield Finding("models", name, here, detail, entry.install)


def permissions(content: Path) -> Iterator[Finding]:
    """Folders tokrig writes to, and what the kernel lets a user read."""
    from tokrig.index import user_cache
    from tokrig.run.journal import state_folder

    folders = {
        "content folder": (content, "choose another one with --content", True),
        "state folder": (state_folder(), "choose another one with TOKRIG_STATE", True),
        "cache folder": (user_cache(), "choose another one with XDG_CACHE_HOME", False),
        "temporary folder": (Path(tempfile.gettempdir()), "choose one with TMPDIR", False),
    }
    for name, (folder, hint, needed) in folders.items():
        reason = unwritable(folder)
        yield Finding("permissions", name, not reason, reason or str(folder), hint, needed)
    yield _perf()


def unwritable(folder: Path) -> str:
    """Why nothing could be written to a folder that may not exist yet; "" when it could."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"


def _perf() -> Finding:
    """Whether a user may read the kernel's performance counters."""
    try:
        level = int(PERF.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Finding("permissions", "perf counters", False, "this system has none to read")
    hint = "sudo sysctl kernel.perf_event_paranoid=2 (nothing tokrig measures today needs it)"
    detail = f"kernel.perf_event_paranoid is {level}"
    return Finding("permissions", "perf counters", level <= 2, detail, hint)


def _print(out: Console, found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tokrig.cli.present import put

    out.print(f"tokrig {__version__}, Python {platform.python_version()}")
    for group in dict.fromkeys(finding.group for finding in found):
        out.print()
        out.print(group, style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        for finding in (f for f in found if f.group == group):
            mark = Text("✓", style="green") if finding.ok else Text("✗", style="red")
            text = Text(finding.detail, overflow="fold")
            if not finding.ok and finding.hint:
                text.append(f"\n{finding.hint}", style="cyan")
            grid.add_row(mark, finding.name, text)
        put(out, grid)
