"""From samples to figures. Pure: no I/O, no clock. The definitions are METHODOLOGY's.

``figures`` is all that a result publishes that follows from its samples alone; ``tokrig check``
calls it again and compares.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

import numpy as np

from tokrig.record.concurrency import concurrency_mean
from tokrig.record.model import Metric, Percentiles, ServerTimings, Speculative
from tokrig.record.pace import (
    CLOCK_CONFIRMS,
    RATE_UNCERTAINTY,
    SAME_WINDOW,
    decoded_tokens,
    gaps_ns,
    is_coarse,
    rate_uncertainty,
)
from tokrig.record.samples import Kind, Sample
from tokrig.record.versions import METHODOLOGY_VERSION
from tokrig.units import significant

Counters = Mapping[str, float]
MIN_REPEATS_FOR_INTERVAL = 6
RESAMPLES = 10_000
# How many values a percentile needs before it means anything.
PERCENTILES_NEED = {"p90": 64, "p95": 130, "p99": 662}
DIGITS = 6
# Client and engine further apart than this on the decode rate of a request disagree.
CLOCK_MISMATCH = 0.03
# A TTFT of which the tokens of its first chunk took more than this is no prefill.
TTFT_DECODE_SHARE = 0.01


def ttft_s(sample: Sample) -> float | None:
    """First token-bearing chunk − request sent."""
    return sample.chunks[0].t_ns / 1e9 if sample.chunks else None


def ttfa_s(sample: Sample) -> float | None:
    """First content chunk that is more than white space − request sent; None when no answer
    arrived, never a copy of TTFT."""
    answers = (c for c in sample.chunks if c.kind is Kind.CONTENT and not c.text.isspace())
    return next((c.t_ns / 1e9 for c in answers), None)


def _ttfa_1_s(sample: Sample) -> float | None:
    """TTFA of methodology 1, to which white space was an answer."""
    return next((c.t_ns / 1e9 for c in sample.chunks if c.kind is Kind.CONTENT), None)


def tpot_s(sample: Sample) -> float | None:
    """(t_last − t_first) / (N − n_first − hidden), s per token; None below one such token."""
    tokens = decoded_tokens(sample)
    if tokens is None or tokens < 1 or not sample.chunks:
        return None
    elapsed_s = (sample.chunks[-1].t_ns - sample.chunks[0].t_ns) / 1e9
    return elapsed_s / tokens if elapsed_s > 0 else None


def output_tok_per_s(sample: Sample) -> float | None:
    """Decode rate, 1 / TPOT, as the stamps have it."""
    tpot = tpot_s(sample)
    return 1 / tpot if tpot else None


def told_tpot_s(sample: Sample, confirmed: bool = False) -> float | None:
    """TPOT where the stream can tell it: None where its deliveries leave too much open, unless
    the engine's clock has the same rate for this request, or for all (``confirmed``)."""
    if not confirmed and rate_uncertainty(sample) > RATE_UNCERTAINTY and not clock_confirms(sample):
        return None
    return tpot_s(sample)


def told_tok_per_s(sample: Sample, confirmed: bool = False) -> float | None:
    """The decode rate where the stream can tell it: the headline."""
    tpot = told_tpot_s(sample, confirmed)
    return 1 / tpot if tpot else None


def prefill_tok_per_s(sample: Sample) -> float | None:
    """Uncached prompt tokens / the server's prompt time."""
    timings = sample.timings
    if timings is None or timings.prompt_ms <= 0 or timings.prompt_tokens <= 0:
        return None
    return timings.prompt_tokens / timings.prompt_ms * 1e3


def known_prefill_tok_per_s(sample: Sample) -> float | None:
    """The same where the server tells what its prompt time left out: the cached tokens."""
    return None if sample.cached_tokens is None else prefill_tok_per_s(sample)


def ttft_prefill_tok_per_s(sample: Sample, cached: float = 0.0) -> float | None:
    """Uncached prompt tokens / TTFT, where the server gives no prompt time. ``cached`` are those
    that others than the server's answer tell."""
    ttft = ttft_s(sample)
    if sample.prompt_tokens is None or not ttft:
        return None
    uncached = sample.prompt_tokens - (
        cached if sample.cached_tokens is None else sample.cached_tokens
    )
    return uncached / ttft if uncached > 0 else None


