"""Which graphics cards hold the model, who else was on them, and what held them down. Pure.

Everything rests on moments: what the cards told, and which processes were the engine's then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tokrig.probes import Card
from tokrig.record.machine import FAULTS, LIMITS
from tokrig.units import MIB

# Engines open every card they see before they choose: a context alone is no model.
HOLDS_SHARE = 0.10
GROWN_BYTES = 64 * MIB
# Utilization is told in whole percent; what a process uses below that cannot be seen.
USED_SHARE = 0.01

HEAT = frozenset({"sw_thermal_slowdown", "hw_thermal_slowdown"})
# The reason behind a hardware slowdown, where the card tells it.
CAUSES = frozenset({"hw_thermal_slowdown", "hw_power_brake"})


@dataclass(frozen=True)
class Moment:
    """``cards`` by key, the engine's own ``pids``, and which of all listed are ``here``: process
    ids of another namespace mean nothing in this one."""

    at_s: float
    cards: Mapping[str, Card] = field(default_factory=dict)
    pids: frozenset[int] = frozenset()
    here: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sharing:
    """Other processes on the cards; None = nobody can tell. ``graphics_busy`` is the share of the
    cards' time that those used which only draw."""

    foreign: int | None = None
    graphics: int | None = None
    graphics_busy: float | None = None


@dataclass(frozen=True)
class Holding:
    """What held the cards down: the reasons, and the share of the window in which faults and
    power limits did, on the card where it was most."""

    reasons: list[str] | None = None
    throttled_share: float | None = None
    power_limited_share: float | None = None


def holding_model(
    before: Mapping[str, Card],
    moments: Sequence[Moment],
    api: str | None,
    devices: Sequence[str] = (),
) -> frozenset[str]:
    """Keys of the cards that hold the model: by the engine's own processes, else by what grew
    since before it started, else by the devices it names, else all. None where it computes on the
    CPU and no card shows it."""
    cards = moments[-1].cards if moments else {}
    own = {key: size for key in cards if (size := _own_bytes(key, moments)) is not None}
    if own:
        return _largest(own)
    if api == "cpu" or not cards:
        return frozenset()
    grown = {
        key: now - then
        for key, card in cards.items()
        if key in before
        and (now := card.memory_used_bytes) is not None
        and (then := before[key].memory_used_bytes) is not None
        and now - then >= GROWN_BYTES
    }
    if grown:
        return _largest(grown)
    told = " ".join(devices).lower()
    words = {key: (key.lower(), card.name.lower()) for key, card in cards.items()}
    named = {key for key, both in words.items() if any(w and w in told for w in both)}
    return frozenset(named or cards)


def _own_bytes(key: str, moments: Sequence[Moment]) -> int | None:
    """The most that the engine's processes held on a card; None where they were not on it."""
    sizes = [
        sum(size for pid, size in held.items() if pid in moment.pids)
        for moment in moments
        if key in moment.cards
        and (held := moment.cards[key].process_bytes or {})
        and moment.pids & held.keys()
    ]
    return max(sizes, default=None)


def _largest(sizes: Mapping[str, int]) -> frozenset[str]:
    """Without those that hold next to nothing of it."""
    most = max(sizes.values())
    return frozenset(key for key, size in sizes.items() if size >= HOLDS_SHARE * most)


def sharing(
    before: Mapping[str, Card], moments: Sequence[Moment], used: Iterable[str], started: bool
) -> Sharing:
    """Who else was on the cards in use. ``started`` says that ``before`` is from a time when the
    engine was not there yet: who stands in it is somebody else, in whatever namespace."""
    foreign: set[int] = set()
    graphics: set[int] = set()
    drawn, unknown, cards = 0.0, False, 0
    for key in used:
        shown = [m for m in moments if key in m.cards]
        if not shown or any(m.cards[key].compute_bytes is None for m in shown):
            return Sharing()
        cards += 1
        then = before.get(key)
        mine = frozenset().union(*(m.pids for m in shown))
        ours = any(m.pids & (m.cards[key].process_bytes or {}).keys() for m in shown)
        unknown |= not ours or not all(m.cards[key].complete for m in shown)
        for pid in _listed(key, shown, "compute_bytes") - mine:
            earlier = started and then is not None and pid in (then.process_bytes or {})
            active = _active(key, pid, shown, then)
            if active and (earlier or (ours and any(pid in m.here for m in shown))):
                foreign.add(pid)
            elif active is not False:
                unknown = True
        draws = _listed(key, shown, "graphics_bytes") - _listed(key, shown, "compute_bytes") - mine
        graphics |= draws
        drawn = max(drawn, sum(_busy(key, pid, shown) or 0.0 for pid in draws))
    if not cards:
        return Sharing()
    count = len(foreign) if foreign or not unknown else None
    return Sharing(count, len(graphics), round(drawn, 4))


