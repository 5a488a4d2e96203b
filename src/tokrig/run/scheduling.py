"""Who had the processors while something was measured: how long the engine's and the client's
threads were ready but had to wait, what others used, what the hypervisor took.

Linux only. ``/proc/PID/task/TID/schedstat`` holds a thread's time on a processor and its time in
the run queue, in nanoseconds (kernel documentation, "Scheduler Statistics"); ``/proc/stat`` what
each processor did, in clock ticks (proc(5)). Where neither can be read nothing is told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# Threads that ended between two looks took their waits with them. Where those that were seen ran
# for less than this share of what their processes did, the sum would pass for the whole.
COVERED = 0.8
# Below this much CPU time nothing was missed that matters: the clock of processes is coarse.
COARSE_S = 0.1
# What it takes to wake a thread on an idle machine, a virtual one at that: no wait for anybody.
WAKE_NS = 20_000

Thread = tuple[int, int]
"""Process id and thread id."""


@dataclass(frozen=True)
class Times:
    """Nanoseconds that a thread ran, and that it was ready but waited; how often it was let run."""

    run_ns: int
    wait_ns: int
    turns: int = 0

    def waited_s(self, before: Times) -> float:
        """Seconds in the queue since then, less what waking up takes."""
        woken_ns = (self.turns - before.turns) * WAKE_NS
        return max(0, self.wait_ns - before.wait_ns - woken_ns) / 1e9


@dataclass(frozen=True)
class Processor:
    """Seconds since boot that one processor worked for programs, and that were stolen from it."""

    busy_s: float
    stolen_s: float


@dataclass(frozen=True)
class Look:
    """One moment. ``engine_cpu_s`` and ``client_cpu_s`` are of whole processes, ended threads
    included; ``loop`` is the thread that takes the stamps; None = not readable. Without
    ``engine_known`` the engine's processes cannot be told from others."""

    at_s: float
    threads: Mapping[Thread, Times] | None
    loop: Times | None
    processors: Mapping[int, Processor] | None
    engine_cpu_s: float
    client_cpu_s: float
    engine_known: bool = True


@dataclass(frozen=True)
class Scheduling:
    """Of a window; None = nobody can tell. All but ``steal_share``, which is a share of the
    processors' time, are seconds per second of the window: 1 is one processor, or one thread.

    ``engine_wait_share`` is the sum over the engine's threads: those that compute wait for each
    other, so what one of them loses, all lose. An engine with more threads than processors, and
    one whose client runs beside it, waits for itself and for us: ``foreign_wait_share`` is the part
    of it for which others used a processor meanwhile, all of it where their use is not known.
    ``thread_wait_share`` is the same of the one thread that waited most.
    """

    engine_wait_share: float | None = None
    foreign_wait_share: float | None = None
    thread_wait_share: float | None = None
    engine_cpus: int | None = None
    other_cores_mean: float | None = None
    other_cpu_share_max: float | None = None
    steal_share: float | None = None
    client_wait_share: float | None = None


