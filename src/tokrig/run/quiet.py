"""A quiet start: what else loads this machine is told before anything is measured, not after."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from tokrig.errors import PutOff
from tokrig.probes import Card
from tokrig.record.machine import FOREIGN_CPU_SHARE, GPU_BUSY_SHARE
from tokrig.run import scheduling
from tokrig.run.monitor import moment, probes
from tokrig.run.prepare import Prepared

WATCHED_S = 1.0
PATIENCE_S = 60.0
# A machine at rest uses this much, and a look of a second is no finer.
LEAST_CORES = 0.2
# An engine on a graphics card, or on another machine, needs a few threads in time.
MOST_OF_THE_CORES = 0.5
NAMED = 3

Notice = Callable[[str, float], None]
"""Takes what loads the machine, in words, and for how many seconds more it is waited for."""
Engine = Callable[[], Sequence[psutil.Process]]
"""The processes of an engine that runs already: some never rest, which is no load of others."""
Start = Callable[[frozenset[str], Engine], None]
"""Lets a run begin that computes on ``cpu`` or ``gpu``, or elsewhere where that is empty; raises
PutOff where it may not."""


@dataclass(frozen=True)
class Load:
    """What others did to the machine for a moment: ``cores`` used of ``cpus``, by ``programs``;
    the graphics ``cards`` that were busy, of ``of_cards``."""

    cores: float = 0.0
    cpus: int = 1
    programs: Sequence[str] = ()
    cards: Sequence[str] = ()
    of_cards: int = 0

    def in_words(self) -> list[str]:
        """One phrase for the processor, one for each card; all that can be told."""
        named = f" ({', '.join(self.programs)})" if self.programs else ""
        processor = [f"{self.cores:.1f} of {self.cpus} cores are busy{named}"]
        return (processor if self.cores >= LEAST_CORES else []) + list(self.cards)

    def matters(self, computes_on: frozenset[str]) -> bool:
        """Whether it takes from an engine there what it needs. While a card is free the engine
        may be on that one."""
        most = MOST_OF_THE_CORES
        if "cpu" in computes_on:
            most = FOREIGN_CPU_SHARE
        if self.cores > max(LEAST_CORES, most * self.cpus):
            return True
        return "gpu" in computes_on and bool(self.cards) and len(self.cards) == self.of_cards


def at_once(computes_on: frozenset[str], engine: Engine = list) -> None:
    """Begins whatever the machine does."""


def patiently(
    computes_on: frozenset[str],
    engine: Engine = list,
    notice: Notice = lambda text, left_s: None,
) -> None:
    """Begin when the machine is quiet, as far as that matters; wait a minute for it.

    Raises PutOff (``rig_busy``) naming what is busy.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        seen = look(engine())
        words = "; ".join(seen.in_words())
        left_s = deadline - time.monotonic()
        if not seen.matters(computes_on):
            if words:
                notice(words, 0.0)
            return
        if left_s <= 0:
            raise PutOff(
                f"something else loads this machine: {words}",
                hint="stop it, or measure all the same with --even-if-busy: what it takes from the"
                " engine is measured, and makes results invalid",
                code="rig_busy",
            )
        notice(words, left_s)


def computes_on(prepared: Prepared) -> frozenset[str]:
    """Where a run will compute, as far as that is known before it starts."""
    if prepared.where is not None and not prepared.where.here:
        return frozenset()
    return here("cpu" if prepared.backend.name == "embedded" else prepared.spec.api)


def here(api: str | None) -> frozenset[str]:
    """Where an engine on this machine will compute, by the API that it is asked for."""
    has_card = any(probe.facts().gpus for probe in probes())
    return frozenset({"gpu" if has_card and api != "cpu" else "cpu"})


def look(engine: Sequence[psutil.Process] = (), seconds: float = WATCHED_S) -> Load:
    """What others than this process and the ``engine`` do in the next ``seconds``."""
    reader, watch = scheduling.Reader(), probes()
    ours = {os.getpid(), *(process.pid for process in engine)}
    others = [p for p in psutil.process_iter() if p.pid not in ours]
    for process in others:
        _percent(process)
    before, own_s, began = _busy_s(reader), _own_s(engine), time.monotonic()
    first = moment(began, [probe.read() for probe in watch], frozenset())
    time.sleep(seconds)
    after, own_s = _busy_s(reader), _own_s(engine) - own_s
    cores = max(0.0, (sum(after) - sum(before) - own_s) / (time.monotonic() - began))
    last = moment(time.monotonic(), [probe.read() for probe in watch], frozenset())
    cards = [_of_card(first.cards[key], card) for key, card in last.cards.items()
             if key in first.cards]  # fmt: skip
    return Load(
        cores=cores,
        cpus=len(after) or 1,
        programs=_busiest(others) if cores >= LEAST_CORES else (),
        cards=[words for words in cards if words],
        of_cards=len(cards),
    )


def _busy_s(reader: scheduling.Reader) -> list[float]:
    """Seconds that each processor which this process may use has worked; of all together where
    they are not told apart."""
    told = reader.processors()
    if told is None:
        times = psutil.cpu_times(percpu=True)
        return [t.user + t.system + getattr(t, "nice", 0.0) for t in times]
    usable = scheduling.usable([(os.getpid(), 0)]) or frozenset(told)
    return [told[cpu].busy_s for cpu in usable if cpu in told]


def _own_s(engine: Iterable[psutil.Process]) -> float:
    """CPU time of this process and the engine's."""
    total = time.process_time()
    for process in engine:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _busiest(processes: Iterable[psutil.Process]) -> list[str]:
    """The programs that used most since they were first asked."""
    found = sorted(((_percent(p), _name(p)) for p in processes), reverse=True)[:NAMED]
    return [f"{name} {share:.0f} %" for share, name in found if share >= 5]


def _of_card(before: Card, now: Card) -> str:
    """In words, a card that was busy at both looks; "" for one that was not."""
    if min(before.busy or 0.0, now.busy or 0.0) <= GPU_BUSY_SHARE:
        return ""
    using = [pid for pid, share in (now.process_busy or {}).items() if share > 0]
    names = sorted({_name_of(pid) for pid in using or (now.compute_bytes or {})})[:NAMED]
    named = f" ({', '.join(names)})" if names else ""
    return f"{now.name or 'the graphics card'} is {now.busy:.0%} busy{named}"


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "?"


def _name_of(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return f"process {pid}"
