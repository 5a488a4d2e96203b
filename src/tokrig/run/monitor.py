"""Watches the machine and the engine while a cell is measured, about once a second.

A thread of its own whose reads cost a few milliseconds a second; its CPU time counts as the
client's, so it cannot hide.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import psutil

from tokrig import registry
from tokrig.backends import Counters
from tokrig.probes import Probe, Reading
from tokrig.run.journal import Observed

PERIOD_S = 1.0
MAX_GAP_S = 3.0
MIN_ENERGY_WINDOW_S = 5.0


def probes() -> list[Probe]:
    """The probes that can read something here."""
    loaded: list[Probe] = [
        registry.load("probes", name, "PROBE") for name in registry.names("probes")
    ]
    return [probe for probe in loaded if probe.availability().ok]


@dataclass
class _Look:
    at_s: float
    readings: list[Reading]
    rss_bytes: int
    engine_cpu_s: float
    client_cpu_s: float
    pids: frozenset[int]


@dataclass
class Monitor:
    """Collects looks between ``start`` and ``stop``; ``observed`` sums them up."""

    probes: Sequence[Probe]
    processes: Callable[[], list[psutil.Process]]
    idle_w: dict[str, float] = field(default_factory=dict)
    _looks: list[_Look] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look now, about every second, and once more at the end."""
        self._looks = [self._look()]
        ended = threading.Event()

        def loop() -> None:
            while not ended.wait(PERIOD_S):
                self._looks.append(self._look())

        thread = threading.Thread(target=loop, name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._looks.append(self._look())

    def measure_idle(self, seconds: float = MIN_ENERGY_WINDOW_S) -> None:
        """Mean power of each energy counter while nothing runs; costs nothing without counters."""
        before = _energy(self._look())
        if not before:
            return
        time.sleep(seconds)
        after = _energy(self._look())
        self.idle_w = {k: (after[k] - before[k]) / seconds for k in before if k in after}

    def observed(self, wall_s: float, client_cpu_share: float) -> Observed:
        """What the looks of the last ``watching`` add up to."""
        looks = self._looks
        readings = [r for look in looks for r in look.readings]
        return Observed(
            wall_s=wall_s,
            client_cpu_share=client_cpu_share,
            engine_rss_bytes=max((look.rss_bytes for look in looks), default=0) or None,
            engine_vram_bytes=_vram(looks),
            load_average_max=_most(r.load_average for r in readings),
            other_cpu_share_max=_other_cpu(looks),
            throttle_reasons=_throttle(readings),
            gpu_temperature_max_c=_most(r.gpu_temperature_c for r in readings),
            gpu_power_mean_w=_mean(r.gpu_power_w for r in readings),
            foreign_gpu_processes=_foreign(looks),
            energy_j=_spent(looks),
            idle_w=dict(self.idle_w),
        )

    def _look(self) -> _Look:
        rss = cpu = 0.0
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error), process.oneshot():
                rss += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system
        return _Look(
            time.monotonic(),
            [probe.read() for probe in self.probes],
            int(rss),
            cpu,
            time.process_time(),
            frozenset(p.pid for p in processes),
        )


def grown(before: Counters | None, after: Counters | None) -> dict[str, float]:
    """By how much an engine's own sums grew; empty where it keeps none or was started anew."""
    if before is None or after is None:
        return {}
    found = {name: round(value - before.get(name, 0.0), 6) for name, value in after.items()}
    return found if all(value >= 0 for value in found.values()) else {}


def _energy(look: _Look) -> dict[str, float]:
    merged: dict[str, float] = {}
    for reading in look.readings:
        merged.update(reading.energy_j)
    return merged


def _spent(looks: Sequence[_Look]) -> dict[str, float]:
    """Joules per scope; nothing for a short window or where looks are too far apart."""
    if not looks or looks[-1].at_s - looks[0].at_s < MIN_ENERGY_WINDOW_S:
        return {}
    if any(b.at_s - a.at_s > MAX_GAP_S for a, b in pairwise(looks)):
        return {}
    first, last = _energy(looks[0]), _energy(looks[-1])
    return {scope: round(last[scope] - first[scope], 3) for scope in first if scope in last}


def _other_cpu(looks: Sequence[_Look]) -> float | None:
    """Highest CPU use, in cores, of everything that is neither engine nor client."""
    shares = []
    for a, b in pairwise(looks):
        before, after = _busy(a), _busy(b)
        seconds = b.at_s - a.at_s
        # /proc counts in hundredths of a second: short gaps tell nothing.
        if before is None or after is None or seconds < PERIOD_S / 2:
            continue
        ours = (b.engine_cpu_s - a.engine_cpu_s) + (b.client_cpu_s - a.client_cpu_s)
        shares.append(max(0.0, (after - before - ours) / seconds))
    return round(max(shares), 3) if shares else None


def _busy(look: _Look) -> float | None:
    return next((r.busy_cpu_s for r in look.readings if r.busy_cpu_s is not None), None)


def _vram(looks: Sequence[_Look]) -> int | None:
    peaks = [
        sum(size for pid, size in reading.gpu_process_bytes.items() if pid in look.pids)
        for look in looks
        for reading in look.readings
        if reading.gpu_process_bytes
    ]
    return max(peaks, default=0) or None


def _foreign(looks: Sequence[_Look]) -> int | None:
    """Most processes seen on the GPU that are not the engine's; None when nobody could list."""
    counts = [
        len(set(reading.gpu_process_bytes) - look.pids)
        for look in looks
        for reading in look.readings
        if reading.gpu_process_bytes is not None and reading.gpu_processes_complete
    ]
    return max(counts) if counts else None


def _throttle(readings: Sequence[Reading]) -> list[str] | None:
    told = [r.throttle_reasons for r in readings if r.throttle_reasons is not None]
    return sorted({reason for reasons in told for reason in reasons}) if told else None


def _most(values: Iterator[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _mean(values: Iterator[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 2) if known else None
