"""Does a record hold? Pure comparison of what is published with what follows: from the samples,
and from the record's own fields (``consistency``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tokrig.record import checks, checks1, consistency
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
from tokrig.record.raw import is_raw, judged_raw_again
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
        mine = [s for s in samples if (s.workload, s.concurrency) == key]
        again = figures(
            mine,
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
    expected = "unchecked" if is_version_1(record) else "unverified"
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
    if is_raw(record):
        return _verdicts_differ(record, None, judged_raw_again(record), "the record gives")
    judge_run = checks1.judge_run if is_version_1(record) else checks.judge_run
    again = judge_run(record.results, complete=record.status == "complete")
    return _verdicts_differ(record, None, again, "the results give")


def judged_again(record: Record, result: Result, samples: Sequence[Sample]) -> Validity | None:
    """The verdict the samples give, with what the record says was seen beside them.

    None where the record does not tell the shape's lengths.
    """
    if result.workload.answer_tokens is None or result.workload.prompt_tokens is None:
        return None
    key = (result.workload.name, result.concurrency)
    mine = [s for s in samples if (s.workload, s.concurrency) == key]
    if is_version_1(record):
        return checks1.judge(mine, _circumstances(record, result))
    return checks.judge(mine, seen_of(record, result))


def is_version_1(record: Record) -> bool:
    """Whether a record was measured under methodology 1, and is judged by it for ever."""
    return (record.provenance.methodology or 1) < 2


def seen_of(record: Record, result: Result) -> checks.Seen:
    """What a record says was found beside the samples of one of its results."""
    return checks.Seen(
        workload=result.workload,
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
    )


def _circumstances(record: Record, result: Result) -> checks1.Circumstances:
    """The same for methodology 1, which told some of it by its codes alone."""
    shape, seen, recorded = result.workload, result.interference, result.validity
    throttle = (seen.throttle_reasons if seen else None) or []
    return checks1.Circumstances(
        answer_tokens=shape.answer_tokens or 0,
        prompt_tokens=shape.prompt_tokens or 0,
        client_cpu_share=result.client_cpu_share,
        throttle_reasons=None if "throttle" in recorded.unchecked else throttle,
        foreign_gpu_processes=seen.foreign_gpu_processes if seen else None,
        has_gpu=bool(record.rig.gpus),
        managed=record.backend.managed,
        spilled=None if "vram_fit" in recorded.unchecked else "cpu_spill" in recorded.reasons,
        not_resident="not_resident" in recorded.reasons,
        counters=result.counters or {},
        api=record.backend.api,
        api_confirmed=record.backend.api_confirmed,
        api_asked=record.backend.api_asked,
        speculative=record.mode.speculative,
        compared_greedy=result.greedy is not None,
        reasoning_off=record.mode.reasoning_asked == "off",
    )


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
