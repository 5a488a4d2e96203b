"""What else happened on a machine while something was measured, summed up from looks at it. Pure;
the results are fields of the record's ``Interference``, without those that nobody can tell.

Of the processors: how long the engine's and the client's threads were ready but had to wait, what
others used, what the hypervisor took. Of the graphics cards: which hold the model, who else was on
them, and what held them down.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from tokrig.probes import Card
from tokrig.record.conditions import FAULTS, LIMITS
from tokrig.record.loads import OverTime
from tokrig.units import MIB

# Threads that ended between two looks took their waits with them. Where those that were seen ran
# for less than this share of what their processes did, the sum would pass for the whole.
COVERED = 0.8
# Below this much CPU time nothing was missed that matters: the clock of processes is coarse.
COARSE_S = 0.1
# What it takes to wake a thread on an idle machine, a virtual one at that: no wait for anybody.
WAKE_NS = 20_000

# Engines open every card they see before they choose: a context alone is no model.
HOLDS_SHARE = 0.10
GROWN_BYTES = 64 * MIB
# Utilization is told in whole percent; what a process uses below that cannot be seen.
USED_SHARE = 0.01
HEAT = frozenset({"sw_thermal_slowdown", "hw_thermal_slowdown"})
# The reason behind a hardware slowdown, where the card tells it.
CAUSES = frozenset({"hw_thermal_slowdown", "hw_power_brake"})

_Number = TypeVar("_Number", int, float)
Thread = tuple[int, int]
"""Process id and thread id."""
Fields = dict[str, Any]
"""Fields of the record's ``Interference``."""


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
    """One moment. None = not readable.

    ``pids`` are the engine's own processes, none where they cannot be told from others; ``here``
    says which of all that the cards list are of this machine: process ids of another namespace
    mean nothing in this one. ``threads`` are the engine's, ``loop`` is the one that takes the
    stamps; ``engine_cpu_s`` and ``client_cpu_s`` are of whole processes, ended threads included.
    """

    at_s: float
    cards: Mapping[str, Card] = field(default_factory=dict)
    pids: frozenset[int] = frozenset()
    here: frozenset[int] = frozenset()
    threads: Mapping[Thread, Times] | None = None
    loop: Times | None = None
    processors: Mapping[int, Processor] | None = None
    engine_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    engine_rss_bytes: int = 0
    load_average: float | None = None
    package_j: float | None = None
    cpu_mhz: float | None = None
    cpu_temperature_c: float | None = None
    cpu_throttles: int | None = None

    def used_s(self, cpus: Iterable[int]) -> float:
        """What the processors worked."""
        known = self.processors or {}
        return sum(known[cpu].busy_s for cpu in cpus if cpu in known)

    def stolen_s(self, cpus: Iterable[int]) -> float:
        """What was stolen from them."""
        known = self.processors or {}
        return sum(known[cpu].stolen_s for cpu in cpus if cpu in known)

    def engine_bytes(self, key: str) -> int | None:
        """What the engine's processes hold of a card; None where they are not on it."""
        held = (self.cards[key].process_bytes or {}) if key in self.cards else {}
        return (
            sum(held[pid] for pid in self.pids & held.keys()) if self.pids & held.keys() else None
        )

    @property
    def energy_j(self) -> dict[str, float]:
        """Energy counters, by the key of a card or ``package``."""
        found = {key: card.energy_j for key, card in self.cards.items()}
        found["package"] = self.package_j
        return {key: joules for key, joules in found.items() if joules is not None}


