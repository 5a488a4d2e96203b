"""What has been measured on which machine, what is on its way there, and what nobody tried. Pure.

A model is a row, whatever its quants and modes; a campaign's word for a model leads to the model
whose records answer that campaign, else to the one of that name.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from tokrig import naming
from tokrig.naming import Reference
from tokrig.plan import Plan, Planned, RigMemory, command
from tokrig.plan import State as PlanState
from tokrig.plan.queue import Machine, because, machines, memory_of
from tokrig.quants import OVERHEAD_BYTES
from tokrig.record.checks import headline
from tokrig.store.load import Run
from tokrig.units import GIB, human_bytes, slug

State = Literal["measured", "stale", "queued", "blocked", "failed", "does_not_fit", "never"]
STATES: tuple[State, ...] = get_args(State)
# What a cell without a valid record says: the first of these that any of its planned runs is in.
_WAITING: tuple[State, ...] = ("queued", "blocked", "failed", "does_not_fit")
UNMEASURED = "Not measured anywhere yet"
_OF_PLAN: Mapping[PlanState, State] = {
    "todo": "queued",
    "unfinished": "queued",
    "blocked": "blocked",
    "failed": "failed",
    "invalid": "failed",
    "does_not_fit": "does_not_fit",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one machine.

    ``why`` is a sentence for what is stale, blocked, failed or does not fit; ``besides`` counts
    planned runs in other states (``2 queued, 1 failed``); ``run`` is the id of the record to look
    at, ``command`` what fills the gap, or tells what would fit.
    """

    state: State
    rig: str
    why: str = ""
    besides: str = ""
    run: str | None = None
    command: str | None = None


@dataclass
class ModelGaps:
    """A row of the map: a model and its cell for each machine, made from its records (newest
    first) and its planned runs by rig. ``address`` is that of its page, None where no record of
    it is published."""

    family: str
    name: str
    address: str | None
    tried: dict[str, list[Run]] = field(default_factory=dict)
    wanted: dict[str, list[Planned]] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()

    def least(self) -> tuple[int, str] | None:
        """The bytes of its smallest weights that anybody measured, or that a campaign fetches, and
        their quant; None where no size is known."""
        models = [run.record.model for of_rig in self.tried.values() for run in of_rig]
        wanted = [planned for of_rig in self.wanted.values() for planned in of_rig]
        sizes = [(one.bytes, one.quant or "") for one in models if one.bytes]
        sizes += [
            (one.download_bytes, one.run.quant or "")
            for one in wanted
            if one.download_bytes and not one.run.weights.quantize
        ]
        return min(sizes, default=None)

    def command(self, usual: Iterable[str]) -> str:
        """What measures it: as it was fetched, else as a campaign names it, else by the name of
        the file that was measured, or a likely one; with a backend that served it, or is to, on
        any machine, best with a ``usual`` one."""
        tried = [run.record for of_rig in self.tried.values() for run in of_rig]
        wanted = [planned.run for of_rig in self.wanted.values() for planned in of_rig]
        models = [record.model for record in tried]
        found = [
            str(Reference(one.repo, one.revision or "main", one.file))
            for one in models
            if one.repo and one.file
        ]
        found += [run.weights.reference for run in wanted]
        found += [one.file for one in models if one.file]
        quant = next((f"-{one.quant}" for one in models if one.quant), "")
        # A text that does not print could do more than name something where it is pasted.
        reference = next(filter(str.isprintable, found), f"{slug(self.name + quant)}.gguf")
        served = [record.backend.name for record in tried if record.results]
        served = [*filter(str.isprintable, [*served, *(run.backend for run in wanted)])]
        backend = next((one for one in usual if one in served), next(iter(served), None))
        words = ["tokrig", "run", "--model", reference]
        return shlex.join([*words, "--backend", backend] if backend else words)


class FamilyGaps(NamedTuple):
    """The models of one family, by name."""

    name: str
    models: list[ModelGaps]


class Gaps(NamedTuple):
    """The map: machines across, those with most models first, and the memory of each by its id;
    families down, by name."""

    machines: list[Machine]
    memories: Mapping[str, RigMemory]
    families: list[FamilyGaps]
    counts: Mapping[State, int]


def gaps(plan: Plan, runs: Sequence[Run]) -> Gaps:
    """The map of all models on all machines. ``runs`` are all records, newest first."""
    models = sorted(_models(plan, runs), key=lambda model: model.name.casefold())
    by_rig = Counter(rig for model in models for rig, tried in model.tried.items() if valid(tried))
    there = machines(plan, runs)
    rigs = sorted(there, key=lambda rig: (-by_rig[rig], rig))
    builds = _builds(runs)
    backends: dict[str, list[str]] = {}  # that served models on each rig, the latest first
    for record in (run.record for run in runs if run.record.results):
        backends.setdefault(record.rig.id, []).append(record.backend.name)
    families: dict[str, list[ModelGaps]] = {}
    memories = _memories(plan, runs)
    for model in models:
        least = model.least()
        model.cells = tuple(
            _cell(model, rig, builds, backends.get(rig, ()), _too_small(least, memories.get(rig)))
            for rig in rigs
        )
        families.setdefault(model.family, []).append(model)
    counts = Counter(cell.state for model in models for cell in model.cells)
    in_order = sorted(families, key=lambda family: (family == UNMEASURED, family.casefold()))
    return Gaps(
        [there[rig] for rig in rigs],
        memories,
        [FamilyGaps(family, families[family]) for family in in_order],
        {state: counts[state] for state in STATES},
    )


