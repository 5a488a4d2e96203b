"""Where a server is, and questions to it outside the measurement: readiness, settings, counts.

An OpenAI-compatible API does not always lie at ``/v1``: OpenVINO has it at ``/v3``, others at
``/api/paas/v4``, ``/openai/v1`` or ``/v1/openai``. So an address is taken as it is given, a whole
``…/chat/completions`` too, and ``/v1`` is only what it is tried with where it leads nowhere. The
rest of an engine's API (``/health``, ``/props``) lies at the server's root.
"""

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
from tokrig.run.refusal import HINTS

Piece = tuple[int, bytes]
"""A part of a body and the stamp of its read."""

MAX_ANSWER_BYTES = 64 << 20
STILL_THERE_S = 1.0
# Ends of an address that belong to the API, not to a proxy in front of the server.
_VERSION = re.compile(r"/v\d+[a-z0-9]*(?:/openai)?$")
_API = re.compile(r"(?:/(?:v\d+[a-z0-9]*|openai|api|paas|coding))+$")
_RESOURCES = ("/chat/completions", "/models")
_SENDABLE = re.compile(r"[ -~]*")
_URL_HINT = "give it as http://127.0.0.1:8080/v1"
_TLS_WANTED = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS", re.I
)


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
            port, host = parts.port, (parts.hostname or "").encode("idna").decode()
        except ValueError as error:
            raise InputError(f"{url!r} is no URL: {error}", hint=_URL_HINT) from None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"{url!r} is no http(s) URL", hint=_URL_HINT)
        if parts.username or parts.password:
            raise InputError(
                "the URL holds a user or a password, which are not sent",
                hint="name the variable that holds the key with --api-key-env",
            )
        if " " in (asked := parts.path + parts.query) or not _SENDABLE.fullmatch(asked):
            raise InputError(f"{url!r} has characters that no URL has", hint=_URL_HINT)
        for name, value in (headers or {}).items():
            if not _SENDABLE.fullmatch(f"{name}: {value}"):
                # The value may be a secret: it is not shown.
                raise InputError(
                    f"the header {name!r} cannot be sent: it holds a line end or a character "
                    "outside ASCII",
                    hint="look at the variable that it comes from",
                )
        tls, path = parts.scheme == "https", parts.path.rstrip("/")
        for resource in _RESOURCES:
            path = path.removesuffix(resource).rstrip("/")
        query = f"?{parts.query}" if parts.query else ""
        port = port or (443 if tls else 80)
        found = cls(host, port, tls, headers=headers or {}, query=query, given=path)
        return found.candidates()[0]

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


def decoded(headers: Mapping[str, str], pieces: Sequence[Piece]) -> tuple[list[Piece], str | None]:
    """The pieces of an answer that came compressed although it was asked for as it is, each with
    its own stamp; and in words why that cannot be had."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity") or not pieces:
        return list(pieces), None
    if coding not in ("gzip", "x-gzip", "deflate"):
        return [], f"the answer is compressed ({coding}) although it was asked for as it is"
    inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)  # zlib's frame or gzip's
    found: list[Piece] = []
    try:
        for stamp, data in pieces:
            if text := inflate.decompress(data):
                found.append((stamp, text))
    except zlib.error as error:
        return found, f"the answer says that it is compressed ({coding}), and is not: {error}"
    return found, None


def get_status(endpoint: Endpoint, path: str, timeout_s: float) -> tuple[int, bytes] | None:
    """Status and body of a GET, or None when nobody answers."""
    try:
        return _exchange(endpoint, path, None, timeout_s)[:2]
    except (OSError, http.client.HTTPException):
        return None


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
    try:
        status, answer, location = _exchange(endpoint, path, payload, timeout_s)
    except TimeoutError:
        raise RequestError(f"{path}: no answer within {timeout_s:g} s", code="timeout") from None
    except ssl.SSLError as error:
        raise _no_tls(endpoint, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unanswered(endpoint, path, error) from None
    if status != 200:
        raise _refusal(endpoint, path, status, answer, location)
    if text:
        return answer.decode("utf-8", "replace")
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise RequestError(
            f"{path} answered something that is no JSON: {answer[:80]!r}", code="invalid_json"
        ) from None


def _behind(endpoint: Endpoint, url: str) -> tuple[Endpoint, str]:
    """The server at ``url`` instead, and the path there. Only of this machine, and only where the
    first one is of this machine too: an address elsewhere means another machine's loopback."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    there = Endpoint.from_url(f"{scheme}://{host}")
    if not (endpoint.is_loopback and there.is_loopback):
        raise RequestError(f"{url}: not asked, it is of another machine", code="elsewhere")
    return there, slash + path


