"""Many streams at once: a closed loop that keeps ``concurrency`` requests in flight.

One thread, one selector, no framework: between the kernel reporting bytes and the stamp lies
nothing but the return from ``select``. While it runs the garbage collector is off, and nothing
is decoded, printed or written; a ``tick`` about twice a second is all that others get.
"""

from __future__ import annotations

import gc
import selectors
import ssl
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokrig.run.address import Endpoint
from tokrig.run.encoding import decoded
from tokrig.run.silence import bears_token
from tokrig.run.sse import Piece
from tokrig.run.wire import (
    DONE,
    WRITE,
    Reader,
    Wire,
    now_ns,
    read_stamped,
    resolve,
)

TICK_S = 0.5
# Of the usual gap between two chunks: a loop that is busy for longer may stamp one late.
LATE_ROUND = 0.1


@dataclass(frozen=True)
class Order:
    """One request to send: its index in the phase, the path and the encoded body."""

    index: int
    path: str
    body: bytes


@dataclass(frozen=True)
class Response:
    """What came back. ``sent_ns`` and ``ended_ns`` count from the phase's start, the stamps of
    ``pieces`` from ``sent_ns``. ``failure`` is about transport."""

    order: Order
    worker: int
    sent_ns: int
    ended_ns: int
    status: int | None
    headers: dict[str, str]
    pieces: list[Piece]
    failure: str | None = None
    timed_out: bool = False


@dataclass(frozen=True)
class Phase:
    """A finished closed loop: its responses, its wall time and the CPU time the client took.

    ``start_ns`` is when it began on the process's own clock (CLOCK_MONOTONIC). ``rounds_ns`` is
    how long the loop was busy each time before it could look again: what arrived meanwhile got
    its stamp that much later."""

    responses: list[Response]
    wall_s: float
    client_cpu_s: float
    start_ns: int = 0
    rounds_ns: Sequence[int] = ()

    def late_share(self, gap_s: float | None) -> float | None:
        """The share of the time that the loop spent in rounds above a tenth of ``gap_s``, the
        usual time between two chunks; None where that is not known."""
        if gap_s is None or self.wall_s <= 0:
            return None
        limit_ns = LATE_ROUND * gap_s * 1e9
        return round(sum(t for t in self.rounds_ns if t > limit_ns) / 1e9 / self.wall_s, 5)

    @property
    def client_cpu_share(self) -> float:
        """CPU seconds of this process per second of wall time (1 = one core)."""
        return self.client_cpu_s / self.wall_s if self.wall_s > 0 else 0.0


@dataclass
class Ticker:
    """What a ``tick`` sees: how many requests have ended and how many reads there were so far.

    Reads are no tokens; they only show that something moves.
    """

    ended: int = 0
    reads: int = 0


@dataclass(slots=True)
class _Slot:
    worker: int
    order: Order
    wire: Wire
    ended_ns: int = 0
    timed_out: bool = False
    looked_at: int = 0  # pieces that were looked at for tokens

    def response(self, start_ns: int) -> Response:
        wire = self.wire
        sent_ns = wire.sent_ns or self.ended_ns
        pieces, compressed = decoded(wire.headers, wire.pieces)
        return Response(
            self.order,
            self.worker,
            sent_ns - start_ns,
            self.ended_ns - start_ns,
            wire.status,
            wire.headers,
            [(t - sent_ns, data) for t, data in pieces],
            wire.failure or compressed,
            self.timed_out,
        )

    def silent_ns(self, now: int) -> int:
        """How long no token has come. Only the latest of the new pieces that bears one is read, so
        this costs a stream no more than a token or two of decoding."""
        wire = self.wire
        new = wire.pieces[self.looked_at :]
        self.looked_at += len(new)
        latest = next((t for t, data in reversed(new) if bears_token(data)), 0)
        wire.heard_ns = max(wire.heard_ns, latest)
        return now - wire.heard_ns


