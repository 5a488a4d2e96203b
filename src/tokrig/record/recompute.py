"""Does a record hold? Pure comparison of what is published with what follows: from the samples,
and from the record's own fields (``consistency``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tokrig.record import checks, consistency
from tokrig.record.consistency import Contradiction, Place, place_of
from tokrig.record.metrics import figures
from tokrig.record.model import (
    Interference,
    LoadMemory,
    PeakMemory,
    Record,
    Result,
    Validity,
)
from tokrig.record.samples import Sample

# Figures are published with six significant digits.
RELATIVE = 1e-5


@dataclass(frozen=True)
class Difference:
    """One published value that does not follow from the samples."""

    workload: str
    concurrency: int
    path: str
    published: Any
    recomputed: Any

    def __str__(self) -> str:
        return (
            f"{self.workload} × {self.concurrency}: {self.path} is {_show(self.published)}, "
            f"the samples give {_show(self.recomputed)}"
        )


def differences(record: Record, samples: Sequence[Sample]) -> list[Difference]:
    """All published figures that the samples contradict; empty when everything follows."""
    found: list[Difference] = []
    for result in record.results:
        key = (result.workload.name, result.concurrency)
        again = figures(
            _samples_of(result, samples),
            result.counters,
            methodology=record.provenance.methodology or 1,
            starts=None if record.backend.managed else 1,
        )
        for name, recomputed in again.items():
            for path, old, new in _unequal(name, getattr(result, name), recomputed):
                found.append(Difference(*key, path, old, new))
    return found


def contradictions(record: Record, samples: Sequence[Sample]) -> list[Contradiction]:
    """Everything published that does not follow: figures, verdicts, results left out."""
    index = {(r.workload.name, r.concurrency): i for i, r in enumerate(record.results)}
    found = [
        Contradiction(
            ("results", index[one.workload, one.concurrency], *place_of(one.path)),
            "samples",
            str(one),
        )
        for one in differences(record, samples)
    ]
    for name, concurrency in dict.fromkeys((s.workload, s.concurrency) for s in samples):
        if (name, concurrency) not in index:
            text = f"{name} × {concurrency}: there are samples, but no result"
            found.append(Contradiction(("results",), "samples", text))
    for number, result in enumerate(record.results):
        again = judged_again(record, result, samples)
        if again is not None:
            found += _verdicts_differ(record, number, again, "the samples give")
    return _each_place_once(found + own_contradictions(record))


def own_contradictions(record: Record) -> list[Contradiction]:
    """What can be told without samples: cheap enough for every record of a page."""
    found = consistency.contradictions(record)
    if record.provenance.kind != "measured":
        found += _unproven(record)
    return _each_place_once(found + _overall(record))


def _unproven(record: Record) -> list[Contradiction]:
    """What a record without samples claims all the same: that somebody checked them. Nobody saw
    the requests behind it, so it is never valid."""
    expected = "unchecked" if (record.provenance.methodology or 1) < 2 else "unverified"
    return [
        Contradiction(
            ("results", number, "validity"),
            "samples",
            f"{result.workload.name} × {result.concurrency}: there are no samples, and "
            f"validity.{expected} does not say so",
        )
        for number, result in enumerate(record.results)
        if "samples" not in getattr(result.validity, expected)
    ]


def _each_place_once(found: Iterable[Contradiction]) -> list[Contradiction]:
    """Of what is found about one field the first: the samples know best."""
    return list({one.place: one for one in reversed(list(found))}.values())[::-1]


def _overall(record: Record) -> list[Contradiction]:
    version, complete = record.provenance.methodology or 1, record.status == "complete"
    if not record.raw or record.results:
        again = checks.judge_run(record.results, complete=complete, methodology=version)
        return _verdicts_differ(record, None, again, "the results give")
    told = record.validity
    seen = {
        reason: None if unlooked in told.unchecked else reason in told.reasons
        for reason, unlooked in checks.UNLOOKED.items()
    }
    if not record.rig.gpus:
        seen["foreign_gpu_load"] = bool(seen["foreign_gpu_load"])
    again = checks.judge_raw(
        len(record.raw), record.backend, seen, complete=complete, methodology=version
    )
    return _verdicts_differ(record, None, again, "the record gives")


def judged_again(record: Record, result: Result, samples: Sequence[Sample]) -> Validity | None:
    """The verdict the samples give, with what the record says was seen beside them, by the version
    of the methodology that they were measured under.

    None where the record does not tell the shape's lengths.
    """
    shape = result.workload
    if shape.answer_tokens is None or shape.prompt_tokens is None:
        return None
    seen = checks.Seen(
        workload=shape,
        concurrency=result.concurrency,
        backend=record.backend,
        mode=record.mode,
        model=record.model,
        rig=record.rig,
        interference=result.interference or Interference(),
        memory=result.memory or PeakMemory(),
        load_memory=record.load_memory or LoadMemory(),
        counters=result.counters or {},
        client_cpu_share=result.client_cpu_share,
        compared_greedy=result.greedy is not None,
        told=result.validity,
    )
    mine = _samples_of(result, samples)
    return checks.judge(mine, seen, methodology=record.provenance.methodology or 1)


def _samples_of(result: Result, samples: Sequence[Sample]) -> list[Sample]:
    cell = (result.workload.name, result.concurrency)
    return [s for s in samples if (s.workload, s.concurrency) == cell]


def _verdicts_differ(
    record: Record, number: int | None, again: Validity, source: str
) -> list[Contradiction]:
    """Fields in which two verdicts differ, on the run or on one of its results; the order of
    codes says nothing."""
    place: Place = ("validity",)
    where, published = "", record.validity
    if number is not None:
        result = record.results[number]
        place = ("results", number, "validity")
        where, published = f"{result.workload.name} × {result.concurrency}: ", result.validity
    told = []
    if published.verdict != again.verdict:
        told.append(("verdict", f"{published.verdict}, {source} {again.verdict}"))
    for name in ("reasons", "unverified", "unchecked"):
        old, new = getattr(published, name), getattr(again, name)
        if set(old) != set(new):
            told.append((name, f"{_codes(old)}, {source} {_codes(new)}"))
    return [
        Contradiction((*place, name), "verdict", f"{where}validity.{name} is {text}")
        for name, text in told
    ]


def _codes(codes: Iterable[str]) -> str:
    return ", ".join(codes) or "empty"


def _unequal(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Leaves at which two values differ by more than rounding."""
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for name in type(old).model_fields:
            yield from _unequal(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _unequal(f"{path}[{index}]", a, b)
    elif _is_number(old) and _is_number(new):
        if not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=1e-12):
            yield path, old, new
    elif old != new:
        yield path, old, new


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: Any) -> str:
    return "missing" if value is None else f"{value}"
