"""Validity: what makes a result invalid, what could not be confirmed, what nobody looked at.

Pure, from the record's own blocks and the samples: so ``tokrig check`` gives the same verdict
again. Every code has a hint; thresholds are those of docs/methodology.md and change only with a
line in the CHANGELOG's Methodology section. Rules of version 1 are frozen: records that were
measured under it are judged by it for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

from tokrig.naming import gpus_known
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.ceiling import ABOVE_CEILING
from tokrig.record.conditions import (
    CLIENT_CPU_SHARE,
    client_bound,
    computed_on,
    foreign_cpu_load,
    gpu_was_busy,
    ignored,
    near_ceiling,
    not_resident,
    throttled,
    untold,
)
from tokrig.record.formulas import (
    CLOCK_MISMATCH,
    clock_confirms,
    clock_difference,
    counted_difference,
    counters_confirm,
    median,
    told_tok_per_s,
)
from tokrig.record.loads import Arrivals, Ladder, LoadNodes
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
from tokrig.record.open_loop import GIVEN_UP, overloaded, sends_late
from tokrig.record.rate_limits import same_load
from tokrig.record.samples import Cell, Kind, Sample, concurrency_mean, is_coarse
from tokrig.record.sessions import walks

COUNT_MISMATCH = 0.01
# Of the measured window.
CLOCKS_SHARE = 0.01
PROMPT_SHARE, PROMPT_TOKENS = 0.01, 2
# What prompts of two sessions may share where the template is shorter, or not known.
OPENING_TOKENS = 32
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
    "warm_first_turn": "of a session's first prompt the engine had more than the template's opening"
    " in its cache, though no other begins alike: its count of cached tokens is in doubt",
    "clock_mismatch": "client and engine disagree by more than 3 % on the decode rate; look for"
    " a loaded machine or a buffering proxy",
    "count_mismatch": "two token counts differ by more than 1 %; the server's usage is in doubt",
    "prompt_length": "prompts miss the shape's length by more than 1 %",
    "concurrency_not_reached": "fewer requests were served at once than asked: give the server more"
    " slots (--parallel, --max-num-seqs, OLLAMA_NUM_PARALLEL), or lower --concurrency",
    "foreign_cpu_load": "other programs took the processor that the engine needed; stop them, or"
    " keep them off its cores, and measure again",
    "client_bound": "the client saw chunks late, sent requests late, used over 80 % of a core or"
    " met over half of the rate that tokrig instrument found here: it may be the limit; leave it a"
    " core of its own with --threads, or lower --rate",
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
    "clocks_apart": "the clocks of the load nodes are not known to 1 % of the measured window, so"
    " neither is the system rate; use nodes on a nearer network, or measure for longer",
    "coarse_stream": "the chunks came in few bursts, or with a long gap between them, so they hide"
    " the pace of the tokens; look for a proxy in between, or an engine that stalls",
    "overloaded": "requests arrived faster than they were answered, so their latencies say how long"
    " was measured, not how fast the server is; lower --rate, or look for it with --find-rate",
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
    "above_ceiling": "faster than the memory can deliver what a step reads, by the bandwidth that"
    " is known: measure that on a quiet machine (tokrig rig --bandwidth), and look for a slip in"
    " the figure",
    "implausible": "faster than the memory can deliver that model's weights, or several times as"
    " fast as the same model elsewhere; look for a slip in the figure",
    "samples": "the figures came without samples, so the requests behind them cannot be looked at:"
    " their errors, their lengths, the client's load",
    # unverified: figures of other tools
    "mean_not_median": "the file has a mean where tokrig has a median; one slow request moves it",
    "chunks_as_tokens": "the tool counts the chunks of a stream as tokens: too few where a chunk"
    " carries several, as with speculative decoding",
    "chunks_at_once": "the gaps between chunks include those of chunks that came at once",
    "tpot_with_ttft": "the time per token contains the time to the first one, so it is longer and"
    " the rate lower than tokrig's, the more so the shorter the answer",
    "weighted_by_tokens": "the median is over tokens, not over requests: long answers count more",
    "prefill_from_ttft": "the prefill rate is prompt tokens by the time to the first token: the"
    " network, the queue and the first token are in it",
    "cache_untold": "what of the prompt came from the engine's cache is not told, so the prefill"
    " rate may be too high, or too low",
    "engine_clock": "the rate is by the engine's own clock; no client saw the tokens come",
    # unchecked
    "warm_up_untold": "the file does not say whether there was a warm-up",
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
    inside a block means that nobody looked. ``told`` is the verdict in the record: version 1 said
    some of what was seen by its codes alone."""

    workload: WorkloadFacts
    cell: Cell = field(default_factory=lambda: Cell("", 1))
    arrivals: Arrivals | None = None
    backend: BackendFacts = field(default_factory=lambda: BackendFacts(name="", engine=""))
    mode: Mode = field(default_factory=Mode)
    model: Model = field(default_factory=lambda: Model(family=""))
    rig: Rig = field(default_factory=lambda: Rig(id=""))
    interference: Interference = field(default_factory=Interference)
    memory: PeakMemory = field(default_factory=PeakMemory)
    load_memory: LoadMemory = field(default_factory=LoadMemory)
    counters: Mapping[str, float] = field(default_factory=dict)
    client_cpu_share: float | None = None
    load_nodes: LoadNodes | None = None
    compared_greedy: bool = False
    ceiling_share: float | None = None
    told: Validity = field(default_factory=lambda: Validity(verdict="valid"))


