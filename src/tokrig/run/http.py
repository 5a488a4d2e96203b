"""Questions to a server outside the measurement: readiness, settings, token counts."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import ssl
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from tokrig.errors import EngineDied, InputError, RequestError

Piece = tuple[int, bytes]
"""A part of a body and the stamp of its read."""

# Ends of an address that belong to the API, not to a proxy in front of the server.
_VERSION = re.compile(r"/v\d+[a-z0-9]*(?:/openai)?$")
_API = re.compile(r"(?:/(?:v\d+[a-z0-9]*|openai|api|paas|coding))+$")
_RESOURCES = ("/chat/completions", "/models")
_SENDABLE = re.compile(r"[ -~]*")
_HINT = "give it as http://127.0.0.1:8080/v1"


@dataclass(frozen=True)
class Endpoint:
    """An address taken apart, plus headers such as a key.

    ``prefix`` is the path of the server's root, ``base`` the path of its OpenAI API below it,
    ``query`` what every request ends in. ``given`` is the path as its user wrote it, None where
    there is nothing to find out.
    """

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    base: str = "/v1"
    query: str = ""
    given: str | None = field(default=None, compare=False)

    @classmethod
    def from_url(cls, url: str, headers: Mapping[str, str] | None = None) -> Endpoint:
        """The first of the endpoints that an address may mean.

        Raises InputError for anything that is no http(s) URL with a host, and for headers that
        cannot be sent: a key that was read together with its line end, say.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
        except ValueError as error:
            raise InputError(f"{url!r} is no URL: {error}", hint=_HINT) from None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"{url!r} is no http(s) URL", hint=_HINT)
        if parts.username or parts.password:
            raise InputError(
                "the URL holds a user or a password, which are not sent",
                hint="name the variable that holds the key with --api-key-env",
            )
        for text in (parts.path, parts.query):
            if not _SENDABLE.fullmatch(text) or " " in text:
                raise InputError(f"{url!r} has characters that no URL has", hint=_HINT)
        _require_sendable(headers or {})
        tls, path = parts.scheme == "https", parts.path.rstrip("/")
        for resource in _RESOURCES:
            path = path.removesuffix(resource).rstrip("/")
        return cls(
            host=host,
            port=port or (443 if tls else 80),
            tls=tls,
            headers=headers or {},
            query=f"?{parts.query}" if parts.query else "",
            given=path,
        ).candidates()[0]

    def candidates(self) -> list[Endpoint]:
        """All that the address may mean, the likeliest first: what was given as it is, below the
        nearest root and the farthest, then with ``/v1``."""
        path = self.given
        if path is None:
            return [self]
        near, far = _VERSION.sub("", path), _API.sub("", path)
        places = [(near, path[len(near) :]), (far, path[len(far) :]), (path, "/v1"), (far, "/v1")]
        if not path:
            places = [("", "/v1"), ("", "")]
        return [replace(self, prefix=root, base=base) for root, base in dict.fromkeys(places)]

    @property
    def host_header(self) -> str:
        """The Host header; IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the address is of this very machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    def at(self, path: str) -> str:
        """A path as it goes over the wire; ``/v1/…`` stands for the OpenAI API wherever it is."""
        if path.startswith("/v1/"):
            path = self.base + path.removeprefix("/v1")
        joined = "&" + self.query[1:] if "?" in path and self.query else self.query
        return self.prefix + path + joined

    def payload(self, path: str, body: bytes) -> bytes:
        """The whole request as bytes, so that sending it is one call."""
        lines = [
            f"POST {self.at(path)} HTTP/1.1",
            f"Host: {self.host_header}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            # A compressed stream is held back until there is enough to compress.
            "Accept-Encoding: identity",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _require_sendable(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _SENDABLE.fullmatch(f"{name}: {value}"):
            # The value may be a secret: it is not shown.
            raise InputError(
                f"the header {name!r} cannot be sent: it holds a line end or a character "
                "outside ASCII",
                hint="look at the variable that it comes from",
            )


_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


def decoded(headers: Mapping[str, str], pieces: Sequence[Piece]) -> tuple[list[Piece], str | None]:
    """The pieces as they were before somebody compressed them, each with its own stamp; and in
    words why that cannot be had."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity") or not pieces:
        return list(pieces), None
    if coding not in ("gzip", "x-gzip", "deflate"):
        return [], f"the answer is compressed ({coding}) although it was asked for as it is"
    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
    found: list[Piece] = []
    try:
        for stamp, data in pieces:
            if text := inflate.decompress(data):
                found.append((stamp, text))
    except zlib.error as error:
        return found, f"the answer says that it is compressed ({coding}), and is not: {error}"
    return found, None


MAX_ANSWER_BYTES = 64 << 20
STILL_THERE_S = 1.0


@dataclass(frozen=True)
class Reply:
    """What came back: the status, the body as it was before any compression, where to go to."""

    status: int
    body: bytes
    location: str | None = None


def get_status(endpoint: Endpoint, path: str, timeout_s: float) -> tuple[int, bytes] | None:
    """Status and body of a GET, or None when nobody answers."""
    try:
        reply = _exchange(endpoint, "GET", path, None, timeout_s)
    except (OSError, http.client.HTTPException):
        return None
    return reply.status, reply.body


