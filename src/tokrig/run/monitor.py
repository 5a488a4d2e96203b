"""Watches the machine: whether it is quiet before a run, and what happens while a cell is measured.

While a cell is measured a thread of its own looks about once a second. Its reads cost a few
milliseconds; its CPU time counts as the client's, so it cannot hide. Who had the processors is
read on Linux only: ``/proc/PID/task/TID/schedstat`` holds a thread's time on a processor and in
the run queue, in nanoseconds (kernel documentation, "Scheduler Statistics"); ``/proc/stat`` what
each processor did, in clock ticks (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tokrig import registry
from tokrig.backends import Counters
from tokrig.errors import PutOff
from tokrig.probes import Card, Probe
from tokrig.record.conditions import FOREIGN_CPU_SHARE, GPU_BUSY_SHARE
from tokrig.record.loads import LoadNodes, OverTime
from tokrig.record.model import Interference, PeakMemory, Rig
from tokrig.record.sustained import edges, window_s
from tokrig.run import interference
from tokrig.run.interference import Look, Processor, Thread, Times, most
from tokrig.run.journal import Observed

if TYPE_CHECKING:
    from tokrig.run.prepare import Prepared

PERIOD_S = 1.0
MAX_GAP_S = 3.0
MIN_ENERGY_WINDOW_S = 5.0
# Of more looks every second one is kept, however long a load lasts: an hour has some 900 then, 4 s
# apart, of a few kilobytes each.
MOST_LOOKS = 1200

# A quiet start.
WATCHED_S = 1.0
PATIENCE_S = 60.0
# A machine at rest uses this much, and a look of a second is no finer.
LEAST_CORES = 0.2
# An engine on a graphics card, or on another machine, needs a few threads in time.
MOST_OF_THE_CORES = 0.5
NAMED = 3

Engine = Callable[[], Sequence[psutil.Process]]
"""The processes of an engine at this moment."""
Notice = Callable[[str, float], None]
"""Takes what loads the machine, in words, and for how many seconds more it is waited for."""
Start = Callable[[frozenset[str], Engine], None]
"""Lets a run begin that computes on ``cpu`` or ``gpu``, or elsewhere where that is empty; raises
PutOff where it may not."""


def probes() -> list[Probe]:
    """The probes that can read something here."""
    loaded: list[Probe] = [
        registry.load("probes", name, "PROBE") for name in registry.names("probes")
    ]
    return [probe for probe in loaded if probe.availability().ok]


class Reader:
    """Reads who had the processors. ``root`` is where ``/proc`` is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def threads(self, pids: Iterable[int]) -> dict[Thread, Times] | None:
        """Of all threads of the processes; None where there are none, or the kernel does not
        keep their times."""
        found: dict[Thread, Times] = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                for name in os.listdir(f"{self._proc}/{pid}/task"):
                    if times := self.thread(pid, int(name)):
                        found[pid, int(name)] = times
        # A kernel without these sums shows zeros for everybody.
        return found if any(times.run_ns for times in found.values()) else None

    def thread(self, pid: int, tid: int) -> Times | None:
        """Of one thread."""
        words = (_read(f"{self._proc}/{pid}/task/{tid}/schedstat") or "").split()
        if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
            return None
        return Times(*map(int, words[:3]))

    def processors(self) -> dict[int, Processor] | None:
        """By number; None where ``/proc/stat`` is missing, or that of a container alone: LXC shows
        one its own share of the file, which tells nothing of others."""
        text = _read(f"{self._proc}/stat")
        mounts = _read(f"{self._proc}/self/mounts") or ""
        if text is None or any(line.split()[1:2] == ["/proc/stat"] for line in mounts.splitlines()):
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


def usable(threads: Iterable[Thread]) -> frozenset[int]:
    """The processors that any of the threads may run on; empty where nobody tells."""
    found: set[int] = set()
    if hasattr(os, "sched_getaffinity"):
        for _, tid in threads:
            with contextlib.suppress(OSError):
                found |= os.sched_getaffinity(tid)
    return frozenset(found)


def used_s(processes: Iterable[psutil.Process]) -> float:
    """Processor time that they have used so far."""
    seconds = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def look_now(
    probes: Sequence[Probe],
    processes: Sequence[psutil.Process] = (),
    reader: Reader | None = None,
    stamping: int | None = None,
) -> Look:
    """The machine at this moment, the engine's ``processes`` and, with ``stamping``, the thread
    that takes the stamps."""
    rss, cpu_s = 0, 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            rss += process.memory_info().rss
            times = process.cpu_times()
            cpu_s += times.user + times.system
    pids = frozenset(process.pid for process in processes)
    reader = reader or Reader()
    at_s = time.monotonic()
    threads, loop = reader.threads(pids), None
    if stamping is not None:
        loop = reader.thread(os.getpid(), stamping)
    processors, client_cpu_s = reader.processors(), time.process_time()
    readings = [probe.read() for probe in probes]
    cards = {card.key: card for reading in readings for card in reading.cards}
    listed = {pid for card in cards.values() for pid in card.process_bytes or {}}
    return Look(
        at_s=at_s,
        cards=cards,
        pids=pids,
        here=frozenset(filter(psutil.pid_exists, listed)),
        threads=threads,
        loop=loop,
        processors=processors,
        engine_cpu_s=cpu_s,
        client_cpu_s=client_cpu_s,
        engine_rss_bytes=rss,
        load_average=most(reading.load_average for reading in readings),
        **{
            name: next((v for r in readings if (v := getattr(r, name)) is not None), None)
            for name in ("package_j", "cpu_mhz", "cpu_temperature_c", "cpu_throttles")
        },
    )


