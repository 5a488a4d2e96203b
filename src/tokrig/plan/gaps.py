"""What has been measured on which machine, what is on its way there, and what nobody tried. Pure.

A model is a row, whatever its quants and modes; a campaign's word for a model leads to the model
whose records answer that campaign, else to the one of that name.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from tokrig import naming
from tokrig.plan import Plan, Planned, command
from tokrig.plan import State as PlanState
from tokrig.plan.queue import Machine, because, machines
from tokrig.record.checks import headline
from tokrig.record.model import Record
from tokrig.references import Reference
from tokrig.store.load import Run
from tokrig.units import slug

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
    at, ``command`` what fills the gap.
    """

    state: State
    rig: str
    why: str = ""
    besides: str = ""
    run: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class ModelGaps:
    """A row of the map: a model and its cell for each machine. ``address`` is that of its page,
    None where no record of it is published."""

    name: str
    address: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FamilyGaps:
    """The models of one family, by name."""

    name: str
    models: tuple[ModelGaps, ...]


@dataclass(frozen=True)
class Gaps:
    """The map: machines across, those with most models first; families down, by name."""

    machines: tuple[Machine, ...]
    families: tuple[FamilyGaps, ...]
    counts: Mapping[State, int]


@dataclass(frozen=True)
class _Model:
    """A model, with its records (newest first) and planned runs by rig."""

    family: str
    name: str
    address: str | None
    tried: dict[str, list[Run]]
    wanted: dict[str, list[Planned]]

    @cached_property
    def reference(self) -> str:
        """The model as ``tokrig run --model`` takes it: from where it was fetched, else as a
        campaign names it, else the name of the file that was measured, or a likely one."""
        records = [run.record.model for tried in self.tried.values() for run in tried]
        found = [
            str(Reference(one.repo, one.revision or "main", one.file))
            for one in records
            if one.repo and one.file
        ]
        found += [p.run.weights.reference for wanted in self.wanted.values() for p in wanted]
        found += [one.file for one in records if one.file]
        quant = next((f"-{one.quant}" for one in records if one.quant), "")
        return next(filter(_is_plain, found), f"{slug(self.name + quant)}.gguf")

    @cached_property
    def served(self) -> list[str]:
        """The backends that served it, or are to, on any machine."""
        tried = [run for of_rig in self.tried.values() for run in of_rig]
        found = [run.record.backend.name for run in tried if run.record.results]
        found += [p.run.backend for wanted in self.wanted.values() for p in wanted]
        return list(dict.fromkeys(filter(_is_plain, found)))


def _is_plain(text: str) -> bool:
    """A text that does not print could do more than name something where it is pasted."""
    return text.isprintable()


def gaps(plan: Plan, runs: Sequence[Run]) -> Gaps:
    """The map of all models on all machines. ``runs`` are all records, newest first."""
    models = _models(plan, runs)
    by_rig = Counter(
        rig for model in models.values() for rig, tried in model.tried.items() if valid(tried)
    )
    there = machines(plan, runs)
    rigs = sorted(there, key=lambda rig: (-by_rig[rig], rig))
    builds = _Builds(runs)
    backends = _backends(runs)
    rows: dict[str, list[ModelGaps]] = {}
    for model in sorted(models.values(), key=lambda model: model.name.casefold()):
        cells = tuple(_cell(model, rig, builds, backends) for rig in rigs)
        rows.setdefault(model.family, []).append(ModelGaps(model.name, model.address, cells))
    families = sorted(rows, key=lambda family: (family == UNMEASURED, family.casefold()))
    counts = Counter(c.state for models in rows.values() for model in models for c in model.cells)
    return Gaps(
        machines=tuple(there[rig] for rig in rigs),
        families=tuple(FamilyGaps(family, tuple(rows[family])) for family in families),
        counts={state: counts[state] for state in STATES},
    )


def valid(tried: Iterable[Run]) -> list[Run]:
    """The records with something to show: those with a valid result, and only where there is none
    those with figures of an engine's own benchmark."""
    tried = list(tried)
    served = [run for run in tried if headline(run.record)]
    raw = [run for run in tried if run.record.raw and run.record.validity.verdict != "invalid"]
    return served or raw


# Models


def _models(plan: Plan, runs: Iterable[Run]) -> dict[str, _Model]:
    """All models by key: the address of their page."""
    found: dict[str, _Model] = {}
    of_record: dict[str, str] = {}
    for run in runs:
        model = run.record.model
        key = of_record[run.id] = naming.model_address(model)
        if key not in found:
            found[key] = _Model(model.family, naming.model_name(model), key, {}, {})
        found[key].tried.setdefault(run.record.rig.id, []).append(run)
    families = {naming.address(model.family): model.family for model in found.values()}
    keys = _keys(plan, of_record)
    for planned in plan.runs:
        word = planned.run.weights.name
        key = keys[word]
        if key not in found:
            found[key] = _Model(_family(key, families), word, None, {}, {})
        found[key].wanted.setdefault(planned.run.rig, []).append(planned)
    return found


