"""What the stamps of streams show: their pace, and how many were served at the same time. Pure.

Tokens that share a stamp, or nearly so, came together: one read of several events, one write that
took several reads. A *burst* is what came at once. A stream of few bursts, or one whose last burst
waited for its delivery, tells less about the engine than about what stood between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tokrig.record.samples import Chunk, Sample

if TYPE_CHECKING:
    import numpy as np

# Chunks nearer to each other than this share of a token's mean time, and than this time, came at
# once.
AT_ONCE_SHARE, AT_ONCE_NS = 0.1, 1_000_000
# A stream with fewer bursts than this between the first and the last, or a gap longer than this
# share of the decode window, hides its pace.
FEWEST_STAMPS = 16
LONGEST_GAP_SHARE = 0.10
# After a gap in which text was held back, at least this share of what was due comes at once.
HELD_BACK = 0.3
# Bursts of more tokens than this on average are deliveries, not tokens.
BURSTY = 1.1
# Where this share of the steps of speculative decoding is seen as bursts, bursts are steps:
# nine tenths of which take at most so much longer than a tenth of them.
STEPS_SHOWN, STEPS_ALIKE = 0.8, 1.5
# The rate is not told where the first and the last burst leave more of it open than this.
RATE_UNCERTAINTY = 0.01
# An engine's clock confirms a rate from which its own differs no more. It runs over all tokens:
# the window must have so many of them.
CLOCK_CONFIRMS, SAME_WINDOW = 0.005, 0.9
# The most streams at once are those beside at least so many of the chunks: a single chunk may be
# read together with the last one of another stream.
PEAK_SHARE = 0.02


def bursts(chunks: Sequence[Chunk], tokens: int | None) -> list[int]:
    """Where each burst ends: the indexes one past its last chunk."""
    if not chunks:
        return []
    steps = max((tokens or len(chunks)) - 1, 1)
    mean_ns = (chunks[-1].t_ns - chunks[0].t_ns) / steps
    at_once_ns = min(AT_ONCE_SHARE * mean_ns, AT_ONCE_NS)
    ends = [
        index
        for index, (before, after) in enumerate(pairwise(chunks), 1)
        if after.t_ns - before.t_ns > at_once_ns
    ]
    return [*ends, len(chunks)]


def gaps_ns(sample: Sample) -> list[int]:
    """Times between successive bursts."""
    ends = bursts(sample.chunks, sample.output_tokens)
    stamps = [sample.chunks[0].t_ns, *(sample.chunks[end].t_ns for end in ends[:-1])]
    return [after - before for before, after in pairwise(stamps)]


def decoded_tokens(sample: Sample) -> int | None:
    """Tokens generated between the first stamp and the last: all of N but those of the first
    burst and those that no chunk carried."""
    if sample.output_tokens is None or sample.first_chunk_tokens is None:
        return None
    return sample.output_tokens - sample.first_chunk_tokens - (sample.hidden_tokens or 0)


def has_few_bursts(sample: Sample) -> bool:
    """Whether the stamps between the first and the last are too few to show a pace."""
    gaps = gaps_ns(sample) if sample.chunks else []
    return bool(gaps) and len(gaps) - 1 < FEWEST_STAMPS


def has_long_gap(sample: Sample) -> bool:
    """Whether one gap is much of the stream.

    Between the tokens of one of several requests an engine works on the others: there a gap is
    its own pace, unless the text that follows it at once was held back meanwhile.
    """
    gaps = gaps_ns(sample) if sample.chunks else []
    ends = bursts(sample.chunks, sample.output_tokens)
    window, text = sum(gaps), sum(len(c.text) for c in sample.chunks)
    for gap, (begin, end) in zip(gaps, pairwise(ends), strict=True):
        if gap > LONGEST_GAP_SHARE * window:
            came = sum(len(c.text) for c in sample.chunks[begin:end]) / text
            if sample.concurrency == 1 or came > HELD_BACK * gap / window:
                return True
    return False


def is_coarse(sample: Sample) -> bool:
    """Whether the chunks hide the pace of the tokens."""
    return has_few_bursts(sample) or has_long_gap(sample)


def rate_uncertainty(sample: Sample) -> float:
    """The share of the decode rate that deliveries leave open.

    Every stamp may be as late as gaps differ from each other. Where several tokens come at once
    they may have waited for it: those of the first burst as long as from one delivery to the next,
    those of the last as long as it took beyond what its tokens need. Where each burst is a step of
    speculative decoding nothing waited.
    """
    decoded, gaps = decoded_tokens(sample), gaps_ns(sample) if sample.chunks else []
    if not decoded or decoded < 1 or not gaps:
        return 0.0
    window, last = sum(gaps), sample.last_chunk_tokens or 1
    in_order = sorted(gaps)
    short, long = in_order[len(gaps) // 10], in_order[len(gaps) * 9 // 10]
    if decoded <= BURSTY * len(gaps):
        return (long - short) / window
    if _bursts_are_steps(sample, decoded, len(gaps)) and long <= STEPS_ALIKE * short:
        return 0.0
    token = (window - gaps[-1]) / max(decoded - last, 1)
    return max(window / len(gaps), gaps[-1] - last * token, long - short) / window


def _bursts_are_steps(sample: Sample, decoded: int, bursts_after_first: int) -> bool:
    """A step of speculative decoding yields what was accepted and one token more."""
    if sample.accepted_tokens is None or sample.output_tokens is None:
        return False
    after_first = sample.output_tokens - 1
    steps = (after_first - sample.accepted_tokens) * decoded / after_first
    return 0 < steps * STEPS_SHOWN <= bursts_after_first


def concurrency_mean(samples: Iterable[Sample]) -> float | None:
    """Mean number of requests being served beside each chunk, its own included, over the repeats'
    phases; at most as many as ever streamed at once. None for one request at a time, and where
    nothing was streamed.

    Waiting shows only before the first token, where prefill and the way to the server show too:
    so a request counts as served from its first token on, and before it for as long as the engine
    says that it read the prompt, at least as long as the quickest first token of its phase took.
    What streamed at once at most is a limit to that: on a long way to a server the requests that
    wait and those that travel look alike. The mean is over chunks, not over time: while an engine
    reads prompts one after the other, streams that have begun stand almost still, and that is no
    lack of slots. Only the time counts in which all workers have work.
    """
    import numpy as np

    repeats: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.chunks and sample.concurrency > 1:
            repeats.setdefault(sample.repeat, []).append(sample)
    if not repeats:
        return None
    groups = list(repeats.values())
    mean = np.concatenate([_beside(group, before=True) for group in groups]).mean()
    # A stream of fewer stamps does not show when it ran.
    if min(len({c.t_ns for c in s.chunks}) for group in groups for s in group) >= FEWEST_STAMPS:
        streaming = np.concatenate([_beside(group, before=False) for group in groups])
        mean = min(mean, np.quantile(streaming, 1 - PEAK_SHARE))
    return round(float(mean), 4)


def _beside(group: Sequence[Sample], *, before: bool) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """For each chunk of a phase the number of requests that were being served, ``before`` their
    first token too."""
    import numpy as np

    quickest_ns = min(s.chunks[0].t_ns for s in group) if before else 0
    begins = np.sort(
        [
            s.sent_ns + s.chunks[0].t_ns - (_before_ns(s, quickest_ns) if before else 0)
            for s in group
        ]
    )
    ends = np.sort([s.sent_ns + s.chunks[-1].t_ns for s in group])
    # From here on a worker that ends finds no further request.
    busy_until = ends[max(len(group) - group[0].concurrency, 0)]
    stamps = np.array([s.sent_ns + c.t_ns for s in group for c in s.chunks])
    stamps = stamps[stamps <= busy_until]
    begun, ended = np.searchsorted(begins, stamps, "right"), np.searchsorted(ends, stamps, "left")
    return np.asarray(begun - ended, dtype=np.intp)


def _before_ns(sample: Sample, quickest_ns: int) -> int:
    """How long before its first token a request was being served."""
    prompt_ns = sample.timings.prompt_ms * 1e6 if sample.timings else 0
    return min(max(round(prompt_ns), quickest_ns), sample.chunks[0].t_ns)
