"""A simulated OpenAI-compatible server: one process, one thread, a heap of due times.

What is sent is made when the one before has gone, so at its due time there is nothing left to do
but to look at the clock and to send. The stamps taken right before each ``send`` are the truth
about a stream; how late they were is counted and told.

Sleeping ends late by tens of microseconds: right before something is due it spins.
"""

from __future__ import annotations

import gc
import heapq
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, cycle
from pathlib import Path
from random import Random
from typing import Any

import httptools

from tokrig.simulate.cache import Slot, Slots, cached_tokens, tokens_in
from tokrig.simulate.chat import BadRequest, read_chat, whole_answer
from tokrig.simulate.report import Report, Stamps, Tally
from tokrig.simulate.simulation import Asked, Simulation, draw, mishap
from tokrig.simulate.streams import (
    CONTENT,
    Delivery,
    Event,
    Recipe,
    delivered,
    encoder,
    events,
    generated,
    texts,
)
from tokrig.simulate.wire import (
    LAST_CHUNK,
    MOST_BYTES,
    RECEIVED,
    STREAM_HEAD,
    Connection,
    allow_many_sockets,
    listen,
    refusal,
    whole,
)
from tokrig.stamps import KernelStamps

NEAR_NS = 250_000  # nearer than this it spins: a sleep may end that much too late
ROUND_NS = 200_000  # of sending; then it looks whether somebody asks
IDLE_NS = 500_000_000
QUIET_NS = 5_000_000  # with so much time left the log is written
BANK = 4096  # texts of tokens, made once
STAMP = "%019d %012d "
_NO_STAMP = STAMP % (0, 0)

clock = time.monotonic_ns


NOTHING = Asked("", "")


def _unencoded(event: Event) -> bytes:
    raise AssertionError("an answer that has not begun")


@dataclass(slots=True, eq=False)
class Answer:
    """One answer under way. ``base_ns`` is when its slot was had: due times count from there."""

    connection: Connection[Answer]
    number: int
    received_ns: int
    cut_at: float | None
    asked: Asked = NOTHING
    recipe: Recipe | None = None
    slot: Slot | None = None
    base_ns: int = 0
    due_ns: int = 0
    cut_after: int | None = None
    deliveries: Iterator[Delivery] = field(default_factory=lambda: iter(()))
    encoded: Callable[[Event], bytes] = _unencoded
    prepared: bool = False
    usual: bool = False  # streamed, and nothing of it is kept or cut
    templates: dict[tuple[str, int], bytes] = field(default_factory=dict)
    payload: bytes = b""
    tokens: int = 0  # in the payload
    last: bool = False
    fresh: list[tuple[str, str]] = field(default_factory=list)  # of the payload, by channel
    said: list[tuple[str, str]] = field(default_factory=list)
    held_up: bool = False
    outcome: str = ""
    stamps: tuple[array[int], array[int]] = field(default_factory=lambda: (array("q"), array("q")))

    def line(self) -> dict[str, Any]:
        """What a log says of it."""
        recipe, (due_ns, sent_ns) = self.recipe, self.stamps
        return {
            "request": self.number,
            "outcome": self.outcome,
            "received_ns": self.received_ns,
            "slot_ns": self.base_ns or None,
            "prompt_tokens": recipe.prompt_tokens if recipe else None,
            "cached_tokens": recipe.cached_tokens if recipe else None,
            "due_ns": due_ns,
            "sent_ns": sent_ns,
        }