def ask(
    endpoint: Endpoint, path: str, body: Any = None, *, text: bool = False, timeout_s: float = 120
) -> Any:
    """The decoded JSON answer to a GET, or to a POST when there is a ``body``; with ``text`` the
    answer as it is.

    ``path`` may be a whole URL on this machine, such as a wrapper gives for the engine behind it.
    Raises EngineDied when nobody answers, RequestError for a status other than 200 or for an
    answer that is no JSON.
    """
    if "://" in path:
        endpoint, path = _behind(endpoint, path)
    payload = None if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    try:
        reply = _exchange(endpoint, method, path, payload, timeout_s)
    except TimeoutError:
        raise RequestError(f"{path}: no answer within {timeout_s:g} s", code="timeout") from None
    except (OSError, http.client.HTTPException) as error:
        raise _unanswered(endpoint, path, error) from None
    if reply.status != 200:
        raise _refusal(endpoint, path, reply)
    if text:
        return reply.body.decode("utf-8", "replace")
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise RequestError(
            f"{path} answered something that is no JSON: {reply.body[:80]!r}", code="invalid_json"
        ) from None


HINTS = {
    401: "the endpoint wants a key: name its environment variable with --api-key-env",
    403: "the endpoint refuses this key",
    404: "is this an OpenAI-compatible address? It usually ends in /v1",
    429: "the endpoint limits its rate: lower --concurrency or try later",
}
"""What to do about a status."""

_TLS_WANTED = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS", re.I
)


def _behind(endpoint: Endpoint, url: str) -> tuple[Endpoint, str]:
    """The server at ``url`` instead, and the path there. Only of this machine, and only where the
    first one is of this machine too: an address elsewhere means another machine's loopback."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    there = replace(Endpoint.from_url(f"{scheme}://{host}"), headers={})
    if not (endpoint.is_loopback and there.is_loopback):
        raise RequestError(f"{url}: not asked, it is of another machine", code="elsewhere")
    return there, slash + path


def _unanswered(
    endpoint: Endpoint, path: str, error: OSError | http.client.HTTPException
) -> EngineDied | RequestError:
    """Nobody there; or somebody who hangs up on paths that it does not know."""
    if isinstance(error, ssl.SSLError):
        return _no_tls(endpoint, error)
    hung_up = isinstance(error, http.client.HTTPException | ConnectionResetError | BrokenPipeError)
    if hung_up and _listens(endpoint):
        said = f": {error}" if isinstance(error, http.client.BadStatusLine) else ""
        return RequestError(f"{path}: the server hung up without an answer{said}", code="hung_up")
    return EngineDied(
        f"nobody answers at {endpoint.host_header}: {error}",
        hint="is the server running, and is the address right?",
        code="no_answer",
    )


def _no_tls(endpoint: Endpoint, error: ssl.SSLError) -> EngineDied:
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "SSL_CERT_FILE names a file with the certificate of an authority of your own"
        why = f"its certificate is not trusted: {error.verify_message}"
    else:
        hint = "does it speak plain HTTP? Then the address begins with http://"
        why = error.reason or str(error)
    return EngineDied(f"no TLS with {endpoint.host_header}: {why}", hint=hint, code="no_tls")


def _listens(endpoint: Endpoint) -> bool:
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=STILL_THERE_S):
            return True
    except OSError:
        return False


def _refusal(endpoint: Endpoint, path: str, reply: Reply) -> RequestError:
    reason, code = _reason(reply.body), f"http_{reply.status}"
    if reply.location is not None and 300 <= reply.status < 400:
        return RequestError(
            f"{path} is somewhere else: the server sends on to {reply.location}",
            hint="give the address that it really has: a request sent on would be timed twice",
            code="redirected",
        )
    hint = HINTS.get(reply.status, "")
    if reply.status == 401 and "Authorization" in endpoint.headers:
        hint = HINTS[403]
    if _TLS_WANTED.search(reason):
        hint = "the server speaks TLS: the address begins with https://"
    return RequestError(f"{path} answered {reply.status}: {reason}", hint=hint, code=code)


def _exchange(
    endpoint: Endpoint, method: str, path: str, payload: bytes | None, timeout_s: float
) -> Reply:
    """One request. No proxy is used, whatever the environment names."""
    connection: http.client.HTTPConnection
    if endpoint.tls:
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json", **endpoint.headers}
        connection.request(method, endpoint.at(path), body=payload, headers=headers)
        # A response that ends with its connection owns the socket, and is closed by itself only
        # once it was read to its end.
        with connection.getresponse() as response:
            body = response.read(MAX_ANSWER_BYTES)
            told = {name.lower(): value for name, value in response.getheaders()}
        pieces, _ = decoded(told, [(0, body)])
        return Reply(response.status, b"".join(data for _, data in pieces), told.get("location"))
    finally:
        connection.close()


def _reason(text: bytes) -> str:
    said = text.decode("utf-8", "replace").strip()
    try:
        data = json.loads(said)
    except (ValueError, RecursionError):
        return said[:300] or "no reason given"
    error = data.get("error", data) if isinstance(data, dict) else data
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
