"""Where a server is, questions to it outside the measurement, and why it refuses.

An OpenAI-compatible API does not always lie at ``/v1``: OpenVINO has it at ``/v3``, others at
``/api/paas/v4``, ``/openai/v1`` or ``/v1/openai``. So an address is taken as it is given, a whole
``…/chat/completions`` too, and ``/v1`` is only what it is tried with where it leads nowhere. The
rest of an engine's API (``/health``, ``/props``) lies at the server's root.

Every server says in its own way that a prompt does not fit or that its chat template knows no
such role: as status 400, 413, 422 or 500, as an event inside a stream, under a type of its own.
The words are the only thing that they share. "OpenAI-compatible" means no two servers alike either:
one knows no ``seed``, another no ``stream_options``, a third wants ``max_completion_tokens``.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.parse import urlsplit

from tokrig.errors import EngineDied, EngineError, InputError, RequestError
from tokrig.record.samples import Sample
from tokrig.run.body import Piece

# Where an OpenAI-compatible server chats.
CHAT_PATH = "/v1/chat/completions"
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
            raise InputError(f"{url!r} is not a URL: {error}", hint=_URL_HINT) from None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"{url!r} is not an http(s) URL", hint=_URL_HINT)
        if parts.username or parts.password:
            raise InputError(
                "the URL holds a user name or password, which are not sent",
                hint="name the variable that holds the key with --api-key-env",
            )
        if " " in (asked := parts.path + parts.query) or not _SENDABLE.fullmatch(asked):
            raise InputError(f"{url!r} has characters that a URL cannot hold", hint=_URL_HINT)
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


def decoded(
    headers: Mapping[str, str], pieces: Sequence[Piece]
) -> tuple[Sequence[Piece], str | None]:
    """The pieces of an answer that came compressed although it was asked for as it is, each with
    its own stamp; and in words why that cannot be had."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity") or not pieces:
        return pieces, None
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
    except (OSError, http.client.HTTPException) as error:
        raise _failed(endpoint, path, error) from None
    if status != 200:
        raise _refusal(endpoint, path, status, answer, location)
    if text:
        return answer.decode("utf-8", "replace")
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise RequestError(
            f"{path} answered something that is not JSON: {answer[:80]!r}", code="invalid_json"
        ) from None


