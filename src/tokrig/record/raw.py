"""The verdict on raw engine figures: there are no requests to look at, only what was seen beside
the program. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tokrig.record.checks import judge_run, verdict
from tokrig.record.model import BackendFacts, Record, Validity


@dataclass(frozen=True)
class RawSeen:
    """What was seen while the program ran; None = nobody looked."""

    throttled: bool | None = None
    foreign_gpu_load: bool | None = None
    foreign_cpu_load: bool | None = None
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
        "foreign_cpu_load": seen.foreign_cpu_load is True,
        "throttled": seen.throttled is True,
        "foreign_gpu_load": seen.foreign_gpu_load is True,
        "cpu_spill": seen.spilled is True,
        "incomplete": not complete,
    }
    unverified = {"api_unverified": backend.api_confirmed is not True}
    unchecked = {
        "scheduling": seen.foreign_cpu_load is None,
        "throttle": seen.throttled is None,
        "gpu_processes": seen.has_gpu and seen.foreign_gpu_load is None,
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
            throttled=_held_or_not(told, "throttled", "throttle"),
            foreign_gpu_load=_held_or_not(told, "foreign_gpu_load", "gpu_processes"),
            foreign_cpu_load=_held_or_not(told, "foreign_cpu_load", "scheduling"),
            has_gpu=bool(record.rig.gpus),
            spilled=_held_or_not(told, "cpu_spill", "vram_fit"),
        ),
        complete=record.status == "complete",
    )
    if (record.provenance.methodology or 1) < 2 and again.verdict == "unverified":
        return again.model_copy(update={"verdict": "valid"})  # version 1 knew two words
    return again


def _held(codes: dict[str, bool]) -> list[str]:
    return [code for code, holds in codes.items() if holds]


def _held_or_not(told: Validity, reason: str, unchecked: str) -> bool | None:
    """Whether a reason was found; None where nobody looked."""
    return None if unchecked in told.unchecked else reason in told.reasons