@dataclass(frozen=True)
class _Case(Seen):
    """What was seen, with the measured requests of the result, those that were answered, and all
    that arrived by themselves."""

    measured: Sequence[Sample] = ()
    good: Sequence[Sample] = ()
    arrived: Sequence[Sample] = ()

    @cached_property
    def prompts(self) -> list[int | None]:
        return [s.prompt_tokens for s in self.good]

    @cached_property
    def outputs(self) -> list[int | None]:
        return [s.output_tokens for s in self.good]

    @cached_property
    def confirmed(self) -> bool:
        return counters_confirm(self.good, self.counters)

    @cached_property
    def coarse(self) -> list[Sample]:
        return [s for s in self.good if is_coarse(s)]

    @cached_property
    def pace_known(self) -> bool:
        """Where the engine's clock has the same rate, only the pace between tokens is open."""
        return self.confirmed or all(map(clock_confirms, self.coarse))

    @cached_property
    def differences(self) -> list[float]:
        """Of the clocks, request by request; else of all together."""
        each = [d for d in map(clock_difference, self.good) if d is not None]
        counted = None if each else counted_difference(self.good, self.counters)
        return each if counted is None else [counted]

    @cached_property
    def cache_silent(self) -> bool:
        silent = any(s.cached_tokens is None for s in self.good)
        return silent and "cached_tokens" not in self.counters

    @property
    def is_session(self) -> bool:
        return self.cell.load == "session"

    @property
    def reused(self) -> bool:
        """Whether cached tokens came where none should."""
        return not self.is_session and any(s.cached_tokens for s in self.good)

    @cached_property
    def drafted(self) -> bool:
        told = any(s.drafted_tokens for s in self.good)
        return told or bool(self.counters.get("drafted_tokens"))

    @cached_property
    def starved(self) -> bool | None:
        return foreign_cpu_load(self.interference, self.backend, self.mode)

    @cached_property
    def needs_card(self) -> bool:
        return computed_on(self.backend, self.mode) != {"cpu"}

    @property
    def kept_apart(self) -> bool | None:
        return self.backend.prompting.kept_apart

    @property
    def card_users(self) -> int | None:
        return self.interference.foreign_gpu_processes

    def said(self, code: str) -> bool:
        """Whether the record's own verdict has a code."""
        return code in self.told.reasons + self.told.unchecked


def _wrong_prompt(case: _Case) -> bool:
    shape = case.workload
    if case.is_session:
        return _wrong_turn(case)
    target = shape.target_prompt_tokens or shape.prompt_tokens
    return any(
        s.prompt_tokens is not None and wanted is not None and _off_length(s.prompt_tokens, wanted)
        for s in case.good
        for wanted in (s.prompt_tokens_asked or target,)
    )


