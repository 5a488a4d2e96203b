"""The report, made of the figures of all runs: nothing in it is written by hand but the words."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from bench.instrument.loads import CEILING, FAST, HERE, STALLS, START, WIDE, Load
from bench.instrument.peers import Peer
from tokrig import __version__

Run = Mapping[str, Any]
OWN = "tokrig"
FOREIGN = 0.05  # of a tool's core, by others: such a run is named


@dataclass(frozen=True)
class Facts:
    """Where and when it was measured."""

    day: str
    machine: str
    software: str
    versions: Mapping[str, str]
    left_out: Mapping[str, str]
    cores: Mapping[str, Any]

    @classmethod
    def here(
        cls, versions: Mapping[str, str], left_out: Mapping[str, str], cores: Mapping[str, Any]
    ) -> Facts:
        shown = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in cores.items()}
        machine = f"{processor()}, {os.cpu_count()} processors, {platform.machine()}"
        commit = subprocess.run(
            ["git", "-C", HERE, "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        software = (
            f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
            f"tokrig {__version__} ({commit or 'no commit'})"
        )
        return cls(date.today().isoformat(), machine, software, versions, left_out, shown)


def processor() -> str:
    """The processor's name, as the kernel gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


@dataclass(frozen=True)
class Column:
    """A figure in a table. ``value`` gives it for one repeat of one tool; below ``least`` two
    values are alike, and ratios are to it."""

    title: str
    value: Callable[[Found, str, int], float | None]
    form: str = "{:.2f}"
    least: float = 0.0


