"""Many streams at once: a closed loop that keeps ``concurrency`` requests in flight.

One thread, one selector, no framework: between the kernel reporting bytes and the stamp lies
nothing but the return from ``select``. While it runs the garbage collector is off, and nothing
is decoded, printed or written; a ``tick`` about twice a second is all that others get.
"""

from __future__ import annotations

import gc
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tokrig.run.sse import Piece
from tokrig.run.wire import Endpoint, Interest, Reader, Wire, now_ns, read_stamped, resolve

TICK_S = 0.5


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
    """A finished closed loop: its responses, its wall time and the CPU time the client took."""

    responses: list[Response]
    wall_s: float
    client_cpu_s: float

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


@dataclass(frozen=True)
class _Slot:
    worker: int
    order: Order
    wire: Wire


class _Loop:
    """The state of one closed loop; lives as long as ``closed_loop`` runs."""

    def __init__(
        self, selector: selectors.BaseSelector, endpoint: Endpoint, orders: Sequence[Order]
    ) -> None:
        self.selector = selector
        self.endpoint = endpoint
        self.address = resolve(endpoint)
        self.queue = iter(orders)
        self.slots: dict[int, _Slot] = {}
        self.responses: list[Response] = []
        self.ticker = Ticker()

    def open(self, worker: int) -> None:
        """Begin the next request, if one is left."""
        order = next(self.queue, None)
        if order is None:
            return
        payload = self.endpoint.payload(order.path, order.body)
        slot = _Slot(worker, order, Wire(self.endpoint, self.address, payload))
        self.slots[worker] = slot
        self.selector.register(slot.wire.sock.fileno(), Interest.WRITE, slot)

    def advance(self, key: selectors.SelectorKey, reader: Reader, ready_ns: int) -> None:
        """Let a ready socket's wire do its next step."""
        slot: _Slot = key.data
        interest = slot.wire.advance(reader, ready_ns)
        self.ticker.reads += 1
        if interest is Interest.DONE:
            self.close(slot, ready_ns)
        elif interest != key.events:
            self.selector.modify(slot.wire.sock.fileno(), interest, slot)

    def close(self, slot: _Slot, ended_ns: int, timed_out: bool = False) -> None:
        """Keep what arrived, free the worker and give it the next request."""
        wire = slot.wire
        self.selector.unregister(wire.sock.fileno())
        wire.sock.close()
        del self.slots[slot.worker]
        sent_ns = wire.sent_ns or ended_ns
        self.responses.append(
            Response(
                slot.order,
                slot.worker,
                sent_ns,
                ended_ns,
                wire.status,
                wire.headers,
                [(t - sent_ns, data) for t, data in wire.pieces],
                wire.failure,
                timed_out,
            )
        )
        self.ticker.ended += 1
        self.open(slot.worker)

    def end_silent(self, silence_s: float) -> None:
        """Close the streams that have said nothing for too long."""
        now = now_ns()
        for slot in list(self.slots.values()):
            if now - slot.wire.heard_ns > silence_s * 1e9:
                slot.wire.failure = f"the server was silent for {silence_s:g} s"
                self.close(slot, now, timed_out=True)


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

    A stream silent for ``silence_s`` seconds is closed and marked. ``tick`` runs about every
    half second in this thread and may raise to stop the load: all sockets are then closed.
    Raises OSError when the endpoint's name cannot be resolved.
    """
    with selectors.DefaultSelector() as selector, _quiet_gc():
        loop = _Loop(selector, endpoint, orders)
        start_ns, start_cpu = now_ns(), time.process_time()
        try:
            for worker in range(concurrency):
                loop.open(worker)
            next_tick = time.monotonic() + TICK_S
            while loop.slots:
                ready = selector.select(max(0.0, next_tick - time.monotonic()))
                ready_ns = now_ns()
                for key, _ in ready:
                    loop.advance(key, reader, ready_ns)
                if time.monotonic() >= next_tick:
                    loop.end_silent(silence_s)
                    tick(loop.ticker)
                    next_tick = time.monotonic() + TICK_S
        finally:
            for slot in loop.slots.values():
                slot.wire.sock.close()
        end_ns, end_cpu = now_ns(), time.process_time()
    responses = sorted(loop.responses, key=lambda r: r.order.index)
    return Phase(
        [
            replace(r, sent_ns=r.sent_ns - start_ns, ended_ns=r.ended_ns - start_ns)
            for r in responses
        ],
        (end_ns - start_ns) / 1e9,
        end_cpu - start_cpu,
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
