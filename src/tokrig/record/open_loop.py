"""Figures of requests that arrive by themselves: pure, from the samples and what was asked.

All times count from the moment a request was *due*, not from when it was sent: a client that is
late must not make a server look quick. Measured are the requests that were due after the warm-up
window; those of the window load the server too, so they count where it is about the server's load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from tokrig.record.formulas import DIGITS, Measured, percentiles, tpot_s
from tokrig.record.samples import Sample
from tokrig.units import significant

if TYPE_CHECKING:
    from tokrig.record.block import Percentiles
    from tokrig.record.loads import Arrivals, OpenLoop, Slo

# An SLO is met at a rate when at least so many of the requests meet it.
SLO_SHARE = 0.95
# Codes of requests that the client gave up, or did not send any more: the server was too slow.
GIVEN_UP = frozenset({"unfinished", "not_sent"})
# A server falls behind when more requests than this share of those that arrived, and than chance
# explains (the standard deviations of a Poisson count), were added to those in flight.
BEHIND_SHARE, BEHIND_DEVIATIONS = 0.1, 2.0
# A client is late when half of its requests were sent later than so much of the usual TTFT after
# they were due, or one in a hundred later than so much of it; a millisecond is never late.
LATE_SHARE, LATEST_SHARE, LATE_S = 0.01, 0.1, 0.001


def open_loop(of: Measured) -> OpenLoop | None:
    """The block of one result; None for requests that did not arrive by themselves."""
    from tokrig.record.loads import OpenLoop

    asked = of.arrivals
    if asked is None or not of.arrived:
        return None
    begin_ns, end_ns = round(asked.warm_up_window_s * 1e9), round(asked.duration_s * 1e9)
    window_s = (end_ns - begin_ns) / 1e9 * max(of.repeats, 1)
    measured = [s for s in of.arrived if s.phase == "measured"]
    sent = [s for s in measured if s.error != "not_sent"]
    ended = [end for s in of.arrived if (end := _ended_ns(s)) and begin_ns <= end < end_ns]
    met = _met(measured, asked.slo)
    return OpenLoop(
        sent_per_s=_per_s(len(sent), window_s),
        completed_per_s=_per_s(len(ended), window_s),
        ttft_s=_spread(measured, ttft_due_s),
        latency_s=_spread(measured, latency_s),
        tpot_s=_spread(measured, tpot_s),
        lag_s=_spread(sent, lag_s),
        in_flight_max=max(map(_most_at_once, _repeats(of.arrived)), default=0),
        unfinished=sum(s.error in GIVEN_UP for s in of.arrived),
        overloaded=overloaded(of.arrived, asked),
        goodput_per_s=None if met is None else _per_s(met, window_s),
        goodput_share=None if met is None else round(met / len(measured), 4),
    )


def _per_s(count: int, seconds: float) -> float:
    return significant(count / seconds, DIGITS) if seconds > 0 else 0.0


# One request


def lag_s(sample: Sample) -> float | None:
    """How much later than due it was sent; connecting is part of it."""
    return None if sample.due_ns is None else (sample.sent_ns - sample.due_ns) / 1e9


def ttft_due_s(sample: Sample) -> float | None:
    """First token-bearing chunk − due."""
    lag = lag_s(sample)
    if lag is None or not sample.chunks or sample.error is not None:
        return None
    return lag + sample.stream.stamps_ns[0] / 1e9


def latency_s(sample: Sample) -> float | None:
    """Last token-bearing chunk − due."""
    lag = lag_s(sample)
    if lag is None or not sample.chunks or sample.error is not None:
        return None
    return lag + sample.stream.stamps_ns[-1] / 1e9


LIMITS: dict[str, Callable[[Sample], float | None]] = {
    "ttft_s": ttft_due_s,
    "tpot_s": tpot_s,
    "e2e_s": latency_s,
}
"""What each limit of an SLO is about."""


def _met(samples: Sequence[Sample], slo: Slo | None) -> int | None:
    """How many requests meet all limits; one that failed meets none. None without an SLO, and
    where a figure of an answered request is not known."""
    if slo is None:
        return None
    limits = [(LIMITS[name], limit) for name, limit in slo if limit is not None]
    count = 0
    for sample in samples:
        if sample.error is not None:
            continue
        values = [(of(sample), limit) for of, limit in limits]
        if any(value is None for value, _ in values):
            return None
        count += all(value is not None and value <= limit for value, limit in values)
    return count


def _spread(
    samples: Sequence[Sample], value: Callable[[Sample], float | None]
) -> Percentiles | None:
    import numpy as np

    known = [one for sample in samples if (one := value(sample)) is not None]
    if not known:
        return None
    found = percentiles(np.array(known))
    return found.model_copy(update={"max": significant(max(known), DIGITS)})


# The client's share


def sends_late(samples: Sequence[Sample]) -> bool:
    """Whether requests were sent so much later than due, connecting left out, that a user's wait
    is in part the client's."""
    late = sorted(
        (lag_s(s) or 0.0) - (s.connect_ns or 0) / 1e9 for s in samples if s.error != "not_sent"
    )
    waits = sorted(wait for s in samples if (wait := ttft_due_s(s)) is not None)
    if not late or not waits:
        return False
    usual = waits[len(waits) // 2]
    return late[len(late) // 2] > max(LATE_S, LATE_SHARE * usual) or late[
        len(late) * 99 // 100
    ] > max(LATE_S, LATEST_SHARE * usual)


# The server's load


def overloaded(samples: Sequence[Sample], asked: Arrivals) -> bool:
    """Whether requests arrived faster than they were answered, in any repeat."""
    begin_ns, end_ns = round(asked.warm_up_window_s * 1e9), round(asked.duration_s * 1e9)
    return any(_fell_behind(group, begin_ns, end_ns) for group in _repeats(samples))


def _repeats(samples: Iterable[Sample]) -> list[list[Sample]]:
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.repeat, []).append(sample)
    return list(found.values())


def _ended_ns(sample: Sample) -> int | None:
    """When its last token came; None for a request that failed."""
    if sample.error is not None or not sample.chunks:
        return None
    return sample.sent_ns + sample.stream.stamps_ns[-1]


def _most_at_once(samples: Sequence[Sample]) -> int:
    """Requests in flight at the same time, at most. Of one that failed nobody knows when: it
    counts where it was sent."""
    steps = []
    for sample in samples:
        if sample.error != "not_sent":
            end_ns = _ended_ns(sample)
            given_up = sample.error in GIVEN_UP
            steps.append((sample.sent_ns, 1))
            if not given_up:
                steps.append((sample.sent_ns if end_ns is None else end_ns, -1))
    # At the same moment one begins before the other ends.
    ordered = sorted(steps, key=lambda step: (step[0], -step[1]))
    return max(accumulate(change for _, change in ordered), default=0)


def _fell_behind(samples: Sequence[Sample], begin_ns: int, end_ns: int) -> bool:
    """Whether requests arrived faster than they were answered: some were given up, or more were
    left over than chance explains. How long they then wait says how long was measured, not how
    fast the server is."""
    if any(s.error in GIVEN_UP for s in samples):
        return True

    def waiting(at_ns: int) -> int:
        return sum(
            (s.due_ns or 0) < at_ns and (end := _ended_ns(s)) is not None and end >= at_ns
            for s in samples
        )

    arrived = sum(begin_ns <= (s.due_ns or 0) < end_ns for s in samples)
    chance = BEHIND_SHARE * arrived + BEHIND_DEVIATIONS * arrived**0.5
    return bool(waiting(end_ns) - waiting(begin_ns) > chance)
