"""Plans over the records here: what a plan depends on, looked up, and what its comparisons say."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tokrig import registry
from tokrig.backends import Backend
from tokrig.compare.ab import Arms, Outcome, compare
from tokrig.errors import InputError, TokrigError
from tokrig.measure import unfinished_keys
from tokrig.models import catalog, identity, shelf
from tokrig.plan import (
    Past,
    Plan,
    PlanInputs,
    Planned,
    RigMemory,
    Run,
    Shape,
    Weights,
    run_spec,
)
from tokrig.plan.expand import expand
from tokrig.plan.order import plan
from tokrig.plan.queue import memory_of, seconds_between
from tokrig.record.model import Record, Rig
from tokrig.run.prepare import outline
from tokrig.run.room import need
from tokrig.spec.campaign import CampaignFile, load_campaign
from tokrig.spec.settings import askable
from tokrig.store import Store
from tokrig.store.facts import load_rigs
from tokrig.store.index import Row
from tokrig.workloads import Workload, texts


def campaign_files(paths: Sequence[Path]) -> list[CampaignFile]:
    """The campaigns in files and folders; without any those of ``./campaigns``.

    Raises SpecError with file and line, InputError where there is none.
    """
    found: list[Path] = []
    for path in paths or [Path("campaigns")]:
        found += sorted(path.glob("*.yaml")) if path.is_dir() else [path]
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
    backends: list[tuple[str, Backend]] = [
        (name, registry.load("backends", name, "BACKEND")) for name in registry.names("backends")
    ]
    shapes: list[tuple[str, Workload]] = [
        (name, registry.load("workloads", name, "WORKLOAD")) for name in registry.names("workloads")
    ]
    store = Store(content)
    rows = store.listing().rows
    known = PlanInputs(
        here=here.id,
        catalog=frozenset(catalog.CATALOG),
        own_models=frozenset(name for name, backend in backends if backend.own_models),
        texts=texts(),
        needs={name: need(shape) for name, shape in shapes},
        shapes={
            name: Shape(one.prompt_tokens, one.answer_tokens, tuple(one.concurrencies))
            for name, one in shapes
        },
        rigs=_rigs(rows, store, here),
        past=[_past(row) for row in rows],
        unfinished=frozenset(unfinished_keys().values()),
    )
    runs = [run for file in files for run in expand(file, known)]
    weights = {run.weights for run in runs}
    references = {one.reference for one in weights}
    references |= {run.setting("draft_model") for run in runs} - {None}
    sizes = {reference: shelf.known_size(reference) for reference in references}
    made, traces_s = _made(weights), _traces_s(runs)
    return plan(files, replace(known, sizes=sizes, made=made, traces_s=traces_s))


def _past(row: Row) -> Past:
    took_s = seconds_between(row.started_at, row.finished_at)
    same = [n for n in Past.__slots__ if n not in ("duration_s", "backend", "results")]
    own = {name: getattr(row, name) for name in same}
    results = row.results if row.plain == row.results else 0
    return Past(duration_s=took_s, backend=row.part, results=results, **own)


def _rigs(rows: Iterable[Row], store: Store, here: Rig) -> dict[str, RigMemory]:
    """Of each rig what its newest record says, of this machine what it is now."""
    written = load_rigs(store.content)
    found = {here.id: here}
    for row in rows:
        if row.rig not in found:
            with contextlib.suppress(TokrigError):
                found[row.rig] = store.read(store.runs / row.path).rig
    return {name: memory_of(rig, written.get(name)) for name, rig in found.items()}


def _traces_s(runs: Iterable[Run]) -> dict[str, float]:
    """How long the requests of traces arrive, by the key of the run; what cannot be read says so
    when it is measured."""
    found: dict[str, float] = {}
    for run in runs:
        if run.others.get("trace"):
            with contextlib.suppress(TokrigError):
                if (trace := outline(run_spec(run), datetime.now(UTC)).trace) is not None:
                    found[run.key] = trace.duration_s
    return found


def _made(weights: Collection[Weights]) -> frozenset[tuple[str, str]]:
    """Quants that were made here already, by the model they were asked of."""
    there = {
        (entry.manifest.quantized_from.sha256, entry.quant)
        for entry in shelf.entries()
        if entry.manifest.quantized_from
    }
    digests: dict[str, str | None] = {}  # from the notes of earlier runs
    found = set()
    for one in weights if there else ():
        if one.quantize and one.reference not in digests:
            digests[one.reference] = None
            with contextlib.suppress(TokrigError, OSError):
                file = catalog.resolve(one.reference)
                digests[one.reference] = identity.identify(file).sha256
        if one.quantize and (digests[one.reference], one.quantize.upper()) in there:
            found.add((one.reference, one.quantize))
    return frozenset(found)


# A/B entries


def comparisons(plan: Plan, store: Store) -> dict[str, tuple[Outcome, ...]]:
    """The outcomes of every entry that compares two values, by ``campaign/entry``; an entry has
    one for each combination of its other axes. Raises RecordError for a record that cannot be
    read."""
    paths = {path.stem: path for path in store.iter_paths()}
    sequences: dict[str, dict[str | None, list[Planned]]] = {}
    for planned in sorted(plan.runs, key=lambda one: one.run.position):
        of_entry = sequences.setdefault(planned.run.place, {})
        of_entry.setdefault(planned.run.sequence, []).append(planned)

    def records(sequence: Iterable[Planned], arm: str) -> list[Record]:
        ids = [p.record for p in sequence if p.run.arm == arm]
        return [store.read(paths[one]) for one in ids if one in paths]

    found = {}
    for file in plan.campaigns:
        for entry in file.campaign.entries:
            place = f"{file.name}/{entry.name}"
            if entry.ab is not None and place in sequences:
                arms = [
                    Arms(_name(of, entry.ab), records(of, "A"), records(of, "B"))
                    for of in sequences[place].values()
                ]
                found[place] = compare(entry.ab, entry.repeats, arms)
    return found


def _name(sequence: list[Planned], axis: str) -> str:
    """What tells a sequence from the entry's others: its model, quant, backend and mode."""
    run = sequence[0].run
    told = {"model": run.weights.name, "quant": run.quant, "creator": run.creator}
    told["backend"] = run.backend
    for one in askable():
        if one.axis and run.setting(one.name) is not None:
            told[one.axis] = one.say(run.setting(one.name))
    return " · ".join(word for key, word in told.items() if word and key != axis)
