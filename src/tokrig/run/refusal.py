"""Why a server refused a request: what its words mean for the shape that was asked for.

Every server says in its own way that a prompt does not fit or that its chat template knows no
such role: as status 400, 413, 422 or 500, as an event inside a stream, under a type of its own.
The words are the only thing that they share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import mktime_tz, parsedate_tz

from tokrig.errors import RequestError
from tokrig.record.samples import Sample

_TRANSPORT = ("timeout", "no_answer", "stream_cut", "model_changed")
CONTEXT, ROLE = "context_too_small", "role_refused"
TOO_BUSY = ("http_429", "http_503")
# Longer waits belong to a quota, not to a moment of load.
LONGEST_WAIT_S = 60.0

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
    error, words = _told(failed)
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
    cut = next((s for s in samples if _is_cut(s, asked_tokens)), None)
    if cut is not None:
        words = f"the server cut a prompt of {asked_tokens} tokens to {cut.prompt_tokens}"
        return RequestError(words, code=CONTEXT)
    return None


def wait_s(failed: Sample | RequestError) -> float | None:
    """How long a server that is too busy asks to wait; None where it does not ask, or for longer
    than a moment."""
    error, words = _told(failed)
    told = _RETRY_AFTER.search(words) if error in TOO_BUSY else None
    if told is None:
        return None
    try:
        seconds = float(told[1])
    except ValueError:
        date = parsedate_tz(told[1])
        seconds = mktime_tz(date) - time.time() if date else -1.0
    return seconds if 0 <= seconds <= LONGEST_WAIT_S else None


def _told(failed: Sample | RequestError) -> tuple[str, str]:
    if isinstance(failed, RequestError):
        return failed.code, failed.message
    return failed.error or "", failed.error_detail or ""


def _is_cut(sample: Sample, asked_tokens: int | None) -> bool:
    return bool(
        sample.error is None
        and asked_tokens
        and sample.prompt_tokens is not None
        and sample.prompt_tokens < asked_tokens / 2
    )
