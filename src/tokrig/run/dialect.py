"""Which request fields an endpoint takes, learned from the words of its refusals.

"OpenAI-compatible" means no two servers alike: one knows no ``seed``, another no
``stream_options``, a third wants ``max_completion_tokens``. A refusal mostly names the field: that
one is left out (or replaced), the others stay. Where it names none, what the OpenAI API does not
define is left out, and last all that a request can do without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSALS = ("http_400", "http_422", "http_500", "error_event")
"""Errors of a sample whose words may name a field; many servers answer 500 or 200 for it."""

_NEEDED = frozenset({"model", "messages", "stream"})
_OPENAI = _NEEDED | {"max_tokens", "temperature", "seed", "stream_options", "reasoning_effort"}
_BARE = _NEEDED | {"max_tokens", "max_completion_tokens"}
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
    """What was learned of one endpoint: fields left out, fields under another name, and, where it
    says nothing, the only ones that it gets."""

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
        told = []
        for name in names:
            if new := _NEW_NAMES.get(name):
                self.renamed[name] = new
                told.append(f"{new} for {name}")
            else:
                self.dropped.add(name)
                told.append(f"no {name}")
        return f"the endpoint refuses {_listed(names)}: sending {_listed(told)}"

    def guess(self, body: Mapping[str, Any]) -> str | None:
        """Leave out more than before without knowing what the endpoint minds; None where nothing
        is left to leave out."""
        for kept, words in (
            (_OPENAI | set(_NEW_NAMES.values()), "only what the OpenAI API defines"),
            (_BARE, "the shortest requests"),
        ):
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
        if name not in _NEEDED
        and name not in _NEW_NAMES.values()
        and re.search(rf"(?<!\w){_ALSO_CALLED.get(name, re.escape(name))}(?!\w)", about)
    ]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