def _behind(endpoint: Endpoint, url: str) -> tuple[Endpoint, str]:
    """The server at ``url`` instead, and the path there. Only of this machine, and only where the
    first one is of this machine too: an address elsewhere means another machine's loopback."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    there = Endpoint.from_url(f"{scheme}://{host}")
    if not (endpoint.is_loopback and there.is_loopback):
        raise RequestError(f"{url}: not asked, it is on another machine", code="elsewhere")
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


def _failed(
    endpoint: Endpoint, path: str, error: OSError | http.client.HTTPException
) -> EngineError:
    """Why there is no answer: too slow, no TLS, nobody there; or somebody who hangs up on paths
    that it does not know."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return EngineDied(
            f"no TLS with {endpoint.host_header}: its certificate is not trusted:"
            f" {error.verify_message}",
            hint="SSL_CERT_FILE names a file with the certificate of an authority of your own",
            code="no_tls",
        )
    if isinstance(error, ssl.SSLError):
        return EngineDied(
            f"no TLS with {endpoint.host_header}: {error.reason or error}",
            hint="does it speak plain HTTP? Then the address begins with http://",
            code="no_tls",
        )
    if isinstance(error, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
        with contextlib.suppress(OSError):
            socket.create_connection((endpoint.host, endpoint.port), STILL_THERE_S).close()
            said = f": {error}" if isinstance(error, http.client.BadStatusLine) else ""
            words = f"{path}: the server hung up without an answer{said}"
            return RequestError(words, code="hung_up")
    return EngineDied(
        f"nobody answers at {endpoint.host_header}: {error}",
        hint=HINTS["no_answer"],
        code="no_answer",
    )


def _refusal(
    endpoint: Endpoint, path: str, status: int, body: bytes, location: str | None
) -> RequestError:
    if location is not None and 300 <= status < 400:
        return RequestError(
            f"{path} is somewhere else: the server redirects to {location}",
            hint="give the address that it really has: a redirected request would be timed twice",
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
    text, data = body.decode("utf-8", "replace").strip(), None
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(text)
    if data is None:
        return text or "no reason given"
    return error_text(data.get("error", data) if isinstance(data, dict) else data)


def error_text(error: Any) -> str:
    """The message of an error as servers send it: a text, or an object that holds one."""
    try:
        return str((error.get("message") or error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        return "an error that cannot be printed"


# Why a request was refused, and what to send instead.

CONTEXT, ROLE = "context_too_small", "role_refused"
TOO_BUSY = ("http_429", "http_503")
# What may go well the next time.
PASSING = ("http_500", "http_502", "http_503", "http_504", "stream_cut", "error_event")
REFUSALS = ("http_400", "http_422", "http_500", "error_event")
"""Errors of a sample whose words may name a field; many servers answer 500 or 200 for it."""
_TRANSPORT = ("timeout", "no_answer", "stream_cut", "model_changed")
# Longer waits belong to a quota, not to a moment of load.
LONGEST_WAIT_S = 60.0

_REDIRECTED = "the server redirects to another address: give that one"
HINTS = {
    CONTEXT: "give the slots more room with --context, or choose other workloads",
    ROLE: "serve the model with another chat template, or choose other workloads",
    "http_401": "the endpoint wants a key: name its environment variable with --api-key-env",
    "http_403": "the endpoint refuses this key",
    "http_404": "is this an OpenAI-compatible address (most end in /v1), and is --model right?",
    "http_429": "the endpoint limits its rate: lower --concurrency or try later",
    "timeout": "raise --request-timeout if the engine is only slow: a long prefill counts as well",
    "no_tokens": "does the engine know this model's chat template?",
    "no_answer": "is the server running, and is the address right?",
    **dict.fromkeys(("http_301", "http_302", "http_307", "http_308"), _REDIRECTED),
}
"""What to do about a failed request, by its code."""

_CONTEXT = re.compile(
    # llama.cpp, llama-cpp-python, vLLM, SGLang, Ollama, LM Studio, OpenAI and most others
    r"context[ _-]*(?:size|length|window|limit|overflow)"
    r"|(?:n_ctx|max_seq_len|max_num_tokens|max_input_len|session_len)\b"
    r"|maximum (?:context|allowed length|input length|model len)|session limit"
    r"|(?:input|prompt|model) (?:length limit|max length)|max(?:imum)? model len"
    r"|(?:prompt|input)s? (?:is |are )?too (?:long|large)|reduce the length"
    # Text Generation Inference
    r"|inputs`? (?:tokens \+|must have less than)|max_new_tokens`? must be",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"system (?:role|message|prompt)s?\b.{0,20}(?:not (?:supported|allowed)|unsupported)"
    r"|roles? must alternate|only user(?:,| and) .{0,40}roles? (?:are|is) supported"
    r"|(?:unexpected|unknown|unsupported|invalid) (?:message )?role"
    r"|jinja|raise_exception|templateerror|(?:apply|render)\w* (?:the )?(?:chat )?template",
    re.IGNORECASE,
)
_RETRY_AFTER = re.compile(r"\(retry after (.+?)(?: s)?\)$")


def code_of(failed: Sample | RequestError) -> str:
    """What a failure means: ``context_too_small``, ``role_refused``, else its own code; nothing
    for a request that went through."""
    error, words = _said(failed)
    if error in _TRANSPORT:
        return error
    if _ROLE.search(words):
        return ROLE
    if error == "http_413" or (error and _CONTEXT.search(words)):
        return CONTEXT
    return error


def refused(samples: Sequence[Sample], asked_tokens: int | None = None) -> RequestError | None:
    """Why this shape cannot be measured so, in the server's words; None where it can.

    All requests failed, or one of them for a reason that stays: a context that is too small for so
    many at once, a rate limit. ``asked_tokens`` is the prompt's length as it was fitted: a server
    that reports less than half of it has cut the prompt.
    """
    failed = [s for s in samples if s.error is not None]
    stays = [s for s in failed if code_of(s) in (CONTEXT, ROLE, *TOO_BUSY)]
    if stays or (failed and len(failed) == len(samples)):
        first = (stays or failed)[0]
        return RequestError(first.error_detail or "no reason given", code=code_of(first))
    for sample in samples:
        tokens = None if sample.error else sample.prompt_tokens
        if asked_tokens and tokens is not None and tokens < asked_tokens / 2:
            words = f"the server cut a prompt of {asked_tokens} tokens to {tokens}"
            return RequestError(words, code=CONTEXT)
    return None


def wait_s(failed: Sample | RequestError) -> float | None:
    """How long a server that is too busy asks to wait; None where it does not ask, or for longer
    than a moment."""
    error, words = _said(failed)
    told = _RETRY_AFTER.search(words) if error in TOO_BUSY else None
    if told is None:
        return None
    try:
        seconds = float(told[1])
    except ValueError:
        date = parsedate_tz(told[1])
        seconds = mktime_tz(date) - time.time() if date else -1.0
    return seconds if 0 <= seconds <= LONGEST_WAIT_S else None


def _said(failed: Sample | RequestError) -> tuple[str, str]:
    if isinstance(failed, RequestError):
        return failed.code, failed.message
    return failed.error or "", failed.error_detail or ""


_NEEDED = frozenset({"model", "messages", "stream"})
_BARE = _NEEDED | {"max_tokens", "max_completion_tokens"}
_OPENAI = _BARE | {"temperature", "seed", "stream_options", "reasoning_effort"}
_SHORTER = {_OPENAI: "only what the OpenAI API defines", _BARE: "the shortest requests"}
_NEW_NAMES = {"max_tokens": "max_completion_tokens"}
_ALSO_CALLED = {"think": "think(?:ing)?"}
# A part of a field that can be left out alone.
_USAGE_OF_EACH = "continuous_usage_stats"

_REFUSES = re.compile(
    r"unsupported|support|unrecogni[sz]ed|unknown|unexpected|extra|not (?:be )?(?:permitted|allowed"
    r"|accepted)|invalid|cannot find|incompatible|only .{0,60}(?:supported|allowed)|forbidden"
    r"|additional propert|missing field|must be|should be|deprecated|不支持|无效|非法|错误",
    re.IGNORECASE,
)
# What follows names fields that the server does know, or repeats the request.
_NO_MORE = re.compile(
    r"expected one of|did you mean|\buse '|\binstead use\b|(?:valid|supported|allowed|known|"
    r"permitted) (?:fields|parameters|properties|arguments|keys)(?: are|:)|'input': \{['\"]",
    re.IGNORECASE,
)


@dataclass
class Dialect:
    """Which request fields an endpoint takes, learned from its refusals. A refusal mostly names
    the field: that one is left out or gets another name. Where it names none, what the OpenAI API
    does not define is left out, and last all that a request can do without (``kept``)."""

    dropped: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    kept: frozenset[str] | None = None

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as this endpoint takes it."""
        found: dict[str, Any] = {}
        for name, value in body.items():
            if name in self.dropped or (self.kept is not None and name not in self.kept):
                continue
            if name == "stream_options" and _USAGE_OF_EACH in self.dropped:
                value = {k: v for k, v in value.items() if k != _USAGE_OF_EACH}
            found[self.renamed.get(name, name)] = value
        return found

    def learn(self, body: Mapping[str, Any], refusal: str) -> str | None:
        """Leave out what ``refusal`` names of ``body``, which was refused; in words what was done.
        None where it names nothing."""
        names = named(body, refusal)
        options = body.get("stream_options")
        part = isinstance(options, dict) and _USAGE_OF_EACH in options
        if part and (_USAGE_OF_EACH in refusal or "stream_options" in names):
            names = [name for name in names if name != "stream_options"]
            names.append(_USAGE_OF_EACH)
        if not names:
            return None
        new = {name: _NEW_NAMES[name] for name in names if name in _NEW_NAMES}
        self.renamed |= new
        self.dropped |= set(names) - set(new)
        told = [f"{new[name]} for {name}" if name in new else f"no {name}" for name in names]
        return f"the endpoint refuses {_listed(names)}: sending {_listed(told)}"

    def guess(self, body: Mapping[str, Any]) -> str | None:
        """Leave out more than before without knowing what the endpoint minds; None where nothing
        is left to leave out."""
        for kept, words in _SHORTER.items():
            if set(body) - kept and (_BARE - _NEEDED) & set(body):
                self.kept = kept
                return f"the endpoint refuses a request without saying why: sending {words}"
        return None


def named(body: Mapping[str, Any], refusal: str) -> list[str]:
    """The fields of ``body`` that a refusal is about. The table of what servers say is in the
    tests, each line with the public report it is from."""
    about = _NO_MORE.split(refusal, maxsplit=1)[0]
    if not _REFUSES.search(about):
        return []
    return [
        name
        for name in body
        if name not in (*_NEEDED, *_NEW_NAMES.values())
        and re.search(rf"(?<!\w){_ALSO_CALLED.get(name, re.escape(name))}(?!\w)", about)
    ]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
