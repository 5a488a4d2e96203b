"""Runs of a model that differ in one thing on one machine: a chart of the machine that has most
of them, a line for every other machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tokrig.query.load import Run
from tokrig.record.model import Rig
from tokrig.site import table, words
from tokrig.site.charts import Figure
from tokrig.site.charts.speed import by_backend, by_quant, quant_sweep, same_silicon

Name = Callable[[Run], str]


@dataclass(frozen=True)
class Elsewhere:
    """Another machine: ``alike`` is what its runs share, ``lines`` are the fastest run of each of
    the things in which they differ, with that thing's name."""

    rig: Rig
    alike: str
    lines: Sequence[tuple[str, table.Line]]


@dataclass(frozen=True)
class Compared:
    """The chart of the machine that has most to compare, and the other machines."""

    rig: Rig
    figure: Figure
    elsewhere: Sequence[Elsewhere]


def quants(runs: Sequence[Run]) -> Compared | None:
    """Quants under one backend; None where no machine ran two."""
    return _compared(quant_sweep, by_quant(runs), _quant, _backend_and_mode)


def silicon(runs: Sequence[Run]) -> Compared | None:
    """Backends with one quant; None where no machine ran two."""
    return _compared(same_silicon, by_backend(runs), _backend, _quant_and_mode)


def line(run: Run) -> table.Line:
    """The valid results of a run that has any, at the lowest concurrency they have."""
    valid = [result for result in run.record.results if result.validity.verdict != "invalid"]
    lowest = min(result.concurrency for result in valid)
    results = tuple(result for result in valid if result.concurrency == lowest)
    speeds = [table.speed(result) for result in results]
    return table.Line(run, lowest, results, min(speeds), max(speeds))


def _compared(
    draw: Callable[[Sequence[Run]], Figure | None],
    groups: Sequence[Sequence[Run]],
    name: Name,
    alike: Name,
) -> Compared | None:
    """``groups`` in the order of how much they compare."""
    by_rig: dict[str, Sequence[Run]] = {}
    for group in groups:
        by_rig.setdefault(group[0].record.rig.id, group)
    most, *others = by_rig.values() or [()]
    figure = draw(most)
    if figure is None:
        return None
    rig = most[0].record.rig
    return Compared(
        rig,
        dataclasses.replace(figure, slug=f"{figure.slug}-{rig.id}"),
        [Elsewhere(of[0].record.rig, alike(of[0]), _fastest(of, name)) for of in others],
    )


def _fastest(runs: Iterable[Run], name: Name) -> list[tuple[str, table.Line]]:
    """The fastest line of each name, fastest first."""
    found: dict[str, table.Line] = {}
    for one in sorted(map(line, runs), key=lambda one: -one.high):
        found.setdefault(name(one.run), one)
    return list(found.items())


def _quant(run: Run) -> str:
    model = run.record.model
    return " ".join(filter(None, (model.quant, model.quant_creator))) or words.NULL


def _backend(run: Run) -> str:
    return words.backend(run.record.backend)


def _quant_and_mode(run: Run) -> str:
    return ", ".join(filter(None, (_quant(run), words.mode(run.record))))


def _backend_and_mode(run: Run) -> str:
    return ", ".join(filter(None, (_backend(run), words.mode(run.record))))