class Found:
    """The figures of all runs that did not fail."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = [run for run in runs if "failed" not in run]
        self.failed = [run for run in runs if "failed" in run]
        self.by_place = {(r["load"], r["tool"], r["repeat"]): r["figures"] for r in self.runs}

    def figure(self, load: str, tool: str, repeat: int, name: str) -> float | None:
        value: float | None = self.by_place.get((load, tool, repeat), {}).get(name)
        return value

    def repeats(self) -> range:
        return range(1 + max((run["repeat"] for run in self.runs), default=-1))

    def values(self, column: Column, tool: str) -> list[float]:
        found = (column.value(self, tool, repeat) for repeat in self.repeats())
        return [value for value in found if value is not None]

    def ratios(self, column: Column, tool: str) -> list[float]:
        """To tokrig, repeat by repeat, of what they are away from nothing."""
        ratios = []
        for repeat in self.repeats():
            own, other = (column.value(self, name, repeat) for name in (OWN, tool))
            if own is not None and other is not None:
                low = column.least or 1e-12
                ratios.append(max(abs(other), low) / max(abs(own), low))
        return ratios


def of(load: str, name: str) -> Callable[[Found, str, int], float | None]:
    return lambda found, tool, repeat: found.figure(load, tool, repeat, name)


def cpu_us(found: Found, tool: str, repeat: int) -> float | None:
    """CPU time of everything, a token."""
    spent, tokens = (found.figure(FAST, tool, repeat, name) for name in ("cpu_s", "tokens"))
    return None if spent is None or not tokens else spent / tokens * 1e6


def beyond_start(name: str, scale: float) -> Callable[[Found, str, int], float | None]:
    """What a token more costs: the long load against the one of 25 tokens a stream."""

    def each(found: Found, tool: str, repeat: int) -> float | None:
        more, less, tokens, few = (
            found.figure(load, tool, repeat, figure)
            for figure in (name, "tokens")
            for load in (FAST, START)
        )
        if None in (more, less, tokens, few):
            return None
        assert more is not None and less is not None and tokens is not None and few is not None
        return (more - less) / (tokens - few) * scale

    return each


def exactness(load: str) -> list[Column]:
    return [
        Column("TTFT p50, ms", of(load, "ttft_p50_ms"), "{:+.2f}", 0.01),
        Column("TTFT p99, ms", of(load, "ttft_p99_ms"), "{:+.2f}", 0.01),
        Column("ITL mean, %", of(load, "itl_mean_percent"), "{:+.3f}", 0.001),
        Column("ITL p99, ms", of(load, "itl_p99_ms"), "{:+.3f}", 0.01),
        Column("ITL p99, %", of(load, "itl_p99_percent"), "{:+.2f}", 0.01),
    ]


COST = [
    Column("CPU a token, all included, µs", cpu_us, "{:.1f}"),
    Column("of it beyond the start, µs", beyond_start("cpu_s", 1e6), "{:.1f}"),
    Column("memory a token, bytes", beyond_start("peak_bytes", 1), "{:.0f}", 1),
    Column("ceiling, 1,000 tok/s", lambda *a: thousands(of(CEILING, "taken_per_s")(*a)), "{:.0f}"),
    Column("start to first request, s", of(START, "start_s"), "{:.2f}"),
]


def thousands(value: float | None) -> float | None:
    return None if value is None else value / 1e3


@dataclass(frozen=True)
class Promise:
    """What tokrig is to reach: its own median at most ``most``, or that of the best peer at least
    ``times`` as much (at most, where ``more`` is better)."""

    words: str
    column: Column
    most: float | None = None
    times: float | None = None
    than: tuple[str, ...] = ()
    more: bool = False


def promises() -> list[Promise]:
    fast, wide, stalls = exactness(FAST), exactness(WIDE), exactness(STALLS)
    return [
        Promise("64 streams: TTFT p50 within 0.1 ms", fast[0], 0.1),
        Promise("64 streams: TTFT p99 within 1 ms", fast[1], 1),
        Promise("64 streams: ITL mean within 0.1 %", fast[2], 0.1),
        Promise("64 streams: ITL p99 within 0.05 ms", fast[3], 0.05),
        Promise("64 streams: TTFT p50 at most 1/20 of the best peer's", fast[0], times=20),
        Promise("64 streams: ITL p99 at most 1/10 of the best peer's", fast[3], times=10),
        Promise("256 streams: TTFT p50 within 0.5 ms", wide[0], 0.5),
        Promise("256 streams: ITL p99 within 1 ms", wide[3], 1),
        Promise("stalls: ITL p99 within 1 %", stalls[4], 1),
        Promise("CPU a token, all included, at most 15 µs", COST[0], 15),
        Promise("memory a token at most 150 bytes", COST[2], 150),
        Promise(
            "ceiling at least 1.8 × vllm bench serve", COST[3], times=1.8, than=("vllm",), more=True
        ),
        Promise("start to first request at most 0.4 s", COST[4], 0.4),
    ]


def page(
    facts: Facts,
    runs: Sequence[Run],
    peers: Sequence[Peer],
    loads: Sequence[Load],
) -> str:
    """The whole page, Markdown."""
    found = Found(runs)
    names = [load.name for load in loads]
    titles = {load.name: load.title for load in loads}
    repeats = len(found.repeats())
    parts = [
        "# tokrig's client beside its peers",
        f"Measured on {facts.day}: {facts.machine}; {facts.software}. Written by `python -m"
        " bench.instrument`, which measures the same on any machine.",
        f"A server in C sends tokens and keeps the time right before each `send`: that is the"
        f" truth. It runs on processor {facts.cores['server']}, each tool with all it starts on"
        f" processor {facts.cores['client']}. Every load was sent by every tool {repeats}"
        f" time{'s' * (repeats != 1)}, the tools in turn. Tables show the median and, in brackets,"
        " the lowest and highest repeat; × is how many times as much as tokrig, repeat by repeat.",
        "Errors are what a tool says − what the server did: of the median and the 99th percentile"
        " over all requests (TTFT) or all gaps between tokens (ITL), and of the mean gap. Each load"
        " is one request a stream, all at once.",
    ]
    for name in (FAST, WIDE, STALLS):
        if name in names:
            parts += [f"## {titles[name]}", table(found, peers, exactness(name))]
    if FAST in names:
        count = found.figure(FAST, OWN, 0, "tokens") or 0
        parts += [
            "## What it costs",
            f"The processor time of the tool and all it starts, over the {count:,.0f} tokens of the"
            " first load; beyond the start is what is left when a run of 25 tokens a stream is"
            " taken off, as with the memory. The ceiling is what the tool took while the server"
            " sent without waiting, eight tokens a `send`.",
            table(found, peers, COST),
            "## What tokrig promises of itself",
            promised(found, peers),
        ]
    parts += ["## What each tool means", differences(peers, found)]
    parts += ["## The server", server(found, loads)]
    parts += ["## Versions and commands", versions(facts, peers, found)]
    if remarks := notes(facts, found):
        parts += ["## What else", remarks]
    return "\n\n".join(parts) + "\n"


def rows(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table; all but the first ``words`` columns are of figures."""
    ruled = [*["---"] * words, *["--:"] * (len(header) - words)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ruled, *lines])


