"""The formulas of docs/methodology.md: of one request, of its engine's clock, of many requests.

Pure: no I/O, no clock. What methodology 1 defined otherwise stands last and changes no more.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tokrig.record.samples import (
    CLOCK_CONFIRMS,
    OTHER_TOKENS,
    RATE_UNCERTAINTY,
    Kind,
    Sample,
    clock_ran_over_the_same,
    decoded_tokens,
    gaps_ns,
    is_coarse,
    rate_uncertainty,
)
from tokrig.units import significant

# Both take a while to load, and lists of records need the table of metrics without them.
if TYPE_CHECKING:
    import numpy as np

    from tokrig.record.block import Percentiles, Summary
    from tokrig.record.loads import Arrivals
    from tokrig.record.model import ServerTimings, Speculative

Counters = Mapping[str, float]
Formula = Callable[[Sample], float | int | None]
MIN_REPEATS_FOR_INTERVAL = 6
RESAMPLES = 10_000
# How many values a percentile needs before it means anything.
PERCENTILES_NEED = {"p90": 64, "p95": 130, "p99": 662}
DIGITS = 6
# Client and engine further apart than this on the decode rate of a request disagree.
CLOCK_MISMATCH = 0.03
# A TTFT of which the tokens of its first chunk took more than this is no prefill.
TTFT_DECODE_SHARE = 0.01


@dataclass(frozen=True)
class Measured:
    """The answered requests (``good``) of one workload at one concurrency, of all that were
    ``requests``; ``counters`` are what the engine's own sums grew by meanwhile. ``starts`` is how
    many starts of the engine the repeats stand for; ``by_start`` says that each is one. ``arrived``
    are all requests that came by themselves, as ``arrivals`` asked, those of the warm-up window and
    those that failed included."""

    good: Sequence[Sample]
    requests: int = 0
    repeats: int = 0
    counters: Counters = field(default_factory=dict)
    starts: int | None = None
    by_start: bool = False
    arrivals: Arrivals | None = None
    arrived: Sequence[Sample] = ()

    @cached_property
    def confirmed(self) -> bool:
        return counters_confirm(self.good, self.counters)

    @cached_property
    def prefill(self) -> tuple[Summary | None, str]:
        return prefill(self)

    @cached_property
    def prefill_1(self) -> tuple[Summary | None, str]:
        return prefill_1(self)

    def summary(
        self, value: Formula, of: Sequence[Sample] | None = None, *, compared: bool = False
    ) -> Summary | None:
        """A figure over all requests, or those given; a ``compared`` one keeps its starts."""
        by_repeat: dict[int, list[float]] = {}
        for sample in self.good if of is None else of:
            found = value(sample)
            if found is not None:
                by_repeat.setdefault(sample.repeat, []).append(float(found))
        groups = [by_repeat[repeat] for repeat in sorted(by_repeat)]
        return summary(groups, starts=self.starts, by_start=compared and self.by_start)


# One request


def ttft_s(sample: Sample) -> float | None:
    """First token-bearing chunk − request sent."""
    return sample.chunks[0].t_ns / 1e9 if sample.chunks else None


def ttfa_s(sample: Sample) -> float | None:
    """First content chunk that is more than white space − request sent; None when no answer
    arrived, never a copy of TTFT."""
    answers = (c for c in sample.chunks if c.kind is Kind.CONTENT and not c.text.isspace())
    return next((c.t_ns / 1e9 for c in answers), None)


def connect_s(sample: Sample) -> float | None:
    """Request sent − connecting begun."""
    return None if sample.connect_ns is None else sample.connect_ns / 1e9


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
    known = sample.cached_tokens
    uncached = sample.prompt_tokens - (cached if known is None else known)
    return uncached / ttft if uncached > 0 else None


def _ttft_is_prefill(sample: Sample) -> bool:
    """Whether nothing but the prompt and one token lies before the first stamp: no other request,
    no hidden token, no long first chunk."""
    ttft, tpot, first = ttft_s(sample), tpot_s(sample), sample.first_chunk_tokens
    alone = sample.concurrency == 1 and sample.due_ns is None
    if not alone or sample.hidden_tokens or not ttft or first is None:
        return False
    return first <= 1 or (tpot is not None and (first - 1) * tpot <= TTFT_DECODE_SHARE * ttft)


# The engine's own clock


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


def clock_difference(sample: Sample) -> float | None:
    """Client decode rate / corrected server rate − 1."""
    client, server = output_tok_per_s(sample), server_tok_per_s(sample)
    return client / server - 1 if client and server else None


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


def clock_confirms(sample: Sample) -> bool:
    """Whether the engine's own clock has the same rate for this request, of the same tokens. Where
    it settled already which tokens these are, it cannot settle when they came too."""
    difference, decoded, timings = clock_difference(sample), decoded_tokens(sample), sample.timings
    if difference is None or timings is None:
        return False
    if sample.counted_by == "engine_clock" and is_coarse(sample):
        return False
    timed = timings.decode_tokens - timings.counts_first
    same = clock_ran_over_the_same(gaps_ns(sample), decoded or 0, timed)
    return same and abs(difference) <= CLOCK_CONFIRMS


def counters_confirm(samples: Sequence[Sample], counters: Counters) -> bool:
    """Whether the engine's own sums have the same rate for all requests together, of the same
    tokens."""
    difference = counted_difference(samples, counters)
    if difference is None or not all(tpot_s(sample) for sample in samples):
        return False
    decoded = sum(decoded_tokens(sample) or 0 for sample in samples)
    others = counters["output_tokens"] - counters["requests"] - decoded
    return others <= OTHER_TOKENS * decoded and abs(difference) <= CLOCK_CONFIRMS


# Many requests


def summary(
    groups: Sequence[Sequence[float]], *, starts: int | None = None, by_start: bool = False
) -> Summary | None:
    """Values grouped by repeat, summed up: the median of the repeats' medians, the range over all
    values, an interval from 6 starts on; None without values. ``starts`` is how many starts of the
    engine they stand for, if not as many; ``by_start`` keeps the repeats' medians, where there are
    several."""
    from tokrig.record.block import Summary

    if not groups:
        return None
    values = [v for group in groups for v in group]
    medians = [statistics.median(group) for group in groups]
    enough = min(len(groups), starts or len(groups)) >= MIN_REPEATS_FOR_INTERVAL
    kept = medians if by_start and len(medians) > 1 else []
    return Summary(
        median=significant(statistics.median(medians), DIGITS),
        min=significant(min(values), DIGITS),
        max=significant(max(values), DIGITS),
        n=len(values),
        ci95=interval(groups) if enough else None,
        starts=[significant(one, DIGITS) for one in kept],
    )


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % percentile bootstrap of the median of medians: repeats first, then requests in them.

    Random indices come from PCG64's raw stream, which numpy guarantees never to change, so that
    the same samples give the same interval in every version.
    """
    import numpy as np

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
    from tokrig.record.block import Percentiles

    gaps = [gap for sample in samples if len(gap := gaps_ns(sample))]
    if not gaps:
        return None
    import numpy as np

    gaps_s = np.concatenate(gaps) / 1e9
    longest = significant(float(gaps_s.max()), DIGITS)
    if any(map(is_coarse, samples)):
        return Percentiles(max=longest, n=len(gaps_s))
    return percentiles(gaps_s).model_copy(update={"max": longest})


