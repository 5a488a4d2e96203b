"""Can these two runs be compared, and how much faster is the one than the other?

Pure. ``subject`` reduces a record to what a comparison needs; ``comparison`` answers for two of
them. The compare page does the same from ``Subject.as_dict`` in the browser, by the rules that
``rules`` hands it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Any, Literal

from pydantic import TypeAdapter

from tokrig import naming
from tokrig.compare import statistics, variables
from tokrig.compare.statistics import (
    SMALLEST_EFFECT,
    Ratio,
    Side,
    decided,
    ratio,
    starts_of,
    usable,
)
from tokrig.compare.variables import (
    GRAVEST,
    Differences,
    State,
    differences,
    known_keys,
    value_text,
)
from tokrig.record.block import Summary
from tokrig.record.metrics import shown_in
from tokrig.record.model import Record, Result, Verdict

# The figures that are compared, in the order of a table, and whether more is faster.
COMPARED = {
    metric.name: bool(metric.higher_is_better)
    for metric in shown_in("compare")
    if metric.kind == "summary" and "." not in metric.name
}

# (t) Prompts may be off their shape's length by so much; two of one length, by twice that.
LENGTH_SHARE = 0.02
LENGTH_TOKENS = 4

CLASSES = {
    "A": "same machine, at most one changed variable",
    "B": "same GPU model, build, model hash and shape",
    "C": "same model and quant, other hardware or not all known",
    "D": "not comparable",
}
# What has to be known and equal before anything else may be called the one changed variable.
ESSENTIAL = ("model", "quant", "engine", "build", "API", "mode")
# What makes it another measurement, whatever the hardware.
OTHER_WORK = ("mode", "concurrency")
# What of a machine may differ in class B; anything else is a setting.
OF_THE_MACHINE = (
    *("machine", "driver", "power limit", "GPU details", "CPU governor", "CPU details", "limits"),
    *("memory", "os", "kernel", "virtualization"),
)
WHERE = {"differs": "other hardware", "unknown": "hardware not known for both"}
HASH = "model.sha256"
# Why a shape of both sides is not compared.
LEFT_OUT = {
    "invalid": "invalid results are not compared",
    "other_shape": "other workload texts under the same name are not compared",
    "other_length": "prompts of another length are not compared",
}

Grade = Literal["A", "B", "C", "D"]
Comparable = Literal["yes", "invalid", "other_shape", "other_length"]


@dataclass(frozen=True)
class Cell:
    """One result: a shape at a concurrency. ``shape`` names its depth and load too, so that only
    like meets like. ``hash`` is the version of the shape's texts,
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
        return Side(found, self.starts) if found else None


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
        return _plain(self)


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
        return _plain(
            {
                "a": self.a.id,
                "b": self.b.id,
                "class": self.grade,
                "reason": self.reason,
                "notes": self.notes,
                "changed": self.differences.changed,
                "differing": self.differences.differing,
                "unknown": self.differences.unknown,
                "pairs": self.pairs,
                "means": self.means,
            }
        )


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = TypeAdapter(Any).dump_python(value, mode="json")
    return plain


def label(shape: str, concurrency: tuple[int, int]) -> str:
    """``agent × 4``, ``agent × 1 / 4``."""
    return f"{shape} × {' / '.join(dict.fromkeys(map(str, concurrency)))}"


def rules() -> dict[str, Any]:
    """What the compare page needs to know to do the same in the browser."""
    return _plain(
        {
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
            "metrics": [{"name": name, "higher_is_better": up} for name, up in COMPARED.items()],
            "classes": CLASSES,
            "essential": ESSENTIAL,
            "other_work": OTHER_WORK,
            "of_the_machine": OF_THE_MACHINE,
            "left_out": list(LEFT_OUT.items()),
            "where": WHERE,
            "of_the_file": variables.OF_THE_FILE,
            "started_by": variables.STARTED_BY,
            "variables": variables.VARIABLES,
        }
    )


def subject(
    record: Record,
    *,
    concurrency: int | None = None,
    noise: Mapping[str, float] | None = None,
) -> Subject:
    """What a comparison needs of a record; only of one ``concurrency`` if given."""
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
            if concurrency in (None, result.concurrency)
        ),
        noise=noise or {},
    )