def _ttft_is_prefill(sample: Sample) -> bool:
    """Whether nothing but the prompt and one token lies before the first stamp: no other request,
    no hidden token, no long first chunk."""
    ttft, tpot, first = ttft_s(sample), tpot_s(sample), sample.first_chunk_tokens
    if sample.concurrency != 1 or sample.hidden_tokens or not ttft or first is None:
        return False
    return first <= 1 or (tpot is not None and (first - 1) * tpot <= TTFT_DECODE_SHARE * ttft)


def end_to_end_tok_per_s(sample: Sample) -> float | None:
    """N / (t_last − sent)."""
    if sample.output_tokens is None or not sample.chunks:
        return None
    return sample.output_tokens / (sample.chunks[-1].t_ns / 1e9)


def useful_tok_per_s(sample: Sample) -> float | None:
    """Content tokens / (t_last − sent); 0 when the budget ended inside the reasoning."""
    if sample.content_tokens is None or not sample.chunks:
        return None
    return sample.content_tokens / (sample.chunks[-1].t_ns / 1e9)


def server_tok_per_s(sample: Sample) -> float | None:
    """The engine's decode rate after the definition's correction.

    llama.cpp's clock starts at the first token but counts it: × (N − 1)/N.
    """
    timings = sample.timings
    if timings is None or timings.decode_ms <= 0:
        return None
    tokens = timings.decode_tokens - (1 if timings.counts_first else 0)
    return tokens / timings.decode_ms * 1e3 if tokens > 0 else None


def counted_tok_per_s(counters: Counters) -> float | None:
    """The decode rate of all requests together from an engine's sums: their decode times run from
    the first token to the last, so one token a request is not in them."""
    tokens = counters.get("output_tokens", 0.0) - counters.get("requests", 0.0)
    seconds = counters.get("decode_s", 0.0)
    known = counters.get("requests", 0.0) > 0
    return tokens / seconds if known and tokens > 0 and seconds > 0 else None


def counted_prefill_tok_per_s(counters: Counters) -> float | None:
    """Uncached prompt tokens of all requests / their summed prompt times."""
    tokens = counters.get("prompt_tokens", 0.0) - counters.get("cached_tokens", 0.0)
    seconds = counters.get("prefill_s", 0.0)
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def counted_difference(samples: Sequence[Sample], counters: Counters) -> float | None:
    """Client decode rate of all requests together / the engine's counted one − 1."""
    tokens, elapsed_s = 0, 0.0
    for sample in samples:
        if tpot := tpot_s(sample):
            counted = decoded_tokens(sample) or 0
            tokens += counted
            elapsed_s += tpot * counted
    server = counted_tok_per_s(counters)
    return tokens / elapsed_s / server - 1 if elapsed_s and server else None


def clock_difference(sample: Sample) -> float | None:
    """Client decode rate / corrected server rate − 1."""
    client, server = output_tok_per_s(sample), server_tok_per_s(sample)
    return client / server - 1 if client and server else None


def clock_confirms(sample: Sample) -> bool:
    """Whether the engine's own clock has the same rate for this request, of the same tokens."""
    difference, decoded = clock_difference(sample), decoded_tokens(sample)
    if difference is None or not decoded or decoded < SAME_WINDOW * (sample.output_tokens or 0):
        return False
    return abs(difference) <= CLOCK_CONFIRMS


def counters_confirm(samples: Sequence[Sample], counters: Counters) -> bool:
    """Whether the engine's own sums have the same rate for all requests together."""
    difference = counted_difference(samples, counters)
    all_counted = all(tpot_s(sample) for sample in samples)
    return all_counted and difference is not None and abs(difference) <= CLOCK_CONFIRMS


@dataclass(frozen=True)
class Figures:
    """Everything about one workload × concurrency that its samples determine."""

    repeats: int
    requests: int
    request_errors: int
    output_tok_per_s: Metric | None
    prefill_tok_per_s: Metric | None
    prefill_source: str | None
    ttft_s: Metric | None
    ttfa_s: Metric | None
    tpot_s: Metric | None
    icl_s: Percentiles | None
    end_to_end_tok_per_s: Metric | None
    useful_tok_per_s: Metric | None
    system_tok_per_s: Metric | None
    concurrency_mean: float | None
    prompt_tokens: Metric | None
    output_tokens: Metric | None
    reasoning_tokens_median: float | None
    content_tokens_median: float | None
    tool_call_tokens_median: float | None
    hidden_tokens_median: float | None
    answered_share: float | None
    cached_tokens: int | None
    token_count_source: str | None
    finish_reasons: dict[str, int]
    speculative: Speculative | None
    server: ServerTimings | None


