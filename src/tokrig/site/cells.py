"""What may be set beside each other: results of one cell on two cards, or with two builds. Pure.

A *cell* is a model in a quant and a mode, and a shape with its texts, depth and concurrency. Of
the results that a card has of one cell the first by ``preference`` stands for it: two settings or
two power limits are never averaged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tokrig import naming
from tokrig.compare import LENGTH_SHARE, LENGTH_TOKENS
from tokrig.compare.statistics import STARTS_NEEDED, starts_of, usable
from tokrig.fit import evidence, place
from tokrig.record.block import Summary
from tokrig.record.model import Record, Result
from tokrig.site import formats
from tokrig.site.versions import order
from tokrig.spec.settings import said_asked
from tokrig.store.load import Run
from tokrig.units import significant

if TYPE_CHECKING:
    from tokrig.site.cards import Card

Key = tuple[str, str, str | None, str, str, int, str | None]
"""Family, model, quant, mode, shape, concurrency, texts."""
CONTEXT = 4096
"""Tokens of context at which is reckoned what a model needs."""


class Relative(NamedTuple):
    """Geometric mean of a card's decode rates over another's, of ``cells`` that both have."""

    times: float
    cells: int


def cell_results(record: Record) -> Iterator[Result]:
    """The results that may be set beside another's: of shapes, at any depth, that stand."""
    for result in record.results:
        gen = result.output_tok_per_s
        if result.load == "closed" and result.validity.stands and gen and usable(gen.median):
            yield result


def cell_key(record: Record, result: Result) -> Key:
    """What makes two results ones of the same."""
    model = record.model
    return (
        model.family,
        naming.model_name(model),
        model.quant,
        record.mode.name,
        result.cell.shape,
        result.concurrency,
        texts(record, result),
    )


def texts(record: Record, result: Result) -> str | None:
    """The shape's texts under the rules they were measured by. Where a source does not tell its
    texts, they are the same within that source alone; None where nobody can tell."""
    told = record.provenance
    if result.workload.content_hash:
        return f"{told.methodology}:{result.workload.content_hash}"
    return f"from {told.source}" if told.source else None


def preference(record: Record, result: Result) -> tuple[bool, float, bool]:
    """What stands for a card goes first: the engine's own settings, then the highest power limit,
    then what is verified. The newest first among those that are equal in this."""
    limit = limit_w(record) or 0.0
    return bool(said_asked(record.backend.asked)), -limit, result.validity.word != "valid"


def limit_w(record: Record) -> float | None:
    """The power limit that the first card had, W."""
    return next((gpu.power_limit_w for gpu in record.rig.gpus), None)


def ranked_cells(runs: Iterable[Run]) -> dict[Key, list[tuple[Run, Result]]]:
    """The results of each cell in their order; ``runs`` are newest first."""
    found: dict[Key, list[tuple[Run, Result]]] = {}
    for run in runs:
        for result in cell_results(run.record):
            found.setdefault(cell_key(run.record, result), []).append((run, result))
    for ranked in found.values():
        ranked.sort(key=lambda one: preference(one[0].record, one[1]))
    return found


# One card beside another


def relative(card: Card, reference: Card) -> Relative | None:
    """How fast ``card`` decodes for one request alone beside ``reference``; None where no cell is
    on both."""
    logs = []
    for key, result in card.cells.items():
        other = reference.cells.get(key)
        if other is not None and result.concurrency == 1 and _of_one_length(result, other):
            logs.append(math.log(_rate(result) / _rate(other)))
    return Relative(math.exp(math.fsum(logs) / len(logs)), len(logs)) if logs else None


def _rate(result: Result) -> float:
    figure: Any = result.output_tok_per_s
    return float(figure.median)


def _of_one_length(a: Result, b: Result) -> bool:
    """As ``compare`` has it: prompts of another length are another measurement."""
    if a.prompt_tokens is None or b.prompt_tokens is None:
        return True
    one, other = a.prompt_tokens.median, b.prompt_tokens.median
    return abs(one - other) <= max(LENGTH_TOKENS, LENGTH_SHARE * min(one, other))


