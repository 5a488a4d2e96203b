"""The two arms of an A/B entry: is B faster than A, slower, or is no difference shown? Pure.

The arms were measured interleaved, A B B A, a number of times fixed beforehand, and every record
gives one value of a figure. B is called faster or slower where two things hold together: the
exact permutation test (``permutation``) says so after Holm's correction over all shapes and
figures of the entry, and the medians differ by more than max(2 %, the A/A noise).

Labels are permuted freely and not within the blocks: A B B A lets a drift fall on both arms
alike, so that the two differ less than a random order would make them (Student 1938), and the
free test errs towards no difference. Within pairs, six repeats could never reach p < 0.03, which
no correction over a few shapes survives.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median
from typing import Any, Literal

from tokrig.compare import COMPARED, Cell, Subject, comparison, subject
from tokrig.compare.statistics import (
    LEVEL,
    SMALLEST_EFFECT,
    STARTS_NEEDED,
    aa_noise,
    holm,
    judged,
    more,
    of_values,
    permutation_p,
    ratio_interval,
    repeats_needed,
    smallest_p,
    too_few,
)
from tokrig.compare.variables import Entry, differences
from tokrig.record.model import Record
from tokrig.spec.campaign import Axis
from tokrig.spec.settings import askable

FIGURES = ("output_tok_per_s", "prefill_tok_per_s", "ttft_s")
# What a record may show as changed when an axis of the campaign was.
VARIABLES_OF: dict[Axis, tuple[str, ...]] = {
    "rig": ("machine",),
    "model": ("model", "model file"),
    "quant": ("quant", "model file"),
    "creator": ("quant creator", "model file"),
    "backend": ("engine", "build", "wrapper", "backend"),
    "build": ("build", "compiled CPU features"),
    "driver": ("driver",),
    **{setting.axis: setting.may_change for setting in askable() if setting.axis},
}

Verdict = Literal["faster", "slower", "not_distinguishable", "inconclusive", "not_comparable"]


@dataclass(frozen=True)
class Arms:
    """What is compared: the records of A and of B in their order, one for each planned run, so
    that failed and invalid ones are among them. ``name`` tells it from the entry's others."""

    name: str
    a: Sequence[Record]
    b: Sequence[Record]


@dataclass(frozen=True)
class LeftOut:
    """What does not count, and why. ``where`` is ``shape × concurrency``, empty for a record."""

    arm: str
    record: str
    where: str
    why: str


@dataclass(frozen=True)
class Effect:
    """One figure of one shape: a value of every record, and what they say of B against A.

    ``ratio`` is B's median / A's with its interval ``low`` to ``high``, ``noise`` the A/A noise as
    a share. ``p`` comes from the test, ``adjusted_p`` is after Holm's correction; all but ratio
    and noise are None until the arms are complete. ``starts`` are those of the engine in A and
    B; ``settle`` says what would settle what is inconclusive. ``unverified`` are the codes of
    the results that are.
    """

    shape: str
    concurrency: int
    metric: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    starts: tuple[int, int] = (0, 0)
    ratio: Fraction | None = None
    low: float | None = None
    high: float | None = None
    noise: Fraction | None = None
    p: Fraction | None = None
    adjusted_p: Fraction | None = None
    verdict: Verdict = "inconclusive"
    settle: str = ""
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of ``name``. ``reason`` says why the arms are not comparable, ``differing`` the
    keys at fault; then there are no effects. ``order`` is the sequence that was measured, "" where
    it is not known, and ``measured`` the number of records of A and of B."""

    name: str
    axis: Axis
    repeats: int
    measured: tuple[int, int]
    order: str
    reason: str = ""
    differing: tuple[Entry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    effects: tuple[Effect, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every repeat has its record. Until then nothing is tested: who looks after each
        repeat finds a difference sooner or later."""
        return min(self.measured) >= self.repeats

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "complete": self.complete} | {
            "effects": [
                {key: float(v) if isinstance(v, Fraction) else v for key, v in effect.items()}
                for effect in map(dataclasses.asdict, self.effects)
            ]
        }


def compare(axis: Axis, repeats: int, entry: Iterable[Arms]) -> tuple[Outcome, ...]:
    """What came of all ``Arms`` of an entry that compares two values of ``axis``, ``repeats``
    times each. They are one family: every figure tested makes it harder for the others, and none
    is tested before all are measured."""
    outcomes = [_outcome(axis, repeats, arms) for arms in entry]
    if not all(outcome.complete for outcome in outcomes):
        return tuple(outcomes)
    tested = _tested([effect for outcome in outcomes for effect in outcome.effects])
    return tuple(
        replace(outcome, effects=tuple(itertools.islice(tested, len(outcome.effects))))
        for outcome in outcomes
    )


# Which records count, and whether they differ in nothing else


def _outcome(axis: Axis, repeats: int, arms: Arms) -> Outcome:
    left_out: list[LeftOut] = []
    sides = {"A": arms.a, "B": arms.b}
    a, b = (_usable(arm, side, repeats, left_out) for arm, side in sides.items())
    began = [(one.provenance.started_at or "", arm) for arm, side in sides.items() for one in side]
    reason, differing = _not_comparable(axis, a, b) if a and b else ("", ())
    effects: tuple[Effect, ...] = ()
    if not reason:
        texts: dict[str, str | None] = {}
        cells = _cells("A", a, texts, left_out), _cells("B", b, texts, left_out)
        effects = tuple(_effects(*cells))
    return Outcome(
        name=arms.name,
        axis=axis,
        repeats=repeats,
        measured=(len(arms.a), len(arms.b)),
        order="".join(arm for _, arm in sorted(began)) if all(time for time, _ in began) else "",
        reason=reason,
        differing=differing,
        left_out=tuple(left_out),
        effects=effects,
    )