def _wrong_turn(case: _Case) -> bool:
    """Whether a prompt is not as long as it was counted before; where nobody counted, not longer
    than that of the turn before, as one that the server cut would be."""
    counted = case.workload.turn_prompt_tokens
    if not counted:
        return any(
            b.prompt_tokens is not None and (a.prompt_tokens or 0) >= b.prompt_tokens
            for walk in walks(case.good)
            for a, b in pairwise(walk)
        )
    return any(
        s.prompt_tokens is not None
        and _off_length(s.prompt_tokens, counted[s.variant][s.iteration])
        for s in case.good
    )


def _off_length(tokens: int, target: int) -> bool:
    return abs(tokens - target) > max(PROMPT_TOKENS, round(target * PROMPT_SHARE))


def _warm_first_turn(case: _Case) -> bool:
    """Nothing but the template's opening is the same in two sessions: each has its salt."""
    template = case.backend.prompting.template_tokens or 0
    return case.is_session and any(
        (s.cached_tokens or 0) > max(template, OPENING_TOKENS)
        for s in case.good
        if s.iteration == 0
    )


def _wrong_length(case: _Case) -> bool:
    """Uncounted answers tell their length by their end."""
    by_turn, asked = case.workload.turn_answer_tokens, case.workload.answer_tokens
    return any(
        s.finish_reason in ENDED_EARLY
        if s.output_tokens is None
        else s.output_tokens
        != (by_turn[s.iteration] if by_turn else s.output_tokens_asked or asked)
        for s in case.good
    )


def _wrong_length_1(case: _Case) -> bool:
    asked = case.workload.answer_tokens or 0
    return any(n is not None and n != asked for n in case.outputs)


def _uncounted(case: _Case) -> bool:
    """Rates of all requests that agree with the engine's sums are of the right tokens."""
    unconfirmed = any(s.output_tokens is None or s.counted_by is None for s in case.good)
    return unconfirmed and not case.confirmed


def _miscounted(case: _Case) -> bool:
    """Is the number of tokens what the sources say, all of them?"""
    if any((s.count_disagreement or 0) > COUNT_MISMATCH for s in case.good):
        return True
    if any(map(_fewer_tokens_than_chunks, case.good)):
        return True
    served = case.counters.get("output_tokens")
    if served is None or None in case.outputs:
        return False
    # More than ours: the server answered somebody else while it was measured.
    ours = sum(n or 0 for n in case.outputs)
    return abs(served - ours) > COUNT_MISMATCH * ours


def _fewer_tokens_than_chunks(sample: Sample) -> bool:
    """Every chunk carries a token; only the last may be a rest of text that was held back. Unless
    the text was cut up otherwise on its way, and holds as many tokens as were counted."""
    tokens = sample.output_tokens if sample.counted_by != "tokenizer" else None
    return tokens is not None and len(sample.chunks) > tokens * (1 + COUNT_MISMATCH) + 1


def _impossible(sample: Sample) -> bool:
    """Time cannot run backwards, and more than one token takes some."""
    timings = sample.timings
    if timings is None:
        return False
    return min(timings.prompt_ms, timings.decode_ms) < 0 or (
        timings.decode_tokens > 1 and timings.decode_ms == 0
    )


def too_few_at_once(good: Sequence[Sample], asked: int, slots: int | None) -> bool:
    """Whether fewer of the answered requests were served at once than asked."""
    mean = concurrency_mean(good)
    return bool(slots and slots < asked) or (mean is not None and mean < CONCURRENCY_SHARE * asked)


def _clocks_apart(case: _Case) -> bool:
    """Where requests stand among each other is known no better than the clocks of their senders."""
    off_s = case.load_nodes.clock_uncertainty_s if case.load_nodes else None
    if off_s is None:
        return False
    spans: dict[int, list[int]] = {}
    for s in case.good:
        if s.chunks:
            spans.setdefault(s.repeat, []).extend((s.sent_ns, s.sent_ns + s.chunks[-1].t_ns))
    return any(off_s * 1e9 > CLOCKS_SHARE * (max(span) - min(span)) for span in spans.values())


def _one_start(case: _Case) -> bool:
    repeats = {s.repeat for s in case.measured}
    return case.backend.managed is False and len(repeats) > 1


def _clock_missing(case: _Case) -> bool:
    """Whether not each request could be held against the engine's clock, nor all against its
    sums."""
    each = [clock_difference(s) is not None for s in case.good]
    return not all(each) if any(each) else not case.differences


