"""What this machine is and what works on it: ``tokrig rig``, ``tokrig doctor``."""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig import __version__, registry
from tokrig.cli import present
from tokrig.cli.options import Word, content_and_json, example
from tokrig.errors import InputError
from tokrig.naming import gpu_name, limited_bytes, limited_cpus
from tokrig.units import human_bytes

if TYPE_CHECKING:
    from tokrig.backends import Backend, Capabilities
    from tokrig.bandwidth import Bandwidth
    from tokrig.record.model import Cpu, Gpu, Memory, Rig
    from tokrig.run.detect import Found, Program

NULL = "–"
Rows = list[tuple[str, str]]
"""Labels and values."""

# The machine.


@click.command("rig", epilog=example("tokrig rig", "tokrig rig --bandwidth"))
@click.argument("action", type=Word(["probe"]), default="probe", metavar="[probe]")
@click.option(
    "--bandwidth",
    is_flag=True,
    help="Measure the memory bandwidth too (some seconds, all cores), and keep it: runs from then"
    " on tell which share of their ceiling they reach.",
)
@click.option(
    "--even-if-busy", is_flag=True, help="Keep the bandwidth though other programs are at work."
)
@content_and_json
def rig(action: str, bandwidth: bool, even_if_busy: bool, content: Path, as_json: bool) -> None:
    """Show what this machine is, as a record tells it.

    A dash stands for what cannot be read here; nothing is guessed. Nothing personal is read.
    """
    from tokrig.rig import probe_rig

    if even_if_busy and not bandwidth:
        raise InputError("--even-if-busy says what becomes of a bandwidth", hint="add --bandwidth")
    found, measured, kept = probe_rig(), None, False
    if bandwidth:
        from tokrig import bandwidth as bandwidths

        click.echo("measuring memory bandwidth and matrix throughput …", err=True)
        measured = bandwidths.measure_memory_bandwidth()
        flop_per_s = bandwidths.measure_matrix_flop_per_s()
        kept = even_if_busy or not measured.doubtful
        if kept:
            cards = bandwidths.measure_cards() if found.gpus else []
            bandwidths.keep(measured, flop_per_s, found, cards)
            found = probe_rig()
    if as_json:
        width = {**dataclasses.asdict(measured), "kept": kept} if measured else None
        present.print_json({"rig": found.model_dump(mode="json"), "memory_bandwidth": width})
        return
    rows = rig_rows(found)
    if measured:
        rows.append(("Measured now", _bandwidth(measured, kept)))
    present.print_pairs(present.console(), rows)


def rig_rows(rig: Rig) -> Rows:
    """Every fact of a machine; an unknown one is a dash."""
    cpu, memory = rig.cpu, rig.memory
    cpus, usable = limited_cpus(cpu), limited_bytes(memory)
    cores = f"{_text(cpu.cores)} cores, {_text(cpu.threads)} threads"
    rows = [
        ("Rig", rig.id),
        ("Board", rig.board or ""),
        ("Processor", _joined(cpu.model, cpu.soc)),
        ("Cores", cores if cpu.cores or cpu.threads else NULL),
        ("CPUs to use", f"{cpus:g}, by affinity or quota" if cpus else ""),
        ("Processor clock", _text(cpu.max_mhz, "MHz max")),
        ("Governor", _text(cpu.governor)),
        ("Instruction sets", " ".join(cpu.features) or NULL),
        ("Memory", human_bytes(memory.total_bytes)),
        ("Memory to use", f"{human_bytes(usable)}, by a limit" if usable else ""),
        (
            "Memory type",
            _joined(memory.type, memory.speed_mt_per_s and f"{memory.speed_mt_per_s} MT/s"),
        ),
        ("Memory bandwidth", _width(memory)),
        ("Matrix throughput", _matrices(cpu)),
    ]
    for number, gpu in enumerate(rig.gpus, start=1):
        rows += _gpu_rows("GPU" if len(rig.gpus) == 1 else f"GPU {number}", gpu)
    rows += [] if rig.gpus else [("GPU", NULL)]
    rows += [
        ("System", _text(rig.os)),
        ("Kernel", _text(rig.kernel)),
        ("Virtualization", _text(rig.virtualization)),
    ]
    return [(label, value) for label, value in rows if value]