class How(TypedDict, total=False):
    """How values are summed up; see ``summary``."""

    starts: int
    by_start: bool


def figures(
    samples: Sequence[Sample],
    counters: Counters | None = None,
    *,
    methodology: int = METHODOLOGY_VERSION,
    starts: int | None = None,
) -> Figures:
    """All figures of the measured samples of *one* workload at one concurrency. ``counters`` are
    what the engine's own sums grew by meanwhile; they serve where the samples carry no timings.
    ``methodology`` is the version that the samples were taken under, ``starts`` how many starts of
    the engine the repeats stand for: each for one, where it is not said."""
    counters = counters or {}
    measured = [s for s in samples if s.phase == "measured"]
    good = [s for s in measured if s.error is None]
    repeats, first = len({s.repeat for s in measured}), methodology == 1
    starts = repeats if starts is None or first else min(starts, repeats)
    # What a comparison needs of its figures; version 1 did not keep it.
    how: How = {"starts": starts, "by_start": not first and starts == repeats}
    prefill, prefill_source = _prefill(good, counters, first, how)
    ttfa = _ttfa_1_s if first else ttfa_s
    confirmed = first or counters_confirm(good, counters)
    return Figures(
        repeats=repeats,
        requests=len(measured),
        request_errors=len(measured) - len(good),
        output_tok_per_s=metric(good, lambda s: told_tok_per_s(s, confirmed), **how),
        prefill_tok_per_s=prefill,
        prefill_source=prefill_source if prefill else None,
        ttft_s=metric(good, ttft_s, **how),
        ttfa_s=metric(good, ttfa, starts=starts),
        tpot_s=metric(good, lambda s: told_tpot_s(s, confirmed), starts=starts),
        icl_s=_inter_chunk_1_s(good) if first else inter_chunk_s(good),
        end_to_end_tok_per_s=metric(good, end_to_end_tok_per_s, **how),
        useful_tok_per_s=metric(good, useful_tok_per_s, starts=starts),
        system_tok_per_s=system_tok_per_s(good, **how),
        concurrency_mean=None if first else concurrency_mean(good),
        prompt_tokens=metric(good, lambda s: s.prompt_tokens, starts=starts),
        output_tokens=metric(good, lambda s: s.output_tokens, starts=starts),
        reasoning_tokens_median=_median(s.reasoning_tokens for s in good),
        content_tokens_median=_median(s.content_tokens for s in good),
        tool_call_tokens_median=_median(s.tool_call_tokens for s in good),
        hidden_tokens_median=_median(s.hidden_tokens for s in good),
        answered_share=_share(good, lambda s: ttfa(s) is not None),
        cached_tokens=_sum(s.cached_tokens for s in good),
        token_count_source="+".join(sorted({s.count_source for s in good if s.count_source}))
        or None,
        finish_reasons=dict(sorted(Counter(s.finish_reason or "none" for s in good).items())),
        speculative=_speculative_1(good, counters) if first else _speculative(good, counters),
        server=_server(good, first, starts) or _counted_server(good, counters, first),
    )


def _prefill(
    good: Sequence[Sample], counters: Counters, first: bool, how: How
) -> tuple[Metric | None, str]:
    """The prefill rate by the server's clock, its sums, else by TTFT; and which of them."""
    found = metric(good, prefill_tok_per_s if first else known_prefill_tok_per_s, **how)
    known = first or "cached_tokens" in counters
    if found is None and known and (counted := counted_prefill_tok_per_s(counters)):
        found = Metric(median=significant(counted, DIGITS), n=len(good))
    if found is not None:
        return found, "server"
    if first:
        return metric(good, ttft_prefill_tok_per_s, **how), "ttft_derived"
    cached = counters.get("cached_tokens", 0.0) / max(len(good), 1)
    plain = [s for s in good if _ttft_is_prefill(s)]
    return metric(plain, lambda s: ttft_prefill_tok_per_s(s, cached), **how), "ttft_derived"


