"""A small HTTP server on loopback that says exactly what a test tells it to, byte by byte.

Each connection is served by a thread that runs the test's script: a function that is given the
``Talk``. Nothing here understands HTTP beyond finding the end of a request, so that a script may
break every rule.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trustme

from tokrig.run.http import Endpoint

# Only what would never end takes so long, on the busiest machine.
PATIENT_S = 60

# Made anew in each process: no private key belongs into a repository.
AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1", "::1")

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
OLD_SSE_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@dataclass
class Talk:
    """One connection as its script sees it: the request, and the socket to answer on."""

    number: int
    sock: socket.socket
    head: bytes = b""
    body: bytes = b""

    def send(self, *parts: bytes, gap_s: float = 0.0) -> None:
        for part in parts:
            if gap_s:
                time.sleep(gap_s)
            self.sock.sendall(part)

    def reset(self) -> None:
        """End the connection with a reset instead of an orderly close."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Talk], None]


@dataclass
class Loopback:
    """A running server and the talks it had."""

    script: Script
    listener: socket.socket
    tls: ssl.SSLContext | None = None
    reads_requests: bool = True
    talks: list[Talk] = field(default_factory=list)
    closing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        host, port = self.listener.getsockname()[:2]
        return Endpoint(host, port, tls=self.tls is not None)

    def accept_all(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.closing:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(PATIENT_S)
            thread = threading.Thread(target=self.serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, sock: socket.socket) -> None:
        # Clients that leave in the middle are part of what is tested.
        with suppress(OSError), sock:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            with sock:
                with self.lock:
                    talk = Talk(len(self.talks), sock)
                    self.talks.append(talk)
                if self.reads_requests:
                    read_request(talk)
                self.script(talk)


def read_request(talk: Talk) -> None:
    seen = b""
    while b"\r\n\r\n" not in seen:
        data = talk.sock.recv(1 << 16)
        if not data:
            raise OSError("the client left")
        seen += data
    talk.head, _, rest = seen.partition(b"\r\n\r\n")
    length = int(talk.head.lower().partition(b"content-length:")[2].split()[0])
    parts, have = [rest], len(rest)
    while have < length:
        parts.append(talk.sock.recv(1 << 16))
        if not parts[-1]:
            raise OSError("the client left")
        have += len(parts[-1])
    talk.body = b"".join(parts)


@contextmanager
def serving(
    script: Script, *, host: str = "127.0.0.1", tls: bool = False, reads_requests: bool = True
) -> Iterator[Loopback]:
    """The server, listening; closed and its threads joined afterwards."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        CERTIFICATE.configure_cert(context)
    with socket.create_server((host, 0), family=family, backlog=128) as listener:
        server = Loopback(script, listener, context, reads_requests)
        acceptor = threading.Thread(target=server.accept_all, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            server.closing = True
            # A closed listener does not wake accept(); a last connection does.
            with suppress(OSError):
                socket.create_connection(listener.getsockname()[:2], timeout=PATIENT_S).close()
            acceptor.join(PATIENT_S)
            for talk in server.talks:  # whoever still waits for the client need not
                with suppress(OSError):
                    talk.sock.shutdown(socket.SHUT_RDWR)
            for thread in server.threads:
                thread.join(PATIENT_S)


def closed_port() -> Endpoint:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Endpoint("127.0.0.1", listener.getsockname()[1])


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunks(parts: Sequence[bytes]) -> bytes:
    """A whole chunked body."""
    return b"".join(map(chunk, parts)) + END


def plain(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    """A whole answer of known length."""
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def delta(text: str, key: str = "content") -> bytes:
    """The event of one token. ``text`` must need no escaping in JSON."""
    return b'data: {"choices":[{"index":0,"delta":{"%s":"%s"}}]}\n\n' % (
        key.encode(),
        text.encode(),
    )


FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'


def answer(*texts: str) -> bytes:
    """A whole, proper answer that streams ``texts``."""
    return SSE_HEAD + chunks([*map(delta, texts), FINISH, DONE])