def _gpu_rows(label: str, gpu: Gpu) -> Rows:
    shared = " (shared with the processor)" if gpu.unified_memory else ""
    limit, clocks, link = NULL, NULL, NULL
    if gpu.power_limit_w is not None:
        most, usual = _text(gpu.power_max_w, "W"), _text(gpu.power_default_w, "W")
        limit = f"{gpu.power_limit_w:g} W (default {usual}, max {most})"
    if gpu.clock_max_mhz is not None or gpu.memory_clock_max_mhz is not None:
        memory = _text(gpu.memory_clock_max_mhz, "MHz")
        clocks = f"{_text(gpu.clock_max_mhz, 'MHz')} core, {memory} memory"
    if gpu.pcie_generation or gpu.pcie_width:
        link = f"{_text(gpu.pcie_generation)}.0 x{_text(gpu.pcie_width)}"
    return [
        (label, _joined(gpu.name, gpu.arch)),
        (f"{label} memory", human_bytes(gpu.vram_bytes) + shared),
        (f"{label} driver", _text(gpu.driver)),
        (f"{label} power limit", limit),
        (f"{label} max clocks", clocks),
        (f"{label} bandwidth", _width(gpu)),
        (f"{label} matrices", _matrices(gpu)),
        (f"{label} PCIe", link),
    ]


def _text(value: str | float | None, unit: str = "") -> str:
    if value is None:
        return NULL
    return f"{value:g} {unit}" if unit and not isinstance(value, str) else str(value)


def _joined(*values: str | int | None) -> str:
    return ", ".join(str(v) for v in values if v) or NULL


def _width(of: Memory | Gpu) -> str:
    """``48.3 GB/s, measured``; empty where it is not known."""
    if of.bandwidth_bytes_per_s is None:
        return ""
    kind = {"driver": "by the driver's figures"}.get(of.bandwidth_from or "", of.bandwidth_from)
    return _joined(f"{of.bandwidth_bytes_per_s / 1e9:.4g} GB/s", kind)


def _matrices(of: Cpu | Gpu) -> str:
    """``412 GFLOP/s, float32, measured``; empty where it is not known."""
    if of.matrix_flop_per_s is None:
        return ""
    return _joined(f"{of.matrix_flop_per_s / 1e9:,.4g} GFLOP/s", of.matrix_type, "measured")


def _bandwidth(found: Bandwidth, kept: bool) -> str:
    text = (
        f"{found.gb_per_s:.1f} GB/s of read traffic by {found.threads} threads over "
        f"{human_bytes(found.bytes)}, best of {found.repeats}"
    )
    if found.doubtful:
        text += f"; {found.doubtful}"
    return text if kept else f"{text}; not kept, unless --even-if-busy"


# What can be used.

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
# Engines that come with what a graphics card needs.
WITH_CARDS = {"vllm", "sglang", "ollama", "lemonade"}
# By vendor, the API of its own and the compiler that a build with it wants.
MADE_WITH: dict[str, tuple[tuple[str, str], ...]] = {
    "nvidia": (("cuda", "nvcc"),),
    "amd": (("rocm", "hipcc"),),
}
PERF = Path("/proc/sys/kernel/perf_event_paranoid")
_WHEN = {"start": "at start", "request": "per request"}
_TIMINGS = {"request": "engine timings per request", "counters": "engine counters"}


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
def doctor(ctx: click.Context, content: Path, as_json: bool) -> None:
    """Tell what can be used here, what is missing, and how to get it.

    That is: backends, running servers, programs, probes, models and permissions. Servers are
    looked for on the engines' usual ports of this machine. Exit code 1 only when nothing can be
    measured at all.
    """
    found = list(_findings(content))
    if as_json:
        versions = {"tokrig": __version__, "python": platform.python_version()}
        findings = [dataclasses.asdict(one) for one in found]
        present.print_json({"versions": versions, "findings": findings})
    else:
        _print(found)
    engine = any(one.ok for one in found if one.group == "backends")
    if not engine or any(one.needed and not one.ok for one in found):
        ctx.exit(1)


def _findings(content: Path) -> Iterator[Finding]:
    from tokrig.models.catalog import CATALOG
    from tokrig.run import detect

    for name in registry.names("backends"):
        backend: Backend = registry.load("backends", name, "BACKEND")
        state, can = backend.availability(), backend.capabilities
        detail = f"{backend.title}: {state.detail}\n{abilities(can)}"
        facts = {"title": backend.title, **dataclasses.asdict(can)}
        yield Finding("backends", name, state.ok, detail, state.hint, facts=facts)
    for found in detect.running():
        yield _server(found)
    programs = detect.installed()
    for program in programs:
        facts = dataclasses.asdict(program)
        yield Finding("installed programs", program.name, True, _program(program), facts=facts)
    yield from _idle_card(programs)
    for name in registry.names("probes"):
        state = registry.load("probes", name, "PROBE").availability()
        yield Finding("probes", name, state.ok, state.detail, state.hint)
    for name, entry in CATALOG.items():
        here = importlib.util.find_spec(entry.module) is not None
        detail = f"{entry.note}; {entry.license_note}" if here else "not installed"
        yield Finding("models", name, here, detail, registry.get_package(entry.install))
    yield from _permissions(content)


