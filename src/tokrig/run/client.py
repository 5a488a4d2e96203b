"""The measuring client: requests out when they are due, sockets in, stamps out.

When a request is due its *source* says: a closed loop keeps some in flight, queues are walked one
request after the other, in an open loop they arrive by themselves.

One thread, one epoll, no framework. The hot path is ``Wire._receive`` (``tokrig.run.wire``): one
read, one pass of the C parser (httptools, llhttp inside) that only strips the transfer encoding.
While streams run the garbage collector is off, and nothing is decoded, printed or written; a
``tick`` about twice a second is all that others get.

A piece's stamp is the moment at which the kernel took its last packet in, told with the read
(SO_TIMESTAMPING): it waits neither for this process to wake up nor for another stream. So at high
rates the loop may rest between two rounds, and reads what came meanwhile at one go. Where the
kernel does not tell (TLS, other systems) the stamp is the moment epoll reported the socket
readable, one for all that were reported together, and the loop never rests.
"""

from __future__ import annotations

import gc
import select
import socket
import ssl
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tokrig.run.body import Piece
from tokrig.run.http import Endpoint, decoded
from tokrig.run.spool import Spool
from tokrig.run.wire import DONE, WRITE, Address, Wire
from tokrig.stamps import KernelStamps, Reader, now_ns, read_stamped

if TYPE_CHECKING:
    from tokrig.record.loads import LoadNodes

TRIAL_S = 3.0
TICK_NS = 500_000_000
# Rounds nearer to each other than this are followed by such a rest. Chunks that come within it on
# one stream share a stamp; what counts as at once is no shorter, at any rate that people have.
CLOSE_NS, REST_S = 250_000, 0.0001
# Of the usual gap between two chunks: a loop that is busy for longer may stamp one late, or, where
# the kernel stamps, give two the stamp of the later one.
LATE_ROUND, LATE_ROUND_STAMPED = 0.1, 0.5
# Requests that are begun in one round: those in flight must be heard as well.
BEGUN_AT_ONCE = 64
GIVEN_UP = "it was no longer waited for"


Tick = Callable[[int, int], None]
Indexed = tuple[int, bytes]
"""A request's place and its body."""


@dataclass(frozen=True)
class Response:
    """What came back for the ``index``-th request. ``sent_ns`` and ``ended_ns`` count from the
    loop's start, the stamps of ``pieces`` from ``sent_ns``. ``due_ns`` is when a request of an open
    loop should have been sent, from the start as well. ``connect_ns`` is how long connecting and
    the TLS handshake took before it was sent. ``failure`` is about transport."""

    index: int
    worker: int
    sent_ns: int
    ended_ns: int
    status: int | None
    headers: dict[str, str]
    pieces: Sequence[Piece]
    failure: str | None = None
    timed_out: bool = False
    due_ns: int | None = None
    connect_ns: int | None = None


@dataclass(frozen=True)
class Loop:
    """A finished loop: its responses, its wall time and the CPU time the client took.

    ``start_ns`` is when it began on the process's own clock. ``rounds_ns`` is how long the loop
    was busy each time before it could look again: what arrived meanwhile got its stamp that much
    later, or shares it with what came next. Above ``late_round`` of a gap that matters. ``parts``
    are the loops of several clients that it was merged from: each is as exact as it is alone, so
    shares are those of the one that had the most to do. ``client_wait_share`` is
    the part of the time in which a client that nobody else watches waited for a processor;
    ``load_nodes`` are the machines that it was sent from, where that was not this one. Responses
    that wait in a ``spool`` are not in ``responses``."""

    responses: list[Response]
    wall_s: float
    client_cpu_s: float
    start_ns: int = 0
    rounds_ns: Sequence[int] = ()
    parts: Sequence[Loop] = ()
    client_wait_share: float | None = None
    load_nodes: LoadNodes | None = None
    late_round: float = LATE_ROUND
    spool: Spool | None = None

    def each(self) -> Iterable[Response]:
        """The responses, wherever they are."""
        return self.responses if self.spool is None else self.spool

    def taken(self) -> Iterator[Response]:
        """The responses, each of which is let go: they are as large as all that arrived."""
        if self.spool is not None:
            yield from self.spool
        self.responses.reverse()
        while self.responses:
            yield self.responses.pop()

    def late_share(self, gap_s: float | None) -> float | None:
        """The share of the time that the loop spent in rounds that were long beside ``gap_s``, the
        usual time between two chunks; None where that is not known."""
        if gap_s is None or self.wall_s <= 0:
            return None
        if self.parts:
            return max(part.late_share(gap_s) or 0.0 for part in self.parts)
        limit_ns = self.late_round * gap_s * 1e9
        return round(sum(t for t in self.rounds_ns if t > limit_ns) / 1e9 / self.wall_s, 5)

    @property
    def client_cpu_share(self) -> float:
        """CPU seconds of one process per second of wall time (1 = one core)."""
        if self.parts:
            return max(part.client_cpu_share for part in self.parts)
        return self.client_cpu_s / self.wall_s if self.wall_s > 0 else 0.0


