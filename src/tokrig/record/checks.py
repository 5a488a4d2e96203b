"""Validity: what makes a result invalid, what could not be confirmed, what nobody looked at.

The rules of methodology 2, pure, from the record's own blocks and the samples: so ``tokrig check``
gives the same verdict again. Every code has a hint; thresholds are METHODOLOGY's and change only
with a line in the CHANGELOG's Methodology section. ``checks1`` keeps the rules of version 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokrig.naming import gpus_known
from tokrig.record import formulas, machine
from tokrig.record.asked import ignored, untold
from tokrig.record.formulas import (
    clock_confirms,
    clock_difference,
    counted_difference,
    counters_confirm,
    told_tok_per_s,
)
from tokrig.record.model import (
    BackendFacts,
    Interference,
    LoadMemory,
    Mode,
    Model,
    PeakMemory,
    Record,
    Result,
    Rig,
    Validity,
    Verdict,
    WorkloadFacts,
)
from tokrig.record.pace import concurrency_mean, has_few_bursts, has_long_gap
from tokrig.record.placement import not_resident
from tokrig.record.samples import Kind, Sample

CLOCK_MISMATCH = formulas.CLOCK_MISMATCH
COUNT_MISMATCH = 0.01
PROMPT_SHARE, PROMPT_TOKENS = 0.01, 2
CONCURRENCY_SHARE = 0.90
# Reasons to finish other than the length that was asked for.
ENDED_EARLY = {"stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls"}
# What is no thought in a thought: the markers around it.
_MARKERS = re.compile(r"<\|?channel\|?>\w*|<[^<>]*>|\[/?THINK\]|◁[^◁▷]*▷")

HINTS = {
    # invalid
    "request_errors": "requests failed; see the samples' errors and the engine's log",
    "no_tokens": "nothing was generated, so there is nothing to measure",
    "output_length": "answers ended before the asked length; the engine ignored ignore_eos",
    "cached_tokens": "the engine reused cached prompt tokens; switch its prompt cache off",
    "clock_mismatch": "client and engine disagree by more than 3 % on the decode rate; look for"
    " a loaded machine or a buffering proxy",
    "count_mismatch": "two token counts differ by more than 1 %; the server's usage is in doubt",
    "prompt_length": "prompts miss the shape's length by more than 1 %",
    "concurrency_not_reached": "fewer requests were served at once than asked: give the server more"
    " slots (--parallel, --max-num-seqs, OLLAMA_NUM_PARALLEL), or lower --concurrency",
    "foreign_cpu_load": "other programs took the processor that the engine needed; stop them, or"
    " keep them off its cores, and measure again",
    "client_bound": "the client saw chunks late, or used over 80 % of a core: it may be the limit;"
    " leave it a core of its own with --threads",
    "throttled": "heat, a slowdown or a power brake held the GPU down; look at its cooling and its"
    " power supply",
    "foreign_gpu_load": "another program computed on the GPU; stop it and measure again",
    "cpu_spill": "parts of the model ran on the CPU though they were asked for the GPU; use a"
    " smaller context, KV type or quant",
    "not_resident": "less of the model was in memory than it has bytes: it was read from the disk"
    " meanwhile; use a smaller quant or free memory",
    "api_not_confirmed": "another accelerator API computed than the one asked for; see the engine's"
    " device list and its log",
    "speculation_inactive": "speculative decoding was asked for but nothing was drafted; look for a"
    " draft of another vocabulary, or text without repetition",
    "reasoning_off_not_honoured": "reasoning was switched off but the model still reasoned; see"
    " the table of switches",
    "setting_ignored": "the engine used another setting than was asked for; see backend.asked and"
    " backend.resolved",
    "timings_impossible": "the engine reports negative or zero times for tokens it generated",
    "contradictory": "fields of the record contradict each other; tokrig check names them",
    "incomplete": "the run did not finish; what was measured before is kept",
    # unverified
    "prompt_length_unverified": "the server does not tell how long the prompt was",
    "token_count_unverified": "nobody confirms how many tokens came, and with which chunks; ask an"
    " engine that counts them in every chunk, or has a tokenizer to be asked",
    "no_rate": "no decode rate can be told, so there is no headline",
    "coarse_stream": "the chunks came in few bursts, or with a long gap between them, so they hide"
    " the pace of the tokens; look for a proxy in between, or an engine that stalls",
    "first_chunk_assumed": "the first chunk was assumed to carry one token",
    "repeats_share_a_start": "the server was not started anew for each repeat, so the interval"
    " misses what differs between starts",
    "greedy_unverified": "the answer with speculation was not compared with one without",
    "api_unverified": "the engine's own list or log does not confirm which accelerator API"
    " computed, or shows that a second device took part",
    "placement_unverified": "parts of the model may lie elsewhere than on the GPU; see"
    " load_memory.doubt",
    "setting_unverified": "a setting was asked for that the engine does not read back",
    "gpu_was_busy": "something drew on the GPU or used it before the start; close it and measure"
    " again",
    "implausible": "faster than the memory can deliver that model's weights, or several times as"
    " fast as the same model elsewhere; look for a slip in the figure",
    "samples": "the figures came without samples, so the requests behind them cannot be looked at:"
    " their errors, their lengths, the client's load",
    # unchecked
    "server_clock": "no timings of the server's own to compare with",
    "api": "the engine does not tell which accelerator API computed",
    "cache": "cached prompt tokens were not reported, and times did not tell either",
    "throttle": "throttling was not read",
    "gpu_processes": "other processes on the GPU were not read, or by numbers that mean nothing"
    " here, as in a container",
    "scheduling": "how long the engine's threads waited for a processor was not read",
    "vram_fit": "memory fit was not checked",
    "output_length_limit": "no finish reasons, so answers may have ended early",
}


@dataclass(frozen=True)
class Seen:
    """What was found beside the samples while they were taken, as the record has it. ``None``
    inside a block means that nobody looked."""

    workload: WorkloadFacts
    concurrency: int = 1
    backend: BackendFacts = field(default_factory=lambda: BackendFacts(name="", engine=""))
    mode: Mode = field(default_factory=Mode)
    model: Model = field(default_factory=lambda: Model(family=""))
    rig: Rig = field(default_factory=lambda: Rig(id=""))
    interference: Interference = field(default_factory=Interference)
    memory: PeakMemory = field(default_factory=PeakMemory)
    load_memory: LoadMemory = field(default_factory=LoadMemory)
    counters: Mapping[str, float] = field(default_factory=dict)
    client_cpu_share: float | None = None
    compared_greedy: bool = False


def judge(samples: Sequence[Sample], seen: Seen) -> Validity:
    """The verdict on one result. ``seen.workload`` has the lengths that were asked for."""
    measured = [s for s in samples if s.phase == "measured"]
    good = [s for s in measured if s.error is None]
    found = _Findings()
    found.reason("request_errors", len(good) < len(measured))
    found.reason("no_tokens", not any(s.output_tokens or s.chunks for s in good))
    _judge_lengths(found, good, seen)
    _judge_counts(found, good, seen)
    _judge_pace(found, good, seen)
    _judge_clock(found, good, seen)
    _judge_cell(found, good, seen)
    _judge_mode(found, good, seen)
    _judge_placement(found, seen)
    _judge_machine(found, seen)
    _judge_gpu(found, seen)
    return found.validity()


def judge_run(results: Iterable[Result], *, complete: bool) -> Validity:
    """A run is valid when it is complete and all its results are; lists are the unions."""
    results = list(results)
    reasons = _union(r.validity.reasons for r in results) + ([] if complete else ["incomplete"])
    unverified = _union(r.validity.unverified for r in results)
    return Validity(
        verdict=verdict(bool(reasons) or not results, unverified),
        reasons=reasons,
        unverified=unverified,
        unchecked=_union(r.validity.unchecked for r in results),
    )


def verdict(failed: bool, unverified: Sequence[str]) -> Verdict:
    """The word for what was found: one failed check outweighs everything."""
    return "invalid" if failed else "unverified" if unverified else "valid"


def headline(record: Record) -> list[Result]:
    """The results that may be shown as headline numbers: those that failed nothing and are
    plausible. Where one is unverified, its mark is shown with it."""
    return [r for r in record.results if r.validity.stands]


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
            verdict=verdict(bool(self.reasons), self.unverified),
            reasons=self.reasons,
            unverified=self.unverified,
            unchecked=self.unchecked,
        )


def _note(codes: list[str], code: str, holds: bool) -> None:
    if holds and code not in codes:
        assert code in HINTS
        codes.append(code)


def _judge_lengths(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Prompts and answers of the length that was asked for, nothing of them from a cache."""
    shape, asked = seen.workload, seen.workload.answer_tokens
    target = shape.target_prompt_tokens or shape.prompt_tokens
    lengths = [s.prompt_tokens for s in good]
    if target is not None:
        allowed = max(PROMPT_TOKENS, round(target * PROMPT_SHARE))
        found.reason(
            "prompt_length", any(abs(n - target) > allowed for n in lengths if n is not None)
        )
    found.doubt("prompt_length_unverified", any(n is None for n in lengths))
    found.reason("output_length", any(_of_another_length(s, asked) for s in good))
    found.uncheck("output_length_limit", any(s.finish_reason is None for s in good))
    cached, counted = [s.cached_tokens for s in good], seen.counters.get("cached_tokens")
    found.reason("cached_tokens", any(cached) or bool(counted))


