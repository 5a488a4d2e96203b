"""When the client sends: after the last one, out of a queue, or whatever is in flight."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator

from tests.contract.loopback import DONE, PATIENT_S, SSE_HEAD, Script, Talk, chunks, delta, serving
from tokrig.run.client import GIVEN_UP, Closed, Loop, Open, Queues, Source, send

PATH = "/v1/chat/completions"
ANSWER_S = 0.05


def bodies(count: int) -> list[bytes]:
    return [json.dumps({"number": number}).encode() for number in range(count)]


def slow(talk: Talk) -> None:
    """One token after ``ANSWER_S``."""
    talk.send(SSE_HEAD)
    talk.send(chunks([delta("x"), DONE]), gap_s=ANSWER_S)


def loop_of(source: Source, server: Script = slow) -> Loop:
    with serving(server) as there:
        return send(there.endpoint, PATH, source, silence_s=PATIENT_S)


def test_queues_are_walked_in_order_each_by_its_own_worker() -> None:
    numbered = list(enumerate(bodies(6)))
    loop = loop_of(Queues([numbered[:4], numbered[4:]]))
    assert [(r.index, r.worker) for r in loop.responses] == [
        *((index, 0) for index in range(4)),
        *((index, 1) for index in (4, 5)),
    ]
    for queue in (loop.responses[:4], loop.responses[4:]):
        for before, after in itertools.pairwise(queue):
            assert after.sent_ns >= before.ended_ns


def test_an_open_loop_sends_when_it_is_due_whatever_is_in_flight() -> None:
    due_s = [0.0, 0.01, 0.01, 0.2]
    three = threading.Barrier(3)

    def together(talk: Talk) -> None:
        if json.loads(talk.body)["number"] < 3:
            three.wait(PATIENT_S)  # none is answered before all have come
        slow(talk)

    loop = loop_of(Open(bodies(4), due_s), together)
    assert [r.due_ns for r in loop.responses] == [0, 10_000_000, 10_000_000, 200_000_000]
    assert all(r.due_ns is not None and r.sent_ns >= r.due_ns for r in loop.responses)
    assert loop.responses[2].sent_ns < loop.responses[0].ended_ns
    assert loop.wall_s >= 0.2


def test_an_open_loop_waits_no_longer_than_it_may() -> None:
    """Whoever answers slower than requests arrive, for ever, costs bounded time."""

    def never(talk: Talk) -> None:
        talk.send(SSE_HEAD)
        talk.sock.recv(1)  # until the client leaves

    loop = loop_of(Open(bodies(4), [0.0, 0.0, 0.1, 30.0], until_s=0.3), never)
    assert [r.failure for r in loop.responses] == [GIVEN_UP] * 3
    assert loop.wall_s < 25  # the last one would be due at 30


def test_an_open_loop_has_a_limit_of_requests_in_flight() -> None:
    def slower(talk: Talk) -> None:
        talk.send(SSE_HEAD)
        talk.send(chunks([delta("x"), DONE]), gap_s=1.0)

    due_s = [0.01 * number for number in range(200)]
    loop = loop_of(Open(bodies(200), due_s, most=20), slower)
    assert 20 <= len(loop.responses) < 100
    assert all(r.failure is None for r in loop.responses)


def test_nothing_arrives_in_an_open_loop_without_times() -> None:
    assert loop_of(Open(bodies(0), [])).responses == []


def test_a_closed_loop_may_end_by_time_and_takes_its_bodies_as_it_needs_them() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        for number in itertools.count():
            taken.append(number)
            yield b"{}"

    loop = loop_of(Closed(endless(), 2, until_s=3.5 * ANSWER_S))
    assert all(r.failure is None for r in loop.responses)
    assert len(loop.responses) == len(taken) >= 2
