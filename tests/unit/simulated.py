"""Records as they come out of machines whose true speeds are known.

The starts of an engine lie around its speed by ``spread`` (log-normal, two-valued or skewed), the
requests of a start around that start by half a percent. Every shape, and prefill beside decode,
has its luck of its own: the more of it there is, the more chances to see what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Literal

from tests.unit.compared import cell, measured, with_value
from tokrig.record.block import Summary
from tokrig.record.model import Record, Result

Level = Literal["quick", "attached", "standard", "publish"]
Kind = Literal["normal", "two", "skew"]
# Repeats, and how many of them have a start of their own.
REPEATS: dict[Level, tuple[int, int]] = {
    "quick": (1, 1),
    "attached": (6, 1),
    "standard": (6, 6),
    "publish": (10, 10),
}
SHAPES = ("chat", "rag", "codegen", "agent")
REQUESTS = 3
WITHIN = 0.005


def record(
    chance: Random, level: Level, spread: float, *, faster: float = 1.0, kind: Kind = "normal"
) -> Record:
    """A record of four shapes at concurrency 1, ``faster`` times as fast as others."""
    repeats, starts = REPEATS[level]
    results = [_result(chance, shape, repeats, starts, spread, faster, kind) for shape in SHAPES]
    made = with_value(measured(), "results", results)
    made = with_value(made, "provenance.level", "standard" if level == "attached" else level)
    if level == "attached":
        made = with_value(made, "backend.managed", False)
        return with_value(made, "provenance.server_starts", None)
    return with_value(made, "provenance.server_starts", starts)


def _result(
    chance: Random, shape: str, repeats: int, starts: int, spread: float, faster: float, kind: Kind
) -> Result:
    decode, prefill = (
        _speeds(chance, repeats, starts, spread, faster * base, kind) for base in (100.0, 2000.0)
    )
    figures = {
        "output_tok_per_s": decode,
        "end_to_end_tok_per_s": _scaled(0.8, decode),
        "system_tok_per_s": _scaled(0.79, decode),
        "prefill_tok_per_s": prefill,
        "ttft_s": [[64 / speed for speed in group] for group in prefill],
    }
    found = {name: _metric(groups) for name, groups in figures.items()}
    return cell(shape).model_copy(update={"repeats": repeats, **found})


def _speeds(
    chance: Random, repeats: int, starts: int, spread: float, speed: float, kind: Kind
) -> list[list[float]]:
    lucks = [_luck(chance, kind) * spread for _ in range(starts)]
    return [
        [
            speed * math.exp(lucks[min(repeat, starts - 1)] + chance.gauss(0, WITHIN))
            for _ in range(REQUESTS)
        ]
        for repeat in range(repeats)
    ]


def _luck(chance: Random, kind: Kind) -> float:
    """Of mean 0 and deviation 1."""
    if kind == "two":
        return -1.5275 if chance.random() < 0.3 else 0.6547
    return 1 - chance.expovariate(1) if kind == "skew" else chance.gauss(0, 1)


def _scaled(factor: float, groups: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[factor * value for value in group] for group in groups]


def _metric(groups: Sequence[Sequence[float]]) -> Summary:
    """As metrics.summary makes it, without the interval, which takes its time and decides
    nothing where the starts are told."""
    values, medians = [v for group in groups for v in group], [median(group) for group in groups]
    return Summary(
        median=median(medians), min=min(values), max=max(values), n=len(values), starts=medians
    )