def of_processors(looks: Sequence[Look], cpus: frozenset[int], own_cpus: frozenset[int]) -> Fields:
    """``cpus`` are those that the engine may use, all where that is empty; ``own_cpus`` those of
    this process. All shares but ``steal_share``, which is one of the processors' time, are seconds
    per second of the window: 1 is one processor, or one thread.

    ``engine_wait_share`` is the sum over the engine's threads: those that compute wait for each
    other, so what one of them loses, all lose. An engine with more threads than processors, and
    one whose client runs beside it, waits for itself and for us: ``foreign_wait_share`` is the part
    of it for which others used a processor meanwhile, all of it where their use is not known.
    ``thread_wait_share`` is the same of the one thread that waited most.
    """
    if len(looks) < 2 or looks[-1].at_s <= looks[0].at_s:
        return {}
    first, last = looks[0], looks[-1]
    window_s = last.at_s - first.at_s
    found: Fields = {}
    if first.loop and last.loop:
        found["client_wait_share"] = round(last.loop.waited_s(first.loop) / window_s, 5)
    if not (first.pids and last.pids):
        return found
    by_thread = _waits_s(looks)
    if by_thread is not None:
        waited = round(sum(by_thread.values()) / window_s, 4)
        most = round(max(by_thread.values(), default=0.0) / window_s, 4)
        found |= {"engine_wait_share": waited, "foreign_wait_share": waited}
        found["thread_wait_share"] = most
    if last.processors is None:
        return found
    cpus = (cpus & frozenset(last.processors)) or frozenset(last.processors)
    shared = not own_cpus or bool(cpus & own_cpus)
    others = round(_others(first, last, cpus, shared), 4)
    for name in found.keys() & {"foreign_wait_share", "thread_wait_share"}:
        found[name] = min(found[name], others)
    # Ticks are hundredths of a second: of a short gap they tell nothing.
    gaps = [_others(a, b, cpus, shared) for a, b in pairwise(looks) if b.at_s - a.at_s >= 0.5]
    if gaps:
        found["other_cpu_share_max"] = round(max(gaps), 4)
    stolen_s = last.stolen_s(cpus) - first.stolen_s(cpus)
    found["steal_share"] = round(stolen_s / window_s / len(cpus), 4)
    return {**found, "engine_cpus": len(cpus), "other_cores_mean": others}


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
    used_s = b.used_s(cpus) - a.used_s(cpus) - (b.engine_cpu_s - a.engine_cpu_s)
    if shared:
        used_s -= b.client_cpu_s - a.client_cpu_s
    return max(0.0, used_s / (b.at_s - a.at_s))


def over_time(
    looks: Sequence[Look],
    used: Sequence[str],
    start_s: float,
    edges: Sequence[float],
    last_s: float,
) -> OverTime:
    """Clocks, temperature and power between ``edges``, in seconds since ``start_s``, of the cards
    in use, else of the processor: the means of what was seen, the highest temperature. With what
    held the clocks down in the last ``last_s`` seconds."""
    found: dict[str, list[float | None]] = {name: [] for name in _GAUGES}
    at = [look.at_s - start_s for look in looks]
    for begin, end in pairwise(edges):
        here = range(bisect_left(at, begin), bisect_left(at, end))
        for name, values in found.items():
            known = [v for i in here if (v := _gauge(name, looks, i, used)) is not None]
            shown = most(known) if name == "temperature_c" else _mean(known)
            values.append(None if shown is None else round(shown, 1))
    late = [i for i, seconds in enumerate(at) if edges[-1] - last_s <= seconds <= edges[-1]]
    words = {word for i in late for key in used for word in _reasons(looks[i].cards[key])}
    counts = [n for i in late if (n := looks[i].cpu_throttles) is not None]
    if not used and counts and counts[-1] > counts[0]:
        words.add("thermal")
    told = {name: values for name, values in found.items() if set(values) != {None}}
    return OverTime(**told, reasons=sorted(words & (FAULTS | LIMITS)))


_GAUGES = ("gpu_clock_mhz", "cpu_clock_mhz", "temperature_c", "power_w")