def _of_another_length(sample: Sample, asked: int | None) -> bool:
    """Whether the answer has another length than asked for; uncounted ones tell by their end."""
    if sample.output_tokens is None:
        return sample.finish_reason in ENDED_EARLY
    return sample.output_tokens != asked


def _judge_counts(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Is the number of tokens what the sources say, all of them?"""
    # Rates of all requests that agree with the engine's sums are of the right tokens.
    unconfirmed = any(s.output_tokens is None or s.counted_by is None for s in good)
    found.doubt("token_count_unverified", unconfirmed and not counters_confirm(good, seen.counters))
    found.reason("count_mismatch", _over(good, lambda s: s.count_disagreement, COUNT_MISMATCH))
    found.reason("count_mismatch", any(map(_fewer_tokens_than_chunks, good)))
    served = seen.counters.get("output_tokens")
    ours = sum(s.output_tokens or 0 for s in good)
    if served is not None and not any(s.output_tokens is None for s in good):
        # More than ours: the server answered somebody else while it was measured.
        found.reason("count_mismatch", abs(served - ours) > COUNT_MISMATCH * ours)


def _judge_pace(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Do the stamps tell how fast the tokens came?"""
    confirmed = counters_confirm(good, seen.counters)
    found.doubt("no_rate", not any(told_tok_per_s(s, confirmed) for s in good))
    coarse = [s for s in good if has_few_bursts(s) or has_long_gap(s)]
    # Where the engine's own clock has the same rate, only the pace between tokens is not known.
    known = confirmed or all(map(clock_confirms, coarse))
    found.doubt("coarse_stream", bool(coarse) and not known)
    found.uncheck("coarse_stream", bool(coarse) and known)


def _fewer_tokens_than_chunks(sample: Sample) -> bool:
    """Every chunk carries a token; only the last may be a rest of text that was held back. Unless
    the text was cut up otherwise on its way, and holds as many tokens as were counted."""
    tokens = sample.output_tokens if sample.counted_by != "tokenizer" else None
    return tokens is not None and len(sample.chunks) > tokens * (1 + COUNT_MISMATCH) + 1


def _judge_clock(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Does the engine's own clock agree, for each request?"""
    differences = [d for d in map(clock_difference, good) if d is not None]
    if not differences:
        counted = counted_difference(good, seen.counters)
        differences = [] if counted is None else [counted]
        found.uncheck("server_clock", counted is None)
    else:
        found.uncheck("server_clock", len(differences) < len(good))
    found.reason("clock_mismatch", any(abs(d) > CLOCK_MISMATCH for d in differences))
    found.reason("timings_impossible", any(map(_impossible, good)))


def _impossible(sample: Sample) -> bool:
    """Time cannot run backwards, and more than one token takes some."""
    timings = sample.timings
    if timings is None:
        return False
    return min(timings.prompt_ms, timings.decode_ms) < 0 or (
        timings.decode_tokens > 1 and timings.decode_ms == 0
    )


def _judge_cell(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Was the cell what its name says: so many requests at once, nothing of them seen before?"""
    asked, slots = seen.concurrency, seen.backend.resolved.slots
    mean = concurrency_mean(good)
    found.reason(
        "concurrency_not_reached",
        bool(slots and slots < asked) or (mean is not None and mean < CONCURRENCY_SHARE * asked),
    )
    apart = seen.backend.prompting.kept_apart
    silent = any(s.cached_tokens is None for s in good) and "cached_tokens" not in seen.counters
    found.reason("cached_tokens", silent and apart is False)
    found.uncheck("cache", silent and apart is None)


def _judge_mode(found: _Findings, good: Sequence[Sample], seen: Seen) -> None:
    """Was what was asked for what was done?"""
    backend, mode = seen.backend, seen.mode
    if backend.api_asked is not None:
        confirmed = backend.api == backend.api_asked and backend.api_confirmed is True
        found.reason("api_not_confirmed", not confirmed)
    found.doubt("api_unverified", backend.api is not None and backend.api_confirmed is not True)
    found.uncheck("api", backend.api is None)
    drafted = any(s.drafted_tokens for s in good) or bool(seen.counters.get("drafted_tokens"))
    asked = mode.speculative is not None
    found.reason("speculation_inactive", asked and not drafted)
    # A running server may speculate unasked.
    found.doubt("greedy_unverified", (asked or drafted) and not seen.compared_greedy)
    reasoned = any(map(_reasoned, good))
    found.reason("reasoning_off_not_honoured", mode.reasoning_asked == "off" and reasoned)
    found.reason("setting_ignored", bool(ignored(backend)))
    found.doubt("setting_unverified", bool(untold(backend)))
    silent = mode.reasoning_observed is False and not reasoned
    found.doubt("setting_unverified", mode.reasoning_asked == "on" and silent)


def _reasoned(sample: Sample) -> bool:
    """Whether there was a thought, shown or only counted. Markers around nothing are none."""
    shown = "".join(c.text for c in sample.chunks if c.kind is Kind.REASONING)
    return bool(_MARKERS.sub("", shown).strip()) or bool(not shown and sample.reasoning_tokens)


def _judge_placement(found: _Findings, seen: Seen) -> None:
    """Was the model where it should be?"""
    spilled, doubt = seen.load_memory.spilled, seen.load_memory.doubt
    found.reason("cpu_spill", spilled is True)
    found.doubt("placement_unverified", doubt is not None)
    found.uncheck("vram_fit", spilled is None and doubt is None)
    found.reason(
        "not_resident",
        not_resident(
            seen.model,
            seen.backend,
            seen.memory.engine_rss_bytes,
            seen.load_memory.looked_up_bytes,
            seen.mode.offload,
        ),
    )


def _judge_machine(found: _Findings, seen: Seen) -> None:
    """Did something else take the processor from engine or client?"""
    starved = machine.foreign_cpu_load(seen.interference, seen.backend, seen.mode)
    found.reason("foreign_cpu_load", starved is True)
    found.uncheck("scheduling", starved is None)
    found.reason("client_bound", machine.client_bound(seen.interference, seen.client_cpu_share))


def _judge_gpu(found: _Findings, seen: Seen) -> None:
    """Was the graphics card held back by a fault, or shared?"""
    throttled = machine.throttled(seen.interference)
    found.reason("throttled", throttled is True)
    found.uncheck("throttle", throttled is None)
    if machine.computed_on(seen.backend, seen.mode) == {"cpu"}:
        return  # whoever uses the card takes nothing from this
    foreign = seen.interference.foreign_gpu_processes
    found.reason("foreign_gpu_load", bool(foreign))
    has_gpu = bool(seen.rig.gpus) or not gpus_known(seen.rig)
    found.uncheck("gpu_processes", has_gpu and foreign is None)
    found.doubt("gpu_was_busy", machine.gpu_was_busy(seen.interference))


def _over(samples: Sequence[Sample], value: Callable[[Sample], float | None], limit: float) -> bool:
    return any((value(s) or 0) > limit for s in samples)


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(code for codes in lists for code in codes))
