"""``tokrig doctor``: what can be used here, what is missing, and how to get it."""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig import __version__, registry
from tokrig.cli.options import content_and_json, example
from tokrig.registry import get_package

if TYPE_CHECKING:
    from rich.console import Console

    from tokrig.backends import Backend, Capabilities, Engine
    from tokrig.run.detect import Program

# In the order of printing; what is said of a group where nothing was found.
GROUPS = {
    "backends": "",
    "running servers": "none on the usual ports of 127.0.0.1",
    "installed programs": "none of the engines' programs is on the PATH",
    "probes": "",
    "models": "",
    "permissions": "",
}
MODELS_SHOWN = 4

PERF = Path("/proc/sys/kernel/perf_event_paranoid")


@dataclass(frozen=True)
class Finding:
    """One thing that is here or missing. ``needed``: without it no run is possible at all.
    ``facts`` is what ``detail`` tells, for machines."""

    group: str
    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@click.command("doctor", epilog=example("tokrig doctor"))
@content_and_json
@click.pass_context
def command(ctx: click.Context, content: Path, as_json: bool) -> None:
    """Tell what can be used here, what is missing, and how to get it.

    That is: backends, running servers, programs, probes, models and permissions. Servers are
    looked for on the engines' usual ports of this machine. Exit code 1 only when nothing can be
    measured at all.
    """
    from tokrig.cli import present

    found = [
        *(*backends(), *servers(), *programs()),
        *(*probes(), *models(), *permissions(content)),
    ]
    if as_json:
        versions = {"tokrig": __version__, "python": platform.python_version()}
        present.print_json(
            {"versions": versions, "findings": [dataclasses.asdict(f) for f in found]}
        )
    else:
        _print(present.console(), found)
    engine = any(f.ok for f in found if f.group == "backends")
    if not engine or any(f.needed and not f.ok for f in found):
        ctx.exit(1)


def backends() -> Iterator[Finding]:
    """Every engine, usable or not, and what it can do."""
    for name in registry.names("backends"):
        backend: Backend = registry.load("backends", name, "BACKEND")
        state = backend.availability()
        yield Finding(
            "backends",
            name,
            state.ok,
            f"{backend.title}: {state.detail}\n{abilities(backend.capabilities)}",
            state.hint,
            facts={"title": backend.title, **dataclasses.asdict(backend.capabilities)},
        )


def abilities(can: Capabilities) -> str:
    """What an engine can do, in a few words."""
    parts = [
        ", ".join(can.apis),
        f"speculation: {', '.join(can.speculation)}" if can.speculation else "",
        f"cache off by {can.cache_switch}" if can.cache_switch else "cache kept off by salt",
        f"reasoning by {can.reasoning_switch}" if can.reasoning_switch else "",
        {"request": "its own clock", "counters": "its own counters"}.get(can.timings or "", ""),
    ]
    return " · ".join(filter(None, parts))


def servers() -> Iterator[Finding]:
    """The engines that answer on this machine."""
    from tokrig.run import detect

    for found in detect.running():
        engine = found.engine
        known = found.backend.title if found.backend else "a server"
        yield Finding(
            "running servers",
            found.backend.name if found.backend else "locked",
            True,
            f"{found.url}: {described(engine) if engine else known}"
            + (", locked: it wants a key (--api-key-env NAME)" if found.locked else ""),
            facts={
                "url": found.url,
                "engine": engine.engine if engine else None,
                "build": engine.build if engine else None,
                "api": engine.api if engine else None,
                "served_models": list(engine.served_models) if engine else [],
                "locked": found.locked,
            },
        )


def described(engine: Engine) -> str:
    """``llama.cpp b9174 (cuda), serves a, b and 3 more``."""
    api = f"({engine.api})" if engine.api else ""
    words = " ".join(filter(None, (engine.engine, engine.build, api)))
    if not engine.served_models:
        return words
    rest = len(engine.served_models) - MODELS_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return f"{words}, serves {', '.join(engine.served_models[:MODELS_SHOWN])}{more}"


def programs() -> Iterator[Finding]:
    """The engines' programs on the PATH."""
    from tokrig.run import detect

    for program in detect.installed():
        facts = dataclasses.asdict(program)
        yield Finding("installed programs", program.name, True, told_of(program), facts=facts)


def told_of(program: Program) -> str:
    """``b9174, computes with cpu, cuda (CUDA0), /usr/bin/llama-server``."""
    silence = "version not told" if program.in_time else "version not told in time"
    parts = [program.version or silence]
    if program.apis is not None:
        devices = f" ({', '.join(program.devices)})" if program.devices else ""
        parts.append(f"computes with {', '.join(program.apis)}{devices}")
    return ", ".join([*parts, program.path])


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
        yield Finding("models", name, here, detail, get_package(entry.install))


def permissions(content: Path) -> Iterator[Finding]:
    """Folders tokrig writes to, and what the kernel lets a user read."""
    from tokrig.files import cache_dir, state_dir
    from tokrig.store import unwritable

    folders = {
        "content folder": (content, "choose another one with --content", True),
        "state folder": (state_dir(), "choose another one with TOKRIG_STATE", True),
        "cache folder": (cache_dir(), "choose another one with XDG_CACHE_HOME", False),
        "temporary folder": (Path(tempfile.gettempdir()), "choose one with TMPDIR", False),
    }
    for name, (folder, hint, needed) in folders.items():
        reason = unwritable(folder)
        yield Finding("permissions", name, not reason, reason or str(folder), hint, needed)
    yield _perf()


def _perf() -> Finding:
    """Whether a user may read the kernel's performance counters."""
    try:
        level = int(PERF.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Finding("permissions", "perf counters", False, "this system has none to read")
    hint = "sudo sysctl kernel.perf_event_paranoid=2 (nothing tokrig measures today needs it)"
    detail = f"kernel.perf_event_paranoid is {level}"
    return Finding("permissions", "perf counters", level <= 2, detail, hint)


def printable(text: str) -> str:
    """Without control characters: servers and programs name themselves as they like."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _print(out: Console, found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tokrig.cli.present import put

    out.print(f"tokrig {__version__}, Python {platform.python_version()}")
    for group, nothing in GROUPS.items():
        out.print()
        out.print(group, style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        for finding in (f for f in found if f.group == group):
            mark = Text("✓", style="green") if finding.ok else Text("✗", style="red")
            text = Text(printable(finding.detail), overflow="fold")
            if not finding.ok and finding.hint:
                text.append(f"\n{finding.hint}", style="cyan")
            grid.add_row(mark, finding.name, text)
        if not grid.row_count:
            grid.add_row(Text("–"), Text(nothing, style="dim"))
        put(out, grid)
