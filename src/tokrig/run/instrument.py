"""The measuring client measured: how far are its stamps from the truth, what do they cost?

A server (this module run as a program) sends tokens whose text is the time right before they were
sent, and how late that was: a late send costs no accuracy. The real client
receives and decodes them; the error of a stamp is *client stamp − send time in the text*. This is
the one place where stamps of two processes are subtracted: both come from CLOCK_MONOTONIC of the
same machine, which Linux keeps the same for all processes. Their difference contains the server's
``send``, the kernel's loopback and the wake-up of this process, so it is an upper bound of what
the client itself adds.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tokrig.errors import EngineDied, InputError
from tokrig.record.formulas import PERCENTILES_NEED
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Loop, closed_loop
from tokrig.run.http import Endpoint

SERVER = (sys.executable, "-P", "-m", "tokrig.run.instrument")
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Spread:
    """A distribution in seconds. p95 and p99 are null where there are too few values to tell."""

    p50: float
    p95: float | None
    p99: float | None
    max: float


@dataclass(frozen=True)
class InstrumentReport:
    """What the measuring client adds, at ``streams`` streams of one token every ``interval_s``.

    ``error_s`` is client stamp − send time, ``server_late_s`` send time − due time.
    ``coalesced_share`` is the share of tokens that came out of a read together with another one
    of the same stream: they share a stamp. ``receive_us_per_token`` is the client's CPU time
    while it measures, ``decode_us_per_token`` the CPU time spent afterwards on making chunks of
    the bytes. ``client_cpu_share`` is the CPU time while measuring over the wall time, 1 = one
    core. ``tok_per_s`` is what the server really sent, all streams together.
    """

    streams: int
    tokens: int
    interval_s: float
    error_s: Spread
    server_late_s: Spread
    coalesced_share: float
    receive_us_per_token: float
    decode_us_per_token: float
    client_cpu_share: float
    tok_per_s: float

    @property
    def client_us_per_token(self) -> float:
        """All CPU time of the client per token, in µs."""
        return self.receive_us_per_token + self.decode_us_per_token


def measure(streams: int = 64, tokens: int = 1000, interval_s: float = 0.001) -> InstrumentReport:
    """Receive ``tokens`` tokens on each of ``streams`` streams and compare the stamps.

    Takes ``tokens`` × ``interval_s`` seconds and about one more. Raises InputError for figures
    that make no load, EngineDied when the server of the instrument does not do its part.
    """
    if streams < 1 or tokens < 2 or interval_s <= 0:
        raise InputError(
            f"cannot measure {streams} streams of {tokens} tokens every {interval_s:g} s",
            hint="at least 1 stream, 2 tokens and an interval above 0",
        )
    bodies = [b'{"messages":[{"role":"user","content":"count"}],"stream":true}'] * streams
    with token_server(streams, tokens, interval_s) as endpoint:
        loop = closed_loop(endpoint, "/v1/chat/completions", bodies, streams, silence_s=PATIENCE_S)
    before = time.process_time()
    answers = [read_answer(response, lambda _: None) for response in loop.responses]
    decode_s = time.process_time() - before
    stamps, sends, late = _times(loop, answers, tokens)
    count = streams * tokens
    return InstrumentReport(
        streams=streams,
        tokens=tokens,
        interval_s=interval_s,
        error_s=_spread(stamps - sends),
        server_late_s=_spread(late),
        coalesced_share=coalesced(stamps) / count,
        receive_us_per_token=loop.client_cpu_s / count * 1e6,
        decode_us_per_token=decode_s / count * 1e6,
        client_cpu_share=loop.client_cpu_share,
        tok_per_s=(count - 1) / float(sends.max() - sends.min()) * 1e9,
    )


@contextmanager
def token_server(streams: int, tokens: int, interval_s: float) -> Iterator[Endpoint]:
    """The server in a process of its own, gone afterwards whatever happens.

    Raises EngineDied when it does not start.
    """
    words = map(str, (streams, tokens, round(interval_s * 1e9)))
    with subprocess.Popen(
        [*SERVER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port.isdigit():
                raise EngineDied(
                    "the server to measure against did not start",
                    hint="check that this user may open a port on 127.0.0.1",
                )
            yield Endpoint("127.0.0.1", int(port))
        finally:
            process.kill()


Ns = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def _times(loop: Loop, answers: Sequence[Answer], tokens: int) -> tuple[Ns, Ns, Ns]:
    """Client stamps, send times and lateness in ns, a row a stream. Raises EngineDied where a
    stream is not whole."""
    for answer in answers:
        if answer.error is not None or len(answer.chunks) != tokens:
            raise EngineDied(
                f"a stream of the instrument's server broke after {len(answer.chunks)} of {tokens} "
                f"tokens: {answer.error_detail or 'no reason known'}",
                hint="is the machine very busy? Try fewer streams or a longer interval",
            )
    stamps = np.array(
        [
            [loop.start_ns + response.sent_ns + chunk.t_ns for chunk in answer.chunks]
            for response, answer in zip(loop.responses, answers, strict=True)
        ],
        dtype=np.int64,
    )
    texts = np.array([[c.text.split() for c in a.chunks] for a in answers]).astype(np.int64)
    return stamps, texts[:, :, 0], texts[:, :, 1]


def coalesced(stamps: Ns) -> int:
    """How many stamps are the same as a neighbour's in their stream."""
    same = stamps[:, 1:] == stamps[:, :-1]
    return int(np.sum(np.pad(same, ((0, 0), (1, 0))) | np.pad(same, ((0, 0), (0, 1)))))