def percentiles(gaps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Percentiles:
    """Those for which there are enough values."""
    import numpy as np

    from tokrig.record.block import Percentiles

    names = [name for name, need in PERCENTILES_NEED.items() if len(gaps) >= need]
    shares_of = [int(name[1:]) for name in names]
    found = np.percentile(gaps, shares_of).tolist() if names else []
    shares = {name: significant(p, DIGITS) for name, p in zip(names, found, strict=True)}
    return Percentiles(p50=significant(float(np.median(gaps)), DIGITS), **shares, n=len(gaps))


def usual_gap_s(samples: Iterable[Sample]) -> float | None:
    """The median time between two different stamps of a stream, as far as there are two."""
    import numpy as np

    gaps = [np.diff(np.unique(sample.stream.times_ns())) for sample in samples]
    gaps_ns = np.concatenate(gaps) if gaps else np.empty(0)
    return float(np.median(gaps_ns / 1e9)) if len(gaps_ns) else None


def prefill(of: Measured) -> tuple[Summary | None, str]:
    """The prefill rate by the server's clock, its sums, else by TTFT; and which of them."""
    found = of.summary(known_prefill_tok_per_s, compared=True)
    if found is None and "cached_tokens" in of.counters:
        found = _bare(counted_prefill_tok_per_s(of.counters), len(of.good))
    if found is not None:
        return found, "server"
    cached = of.counters.get("cached_tokens", 0.0) / max(len(of.good), 1)
    plain = [s for s in of.good if _ttft_is_prefill(s)]
    rate = of.summary(lambda s: ttft_prefill_tok_per_s(s, cached), plain, compared=True)
    return rate, "ttft_derived"


def system_tok_per_s(of: Measured) -> Summary | None:
    """ΣN / wall time of each repeat's measured phase, first request sent to last token read."""
    rates: list[list[float]] = []
    for repeat in sorted({s.repeat for s in of.good}):
        group = [s for s in of.good if s.repeat == repeat and s.chunks]
        known = [s.output_tokens for s in group if s.output_tokens is not None]
        if not known or len(known) < len(group):
            continue
        wall_ns = max(s.sent_ns + s.chunks[-1].t_ns for s in group) - min(s.sent_ns for s in group)
        if wall_ns > 0:
            rates.append([sum(known) / wall_ns * 1e9])
    return summary(rates, starts=of.starts, by_start=of.by_start)


def server(of: Measured) -> ServerTimings | None:
    """The engine's own rates beside the client's, request by request; else by its sums."""
    found = _server(of, known_prefill_tok_per_s)
    if found is None:
        return _counted_server(of, "cached_tokens" in of.counters)
    differences = [(d, s) for s in of.good if (d := clock_difference(s)) is not None]
    if not differences:
        return found
    off = [
        f"repeat {s.repeat}, iteration {s.iteration}, worker {s.worker}"
        for d, s in differences
        if abs(d) > CLOCK_MISMATCH
    ]
    largest = max((d for d, _ in differences), key=abs)
    return found.model_copy(update={"difference_largest": round(largest, 5), "off_clock": off})


def _server(of: Measured, prefill: Formula) -> ServerTimings | None:
    from tokrig.record.model import ServerTimings

    rate = of.summary(server_tok_per_s)
    if rate is None:
        return None
    return ServerTimings(
        output_tok_per_s=rate,
        prefill_tok_per_s=of.summary(prefill),
        difference=_rounded(median(map(clock_difference, of.good))),
    )


def _counted_server(of: Measured, with_prefill: bool) -> ServerTimings | None:
    from tokrig.record.model import ServerTimings

    rate, prefill = counted_tok_per_s(of.counters), counted_prefill_tok_per_s(of.counters)
    if rate is None:
        return None
    return ServerTimings(
        source="counters",
        output_tok_per_s=_bare(rate, len(of.good)),
        prefill_tok_per_s=_bare(prefill if with_prefill else None, len(of.good)),
        difference=_rounded(counted_difference(of.good, of.counters)),
    )


def _bare(value: float | None, n: int) -> Summary | None:
    from tokrig.record.block import Summary

    return Summary(median=significant(value, DIGITS), n=n) if value else None


def _rounded(difference: float | None) -> float | None:
    return None if difference is None else round(difference, 5)


def speculative(of: Measured) -> Speculative | None:
    """From the samples, else from the engine's sums.

    The first token is the prompt's; each step of decoding yields one token and those accepted,
    whether something was drafted for it or not. So the steps are what is left of the tokens.
    Counters of drafts (vLLM) leave the steps without one out, and one that did not move says
    nothing: engines without speculation have it too.
    """
    told, sums = [s for s in of.good if s.drafted_tokens is not None], of.counters
    drafted, accepted = (
        total(s.drafted_tokens for s in told),
        total(s.accepted_tokens for s in told),
    )
    decoded: float = sum(s.output_tokens - 1 for s in told if s.output_tokens)
    if not told and sums.get("drafted_tokens"):
        drafted, accepted = int(sums["drafted_tokens"]), int(sums.get("accepted_tokens", 0))
        decoded = sums.get("output_tokens", 0.0) - sums.get("requests", 0.0)
    return _drafts(drafted, accepted or 0, int(decoded) - (accepted or 0))


def _drafts(drafted: int | None, accepted: int, steps: int) -> Speculative | None:
    from tokrig.record.model import Speculative

    if drafted is None:
        return None
    return Speculative(
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance_rate=significant(accepted / drafted, DIGITS) if drafted else None,
        steps=steps if steps > 0 else None,
        acceptance_length=significant(1 + accepted / steps, DIGITS) if steps > 0 else None,
    )


def median(values: Iterable[float | int | None]) -> float | None:
    """The median of what is known."""
    known = [v for v in values if v is not None]
    return float(statistics.median(known)) if known else None


def total(values: Iterable[int | None]) -> int | None:
    """The sum of what is known."""
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def share(samples: Sequence[Sample], value: Formula) -> float | None:
    """The share of requests that have a value."""
    held = sum(value(s) is not None for s in samples)
    return round(held / len(samples), 4) if samples else None


def finish_reasons(of: Measured) -> dict[str, int]:
    """How many answers ended for which reason."""
    return dict(sorted(Counter(s.finish_reason or "none" for s in of.good).items()))


# Methodology 1, frozen


def ttfa_1_s(sample: Sample) -> float | None:
    """White space was an answer."""
    return next((c.t_ns / 1e9 for c in sample.chunks if c.kind is Kind.CONTENT), None)


def inter_chunk_1_s(of: Measured) -> Percentiles | None:
    """Gaps between all chunks, those of one read included."""
    import numpy as np

    gaps = [np.diff(sample.stream.times_ns()) for sample in of.good]
    gaps_s = np.concatenate(gaps) / 1e9 if gaps else np.empty(0)
    return percentiles(gaps_s) if len(gaps_s) else None


def prefill_1(of: Measured) -> tuple[Summary | None, str]:
    """Whatever was cached."""
    found = of.summary(prefill_tok_per_s) or _bare(
        counted_prefill_tok_per_s(of.counters), len(of.good)
    )
    return (found, "server") if found else (of.summary(ttft_prefill_tok_per_s), "ttft_derived")


def server_1(of: Measured) -> ServerTimings | None:
    """No request was named."""
    return _server(of, prefill_tok_per_s) or _counted_server(of, True)


def speculative_1(of: Measured) -> Speculative | None:
    """Steps were known to the sums only, and were those with a draft."""
    drafted, accepted = total(s.drafted_tokens for s in of.good), None
    if drafted is not None:
        accepted = total(s.accepted_tokens for s in of.good)
    elif "drafted_tokens" in of.counters:
        drafted = int(of.counters["drafted_tokens"])
        accepted = int(of.counters.get("accepted_tokens", 0))
    return _drafts(drafted, accepted or 0, int(of.counters.get("drafts", 0)))