class Reader:
    """Reads the files. ``root`` is where ``/proc`` is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def threads(self, pids: Iterable[int]) -> dict[Thread, Times] | None:
        """Of all threads of the processes; None where there are none, or the kernel does not
        keep their times."""
        found: dict[Thread, Times] = {}
        for pid in pids:
            folder = f"{self._proc}/{pid}/task"
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    times = self._times(f"{folder}/{name}/schedstat")
                    if times is not None:
                        found[pid, int(name)] = times
        # A kernel without these sums shows zeros for everybody.
        return found if any(times.run_ns for times in found.values()) else None

    def thread(self, pid: int, tid: int) -> Times | None:
        """Of one thread."""
        return self._times(f"{self._proc}/{pid}/task/{tid}/schedstat")

    def processors(self) -> dict[int, Processor] | None:
        """By number; None where ``/proc/stat`` is missing, or that of a container alone."""
        text = _read(f"{self._proc}/stat")
        if text is None or self._is_own_view():
            return None
        found = {}
        for line in text.splitlines():
            name, *words = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and len(words) >= 8:
                user, nice, system, _idle, _wait, _irq, _softirq, steal = map(int, words[:8])
                # Interrupts are left out: those of the loopback's packets are our own.
                busy = user + nice + system
                found[int(name[3:])] = Processor(busy * self._tick_s, steal * self._tick_s)
        return found or None

    def _is_own_view(self) -> bool:
        """LXC shows a container its own share of the file, which tells nothing of others."""
        mounts = _read(f"{self._proc}/self/mounts") or ""
        return any(line.split()[1:2] == ["/proc/stat"] for line in mounts.splitlines())

    @staticmethod
    def _times(path: str) -> Times | None:
        words = (_read(path) or "").split()
        if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
            return None
        return Times(*map(int, words[:3]))


def usable(threads: Iterable[Thread]) -> frozenset[int]:
    """The processors that any of the threads may run on; empty where nobody tells."""
    found: set[int] = set()
    if hasattr(os, "sched_getaffinity"):
        for _, tid in threads:
            with contextlib.suppress(OSError):
                found |= os.sched_getaffinity(tid)
    return frozenset(found)


def summed(looks: Sequence[Look], cpus: frozenset[int], own_cpus: frozenset[int]) -> Scheduling:
    """What the looks of a window add up to. ``cpus`` are those that the engine may use, all where
    that is empty; ``own_cpus`` those of this process."""
    if len(looks) < 2 or looks[-1].at_s <= looks[0].at_s:
        return Scheduling()
    first, last = looks[0], looks[-1]
    window_s = last.at_s - first.at_s
    loop = None
    if first.loop and last.loop:
        loop = round(last.loop.waited_s(first.loop) / window_s, 5)
    by_thread = _waits_s(looks)
    waited = most = None
    if by_thread is not None:
        waited = round(sum(by_thread.values()) / window_s, 4)
        most = round(max(by_thread.values(), default=0.0) / window_s, 4)
    if not (first.engine_known and last.engine_known):
        return Scheduling(client_wait_share=loop)
    if last.processors is None:
        return Scheduling(
            engine_wait_share=waited,
            foreign_wait_share=waited,
            thread_wait_share=most,
            client_wait_share=loop,
        )
    cpus = (cpus & frozenset(last.processors)) or frozenset(last.processors)
    shared = not own_cpus or bool(cpus & own_cpus)
    # Ticks are hundredths of a second: of a short gap they tell nothing.
    gaps = [_others(a, b, cpus, shared) for a, b in pairwise(looks) if b.at_s - a.at_s >= 0.5]
    others = round(_others(first, last, cpus, shared), 4)
    stolen_s = _stolen_s(last, cpus) - _stolen_s(first, cpus)
    return Scheduling(
        engine_wait_share=waited,
        foreign_wait_share=None if waited is None else min(waited, others),
        thread_wait_share=None if most is None else min(most, others),
        engine_cpus=len(cpus),
        other_cores_mean=others,
        other_cpu_share_max=round(max(gaps), 4) if gaps else None,
        steal_share=round(stolen_s / window_s / len(cpus), 4),
        client_wait_share=loop,
    )


def _waits_s(looks: Sequence[Look]) -> dict[Thread, float] | None:
    """Seconds that each of the engine's threads waited."""
    found: dict[Thread, float] = {}
    run_ns = 0
    for a, b in pairwise(looks):
        if a.threads is None or b.threads is None:
            return None
        for thread, now in b.threads.items():
            # A thread that was not there before has lived in this window only.
            before = a.threads.get(thread, Times(0, 0))
            if now.run_ns < before.run_ns or now.wait_ns < before.wait_ns:
                before = Times(0, 0)  # the number was given to another thread
            run_ns += now.run_ns - before.run_ns
            found[thread] = found.get(thread, 0.0) + now.waited_s(before)
    ran_s = looks[-1].engine_cpu_s - looks[0].engine_cpu_s
    return None if run_ns / 1e9 < COVERED * ran_s - COARSE_S else found


def _others(a: Look, b: Look, cpus: frozenset[int], shared: bool) -> float:
    """Cores that neither engine nor client used, on the engine's processors."""
    used_s = _busy_s(b, cpus) - _busy_s(a, cpus) - (b.engine_cpu_s - a.engine_cpu_s)
    if shared:
        used_s -= b.client_cpu_s - a.client_cpu_s
    return max(0.0, used_s / (b.at_s - a.at_s))


def _busy_s(look: Look, cpus: frozenset[int]) -> float:
    assert look.processors is not None
    return sum(look.processors[cpu].busy_s for cpu in cpus if cpu in look.processors)


def _stolen_s(look: Look, cpus: frozenset[int]) -> float:
    assert look.processors is not None
    return sum(look.processors[cpu].stolen_s for cpu in cpus if cpu in look.processors)


def _read(path: str) -> str | None:
    """A small file of ``/proc``, by the shortest way: there may be hundreds a second."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
