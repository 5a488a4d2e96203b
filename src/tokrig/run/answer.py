"""What a finished stream said: token-bearing chunks by channel, counts, timings, errors.

Understands the dialects of OpenAI-compatible servers: ``reasoning_content`` (llama.cpp and
others), ``reasoning`` (newer vLLM), ``thinking`` (Ollama), literal ``<think>…</think>`` in
content; usage on its own chunk, on the finish chunk, on every chunk or nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokrig.record.samples import Chunk, EngineTimings, Kind
from tokrig.run.load import Response
from tokrig.run.sse import Event, parse

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_OPEN, _CLOSE = "<think>", "</think>"
_TAGS = re.compile(r"</?think>")

ReadTimings = Callable[[Mapping[str, Any]], EngineTimings | None]


@dataclass
class Answer:
    """One decoded stream. Counts are the server's own words, ``None`` where it said nothing."""

    chunks: list[Chunk] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    timings: EngineTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    finish_reason: str | None = None
    model: str | None = None
    done: bool = False
    error: str | None = None
    error_detail: str | None = None

    def fail(self, code: str, detail: str) -> None:
        """Note the first thing that went wrong; what arrived before is kept."""
        if self.error is None:
            self.error, self.error_detail = code, detail


def read_answer(response: Response, timings: ReadTimings) -> Answer:
    """Decode a response. Never raises for anything a server can send."""
    answer = Answer()
    if response.status is not None and response.status != 200:
        body = b"".join(data for _, data in response.pieces)
        answer.fail(f"http_{response.status}", _body_reason(body, response))
        return answer
    for event in parse(response.pieces):
        _read_event(answer, event, timings)
    answer.chunks = _split_think(answer.chunks)
    if response.timed_out:
        answer.fail("timeout", response.failure or "")
    elif response.failure is not None:
        answer.fail("stream_cut" if response.pieces else "no_answer", response.failure)
    elif not answer.done and answer.finish_reason is None:
        answer.fail("stream_cut", "the stream ended without a finish reason or [DONE]")
    elif not answer.chunks:
        answer.fail("no_tokens", "the stream ended properly but carried no token")
    return answer


def _read_event(answer: Answer, event: Event, timings: ReadTimings) -> None:
    if event.data.strip() == "[DONE]":
        answer.done = True
        return
    try:
        data = json.loads(event.data)
    except ValueError:
        answer.fail("invalid_json", f"a chunk is no JSON: {event.data[:120]!r}")
        return
    if not isinstance(data, dict):
        answer.fail("invalid_json", f"a chunk is no JSON object: {event.data[:120]!r}")
        return
    if data.get("error") is not None or event.type == "error":
        answer.fail("error_event", _error_text(data.get("error", data)))
        return
    if isinstance(data.get("model"), str):
        answer.model = data["model"]
    for choice in _maps(data.get("choices")):
        _read_choice(answer, event.t_ns, choice)
    _read_counts(answer, data)
    answer.timings = timings(data) or answer.timings


def _read_choice(answer: Answer, t_ns: int, choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta") or choice.get("message")
    if isinstance(delta, dict):
        for key in _REASONING_KEYS:
            if isinstance(delta.get(key), str) and delta[key]:
                answer.chunks.append(Chunk(t_ns, Kind.REASONING, delta[key]))
                break  # some servers repeat the same text under two names
        content = delta.get("content")
        if isinstance(content, str) and content:
            answer.chunks.append(Chunk(t_ns, Kind.CONTENT, content))
        called = "".join(_called_text(call) for call in _maps(delta.get("tool_calls")))
        if called:
            answer.chunks.append(Chunk(t_ns, Kind.TOOL_CALL, called))
    elif isinstance(choice.get("text"), str) and choice["text"]:
        answer.chunks.append(Chunk(t_ns, Kind.CONTENT, choice["text"]))
    if isinstance(choice.get("finish_reason"), str):
        answer.finish_reason = choice["finish_reason"]


def _called_text(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, dict):
        return ""
    return f"{function.get('name') or ''}{function.get('arguments') or ''}"


def _read_counts(answer: Answer, data: Mapping[str, Any]) -> None:
    """Later figures replace earlier ones: with continuous usage the last chunk is the total."""
    usage = data.get("usage")
    if isinstance(usage, dict):
        answer.prompt_tokens = _count(usage.get("prompt_tokens"), answer.prompt_tokens)
        answer.output_tokens = _count(usage.get("completion_tokens"), answer.output_tokens)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            answer.cached_tokens = _count(details.get("cached_tokens"), answer.cached_tokens)
        details = usage.get("completion_tokens_details")
        if isinstance(details, dict):
            answer.reasoning_tokens = _count(
                details.get("reasoning_tokens"), answer.reasoning_tokens
            )
    timings = data.get("timings")
    if isinstance(timings, dict):
        answer.cached_tokens = _count(timings.get("cache_n"), answer.cached_tokens)
        answer.drafted_tokens = _count(timings.get("draft_n"), answer.drafted_tokens)
        answer.accepted_tokens = _count(timings.get("draft_n_accepted"), answer.accepted_tokens)


def _split_think(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Move literal ``<think>…</think>`` text inside content to the reasoning channel.

    Tags may be cut anywhere by chunk borders, so they are looked for in the joined content. A
    closing tag without an opening one belongs to a template that opened it in the prompt. A tag
    itself costs tokens: it stays with the reasoning it encloses.
    """
    content = "".join(c.text for c in chunks if c.kind is Kind.CONTENT)
    tags = [(m.start(), m.end(), m.group()) for m in _TAGS.finditer(content)]
    opened = content.lstrip().startswith(_OPEN)
    if not tags or not (opened or tags[0][2] == _CLOSE):
        return list(chunks)
    closing = next((end for _, end, tag in tags if tag == _CLOSE), len(content))
    split: list[Chunk] = []
    position = 0
    for chunk in chunks:
        if chunk.kind is not Kind.CONTENT:
            split.append(chunk)
            continue
        cut = min(max(closing - position, 0), len(chunk.text))
        position += len(chunk.text)
        for kind, text in ((Kind.REASONING, chunk.text[:cut]), (Kind.CONTENT, chunk.text[cut:])):
            if text:
                split.append(Chunk(chunk.t_ns, kind, text))
    return split


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _count(value: Any, otherwise: int | None) -> int | None:
    return value if isinstance(value, int) and value >= 0 else otherwise


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)[:400]
    return str(error)[:400]


def _body_reason(body: bytes, response: Response) -> str:
    """The server's own words for a refusal, shortened; Retry-After where it gave one."""
    text = body.decode("utf-8", "replace").strip()
    try:
        data = json.loads(text)
        text = _error_text(data.get("error", data) if isinstance(data, dict) else data)
    except ValueError:
        pass
    retry = response.headers.get("retry-after")
    return f"{text[:400] or 'no reason given'}" + (f" (retry after {retry} s)" if retry else "")