def table(found: Found, peers: Sequence[Peer], columns: Sequence[Column]) -> str:
    header = ["tool", *(column.title for column in columns)]
    body = [[peer.title, *(cell(found, column, peer.name) for column in columns)] for peer in peers]
    return rows(header, body)


def cell(found: Found, column: Column, tool: str) -> str:
    values = found.values(column, tool)
    if not values:
        return "–"
    told = spread(values, column.form)
    if tool != OWN and (ratios := found.ratios(column, tool)):
        told += f", × {spread(ratios, '{:,.0f}' if median(ratios) >= 100 else '{:.3g}')}"
    return told


def spread(values: Sequence[float], form: str) -> str:
    low, mid, high = (form.format(f(values)).replace("-", "−") for f in (min, median, max))
    return mid if low == high else f"{mid} ({low} to {high})"


def promised(found: Found, peers: Sequence[Peer]) -> str:
    lines = []
    for promise in promises():
        own = found.values(promise.column, OWN)
        if not own:
            continue
        form = promise.column.form.replace("+", "")
        mine = abs(median(own))
        told, limit = form.format(mine), promise.most
        if promise.times is not None:
            best = best_peer(found, peers, promise)
            if best is None:
                continue
            name, value = best
            told += f"; {name} {form.format(value)}"
            limit = value * promise.times if promise.more else value / promise.times
        assert limit is not None
        kept = mine >= limit if promise.more else mine <= limit
        lines.append([promise.words, told, "yes" if kept else "**no**"])
    return rows(["promise", "measured", "kept"], lines)


def best_peer(found: Found, peers: Sequence[Peer], promise: Promise) -> tuple[str, float] | None:
    """The peer nearest to the truth; the C client is a limit, no peer."""
    others = [p for p in peers if p.name in (promise.than or {q.name for q in peers} - {OWN, "c"})]
    medians = [
        (peer.title, abs(median(values)))
        for peer in others
        if (values := found.values(promise.column, peer.name))
        and not (promise.column.title.startswith("ITL p99") and told_means(found, peer.name))
    ]
    return min(medians, key=lambda each: each[1], default=None)


def told_means(found: Found, tool: str) -> bool:
    return any(run["means"] for run in found.runs if run["tool"] == tool)


def differences(peers: Sequence[Peer], found: Found) -> str:
    lines = []
    for peer in peers:
        mark = " Not ranked by its p99 between tokens." if told_means(found, peer.name) else ""
        lines.append(f"- **{peer.title}**: {peer.differs}.{mark}")
    return "\n".join(lines)


def server(found: Found, loads: Sequence[Load]) -> str:
    """How exact what judges was."""
    lines = []
    for load in loads:
        of_load = [run["figures"] for run in found.runs if run["load"] == load.name]
        if load.name == CEILING or not of_load:
            continue
        p50, p99 = (
            spread([figures[name] for figures in of_load], "{:.1f}")
            for name in ("late_p50_us", "late_p99_us")
        )
        lines.append([load.title, p50, p99, str(sum(f["blocked"] for f in of_load))])
    header = ["load", "late, p50, µs", "late, p99, µs", "sends that a client's full socket held up"]
    words = (
        "How late it sent after a token was due, over all runs. Lateness is no error of a tool: the"
        " truth is when it did send."
    )
    return f"{words}\n\n{rows(header, lines)}"


def versions(facts: Facts, peers: Sequence[Peer], found: Found) -> str:
    """Each tool's command for the first load that it was given."""
    commands = {run["tool"]: run["command"] for run in reversed(found.runs)}
    lines = [
        f"- {peer.title} {facts.versions[peer.title]}: `{commands[peer.name]}`"
        for peer in peers
        if peer.name in commands
    ]
    return "\n".join(lines)


def notes(facts: Facts, found: Found) -> str:
    """What was not measured, and what was measured beside others."""
    lines = [f"- {title} is left out: {reason}" for title, reason in facts.left_out.items()]
    lines += [
        f"- {run['tool']} with load *{run['load']}*, repeat {run['repeat'] + 1}, failed:"
        f" {run['failed'].strip()}"
        for run in found.failed
    ]
    disturbed = [
        f"{run['tool']}, *{run['load']}*, repeat {run['repeat'] + 1}: {run['foreign']:.0%}"
        for run in found.runs
        if run["foreign"] > FOREIGN
    ]
    if disturbed:
        lines.append(
            f"- in {len(disturbed)} of {len(found.runs)} runs other programs had more than"
            f" {FOREIGN:.0%} of the tool's processor ({'; '.join(disturbed)})"
        )
    return "\n".join(lines)
