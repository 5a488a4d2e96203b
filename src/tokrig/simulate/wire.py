"""HTTP as a simulated server speaks it."""

from __future__ import annotations

import json
import resource
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import httptools

from tokrig.errors import no_port

MOST_BYTES = 64 << 20  # of a request
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n%s\r\n"
)
RECEIVED = b"X-Received-Ns: %d\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


A = TypeVar("A")


class Connection(Generic[A]):
    """One socket: requests in, answers out, one after the other."""

    def __init__(self, sock: socket.socket, asked: Callable[[Connection[A]], None]) -> None:
        self.sock = sock
        self.parser = httptools.HttpRequestParser(self)
        self.asked = asked
        self.unsent = b""
        self.answer: A | None = None
        # Method, path and body of requests that came whole and wait for their turn.
        self.requests: deque[tuple[str, str, bytes]] = deque()
        self.url, self.body, self.closes, self.closed = b"", bytearray(), False, False

    # Callbacks of the parser.
    def on_message_begin(self) -> None:
        self.url, self.body = b"", bytearray()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.closes = not self.parser.should_keep_alive()
        path = self.url.decode("latin-1").partition("?")[0]
        self.requests.append((self.parser.get_method().decode(), path, bytes(self.body)))
        self.asked(self)


def whole(status: int, found: dict[str, Any]) -> bytes:
    """An answer of JSON in one piece."""
    body = json.dumps(found, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Simulated')}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def refusal(status: int, text: str, code: str) -> bytes:
    """A refusal as the OpenAI API words it."""
    return whole(status, {"error": {"message": text, "type": code, "code": code, "param": None}})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that does not block. Raises InputError where the address cannot be
    had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, OverflowError) as problem:
        raise no_port(host, port, problem) from None
    listener.setblocking(False)
    return listener


def allow_many_sockets() -> None:
    """As many as the system lets this user have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
