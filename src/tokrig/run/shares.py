"""Several clients instead of one: a source of requests split into shares, and the loops that
sent them merged into one.

Which client sends what is settled before: nobody asks another while streams run. A closed loop is
split by its workers, each share with the requests that these would get if all took equally long;
queues go whole; arrivals are dealt one after the other. Only of a closed loop that time ends nobody
knows how many it takes: its shares are handed some in reserve, and more in time. Indexes and
workers stay what they are in the whole source, so what comes back is told apart as if one client
had sent it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from tokrig.run.client import Closed, Indexed, Loop, Open, Queues, Source

# Requests for each worker: two seconds' worth where answers take a tenth of a second.
RESERVE = 20


@dataclass(frozen=True)
class Share:
    """What one of several clients sends; it may go to another process. ``first_worker`` is the
    number in the whole source of its worker 0."""

    source: Source
    first_worker: int = 0


class Reserve(Closed):
    """A share of a closed loop that time ends: more of what it sends is handed to it while it
    sends. ``ran_dry`` says that it once had nothing left."""

    def __init__(self, workers: int, until_ns: float) -> None:
        super().__init__((), workers)
        self.until_ns = until_ns
        self.left = deque[Indexed]()
        self.ran_dry = False

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        if self.until_ns is not None and now_ns >= self.until_ns:
            return None
        self.ran_dry = self.ran_dry or not self.left
        return self.left.popleft() if self.left else None


def split(source: Source, clients: int) -> list[Share]:
    """The source in at most so many shares, none of them without a worker or an arrival. Raises
    TypeError for one of another kind."""
    if isinstance(source, Closed):
        return (_split_closed if source.until_ns is None else _split_timed)(source, clients)
    if isinstance(source, Queues):
        queues = [list(queue) for queue in source.queues]
        return [Share(Queues(queues[a:b]), a) for a, b in _spans(len(queues), clients)]
    if isinstance(source, Open):
        return _split_open(source, clients)
    raise TypeError(f"cannot split {type(source).__name__}")


def merge(loops: Sequence[Loop], first_workers: Sequence[int]) -> Loop:
    """One loop of several whose ``start_ns`` are of one clock, with each one's first worker.

    What a request took stays as its own client measured it; only where it stands among the others
    depends on that clock.
    """
    start_ns = min(loop.start_ns for loop in loops)
    responses = [
        replace(
            one,
            worker=one.worker + first,
            sent_ns=one.sent_ns + loop.start_ns - start_ns,
            ended_ns=one.ended_ns + loop.start_ns - start_ns,
            due_ns=None if one.due_ns is None else one.due_ns + loop.start_ns - start_ns,
        )
        for loop, first in zip(loops, first_workers, strict=True)
        for one in loop.responses
    ]
    end_ns = max(loop.start_ns + round(loop.wall_s * 1e9) for loop in loops)
    return Loop(
        sorted(responses, key=lambda one: one.index),
        (end_ns - start_ns) / 1e9,
        sum(loop.client_cpu_s for loop in loops),
        start_ns,
        parts=[replace(loop, responses=[]) for loop in loops],
        client_wait_share=_longest([loop.client_wait_share for loop in loops]),
    )


def _longest(shares: Sequence[float | None]) -> float | None:
    """None where one of them is not known: it may be the longest."""
    known = [share for share in shares if share is not None]
    return max(known) if known and len(known) == len(shares) else None


def _spans(many: int, clients: int) -> list[tuple[int, int]]:
    """``many`` in a row cut into pieces that differ by one at most: where each begins and ends."""
    cuts = [many * client // clients for client in range(clients + 1)]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def _split_closed(source: Closed, clients: int) -> list[Share]:
    requests, shares = list(source.bodies), []
    for a, b in _spans(source.workers, clients):
        part = Closed((), b - a)
        part.bodies = iter([one for one in requests if a <= one[0] % source.workers < b])
        shares.append(Share(part, a))
    return shares


def _split_timed(source: Closed, clients: int) -> list[Share]:
    shares = []
    for a, b in _spans(source.workers, clients):
        part = Reserve(b - a, source.until_ns or 0.0)
        part.left.extend(islice(source.bodies, RESERVE * part.workers))
        shares.append(Share(part, a))
    return shares


def _split_open(source: Open, clients: int) -> list[Share]:
    arrivals = []
    while (due_ns := source.due_ns()) is not None:
        arrivals.append((source.arrive(), due_ns))
    shares = []
    for dealt in filter(None, (arrivals[client::clients] for client in range(clients))):
        part = Open((), (), source.most and max(1, source.most // clients))
        part.until_ns = source.until_ns
        part.bodies = iter([request for request, _ in dealt])
        part.times = iter([due_ns for _, due_ns in dealt])
        part.due = next(part.times, None)
        shares.append(Share(part))
    return shares
