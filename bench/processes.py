"""Programs that are measured: each on a processor of its own, and what they used of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LONGEST_S = 120.0
LOOK_S = 0.2
BUSY = 0.1  # of the processors that are needed, by others, before it begins


class Failed(Exception):
    """Something that ends one run, or keeps one tool out; in words."""


@dataclass(frozen=True)
class Cores:
    """Where the server and the tools run; the rest is for this program, if there is any."""

    server: int
    client: int
    others: frozenset[int]


def cores() -> Cores:
    """Two processors that share no core where there are such, the last of those allowed."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Failed("the server and the client need a processor each, and only one is allowed")
    client = allowed[-1]
    apart = [cpu for cpu in allowed[:-1] if cpu not in siblings(client)] or allowed[:-1]
    server = apart[-1]
    taken = siblings(client) | siblings(server) | {client, server}
    return Cores(server, client, frozenset(allowed) - taken or frozenset({server}))


def siblings(cpu: int) -> frozenset[int]:
    """The processors of one core."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    with suppress(OSError, ValueError):
        parts = (part.partition("-") for part in path.read_text().strip().split(","))
        return frozenset(n for a, _, b in parts for n in range(int(a), int(b or a) + 1))
    return frozenset({cpu})


def require_idle(cores: Cores, *, even_if_busy: bool) -> str | None:
    """A warning where others use the processors; Failed where that was not allowed."""
    before = busy_s()
    time.sleep(1)
    after = busy_s()
    share = max(after[core] - before[core] for core in (cores.server, cores.client))
    if share <= BUSY:
        return None
    words = f"other programs use {share:.0%} of a processor that is needed here"
    if not even_if_busy:
        raise Failed(f"{words}: end them, or measure --even-if-busy")
    return words


@dataclass(frozen=True)
class Used:
    """What a finished tool and its children used. ``foreign`` is the share of its core that others
    had meanwhile."""

    start_ns: int
    cpu_s: float
    peak_bytes: int
    foreign: float

    @classmethod
    def of(
        cls,
        launcher: Path,
        argv: list[str],
        settings: Mapping[str, str],
        folder: Path,
        core: int,
        longest_s: float = LONGEST_S,
    ) -> Used:
        """Run it on its core to its end, everything that it started too; what it says goes to
        ``folder``/output.txt. Raises Failed where it fails or takes too long."""
        environment = {**os.environ, "HOME": str(folder), **settings}
        output, told = folder / "output.txt", folder / "used.txt"
        busy, start_ns = busy_s()[core], time.monotonic_ns()
        with output.open("wb") as out:
            process = subprocess.Popen(
                [launcher, str(core), told, *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        try:
            peak = peak_bytes(process, start_ns, longest_s)
        finally:
            for left in [process.pid, *children(process.pid), *session(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            process.wait()
        took_s = (time.monotonic_ns() - start_ns) / 1e9
        code, cpu_us, most_kb = map(int, told.read_text().split())
        if code:
            words = output.read_text("utf-8", "replace").strip().splitlines() or ["no word"]
            raise Failed(f"it ended with {code}: {words[-1][:200]}")
        foreign = (busy_s()[core] - busy - cpu_us / 1e6) / took_s
        return cls(start_ns, cpu_us / 1e6, max(peak, most_kb * 1024), max(0.0, foreign))


def peak_bytes(process: subprocess.Popen[bytes], start_ns: int, longest_s: float) -> int:
    """Wait for the launcher; the peak of the memory of all that it started, together."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(high_water, children(process.pid))))
        if time.monotonic_ns() - start_ns > longest_s * 1e9:
            raise Failed(f"it took longer than {longest_s:g} s")
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
    return peak


def children(pid: int) -> list[int]:
    """All that a process started and what those did. Read from the kernel's own lists: looking
    through all processes would take the server's time."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *children(child)]
    return found


def session(leader: int) -> Iterator[int]:
    """The processes of the session that ``leader`` began, those of dead parents too."""
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == leader:
                yield pid


def high_water(pid: int) -> int:
    """The most memory that a process had so far, in bytes; 0 where it is gone."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def busy_s() -> list[float]:
    """Seconds that each processor has been busy, interrupts left out."""
    return [t.user + t.nice + t.system for t in psutil.cpu_times(percpu=True)]
