"""From samples to figures. Pure: no I/O, no clock. The definitions are METHODOLOGY's.

``figures`` is all that a result publishes that follows from its samples alone; ``tokrig check``
calls it again and compares.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokrig.record.model import Metric, Percentiles, ServerTimings, Speculative
from tokrig.record.samples import Kind, Sample
from tokrig.record.versions import METHODOLOGY_VERSION
from tokrig.units import significant

Counters = Mapping[str, float]
MIN_REPEATS_FOR_INTERVAL = 6
RESAMPLES = 10_000
# How many values a percentile needs before it means anything.
PERCENTILES_NEED = {"p90": 64, "p95": 130, "p99": 662}
DIGITS = 6


def ttft_s(sample: Sample) -> float | None:
    """First token-bearing chunk − request sent."""
    return sample.chunks[0].t_ns / 1e9 if sample.chunks else None


def ttfa_s(sample: Sample) -> float | None:
    """First content chunk − request sent; None when no answer arrived, never a copy of TTFT."""
    return next((c.t_ns / 1e9 for c in sample.chunks if c.kind is Kind.CONTENT), None)


def tpot_s(sample: Sample) -> float | None:
    """(t_last − t_first) / (N − n_first), s per token; None when N − n_first < 1."""
    tokens, first = sample.output_tokens, sample.first_chunk_tokens
    if tokens is None or first is None or tokens - first < 1 or not sample.chunks:
        return None
    elapsed_s = (sample.chunks[-1].t_ns - sample.chunks[0].t_ns) / 1e9
    return elapsed_s / (tokens - first) if elapsed_s > 0 else None


def output_tok_per_s(sample: Sample) -> float | None:
    """Decode rate, 1 / TPOT: the headline."""
    tpot = tpot_s(sample)
    return 1 / tpot if tpot else None


def prefill_tok_per_s(sample: Sample) -> float | None:
    """Uncached prompt tokens / the server's prompt time."""
    timings = sample.timings
    if timings is None or timings.prompt_ms <= 0 or timings.prompt_tokens <= 0:
        return None
    return timings.prompt_tokens / timings.prompt_ms * 1e3


def ttft_prefill_tok_per_s(sample: Sample) -> float | None:
    """Uncached prompt tokens / TTFT, where the server gives no prompt time."""
    ttft = ttft_s(sample)
    if sample.prompt_tokens is None or not ttft:
        return None
    return (sample.prompt_tokens - (sample.cached_tokens or 0)) / ttft


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
            counted = (sample.output_tokens or 0) - (sample.first_chunk_tokens or 0)
            tokens += counted
            elapsed_s += tpot * counted
    server = counted_tok_per_s(counters)
    return tokens / elapsed_s / server - 1 if elapsed_s and server else None


def clock_difference(sample: Sample) -> float | None:
    """Client decode rate / corrected server rate − 1."""
    client, server = output_tok_per_s(sample), server_tok_per_s(sample)
    return client / server - 1 if client and server else None


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
    prompt_tokens: Metric | None
    output_tokens: Metric | None
    reasoning_tokens_median: float | None
    content_tokens_median: float | None
    answered_share: float | None
    cached_tokens: int | None
    token_count_source: str | None
    finish_reasons: dict[str, int]
    speculative: Speculative | None
    server: ServerTimings | None


