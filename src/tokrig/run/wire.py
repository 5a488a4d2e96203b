"""One streamed HTTP response on a non-blocking socket: bytes in, stamped body pieces out.

The hot path is ``Wire._receive``: one ``recv``, one pass of the C parser (httptools, llhttp
inside) that only strips the transfer encoding. Nothing is decoded before the stream ends.

A piece's stamp is the moment the selector reported its socket readable: the earliest this process
can know of it, one moment for all sockets reported together. So a stream's stamp never waits for
the reading, parsing or ending of another one; what a busy loop can do is only to see it one round
later. ``read_stamped`` is the seam for better clocks: a reader that takes the kernel's own receive
stamps (SO_TIMESTAMPING) can take its place without anything else changing.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import httptools

from tokrig.run.address import Endpoint
from tokrig.run.sse import Piece

# More than a TLS record (16 KiB): nothing decrypted stays behind where no selector sees it.
READ_BYTES = 1 << 16
TRIAL_S = 3.0

Reader = Callable[[socket.socket, int], tuple[int, bytes]]
Address = tuple[socket.AddressFamily, Any]


class Interest(IntEnum):
    """What a wire waits for; READ and WRITE are the selector's own numbers."""

    DONE = 0
    READ = 1
    WRITE = 2


# An attribute of an enum costs a descriptor's call; these stand in the hot path.
DONE, READ, WRITE = Interest.DONE, Interest.READ, Interest.WRITE


def read_stamped(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
    """Read what is there; the stamp is the moment the selector reported it."""
    return ready_ns, sock.recv(READ_BYTES)


class Wire:
    """One request and its response, driven by a selector through ``advance``.

    ``sent_ns`` is taken when the request's first byte is handed to the kernel: connecting and
    the TLS handshake come before the clock of TTFT starts. ``pieces`` are the stamped parts of
    the body; ``failure`` says what went wrong on the way, in words. An ``https`` endpoint wants
    the ``tls`` context.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: Address,
        payload: bytes,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        family, target = address
        self.sock: socket.socket = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = memoryview(payload)
        self.pieces: list[Piece] = []
        self.headers: dict[str, str] = {}
        self.headers_complete = self.complete = False
        self.failure: str | None = None
        self.stamp = self.sent_ns = 0
        # The last sign of life that is no piece: being made, or a part of the request sent.
        self.heard_ns = now_ns()
        self.parser = httptools.HttpResponseParser(self)
        self.endpoint = endpoint
        self.tls = tls
        self.stage = self._connect
        # EINPROGRESS is the normal answer. Some refusals show here, the others once the socket
        # becomes writable.
        code = self.sock.connect_ex(target)
        self.refusal = 0 if code == errno.EINPROGRESS else code

    # Callbacks of the parser.
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.headers_complete = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append((self.stamp, body))

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:
            # "100 Continue" and "103 Early Hints" come before the answer.
            self.headers, self.headers_complete = {}, False
        else:
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
            return WRITE if self.stage == self._send else READ
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except httptools.HttpParserError as error:
            # What follows the end of the answer is nobody's.
            if not self.complete:
                self.failure = f"the answer is no HTTP: {error}"
        except OSError as error:
            broke = "the connection broke" if self.sent_ns else "cannot connect to the server"
            self.failure = f"{broke}: {error.strerror or error}"
        return DONE

    def _connect(self, reader: Reader, ready_ns: int) -> Interest:
        code = self.refusal or self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if self.tls is None:
            self.stage = self._send
            return self._send(reader, ready_ns)
        # Wrapping needs a connected socket; the file descriptor stays the same.
        wrapped = self.tls.wrap_socket(
            self.sock, server_hostname=self.endpoint.host, do_handshake_on_connect=False
        )
        self.sock = wrapped
        self.handshake = wrapped.do_handshake
        self.stage = self._handshake
        return self._handshake(reader, ready_ns)

    def _handshake(self, reader: Reader, ready_ns: int) -> Interest:
        self.handshake()
        self.stage = self._send
        return WRITE

    def _send(self, reader: Reader, ready_ns: int) -> Interest:
        self.sent_ns = self.sent_ns or now_ns()
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a request before it has read all of it. Its reason is worth
            # more than our error.
            self.stage = self._receive
            return self._receive(reader, now_ns())
        self.heard_ns = now_ns()
        if self.unsent:
            return WRITE
        self.stage = self._receive
        return READ

    def _receive(self, reader: Reader, ready_ns: int) -> Interest:
        self.stamp, data = reader(self.sock, ready_ns)
        if not data:
            self._end_of_file()
            return DONE
        self.parser.feed_data(data)
        return DONE if self.complete else READ

    def _end_of_file(self) -> None:
        if self.status is None:
            self.failure = "the server closed the connection without an answer"
        elif (
            not self.headers_complete
            or "chunked" in self.headers.get("transfer-encoding", "").lower()
            or "content-length" in self.headers
        ):
            self.failure = "the server closed the connection in the middle of its answer"
        else:
            # Without a length the body ends with the connection (HTTP/1.0 servers do this).
            self.complete = True


def resolve(endpoint: Endpoint) -> Address:
    """The endpoint's address; names are looked up once, before anything is timed.

    A name may have several (``localhost`` is both ::1 and 127.0.0.1) while the server listens on
    one: the first that accepts a connection is taken. Raises OSError for an unknown name.
    """
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    addresses = [(entry[0], entry[4]) for entry in found]
    for family, target in addresses if len(addresses) > 1 else []:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.settimeout(TRIAL_S)
            if trial.connect_ex(target) == 0:
                return family, target
    return addresses[0]


now_ns = time.monotonic_ns
"""The one clock of the measuring process (CLOCK_MONOTONIC), in nanoseconds."""
