"""The verdict on raw engine figures: there are no requests to look at, only what was seen beside
the program. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokrig.record.checks import judge_run, verdict
from tokrig.record.model import BackendFacts, Record, Validity


@dataclass(frozen=True)
class RawSeen:
    """What was seen while the program ran; None = nobody looked."""

    throttle_reasons: Sequence[str] | None = None
    foreign_gpu_processes: int | None = None
    has_gpu: bool = False
    spilled: bool | None = None


def judge_raw(figures: int, backend: BackendFacts, seen: RawSeen, *, complete: bool) -> Validity:
    """Valid when the program finished with figures and nothing speaks against them.

    ``api_unverified`` is also said where the weights' place names an API but another device
    took part.
    """
    if not figures:
        return judge_run([], complete=complete)
    asked = backend.api_asked
    reasons = {
        "api_not_confirmed": asked is not None and backend.api != asked,
        "throttled": bool(seen.throttle_reasons),
        "foreign_gpu_load": bool(seen.foreign_gpu_processes),
        "cpu_spill": seen.spilled is True,
        "incomplete": not complete,
    }
    unverified = {"api_unverified": backend.api_confirmed is not True}
    unchecked = {
        "throttle": seen.throttle_reasons is None,
        "gpu_processes": seen.has_gpu and seen.foreign_gpu_processes is None,
        "vram_fit": seen.spilled is None,
    }
    found, doubts = _held(reasons), _held(unverified)
    return Validity(
        verdict=verdict(bool(found), doubts),
        reasons=found,
        unverified=doubts,
        unchecked=_held(unchecked),
    )


def is_raw(record: Record) -> bool:
    """Whether a record holds raw figures alone."""
    return bool(record.raw) and not record.results


def judged_raw_again(record: Record) -> Validity:
    """The verdict that follows from what the record says was seen."""
    told = record.validity
    again = judge_raw(
        len(record.raw),
        record.backend,
        RawSeen(
            throttle_reasons=None if "throttle" in told.unchecked else _one(told, "throttled"),
            foreign_gpu_processes=None
            if "gpu_processes" in told.unchecked
            else len(_one(told, "foreign_gpu_load")),
            has_gpu=bool(record.rig.gpus),
            spilled=None if "vram_fit" in told.unchecked else "cpu_spill" in told.reasons,
        ),
        complete=record.status == "complete",
    )
    if (record.provenance.methodology or 1) < 2 and again.verdict == "unverified":
        return again.model_copy(update={"verdict": "valid"})  # version 1 knew two words
    return again


def _held(codes: dict[str, bool]) -> list[str]:
    return [code for code, holds in codes.items() if holds]


def _one(told: Validity, code: str) -> list[str]:
    """The code where it is among the reasons, else nothing."""
    return [code] if code in told.reasons else []
