"""What runs on which machine: the machines and uses that one may ask about, and what the records
say of every model for all of them, small enough to be handed to the page's script.

``answer`` is then made of these data, here for the pages without script and in ``answer.js`` for
the first page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tokrig import naming
from tokrig.fit.estimate import Estimate, Estimator
from tokrig.fit.evidence import Candidate, Place, candidates, model_key, overheads, points
from tokrig.fit.place import DECODE_AT, Machine, machine_of, overhead
from tokrig.record.model import Record, Rig
from tokrig.site.cards import Card
from tokrig.site.context import Site
from tokrig.units import GIB, significant


class Use(NamedTuple):
    """``shape`` is the workload that stands for it, ``context`` the tokens that have to fit."""

    word: str
    label: str
    shape: str
    context: int


USES = (
    Use("chat", "Chat", "chat", 4096),
    Use("coding", "Coding", "codegen", 8192),
    Use("agent", "Agent", "agent", 16384),
    Use("documents", "Documents", "rag", 16384),
)
FAST = {"reading": 7, "comfortable": 20, "quick": 50}
"""(t) tok/s: people read four to five words a second, six to seven tokens."""
SIZES_GB = (8, 12, 16, 24, 32, 48, 96)
NO_GPU = "no-gpu"
KINDS = {
    "none": "No GPU",
    "size": "GPU memory",
    "card": "GPUs with records",
    "processor": "Processors with records",
}
"""The kinds of machines, as groups of the form."""
RAM_GB = 32
"""(t) The memory of a machine without a graphics card of which nothing else is said."""
SYSTEM_BYTES = 4 * GIB
"""(t) What its system and its programs take of that."""
DIGITS = 5


@dataclass(frozen=True)
class Asked:
    """A machine to ask about: a size of memory (``size``), no card (``none``), or one that has
    records (``card``, ``processor``). ``bytes`` a model may fill; ``ram`` says that these are main
    memory; ``rigs`` are the numbers of those that count as this machine; ``widths`` are bytes/s
    of its memory: lowest, middle, highest of these; None where not known."""

    word: str
    label: str
    kind: str
    bytes: int | None
    ram: bool
    rigs: tuple[int, ...]
    widths: tuple[float, float, float] | None

    @property
    def place(self) -> Place:
        """What computes."""
        return "cpu" if self.kind in ("none", "processor") else "gpu"


@dataclass(frozen=True)
class Question:
    """A machine that no card is named of, by number and described, and a use: a page."""

    number: int
    machine: Asked
    use: Use

    @property
    def path(self) -> str:
        """Where its answer lies."""
        return f"fits/{self.machine.word}-{self.use.word}.html"

    @property
    def title(self) -> str:
        """In the words that people search by."""
        an = "an" if self.machine.label.startswith("8") else "a"
        on = (
            "without a GPU" if self.machine.kind == "none" else f"on {an} {self.machine.label} card"
        )
        return f"Which models run {on} for {self.use.label.lower()}?"


@dataclass(frozen=True)
class Choices:
    """What the first page's form offers, and the pages of those who have no form."""

    groups: Sequence[tuple[str, Sequence[Asked]]]
    pages: Sequence[Question]
    uses: Sequence[Use] = USES
    fast: Mapping[str, int] = field(default_factory=lambda: FAST)


def choices(site: Site) -> Choices:
    """For the first page."""
    found = machines_of(site)
    groups = [(name, [one for one in found if one.kind == kind]) for kind, name in KINDS.items()]
    pages = [page for page in questions(found) if page.use == USES[0]]
    return Choices([(name, of) for name, of in groups if of], pages)


def questions(found: Sequence[Asked]) -> list[Question]:
    """The pages: sizes of memory × uses."""
    return [
        Question(number, machine, use)
        for number, machine in enumerate(found)
        if machine.kind in ("none", "size")
        for use in USES
    ]


