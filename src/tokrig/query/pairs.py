"""Which results of two runs belong together, and the ratios of their figures. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokrig.query import labels
from tokrig.query.ratios import NO_RATIO, Ratio, geometric_mean, ratio, usable
from tokrig.query.variables import Differences, State, known_keys, value_text
from tokrig.record import names
from tokrig.record.model import Metric, Record, Result

# The figures that are compared, in the order of a table, and whether more is faster.
METRICS = {
    "output_tok_per_s": True,
    "ttft_s": False,
    "prefill_tok_per_s": True,
    "end_to_end_tok_per_s": True,
    "system_tok_per_s": True,
}

Comparable = Literal["yes", "invalid", "other_shape"]


@dataclass(frozen=True)
class Cell:
    """One result: a shape at a concurrency. ``hash`` is the version of the shape's texts."""

    shape: str
    hash: str | None
    concurrency: int
    valid: bool
    reasons: tuple[str, ...]
    prefill_source: str | None
    figures: dict[str, Metric | None]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        figures = {
            name: metric and metric.model_dump(mode="json") for name, metric in self.figures.items()
        }
        return plain | {"reasons": list(self.reasons), "figures": figures}


@dataclass(frozen=True)
class Subject:
    """One side of a comparison: a run, or its results at one ``concurrency``.

    ``name`` is the model and its quant, ``place`` what it ran on; ``keys`` as ``known_keys``.
    """

    id: str
    name: str
    place: str
    level: str
    keys: dict[str, str]
    cells: tuple[Cell, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {"cells": [cell.as_dict() for cell in self.cells]}


def subject(record: Record, *, concurrency: int | None = None, shape: str | None = None) -> Subject:
    """What a comparison needs of a record; only of one concurrency and one shape if given."""
    keys = known_keys(record)
    keys["concurrency"] = "every" if concurrency is None else str(concurrency)
    called = labels.mode_besides(record.mode.name)
    place = [labels.backend(record.backend), names.hardware_name(record.rig), called]
    return Subject(
        id=record.id,
        name=value_text(
            " · ".join(filter(None, (names.model_name(record.model), record.model.quant)))
        ),
        place=value_text(" · ".join(filter(None, place))),
        level=record.provenance.level or record.provenance.kind,
        keys=keys,
        cells=tuple(
            _cell(result)
            for result in record.results
            if concurrency in (None, result.concurrency) and shape in (None, result.workload.name)
        ),
    )


def _cell(result: Result) -> Cell:
    return Cell(
        shape=value_text(result.workload.name),
        hash=result.workload.content_hash,
        concurrency=result.concurrency,
        valid=result.validity.verdict != "invalid",
        reasons=tuple(map(value_text, result.validity.reasons)),
        prefill_source=result.prefill_source,
        figures={name: _figure(getattr(result, name)) for name in METRICS},
    )


def _figure(metric: Metric | None) -> Metric | None:
    """A metric that can be divided and written as JSON; a record may hold any number."""
    if metric is None or not usable(metric.median):
        return None
    bounds = [bound for bound in (metric.min, metric.max) if bound is not None]
    if not usable(*bounds):
        metric = metric.model_copy(update={"min": None, "max": None})
    if metric.ci95 and not usable(*metric.ci95):
        metric = metric.model_copy(update={"ci95": None})
    return metric


@dataclass(frozen=True)
class Figure:
    """One metric of a pair: the reference's, the other's, other / reference."""

    metric: str
    a: Metric | None
    b: Metric | None
    ratio: Ratio


@dataclass(frozen=True)
class Pair:
    """The same shape on both sides. Ratios exist only where ``comparable`` is "yes".

    ``same_shape`` tells whether the texts are the same: "unknown" where a side does not say.
    """

    shape: str
    concurrency: tuple[int, int]
    comparable: Comparable
    same_shape: State
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Mean:
    """Geometric mean of the ratios over all shapes, both sides having the same ones."""

    concurrency: tuple[int, int]
    metric: str
    value: float
    shapes: int


def pairs(a: Subject, b: Subject, found: Differences) -> tuple[Pair, ...]:
    """Cells of the same shape: at the same concurrency, or at the one that each side chose."""
    chosen = found.state("concurrency") == "differs"
    others = {(cell.shape, None if chosen else cell.concurrency): cell for cell in b.cells}
    together = []
    for cell in a.cells:
        other = others.get((cell.shape, None if chosen else cell.concurrency))
        if other is not None:
            together.append(_pair(cell, other, found))
    return tuple(together)


def _pair(a: Cell, b: Cell, found: Differences) -> Pair:
    same_shape = _same_shape(a, b, found)
    comparable: Comparable = "yes"
    if not (a.valid and b.valid):
        comparable = "invalid"
    elif same_shape == "differs":
        comparable = "other_shape"
    return Pair(
        shape=a.shape,
        concurrency=(a.concurrency, b.concurrency),
        comparable=comparable,
        same_shape=same_shape,
        figures=tuple(
            Figure(
                name,
                a.figures[name],
                b.figures[name],
                _ratio(a, b, name) if comparable == "yes" else NO_RATIO,
            )
            for name in METRICS
        ),
    )


def _ratio(a: Cell, b: Cell, name: str) -> Ratio:
    # A rate by the server's clock and one derived from TTFT are two metrics under one name.
    if name == "prefill_tok_per_s" and a.prefill_source != b.prefill_source:
        return NO_RATIO
    return ratio(b.figures[name], a.figures[name], higher_is_better=METRICS[name])


def _same_shape(a: Cell, b: Cell, found: Differences) -> State:
    """Unknown texts are the same only where both figures come from one and the same source."""
    if a.hash is not None and b.hash is not None:
        return "same" if a.hash == b.hash else "differs"
    one_source = a.hash == b.hash and found.state("provenance.source") == "same"
    return "same" if one_source else "unknown"


def means(a: Subject, b: Subject, together: Sequence[Pair]) -> tuple[Mean, ...]:
    """One per metric and concurrency where both sides have the same, valid shapes."""
    found = []
    for levels in dict.fromkeys(pair.concurrency for pair in together):
        group = [pair for pair in together if pair.concurrency == levels]
        whole = all(
            len(group) == sum(cell.concurrency == level for cell in side.cells)
            for side, level in zip((a, b), levels, strict=True)
        )
        sure = all(pair.comparable == "yes" and pair.same_shape == "same" for pair in group)
        if len(group) < 2 or not whole or not sure:
            continue
        for place, name in enumerate(METRICS):
            values = [pair.figures[place].ratio.value for pair in group]
            known = [value for value in values if value is not None]
            if len(known) == len(group):
                found.append(Mean(levels, name, geometric_mean(known), len(group)))
    return tuple(found)
