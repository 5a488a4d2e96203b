"""Can these two runs be compared, and how much faster is the one than the other?

Pure. ``subject`` reduces a record to what a comparison needs; ``comparison`` answers for two of
them. The compare page does the same from ``Subject.as_dict`` in the browser, by the rules that
``rules`` hands it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tokrig import naming
from tokrig.compare import classes, statistics, variables
from tokrig.compare.classes import Grade, classify, notes
from tokrig.compare.statistics import (
    NO_RATIO,
    SMALLEST_EFFECT,
    Ratio,
    Side,
    decided,
    geometric_mean,
    ratio,
    starts_of,
    usable,
)
from tokrig.compare.variables import Differences, State, differences, known_keys, value_text
from tokrig.record.metrics import shown_in
from tokrig.record.model import Record, Result, Summary, Verdict

# The figures that are compared, in the order of a table, and whether more is faster.
COMPARED = {
    metric.name: bool(metric.higher_is_better)
    for metric in shown_in("compare")
    if metric.kind == "summary" and "." not in metric.name
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
    figures: dict[str, Summary | None]

    def side(self, metric: str) -> Side | None:
        """A figure, with the starts behind it."""
        found = self.figures[metric]
        return None if found is None else Side(found, self.starts)


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
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True)
class Figure:
    """One metric of a pair: the reference's, the other's, other / reference."""

    metric: str
    a: Summary | None
    b: Summary | None
    ratio: Ratio


@dataclass(frozen=True)
class Pair:
    """The same shape on both sides, with both sides' marks. ``same_shape`` tells whether texts and
    lengths are the same: "unknown" where a side does not say. Ratios exist only where
    ``comparable`` is "yes" and the class is not D."""

    shape: str
    concurrency: tuple[int, int]
    verdicts: tuple[Verdict, Verdict]
    codes: tuple[tuple[str, ...], tuple[str, ...]]
    comparable: Comparable
    same_shape: State
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Mean:
    """Geometric mean of the ratios over all shapes, both sides having the same ones; unverified
    where one of the figures is."""

    concurrency: tuple[int, int]
    metric: str
    value: float
    shapes: int
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """``b`` against the reference ``a``: the class, why, what differs, the figures."""

    a: Subject
    b: Subject
    grade: Grade
    reason: str
    notes: tuple[str, ...]
    differences: Differences
    pairs: tuple[Pair, ...]
    means: tuple[Mean, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as the browser's ``tokrig.compare`` makes it, too."""
        return {
            "a": self.a.id,
            "b": self.b.id,
            "class": self.grade,
            "reason": self.reason,
            "notes": list(self.notes),
            "changed": list(self.differences.changed),
            "differing": _plain(self.differences.differing),
            "unknown": _plain(self.differences.unknown),
            "pairs": _plain(self.pairs),
            "means": _plain(self.means),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Summary):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def rules() -> dict[str, Any]:
    """What the compare page needs to know to do the same in the browser."""
    return {
        "smallest_effect": SMALLEST_EFFECT,
        "widest": statistics.WIDEST,
        "starts_needed": statistics.STARTS_NEEDED,
        "most_starts": statistics.MOST_STARTS,
        "level": float(statistics.LEVEL),
        "normal_95": statistics.NORMAL_95,
        "power_80": statistics.POWER_80,
        "length_share": LENGTH_SHARE,
        "length_tokens": LENGTH_TOKENS,
        # A list: JSON objects keep no order.
        "metrics": [
            {"name": name, "higher_is_better": higher} for name, higher in COMPARED.items()
        ],
        "classes": classes.CLASSES,
        "essential": list(classes.ESSENTIAL),
        "other_work": list(classes.OTHER_WORK),
        "of_the_machine": list(classes.OF_THE_MACHINE),
        "left_out": [list(one) for one in classes.LEFT_OUT.items()],
        "where": classes.WHERE,
        "of_the_file": list(variables.OF_THE_FILE),
        "started_by": list(variables.STARTED_BY),
        "variables": _plain(variables.VARIABLES),
    }


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
    mode = naming.mode_label(record.mode.name)
    place = (naming.backend_label(record.backend), naming.hardware_name(record.rig), mode)
    return Subject(
        id=record.id,
        name=value_text(naming.model_label(record.model)),
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
        figures={name: _figure(getattr(result, name)) for name in COMPARED},
    )


def _figure(metric: Summary | None) -> Summary | None:
    """A metric that can be divided and written as JSON; a record may hold any number."""
    if metric is None or not usable(metric.median):
        return None
    unusable: dict[str, Any] = {}
    if not usable(*(bound for bound in (metric.min, metric.max) if bound is not None)):
        unusable |= {"min": None, "max": None}
    if metric.ci95 and not usable(*metric.ci95):
        unusable |= {"ci95": None}
    if not usable(*metric.starts):
        unusable |= {"starts": []}
    return metric.model_copy(update=unusable) if unusable else metric