class Finder:
    """Machines, and what is known of models on them. ``data`` is what ``table.columns`` gives."""

    def __init__(self, site: Site, data: dict[str, Any]) -> None:
        self.data = data
        self.records = [run.record for run in site.runs]
        self.stated = _stated(site)
        self.machines = machines(self.records, self.stated, site.cards)

    @cached_property
    def fit(self) -> dict[str, Any]:
        """``assets/fit.js``: ``of`` has the model (by number) of each run; ``models`` a column a
        fact of them, ``cache`` one list for each use; ``shares`` of the ceiling by place, with
        the number of kinds of hardware they are from; ``like`` has for each machine the shares of
        models that are estimated so, ``here`` rate, lowest and highest of those by number;
        ``within`` is what an interval by shares spans, as a factor."""
        found, of = self._candidates, self._of
        decode = Estimator(points(self.records, self.stated), "decode")
        taken = overheads(self.records)
        return {
            "uses": [list(use) for use in USES],
            "machines": [asdict(machine) for machine in self.machines],
            "of": of,
            "models": self._models(found, of),
            "overhead": {place: overhead(taken[place]).bytes for place in taken},
            "within": {
                kind: _short_of(math.exp(decode.errors(kind).bound or math.nan))
                for kind in ("elsewhere", "like")
            },
            "shares": {place: _shares(found, decode, place) for place in ("gpu", "cpu")},
            "here": [self._here(machine, decode) for machine in self.machines],
            "like": [self._like(machine, decode) for machine in self.machines],
        }

    @cached_property
    def _candidates(self) -> list[Candidate]:
        return candidates(self.records)

    @cached_property
    def _of(self) -> list[int]:
        """The number of the model of each run."""
        numbers = {one.model: number for number, one in enumerate(self._candidates)}
        return [numbers[model_key(record.model)] for record in self.records]

    def _models(self, found: Sequence[Candidate], of: Sequence[int]) -> dict[str, Any]:
        first = {number: run for run, number in reversed(list(enumerate(of)))}
        runs = self.data["runs"]
        caches = [
            [one.cache_bytes(min(use.context, one.context_train or use.context)) for one in found]
            for use in USES
        ]
        return {
            "model": [runs["model"][first[number]] for number in range(len(found))],
            "quant": [runs["quant"][first[number]] for number in range(len(found))],
            "bytes": [one.bytes for one in found],
            "step": [_short_of(one.step_bytes(DECODE_AT)) for one in found],
            "cache": [[_short_of(size) for size in sizes] for sizes in caches],
        }

    def _here(self, machine: Asked, decode: Estimator) -> dict[int, list[float | None]]:
        """Of models that were measured on this very machine, but not for every use."""
        if machine.kind in ("size", "none"):
            return {}
        found, whole = self._candidates, self._shapes
        estimates = {}
        for rig in machine.rigs:
            hardware = naming.hardware_name(self._rigs[rig])
            for number in whole.get(rig, {}):
                done = {s for one in machine.rigs for s in whole.get(one, {}).get(number, ())}
                if len(done) < len(USES):
                    rate = decode.estimate(found[number].model, hardware, machine.place, None)
                    if rate is not None:
                        estimates[number] = _three(rate)
        return estimates

    def _like(self, machine: Asked, decode: Estimator) -> list[float | None]:
        """Of models that nobody measured on anything like this machine, the share of the ceiling
        that those like them reached; 0 for all others."""
        found = self._candidates
        shares: list[float | None] = [0] * len(found)
        if machine.widths is None or decode.errors("like").bound is None:
            return shares
        own = machine.kind in ("card", "processor")
        hardware = naming.hardware_name(self._rigs[machine.rigs[0]]) if own else ""
        known = decode.errors("elsewhere").bound is not None
        for number, one in enumerate(found):
            size = one.step_bytes(DECODE_AT)
            too_large = one.bytes is None or (machine.bytes or 0) < one.bytes
            if not size or too_large or (known and decode.share(one.model, machine.place)):
                continue
            top = machine.widths[1] / size
            rate = decode.estimate(one.model, hardware, machine.place, top)
            if rate is not None and rate.kind == "like":
                shares[number] = _short_of(rate.tok_per_s / top, 3)
        while shares and not shares[-1]:
            shares.pop()
        return shares

    @cached_property
    def _rigs(self) -> list[Rig]:
        """By number, as the data of the table have them."""
        newest = {record.rig.id: record.rig for record in reversed(self.records)}
        return [newest[words[1]] for words in self.data["rigs"]]

    @cached_property
    def _shapes(self) -> dict[int, dict[int, set[str]]]:
        """The shapes of uses that have a rate, by rig and model; empty where none has one."""
        rows, runs, shapes = self.data["rows"], self.data["runs"], self.data["shapes"]
        of, wanted = self._of, {use.shape for use in USES}
        found: dict[int, dict[int, set[str]]] = {}
        for run, rig in enumerate(runs["rig"]):
            found.setdefault(rig, {}).setdefault(of[run], set())
        columns = (rows[name] for name in ("run", "shape", "concurrency", "valid", "gen"))
        for run, shape, concurrency, valid, gen in zip(*columns, strict=True):
            if concurrency == 1 and valid and gen is not None and shapes[shape] in wanted:
                found[runs["rig"][run]][of[run]].add(shapes[shape])
        return found


