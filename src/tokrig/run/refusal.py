"""Why a server refused a request, found in its words: what they mean for the shape that was asked
for, which request fields they are about, and what to do.

Every server says in its own way that a prompt does not fit or that its chat template knows no
such role: as status 400, 413, 422 or 500, as an event inside a stream, under a type of its own.
The words are the only thing that they share. "OpenAI-compatible" means no two servers alike either:
one knows no ``seed``, another no ``stream_options``, a third wants ``max_completion_tokens``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from tokrig.errors import RequestError
from tokrig.record.samples import Sample

CONTEXT, ROLE = "context_too_small", "role_refused"
TOO_BUSY = ("http_429", "http_503")
REFUSALS = ("http_400", "http_422", "http_500", "error_event")
"""Errors of a sample whose words may name a field; many servers answer 500 or 200 for it."""
_TRANSPORT = ("timeout", "no_answer", "stream_cut", "model_changed")
# Longer waits belong to a quota, not to a moment of load.
LONGEST_WAIT_S = 60.0

_SENT_ON = "the server sends on to another address: give that one"
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
    **dict.fromkeys(("http_301", "http_302", "http_307", "http_308"), _SENT_ON),
}
"""What to do about a failed request, by its code."""

_CONTEXT = re.compile(
    "|".join(
        (
            # llama.cpp, llama-cpp-python, vLLM, SGLang, Ollama, LM Studio, OpenAI and most others
            r"context[ _-]*(?:size|length|window|limit|overflow)",
            r"(?:n_ctx|max_seq_len|max_num_tokens|max_input_len|session_len)\b",
            r"maximum (?:context|allowed length|input length|model len)|session limit",
            r"(?:input|prompt|model) (?:length limit|max length)|max(?:imum)? model len",
            r"(?:prompt|input)s? (?:is |are )?too (?:long|large)|reduce the length",
            # Text Generation Inference
            r"inputs`? (?:tokens \+|must have less than)|max_new_tokens`? must be",
        )
    ),
    re.IGNORECASE,
)
_ROLE = re.compile(
    "|".join(
        (
            r"system (?:role|message|prompt)s?\b.{0,20}(?:not (?:supported|allowed)|unsupported)",
            r"roles? must alternate|only user(?:,| and) .{0,40}roles? (?:are|is) supported",
            r"(?:unexpected|unknown|unsupported|invalid) (?:message )?role",
            r"jinja|raise_exception|templateerror",
            r"(?:apply|render)\w* (?:the )?(?:chat )?template",
        )
    ),
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
    for tokens in (s.prompt_tokens for s in samples if s.error is None):
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
        for kept, words in (
            (_OPENAI, "only what the OpenAI API defines"),
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
        if name not in (*_NEEDED, *_NEW_NAMES.values())
        and re.search(rf"(?<!\w){_ALSO_CALLED.get(name, re.escape(name))}(?!\w)", about)
    ]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