def _spread(values_ns: Ns) -> Spread:
    seconds = values_ns.ravel() / 1e9
    p95, p99 = (
        float(np.percentile(seconds, int(name[1:])))
        if seconds.size >= PERCENTILES_NEED[name]
        else None
        for name in ("p95", "p99")
    )
    return Spread(float(np.median(seconds)), p95, p99, float(seconds.max()))


# The server.

TEXT = "%019d %012d "
NEAR_NS = 300_000  # nearer than this it spins: a sleep may end that much too late
COMMON = {
    "id": "chatcmpl-0123456789abcdef0123456789abcdef",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "instrument",
    "system_fingerprint": "instrument",
}
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


def serve(streams: int, tokens: int, interval_ns: int) -> None:
    """The program ``STREAMS TOKENS INTERVAL_NS``: it writes its port, waits until STREAMS requests
    are in, then sends each of them TOKENS chunks of an OpenAI chat stream, one every INTERVAL_NS,
    the streams evenly staggered over the interval. The text of a token is two numbers: the time
    right before its ``send`` and how late that was, both in ns of CLOCK_MONOTONIC."""
    with socket.create_server(("127.0.0.1", 0), backlog=max(streams, 16)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        connections = gather(listener, streams)
    gc.collect()
    gc.disable()
    for connection in connections:
        connection.sendall(HEAD + sse(choices({"role": "assistant", "content": ""})))
    stream_all(connections, tokens, interval_ns)
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8}
    ending = sse(choices({}, "length")) + sse({"choices": [], "usage": usage})
    for connection in connections:
        connection.sendall(ending + http_chunk(b"data: [DONE]") + b"0\r\n\r\n")
        connection.close()


def gather(listener: socket.socket, streams: int) -> list[socket.socket]:
    """``streams`` connections whose requests have arrived whole.

    Ends the program when standard input closes: nobody will ask any more.
    """
    waiting: dict[int, tuple[socket.socket, bytes]] = {}
    ready: list[socket.socket] = []
    with select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        epoll.register(sys.stdin, select.EPOLLIN)
        while len(ready) < streams:
            for number, _ in epoll.poll():
                if number == sys.stdin.fileno():
                    sys.exit(0)
                if number == listener.fileno():
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    waiting[connection.fileno()] = (connection, b"")
                    epoll.register(connection, select.EPOLLIN)
                    continue
                connection, seen = waiting[number]
                more = connection.recv(1 << 16)
                waiting[number] = (connection, seen + more)
                if not more or whole(seen + more):
                    epoll.unregister(number)
                    if more:
                        ready.append(connection)
    return ready


def whole(request: bytes) -> bool:
    """Whether the request's body has arrived."""
    head, end, body = request.partition(b"\r\n\r\n")
    if not end:
        return False
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    return len(body) >= int(fields.get(b"content-length", b"0"))


def stream_all(connections: list[socket.socket], tokens: int, interval_ns: int) -> None:
    """One token after the other to one stream after the other, each at its due time."""
    clock, sleep = time.monotonic_ns, time.sleep
    # The numbers have a fixed width, so the chunk's length is known before they are.
    template = sse(choices({"content": TEXT % (0, 0)}))
    template = template.replace((TEXT % (0, 0)).encode(), TEXT.encode())
    start = clock() + 20_000_000
    count = len(connections)
    for place in range(tokens * count):
        due = start + place * interval_ns // count
        while (now := clock()) < due:
            if due - now > NEAR_NS:
                sleep((due - now - NEAR_NS + 100_000) / 1e9)
        connections[place % count].send(template % (now, now - due))


def sse(chunk: dict[str, object]) -> bytes:
    """A chunk of an OpenAI chat stream as a server-sent event, in an HTTP chunk."""
    return http_chunk(b"data: " + json.dumps({**COMMON, **chunk}, separators=(",", ":")).encode())


def http_chunk(data: bytes) -> bytes:
    """An event in a chunk of a chunked body."""
    return b"%x\r\n%s\n\n\r\n" % (len(data) + 2, data)


def choices(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    """The part of a chunk that carries text."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:4]))