def _other_api(case: _Case) -> bool:
    backend = case.backend
    confirmed = backend.api == backend.api_asked and backend.api_confirmed is True
    return backend.api_asked is not None and not confirmed


def reasoned(sample: Sample) -> bool:
    """Whether there was a thought, shown or only counted. Markers around nothing are none."""
    shown = sample.stream.text_of(Kind.REASONING)
    return bool(_MARKERS.sub("", shown).strip()) or bool(not shown and sample.reasoning_tokens)


def _still_reasoned(case: _Case) -> bool:
    return case.mode.reasoning_asked == "off" and any(map(reasoned, case.good))


def _still_reasoned_1(case: _Case) -> bool:
    shown = any(Kind.REASONING in s.stream.kinds for s in case.good)
    return case.mode.reasoning_asked == "off" and shown


def _did_not_reason(case: _Case) -> bool:
    mode = case.mode
    silent = mode.reasoning_observed is False and not any(map(reasoned, case.good))
    return mode.reasoning_asked == "on" and silent


def _no_rate(case: _Case) -> bool:
    return not any(told_tok_per_s(s, case.confirmed) for s in case.good)


def _fit_unknown(case: _Case) -> bool:
    return case.load_memory.spilled is None and case.load_memory.doubt is None


def _not_resident(case: _Case) -> bool:
    held, looked_up = case.memory.engine_rss_bytes, case.load_memory.looked_up_bytes
    return not_resident(case.model, case.backend, held, looked_up, case.mode.offload)


def _card_unseen(case: _Case) -> bool:
    there = bool(case.rig.gpus) or not gpus_known(case.rig)
    return there and case.card_users is None


# When a code stands in a list of the verdict.
Rule = tuple[Literal["reasons", "unverified", "unchecked"], str, Callable[[_Case], object]]

RULES: tuple[Rule, ...] = (
    (
        "reasons",
        "request_errors",
        lambda c: any(s.error not in (None, *GIVEN_UP) for s in c.measured),
    ),
    ("reasons", "no_tokens", lambda c: not any(s.output_tokens or s.chunks for s in c.good)),
    # Prompts and answers of the length that was asked for, nothing of them from a cache.
    ("reasons", "prompt_length", _wrong_prompt),
    ("unverified", "prompt_length_unverified", lambda c: None in c.prompts),
    ("unchecked", "output_length_limit", lambda c: None in [s.finish_reason for s in c.good]),
    ("reasons", "cached_tokens", lambda c: c.reused),
    # Do the counts and the clocks agree?
    ("reasons", "count_mismatch", _miscounted),
    ("unchecked", "server_clock", _clock_missing),
    ("reasons", "timings_impossible", lambda c: any(map(_impossible, c.good))),
    # Was what was asked for what was done?
    ("reasons", "api_not_confirmed", _other_api),
    ("reasons", "speculation_inactive", lambda c: c.mode.speculative and not c.drafted),
    ("unverified", "greedy_unverified", lambda c: c.mode.speculative and not c.compared_greedy),
)
RULES_1: tuple[Rule, ...] = (
    ("unverified", "repeats_share_a_start", _one_start),
    ("reasons", "output_length", _wrong_length_1),
    ("unchecked", "cache", lambda c: any(s.cached_tokens is None for s in c.good)),
    ("unverified", "token_count_unverified", lambda c: None in c.outputs),
    ("unverified", "first_chunk_assumed", lambda c: any(s.first_chunk_assumed for s in c.good)),
    ("reasons", "clock_mismatch", lambda c: abs(median(c.differences) or 0) > CLOCK_MISMATCH),
    ("unverified", "api_unverified", lambda c: not (c.backend.api and c.backend.api_confirmed)),
    ("reasons", "reasoning_off_not_honoured", _still_reasoned_1),
    ("reasons", "client_bound", lambda c: (c.client_cpu_share or 0) > CLIENT_CPU_SHARE),
    ("reasons", "throttled", lambda c: not c.said("throttle") and c.interference.throttle_reasons),
    ("unchecked", "throttle", lambda c: c.said("throttle")),
    ("reasons", "foreign_gpu_load", lambda c: c.card_users),
    ("unchecked", "gpu_processes", lambda c: c.rig.gpus and _card_unseen(c)),
    ("reasons", "cpu_spill", lambda c: c.said("cpu_spill") and not c.said("vram_fit")),
    ("unchecked", "vram_fit", lambda c: c.said("vram_fit")),
    ("reasons", "not_resident", lambda c: c.said("not_resident")),
)
"""What methodology 1 had instead; frozen."""

