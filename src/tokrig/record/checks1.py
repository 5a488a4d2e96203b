"""The verdicts of methodology 1, frozen: only records that were measured under it are judged here.

Nothing in this module changes any more. ``checks`` holds the rules of today and all hints.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokrig.record.formulas import clock_difference, counted_difference
from tokrig.record.model import Result, Validity
from tokrig.record.samples import Kind, Sample

CLOCK_MISMATCH = 0.03
COUNT_MISMATCH = 0.01
CLIENT_CPU_SHARE = 0.80
PROMPT_SHARE, PROMPT_TOKENS = 0.01, 2


@dataclass(frozen=True)
class Circumstances:
    """What was seen beside the samples while they were taken; None = nobody looked."""

    answer_tokens: int
    prompt_tokens: int
    client_cpu_share: float | None = None
    throttle_reasons: Sequence[str] | None = None
    foreign_gpu_processes: int | None = None
    has_gpu: bool = False
    spilled: bool | None = None
    not_resident: bool = False
    managed: bool | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    api: str | None = None
    api_confirmed: bool | None = None
    api_asked: str | None = None
    speculative: str | None = None
    compared_greedy: bool = False
    reasoning_off: bool = False


def judge(samples: Sequence[Sample], seen: Circumstances) -> Validity:
    """The verdict on one result."""
    measured = [s for s in samples if s.phase == "measured"]
    good = [s for s in measured if s.error is None]
    found = _Findings()
    found.reason("request_errors", len(good) < len(measured))
    repeats = len({s.repeat for s in measured})
    found.doubt("repeats_share_a_start", seen.managed is False and repeats > 1)
    found.reason("no_tokens", not any(s.output_tokens or s.chunks for s in good))
    _judge_lengths(found, good, seen)
    _judge_counts(found, good, seen)
    _judge_clock(found, good, seen)
    _judge_mode(found, good, seen)
    found.reason("client_bound", (seen.client_cpu_share or 0) > CLIENT_CPU_SHARE)
    found.reason("throttled", bool(seen.throttle_reasons))
    found.reason("foreign_gpu_load", bool(seen.foreign_gpu_processes))
    found.reason("cpu_spill", seen.spilled is True)
    found.reason("not_resident", seen.not_resident)
    found.uncheck("throttle", seen.throttle_reasons is None)
    found.uncheck("gpu_processes", seen.has_gpu and seen.foreign_gpu_processes is None)
    found.uncheck("vram_fit", seen.spilled is None)
    return found.validity()


def judge_run(results: Iterable[Result], *, complete: bool) -> Validity:
    """A run is valid when it is complete and all its results are; lists are the unions."""
    results = list(results)
    invalid = not complete or not results or any(r.validity.verdict == "invalid" for r in results)
    return Validity(
        verdict="invalid" if invalid else "valid",
        reasons=_union(r.validity.reasons for r in results) + ([] if complete else ["incomplete"]),
        unverified=_union(r.validity.unverified for r in results),
        unchecked=_union(r.validity.unchecked for r in results),
    )


class _Findings:
    """Codes as they turn up, each once."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.unverified: list[str] = []
        self.unchecked: list[str] = []

    def reason(self, code: str, holds: bool) -> None:
        _note(self.reasons, code, holds)

    def doubt(self, code: str, holds: bool) -> None:
        _note(self.unverified, code, holds)

    def uncheck(self, code: str, holds: bool) -> None:
        _note(self.unchecked, code, holds)

    def validity(self) -> Validity:
        return Validity(
            verdict="invalid" if self.reasons else "valid",
            reasons=self.reasons,
            unverified=self.unverified,
            unchecked=self.unchecked,
        )


def _note(codes: list[str], code: str, holds: bool) -> None:
    if holds and code not in codes:
        codes.append(code)


def _judge_lengths(found: _Findings, good: Sequence[Sample], seen: Circumstances) -> None:
    allowed = max(PROMPT_TOKENS, round(seen.prompt_tokens * PROMPT_SHARE))
    lengths = [s.prompt_tokens for s in good]
    found.reason(
        "prompt_length",
        any(abs(n - seen.prompt_tokens) > allowed for n in lengths if n is not None),
    )
    found.doubt("prompt_length_unverified", any(n is None for n in lengths))
    outputs = [s.output_tokens for s in good]
    found.reason("output_length", any(n != seen.answer_tokens for n in outputs if n is not None))
    found.uncheck("output_length_limit", any(s.finish_reason is None for s in good))
    cached = [s.cached_tokens for s in good]
    found.reason("cached_tokens", any(cached_n for cached_n in cached))
    found.uncheck("cache", any(cached_n is None for cached_n in cached))


def _judge_counts(found: _Findings, good: Sequence[Sample], seen: Circumstances) -> None:
    found.doubt("token_count_unverified", any(s.output_tokens is None for s in good))
    found.doubt("first_chunk_assumed", any(s.first_chunk_assumed for s in good))
    found.reason("count_mismatch", _over(good, lambda s: s.count_disagreement, COUNT_MISMATCH))
    found.reason("count_mismatch", any(map(_fewer_tokens_than_chunks, good)))
    served, seen_tokens = (
        seen.counters.get("output_tokens"),
        sum(s.output_tokens or 0 for s in good),
    )
    if served is not None and not any(s.output_tokens is None for s in good):
        # More than ours: the server answered somebody else while it was measured.
        found.reason("count_mismatch", abs(served - seen_tokens) > COUNT_MISMATCH * seen_tokens)


def _fewer_tokens_than_chunks(sample: Sample) -> bool:
    """Every chunk carries a token; only the last may be a rest of text that was held back."""
    tokens = sample.output_tokens
    return tokens is not None and len(sample.chunks) > tokens * (1 + COUNT_MISMATCH) + 1


def _judge_clock(found: _Findings, good: Sequence[Sample], seen: Circumstances) -> None:
    differences = [d for d in map(clock_difference, good) if d is not None]
    difference = statistics.median(differences) if differences else None
    if difference is None:
        difference = counted_difference(good, seen.counters)
        found.uncheck("server_clock", difference is None)
    else:
        found.uncheck("server_clock", len(differences) < len(good))
    found.reason("clock_mismatch", abs(difference or 0) > CLOCK_MISMATCH)
    found.reason("timings_impossible", any(map(_impossible, good)))


def _impossible(sample: Sample) -> bool:
    """Time cannot run backwards, and more than one token takes some."""
    timings = sample.timings
    if timings is None:
        return False
    return min(timings.prompt_ms, timings.decode_ms) < 0 or (
        timings.decode_tokens > 1 and timings.decode_ms == 0
    )


def _judge_mode(found: _Findings, good: Sequence[Sample], seen: Circumstances) -> None:
    """Was what was asked for what was done?"""
    if seen.api_asked is not None:
        confirmed = seen.api == seen.api_asked and seen.api_confirmed is True
        found.reason("api_not_confirmed", not confirmed)
    found.doubt("api_unverified", seen.api is None or seen.api_confirmed is not True)
    if seen.speculative is not None:
        drafted = sum(s.drafted_tokens or 0 for s in good)
        found.reason(
            "speculation_inactive", not drafted and not seen.counters.get("drafted_tokens")
        )
        found.doubt("greedy_unverified", not seen.compared_greedy)
    reasoned = any(c.kind is Kind.REASONING for s in good for c in s.chunks)
    found.reason("reasoning_off_not_honoured", seen.reasoning_off and reasoned)


def _over(samples: Sequence[Sample], value: Callable[[Sample], float | None], limit: float) -> bool:
    return any((value(s) or 0) > limit for s in samples)


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(code for codes in lists for code in codes))