def most_shared(found: Sequence[Card]) -> Card | None:
    """The card that shares most cells with the others: the one to hold them against."""
    counts = Counter(key for card in found for key in card.cells)

    def shared(card: Card) -> int:
        return sum(counts[key] - 1 for key in card.cells)

    known = [card for card in found if shared(card)]
    return max(known, key=lambda card: (card.kind != "cpu", shared(card)), default=None)


# Builds


class History(NamedTuple):
    """One cell with several builds of an engine and an API, oldest first; of each build the result
    that stands for it."""

    key: Key
    engine: str
    api: str | None
    steps: tuple[tuple[Run, Result], ...]


def histories(runs: Sequence[Run]) -> list[History]:
    """Of each model, quant, mode, engine and API that had at least two builds its cell with most of
    them, by model; ``runs`` are of one card, newest first."""
    place = order(runs)
    best: dict[tuple[Any, ...], History] = {}
    for key, ranked in ranked_cells(runs).items():
        by_line: dict[tuple[str, str | None], dict[str, tuple[Run, Result]]] = {}
        for run, result in ranked:
            backend = run.record.backend
            if backend.build and key[-1] is not None and not said_asked(backend.asked):
                builds = by_line.setdefault((backend.engine, backend.api), {})
                builds.setdefault(backend.build, (run, result))
        for (engine, api), builds in by_line.items():
            numbered = sorted((place[engine, build], build) for build in builds)
            steps = tuple(builds[build] for _, build in numbered)
            line = (*key[1:4], engine, api)
            if len(steps) > max(1, len(best[line].steps) if line in best else 0):
                best[line] = History(key, engine, api, steps)
    return sorted(best.values(), key=lambda one: tuple(map(str, one.key[1:4])))


# For scripts


def columns(runs: Sequence[Run], cards: Sequence[Card]) -> dict[str, Any]:
    """What two cards or two builds side by side need beyond ``table.columns`` of the same runs.

    ``cards``: ``[label, address, what else it is called, GB, bytes or None, kind, ids of rigs,
    memory, bandwidth, power limits]``, the last three as texts.
    ``runs`` has of each run its card's number, the power limit (W), the number of its weights'
    file, where its prefill rate is from, what the model needs on a card (10 MB; weights, cache of
    4,096 tokens, what engines take) and the place of its build among those of its engine. ``rows``
    has of each plain result how many starts it is of, the number of its texts (-1 where nobody
    knows them), its prompt tokens and its place among those of its cell on its card, -1 where it
    stands in none. ``deep`` has all of it of the results at a depth. ``starts`` is that of decode
    rates, see there.
    """
    number = {rig: place for place, card in enumerate(cards) for rig in card.rigs}
    places = {
        (run.id, result.cell): place
        for card in cards
        for ranked in ranked_cells(card.runs).values()
        for place, (run, result) in enumerate(ranked)
    }
    builds, needed = order(runs), needs(runs)
    files, sources, told, shapes = _Numbers(), _Numbers(), _Numbers(), _Numbers()
    for shape in _deep_shapes(runs):
        shapes.of(shape)
    plain: list[list[Any]] = []
    deep: list[list[Any]] = []
    of_runs = []
    for run_number, run in enumerate(runs):
        record = run.record
        prefill = next((r.prefill_source for r in record.results if r.prefill_source), None)
        of_runs.append(
            [
                number[record.rig.id],
                limit_w(record),
                files.of(record.model.sha256),
                sources.of(prefill),
                needed.get(evidence.model_key(record.model)),
                builds[record.backend.engine, record.backend.build],
            ]
        )
        for result in record.results:
            if result.load != "closed":
                continue
            row = [
                starts_of(record, result),
                told.of(texts(record, result)),
                result.prompt_tokens and significant(result.prompt_tokens.median, 5),
                places.get((run.id, result.cell), -1),
            ]
            if result.plain:
                plain.append(row)
            else:
                deep.append([*row, run_number, *_deep(result, shapes)])
    return {
        "cards": [_card_words(card) for card in cards],
        "runs": _turned("card limit file source needs build", of_runs),
        "rows": _turned(_ROW, plain),
        "deep": _turned(f"{_ROW} run {_DEEP}", deep),
        "shapes": shapes.listed,
        "starts": starts(runs, "output_tok_per_s"),
    }