def _listed(key: str, moments: Sequence[Moment], kind: str) -> frozenset[int]:
    found: set[int] = set()
    for moment in moments:
        found |= (getattr(moment.cards[key], kind) or {}).keys()
    return frozenset(found)


def _active(key: str, pid: int, moments: Sequence[Moment], before: Card | None) -> bool | None:
    """Whether a process used the card: its processors, or ever more of its memory. None where
    neither can be told."""
    busy = _busy(key, pid, moments)
    if busy is not None and busy > USED_SHARE:
        return True
    sizes = [(m.cards[key].process_bytes or {}).get(pid, 0) for m in moments]
    held = (before.process_bytes or {}) if before else {}
    if before is not None and max(sizes) - held.get(pid, 0) >= GROWN_BYTES:
        return True
    return None if busy is None else False


def _busy(key: str, pid: int, moments: Sequence[Moment]) -> float | None:
    """The mean share of the card's time that a process used; the first look is of before."""
    told = [m.cards[key].process_busy for m in moments[1:]]
    known = [shares.get(pid, 0.0) for shares in told if shares is not None]
    return sum(known) / len(known) if known else None


def holding_down(moments: Sequence[Moment], used: Iterable[str]) -> Holding:
    """What held the cards in use down while it was measured."""
    reasons: set[str] = set()
    faults, limits = [], []
    for key in used:
        told = [m.cards[key].reasons for m in moments if key in m.cards]
        if not told or any(words is None for words in told):
            return Holding()
        reasons |= {word for words in told for word in words or ()}
        faults.append(_share(key, moments, FAULTS))
        limits.append(_share(key, moments, LIMITS))
    if not faults:
        return Holding()
    return Holding(sorted(reasons), round(max(faults), 4), round(max(limits), 4))


def _share(key: str, moments: Sequence[Moment], words: frozenset[str]) -> float:
    """The share of the window in which one of ``words`` held a card down: by the driver's
    counters where they moved, else by how many looks saw it."""
    first, last = moments[0].cards[key].held_s, moments[-1].cards[key].held_s
    window_s = moments[-1].at_s - moments[0].at_s
    grown = {w: last[w] - first[w] for w in words & first.keys() & last.keys()}
    counted = {word for word, seconds in grown.items() if seconds > 0}
    shares = [min(1.0, grown[word] / window_s) for word in counted if window_s > 0]
    rest = words - counted - (HEAT if "thermal" in counted else frozenset())
    seen = [bool(_words(m.cards[key]) & rest) for m in moments]
    return max([*shares, sum(seen) / len(seen)])


def _words(card: Card) -> frozenset[str]:
    """Reasons, without a slowdown whose cause is among them."""
    words = frozenset(card.reasons or ())
    return words - {"hw_slowdown"} if words & CAUSES else words


def power(moments: Sequence[Moment], used: Iterable[str]) -> tuple[float | None, float | None]:
    """Mean watts of the cards in use, and the watts that their drivers allow them."""
    keys = list(used)
    drawn = [s for m in moments if (s := _sum(m.cards[k].power_w for k in keys)) is not None]
    allowed = _sum(
        c.enforced_limit_w if c.enforced_limit_w is not None else c.limit_w
        for c in (moments[-1].cards[k] for k in keys)
    )
    return (round(sum(drawn) / len(drawn), 2) if drawn else None), allowed


def energy_j(moment: Moment, used: Iterable[str]) -> float | None:
    """Counters of the cards in use; None when one has none."""
    return _sum(moment.cards[key].energy_j if key in moment.cards else None for key in used)


def temperature_c(moments: Sequence[Moment], used: Iterable[str]) -> float | None:
    """The highest of the cards in use."""
    return max(_known(m.cards[k].temperature_c for m in moments for k in used), default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = list(_known(found))
    return sum(known) if known and len(known) == len(found) else None


def _known(values: Iterable[float | None]) -> Iterator[float]:
    return (value for value in values if value is not None)