class _Loop:
    """The state of one closed loop; lives as long as ``closed_loop`` runs."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        endpoint: Endpoint,
        orders: Sequence[Order],
        reader: Reader,
    ) -> None:
        self.selector = selector
        self.endpoint = endpoint
        self.reader = reader
        self.address = resolve(endpoint)
        # Reading the machine's certificates takes milliseconds: once, before anything is timed.
        self.tls = ssl.create_default_context() if endpoint.tls else None
        self.queue = iter(orders)
        self.slots: dict[int, _Slot] = {}
        self.ended: list[_Slot] = []
        self.ticker = Ticker()

    def open(self, worker: int) -> None:
        """Begin the next request, if one is left."""
        order = next(self.queue, None)
        if order is None:
            return
        payload = self.endpoint.payload(order.path, order.body)
        slot = _Slot(worker, order, Wire(self.endpoint, self.address, payload, self.tls))
        self.slots[worker] = slot
        self.selector.register(slot.wire.sock.fileno(), WRITE, slot)

    def round(self, timeout_s: float) -> int:
        """Wait for sockets to become ready and let their wires do the next step; when they
        became ready."""
        ready = self.selector.select(timeout_s)
        ready_ns = now_ns()
        self.ticker.reads += len(ready)
        for key, _ in ready:
            slot: _Slot = key.data
            interest = slot.wire.advance(self.reader, ready_ns)
            if interest is DONE:
                self.close(slot, ready_ns)
            elif interest != key.events:
                self.selector.modify(slot.wire.sock.fileno(), interest, slot)
        return ready_ns

    def close(self, slot: _Slot, ended_ns: int) -> None:
        """Keep what arrived, free the worker and give it the next request.

        What can be done later is: the other streams are waiting.
        """
        self.selector.unregister(slot.wire.sock.fileno())
        slot.wire.sock.close()
        slot.ended_ns = ended_ns
        self.ended.append(slot)
        self.ticker.ended += 1
        del self.slots[slot.worker]
        self.open(slot.worker)

    def end_silent(self, silence_s: float) -> None:
        """Close the streams in which no token came for too long. Comments and empty chunks are no
        life: wrappers send them on behalf of an engine that has died."""
        now = now_ns()
        for slot in list(self.slots.values()):
            if slot.silent_ns(now) > silence_s * 1e9:
                said = slot.wire.pieces and slot.wire.pieces[-1][0] > slot.wire.heard_ns
                slot.wire.failure = (
                    f"no token came for {silence_s:g} s, only heartbeats or empty chunks"
                    if said
                    else f"the server was silent for {silence_s:g} s"
                )
                slot.timed_out = True
                self.close(slot, now)


def closed_loop(
    endpoint: Endpoint,
    orders: Sequence[Order],
    concurrency: int,
    *,
    silence_s: float,
    tick: Callable[[Ticker], None] = lambda _: None,
    reader: Reader = read_stamped,
) -> Phase:
    """Send ``orders`` with ``concurrency`` in flight until all have ended.

    A stream without a token for ``silence_s`` seconds is closed and marked. ``tick`` runs about
    every half second in this thread and may raise to stop the load: all sockets are then closed.
    Raises OSError when the endpoint's name cannot be resolved.
    """
    with selectors.DefaultSelector() as selector, _quiet_gc():
        loop = _Loop(selector, endpoint, orders, reader)
        rounds_ns = array("q")
        start_ns, start_cpu = now_ns(), time.process_time()
        try:
            for worker in range(concurrency):
                loop.open(worker)
            next_tick = time.monotonic() + TICK_S
            while loop.slots:
                ready_ns = loop.round(max(0.0, next_tick - time.monotonic()))
                if time.monotonic() >= next_tick:
                    loop.end_silent(silence_s)
                    tick(loop.ticker)
                    next_tick = time.monotonic() + TICK_S
                rounds_ns.append(now_ns() - ready_ns)
        finally:
            for slot in loop.slots.values():
                slot.wire.sock.close()
        end_ns, end_cpu = now_ns(), time.process_time()
    ended = sorted(loop.ended, key=lambda slot: slot.order.index)
    return Phase(
        [slot.response(start_ns) for slot in ended],
        (end_ns - start_ns) / 1e9,
        end_cpu - start_cpu,
        start_ns,
        rounds_ns,
    )


@contextmanager
def _quiet_gc() -> Iterator[None]:
    """No collector pauses between two stamps."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