@runtime_checkable
class Source(Protocol):
    """Where requests come from, and when. ``workers`` begin at once; times are in ns since then."""

    workers: int

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        """What ``worker`` sends now that its last request has ended; None: no more."""

    def due_ns(self) -> int | None:
        """When the next request arrives by itself; None where none does any more."""

    def arrive(self) -> Indexed:
        """That request."""

    def gives_up(self, now_ns: int, in_flight: int) -> bool:
        """Whether what is in flight is no longer waited for; asked at every tick."""


class _AfterTheLast:
    """Nothing arrives by itself, and all is waited for."""

    def due_ns(self) -> int | None:
        return None

    def gives_up(self, now_ns: int, in_flight: int) -> bool:
        return False

    def arrive(self) -> Indexed:
        raise LookupError


class Closed(_AfterTheLast):
    """``workers`` requests in flight, out of one row of ``bodies``, which is taken as it is needed,
    for ``until_s`` seconds at most."""

    def __init__(self, bodies: Iterable[bytes], workers: int, until_s: float | None = None) -> None:
        self.workers = workers
        self.bodies: Iterator[Indexed] = enumerate(bodies)
        self.until_ns = None if until_s is None else until_s * 1e9

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        if self.until_ns is not None and now_ns >= self.until_ns:
            return None
        return next(self.bodies, None)


class Queues(_AfterTheLast):
    """One worker a queue, which sends its own requests one after the other."""

    def __init__(self, queues: Sequence[Iterable[Indexed]]) -> None:
        self.workers, self.queues = len(queues), [iter(queue) for queue in queues]

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        return next(self.queues[worker], None)


class Open:
    """Each of ``bodies`` arrives at its time of ``due_s`` (ascending, in seconds), whatever is in
    flight. No more arrive once ``most`` are in flight; those still in flight ``until_s`` are
    given up."""

    workers = 0

    def __init__(
        self,
        bodies: Iterable[bytes],
        due_s: Iterable[float],
        most: int | None = None,
        until_s: float | None = None,
    ) -> None:
        self.bodies: Iterator[Indexed] = enumerate(bodies)
        self.times: Iterator[int] = (round(due * 1e9) for due in due_s)
        self.due = next(self.times, None)
        self.most = most
        self.until_ns = None if until_s is None else until_s * 1e9

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        return None

    def due_ns(self) -> int | None:
        return self.due

    def arrive(self) -> Indexed:
        self.due = next(self.times, None)
        return next(self.bodies)

    def gives_up(self, now_ns: int, in_flight: int) -> bool:
        if self.most is not None and in_flight >= self.most:
            self.due = None
        return self.until_ns is not None and now_ns > self.until_ns


def closed_loop(
    endpoint: Endpoint,
    path: str,
    bodies: Iterable[bytes],
    concurrency: int,
    *,
    silence_s: float,
    tick: Tick = lambda ended, reads: None,
    reader: Reader | None = None,
) -> Loop:
    """POST ``bodies`` to ``path`` with ``concurrency`` in flight until all have ended; else as
    ``send``."""
    source = Closed(bodies, concurrency)
    return send(endpoint, path, source, silence_s=silence_s, tick=tick, reader=reader)