def _usable(
    arm: str, records: Sequence[Record], repeats: int, left_out: list[LeftOut]
) -> list[Subject]:
    found = []
    for place, record in enumerate(records):
        if place >= repeats:
            why = f"more than the {repeats} repeats that were fixed beforehand"
        elif record.status != "complete":
            why = record.failure.message if record.failure else record.status
        elif not record.results:
            why = "no result"
        else:
            found.append(subject(record))
            continue
        left_out.append(LeftOut(arm, record.id, "", why))
    return found


def _not_comparable(
    axis: Axis, a: Sequence[Subject], b: Sequence[Subject]
) -> tuple[str, tuple[Entry, ...]]:
    """Why the arms differ in something else than ``axis``, or not in it, and the keys at fault."""
    for arm, (first, *others) in (("A", a), ("B", b)):
        for other in others:
            found = differences(first.keys, other.keys)
            if found.changed:
                changed = ", ".join(found.changed)
                reason = f"arm {arm} is not one configuration: {changed} changed from"
                return f"{reason} {first.id} to {other.id}", _of(found.changed, found.differing)
    against = comparison(_configuration(a[0]), _configuration(b[0]))
    found = against.differences
    beside = tuple(name for name in found.changed if name not in VARIABLES_OF[axis])
    if beside:
        return f"the arms differ in more than {axis}: {', '.join(beside)}", _of(
            beside, found.differing
        )
    if not found.changed:
        return f"the records show no difference in {axis}", ()
    if against.grade == "D":
        return against.reason, _of(found.changed, found.differing)
    return "", ()


def _of(variables: Sequence[str], entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.variable in variables)


def _configuration(one: Subject) -> Subject:
    """Whether one result is valid does not tell which configuration it is of."""
    return replace(one, cells=tuple(replace(cell, verdict="valid") for cell in one.cells))


# Values

Cells = dict[tuple[str, int], list[Cell]]


def _cells(
    arm: str, subjects: Iterable[Subject], texts: dict[str, str | None], left_out: list[LeftOut]
) -> Cells:
    """The cells that count, by shape and concurrency. ``texts`` holds each shape's text. All
    records of an attached server are of its one start, which counts with the first of them."""
    found: Cells = {}
    for one in subjects:
        for cell in one.cells:
            kept = found.setdefault((cell.shape, cell.concurrency), [])
            if cell.verdict == "invalid":
                why = f"INVALID: {', '.join(cell.codes)}"
            elif cell.hash != texts.setdefault(cell.shape, cell.hash):
                why = "another text under the same shape name"
            else:
                shared = kept and one.keys.get("backend.managed") == "no"
                kept.append(replace(cell, starts=0) if shared else cell)
                continue
            left_out.append(LeftOut(arm, one.id, f"{cell.shape} × {cell.concurrency}", why))
    return found


def _effects(a: Cells, b: Cells) -> Iterator[Effect]:
    for (shape, concurrency), metric in itertools.product(dict.fromkeys([*a, *b]), FIGURES):
        cells = [side.get((shape, concurrency), []) for side in (a, b)]
        told = [
            [(cell, found) for cell in side if (found := cell.figures[metric])] for side in cells
        ]
        values = [tuple(figure.median for _, figure in side) for side in told]
        starts = [sum(cell.starts or 0 for cell, _ in side) for side in told]
        every = [*cells[0], *cells[1]]
        codes = (code for cell in every if cell.verdict == "unverified" for code in cell.codes)
        effect = Effect(
            *(shape, concurrency, metric),
            a=values[0],
            b=values[1],
            starts=(starts[0], starts[1]),
            unverified=tuple(dict.fromkeys(codes)),
        )
        if metric == "prefill_tok_per_s" and len({cell.prefill_source for cell in every}) > 1:
            # By the server's clock and derived from TTFT: two metrics under one name.
            yield replace(effect, verdict="not_comparable")
        elif all(values):
            of_a, of_b = (median(map(Fraction, side)) for side in values)
            yield replace(effect, ratio=of_b / of_a, noise=aa_noise(*values))
        elif any(values):
            yield effect


def _tested(effects: Sequence[Effect]) -> Iterator[Effect]:
    """The same effects, those with a ratio tested and called by their verdict."""
    found = [permutation_p(one.a, one.b) for one in effects if one.ratio is not None]
    adjusted = iter(zip(found, holm(found), strict=True))
    for effect in effects:
        if effect.ratio is None:
            yield effect
        else:
            p, adjusted_p = next(adjusted)
            yield _called(replace(effect, p=p, adjusted_p=adjusted_p), effect.ratio, len(found))


def _called(effect: Effect, ratio: Fraction, tests: int) -> Effect:
    if min(effect.starts) < STARTS_NEEDED:
        return replace(effect, settle=too_few(*effect.starts))
    mine, other = of_values(effect.b), of_values(effect.a)
    value, least = float(ratio), max(SMALLEST_EFFECT, float(effect.noise or 0))
    better, interval = COMPARED[effect.metric], ratio_interval(mine, other, tests)
    found = judged(value, interval, mine, other, tests, least, higher_is_better=better)
    verdict: Verdict = "inconclusive" if found.verdict == "none" else found.verdict
    settle = found.settle
    if verdict in ("faster", "slower") and (effect.adjusted_p is None or effect.adjusted_p > LEVEL):
        verdict, settle = "inconclusive", more(mine, other, value, least, tests)
    if verdict == "inconclusive" and tests * smallest_p(len(effect.a), len(effect.b)) > LEVEL:
        settle = f"so many figures need {repeats_needed(tests)} repeats"
    return replace(effect, low=found.low, high=found.high, verdict=verdict, settle=settle)