@dataclass(frozen=True)
class Idle:
    """The machine before the engine started. ``power_w`` by energy counter: the key of a card, or
    ``package``; ``busy`` is the share of time in which each card was used."""

    power_w: Mapping[str, float] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Monitor:
    """Collects looks while ``watching``; ``observed`` sums them up.

    ``before`` are the cards as they were when this began; ``started`` says that the engine was
    not there then. ``clients`` are further processes on this machine that send.
    """

    probes: Sequence[Probe]
    processes: Engine
    idle: Idle = field(default_factory=Idle)
    before: Mapping[str, Card] = field(default_factory=dict)
    started: bool = False
    reader: Reader = field(default_factory=Reader)
    clients: Engine = list
    _looks: list[Look] = field(default_factory=list)
    _last_s: float = 0.0
    _widest_s: float = 0.0
    _cpus: frozenset[int] = frozenset()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look now, about every second, and once more at the end."""
        stamping = threading.get_native_id()
        self._looks = [self.look(stamping)]
        self._last_s, self._widest_s = self._looks[0].at_s, 0.0
        ended = threading.Event()

        def loop() -> None:
            while not ended.wait(PERIOD_S):
                self._keep(self.look(stamping))

        thread = threading.Thread(target=loop, name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._keep(self.look(stamping))
            self._cpus = usable(self._looks[-1].threads or ())

    def _keep(self, look: Look) -> None:
        self._widest_s = max(self._widest_s, look.at_s - self._last_s)
        self._last_s = look.at_s
        self._looks.append(look)
        if len(self._looks) > MOST_LOOKS:
            del self._looks[1:-1:2]

    def look(self, stamping: int | None = None) -> Look:
        """The machine and the engine at this moment."""
        here = look_now(self.probes, self.processes(), self.reader, stamping)
        return replace(here, client_cpu_s=here.client_cpu_s + used_s(self.clients()))

    def look_before(self, seconds: float = MIN_ENERGY_WINDOW_S) -> None:
        """See the cards as they are before the engine starts; where something counts energy, also
        for some seconds how much it takes and how busy the cards are while nothing runs."""
        looks = [self.look()]
        self.before = looks[0].cards
        counts = looks[0].package_j is not None or self.before
        if self.idle.busy or self.idle.power_w or not counts:
            return
        for _ in range(max(1, round(seconds / PERIOD_S))):
            time.sleep(min(PERIOD_S, seconds))
            looks.append(self.look())
        window_s = looks[-1].at_s - looks[0].at_s
        first, last = looks[0].energy_j, looks[-1].energy_j
        told = {key: [x.cards[key].busy for x in looks if key in x.cards] for key in self.before}
        known = {key: [b for b in shares if b is not None] for key, shares in told.items()}
        self.idle = Idle(
            {key: (last[key] - joules) / window_s for key, joules in first.items() if key in last},
            {key: sum(shares) / len(shares) for key, shares in known.items() if shares},
        )

    def cards_in_use(self, api: str | None) -> int:
        """On how many cards the model is seen; ``api`` is what the engine says that computes."""
        return len(interference.seen_on(self.before, [self.look()], api))

    def observed(
        self,
        wall_s: float,
        client_cpu_share: float,
        api: str | None = None,
        devices: Sequence[str] = (),
        *,
        client: Mapping[str, float | None] | None = None,
        load_nodes: LoadNodes | None = None,
        counters: Mapping[str, float] | None = None,
    ) -> Observed:
        """What the looks of the last ``watching`` add up to, beside what is known of it elsewhere;
        ``api`` and ``devices`` are what the engine says that it computed with, ``client`` has what
        the client says of itself, by its name in Interference."""
        looks = self._looks
        used = sorted(interference.holding_model(self.before, looks, api, devices))
        energy_j, idle_w = self._energy(used)
        own = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        processors = interference.of_processors(looks, self._cpus, own or frozenset())
        vram = [sum(x.engine_bytes(key) or 0 for key in x.cards) for x in looks]
        return Observed(
            wall_s=wall_s,
            window_s=looks[-1].at_s - looks[0].at_s if looks else 0.0,
            client_cpu_share=client_cpu_share,
            memory=PeakMemory(
                engine_rss_bytes=max((x.engine_rss_bytes for x in looks), default=0) or None,
                engine_vram_bytes=max(vram, default=0) or None,
            ),
            interference=Interference(
                load_average_max=most(x.load_average for x in looks),
                gpu_busy_before=most(self.idle.busy.get(key) for key in used),
                **{**processors, **(client or {})},
                **interference.of_cards(self.before, looks, used, self.started),
            ),
            energy_j=energy_j,
            idle_w=idle_w,
            counters=dict(counters or {}),
            load_nodes=load_nodes,
        )

    def over_time(
        self, start_ns: int, seconds: float, api: str | None, devices: Sequence[str] = ()
    ) -> OverTime:
        """What the looks of the last ``watching`` show of the ``seconds`` since ``start_ns``."""
        used = sorted(interference.holding_model(self.before, self._looks, api, devices))
        points, window = edges(seconds), window_s(seconds)
        return interference.over_time(self._looks, used, start_ns / 1e9, points, window)

    def _energy(self, used: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Joules and idle watts per scope: of the cards that hold the model, and of the processor.
        Nothing for a short window or where looks are too far apart."""
        looks = self._looks
        if not looks or looks[-1].at_s - looks[0].at_s < MIN_ENERGY_WINDOW_S:
            return {}, {}
        if self._widest_s > MAX_GAP_S:
            return {}, {}
        first, last = looks[0].energy_j, looks[-1].energy_j
        spent, idle_w = {}, {}
        for scope, keys in (("gpu", used), ("package", ["package"])):
            if keys and all(key in first and key in last for key in keys):
                spent[scope] = round(sum(last[key] - first[key] for key in keys), 3)
                if all(key in self.idle.power_w for key in keys):
                    idle_w[scope] = sum(self.idle.power_w[key] for key in keys)
        return spent, idle_w


