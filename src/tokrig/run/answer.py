"""What a finished stream said: token-bearing chunks by channel, counts, timings, errors.

Understands the dialects of OpenAI-compatible servers: ``reasoning_content`` (llama.cpp and
others), ``reasoning`` (newer vLLM), ``thinking`` (Ollama), literal ``<think>…</think>`` in
content; usage on its own chunk, on the finish chunk, on every chunk or nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokrig.record.samples import Chunk, EngineTimings, Kind
from tokrig.run.load import Response
from tokrig.run.sse import Event, parse, parse_ndjson

# Beyond these a figure is no measurement: a month, and more tokens than any context holds.
MOST_MS = 31 * 86_400_000
MOST_TOKENS = 2**31 - 1

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_OPEN, _CLOSE = "<think>", "</think>"

ReadTimings = Callable[[Mapping[str, Any]], EngineTimings | None]
Translate = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Answer:
    """One decoded stream. Counts are the server's own words, ``None`` where it said nothing.

    ``first_chunk_tokens`` is what usage counted up to the first token-bearing chunk, where the
    server reports usage on every chunk.
    """

    chunks: list[Chunk] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    first_chunk_tokens: int | None = None
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


def read_answer(response: Response, timings: ReadTimings, event: Translate | None = None) -> Answer:
    """Decode a response. Never raises for anything a server can send.

    ``event`` turns an event of an engine's own into an OpenAI chunk, ``timings`` reads the
    engine's clock out of it.
    """
    answer = Answer()
    body = b"".join(data for _, data in response.pieces)
    if response.status is not None and response.status != 200:
        answer.fail(f"http_{response.status}", _body_reason(body, response))
        return answer
    kind = response.headers.get("content-type", "")
    events = (parse_ndjson if "ndjson" in kind else parse)(response.pieces)
    # A half-sent last event says nothing by itself; that it was cut is said below.
    cut = bool(events) and _is_half(events[-1])
    for one in events[:-1] if cut else events:
        _read_event(answer, one, timings, event)
    answer.chunks = _split_think(answer.chunks)
    streamed = bool(events) or "event-stream" in kind
    if not streamed and body.strip() and response.failure is None:
        _read_plain(answer, body, response)
    elif response.timed_out:
        answer.fail("timeout", response.failure or "")
    elif response.failure is not None:
        answer.fail("stream_cut" if response.pieces else "no_answer", response.failure)
    elif cut or (not answer.done and answer.finish_reason is None):
        answer.fail("stream_cut", "the stream ended without a finish reason or [DONE]")
    elif not answer.chunks:
        answer.fail("no_tokens", "the stream ended properly but carried no token")
    return answer


def _read_plain(answer: Answer, body: bytes, response: Response) -> None:
    """Status 200, but no event stream: some servers put an error there, some cannot stream."""
    data = _decoded(body.decode("utf-8", "replace"))
    if isinstance(data, dict) and data.get("error") is not None:
        answer.fail("error_event", _error_text(data["error"]))
    else:
        answer.fail("invalid_json", f"no event stream but: {_body_reason(body, response)}")


def _read_event(
    answer: Answer, event: Event, timings: ReadTimings, translate: Translate | None
) -> None:
    text = event.data.strip()
    if text == "[DONE]":
        answer.done = True
    if text in ("", "[DONE]"):
        return
    data = _decoded(text)
    if not isinstance(data, dict):
        what = "JSON" if data is None else "JSON object"
        answer.fail("invalid_json", f"a chunk is no {what}: {_clean(text[:120])!r}")
        return
    if data.get("error") is not None or event.type == "error":
        answer.fail("error_event", _error_text(data.get("error", data)))
        return
    if translate is not None:
        data = translate(data)
    if isinstance(data.get("model"), str):
        answer.model = _clean(data["model"])
    first = not answer.chunks
    for choice in _maps(data.get("choices")):
        _read_choice(answer, event.t_ns, choice)
    usage = data.get("usage")
    if isinstance(usage, dict):
        _read_usage(answer, usage)
        if first and answer.chunks:
            answer.first_chunk_tokens = answer.output_tokens or None
    counts = data.get("timings")
    if isinstance(counts, dict):
        answer.cached_tokens = _count(counts.get("cache_n"), answer.cached_tokens)
        answer.drafted_tokens = _count(counts.get("draft_n"), answer.drafted_tokens)
        answer.accepted_tokens = _count(counts.get("draft_n_accepted"), answer.accepted_tokens)
    answer.timings = _timings(data, timings) or answer.timings


def _read_choice(answer: Answer, t_ns: int, choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta") or choice.get("message")
    if isinstance(delta, dict):
        for key in _REASONING_KEYS:
            if isinstance(delta.get(key), str) and delta[key]:
                answer.chunks.append(Chunk(t_ns, Kind.REASONING, _clean(delta[key])))
                break  # some servers repeat the same text under two names
        content = delta.get("content")
        if isinstance(content, str) and content:
            answer.chunks.append(Chunk(t_ns, Kind.CONTENT, _clean(content)))
        called = "".join(_called_text(call) for call in _maps(delta.get("tool_calls")))
        if called:
            answer.chunks.append(Chunk(t_ns, Kind.TOOL_CALL, _clean(called)))
    elif isinstance(choice.get("text"), str) and choice["text"]:
        answer.chunks.append(Chunk(t_ns, Kind.CONTENT, _clean(choice["text"])))
    if isinstance(choice.get("finish_reason"), str):
        answer.finish_reason = _clean(choice["finish_reason"])


def _called_text(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, dict):
        return ""
    return f"{function.get('name') or ''}{function.get('arguments') or ''}"


def _read_usage(answer: Answer, usage: Mapping[str, Any]) -> None:
    """Later figures replace earlier ones: with continuous usage the last chunk is the total."""
    answer.prompt_tokens = _count(usage.get("prompt_tokens"), answer.prompt_tokens)
    answer.output_tokens = _count(usage.get("completion_tokens"), answer.output_tokens)
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        answer.cached_tokens = _count(details.get("cached_tokens"), answer.cached_tokens)
    details = usage.get("completion_tokens_details")
    if isinstance(details, dict):
        answer.reasoning_tokens = _count(details.get("reasoning_tokens"), answer.reasoning_tokens)


def _timings(data: Mapping[str, Any], read: ReadTimings) -> EngineTimings | None:
    """The engine's own clock. Zero and negative times stay: they are found out later. What is no
    time at all (a figure beyond any run, nan) is dropped."""
    try:
        found = read(data)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None
    if found is None:
        return None
    durations = (found.prompt_ms, found.decode_ms)
    counts = (found.prompt_tokens, found.decode_tokens)
    possible = all(abs(ms) <= MOST_MS for ms in durations)
    return found if possible and all(0 <= n <= MOST_TOKENS for n in counts) else None


def _split_think(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Move literal ``<think>…</think>`` text inside content to the reasoning channel.

    Tags may be cut anywhere by chunk borders, so they are looked for in the joined content. A
    closing tag without an opening one belongs to a template that opened it in the prompt, unless
    the server has a reasoning channel of its own. A tag itself costs tokens: it stays with the
    reasoning it encloses.
    """
    content = "".join(c.text for c in chunks if c.kind is Kind.CONTENT)
    opened = content.lstrip().startswith(_OPEN)
    closing = content.find(_CLOSE)
    own_channel = any(c.kind is Kind.REASONING for c in chunks)
    if not opened and (closing < 0 or own_channel or 0 <= content.find(_OPEN) < closing):
        return list(chunks)
    end = closing + len(_CLOSE) if closing >= 0 else len(content)
    split: list[Chunk] = []
    position = 0
    for chunk in chunks:
        if chunk.kind is not Kind.CONTENT:
            split.append(chunk)
            continue
        cut = min(max(end - position, 0), len(chunk.text))
        position += len(chunk.text)
        for kind, text in ((Kind.REASONING, chunk.text[:cut]), (Kind.CONTENT, chunk.text[cut:])):
            if text:
                split.append(Chunk(chunk.t_ns, kind, text))
    return split


def _is_half(event: Event) -> bool:
    """Whether the body ended inside this event and left nothing that can be read."""
    text = event.data.strip()
    return not event.whole and text not in ("", "[DONE]") and _decoded(text) is None


def _decoded(text: str) -> Any:
    """The JSON value, None where there is none. Nesting can be too deep for the decoder."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _clean(text: str) -> str:
    """Text that can be stored: JSON may escape halves of a surrogate pair, which are none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _count(value: Any, otherwise: int | None) -> int | None:
    """A number of tokens; what cannot be one leaves the figure as it was."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if usable else otherwise


def _error_text(error: Any) -> str:
    text = error.get("message") or error if isinstance(error, dict) else error
    try:
        return _clean(str(text)[:400])
    except (ValueError, RecursionError):
        return "an error that cannot be printed"


def _body_reason(body: bytes, response: Response) -> str:
    """The server's own words for a refusal, shortened; Retry-After where it gave one."""
    text = body.decode("utf-8", "replace").strip()
    data = _decoded(text)
    if data is not None:
        text = _error_text(data.get("error", data) if isinstance(data, dict) else data)
    retry = response.headers.get("retry-after")
    return f"{text[:400] or 'no reason given'}" + (f" (retry after {retry} s)" if retry else "")