def _exchange(
    endpoint: Endpoint, path: str, payload: bytes | None, timeout_s: float
) -> tuple[int, bytes, str | None]:
    """One request: status, body as it was before any compression, where it is sent on to. No proxy
    is used, whatever the environment names."""
    where = endpoint.host, endpoint.port
    connection = (
        http.client.HTTPSConnection(*where, timeout=timeout_s, context=ssl.create_default_context())
        if endpoint.tls
        else http.client.HTTPConnection(*where, timeout=timeout_s)
    )
    try:
        method = "GET" if payload is None else "POST"
        headers = {"Content-Type": "application/json", **endpoint.headers}
        connection.request(method, endpoint.at(path), body=payload, headers=headers)
        # A response that ends with its connection owns the socket, and is closed by itself only
        # once it was read to its end.
        with connection.getresponse() as response:
            body = response.read(MAX_ANSWER_BYTES)
            told = {name.lower(): value for name, value in response.getheaders()}
        pieces, _ = decoded(told, [(0, body)])
        return response.status, b"".join(data for _, data in pieces), told.get("location")
    finally:
        connection.close()


def _unanswered(
    endpoint: Endpoint, path: str, error: OSError | http.client.HTTPException
) -> EngineDied | RequestError:
    """Nobody there; or somebody who hangs up on paths that it does not know."""
    if isinstance(error, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
        try:
            socket.create_connection((endpoint.host, endpoint.port), STILL_THERE_S).close()
        except OSError:
            pass
        else:
            said = f": {error}" if isinstance(error, http.client.BadStatusLine) else ""
            words = f"{path}: the server hung up without an answer{said}"
            return RequestError(words, code="hung_up")
    return EngineDied(
        f"nobody answers at {endpoint.host_header}: {error}",
        hint=HINTS["no_answer"],
        code="no_answer",
    )


def _no_tls(endpoint: Endpoint, error: ssl.SSLError) -> EngineDied:
    hint = "does it speak plain HTTP? Then the address begins with http://"
    why = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "SSL_CERT_FILE names a file with the certificate of an authority of your own"
        why = f"its certificate is not trusted: {error.verify_message}"
    return EngineDied(f"no TLS with {endpoint.host_header}: {why}", hint=hint, code="no_tls")


def _refusal(
    endpoint: Endpoint, path: str, status: int, body: bytes, location: str | None
) -> RequestError:
    if location is not None and 300 <= status < 400:
        return RequestError(
            f"{path} is somewhere else: the server sends on to {location}",
            hint="give the address that it really has: a request sent on would be timed twice",
            code="redirected",
        )
    reason = reason_in(body)[:300]
    wrong_key = status == 401 and "Authorization" in endpoint.headers
    hint = HINTS.get("http_403" if wrong_key else f"http_{status}", "")
    if _TLS_WANTED.search(reason):
        hint = "the server speaks TLS: the address begins with https://"
    return RequestError(f"{path} answered {status}: {reason}", hint=hint, code=f"http_{status}")


def reason_in(body: bytes) -> str:
    """The server's own words for a refusal, out of JSON where it is that."""
    text = body.decode("utf-8", "replace").strip()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if data is None:
        return text or "no reason given"
    return error_text(data.get("error", data) if isinstance(data, dict) else data)


def error_text(error: Any) -> str:
    """The message of an error as servers send it: a text, or an object that holds one."""
    try:
        return str((error.get("message") or error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        return "an error that cannot be printed"