RULES_2: tuple[Rule, ...] = (
    ("reasons", "output_length", _wrong_length),
    ("reasons", "cached_tokens", lambda c: not c.is_session and c.counters.get("cached_tokens")),
    ("reasons", "cached_tokens", lambda c: c.cache_silent and c.kept_apart is False),
    ("reasons", "warm_first_turn", _warm_first_turn),
    ("unchecked", "cache", lambda c: c.cache_silent and (c.kept_apart is None or c.is_session)),
    # Do the counts and the stamps tell how fast the tokens came?
    ("unverified", "token_count_unverified", _uncounted),
    ("unverified", "no_rate", _no_rate),
    ("unverified", "above_ceiling", lambda c: (c.ceiling_share or 0.0) > ABOVE_CEILING),
    ("unverified", "clocks_apart", _clocks_apart),
    ("unverified", "coarse_stream", lambda c: c.coarse and not c.pace_known),
    ("unchecked", "coarse_stream", lambda c: c.coarse and c.pace_known),
    ("reasons", "clock_mismatch", lambda c: any(abs(d) > CLOCK_MISMATCH for d in c.differences)),
    (
        "reasons",
        "concurrency_not_reached",
        lambda c: (
            not c.cell.is_open
            and too_few_at_once(c.good, c.cell.concurrency, c.backend.resolved.slots)
        ),
    ),
    # Was what was asked for what was done? A running server may speculate unasked.
    ("unverified", "api_unverified", lambda c: c.backend.api and not c.backend.api_confirmed),
    ("unchecked", "api", lambda c: c.backend.api is None),
    ("unverified", "greedy_unverified", lambda c: c.drafted and not c.compared_greedy),
    ("reasons", "reasoning_off_not_honoured", _still_reasoned),
    ("reasons", "setting_ignored", lambda c: ignored(c.backend)),
    ("unverified", "setting_unverified", lambda c: untold(c.backend)),
    ("unverified", "setting_unverified", _did_not_reason),
    # Was the model where it should be?
    ("reasons", "cpu_spill", lambda c: c.load_memory.spilled),
    ("unverified", "placement_unverified", lambda c: c.load_memory.doubt is not None),
    ("unchecked", "vram_fit", _fit_unknown),
    ("reasons", "not_resident", _not_resident),
    # Did something else take the processor from engine or client? Was the card held back, or
    # shared? Whoever uses it takes nothing from what computes on the processor.
    ("reasons", "foreign_cpu_load", lambda c: c.starved),
    ("unchecked", "scheduling", lambda c: c.starved is None),
    ("reasons", "client_bound", lambda c: client_bound(c.interference, c.client_cpu_share)),
    ("reasons", "client_bound", lambda c: c.arrivals and sends_late(c.arrived)),
    ("reasons", "client_bound", lambda c: near_ceiling(c.interference, c.good)),
    ("unverified", "overloaded", lambda c: c.arrivals and overloaded(c.arrived, c.arrivals)),
    # Whether a machine stays cool is what a sustained load is to find.
    ("reasons", "throttled", lambda c: c.cell.load != "sustained" and throttled(c.interference)),
    ("unchecked", "throttle", lambda c: throttled(c.interference) is None),
    ("reasons", "foreign_gpu_load", lambda c: c.needs_card and c.card_users),
    ("unchecked", "gpu_processes", lambda c: c.needs_card and _card_unseen(c)),
    ("unverified", "gpu_was_busy", lambda c: c.needs_card and gpu_was_busy(c.interference)),
)