def _cell(record: Record, result: Result) -> Cell:
    verdict, length = result.validity.word, result.prompt_tokens
    codes = result.validity.reasons if verdict == "invalid" else result.validity.unverified
    return Cell(
        shape=value_text(result.cell.shape),
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
    bounds = [bound for bound in (metric.min, metric.max) if bound is not None]
    unusable: dict[str, Any] = {} if usable(*bounds) else {"min": None, "max": None}
    if not usable(*metric.ci95 or ()):
        unusable["ci95"] = None
    if not usable(*metric.starts):
        unusable["starts"] = []
    return metric.model_copy(update=unusable) if unusable else metric


def comparison(a: Subject, b: Subject) -> Comparison:
    """``b`` compared with the reference ``a``. Class D has no ratios."""
    found = differences(a.keys, b.keys)
    cells = _of_one_shape(a, b, found)
    together = [_pair(*both, found) for both in cells]
    grade, reason = _classify(found, together)
    said = tuple(_notes(a, b, grade, reason, found, together))
    least = _least_effects(a, b, alike=grade == "A" and not found.changed)
    pairs = _with_figures(together, cells, least, rated=grade != "D")
    return Comparison(a, b, grade, reason, said, found, pairs, tuple(_means(a, b, pairs)))


def _of_one_shape(a: Subject, b: Subject, found: Differences) -> list[tuple[Cell, Cell]]:
    """Cells of the same shape: at the same concurrency, or at the one that each side chose."""
    chosen = found.state("concurrency") == "differs"

    def place(cell: Cell) -> tuple[str, int | None]:
        return cell.shape, None if chosen else cell.concurrency

    others = {place(cell): cell for cell in b.cells}
    return [(cell, others[place(cell)]) for cell in a.cells if place(cell) in others]


def _pair(a: Cell, b: Cell, found: Differences) -> Pair:
    # Unknown texts are the same only where both figures come from one and the same source.
    texts: State = "same" if a.hash == b.hash else "differs"
    if a.hash is None or b.hash is None:
        one_source = a.hash == b.hash and found.state("provenance.source") == "same"
        texts = "same" if one_source else "unknown"
    # A long chat template makes some prompts longer. Where a side does not tell their length, the
    # texts' version decides alone.
    alike = of_one_length(a.prompt_tokens, b.prompt_tokens)
    comparable: Comparable = "yes"
    if "invalid" in (a.verdict, b.verdict):
        comparable = "invalid"
    elif texts == "differs":
        comparable = "other_shape"
    elif not alike:
        comparable = "other_length"
    return Pair(
        shape=a.shape,
        concurrency=(a.concurrency, b.concurrency),
        verdicts=(a.verdict, b.verdict),
        codes=(a.codes, b.codes),
        comparable=comparable,
        same_shape=texts if alike else "differs",
    )


def of_one_length(*lengths: float | None) -> bool:
    """Whether two prompts are of one length, in tokens, as far as both are known."""
    known = [length for length in lengths if length is not None]
    may_differ = max(LENGTH_TOKENS, LENGTH_SHARE * min(known, default=0))
    return len(known) < 2 or abs(known[0] - known[1]) <= may_differ


# The class: the rules are the methodology's; docs/decisions/0007 says where they are read more
# strictly


def _classify(found: Differences, together: Sequence[Pair]) -> tuple[Grade, str]:
    """The comparability class and its reason in words. It rests on what is known for both."""
    compared = [pair for pair in together if pair.comparable == "yes"]
    if not compared:
        return "D", _nothing(together)
    # Figures of two methodologies are never equals. What others published has none: it is compared
    # only with what the same source published.
    state = found.state("methodology")
    if state != "same" and (state, found.state("provenance.source")) != ("unknown", "same"):
        return "D", _lacks(state, "methodology")
    hardware = _hardware(found)
    not_a = next(_against_a(found, compared, hardware), None)
    if not_a is None:
        what = f"one changed variable: {found.changed[0]}" if found.changed else "nothing changed"
        return "A", f"same machine, {what}"
    not_b = next(_against_b(found, compared), None)
    if not_b is None:
        return "B", "same machine, build, model hash and shape" if found.on_cpu else CLASSES["B"]
    not_c = next(_against_c(found), None)
    if hardware == "same":
        if not_c or len(found.changed) > 1 or any(_unknown_essential(found)):
            return "D", f"same machine, but {not_a}"
        return "C", f"same model and quant; no A: {not_a}"
    if not_c is not None:
        return "D", f"{WHERE[hardware]}, and {not_c}"
    return "C", f"same model and quant, {WHERE[hardware]}; no B: {not_b}"


def _hardware(found: Differences) -> State:
    """Whether it is one machine. Where both ran on the processor, idle cards say nothing."""
    states = {found.state("machine")} | (set() if found.on_cpu else {found.state("GPU")})
    return next(state for state in GRAVEST if state in states)


def _nothing(together: Sequence[Pair]) -> str:
    if not together:
        return "no shape in common"
    reasons = {pair.comparable for pair in together}
    if "other_shape" in reasons:
        return "other workload texts under the same shape name"
    if "other_length" in reasons:
        return "prompts of another length under the same shape name"
    return "no shape with a valid result on both sides"


def _against_a(found: Differences, compared: Sequence[Pair], hardware: State) -> Iterator[str]:
    """Why there may be more than one changed variable."""
    if hardware != "same":
        yield _lacks(hardware, "machine")
    if len(found.changed) > 1:
        yield f"{len(found.changed)} changed variables: {', '.join(found.changed)}"
    yield from _unknown_essential(found)
    if found.assumed:
        yield f"not known for both: {', '.join(found.assumed)}"
    yield from _unsure_shape(compared)


def _against_b(found: Differences, compared: Sequence[Pair]) -> Iterator[str]:
    """Two graphics cards of one model are alike; two machines of one processor are not."""
    if found.on_cpu and found.state("machine") != "same":
        yield "no GPU did the work"
    for name in (*(() if found.on_cpu else ("GPU",)), "engine", "build", "API", HASH):
        if found.state(name) != "same":
            yield _lacks(found.state(name), "model hash" if name == HASH else name)
    if not found.on_cpu and found.no_gpu:
        yield "no GPU did the work"
    if settings := [name for name in found.changed if name not in OF_THE_MACHINE]:
        yield from _other_work(found)
        yield f"other settings: {', '.join(settings)}"
    if unknown := [name for name in found.assumed if name not in OF_THE_MACHINE]:
        yield f"not known for both: {', '.join(unknown)}"
    yield from _unsure_shape(compared)


def _against_c(found: Differences) -> Iterator[str]:
    for name in ("model", "quant"):
        if (state := _known(found, name)) != "same":
            yield _lacks(state, name)
    yield from _other_work(found)


def _known(found: Differences, name: str) -> State:
    """A variable's state; the same file is the same model and quant whatever they are called."""
    if name in ("model", "quant") and found.state(HASH) == "same":
        return "same"
    return found.state(name)


def _unknown_essential(found: Differences) -> Iterator[str]:
    return (_lacks("unknown", name) for name in ESSENTIAL if _known(found, name) == "unknown")


def _other_work(found: Differences) -> Iterator[str]:
    return (_lacks("differs", name) for name in OTHER_WORK if found.state(name) == "differs")


def _lacks(state: State, what: str) -> str:
    return f"the {what} {'differs' if state == 'differs' else 'is not known for both'}"


def _unsure_shape(pairs: Sequence[Pair]) -> Iterator[str]:
    if any(pair.same_shape == "unknown" for pair in pairs if pair.comparable == "yes"):
        yield "the prompts are not known to be the same"


def _notes(
    a: Subject, b: Subject, grade: Grade, reason: str, found: Differences, together: Sequence[Pair]
) -> Iterator[str]:
    """What a reader of the class has to know, too."""
    if grade in ("B", "C") and found.changed:
        yield f"changed: {', '.join(found.changed)}"
    yield from (unsure for unsure in _unsure_shape(together) if unsure not in reason)
    if grade in ("A", "B") and found.unread:
        yield f"read on neither side, decided by what is the same: {', '.join(found.unread)}"
    if "no" in (side.keys.get("backend.api_confirmed") for side in (a, b)):
        yield "an API label is not confirmed by its engine"
    for comparable, words in LEFT_OUT.items():
        if left_out := [one for one in together if one.comparable == comparable]:
            yield f"{words}: {', '.join(label(one.shape, one.concurrency) for one in left_out)}"


# The figures


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
    sides = [
        {
            name: (b.side(name), a.side(name))
            for name in COMPARED
            if rated and pair.comparable == "yes" and is_one_metric(name, a, b)
        }
        for pair, (a, b) in zip(pairs, cells, strict=True)
    ]
    tests = sum(decided(*both) for of_pair in sides for both in of_pair.values())

    def figure(name: str, a: Cell, b: Cell, of: Mapping[str, tuple[Side | None, ...]]) -> Figure:
        found = ratio(
            *of.get(name, (None, None)),
            higher_is_better=COMPARED[name],
            tests=max(tests, 1),
            least=least[name],
        )
        return Figure(name, a.figures[name], b.figures[name], found)

    return tuple(
        dataclasses.replace(pair, figures=tuple(figure(name, *both, of) for name in COMPARED))
        for pair, both, of in zip(pairs, cells, sides, strict=True)
    )


def is_one_metric(name: str, a: Cell, b: Cell) -> bool:
    """A rate by the server's clock and one derived from TTFT are two metrics under one name."""
    return name != "prefill_tok_per_s" or a.prefill_source == b.prefill_source


def _means(a: Subject, b: Subject, pairs: Sequence[Pair]) -> Iterator[Mean]:
    """One per metric and concurrency where both sides have the same shapes, all comparable."""
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
                yield Mean(levels, name, geometric_mean(known), len(group), verdict)