def comparison(a: Subject, b: Subject) -> Comparison:
    """``b`` compared with the reference ``a``. Class D has no ratios."""
    found = differences(a.keys, b.keys)
    cells = _of_one_shape(a, b, found)
    together = [_pair(*both, found) for both in cells]
    grade, reason = classify(found, together)
    said = notes(a, b, (grade, reason), found, together)
    least = _least_effects(a, b, alike=grade == "A" and not found.changed)
    pairs = _with_figures(together, cells, least, rated=grade != "D")
    return Comparison(a, b, grade, reason, said, found, pairs, _means(a, b, pairs))


def _of_one_shape(a: Subject, b: Subject, found: Differences) -> list[tuple[Cell, Cell]]:
    """Cells of the same shape: at the same concurrency, or at the one that each side chose."""
    chosen = found.state("concurrency") == "differs"

    def place(cell: Cell) -> tuple[str, int | None]:
        return cell.shape, None if chosen else cell.concurrency

    others = {place(cell): cell for cell in b.cells}
    return [(cell, others[place(cell)]) for cell in a.cells if place(cell) in others]


def _pair(a: Cell, b: Cell, found: Differences) -> Pair:
    texts = _same_texts(a, b, found)
    of_one_length = _of_one_length(a.prompt_tokens, b.prompt_tokens)
    comparable: Comparable = "yes"
    if "invalid" in (a.verdict, b.verdict):
        comparable = "invalid"
    elif texts == "differs":
        comparable = "other_shape"
    elif not of_one_length:
        comparable = "other_length"
    return Pair(
        shape=a.shape,
        concurrency=(a.concurrency, b.concurrency),
        verdicts=(a.verdict, b.verdict),
        codes=(a.codes, b.codes),
        comparable=comparable,
        same_shape=texts if of_one_length else "differs",
    )


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


def _least_effects(a: Subject, b: Subject, *, alike: bool) -> dict[str, float]:
    """The smallest effect that counts, by figure. Two records that are ``alike`` are what noise
    is known from, and not held against it."""
    known = () if alike else (a.noise, b.noise)
    return {
        name: max(SMALLEST_EFFECT, *(noise.get(name, 0.0) for noise in known), 0.0)
        for name in COMPARED
    }


def _with_figures(
    pairs: Sequence[Pair],
    cells: Sequence[tuple[Cell, Cell]],
    least: Mapping[str, float],
    *,
    rated: bool,
) -> tuple[Pair, ...]:
    """The pairs with their figures, and with ratios where they are ``rated``. All ratios with an
    interval of their own are read together, so each is tested as one of so many."""
    together = list(zip(pairs, cells, strict=True))
    tests = sum(
        decided(b.side(name), a.side(name))
        for pair, (a, b) in together
        for name in COMPARED
        if _is_rated(pair, a, b, name)
    )

    def figure(pair: Pair, a: Cell, b: Cell, name: str) -> Figure:
        found = NO_RATIO
        if rated and _is_rated(pair, a, b, name):
            found = ratio(
                *(b.side(name), a.side(name)),
                higher_is_better=COMPARED[name],
                tests=max(tests, 1),
                least=least[name],
            )
        return Figure(name, a.figures[name], b.figures[name], found)

    return tuple(
        dataclasses.replace(pair, figures=tuple(figure(pair, *both, name) for name in COMPARED))
        for pair, both in together
    )


def _is_rated(pair: Pair, a: Cell, b: Cell, name: str) -> bool:
    # A rate by the server's clock and one derived from TTFT are two metrics under one name.
    one_metric = name != "prefill_tok_per_s" or a.prefill_source == b.prefill_source
    return pair.comparable == "yes" and one_metric


def _means(a: Subject, b: Subject, pairs: Sequence[Pair]) -> tuple[Mean, ...]:
    """One per metric and concurrency where both sides have the same shapes, all comparable."""
    found = []
    for levels in dict.fromkeys(pair.concurrency for pair in pairs):
        group = [pair for pair in pairs if pair.concurrency == levels]
        whole = all(
            len(group) == sum(cell.concurrency == level for cell in side.cells)
            for side, level in zip((a, b), levels, strict=True)
        )
        sure = all(pair.comparable == "yes" and pair.same_shape == "same" for pair in group)
        if len(group) < 2 or not whole or not sure:
            continue
        doubtful = any("unverified" in pair.verdicts for pair in group)
        for place, name in enumerate(COMPARED):
            values = [pair.figures[place].ratio.value for pair in group]
            known = [value for value in values if value is not None]
            if len(known) == len(group):
                verdict: Verdict = "unverified" if doubtful else "valid"
                found.append(Mean(levels, name, geometric_mean(known), len(group), verdict))
    return tuple(found)