def machines_of(site: Site) -> list[Asked]:
    """What one may ask about."""
    return machines((run.record for run in site.runs), _stated(site), site.cards)


def _stated(site: Site) -> dict[str, float]:
    """Bandwidths (bytes/s) that people wrote down, by rig."""
    return {
        name: rate
        for name, facts in site.rigs.items()
        if (width := facts.memory_bandwidth_bytes_per_s)
        if (rate := width.measured or width.theoretical)
    }


def machines(
    records: Iterable[Record], stated: dict[str, float], cards: Iterable[Card]
) -> list[Asked]:
    """What one may ask about: no card, sizes, then cards and processors that have records, by
    name."""
    rigs: dict[str, Rig] = {}
    for record in records:
        rigs.setdefault(record.rig.id, record.rig)
    numbered = [(number, rig) for number, rig in enumerate(rigs.values())]
    of_rigs = {rig.id: machine_of(rig, stated.get(rig.id)) for _, rig in numbered}
    sizes = {rig.id: naming.vram_gb(rig) for _, rig in numbered}
    without = [(number, rig) for number, rig in numbered if _is_processor(rig)]
    found = [
        _asked(
            NO_GPU,
            f"No GPU · {RAM_GB} GB RAM",
            "none",
            without,
            of_rigs,
            RAM_GB * GIB - SYSTEM_BYTES,
        )
    ]
    for size in SIZES_GB:
        alike = [(number, rig) for number, rig in numbered if sizes[rig.id] == size]
        known = [m.vram_bytes for _, rig in alike if (m := of_rigs[rig.id]).vram_bytes]
        least = min([*known, size * GIB])
        found.append(_asked(f"{size}gb", f"{size} GB", "size", alike, of_rigs, least))
    for card in cards:
        alike = [(number, rig) for number, rig in numbered if rig.id in card.rigs]
        kind = "card" if alike[0][1].gpus else "processor"
        if kind == "card" or _is_processor(alike[0][1]):
            room = _least(alike, of_rigs)
            found.append(_asked(card.address, card.label, kind, alike, of_rigs, room))
    order = list(KINDS)
    return sorted(found, key=lambda one: order.index(one.kind))


def _is_processor(rig: Rig) -> bool:
    return not rig.gpus and naming.gpus_known(rig) and rig.id != naming.UNKNOWN_RIG


def _least(alike: Sequence[tuple[int, Rig]], of_rigs: dict[str, Machine]) -> int | None:
    """The memory of the smallest of them."""
    sizes = [
        of_rigs[rig.id].vram_bytes if rig.gpus else of_rigs[rig.id].ram_bytes for _, rig in alike
    ]
    known = [size for size in sizes if size]
    return min(known) if known else None


def _asked(
    word: str,
    label: str,
    kind: str,
    alike: Sequence[tuple[int, Rig]],
    of_rigs: dict[str, Machine],
    size: int | None,
) -> Asked:
    on_gpu = kind in ("size", "card")
    described = [of_rigs[rig.id] for _, rig in alike]
    rates = [one.gpu_bytes_per_s if on_gpu else one.cpu_bytes_per_s for one in described]
    known = sorted(rate for rate in rates if rate)
    widths = (known[0], known[(len(known) - 1) // 2], known[-1]) if known else None
    shared = kind == "card" and described[0].shared
    numbers = tuple(number for number, _ in alike)
    return Asked(word, label, kind, size, shared or not on_gpu, numbers, widths)


def _shares(
    found: Sequence[Candidate], decode: Estimator, place: Place
) -> list[list[float | int | None]]:
    """The share of the ceiling each model reached, and on how many kinds of hardware."""
    if decode.errors("elsewhere").bound is None:
        return [[None] * len(found), [0] * len(found)]
    shares = [decode.share(one.model, place) for one in found]
    return [
        [None if one is None else _short_of(one[0]) for one in shares],
        [0 if one is None else one[1] for one in shares],
    ]


def _three(found: Estimate) -> list[float | None]:
    return [_short_of(one) for one in (found.tok_per_s, found.low, found.high)]


def _short_of(value: float | None, digits: int = DIGITS) -> float | None:
    """Few digits, and None for what is no number: JSON has none for it."""
    if value is None or not math.isfinite(value):
        return None
    short = significant(float(value), digits)
    return int(short) if short == int(short) else short