def remarks(observed: Observed, rig: Rig) -> list[str]:
    """What of it a person should know although it is no fault."""
    seen, found = observed.interference, []
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
        share = FOREIGN_CPU_SHARE if "cpu" in computes_on else MOST_OF_THE_CORES
        if self.cores > max(LEAST_CORES, share * self.cpus):
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
        seen = load(engine())
        words = "; ".join(seen.in_words())
        left_s = deadline - time.monotonic()
        if not seen.matters(computes_on):
            if words:
                notice(words, 0.0)
            return
        if left_s <= 0:
            raise PutOff(
                f"something else loads this machine: {words}",
                hint="stop it, or measure anyway with --even-if-busy: what it takes from the"
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


def load(engine: Sequence[psutil.Process] = (), seconds: float = WATCHED_S) -> Load:
    """What others than this process and the ``engine`` do in the next ``seconds``."""
    watch, reader = probes(), Reader()
    ours = {os.getpid(), *(process.pid for process in engine)}
    others = [process for process in psutil.process_iter() if process.pid not in ours]
    for process in others:
        _percent(process)  # since when the next one counts
    first, before = look_now(watch, engine, reader), _busy_s(reader)
    time.sleep(seconds)
    after, last = _busy_s(reader), look_now(watch, engine, reader)
    own_s = last.engine_cpu_s + last.client_cpu_s - first.engine_cpu_s - first.client_cpu_s
    cores = max(0.0, (sum(after) - sum(before) - own_s) / (last.at_s - first.at_s))
    both = [(first.cards[key], card) for key, card in last.cards.items() if key in first.cards]
    programs: Sequence[str] = ()
    if cores >= LEAST_CORES:
        shares = sorted(((_percent(p), _name(p.pid)) for p in others), reverse=True)[:NAMED]
        programs = [f"{name} {share:.0f} %" for share, name in shares if share >= 5]
    return Load(
        cores=cores,
        cpus=len(after) or 1,
        programs=programs,
        cards=[words for pair in both if (words := _of_card(*pair))],
        of_cards=len(both),
    )


def _busy_s(reader: Reader) -> list[float]:
    """Seconds that each processor which this process may use has worked; of all together where
    they are not told apart."""
    told = reader.processors()
    if told is None:
        times = psutil.cpu_times(percpu=True)
        return [t.user + t.system + getattr(t, "nice", 0.0) for t in times]
    return [told[cpu].busy_s for cpu in usable([(os.getpid(), 0)]) or told if cpu in told]


def _of_card(before: Card, now: Card) -> str:
    """In words, a card that was busy at both looks; "" for one that was not."""
    if min(before.busy or 0.0, now.busy or 0.0) <= GPU_BUSY_SHARE:
        return ""
    using = [pid for pid, share in (now.process_busy or {}).items() if share > 0]
    names = sorted({_name(pid) for pid in using or (now.compute_bytes or {})})[:NAMED]
    named = f" ({', '.join(names)})" if names else ""
    return f"{now.name or 'the graphics card'} is {now.busy:.0%} busy{named}"


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def _name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return f"process {pid}"
