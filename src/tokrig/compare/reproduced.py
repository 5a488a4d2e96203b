"""Has another machine measured the same, and do both agree?

Pure, and from records alone. Two runs are of one class where methodology, model, quant, mode,
engine, API and what computed are the same: cards by name and memory, a processor by its name. What
they share are cells of the same texts, depth and load. Machines are two where their ids differ, or
what is known of their processors: machines of one make have one id by default.

Each shared gen tok/s is judged as ``compare`` judges it. Two machines agree where no difference is
shown, or one of no more than ``WIDEST``: cards of one make differ by that much. A greater one
contradicts, unless the records tell what else differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokrig import naming
from tokrig.compare import of_one_length
from tokrig.compare.statistics import WIDEST, Ratio, Side, decided, ratio, starts_of
from tokrig.compare.variables import VARIABLES, differences, known_keys
from tokrig.record.model import Record, Result, Rig

Word = Literal["reproduced", "contradicted", "differs", "open", "alone"]
GRAVEST: tuple[Word, ...] = ("contradicted", "reproduced", "differs", "open", "alone")
# What differs between machines anyway, and explains no other speed.
NO_REASON = {
    *("machine", "board", "GPU details", "CPU details", "os", "kernel", "virtualization"),
    *("command line", "environment"),
}
# What explains one only where the processor computes.
OF_A_PROCESSOR = {"memory", "CPU governor", "threads", "batch threads"}


@dataclass(frozen=True)
class Other:
    """A run of another machine: the farthest ratio, other / this one, of the shared cells that
    decide; ``cell`` is its label, ``reasons`` what else differs."""

    run_id: str
    word: Word
    ratio: float
    cell: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduced:
    """What other machines say of a run: the gravest word of theirs, and each one's."""

    others: tuple[Other, ...] = ()

    @property
    def word(self) -> Word:
        """``alone`` without others."""
        there = {other.word for other in self.others}
        return next((word for word in GRAVEST if word in there), "alone")

    def __str__(self) -> str:
        """``reproduced on 2 other machines, within 3 %``."""
        return "; ".join(self._parts()) or "nobody else yet"

    def _parts(self) -> Iterator[str]:
        if agree := self._of("reproduced"):
            most = max(abs(math.log(other.ratio)) for other in agree)
            percent = max(1, math.ceil(100 * math.expm1(most) - 1e-9))
            yield f"reproduced on {_machines(agree)}, within {percent} %"
        for other in self._of("contradicted"):
            yield f"contradicted by another machine: ×{other.ratio:.2f} in {other.cell}"
        for other in self._of("differs"):
            reasons = ", ".join(other.reasons)
            yield f"another machine measured ×{other.ratio:.2f} in {other.cell}; other {reasons}"
        if open_ones := self._of("open"):
            ratios = [f"×{other.ratio:.2f}" for other in open_ones]
            span = "–".join(dict.fromkeys((min(ratios), max(ratios))))
            yield f"measured on {_machines(open_ones)}, {span}: too little to tell"

    def _of(self, word: Word) -> list[Other]:
        return [other for other in self.others if other.word == word]


def _machines(others: Sequence[Other]) -> str:
    return f"{len(others)} other machine{'' if len(others) == 1 else 's'}"


class Beside:
    """Records by their class."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by: dict[tuple[object, ...], list[Record]] = {}
        for record in records:
            if (of := _class(record)) is not None:
                self._by.setdefault(of, []).append(record)

    def of(self, record: Record) -> Reproduced:
        """What other machines say of a record: of each the run of the same build, else the
        newest, that shares a cell."""
        of = _class(record)
        of_class = self._by.get(of, []) if of is not None else []
        there = [one for one in of_class if _is_another(one.rig, record.rig)]
        build = record.backend.build
        there.sort(key=lambda one: (one.provenance.started_at or "", one.id), reverse=True)
        there.sort(key=lambda one: one.backend.build != build)
        found: dict[str, tuple[Rig, Other]] = {}
        for one in there:
            if all(_is_another(one.rig, rig) for rig, _ in found.values()) and (
                other := _judged(record, one)
            ):
                found[one.id] = (one.rig, other)
        return Reproduced(tuple(other for _, other in found.values()))


def _class(record: Record) -> tuple[object, ...] | None:
    """What makes two runs of one class; None for those that nobody could repeat."""
    rig, backend, method = record.rig, record.backend, record.provenance.methodology
    computed: object = rig.cpu.model
    if backend.api != "cpu":
        computed = tuple(
            sorted((gpu.name, gpu.vram_bytes or 0, gpu.mig_profile or "") for gpu in rig.gpus)
        )
    if not computed or not record.results or method is None or rig.id == naming.UNKNOWN_RIG:
        return None
    model = (naming.model_name(record.model).casefold(), record.model.quant)
    return (method, *model, record.mode.name, backend.engine, backend.api, computed)


def _is_another(a: Rig, b: Rig) -> bool:
    """Whether two machines are known to be two."""
    pairs = ((a.id, b.id), (a.cpu.model, b.cpu.model), (a.cpu.cores, b.cpu.cores))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _judged(record: Record, other: Record) -> Other | None:
    """One run beside another; None where they share no cell."""
    ratios = _ratios(record, other)
    if not ratios:
        return None
    far = [one for one in ratios if one[0].verdict in ("faster", "slower") and _off(one) > WIDEST]
    near = [one for one in ratios if one[0].verdict != "inconclusive"]
    value, label = max(far or near or ratios, key=_off)
    assert value.value is not None
    reasons = tuple(_reasons(record, other)) if far else ()
    word: Word = "reproduced" if near else "open"
    if far:
        word = "differs" if reasons else "contradicted"
    return Other(other.id, word, value.value, label, reasons)


def _off(one: tuple[Ratio, str]) -> float:
    value = one[0].value or 1.0
    return max(value, 1 / value) - 1


def _ratios(record: Record, other: Record) -> list[tuple[Ratio, str]]:
    """Of each shared cell other / this one, and the cell's label."""
    mine = {result.cell: result for result in record.results if result.validity.stands}
    pairs = [
        (mine[result.cell], result)
        for result in other.results
        if result.validity.stands and result.cell in mine and _same_work(mine[result.cell], result)
    ]
    sides = [(_side(other, theirs), _side(record, ours), ours.cell.label) for ours, theirs in pairs]
    tests = max(1, sum(decided(of, reference) for of, reference, _ in sides))
    found = [
        (ratio(of, reference, higher_is_better=True, tests=tests), label)
        for of, reference, label in sides
    ]
    return [one for one in found if one[0].value is not None]


def _same_work(a: Result, b: Result) -> bool:
    lengths = (one.prompt_tokens.median if one.prompt_tokens else None for one in (a, b))
    hashes = {a.workload.content_hash, b.workload.content_hash}
    return len(hashes) == 1 and None not in hashes and of_one_length(*lengths)


def _side(record: Record, result: Result) -> Side | None:
    figure = result.output_tok_per_s
    return Side(figure, starts_of(record, result)) if figure else None


def _reasons(record: Record, other: Record) -> Iterator[str]:
    """What else differs between two records, as far as it could be why they do."""
    found = differences(known_keys(record), known_keys(other))
    ignored = NO_REASON if found.on_cpu else NO_REASON | OF_A_PROCESSOR
    told: set[str] = set()
    for one in VARIABLES:
        if one.counts and one.name not in ignored and found.state(one.name) == "differs":
            told.add(one.name)
            if not told & {*one.follows}:
                yield one.name