def _keys(plan: Plan, of_record: Mapping[str, str]) -> dict[str, str]:
    """The key of each word that campaigns use for a model."""
    keys: dict[str, str] = {}
    for planned in plan.runs:
        word = planned.run.weights.name
        answered = of_record.get(planned.record or "")
        if answered:
            keys[word] = answered
        else:
            keys.setdefault(word, naming.address(word))
    return keys


def _family(key: str, families: Mapping[str, str]) -> str:
    """The family with the longest name that a model's name begins with."""
    near = [address for address in families if key.startswith(f"{address}-") or key == address]
    return families[max(near, key=len)] if near else UNMEASURED


# Builds and backends


class _Builds:
    """Builds of engines by when a rig first measured with them. Undated records tell nothing."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._first: dict[tuple[str, str], dict[str, str]] = {}
        for run in runs:
            engine, since = run.record.backend, run.record.provenance.started_at
            if engine.build and since:
                builds = self._first.setdefault((run.record.rig.id, engine.engine), {})
                builds[engine.build] = min(since, builds.get(engine.build, since))

    def outdated(self, rig: str, measured: Sequence[Run]) -> str:
        """A sentence when a later build of the same engine has come to the rig since; ``measured``
        are the valid records of one model there, newest first."""
        engine = measured[0].record.backend.engine
        first = self._first.get((rig, engine), {})
        ours = {run.record.backend.build for run in measured if run.record.backend.engine == engine}
        known = [build for build in first if build in ours]
        if not known:
            return ""
        last, newest = (max(among, key=lambda one: (first[one], one)) for among in (known, first))
        if last == newest or first[last] == first[newest]:
            return ""
        return f"measured with {engine} {last}; this machine has since measured with {newest}"


def _backends(runs: Iterable[Run]) -> dict[str, list[str]]:
    """The backends that served models on each rig, the latest first."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.record.results:
            found.setdefault(run.record.rig.id, {})[run.record.backend.name] = None
    return {rig: list(backends) for rig, backends in found.items()}


# Cells


def _cell(model: _Model, rig: str, builds: _Builds, backends: Mapping[str, list[str]]) -> Cell:
    tried, wanted = model.tried.get(rig, []), model.wanted.get(rig, [])
    states = Counter(_OF_PLAN[p.state] for p in wanted if p.state in _OF_PLAN)
    measured = valid(tried)
    if measured:
        newest = measured[0]
        outdated = builds.outdated(rig, measured)
        state: State = "stale" if outdated else "measured"
        again = _run_command(model, [newest.record.backend.name]) if outdated else None
        return Cell(state, rig, outdated, _besides(states), newest.id, again)
    for state in _WAITING:
        if state in states:
            first = next(p for p in wanted if _OF_PLAN.get(p.state) == state)
            del states[state]
            return _planned_cell(state, first, _besides(states))
    again = _run_command(model, backends.get(rig, []))
    if tried:
        return Cell("failed", rig, _reason(tried[0].record), "", tried[0].id, again)
    return Cell("never", rig, command=again)


def _planned_cell(state: State, planned: Planned, besides: str) -> Cell:
    """Planned runs of one state, which all tell the like: the first of them."""
    why = because(planned.why, planned.until)
    fills: str | None = command(planned.run)
    if state == "failed":
        fills = f"{fills} --retry {planned.state}"
    elif state == "does_not_fit":
        fills = None
    return Cell(state, planned.run.rig, why, besides, planned.record, fills)


def _besides(states: Mapping[State, int]) -> str:
    """``2 queued, 1 failed``."""
    return ", ".join(f"{states[s]} {s.replace('_', ' ')}" for s in STATES if states.get(s))


def _reason(record: Record) -> str:
    """Why a record shows nothing."""
    if record.failure:
        return record.failure.message
    reasons = [reason.replace("_", " ") for reason in record.validity.reasons]
    return f"{record.status}, but invalid: {', '.join(reasons) or 'no valid result'}"


def _run_command(model: _Model, usual: Iterable[str]) -> str:
    """The model with a backend that served it somewhere, best with a ``usual`` one."""
    words = ["tokrig", "run", "--model", model.reference]
    served = model.served
    backend = next((one for one in usual if one in served), next(iter(served), None))
    return shlex.join([*words, "--backend", backend] if backend else words)
