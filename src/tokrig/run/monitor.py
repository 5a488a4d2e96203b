"""Watches the machine and the engine while a cell is measured, about once a second.

A thread of its own whose reads cost a few milliseconds a second; its CPU time counts as the
client's, so it cannot hide.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import psutil

from tokrig import registry
from tokrig.backends import Counters
from tokrig.probes import Card, Probe, Reading
from tokrig.record.model import Rig
from tokrig.run import cards, scheduling
from tokrig.run.cards import Moment
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


@dataclass(frozen=True)
class Idle:
    """The machine before the engine started. ``power_w`` by energy counter: the key of a card, or
    ``package``; ``busy`` is the share of time in which each card was used."""

    power_w: Mapping[str, float] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _Look:
    moment: Moment
    threads: scheduling.Look
    readings: list[Reading]
    rss_bytes: int

    @property
    def package_j(self) -> float | None:
        return next((r.package_j for r in self.readings if r.package_j is not None), None)


@dataclass
class Monitor:
    """Collects looks between ``start`` and ``stop``; ``observed`` sums them up.

    ``before`` are the cards as they were when this began; ``started`` says that the engine was
    not there then.
    """

    probes: Sequence[Probe]
    processes: Callable[[], list[psutil.Process]]
    idle: Idle = field(default_factory=Idle)
    before: Mapping[str, Card] = field(default_factory=dict)
    started: bool = False
    reader: scheduling.Reader = field(default_factory=scheduling.Reader)
    _looks: list[_Look] = field(default_factory=list)
    _cpus: frozenset[int] = frozenset()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look now, about every second, and once more at the end."""
        stamping = threading.get_native_id()
        self._looks = [self._look(stamping)]
        ended = threading.Event()

        def loop() -> None:
            while not ended.wait(PERIOD_S):
                self._looks.append(self._look(stamping))

        thread = threading.Thread(target=loop, name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._looks.append(self._look(stamping))
            self._cpus = scheduling.usable(self._looks[-1].threads.threads or ())

    def look_before(self, seconds: float = MIN_ENERGY_WINDOW_S) -> None:
        """See the cards as they are before the engine starts; where something counts energy, also
        for some seconds how much it takes and how busy the cards are while nothing runs."""
        first = self._look(threading.get_native_id())
        self.before = first.moment.cards
        counts = first.package_j is not None or self.before
        if self.idle.busy or self.idle.power_w or not counts:
            return
        looks = [first]
        for _ in range(max(1, round(seconds / PERIOD_S))):
            time.sleep(PERIOD_S if seconds >= PERIOD_S else seconds)
            looks.append(self._look(threading.get_native_id()))
        window_s = looks[-1].moment.at_s - first.moment.at_s
        spent = _counters(looks[0]), _counters(looks[-1])
        power_w = {k: (spent[1][k] - j) / window_s for k, j in spent[0].items() if k in spent[1]}
        busy = {
            key: sum(shares) / len(shares)
            for key in self.before
            if (shares := [b for look in looks if (b := _busy(look, key)) is not None])
        }
        self.idle = Idle(power_w, busy)

    def observed(
        self,
        wall_s: float,
        client_cpu_share: float,
        api: str | None = None,
        devices: Sequence[str] = (),
    ) -> Observed:
        """What the looks of the last ``watching`` add up to; ``api`` and ``devices`` are what the
        engine says that it computed with."""
        looks = self._looks
        moments = [look.moment for look in looks]
        used = sorted(cards.holding_model(self.before, moments, api, devices))
        energy_j, idle_w = self._energy(used)
        own_cpus = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        found = scheduling.summed(
            [look.threads for look in looks], self._cpus, own_cpus or frozenset()
        )
        rss = max((look.rss_bytes for look in looks), default=0)
        return Observed(
            wall_s=wall_s,
            window_s=moments[-1].at_s - moments[0].at_s if moments else 0.0,
            client_cpu_share=client_cpu_share,
            engine_rss_bytes=rss or None,
            engine_vram_bytes=_vram(moments),
            load_average_max=_most(r.load_average for look in looks for r in look.readings),
            energy_j=energy_j,
            idle_w=idle_w,
            **asdict(found),
            **(self._of_cards(moments, used) if used else {}),
        )

    def _of_cards(self, moments: Sequence[Moment], used: Sequence[str]) -> dict[str, Any]:
        """What befell the cards that hold the model."""
        shared = cards.sharing(self.before, moments, used, self.started)
        held = cards.holding_down(moments, used)
        drawn_w, allowed_w = cards.power(moments, used)
        over = round(drawn_w / allowed_w, 4) if drawn_w and allowed_w else None
        return {
            "throttle_reasons": held.reasons,
            "throttled_share": held.throttled_share,
            "power_limited_share": held.power_limited_share,
            "gpu_temperature_max_c": cards.temperature_c(moments, used),
            "gpu_power_mean_w": drawn_w,
            "gpu_enforced_limit_w": allowed_w,
            "gpu_power_over_limit": over,
            "gpu_busy_before": _most(self.idle.busy.get(key) for key in used),
            "foreign_gpu_processes": shared.foreign,
            "graphics_processes": shared.graphics,
            "graphics_busy_share": shared.graphics_busy,
        }

    def _energy(self, used: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Joules and idle watts per scope: of the cards that hold the model, and of the processor.
        Nothing for a short window or where looks are too far apart."""
        looks = self._looks
        if not looks or looks[-1].moment.at_s - looks[0].moment.at_s < MIN_ENERGY_WINDOW_S:
            return {}, {}
        if any(b.moment.at_s - a.moment.at_s > MAX_GAP_S for a, b in pairwise(looks)):
            return {}, {}
        scopes = {"gpu": list(used), "package": ["package"]}
        first, last = _counters(looks[0]), _counters(looks[-1])
        spent, idle_w = {}, {}
        for scope, keys in scopes.items():
            if keys and all(key in first and key in last for key in keys):
                spent[scope] = round(sum(last[key] - first[key] for key in keys), 3)
                if all(key in self.idle.power_w for key in keys):
                    idle_w[scope] = sum(self.idle.power_w[key] for key in keys)
        return spent, idle_w

    def _look(self, stamping: int) -> _Look:
        rss = cpu = 0.0
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error), process.oneshot():
                rss += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system
        pids = frozenset(p.pid for p in processes)
        threads = scheduling.Look(
            at_s=time.monotonic(),
            threads=self.reader.threads(pids),
            loop=self.reader.thread(os.getpid(), stamping),
            processors=self.reader.processors(),
            engine_cpu_s=cpu,
            client_cpu_s=time.process_time(),
            engine_known=bool(pids),
        )
        readings = [probe.read() for probe in self.probes]
        return _Look(moment(time.monotonic(), readings, pids), threads, readings, int(rss))


def moment(at_s: float, readings: Sequence[Reading], pids: frozenset[int]) -> Moment:
    """What all cards tell now."""
    found = {card.key: card for reading in readings for card in reading.cards}
    listed = {pid for card in found.values() for pid in card.process_bytes or {}}
    return Moment(at_s, found, pids, frozenset(filter(psutil.pid_exists, listed)))


def remarks(seen: Observed, rig: Rig) -> list[str]:
    """What of it a person should know although it is no fault."""
    found = []
    if seen.graphics_processes:
        many = seen.graphics_processes > 1
        programs = f"{seen.graphics_processes} programs draw" if many else "a program draws"
        found.append(f"{programs} on the graphics card, as a desktop does")
    limit_w = rig.gpus[0].power_limit_w if len(rig.gpus) == 1 else None
    if seen.gpu_enforced_limit_w and limit_w and seen.gpu_enforced_limit_w < limit_w - 1:
        found.append(
            f"the graphics card's driver enforces {seen.gpu_enforced_limit_w:g} W, less than the"
            f" {limit_w:g} W that are set"
        )
    if (seen.power_limited_share or 0) >= 0.5:
        found.append("its power limit held the graphics card down most of the time")
    return found


def grown(before: Counters | None, after: Counters | None) -> dict[str, float]:
    """By how much an engine's own sums grew; empty where it keeps none or was started anew."""
    if before is None or after is None:
        return {}
    found = {name: round(value - before.get(name, 0.0), 6) for name, value in after.items()}
    return found if all(value >= 0 for value in found.values()) else {}


def _counters(look: _Look) -> dict[str, float]:
    """Energy counters, by the key of a card or ``package``."""
    found = {key: card.energy_j for key, card in look.moment.cards.items()}
    found["package"] = look.package_j
    return {key: joules for key, joules in found.items() if joules is not None}


def _busy(look: _Look, key: str) -> float | None:
    card = look.moment.cards.get(key)
    return None if card is None else card.busy


def _vram(moments: Sequence[Moment]) -> int | None:
    """The most that the engine's processes held on all cards."""
    peaks = [
        sum(
            size
            for card in moment.cards.values()
            for pid, size in (card.process_bytes or {}).items()
            if pid in moment.pids
        )
        for moment in moments
    ]
    return max(peaks, default=0) or None


def _most(values: Iterator[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)