def judge(
    samples: Sequence[Sample], seen: Seen, *, methodology: int = METHODOLOGY_VERSION
) -> Validity:
    """The verdict on one result. ``seen.workload`` has the lengths that were asked for."""
    measured = [s for s in samples if s.phase == "measured"]
    good = [s for s in measured if s.error is None]
    arrived = [s for s in samples if s.due_ns is not None]
    case = _Case(**vars(seen), measured=measured, good=good, arrived=arrived)
    found: dict[str, list[str]] = {"reasons": [], "unverified": [], "unchecked": []}
    for codes, code, holds in RULES + (RULES_1 if methodology == 1 else RULES_2):
        if code not in found[codes] and holds(case):
            found[codes].append(code)
    return _validity(bool(found["reasons"]), methodology, **found)


def judge_run(
    results: Iterable[Result],
    *,
    complete: bool,
    methodology: int = METHODOLOGY_VERSION,
    ladders: Sequence[Ladder] = (),
) -> Validity:
    """A run is valid when it is complete and all its results are; lists are the unions. What a
    search is to find is no doubt: a server that falls behind only above a rate at which it did
    not, and requests that wait at the last step of a ladder."""
    results = list(results)
    waited = [one for one in ladders if one.ended_by == "slots"]
    kept_up = [r for r in results if "overloaded" not in r.validity.unverified]
    each = []
    for result in results:
        found = set()
        if any(_is_below(other, result) for other in kept_up):
            found.add("overloaded")
        if any(one.has(result.cell) and one.steps[-1] == result.concurrency for one in waited):
            found.add("concurrency_not_reached")
        lists = {
            name: [code for code in getattr(result.validity, name) if code not in found]
            for name in ("reasons", "unverified")
        }
        each.append(result.validity.model_copy(update=lists))
    reasons = _union(v.reasons for v in each) + ([] if complete else ["incomplete"])
    return _validity(
        bool(reasons) or not each,
        methodology,
        reasons=reasons,
        unverified=_union(v.unverified for v in each),
        unchecked=_union(v.unchecked for v in each),
    )


def _is_below(one: Result, other: Result) -> bool:
    """Whether it is of the same load at a lower rate."""
    return same_load(one.cell, other.cell) and (one.rate_per_s or 0) < (other.rate_per_s or 0)


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(code for codes in lists for code in codes))


def _validity(failed: bool, methodology: int, **found: list[str]) -> Validity:
    return Validity(verdict=verdict(failed, found["unverified"], methodology), **found)


def verdict(
    failed: bool, unverified: Sequence[str], methodology: int = METHODOLOGY_VERSION
) -> Verdict:
    """The word for what was found: one failed check outweighs everything. Version 1 knew two."""
    doubted = methodology > 1 and unverified
    return "invalid" if failed else "unverified" if doubted else "valid"


def headline(record: Record) -> list[Result]:
    """The results that may be shown as headline numbers: those that failed nothing and are
    plausible. Where one is unverified, its mark is shown with it."""
    return [r for r in record.plain if r.validity.stands]


# Raw figures of an engine's own benchmark: there are no requests, only what was seen beside it

UNLOOKED = {
    "foreign_cpu_load": "scheduling",
    "throttled": "throttle",
    "foreign_gpu_load": "gpu_processes",
    "cpu_spill": "vram_fit",
}
"""What is unchecked where nobody looked for a reason."""


def judge_raw(
    figures: int,
    backend: BackendFacts,
    seen: Mapping[str, bool | None],
    *,
    complete: bool,
    methodology: int = METHODOLOGY_VERSION,
) -> Validity:
    """Valid when the program finished with figures and nothing speaks against them. ``seen`` tells
    which reasons of ``UNLOOKED`` hold; None where nobody looked.

    ``api_unverified`` is also said where the weights' place names an API but another device
    took part.
    """
    if not figures:
        return judge_run([], complete=complete)
    other_api = backend.api_asked is not None and backend.api != backend.api_asked
    reasons = ["api_not_confirmed"] if other_api else []
    reasons += [reason for reason in UNLOOKED if seen[reason]]
    reasons += [] if complete else ["incomplete"]
    return _validity(
        bool(reasons),
        methodology,
        reasons=reasons,
        unverified=[] if backend.api_confirmed else ["api_unverified"],
        unchecked=[code for reason, code in UNLOOKED.items() if seen[reason] is None],
    )


# The machine


# The model


# The settings
