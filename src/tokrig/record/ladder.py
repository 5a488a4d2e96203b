"""A ladder: requests in flight are doubled, step after step, while that pays. Where it ends, why,
and where its knee is. Pure: ``tokrig check`` finds the same in the samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokrig.record.checks import too_few_at_once
from tokrig.record.loads import EndedBy, Ladder
from tokrig.record.metrics import figures
from tokrig.record.model import Result, Skipped
from tokrig.record.samples import Sample

GROWTH = 0.05
"""The system rate has to grow by this share of itself, or the step was the last one."""
KNEE = 0.95
"""The knee is the first step with this share of the highest system rate."""
KNEE_KNOWN = ("growth", "slots")
"""The ends after which it is known: with the others the rate still grew."""


@dataclass(frozen=True)
class Step:
    """So many requests in flight, as they were measured first: their system rate, None where
    nobody can tell it, and whether some of them had to wait for others."""

    concurrency: int
    tok_per_s: float | None
    waited: bool


def step(concurrency: int, samples: Iterable[Sample], slots: int | None) -> Step:
    """What the first repeat says: that is what the ladder goes by, and other repeats follow it."""
    measured = [s for s in samples if s.phase == "measured"]
    first = min((s.repeat for s in measured), default=0)
    mine = [s for s in measured if s.repeat == first]
    rate = figures(mine)["system_tok_per_s"]
    good = [s for s in mine if s.error is None]
    waited = too_few_at_once(good, concurrency, slots)
    return Step(concurrency, rate.median if rate else None, waited)


def end_of(
    steps: Sequence[Step], most: int, slots: int | None, *, failed: bool = False
) -> EndedBy | None:
    """Why these ``steps`` are all; None where the next one follows. ``most`` is the highest step
    there may be, ``slots`` are those of the server, ``failed`` that the next one was tried in
    vain."""
    if not steps:
        return "failed" if failed else None
    last, before = steps[-1], steps[-2] if len(steps) > 1 else None
    if last.tok_per_s is None:
        return "failed"
    if last.waited:
        return "slots"
    if before and before.tok_per_s and last.tok_per_s < before.tok_per_s * (1 + GROWTH):
        return "growth"
    if last.concurrency >= most:
        return "most"
    if slots is not None and slots < 2 * last.concurrency:
        return "slots"
    return "failed" if failed else None


def knee_of(results: Sequence[Result]) -> int | None:
    """The smallest number of requests in flight that has 95 % of the highest system rate of these
    steps, by the medians of all repeats. A step at which requests waited had fewer in flight than
    its name says, and is none of them."""
    rates = {
        r.concurrency: r.system_tok_per_s.median
        for r in results
        if r.system_tok_per_s and "concurrency_not_reached" not in r.validity.reasons
    }
    enough = KNEE * max(rates.values(), default=0.0)
    return min((at for at, rate in rates.items() if rate >= enough), default=None)


def ladder_of(
    results: Sequence[Result],
    samples: Sequence[Sample],
    skipped: Sequence[Skipped],
    *,
    most: int,
    slots: int | None,
) -> Ladder | None:
    """The ladder of the ``results`` of one workload at one depth, whose ``samples`` these are; None
    without any step. Where the rate still grew when it ended nobody knows its knee."""
    if not results:
        return None
    ordered = sorted(results, key=lambda result: result.concurrency)
    of_cell: dict[int, list[Sample]] = {result.concurrency: [] for result in ordered}
    for sample in samples:
        if sample.concurrency in of_cell:
            of_cell[sample.concurrency].append(sample)
    steps = [step(at, mine, slots) for at, mine in of_cell.items()]
    first = ordered[0]
    found = Ladder(
        workload=first.workload.name,
        depth_tokens=first.depth_tokens,
        steps=list(of_cell),
        most=most,
    )
    failed = any(found.has(one.cell) for one in skipped)
    ended = end_of(steps, most, slots, failed=failed)
    knee = knee_of(ordered) if ended in KNEE_KNOWN else None
    return found.model_copy(update={"ended_by": ended, "knee": knee})