def metric(
    samples: Sequence[Sample],
    value: Callable[[Sample], float | int | None],
    *,
    starts: int | None = None,
    by_start: bool = False,
) -> Metric | None:
    """Median of the repeats' medians, range over all values, interval from 6 starts on."""
    by_repeat: dict[int, list[float]] = {}
    for sample in samples:
        found = value(sample)
        if found is not None:
            by_repeat.setdefault(sample.repeat, []).append(float(found))
    groups = [by_repeat[repeat] for repeat in sorted(by_repeat)]
    return summary(groups, starts=starts, by_start=by_start)


def summary(
    groups: Sequence[Sequence[float]], *, starts: int | None = None, by_start: bool = False
) -> Metric | None:
    """A Metric over values grouped by repeat; None without values. ``starts`` is how many starts
    of the engine they stand for, if not as many. ``by_start`` keeps the repeats' medians, where
    there are several."""
    if not groups:
        return None
    values = [v for group in groups for v in group]
    medians = [statistics.median(group) for group in groups]
    enough = min(len(groups), starts or len(groups)) >= MIN_REPEATS_FOR_INTERVAL
    return Metric(
        median=significant(statistics.median(medians), DIGITS),
        min=significant(min(values), DIGITS),
        max=significant(max(values), DIGITS),
        n=len(values),
        ci95=interval(groups) if enough else None,
        starts=[significant(one, DIGITS) for one in medians]
        if by_start and len(medians) > 1
        else [],
    )


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % percentile bootstrap of the median of medians: repeats first, then requests in them.

    Random indices come from PCG64's raw stream, which numpy guarantees never to change, so that
    the same samples give the same interval in every version.
    """
    bits = np.random.PCG64(20261122)

    def draw(count: int, below: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        return (bits.random_raw(count) % below).astype(np.intp)

    count = len(groups)
    medians = np.empty((RESAMPLES, count))
    chosen = draw(RESAMPLES * count, count).reshape(RESAMPLES, count)
    for index, group in enumerate(groups):
        places = np.argwhere(chosen == index)
        values = np.asarray(group, dtype=float)
        picks = values[draw(len(places) * len(values), len(values))]
        medians[places[:, 0], places[:, 1]] = np.median(
            picks.reshape(len(places), len(values)), axis=1
        )
    low, high = np.percentile(np.median(medians, axis=1), [2.5, 97.5])
    return significant(float(low), DIGITS), significant(float(high), DIGITS)


def inter_chunk_s(samples: Sequence[Sample]) -> Percentiles | None:
    """Gaps between chunks that did not come at once, pooled. ITL only where a chunk carries one
    token. Where chunks hide the pace the gaps are those of deliveries: only the longest is told."""
    gaps = [gap / 1e9 for sample in samples if sample.chunks for gap in gaps_ns(sample)]
    if not gaps:
        return None
    longest = significant(max(gaps), DIGITS)
    if any(map(is_coarse, samples)):
        return Percentiles(max=longest, n=len(gaps))
    return _percentiles(gaps).model_copy(update={"max": longest})


def _inter_chunk_1_s(samples: Sequence[Sample]) -> Percentiles | None:
    """The gaps of methodology 1: between all chunks, those of one read included."""
    gaps = [
        (after.t_ns - before.t_ns) / 1e9
        for sample in samples
        for before, after in pairwise(sample.chunks)
    ]
    return _percentiles(gaps) if gaps else None


def _percentiles(gaps: Sequence[float]) -> Percentiles:
    shares = {
        name: significant(float(np.percentile(gaps, int(name[1:]))), DIGITS)
        for name, need in PERCENTILES_NEED.items()
        if len(gaps) >= need
    }
    return Percentiles(p50=significant(float(np.median(gaps)), DIGITS), **shares, n=len(gaps))


def usual_gap_s(samples: Iterable[Sample]) -> float | None:
    """The median time between two different stamps of a stream, as far as there are two."""
    stamps = [sorted({chunk.t_ns for chunk in sample.chunks}) for sample in samples]
    gaps = [(b - a) / 1e9 for times in stamps for a, b in pairwise(times)]
    return float(np.median(gaps)) if gaps else None


def system_tok_per_s(
    samples: Sequence[Sample], *, starts: int | None = None, by_start: bool = False
) -> Metric | None:
    """ΣN / wall time of each repeat's measured phase, first request sent to last token read."""
    rates: list[list[float]] = []
    for repeat in sorted({s.repeat for s in samples}):
        group = [s for s in samples if s.repeat == repeat and s.chunks]
        tokens = [s.output_tokens for s in group]
        known = [t for t in tokens if t is not None]
        if not known or len(known) < len(tokens):
            continue
        wall_ns = max(s.sent_ns + s.chunks[-1].t_ns for s in group) - min(s.sent_ns for s in group)
        if wall_ns > 0:
            rates.append([sum(known) / wall_ns * 1e9])
    return summary(rates, starts=starts, by_start=by_start)