_ROW = "starts texts prompt place"
_DEEP = "shape concurrency valid gen low high spread prefill_tok_per_s ttft_s"


class _Numbers:
    """Values by number, in the order in which they came; None is -1."""

    def __init__(self) -> None:
        self.listed: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        if value is None:
            return -1
        if value not in self._numbers:
            self._numbers[value] = len(self.listed)
            self.listed.append(value)
        return self._numbers[value]


def starts(runs: Iterable[Run], metric: str) -> dict[int, list[float]]:
    """The medians of an engine's starts by row, where there are enough for an interval; the rows of
    ``deep`` come after all plain ones."""
    closed = [r for run in runs for r in run.record.results if r.load == "closed"]
    ordered = sorted(closed, key=lambda result: not result.cell.plain)
    found = {row: _starts(getattr(result, metric)) for row, result in enumerate(ordered)}
    return {row: each for row, each in found.items() if each}


def _starts(figure: Summary | None) -> list[float]:
    each = figure.starts if figure and len(figure.starts) >= STARTS_NEEDED else []
    return [significant(one, 6) for one in each] if usable(*each) else []


def _deep_shapes(runs: Iterable[Run]) -> list[str]:
    """The shapes at a depth: each with its depths, the shallowest first."""
    deep = {r.cell for run in runs for r in run.record.results if r.load == "closed"}
    order = sorted(deep, key=lambda one: (naming.shape_order(one.workload), one.depth_tokens))
    return list(dict.fromkeys(one.shape for one in order if one.depth_tokens))


def _deep(result: Result, shapes: _Numbers) -> list[Any]:
    gen = result.output_tok_per_s
    found = formats.bounds(gen)
    low, high = found or (None, None)
    others = (gen, result.prefill_tok_per_s, result.ttft_s)
    median, prefill, ttft = (one and significant(one.median, 5) for one in others)
    kind = 0 if found is None else 2 if gen and gen.ci95 else 1
    valid = ("invalid", "valid", "unverified").index(result.validity.word)
    shape = shapes.of(result.cell.shape)
    return [shape, result.concurrency, valid, median, low, high, kind, prefill, ttft]


def _card_words(card: Card) -> list[Any]:
    rigs = list(card.rigs)
    wide = card.bandwidth
    told = f"{wide.bytes_per_s / 1e9:,.0f} GB/s {wide.origin}" if wide else ""
    return [
        *(card.label, card.address, card.aliases, card.gb, card.vram_bytes, card.kind, rigs),
        *(card.size, told, card.power_text),
    ]


def needs(runs: Sequence[Run]) -> dict[evidence.ModelKey, int]:
    """What each model needs on a card, in 10 MB, as ``tokrig fit`` reckons it: its weights, its
    cache at ``CONTEXT`` and what engines took beside both. Models of no size are left out."""
    records = [run.record for run in runs]
    taken = place.overhead(evidence.overheads(records)["gpu"]).bytes
    found = {}
    for one in evidence.candidates(records):
        if one.bytes is not None:
            cache = one.cache_bytes(min(CONTEXT, one.context_train or CONTEXT)) or 0
            found[one.model] = round((one.bytes + cache + taken) / 1e7)
    return found


def _turned(header: str, rows: Sequence[Sequence[Any]]) -> Mapping[str, list[Any]]:
    names = header.split()
    found = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    return dict(zip(names, found, strict=True))