class Server:
    """Listens from its making on. Raises InputError where the address cannot be had."""

    def __init__(
        self, made: Simulation, host: str = "127.0.0.1", port: int = 0, log: Path | None = None
    ) -> None:
        self.made = made
        with ExitStack() as opened:
            self.epoll = opened.enter_context(select.epoll())
            self.listener = opened.enter_context(listen(host, port))
            self.log = opened.enter_context(closing(Stamps(log))) if log else None
            self.opened = opened.pop_all()
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.epoll.register(self.listener, select.EPOLLIN)
        self.connections: dict[int, Connection[Answer]] = {}
        self.heap: list[tuple[int, int, Answer]] = []
        self.slots = Slots(made.slots, made.cache)
        self.waiting: deque[Answer] = deque()
        self.begun: deque[Answer] = deque()  # of which nothing is prepared yet
        self.stamps, self.keeps_text = made.stamps, made.cache != "off"
        bank = Recipe(seed=made.seed, tokens=BANK)
        self.bank = [*texts(bank, Random(made.seed))]
        self.tally = Tally()
        self.reader = KernelStamps()
        KernelStamps.ask(self.listener)  # and so its connections
        self.now_ns = self.asked_ns = self.freed_ns = 0

    def serve(self, stop: int) -> Report:
        """Serve until the file descriptor ``stop`` becomes readable, or its other end closes."""
        self.epoll.register(stop, select.EPOLLIN)
        allow_many_sockets()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._serve(stop)
        finally:
            gc.enable()
            for connection in [*self.connections.values()]:
                self._close(connection)
            self.opened.close()
        return self.report()

    def _serve(self, stop: int) -> None:
        heap, wakes = self.heap, [self.epoll.fileno()]
        while True:
            now = clock()
            if heap and heap[0][0] <= now:
                until = now + ROUND_NS
                while heap and heap[0][0] <= now < until:
                    self._send_due()
                    now = clock()
            wait_ns = heap[0][0] - now if heap else IDLE_NS
            if wait_ns > NEAR_NS:
                if self.begun:
                    self._prepare_first(self.begun.popleft())
                    wait_ns = 0
                elif wait_ns > QUIET_NS:
                    self.reader.look()
                    if self.log is not None:
                        self.log.write()
                # The epoll's own descriptor: select sleeps to the microsecond, epoll does not.
                select.select(wakes, [], [], max(wait_ns - NEAR_NS, 0) / 1e9)
            if self._look(stop):
                return

    def _look(self, stop: int) -> bool:
        """Do what the sockets are ready for; whether it is time to stop."""
        self.reader.since_ns, self.asked_ns = self.asked_ns, clock()
        ready = self.epoll.poll(0)
        for number, event in ready:
            if number == stop:
                return True
            if number == self.listener.fileno():
                self._accept()
            elif (connection := self.connections.get(number)) is not None:
                if event & select.EPOLLOUT:
                    self._flush(connection)
                if event & ~select.EPOLLOUT and not connection.closed:
                    self._receive(connection)
        return False

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:  # too many open files: the next look tries again
                time.sleep(0.001)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self._next)
            self.connections[sock.fileno()] = connection
            self.epoll.register(sock, select.EPOLLIN)
            self._receive(connection)  # mostly the request is there already

    def _receive(self, connection: Connection[Answer]) -> None:
        try:
            self.now_ns, data = self.reader(connection.sock, clock())
            if not data or len(connection.body) + len(data) > MOST_BYTES:
                self._close(connection)
                return
            connection.parser.feed_data(data)
        except BlockingIOError:
            return
        except httptools.HttpParserUpgrade:
            self._close(connection)
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError:
            self._send(connection, refusal(400, "this is no HTTP request", "bad_request"))
            self._close(connection)
        except OSError:
            self._close(connection)

    def _close(self, connection: Connection[Answer]) -> None:
        if connection.closed:
            return
        connection.closed = True
        del self.connections[connection.sock.fileno()]
        self.epoll.unregister(connection.sock)
        connection.sock.close()
        del connection.parser  # which knows the connection: nobody collects such rings here
        if connection.answer is not None:
            self._end(connection.answer, "gone")

    # Requests.

    def _next(self, connection: Connection[Answer]) -> None:
        """Begin the next request of a connection, when the one before has been answered."""
        while connection.requests and connection.answer is None and not connection.closed:
            method, path, body = connection.requests.popleft()
            if path.endswith("/chat/completions") and method == "POST":
                self._begin(connection, body)
            elif (found := self._page(path)) is not None and method == "GET":
                self._send(connection, whole(200, found))
            else:
                text = f"there is no {method} {path}"
                self._send(connection, refusal(404, text, "not_found"))

    def _page(self, path: str) -> dict[str, Any] | None:
        made = self.made
        if path == "/health":
            return {"status": "ok"}
        if path.endswith("/models"):
            limit = {"max_model_len": made.context} if made.context else {}
            model = {"id": made.model, "object": "model", "created": 0, "owned_by": "tokrig"}
            return {"object": "list", "data": [{**model, **limit}]}
        if path == "/simulation":
            return {"simulation": made.model_dump(), "report": vars(self.report())}
        return None

    def _begin(self, connection: Connection[Answer], body: bytes) -> None:
        self.tally.requests += 1
        made, number = self.made, self.tally.requests
        fails, cut_at = mishap(made, number)
        answer = Answer(connection, number, self.now_ns, cut_at)
        try:
            if fails:
                text = f"request {number} fails, as the simulation was asked to"
                raise BadRequest(text, "simulated_error", made.error_status)
            answer.asked = read_chat(body, made)
        except BadRequest as bad:
            self._end(answer, "failed" if fails else "refused")
            self._send(connection, refusal(bad.status, str(bad), bad.code))
            return
        connection.answer = answer
        self.waiting.append(answer)
        self._serve_waiting(self.now_ns)

    def _serve_waiting(self, now_ns: int) -> None:
        """Give free slots to those who wait, in their order."""
        while self.waiting:
            answer = self.waiting[0]
            if answer.outcome:
                self.waiting.popleft()
                continue
            asked = answer.asked
            found = self.slots.take(asked.prompt)
            if found is None:
                return
            self.waiting.popleft()
            answer.slot, seen = found
            prompt = tokens_in(asked.prompt)
            cached = cached_tokens(seen, asked.prompt) if asked.may_use_cache else 0
            self._start(answer, draw(self.made, asked, answer.number, prompt, cached), now_ns)

    def _start(self, answer: Answer, recipe: Recipe, now_ns: int) -> None:
        r = Random(recipe.seed)
        # It may have arrived before its slot was free, and be looked at only now.
        now_ns = max(now_ns, self.freed_ns)
        answer.recipe, answer.base_ns = recipe, now_ns
        answer.encoded = encoded = encoder(
            {
                "id": f"chatcmpl-{answer.number:016x}",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": answer.asked.model,
            }
        )
        said = chain(self.bank[r.randrange(BANK) :], cycle(self.bank))
        sent = events(recipe, generated(recipe, r), said, r)
        answer.deliveries = delivered(recipe, sent, encoded)
        if answer.cut_at is not None:
            answer.cut_after = int(answer.cut_at * recipe.tokens)
        answer.usual = answer.asked.streams and not self.keeps_text and answer.cut_at is None
        # What it begins with is made in a moment when nobody waits.
        self.begun.append(answer)
        heapq.heappush(self.heap, (now_ns + recipe.ttft_ns, answer.number, answer))

    # Answers.

    def _prepare_first(self, answer: Answer) -> None:
        """Make what an answer begins with, unless that has been done."""
        if answer.prepared or answer.outcome:
            return
        answer.prepared = True
        self._prepare(answer)
        if answer.asked.streams:
            received = RECEIVED % answer.received_ns if self.stamps else b""
            answer.payload = STREAM_HEAD % received + answer.payload

    def _prepare(self, answer: Answer) -> None:
        """Make what is due next."""
        t_ns, group = next(answer.deliveries)
        answer.due_ns = answer.base_ns + t_ns
        event, parts = group[0], []
        if answer.usual and len(group) == 1 and event.tokens and event.more is None:
            answer.payload, answer.tokens = self._chunk(answer, event), event.tokens
            return
        keeps_text = self.keeps_text or not answer.asked.streams
        answer.tokens = sum(event.tokens for event in group)
        for event in group:
            if answer.asked.streams:
                parts.append(self._chunk(answer, event))
            if event.tokens and keeps_text:
                answer.fresh.append((event.kind, event.text))
        answer.payload = b"".join(parts)
        answer.last = not event.kind and event.more is None
        if answer.last and answer.asked.streams:
            answer.payload += LAST_CHUNK
        cut_after = answer.cut_after
        if cut_after is not None and (answer.last or (event.last_token or 0) >= cut_after):
            answer.last = True

    def _chunk(self, answer: Answer, event: Event) -> bytes:
        """An event as a chunk of the body; with stamps a template for them, which is the same for
        all tokens of a channel."""
        key = (event.kind, event.tokens)
        stamped = self.stamps and event.tokens > 0
        if stamped and event.more is None and (made := answer.templates.get(key)):
            return made
        if stamped:
            event.text = _NO_STAMP * event.tokens
        data = answer.encoded(event)
        data = b"%x\r\n%s\r\n" % (len(data), data)
        if self.stamps:
            data = data.replace(b"%", b"%%").replace(_NO_STAMP.encode(), STAMP.encode())
        if stamped and event.more is None:
            answer.templates[key] = data
        return data

    def _send_due(self) -> None:
        """Send what is due first, and put the next of that stream in its place."""
        due_ns, _, answer = self.heap[0]
        connection = answer.connection
        if answer.outcome or connection.unsent:
            heapq.heappop(self.heap)
            answer.held_up = not answer.outcome
            return
        if due_ns != answer.due_ns:  # an estimate
            self._prepare_first(answer)
            heapq.heapreplace(self.heap, (answer.due_ns, answer.number, answer))
            return
        tokens, payload = answer.tokens, answer.payload
        now_ns = clock()
        if self.stamps and payload:
            payload %= (now_ns, now_ns - due_ns) * tokens
        if payload:
            self._send(connection, payload)
        if answer.fresh:
            self._keep_text(answer, STAMP % (now_ns, now_ns - due_ns))
        self.tally.sent(tokens, now_ns, None if answer.held_up else now_ns - due_ns)
        answer.held_up = False
        if self.log is not None:
            answer.stamps[0].extend([due_ns] * tokens)
            answer.stamps[1].extend([now_ns] * tokens)
        # Nobody came before it in the meantime: what begins now is due later.
        if answer.last or answer.outcome:
            heapq.heappop(self.heap)
            if not answer.outcome:
                self._finish(answer)
        else:
            self._prepare(answer)
            heapq.heapreplace(self.heap, (answer.due_ns, answer.number, answer))

    def _keep_text(self, answer: Answer, stamp: str) -> None:
        """What was sent, for the cache or for an answer in one piece."""
        for kind, text in answer.fresh:
            if self.stamps:
                text = text.replace(_NO_STAMP, stamp)
            answer.said.append((kind, text))
        answer.fresh = []

    def _finish(self, answer: Answer) -> None:
        connection = answer.connection
        if answer.cut_after is not None:
            self._end(answer, "cut")
            self._close(connection)
            return
        if not answer.asked.streams:
            assert answer.recipe is not None
            named = answer.asked.model
            found = whole_answer(answer.recipe, answer.number, named, answer.said)
            self._send(connection, whole(200, found))
        self._end(answer, "answered")
        if connection.closes and not connection.unsent:
            self._close(connection)
        self._next(connection)

    def _end(self, answer: Answer, outcome: str) -> None:
        """Count an answer and free its slot."""
        answer.outcome, answer.connection.answer = outcome, None
        self.tally.outcomes[outcome] += 1
        if self.log is not None:
            self.log.lines.append(answer.line())
        if answer.slot is not None:
            said = "".join(text for kind, text in answer.said if kind == CONTENT)
            self.slots.give_back(answer.slot, answer.asked.prompt + said)
            self.freed_ns = 0 if self.made.slots is None else clock()
            self._serve_waiting(self.freed_ns)

    def _send(self, connection: Connection[Answer], data: bytes) -> None:
        if connection.closed:
            return
        try:
            sent = 0 if connection.unsent else connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent += data[sent:]
            self.epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection[Answer]) -> None:
        """Send what a slow reader had no room for; then its stream goes on."""
        data, connection.unsent = connection.unsent, b""
        self.epoll.modify(connection.sock, select.EPOLLIN)
        self._send(connection, data)
        answer = connection.answer
        if connection.closed or connection.unsent:
            return
        if answer is not None and answer.held_up:
            heapq.heappush(self.heap, (answer.due_ns, answer.number, answer))
        elif answer is None and connection.closes:
            self._close(connection)

    def report(self) -> Report:
        """What was done so far."""
        return self.tally.report(len(self.waiting), self.slots.busy)
