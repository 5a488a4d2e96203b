"""Which results of two runs belong together, and the ratios of their figures. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tokrig.query import labels
from tokrig.query.ratios import (
    NO_RATIO,
    SMALLEST_EFFECT,
    Ratio,
    Side,
    decided,
    geometric_mean,
    ratio,
)
from tokrig.query.spread import starts_of, usable
from tokrig.query.variables import Differences, State, known_keys, value_text
from tokrig.record import names
from tokrig.record.model import Metric, Record, Result, Verdict

# The figures that are compared, in the order of a table, and whether more is faster.
METRICS = {
    "output_tok_per_s": True,
    "ttft_s": False,
    "prefill_tok_per_s": True,
    "end_to_end_tok_per_s": True,
    "system_tok_per_s": True,
}

# (t) Prompts may be off their shape's length by so much; two of one length, by twice that.
LENGTH_SHARE = 0.02
LENGTH_TOKENS = 4

Comparable = Literal["yes", "invalid", "other_shape", "other_length"]


@dataclass(frozen=True)
class Cell:
    """One result: a shape at a concurrency. ``hash`` is the version of the shape's texts,
    ``prompt_tokens`` how long its prompts were, ``starts`` of how many starts of the engine its
    figures are. ``codes`` are the reasons of an invalid one, and what an unverified one lacks."""

    shape: str
    hash: str | None
    prompt_tokens: float | None
    concurrency: int
    verdict: Verdict
    codes: tuple[str, ...]
    starts: int | None
    prefill_source: str | None
    figures: dict[str, Metric | None]

    def side(self, metric: str) -> Side | None:
        """A figure, with the starts behind it."""
        found = self.figures[metric]
        return None if found is None else Side(found, self.starts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        figures = {
            name: metric and metric.model_dump(mode="json") for name, metric in self.figures.items()
        }
        return plain | {"codes": list(self.codes), "figures": figures}


@dataclass(frozen=True)
class Subject:
    """One side of a comparison: a run, or its results at one ``concurrency``.

    ``name`` is the model and its quant, ``place`` what it ran on; ``keys`` as ``known_keys``.
    ``noise`` is by how much two runs of the same differ on this rig, by figure, where known.
    """

    id: str
    name: str
    place: str
    level: str
    keys: dict[str, str]
    cells: tuple[Cell, ...]
    noise: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {"cells": [cell.as_dict() for cell in self.cells], "noise": dict(self.noise)}


def subject(
    record: Record,
    *,
    concurrency: int | None = None,
    shape: str | None = None,
    noise: Mapping[str, float] | None = None,
) -> Subject:
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
            _cell(record, result)
            for result in record.results
            if concurrency in (None, result.concurrency) and shape in (None, result.workload.name)
        ),
        noise=noise or {},
    )


def _cell(record: Record, result: Result) -> Cell:
    verdict, length = result.validity.word, result.prompt_tokens
    codes = result.validity.reasons if verdict == "invalid" else result.validity.unverified
    return Cell(
        shape=value_text(result.workload.name),
        hash=result.workload.content_hash,
        prompt_tokens=length.median if length else None,
        concurrency=result.concurrency,
        verdict=verdict,
        codes=tuple(map(value_text, codes)),
        starts=starts_of(record, result),
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
    if not usable(*metric.starts):
        metric = metric.model_copy(update={"starts": []})
    return metric


@dataclass(frozen=True)
class Match:
    """The same shape on both sides. ``same_shape`` tells whether texts and lengths are the same:
    "unknown" where a side does not say."""

    a: Cell
    b: Cell
    comparable: Comparable
    same_shape: State


@dataclass(frozen=True)
class Figure:
    """One metric of a pair: the reference's, the other's, other / reference."""

    metric: str
    a: Metric | None
    b: Metric | None
    ratio: Ratio


@dataclass(frozen=True)
class Pair:
    """The figures of a match, with both sides' marks. Ratios exist only where ``comparable`` is
    "yes" and the class is not D."""

    shape: str
    concurrency: tuple[int, int]
    verdicts: tuple[Verdict, Verdict]
    codes: tuple[tuple[str, ...], tuple[str, ...]]
    comparable: Comparable
    same_shape: State
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Mean:
    """Geometric mean of the ratios over all shapes, both sides having the same ones; unverified
    where one of the figures is."""

    concurrency: tuple[int, int]
    metric: str
    value: float
    shapes: int
    verdict: Verdict


def matches(a: Subject, b: Subject, found: Differences) -> tuple[Match, ...]:
    """Cells of the same shape: at the same concurrency, or at the one that each side chose."""
    chosen = found.state("concurrency") == "differs"
    others = {(cell.shape, None if chosen else cell.concurrency): cell for cell in b.cells}
    together = []
    for cell in a.cells:
        other = others.get((cell.shape, None if chosen else cell.concurrency))
        if other is not None:
            together.append(_match(cell, other, found))
    return tuple(together)


def _match(a: Cell, b: Cell, found: Differences) -> Match:
    texts = _same_texts(a, b, found)
    of_one_length = _of_one_length(a.prompt_tokens, b.prompt_tokens)
    comparable: Comparable = "yes"
    if "invalid" in (a.verdict, b.verdict):
        comparable = "invalid"
    elif texts == "differs":
        comparable = "other_shape"
    elif not of_one_length:
        comparable = "other_length"
    return Match(a, b, comparable, texts if of_one_length else "differs")


def _same_texts(a: Cell, b: Cell, found: Differences) -> State:
    """Unknown texts are the same only where both figures come from one and the same source."""
    if a.hash is not None and b.hash is not None:
        return "same" if a.hash == b.hash else "differs"
    one_source = a.hash == b.hash and found.state("provenance.source") == "same"
    return "same" if one_source else "unknown"


def _of_one_length(a: float | None, b: float | None) -> bool:
    """Whether prompts were of one length: a long chat template makes some longer. Where a side
    does not tell, the texts' version decides alone."""
    if a is None or b is None:
        return True
    return abs(a - b) <= max(LENGTH_TOKENS, LENGTH_SHARE * min(a, b))


