"""Questions to a server outside the measurement: readiness, settings, token counts."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any

from tokrig.errors import EngineDied, RequestError
from tokrig.run.address import Endpoint
from tokrig.run.encoding import decoded

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