def _server(samples: Sequence[Sample], first: bool, starts: int) -> ServerTimings | None:
    rate = metric(samples, server_tok_per_s, starts=starts)
    if rate is None:
        return None
    differences = [(d, s) for s in samples if (d := clock_difference(s)) is not None]
    difference = _median(d for d, _ in differences)
    prefill = prefill_tok_per_s if first else known_prefill_tok_per_s
    found = ServerTimings(
        output_tok_per_s=rate,
        prefill_tok_per_s=metric(samples, prefill, starts=starts),
        difference=None if difference is None else round(difference, 5),
    )
    if first or not differences:
        return found
    off = [_place(s) for d, s in differences if abs(d) > CLOCK_MISMATCH]
    largest = max((d for d, _ in differences), key=abs)
    return found.model_copy(update={"difference_largest": round(largest, 5), "off_clock": off})


def _place(sample: Sample) -> str:
    """Which request it was, for a person who looks at the samples."""
    return f"repeat {sample.repeat}, iteration {sample.iteration}, worker {sample.worker}"


def _counted_server(
    samples: Sequence[Sample], counters: Counters, first: bool
) -> ServerTimings | None:
    rate, prefill = counted_tok_per_s(counters), counted_prefill_tok_per_s(counters)
    if rate is None:
        return None
    if not first and "cached_tokens" not in counters:
        prefill = None
    difference = counted_difference(samples, counters)
    return ServerTimings(
        source="counters",
        output_tok_per_s=Metric(median=significant(rate, DIGITS), n=len(samples)),
        prefill_tok_per_s=Metric(median=significant(prefill, DIGITS), n=len(samples))
        if prefill
        else None,
        difference=None if difference is None else round(difference, 5),
    )


def _speculative(samples: Sequence[Sample], counters: Counters) -> Speculative | None:
    """From the samples, else from the engine's sums.

    The first token is the prompt's; each step of decoding yields one token and those accepted,
    whether something was drafted for it or not. So the steps are what is left of the tokens.
    Counters of drafts (vLLM) leave the steps without one out, and one that did not move says
    nothing: engines without speculation have it too.
    """
    told = [s for s in samples if s.drafted_tokens is not None]
    drafted, accepted = _sum(s.drafted_tokens for s in told), _sum(s.accepted_tokens for s in told)
    decoded: float | None = sum(s.output_tokens - 1 for s in told if s.output_tokens)
    if not told and counters.get("drafted_tokens"):
        drafted, accepted = int(counters["drafted_tokens"]), int(counters.get("accepted_tokens", 0))
        decoded = counters.get("output_tokens", 0.0) - counters.get("requests", 0.0)
    if drafted is None:
        return None
    accepted = accepted or 0
    steps = int(decoded or 0) - accepted
    return Speculative(
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance_rate=significant(accepted / drafted, DIGITS) if drafted else None,
        steps=steps if steps > 0 else None,
        acceptance_length=significant(1 + accepted / steps, DIGITS) if steps > 0 else None,
    )


def _speculative_1(samples: Sequence[Sample], counters: Counters) -> Speculative | None:
    """As methodology 1 had it: steps are known to the sums only, and are those with a draft."""
    drafted, accepted = _sum(s.drafted_tokens for s in samples), None
    if drafted is not None:
        accepted = _sum(s.accepted_tokens for s in samples)
    elif "drafted_tokens" in counters:
        drafted, accepted = int(counters["drafted_tokens"]), int(counters.get("accepted_tokens", 0))
    if drafted is None:
        return None
    accepted, steps = accepted or 0, int(counters.get("drafts", 0))
    return Speculative(
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance_rate=significant(accepted / drafted, DIGITS) if drafted else None,
        steps=steps or None,
        acceptance_length=significant(1 + accepted / steps, DIGITS) if steps else None,
    )


def _median(values: Iterable[float | int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(statistics.median(known)) if known else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _share(samples: Sequence[Sample], holds: Callable[[Sample], bool]) -> float | None:
    return round(sum(map(holds, samples)) / len(samples), 4) if samples else None
