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
from collections.abc import Iterable, Sequence
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
    judged = iter(_judged([effect for outcome in outcomes for effect in outcome.effects]))
    return tuple(
        replace(outcome, effects=tuple(itertools.islice(judged, len(outcome.effects))))
        for outcome in outcomes
    )


# Which records count, and whether they differ in nothing else


def _outcome(axis: Axis, repeats: int, arms: Arms) -> Outcome:
    left_out: list[LeftOut] = []
    a = _usable("A", arms.a, repeats, left_out)
    b = _usable("B", arms.b, repeats, left_out)
    reason, differing = _not_comparable(axis, a, b) if a and b else ("", ())
    found = Outcome(
        name=arms.name,
        axis=axis,
        repeats=repeats,
        measured=(len(arms.a), len(arms.b)),
        order=_order(arms),
        reason=reason,
        differing=differing,
    )
    if not reason:
        texts: dict[str, str | None] = {}
        cells = _cells("A", a, texts, left_out), _cells("B", b, texts, left_out)
        found = replace(found, effects=tuple(_effects(*cells)))
    return replace(found, left_out=tuple(left_out))


def _order(arms: Arms) -> str:
    sides = (("A", arms.a), ("B", arms.b))
    began = [(record.provenance.started_at, arm) for arm, side in sides for record in side]
    known = [(time, arm) for time, arm in began if time is not None]
    return "".join(arm for _, arm in sorted(known)) if len(known) == len(began) else ""


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
        return f"the arms differ beside {axis}: {', '.join(beside)}", _of(beside, found.differing)
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


def _cells(
    arm: str,
    subjects: Iterable[Subject],
    texts: dict[str, str | None],
    left_out: list[LeftOut],
) -> dict[tuple[str, int], list[Cell]]:
    """The cells that count, by shape and concurrency. ``texts`` holds each shape's text. All
    records of an attached server are of its one start, which counts with the first of them."""
    found: dict[tuple[str, int], list[Cell]] = {}
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


def _effects(
    a: dict[tuple[str, int], list[Cell]], b: dict[tuple[str, int], list[Cell]]
) -> Iterable[Effect]:
    for (shape, concurrency), metric in itertools.product(dict.fromkeys([*a, *b]), FIGURES):
        cells = [side.get((shape, concurrency), []) for side in (a, b)]
        values = [_values(side, metric) for side in cells]
        codes = (cell.codes for side in cells for cell in side if cell.verdict == "unverified")
        effect = Effect(
            *(shape, concurrency, metric),
            a=values[0],
            b=values[1],
            starts=(_starts(cells[0], metric), _starts(cells[1], metric)),
            unverified=tuple(dict.fromkeys(itertools.chain.from_iterable(codes))),
        )
        sources = {cell.prefill_source for side in cells for cell in side}
        if metric == "prefill_tok_per_s" and len(sources) > 1:
            # By the server's clock and derived from TTFT: two metrics under one name.
            yield replace(effect, verdict="not_comparable")
        elif all(values):
            of_a, of_b = (median(map(Fraction, side)) for side in values)
            yield replace(effect, ratio=of_b / of_a, noise=aa_noise(*values))
        elif any(values):
            yield effect


def _values(cells: Iterable[Cell], metric: str) -> tuple[float, ...]:
    return tuple(found.median for cell in cells if (found := cell.figures[metric]))


def _starts(cells: Iterable[Cell], metric: str) -> int:
    return sum(cell.starts or 0 for cell in cells if cell.figures[metric])


def _judged(effects: Sequence[Effect]) -> Iterable[Effect]:
    """The same effects, those with a ratio tested and called by their verdict."""
    found = {
        place: permutation_p(effect.a, effect.b)
        for place, effect in enumerate(effects)
        if effect.ratio is not None
    }
    adjusted = dict(zip(found, holm(list(found.values())), strict=True))
    for place, effect in enumerate(effects):
        if place in found:
            yield _called(replace(effect, p=found[place], adjusted_p=adjusted[place]), len(found))
        else:
            yield effect


def _called(effect: Effect, tests: int) -> Effect:
    ratio, p = effect.ratio, effect.adjusted_p
    assert ratio is not None  # else it would not have been tested
    if min(effect.starts) < STARTS_NEEDED:
        told = f"starts of the engine: A {effect.starts[0]}, B {effect.starts[1]}"
        return replace(effect, settle=f"{told}; it takes {STARTS_NEEDED} on each side")
    mine, other = of_values(effect.b), of_values(effect.a)
    value, least = float(ratio), max(SMALLEST_EFFECT, float(effect.noise or 0))
    low, high = ratio_interval(mine, other, tests)
    low, high = min(low, value), max(high, value)
    found = judged(value, low, high, least, higher_is_better=COMPARED[effect.metric])
    settle = ""
    if found in ("faster", "slower") and (p is None or p > LEVEL):
        found = "inconclusive"
    if found == "inconclusive":
        settle = more(mine, other, value, least, tests)
        if tests * smallest_p(len(effect.a), len(effect.b)) > LEVEL:
            settle = f"so many figures need {repeats_needed(tests)} repeats"
    return replace(effect, low=low, high=high, verdict=found, settle=settle)