def _gauge(name: str, looks: Sequence[Look], number: int, used: Sequence[str]) -> float | None:
    """What one look shows."""
    look, before = looks[number], looks[number - 1] if number else None
    cards = [look.cards[key] for key in used if key in look.cards]
    if name == "cpu_clock_mhz":
        return look.cpu_mhz
    if name == "gpu_clock_mhz":
        return _mean([c.clock_mhz for c in cards if c.clock_mhz is not None]) if cards else None
    if name == "temperature_c":
        return most(c.temperature_c for c in cards) if used else look.cpu_temperature_c
    if used:
        return total(card.power_w for card in cards)
    if before is None or before.package_j is None or look.package_j is None:
        return None
    return (look.package_j - before.package_j) / (look.at_s - before.at_s)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def seen_on(before: Mapping[str, Card], looks: Sequence[Look], api: str | None) -> frozenset[str]:
    """Keys of the cards that the model is seen on: by the engine's own processes, else by what
    grew since before it started. None where it computes on the CPU and no card shows it."""
    cards = looks[-1].cards if looks else {}
    held = {key: most(look.engine_bytes(key) for look in looks) for key in cards}
    own = {key: size for key, size in held.items() if size is not None}
    if own or api == "cpu":
        return _largest(own)
    return _largest(
        {
            key: now - then
            for key, card in cards.items()
            if key in before
            and (now := card.memory_used_bytes) is not None
            and (then := before[key].memory_used_bytes) is not None
            and now - then >= GROWN_BYTES
        }
    )


def holding_model(
    before: Mapping[str, Card], looks: Sequence[Look], api: str | None, devices: Sequence[str] = ()
) -> frozenset[str]:
    """Keys of the cards that hold the model: those that it is seen on, else those that the engine
    names among its ``devices``, else all; none where it computes on the CPU."""
    cards = looks[-1].cards if looks else {}
    seen = seen_on(before, looks, api)
    if seen or api == "cpu":
        return seen
    told = " ".join(devices).lower()
    words = {key: (key.lower(), card.name.lower()) for key, card in cards.items()}
    named = {key for key, both in words.items() if any(w and w in told for w in both)}
    return frozenset(named or cards)


def _largest(sizes: Mapping[str, float]) -> frozenset[str]:
    """Without those that hold next to nothing of it."""
    largest = max(sizes.values(), default=0.0)
    return frozenset(key for key, size in sizes.items() if size >= HOLDS_SHARE * largest)


def of_cards(
    before: Mapping[str, Card], looks: Sequence[Look], used: Sequence[str], started: bool
) -> Fields:
    """What befell the cards in use. ``started`` says that ``before`` is from a time when the
    engine was not there yet."""
    if not used:
        return {}
    found = sharing(before, looks, used, started) | holding_down(looks, used)
    drawn = [s for x in looks if (s := total(x.cards[k].power_w for k in used)) is not None]
    allowed_w = total(
        card.limit_w if card.enforced_limit_w is None else card.enforced_limit_w
        for card in (looks[-1].cards[key] for key in used)
    )
    found["gpu_temperature_max_c"] = most(x.cards[k].temperature_c for x in looks for k in used)
    found["gpu_enforced_limit_w"] = allowed_w
    if drawn:
        drawn_w = found["gpu_power_mean_w"] = round(sum(drawn) / len(drawn), 2)
        if drawn_w and allowed_w:
            found["gpu_power_over_limit"] = round(drawn_w / allowed_w, 4)
    return found


