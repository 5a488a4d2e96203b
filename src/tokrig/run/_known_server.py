"""The known server that ``tokrig instrument`` measures the measuring client against.

A program of its own without any import from tokrig: ``_known_server.py STREAMS TOKENS
INTERVAL_NS``. It writes its port, waits until STREAMS requests are in, and then sends each of
them TOKENS chunks, one every INTERVAL_NS, the streams evenly staggered over the interval. What it
sends is an OpenAI chat stream in HTTP chunks; the text of each token is two numbers: the time
right before its ``send`` and how late that was after its due time, both in ns of CLOCK_MONOTONIC.
It ends after one set of streams, or when its standard input is closed before.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time

TEXT = "%019d %012d "
NEAR_NS = 300_000  # nearer than this it spins: a sleep may end that much too late


def main(streams: int, tokens: int, interval_ns: int) -> None:
    """Serve one set of streams."""
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


COMMON = {
    "id": "chatcmpl-0123456789abcdef0123456789abcdef",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "known",
    "system_fingerprint": "known-server",
}
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)

if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
