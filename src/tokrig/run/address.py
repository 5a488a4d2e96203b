"""Where a server is: the address as its user gave it, and the paths below it.

An OpenAI-compatible API does not always lie at ``/v1``: OpenVINO has it at ``/v3``, others at
``/api/paas/v4``, ``/openai/v1`` or ``/v1/openai``. So an address is taken as it is given, a whole
``…/chat/completions`` too, and ``/v1`` is only what it is tried with where it leads nowhere. The
rest of an engine's API (``/health``, ``/props``) lies at the server's root.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from tokrig.errors import InputError

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
