"""How many requests were really served at the same time. Pure.

A server with too few slots lets the others wait, and every figure at that concurrency would be
one of another. Waiting shows only before the first token, where prefill and the way to the server
show too: so a request counts as served from its first token on, and before it for as long as the
engine says that it read the prompt, at least as long as the quickest first token of its phase
took. What streamed at the same time at most is a limit to that: on a long way to a server the
requests that wait and those that travel look alike.

The mean is over streamed chunks, not over time: while an engine reads the prompts one after the
other, streams that have begun stand almost still, and that is no lack of slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tokrig.record.samples import Sample

# The most streams at once are those beside at least so many of the chunks: a single chunk may be
# read together with the last one of another stream.
PEAK_SHARE = 0.02
# A stream of fewer stamps does not show when it ran.
FEWEST_STAMPS = 16


def concurrency_mean(samples: Iterable[Sample]) -> float | None:
    """Mean number of requests being served beside each chunk, its own included, over the repeats'
    phases; at most as many as ever streamed at once.

    Only the time counts in which all workers have work: at the end of a closed loop fewer and
    fewer requests are left. None for one request at a time, and where nothing was streamed.
    """
    repeats: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.chunks and sample.concurrency > 1:
            repeats.setdefault(sample.repeat, []).append(sample)
    if not repeats:
        return None
    groups = list(repeats.values())
    mean = np.concatenate([_beside(group, before=True) for group in groups]).mean()
    if min(len({c.t_ns for c in s.chunks}) for group in groups for s in group) >= FEWEST_STAMPS:
        streaming = np.concatenate([_beside(group, before=False) for group in groups])
        mean = min(mean, np.quantile(streaming, 1 - PEAK_SHARE))
    return round(float(mean), 4)


def _beside(group: Sequence[Sample], *, before: bool) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """For each chunk of a phase the number of requests that were being served, ``before`` their
    first token too."""
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
