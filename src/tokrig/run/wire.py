"""One streamed HTTP response on a non-blocking socket: bytes in, stamped body pieces out.

The hot path is ``Wire._receive``: one ``recv``, one stamp, one pass of the C parser (httptools,
llhttp inside) that only strips the transfer encoding. Nothing is decoded before the stream ends.

``read_stamped`` is the seam for better clocks: a reader that takes the kernel's own receive
stamps (SO_TIMESTAMPING) can take its place without anything else changing.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

import httptools

from tokrig.errors import InputError
from tokrig.run.sse import Piece

READ_BYTES = 1 << 16

Reader = Callable[[socket.socket, int], tuple[int, bytes]]
Address = tuple[socket.AddressFamily, Any]


class Interest(IntEnum):
    """What a wire waits for; READ and WRITE are the selector's own numbers."""

    DONE = 0
    READ = 1
    WRITE = 2


def read_stamped(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
    """Read what is there. The stamp is the moment the selector reported it, the earliest the
    process can know of it: taken once for all sockets that were ready together, so that one
    stream's stamp does not wait for another stream's read."""
    return ready_ns, sock.recv(READ_BYTES)


@dataclass(frozen=True)
class Endpoint:
    """Where requests go: ``http://127.0.0.1:8080/v1`` taken apart, plus headers such as a key."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_url(cls, url: str, headers: Mapping[str, str] | None = None) -> Endpoint:
        """Raises InputError for anything that is no http(s) URL with a host."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise InputError(f"{url!r} is no URL: {error}", hint=_URL_HINT) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no http(s) URL", hint=_URL_HINT)
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if tls else 80), tls, prefix, headers or {})

    @property
    def host_header(self) -> str:
        """The Host header; IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def payload(self, path: str, body: bytes) -> bytes:
        """The whole request as bytes, so that sending it is one call."""
        lines = [
            f"POST {self.prefix}{path} HTTP/1.1",
            f"Host: {self.host_header}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


_URL_HINT = "give it as http://127.0.0.1:8080/v1"


class Wire:
    """One request and its response, driven by a selector through ``advance``.

    ``sent_ns`` is taken when the request's first byte is handed to the kernel: connecting and
    the TLS handshake come before the clock of TTFT starts. ``pieces`` are the stamped parts of
    the body; ``failure`` says what went wrong on the way, in words.
    """

    def __init__(self, endpoint: Endpoint, address: Address, payload: bytes) -> None:
        family, target = address
        self.sock: socket.socket = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = memoryview(payload)
        self.pieces: list[Piece] = []
        self.headers: dict[str, str] = {}
        self.complete = False
        self.failure: str | None = None
        self.stamp = self.sent_ns = 0
        self.heard_ns = now_ns()
        self.parser = httptools.HttpResponseParser(self)
        self.endpoint = endpoint
        self.stage = self._handshake if endpoint.tls else self._send
        # EINPROGRESS is the normal answer; a refusal shows when the socket becomes writable.
        self.sock.connect_ex(target)

    # Callbacks of the parser.
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.pieces.append((self.stamp, body))

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def status(self) -> int | None:
        """The HTTP status, or None before the status line arrived."""
        return self.parser.get_status_code() or None

    def advance(self, reader: Reader, ready_ns: int) -> Interest:
        """Do what the socket is ready for; what to wait for next, DONE once it has ended."""
        try:
            return self.stage(reader, ready_ns)
        except BlockingIOError:
            return Interest.WRITE if self.stage == self._send else Interest.READ
        except ssl.SSLWantReadError:
            return Interest.READ
        except ssl.SSLWantWriteError:
            return Interest.WRITE
        except httptools.HttpParserError as error:
            self.failure = f"the answer is no HTTP: {error}"
        except OSError as error:
            broke = "the connection broke" if self.sent_ns else "cannot connect to the server"
            self.failure = f"{broke}: {error.strerror or error}"
        return Interest.DONE

    def _handshake(self, reader: Reader, ready_ns: int) -> Interest:
        if not isinstance(self.sock, ssl.SSLSocket):
            self._raise_refusal()
            # Wrapping needs a connected socket; the file descriptor stays the same.
            self.sock = ssl.create_default_context().wrap_socket(
                self.sock, server_hostname=self.endpoint.host, do_handshake_on_connect=False
            )
        self.sock.do_handshake()
        self.stage = self._send
        return Interest.WRITE

    def _send(self, reader: Reader, ready_ns: int) -> Interest:
        if not self.sent_ns:
            self._raise_refusal()
            self.sent_ns = now_ns()
        self.unsent = self.unsent[self.sock.send(self.unsent) :]
        if self.unsent:
            return Interest.WRITE
        self.heard_ns = now_ns()
        self.stage = self._receive
        return Interest.READ

    def _receive(self, reader: Reader, ready_ns: int) -> Interest:
        while True:
            self.stamp, data = reader(self.sock, ready_ns)
            self.heard_ns = self.stamp
            if not data:
                self._end_of_file()
                return Interest.DONE
            self.parser.feed_data(data)
            if self.complete:
                return Interest.DONE
            # TLS may hold decrypted bytes that no selector will report.
            if not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
                return Interest.READ

    def _raise_refusal(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _end_of_file(self) -> None:
        if self.status is None:
            self.failure = "the server closed the connection without an answer"
        elif "chunked" in self.headers.get("transfer-encoding", "") or (
            "content-length" in self.headers
        ):
            self.failure = "the server closed the connection in the middle of its answer"
        else:
            # Without a length the body ends with the connection (HTTP/1.0 servers do this).
            self.complete = True


def resolve(endpoint: Endpoint) -> Address:
    """The endpoint's first address; names are looked up once, before anything is timed.

    Raises OSError when the name is not known.
    """
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return found[0][0], found[0][4]


now_ns = time.monotonic_ns
"""The one clock of the measuring process (CLOCK_MONOTONIC), in nanoseconds."""