def _idle_card(programs: Iterable[Program]) -> Iterator[Finding]:
    """A graphics card that nothing here computes with, and what to do about it."""
    from tokrig.rig import probe_rig

    if any(one.name in WITH_CARDS or set(one.apis or ()) - {"cpu"} for one in programs):
        return
    for gpu in probe_rig().gpus[:1]:
        api = next((a for a, tool in MADE_WITH.get(gpu.vendor, ()) if shutil.which(tool)), "vulkan")
        yield Finding(
            "installed programs",
            "graphics card",
            False,
            f"no engine here uses the {gpu_name(gpu)}",
            f"tokrig engine add llamacpp --api {api}",
        )


def abilities(can: Capabilities) -> str:
    """What an engine can do, in a few words."""
    parts = [
        ", ".join(can.apis),
        f"speculation: {', '.join(can.speculation)}" if can.speculation else "",
        f"prompt cache off {_WHEN[can.cache_switch]}"
        if can.cache_switch
        else "prompt cache bypassed by salt",
        f"reasoning switched {_WHEN[can.reasoning_switch]}" if can.reasoning_switch else "",
        _TIMINGS.get(can.timings or "", ""),
    ]
    return " · ".join(filter(None, parts))


def _server(found: Found) -> Finding:
    """``http://127.0.0.1:8080: llama.cpp b9174 (cuda), serves a, b and 3 more``."""
    engine, url = found.engine, f"http://{found.endpoint.host_header}"
    words = found.backend.title if found.backend else "a server"
    models = list(engine.served_models) if engine else []
    if engine:
        api = f"({engine.api})" if engine.api else ""
        words = " ".join(filter(None, (engine.engine, engine.build, api)))
    if models:
        rest = len(models) - MODELS_SHOWN
        words += f", serves {', '.join(models[:MODELS_SHOWN])}"
        words += f" and {rest} more" if rest > 0 else ""
    if found.locked:
        words += ", needs an API key (--api-key-env NAME)"
    names = ("engine", "build", "api")
    facts = {name: getattr(engine, name, None) for name in names}
    return Finding(
        "running servers",
        found.backend.name if found.backend else "locked",
        True,
        f"{url}: {words}",
        facts={"url": url, **facts, "served_models": models, "locked": found.locked},
    )


def _program(program: Program) -> str:
    """``b9174, computes with cpu, cuda (CUDA0), /usr/bin/llama-server``."""
    silence = "version unknown" if program.in_time else "did not tell its version in time"
    parts = [program.version or silence]
    if program.apis is not None:
        devices = f" ({', '.join(program.devices)})" if program.devices else ""
        parts.append(f"computes with {', '.join(program.apis)}{devices}")
    return ", ".join([*parts, program.path])


def _permissions(content: Path) -> Iterator[Finding]:
    """Folders that tokrig writes to, and whether a user may read the kernel's performance
    counters."""
    from tokrig.files import cache_dir, state_dir
    from tokrig.store import unwritable

    for name, folder, option, needed in (
        ("content folder", content, "--content", True),
        ("state folder", state_dir(), "TOKRIG_STATE", True),
        ("cache folder", cache_dir(), "XDG_CACHE_HOME", False),
        ("temporary folder", Path(tempfile.gettempdir()), "TMPDIR", False),
    ):
        reason = unwritable(folder)
        hint = f"choose another folder with {option}"
        yield Finding("permissions", name, not reason, reason or str(folder), hint, needed)
    try:
        level = int(PERF.read_text(encoding="ascii"))
        ok, detail = level <= 2, f"kernel.perf_event_paranoid is {level}"
        hint = "sudo sysctl kernel.perf_event_paranoid=2 (tokrig itself does not need it)"
    except (OSError, ValueError):
        ok, detail = False, "this system has none"
        hint = "normal outside Linux and in sandboxes; tokrig itself does not need them"
    yield Finding("permissions", "perf counters", ok, detail, hint)


def _print(found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = present.console()
    out.print(f"tokrig {__version__}, Python {platform.python_version()}")
    for group, nothing in GROUPS.items():
        out.print()
        out.print(group, style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        for finding in (f for f in found if f.group == group):
            mark = Text("✓", style="green") if finding.ok else Text("✗", style="red")
            # Servers and programs name themselves as they like, control characters included.
            shown = (c if c.isprintable() or c == "\n" else "�" for c in finding.detail)
            text = Text("".join(shown), overflow="fold")
            if not finding.ok and finding.hint:
                text.append(f"\n{finding.hint}", style="cyan")
            grid.add_row(mark, finding.name, text)
        if not grid.row_count:
            grid.add_row(Text(NULL), Text(nothing, style="dim"))
        present.put(out, grid)