def sharing(
    before: Mapping[str, Card], looks: Sequence[Look], used: Iterable[str], started: bool
) -> Fields:
    """Who else was on the cards. Who stands in ``before`` is somebody else where the engine had
    not ``started`` then, in whatever namespace."""
    foreign: set[int] = set()
    graphics: set[int] = set()
    drawn, unknown, cards = 0.0, False, 0
    for key in used:
        shown = [x for x in looks if key in x.cards]
        if not shown or any(x.cards[key].compute_bytes is None for x in shown):
            return {}
        cards += 1
        then = before.get(key)
        mine = frozenset().union(*(x.pids for x in shown))
        ours = any(x.engine_bytes(key) is not None for x in shown)
        unknown |= not ours or not all(x.cards[key].complete for x in shown)
        compute, draw = (
            {pid for x in shown for pid in getattr(x.cards[key], kind) or ()} - mine
            for kind in ("compute_bytes", "graphics_bytes")
        )
        for pid in compute:
            earlier = started and then is not None and pid in (then.process_bytes or {})
            active = _active(key, pid, shown, then)
            if active and (earlier or (ours and any(pid in x.here for x in shown))):
                foreign.add(pid)
            elif active is not False:
                unknown = True
        graphics |= draw - compute
        drawn = max(drawn, sum(_busy(key, pid, shown) or 0.0 for pid in draw - compute))
    if not cards:
        return {}
    return {
        "foreign_gpu_processes": len(foreign) if foreign or not unknown else None,
        "graphics_processes": len(graphics),
        "graphics_busy_share": round(drawn, 4),
    }


def _active(key: str, pid: int, looks: Sequence[Look], before: Card | None) -> bool | None:
    """Whether a process used the card: its processors, or ever more of its memory. None where
    neither can be told."""
    busy = _busy(key, pid, looks)
    if busy is not None and busy > USED_SHARE:
        return True
    sizes = [(x.cards[key].process_bytes or {}).get(pid, 0) for x in looks]
    held = (before.process_bytes or {}) if before else {}
    if before is not None and max(sizes) - held.get(pid, 0) >= GROWN_BYTES:
        return True
    return None if busy is None else False


def _busy(key: str, pid: int, looks: Sequence[Look]) -> float | None:
    """The mean share of the card's time that a process used; the first look is of before."""
    told = [x.cards[key].process_busy for x in looks[1:]]
    known = [shares.get(pid, 0.0) for shares in told if shares is not None]
    return sum(known) / len(known) if known else None


def holding_down(looks: Sequence[Look], used: Iterable[str]) -> Fields:
    """What held the cards in use down, and for which share of the window faults and power limits
    did, on the card where it was most."""
    reasons: set[str] = set()
    faults, limits = [], []
    for key in used:
        told = [x.cards[key].reasons for x in looks if key in x.cards]
        if not told or any(words is None for words in told):
            return {}
        reasons |= {word for words in told for word in words or ()}
        faults.append(_share(key, looks, FAULTS))
        limits.append(_share(key, looks, LIMITS))
    if not faults:
        return {}
    return {
        "throttle_reasons": sorted(reasons),
        "throttled_share": round(max(faults), 4),
        "power_limited_share": round(max(limits), 4),
    }


def _share(key: str, looks: Sequence[Look], words: frozenset[str]) -> float:
    """The share of the window in which one of ``words`` held a card down: by the driver's
    counters where they moved, else by how many looks saw it."""
    first, last = looks[0].cards[key].held_s, looks[-1].cards[key].held_s
    window_s = looks[-1].at_s - looks[0].at_s
    grown = {w: last[w] - first[w] for w in words & first.keys() & last.keys()}
    counted = {word for word, seconds in grown.items() if seconds > 0}
    shares = [min(1.0, grown[word] / window_s) for word in counted if window_s > 0]
    rest = words - counted - (HEAT if "thermal" in counted else frozenset())
    seen = [bool(_reasons(x.cards[key]) & rest) for x in looks]
    return max([*shares, sum(seen) / len(seen)])


def _reasons(card: Card) -> frozenset[str]:
    """Without a slowdown whose cause is among them."""
    words = frozenset(card.reasons or ())
    return words - {"hw_slowdown"} if words & CAUSES else words


def total(values: Iterable[_Number | None]) -> _Number | None:
    """None where one of them is not known, for a part would pass as the whole."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None


def most(values: Iterable[float | None]) -> float | None:
    """The highest that is known."""
    return max((value for value in values if value is not None), default=None)