def send(
    endpoint: Endpoint,
    path: str,
    source: Source,
    *,
    silence_s: float,
    tick: Tick = lambda ended, reads: None,
    reader: Reader | None = None,
    at_ns: int = 0,
    spool: Spool | None = None,
) -> Loop:
    """POST what comes from ``source`` to ``path`` until all have ended, from ``at_ns`` on. What
    came back waits in a ``spool`` where there is one.

    A stream without a token for ``silence_s`` seconds is closed and marked. ``tick`` hears about
    every half second, in this thread, how many requests have ended and how many reads there were
    (which are no tokens; they show that something moves); it may raise to stop the load: all
    sockets are then closed. ``reader`` takes the place of the client's own.
    Raises OSError when the endpoint's name cannot be resolved.
    """
    with select.epoll() as epoll:
        load = _Load(epoll, endpoint, path, source, reader, spool=spool)
        rounds_ns = array("q")
        # No collector pauses between two stamps.
        collects = gc.isenabled()
        gc.collect()
        gc.disable()
        time.sleep(max(0.0, (at_ns - now_ns()) / 1e9))
        load.start_ns, start_cpu = now_ns(), time.process_time()
        try:
            for worker in range(source.workers):
                load.follow(worker)
            next_tick_ns = now_ns() + TICK_NS
            while load.wires or source.due_ns() is not None:
                ready_ns = load.round(next_tick_ns)
                if (now := now_ns()) >= next_tick_ns:
                    load.end_silent(silence_s)
                    if load.stamps is not None:
                        load.stamps.look()
                    if source.gives_up(now - load.start_ns, len(load.wires)):
                        load.give_up()
                    tick(load.count, load.reads)
                    now = now_ns()
                    next_tick_ns = now + TICK_NS
                rounds_ns.append(now - ready_ns)
            end_ns, end_cpu = now_ns(), time.process_time()
        finally:
            for wire in load.wires.values():
                wire.sock.close()
            if collects:
                gc.enable()
    ended = sorted(load.ended, key=lambda wire: wire.index)
    responses = [_response(wire, load.start_ns) for wire in ended]
    wall_s = (end_ns - load.start_ns) / 1e9
    late = LATE_ROUND_STAMPED if load.kernel_stamped else LATE_ROUND
    cpu_s = end_cpu - start_cpu
    return Loop(responses, wall_s, cpu_s, load.start_ns, rounds_ns, late_round=late, spool=spool)


def resolve(endpoint: Endpoint) -> Address:
    """The endpoint's address; names are looked up once, before anything is timed.

    A name may have several (``localhost`` is both ::1 and 127.0.0.1) while the server listens on
    one: the first that accepts a connection is taken. Raises OSError for an unknown name.
    """
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    if len(found) > 1:
        with suppress(OSError):
            where = (endpoint.host, endpoint.port)
            with socket.create_connection(where, TRIAL_S) as trial:
                return trial.family, trial.getpeername()
    return found[0][0], found[0][4]


