"""One request and its answer on a socket, step by step as the socket becomes ready."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import ssl
from typing import Any

import httptools

from tokrig.run.body import Body
from tokrig.run.http import Endpoint
from tokrig.stamps import Reader, now_ns

# The fields of an event below which text can stand, in the dialects of all engines.
_TEXT = ("delta", "message", "text", "response", "content")
# What a wire waits for next: nothing any more, or what epoll calls so.
DONE, READ, WRITE = 0, select.EPOLLIN, select.EPOLLOUT
Address = tuple[socket.AddressFamily, Any]


class Wire:
    """One request and its response on a non-blocking socket, driven through ``advance``.

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
        index: int = 0,
        worker: int = 0,
    ) -> None:
        family, target = address
        self.sock: socket.socket = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.interest = self.sock.fileno(), WRITE
        self.unsent = memoryview(payload)
        self.endpoint, self.tls, self.index, self.worker = endpoint, tls, index, worker
        self.due_ns: int | None = None
        self.pieces = Body()
        self.headers: dict[str, str] = {}
        self.headers_complete = self.complete = self.timed_out = False
        self.failure: str | None = None
        self.stamp = self.sent_ns = self.ended_ns = 0
        # The last sign of life that is no piece: being made, or a part of the request sent.
        self.heard_ns = self.began_ns = now_ns()
        self.looked_at = 0  # pieces that were looked at for tokens
        self.parser = httptools.HttpResponseParser(self)
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
        self.pieces.append(self.stamp - self.sent_ns, body)

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

    def advance(self, reader: Reader, ready_ns: int) -> int:
        """Do what the socket is ready for; what to wait for next, DONE once it has ended."""
        try:
            return self.stage(reader, ready_ns)
        except BlockingIOError:
            return WRITE if self.stage == self._send else READ
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except httptools.HttpParserCallbackError as error:
            # Ctrl-C in the middle of a callback, which the parser takes for an error of its own.
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            # What follows the end of the answer is nobody's.
            if not self.complete:
                self.failure = f"the answer is not HTTP: {error}"
        except OSError as error:
            broke = "the connection broke" if self.sent_ns else "cannot connect to the server"
            self.failure = f"{broke}: {error.strerror or error}"
        return DONE

    def _connect(self, reader: Reader, ready_ns: int) -> int:
        code = self.refusal or self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if self.tls is None:
            self.stage = self._send
            return self._send(reader, ready_ns)
        # Wrapping needs a connected socket; the file descriptor stays the same.
        self.sock = wrapped = self.tls.wrap_socket(
            self.sock, server_hostname=self.endpoint.host, do_handshake_on_connect=False
        )
        self.handshake = wrapped.do_handshake
        self.stage = self._handshake
        return self._handshake(reader, ready_ns)

    def _handshake(self, reader: Reader, ready_ns: int) -> int:
        self.handshake()
        self.stage = self._send
        return WRITE

    def _send(self, reader: Reader, ready_ns: int) -> int:
        self.stamp = self.sent_ns = self.sent_ns or now_ns()
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
        self.unsent = memoryview(b"")  # lets the body go
        self.stage = self._receive
        return READ

    def _receive(self, reader: Reader, ready_ns: int) -> int:
        stamp, data = reader(self.sock, ready_ns)
        self.stamp = max(self.stamp, stamp)  # none from before the last, or before the request
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

    def silent_ns(self, now: int) -> int:
        """How long no token has come. Only the latest of the new pieces that bears one is read, so
        this costs a stream no more than a token or two of decoding."""
        for place in range(len(self.pieces) - 1, self.looked_at - 1, -1):
            t_ns, data = self.pieces[place]
            if bears_token(data):
                self.heard_ns = max(self.heard_ns, self.sent_ns + t_ns)
                break
        self.looked_at = len(self.pieces)
        return now - self.heard_ns


def bears_token(data: bytes) -> bool:
    """Whether any line of this piece of a body bears a token, or may: comments, pings and empty
    chunks do not. What cannot be read (the second half of an event, say) counts as a token: it is
    no heartbeat, and a stream must not be cut on a guess."""
    return any(map(_line_bears_token, reversed(data.splitlines())))


def _line_bears_token(line: bytes) -> bool:
    name, found, value = line.partition(b":")
    if found and name.strip() in (b"", b"event", b"id", b"retry"):
        return False  # a comment, or a line about the event
    text = (value if name == b"data" else line).strip()
    if not text:
        return False
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return True
    if not isinstance(event, dict) or event.get("error") is not None:
        return True  # unknown, or the stream has something to say and ends
    choices = event.get("choices")
    found_in = choices if isinstance(choices, list) else [event]
    return any(
        _holds_text(one.get(key)) for one in found_in if isinstance(one, dict) for key in _TEXT
    )


def _holds_text(value: Any) -> bool:
    """Whether there is a text that is not empty anywhere below, the role left out."""
    if isinstance(value, dict):
        return any(_holds_text(v) for k, v in value.items() if k not in ("role", "type", "id"))
    if isinstance(value, list):
        return any(map(_holds_text, value))
    return isinstance(value, str) and value != ""