def figures(
    samples: Sequence[Sample],
    counters: Counters | None = None,
    *,
    methodology: int = METHODOLOGY_VERSION,
) -> Figures:
    """All figures of the measured samples of *one* workload at one concurrency. ``counters`` are
    what the engine's own sums grew by meanwhile; they serve where the samples carry no timings.
    ``methodology`` is the version that the samples were taken under."""
    counters = counters or {}
    measured = [s for s in samples if s.phase == "measured"]
    good = [s for s in measured if s.error is None]
    # What a comparison needs of its figures; version 1 did not keep it.
    by_start = methodology > 1
    prefill, prefill_source = metric(good, prefill_tok_per_s, by_start=by_start), "server"
    if prefill is None and (counted := counted_prefill_tok_per_s(counters)):
        prefill = Metric(median=significant(counted, DIGITS), n=len(good))
    if prefill is None:
        prefill = metric(good, ttft_prefill_tok_per_s, by_start=by_start)
        prefill_source = "ttft_derived"
    return Figures(
        repeats=len({s.repeat for s in measured}),
        requests=len(measured),
        request_errors=len(measured) - len(good),
        output_tok_per_s=metric(good, output_tok_per_s, by_start=by_start),
        prefill_tok_per_s=prefill,
        prefill_source=prefill_source if prefill else None,
        ttft_s=metric(good, ttft_s, by_start=by_start),
        ttfa_s=metric(good, ttfa_s),
        tpot_s=metric(good, tpot_s),
        icl_s=inter_chunk_s(good),
        end_to_end_tok_per_s=metric(good, end_to_end_tok_per_s, by_start=by_start),
        useful_tok_per_s=metric(good, useful_tok_per_s),
        system_tok_per_s=system_tok_per_s(good, by_start=by_start),
        prompt_tokens=metric(good, lambda s: s.prompt_tokens),
        output_tokens=metric(good, lambda s: s.output_tokens),
        reasoning_tokens_median=_median(s.reasoning_tokens for s in good),
        content_tokens_median=_median(s.content_tokens for s in good),
        answered_share=_share(good, lambda s: ttfa_s(s) is not None),
        cached_tokens=_sum(s.cached_tokens for s in good),
        token_count_source="+".join(sorted({s.count_source for s in good if s.count_source}))
        or None,
        finish_reasons=dict(sorted(Counter(s.finish_reason or "none" for s in good).items())),
        speculative=_speculative(good, counters),
        server=_server(good) or _counted_server(good, counters),
    )


def metric(
    samples: Sequence[Sample],
    value: Callable[[Sample], float | int | None],
    *,
    by_start: bool = False,
) -> Metric | None:
    """Median of the repeats' medians, range over all values, interval from 6 repeats on."""
    by_repeat: dict[int, list[float]] = {}
    for sample in samples:
        found = value(sample)
        if found is not None:
            by_repeat.setdefault(sample.repeat, []).append(float(found))
    return summary([by_repeat[repeat] for repeat in sorted(by_repeat)], by_start=by_start)


def summary(groups: Sequence[Sequence[float]], *, by_start: bool = False) -> Metric | None:
    """A Metric over values grouped by repeat; None without values. ``by_start`` keeps the
    repeats' medians, where there are several."""
    if not groups:
        return None
    values = [v for group in groups for v in group]
    medians = [statistics.median(group) for group in groups]
    return Metric(
        median=significant(statistics.median(medians), DIGITS),
        min=significant(min(values), DIGITS),
        max=significant(max(values), DIGITS),
        n=len(values),
        ci95=interval(groups) if len(groups) >= MIN_REPEATS_FOR_INTERVAL else None,
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
    """Gaps between token-bearing chunks, pooled. ITL only where a chunk carries one token."""
    gaps = [
        (after.t_ns - before.t_ns) / 1e9
        for sample in samples
        for before, after in zip(sample.chunks, sample.chunks[1:], strict=False)
    ]
    if not gaps:
        return None
    shares = {
        name: significant(float(np.percentile(gaps, int(name[1:]))), DIGITS)
        for name, need in PERCENTILES_NEED.items()
        if len(gaps) >= need
    }
    return Percentiles(p50=significant(float(np.median(gaps)), DIGITS), **shares, n=len(gaps))


def system_tok_per_s(samples: Sequence[Sample], *, by_start: bool = False) -> Metric | None:
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
    return summary(rates, by_start=by_start)


def _server(samples: Sequence[Sample]) -> ServerTimings | None:
    rate = metric(samples, server_tok_per_s)
    if rate is None:
        return None
    difference = _median(clock_difference(s) for s in samples)
    return ServerTimings(
        output_tok_per_s=rate,
        prefill_tok_per_s=metric(samples, prefill_tok_per_s),
        difference=None if difference is None else round(difference, 5),
    )


def _counted_server(samples: Sequence[Sample], counters: Counters) -> ServerTimings | None:
    rate, prefill = counted_tok_per_s(counters), counted_prefill_tok_per_s(counters)
    if rate is None:
        return None
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
    """From the samples, else from the engine's sums; steps are known to the sums only."""
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
