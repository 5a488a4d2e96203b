"""Several clients send what one would have, and what they saw merges into what one would have
seen."""

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.contract.loopback import DONE, SSE_HEAD, Talk, chunks, delta, serving
from tokrig.run.client import Closed, Loop, Open, Queues, Response, Source, send
from tokrig.run.shares import RESERVE, Reserve, Share, merge, split
from tokrig.stamps import now_ns

PATH = "/v1/chat/completions"
ANSWER_S = 0.1


def bodies(count: int) -> list[bytes]:
    return [b'{"number": %d}' % number for number in range(count)]


def slow(talk: Talk) -> None:
    talk.send(SSE_HEAD)
    talk.send(chunks([delta("x"), DONE]), gap_s=ANSWER_S)


def sent_by(shares: list[Share]) -> Loop:
    """Each share sent by a client of its own, which it reached as bytes."""
    with serving(slow) as there, ThreadPoolExecutor(len(shares)) as pool:
        at_ns = now_ns() + 50_000_000

        def one(share: Share) -> Loop:
            source: Source = pickle.loads(pickle.dumps(share)).source
            return send(there.endpoint, PATH, source, silence_s=5, at_ns=at_ns)

        loops = list(pool.map(one, shares))
    assert all(loop.start_ns >= at_ns for loop in loops)
    return merge(loops, [share.first_worker for share in shares])


@pytest.mark.parametrize(("workers", "clients", "widths"), [(5, 3, [1, 2, 2]), (2, 3, [1, 1])])
def test_a_closed_loop_is_split_by_its_workers(
    workers: int, clients: int, widths: list[int]
) -> None:
    shares = split(Closed(bodies(workers * 3), workers), clients)
    assert [share.source.workers for share in shares] == widths
    loop = sent_by(shares)
    assert [r.index for r in loop.responses] == list(range(workers * 3))
    assert {r.worker for r in loop.responses} == set(range(workers))
    assert all(r.failure is None for r in loop.responses)
    # No more in flight than were asked for, and all of them at first.
    begun = sorted(r.sent_ns for r in loop.responses)
    ended = sorted(r.ended_ns for r in loop.responses)
    assert all(begun[n] >= ended[n - workers] for n in range(workers, len(begun)))
    assert begun[workers - 1] < ended[0]


def test_queues_go_whole() -> None:
    numbered = list(enumerate(bodies(7)))
    queues = [numbered[:3], numbered[3:5], numbered[5:]]
    loop = sent_by(split(Queues(queues), 2))
    assert [(r.index, r.worker) for r in loop.responses] == [
        *((index, 0) for index in range(3)),
        *((index, 1) for index in (3, 4)),
        *((index, 2) for index in (5, 6)),
    ]


def test_arrivals_are_dealt_and_keep_their_times() -> None:
    due_s = [0.0, 0.02, 0.03, 0.03, 0.07]
    shares = split(Open(bodies(5), due_s, most=7, until_s=2.0), 3)
    parts = [share.source for share in shares if isinstance(share.source, Open)]
    assert [(part.most, part.until_ns) for part in parts] == [(2, 2e9)] * 3
    loop = sent_by(shares)
    assert [r.index for r in loop.responses] == list(range(5))
    assert len({r.worker for r in loop.responses}) == 5
    for response, due in zip(loop.responses, due_s, strict=True):
        assert response.due_ns is not None
        assert 0 <= response.due_ns - due * 1e9 < 1e9  # by what one start was later
        assert response.sent_ns >= response.due_ns


def test_a_share_of_what_only_time_ends_is_handed_more() -> None:
    source = Closed(itertools.repeat(b"{}"), 3, until_s=1e-6)
    shares = split(source, 2)
    assert [(share.source.workers, share.first_worker) for share in shares] == [(1, 0), (2, 1)]
    _, part = (pickle.loads(pickle.dumps(share)).source for share in shares)
    assert isinstance(part, Reserve)
    held = [part.next(0, 0) for _ in range(RESERVE * 2)]
    assert held == [(n, b"{}") for n in range(RESERVE, RESERVE * 3)]
    assert not part.ran_dry
    part.left.append(next(source.bodies))
    assert part.next(1, 999) == (RESERVE * 3, b"{}")
    assert part.next(1, 1000) is None, "its time is over"
    assert not part.ran_dry
    assert part.next(1, 999) is None
    assert part.ran_dry


def test_one_clock_orders_requests_and_each_client_has_its_own_cost() -> None:
    first = Response(1, 0, 100, 900, 200, {}, [(5, b"a")], due_ns=100)
    other = replace(first, index=0, sent_ns=0, due_ns=0)
    loops = [
        Loop([first], 2e-6, 1e-6, start_ns=5_000, rounds_ns=[600]),
        Loop([other], 1e-6, 0.9e-6, start_ns=5_500, rounds_ns=[]),
    ]
    loop = merge(loops, [0, 4])
    assert [(r.index, r.worker, r.sent_ns, r.ended_ns, r.due_ns) for r in loop.responses] == [
        (0, 4, 500, 1400, 500),
        (1, 0, 100, 900, 100),
    ]
    assert [r.pieces for r in loop.responses] == [[(5, b"a")]] * 2
    assert loop.start_ns == 5_000
    assert loop.wall_s == pytest.approx(2e-6)
    assert loop.client_cpu_s == pytest.approx(1.9e-6)
    assert loop.client_cpu_share == pytest.approx(0.9), "that of the busiest, not of all"
    assert loop.late_share(1e-6) == pytest.approx(0.3)
    assert loop.late_share(None) is None
