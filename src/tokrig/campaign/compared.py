"""What the A/B entries of a plan say, from the records of their two arms."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokrig.compare.ab import Arms, Outcome, compare
from tokrig.plan import Plan, Planned
from tokrig.record.model import Record
from tokrig.spec.settings import askable
from tokrig.store import Store


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