def valid(tried: Iterable[Run]) -> list[Run]:
    """The records with something to show: those with a valid result, and only where there is none
    those with figures of an engine's own benchmark."""
    tried = list(tried)
    served = [run for run in tried if headline(run.record)]
    raw = [run for run in tried if run.record.raw and run.record.validity.verdict != "invalid"]
    return served or raw


def _models(plan: Plan, runs: Iterable[Run]) -> Iterable[ModelGaps]:
    found: dict[str, ModelGaps] = {}  # by the address of their page
    of_record: dict[str, str] = {}
    for run in runs:
        model = run.record.model
        key = of_record[run.id] = naming.model_address(model)
        if key not in found:
            found[key] = ModelGaps(model.family, naming.model_name(model), key)
        found[key].tried.setdefault(run.record.rig.id, []).append(run)
    families = {naming.address(model.family): model.family for model in found.values()}
    words = {
        planned.run.weights.name: of_record[planned.record]
        for planned in plan.runs
        if planned.record in of_record
    }
    for planned in plan.runs:
        word = planned.run.weights.name
        key = words.setdefault(word, naming.address(word))
        if key not in found:
            # Of the family with the longest name that the model's name begins with.
            near = [name for name in families if f"{key}-".startswith(f"{name}-")]
            family = families[max(near, key=len)] if near else UNMEASURED
            found[key] = ModelGaps(family, word, None)
        found[key].wanted.setdefault(planned.run.rig, []).append(planned)
    return found.values()


_Builds = Mapping[tuple[str, str], Mapping[str, str]]
"""By rig and engine: its builds, and when the rig first measured with each."""


def _builds(runs: Iterable[Run]) -> _Builds:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        engine, since = run.record.backend, run.record.provenance.started_at
        if engine.build and since:  # undated records tell nothing
            builds = found.setdefault((run.record.rig.id, engine.engine), {})
            builds[engine.build] = min(since, builds.get(engine.build, since))
    return found


def _outdated(rig: str, measured: Sequence[Run], builds: _Builds) -> str:
    """A sentence when a later build of the same engine has come to the rig since; ``measured``
    are the valid records of one model there, newest first."""
    engine = measured[0].record.backend.engine
    first = builds.get((rig, engine), {})
    ours = {run.record.backend.build for run in measured if run.record.backend.engine == engine}
    known = [build for build in first if build in ours]
    if not known:
        return ""
    last, newest = (max(among, key=lambda one: (first[one], one)) for among in (known, first))
    if last == newest or first[last] == first[newest]:
        return ""
    return f"measured with {engine} {last}; this machine has since measured with {newest}"


def _memories(plan: Plan, runs: Iterable[Run]) -> dict[str, RigMemory]:
    """By rig: as its newest record has it, else as a campaign says."""
    found: dict[str, RigMemory] = {}
    for run in runs:
        if run.record.rig.id not in found:
            found[run.record.rig.id] = memory_of(run.record.rig, None)
    for rig, facts in (
        (rig, f) for file in plan.campaigns for rig, f in file.campaign.rigs.items()
    ):
        vram, memory = (
            None if gib is None else round(gib * GIB) for gib in (facts.vram_gib, facts.memory_gib)
        )
        found.setdefault(rig, RigMemory(vram, memory))
    return found


def _too_small(least: tuple[int, str] | None, memory: RigMemory | None) -> str:
    """A sentence where a model's smallest weights are more than a card and main memory hold
    together, as engines split them; nothing where they fit, or nobody knows."""
    if least is None or memory is None or None in (memory.vram_bytes, memory.memory_bytes):
        return ""
    needs, room = least[0] + OVERHEAD_BYTES, (memory.vram_bytes or 0) + (memory.memory_bytes or 0)
    if needs <= room:
        return ""
    quant = f", {least[1]}," if least[1] else ""
    return (
        f"its smallest known weights{quant} need {human_bytes(needs)} with an engine; "
        f"{human_bytes(room)} of memory are there, the card's included"
    )


def _cell(
    model: ModelGaps, rig: str, builds: _Builds, usual: Iterable[str], too_small: str
) -> Cell:
    tried, wanted = model.tried.get(rig, []), model.wanted.get(rig, [])
    states = Counter(_OF_PLAN[p.state] for p in wanted if p.state in _OF_PLAN)
    if measured := valid(tried):
        newest = measured[0]
        outdated = _outdated(rig, measured, builds)
        again = model.command([newest.record.backend.name]) if outdated else None
        state: State = "stale" if outdated else "measured"
        return Cell(state, rig, outdated, _besides(states), newest.id, again)
    for state in _WAITING:
        if state in states:
            # Planned runs of one state all tell the like: the first of them.
            first = next(p for p in wanted if _OF_PLAN.get(p.state) == state)
            del states[state]
            fills = command(first.run) + (f" --retry {first.state}" if state == "failed" else "")
            why = because(first.why, first.until)
            fill = _what_fits(rig) if state == "does_not_fit" else fills
            return Cell(state, rig, why, _besides(states), first.record, fill)
    if not tried and too_small:
        return Cell("does_not_fit", rig, too_small, command=_what_fits(rig))
    if not tried:
        return Cell("never", rig, command=model.command(usual))
    last = tried[0].record
    reasons = ", ".join(last.validity.reasons).replace("_", " ") or "no valid result"
    why = last.failure.message if last.failure else f"{last.status}, but invalid: {reasons}"
    return Cell("failed", rig, why, "", last.id, model.command(usual))


def _what_fits(rig: str) -> str:
    return shlex.join(["tokrig", "fit", "--rig", rig])


def _besides(states: Mapping[State, int]) -> str:
    """``2 queued, 1 failed``."""
    return ", ".join(f"{states[s]} {s.replace('_', ' ')}" for s in STATES if states.get(s))