def pairs(
    together: Sequence[Match], least: Mapping[str, float], *, rated: bool
) -> tuple[Pair, ...]:
    """The figures of all matches; with ratios where they are ``rated``, which count from the
    ``least`` effect of each figure on. All ratios with an interval of their own are read
    together, so each is tested as one of so many."""
    tests = sum(
        decided(match.b.side(name), match.a.side(name))
        for match in together
        for name in METRICS
        if _is_rated(match, name)
    )
    return tuple(_pair(match, least, max(tests, 1), rated) for match in together)


def least_effects(a: Subject, b: Subject, *, alike: bool) -> dict[str, float]:
    """The smallest effect that counts, by figure. Two records that are ``alike`` are what noise
    is known from, and not held against it."""
    known = () if alike else (a.noise, b.noise)
    return {
        name: max(SMALLEST_EFFECT, *(noise.get(name, 0.0) for noise in known), 0.0)
        for name in METRICS
    }


def _pair(match: Match, least: Mapping[str, float], tests: int, rated: bool) -> Pair:
    a, b = match.a, match.b

    def found(name: str) -> Ratio:
        if not (rated and _is_rated(match, name)):
            return NO_RATIO
        return ratio(
            *(b.side(name), a.side(name)),
            higher_is_better=METRICS[name],
            tests=tests,
            least=least[name],
        )

    return Pair(
        shape=a.shape,
        concurrency=(a.concurrency, b.concurrency),
        verdicts=(a.verdict, b.verdict),
        codes=(a.codes, b.codes),
        comparable=match.comparable,
        same_shape=match.same_shape,
        figures=tuple(
            Figure(name, a.figures[name], b.figures[name], found(name)) for name in METRICS
        ),
    )


def _is_rated(match: Match, name: str) -> bool:
    # A rate by the server's clock and one derived from TTFT are two metrics under one name.
    one_metric = name != "prefill_tok_per_s" or match.a.prefill_source == match.b.prefill_source
    return match.comparable == "yes" and one_metric


def means(a: Subject, b: Subject, together: Sequence[Pair]) -> tuple[Mean, ...]:
    """One per metric and concurrency where both sides have the same shapes, all comparable."""
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
        verdict: Verdict = (
            "unverified" if any("unverified" in pair.verdicts for pair in group) else "valid"
        )
        for place, name in enumerate(METRICS):
            values = [pair.figures[place].ratio.value for pair in group]
            known = [value for value in values if value is not None]
            if len(known) == len(group):
                found.append(Mean(levels, name, geometric_mean(known), len(group), verdict))
    return tuple(found)