@dataclass
class _Load:
    """The state of one loop; lives as long as ``send`` runs. A request that arrives by itself is a
    worker of its own."""

    epoll: select.epoll
    endpoint: Endpoint
    path: str
    source: Source
    reader: Reader | None
    wires: dict[int, Wire] = field(default_factory=dict)
    by_socket: dict[int, Wire] = field(default_factory=dict)
    spool: Spool | None = None
    ended: list[Wire] = field(default_factory=list)
    reads: int = 0
    start_ns: int = 0
    asked_ns: int = 0
    ready_ns: int = 0
    close_by: bool = False

    def __post_init__(self) -> None:
        self.address = resolve(self.endpoint)
        # Reading the machine's certificates takes milliseconds: once, before anything is timed.
        self.tls = ssl.create_default_context() if self.endpoint.tls else None
        self.stamps: KernelStamps | None = None
        if self.reader is None and self.tls is None:
            self.reader = self.stamps = KernelStamps()
        self.read: Reader = self.reader or read_stamped

    @property
    def count(self) -> int:
        """How many requests have ended."""
        return len(self.ended) if self.spool is None else len(self.spool)

    def follow(self, worker: int) -> None:
        """Begin the worker's next request, if it has one."""
        if (request := self.source.next(worker, now_ns() - self.start_ns)) is not None:
            self.open(request, worker)

    def open(self, request: Indexed, worker: int, due_ns: int | None = None) -> None:
        """Begin a request."""
        index, body = request
        payload = self.endpoint.payload(self.path, body)
        wire = Wire(self.endpoint, self.address, payload, self.tls, index, worker)
        wire.due_ns = due_ns
        if self.stamps is not None and not self.stamps.ask(wire.sock):
            self.stamps, self.read = None, read_stamped
        self.wires[worker] = self.by_socket[wire.number] = wire
        self.epoll.register(wire.number, WRITE)

    def round(self, until_ns: int) -> int:
        """Begin what is due; wait for sockets to become ready, or until then or the next arrival,
        and let their wires do the next step; when they became ready."""
        for _ in range(BEGUN_AT_ONCE):
            if (due_ns := self.source.due_ns()) is None:
                break
            if self.start_ns + due_ns > now_ns():
                until_ns = min(until_ns, self.start_ns + due_ns)
                break
            request = self.source.arrive()
            self.open(request, request[0], due_ns)
        else:
            until_ns = 0  # there may be more
        if self.stamps is not None:
            self.rest(self.stamps, until_ns)
        ready = self.poll(max(0, until_ns - now_ns()) / 1e9, exact=due_ns is not None)
        ready_ns = now_ns()
        self.close_by, self.ready_ns = ready_ns - self.ready_ns < CLOSE_NS, ready_ns
        self.reads += len(ready)
        for number, _ in ready:
            wire = self.by_socket[number]
            interest = wire.advance(self.read, ready_ns)
            if interest == DONE:
                self.close(wire, ready_ns)
            elif interest != wire.interest:
                wire.interest = interest
                self.epoll.modify(number, interest)
        return ready_ns

    @property
    def kernel_stamped(self) -> bool:
        """Whether the kernel told the stamps, but for a few: the first may lack them."""
        return self.stamps is not None and self.stamps.untold * 100 <= self.reads

    def rest(self, stamps: KernelStamps, until_ns: int) -> None:
        """Between rounds that follow each other closely: the kernel stamps what arrives."""
        now = now_ns()
        if self.close_by and self.kernel_stamped and until_ns - now > CLOSE_NS:
            time.sleep(REST_S)
            now = now_ns()
        stamps.since_ns, self.asked_ns = self.asked_ns, now

    def poll(self, rest_s: float, *, exact: bool) -> list[tuple[int, int]]:
        """The sockets that are ready, waited for at most so long; epoll itself rounds up to a
        millisecond, which an arrival has no time for."""
        if exact:
            select.select((self.epoll,), (), (), rest_s)
            rest_s = 0
        return self.epoll.poll(rest_s)

    def close(self, wire: Wire, ended_ns: int) -> None:
        """Keep what arrived, free the worker and give it the next request. What can be done later
        is: the other streams are waiting."""
        self.epoll.unregister(wire.number)
        del self.by_socket[wire.number]
        wire.sock.close()
        wire.ended_ns = ended_ns
        del self.wires[wire.worker]
        self.follow(wire.worker)
        if self.spool is None:
            self.ended.append(wire)
        else:
            self.spool.append(_response(wire, self.start_ns))
            # Its parser and its stage refer back to it, and nothing collects such circles now.
            vars(wire).clear()

    def give_up(self) -> None:
        """Close all streams. What would arrive later, does not."""
        while self.source.due_ns() is not None:
            self.source.arrive()
        for wire in list(self.wires.values()):
            wire.failure, wire.timed_out = GIVEN_UP, True
            self.close(wire, now_ns())

    def end_silent(self, silence_s: float) -> None:
        """Close the streams in which no token came for too long. Comments and empty chunks are no
        life: wrappers send them on behalf of an engine that has died."""
        now = now_ns()
        for wire in list(self.wires.values()):
            if wire.silent_ns(now) > silence_s * 1e9:
                said = wire.pieces and wire.pieces[-1][0] + wire.sent_ns > wire.heard_ns
                wire.failure = (
                    f"no token came for {silence_s:g} s, only heartbeats or empty chunks"
                    if said
                    else f"the server was silent for {silence_s:g} s"
                )
                wire.timed_out = True
                self.close(wire, now)


def _response(wire: Wire, start_ns: int) -> Response:
    """What came back, once it has ended; ``start_ns`` is when the loop began."""
    sent_ns = wire.sent_ns or wire.ended_ns
    pieces, compressed = decoded(wire.headers, wire.pieces)
    return Response(
        wire.index,
        wire.worker,
        sent_ns - start_ns,
        wire.ended_ns - start_ns,
        wire.status,
        wire.headers,
        pieces,
        wire.failure or compressed,
        wire.timed_out,
        wire.due_ns,
        wire.sent_ns - wire.began_ns if wire.sent_ns else None,
    )
