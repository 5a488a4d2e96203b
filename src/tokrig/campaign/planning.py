"""Plans over the records here: what a plan depends on, looked up, and what its comparisons say."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tokrig import registry
from tokrig.backends import Backend
from tokrig.compare.ab import Arms, Outcome, compare
from tokrig.errors import InputError, TokrigError
from tokrig.measure import unfinished_keys
from tokrig.models import catalog, identity, shelf
from tokrig.plan import Past, Plan, PlanInputs, Planned, RigMemory, Shape, Weights, plan
from tokrig.plan.expand import Names, expand
from tokrig.plan.published import memory_of, seconds_between
from tokrig.record.model import Record, Rig
from tokrig.run.prepare import need
from tokrig.spec.campaign import CampaignFile, load_campaign
from tokrig.spec.settings import askable
from tokrig.store import Store
from tokrig.store.facts import load_rigs
from tokrig.store.index import Row
from tokrig.workloads import Workload


def campaign_files(paths: Sequence[Path]) -> list[CampaignFile]:
    """The campaigns in files and folders; without any those of ``./campaigns``.

    Raises SpecError with file and line, InputError where there is none.
    """
    found: list[Path] = []
    for path in paths or [Path("campaigns")]:
        if path.is_dir():
            found += sorted(path.glob("*.yaml"))
        else:
            found.append(path)
    if not found:
        raise InputError(
            "there is no campaign file here",
            hint="name one, or write campaigns/NAME.yaml: docs/campaigns.md begins with one",
        )
    return [load_campaign(path) for path in found]


def make_plan(files: Sequence[CampaignFile], content: Path, here: Rig) -> Plan:
    """The plan of ``files`` over the records in ``content``, with what is known on this machine
    of models and rigs. No network is asked.

    Raises what ``plan`` raises.
    """
    own_models = frozenset(name for name in registry.names("backends") if _backend(name).own_models)
    store = Store(content)
    rows = store.listing().rows
    rigs = _rigs(rows, store, here)
    names = Names(here.id, frozenset(catalog.CATALOG), own_models, rigs)
    runs = [run for file in files for run in expand(file, names)]
    weights = {run.weights for run in runs}
    references = {one.reference for one in weights}
    references |= {run.setting("draft_model") for run in runs} - {None}
    shapes = {name: _shape(name) for name in registry.names("workloads")}
    return plan(
        files,
        PlanInputs(
            past=[_past(row) for row in rows],
            rigs=rigs,
            sizes={reference: shelf.known_size(reference) for reference in references},
            made=_made(weights),
            unfinished=frozenset(unfinished_keys().values()),
            shapes=shapes,
        ),
        here=names.here,
        catalog=names.catalog,
        own_models=own_models,
        needs={name: need(_workload(name)) for name in shapes},
    )


def _backend(name: str) -> Backend:
    backend: Backend = registry.load("backends", name, "BACKEND")
    return backend


def _workload(name: str) -> Workload:
    workload: Workload = registry.load("workloads", name, "WORKLOAD")
    return workload


def _shape(name: str) -> Shape:
    workload = _workload(name)
    return Shape(workload.prompt_tokens, workload.answer_tokens, tuple(workload.concurrencies))


def _past(row: Row) -> Past:
    return Past(
        id=row.id,
        planned=row.planned,
        status=row.status,
        verdict=row.verdict,
        failure=row.failure,
        rig=row.rig,
        level=row.level,
        results=row.results,
        started_at=row.started_at,
        duration_s=seconds_between(row.started_at, row.finished_at),
        model_bytes=row.model_bytes,
        backend=row.part,
    )


def _rigs(rows: Iterable[Row], store: Store, here: Rig) -> dict[str, RigMemory]:
    """Of each rig what its newest record says, of this machine what it is now."""
    written = load_rigs(store.content)
    found = {here.id: here}
    for row in rows:
        if row.rig not in found:
            with contextlib.suppress(TokrigError):
                found[row.rig] = store.read(store.runs / row.path).rig
    return {name: memory_of(rig, written.get(name)) for name, rig in found.items()}


def _made(weights: Collection[Weights]) -> frozenset[tuple[str, str]]:
    """Quants that were made here already, by the model they were asked of."""
    there = {
        (entry.manifest.quantized_from.sha256, entry.quant)
        for entry in shelf.entries()
        if entry.manifest.quantized_from
    }
    sources = {one.reference for one in weights if one.quantize} if there else set()
    digests = {source: _digest(source) for source in sources}
    return frozenset(
        (one.reference, one.quantize)
        for one in weights
        if one.quantize and (digests.get(one.reference), one.quantize.upper()) in there
    )


def _digest(reference: str) -> str | None:
    """The SHA-256 of a model that is here, from the notes of earlier runs."""
    try:
        return identity.identify(catalog.resolve(reference)).sha256
    except (TokrigError, OSError):
        return None


# A/B entries


def comparisons(plan: Plan, store: Store) -> dict[str, tuple[Outcome, ...]]:
    """The outcomes of every entry that compares two values, by ``campaign/entry``; an entry has
    one for each combination of its other axes. Raises RecordError for a record that cannot be
    read."""
    paths = {path.stem: path for path in store.iter_paths()}
    found = {}
    for file in plan.campaigns:
        for entry in file.campaign.entries:
            runs = [
                p for p in plan.runs if (p.run.campaign, p.run.entry) == (file.name, entry.name)
            ]
            if entry.ab is None or not runs:
                continue
            sequences: dict[str | None, list[Planned]] = {}
            for planned in sorted(runs, key=lambda one: one.run.position):
                sequences.setdefault(planned.run.sequence, []).append(planned)
            arms = [
                Arms(_name(of, entry.ab), *(_records(of, arm, paths, store) for arm in "AB"))
                for of in sequences.values()
            ]
            found[f"{file.name}/{entry.name}"] = compare(entry.ab, entry.repeats, arms)
    return found


def _records(
    sequence: Iterable[Planned], arm: str, paths: dict[str, Path], store: Store
) -> list[Record]:
    ids = [p.record for p in sequence if p.run.arm == arm and p.record is not None]
    return [store.read(paths[one]) for one in ids if one in paths]


def _name(sequence: list[Planned], axis: str) -> str:
    """What tells a sequence from the entry's others: its model, quant, backend and mode."""
    run = sequence[0].run
    told = {
        "model": run.weights.name,
        "quant": run.quant,
        "creator": run.creator,
        "backend": run.backend,
    }
    told |= {
        one.axis: one.say(run.setting(one.name))
        for one in askable()
        if one.axis and run.setting(one.name) is not None
    }
    return " · ".join(str(word) for key, word in told.items() if word and key != axis)
