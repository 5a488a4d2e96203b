"""Questions to a server outside the measurement: readiness, settings, token counts."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from tokrig.errors import EngineDied, RequestError
from tokrig.run.wire import Endpoint

MAX_ANSWER_BYTES = 64 << 20


def get_status(endpoint: Endpoint, path: str, timeout_s: float) -> tuple[int, bytes] | None:
    """Status and body of a GET, or None when nobody answers."""
    try:
        return _exchange(endpoint, "GET", path, None, timeout_s)
    except (OSError, http.client.HTTPException):
        return None


def ask(
    endpoint: Endpoint, path: str, body: Any = None, *, text: bool = False, timeout_s: float = 120
) -> Any:
    """The decoded JSON answer to a GET, or to a POST when there is a ``body``; with ``text`` the
    answer as it is.

    Raises EngineDied when nobody answers, RequestError for a status other than 200 or for an
    answer that is no JSON.
    """
    payload = None if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    try:
        status, answer = _exchange(endpoint, method, path, payload, timeout_s)
    except TimeoutError:
        raise RequestError(f"{path}: no answer within {timeout_s:g} s", code="timeout") from None
    except (OSError, http.client.HTTPException) as error:
        raise EngineDied(
            f"nobody answers at {endpoint.host_header}: {error}",
            hint="is the server running, and is the address right?",
            code="no_answer",
        ) from None
    if status != 200:
        raise RequestError(
            f"{path} answered {status}: {_reason(answer)}",
            hint=_STATUS_HINTS.get(status, ""),
            code=f"http_{status}",
        )
    if text:
        return answer.decode("utf-8", "replace")
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise RequestError(
            f"{path} answered something that is no JSON: {answer[:80]!r}", code="invalid_json"
        ) from None


_STATUS_HINTS = {
    401: "the endpoint wants a key: name its environment variable with --api-key-env",
    403: "the endpoint refuses this key",
    404: "is this an OpenAI-compatible address? It usually ends in /v1",
    429: "the endpoint limits its rate: lower --concurrency or try later",
}


def _exchange(
    endpoint: Endpoint, method: str, path: str, payload: bytes | None, timeout_s: float
) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if endpoint.tls:
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json", **endpoint.headers}
        connection.request(method, endpoint.prefix + path, body=payload, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()


def _reason(text: bytes) -> str:
    decoded = text.decode("utf-8", "replace").strip()
    try:
        data = json.loads(decoded)
    except (ValueError, RecursionError):
        return decoded[:300] or "no reason given"
    error = data.get("error", data) if isinstance(data, dict) else data
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
