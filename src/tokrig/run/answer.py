"""What a finished stream said: token-bearing chunks by channel, counts, timings, errors.

Understands the dialects of OpenAI-compatible servers: ``reasoning_content`` (llama.cpp and
others), ``reasoning`` (newer vLLM), ``thinking`` (Ollama), ``reasoning_details`` (gateways),
thoughts between markers in content (the table in ``spec/reasoning.yaml``); content as text or as
a list of parts; usage on its own chunk, on the finish chunk, on every chunk or nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

from tokrig.record.samples import Chunk, EngineTimings, Kind
from tokrig.run.client import Response
from tokrig.run.http import Piece
from tokrig.spec.reasoning import Marker, markers


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when its last data line was complete (ns), its type and its data.

    ``whole`` is false where the body ended inside the event's last line.
    """

    t_ns: int
    data: str
    type: str = ""
    whole: bool = True


def parse(pieces: Sequence[Piece]) -> list[Event]:
    """All events of a body, in order. Undecodable bytes become U+FFFD, never an exception."""
    events: list[Event] = []
    data: list[str] = []
    kind, stamp, whole = "", 0, True
    for t_ns, line, ended in _lines(pieces):
        if not line:
            if data:
                events.append(Event(stamp, "\n".join(data), kind))
            data, kind = [], ""
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
            stamp, whole = t_ns, ended
        elif name == "event":
            kind = value
    if data:
        events.append(Event(stamp, "\n".join(data), kind, whole))
    return events


def parse_ndjson(pieces: Sequence[Piece]) -> list[Event]:
    """The same for a body of one JSON text a line."""
    return [
        Event(t_ns, line.decode("utf-8", "replace"), "", ended)
        for t_ns, line, ended in _lines(pieces)
        if line.strip()
    ]


def _lines(pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes, bool]]:
    """Each line without its end, the stamp of the piece in which it was complete, and whether it
    had an end at all."""
    body = b"".join(data for _, data in pieces)
    ends = list(accumulate(len(data) for _, data in pieces))
    text = body.removeprefix(b"\xef\xbb\xbf")
    end, piece = len(body) - len(text), 0
    # For bytes, unlike for text, splitlines knows no other line ends than LF, CR and CRLF.
    for raw in text.splitlines(keepends=True):
        line = raw.rstrip(b"\r\n")
        # A line is complete with the first byte of its line end.
        complete_at = min(end + len(line) + 1, len(body))
        end += len(raw)
        while ends[piece] < complete_at:
            piece += 1
        yield pieces[piece][0], line, len(raw) > len(line)


# Beyond these a figure is no measurement: a month, and more tokens than any context holds.
MOST_MS = 31 * 86_400_000
MOST_TOKENS = 2**31 - 1

# The first that carries text: some servers repeat the same text under two names.
_REASONING_KEYS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_details",
    "thinking_content",
    "thought",
)
# Where the text of a part may stand; a part within a part is read as deep as this.
_TEXT_KEYS = ("text", "thinking", "reasoning", "summary", "content", "refusal")
_DEEPEST = 6

ReadTimings = Callable[[Mapping[str, Any]], EngineTimings | None]
Translate = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Answer:
    """One decoded stream. Counts are the server's own words, ``None`` where it said nothing.

    ``running`` is what events in mid-stream said of the tokens generated so far, a list of
    (stamp, tokens) for each way of saying it: ``usage``, ``timings``, returned ``token_ids``.
    ``finished_ns`` is when the finish reason came.
    """

    chunks: list[Chunk] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    running: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    timings: EngineTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    finish_reason: str | None = None
    finished_ns: int | None = None
    model: str | None = None
    done: bool = False
    error: str | None = None
    error_detail: str | None = None

    def fail(self, code: str, detail: str) -> None:
        """Note the first thing that went wrong; what arrived before is kept."""
        if self.error is None:
            self.error, self.error_detail = code, detail

    def note(self, source: str, t_ns: int, tokens: int | None) -> None:
        """Keep a running count."""
        if tokens is not None:
            self.running.setdefault(source, []).append((t_ns, tokens))


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
    answer.chunks = _split_thought(answer.chunks)
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
    for choice in _maps(data.get("choices")):
        _read_choice(answer, event.t_ns, choice)
    usage = data.get("usage")
    if isinstance(usage, dict):
        _read_usage(answer, usage)
        answer.note("usage", event.t_ns, _count(usage.get("completion_tokens"), None))
    counts = data.get("timings")
    if isinstance(counts, dict):
        answer.cached_tokens = _count(counts.get("cache_n"), answer.cached_tokens)
        answer.drafted_tokens = _count(counts.get("draft_n"), answer.drafted_tokens)
        answer.accepted_tokens = _count(counts.get("draft_n_accepted"), answer.accepted_tokens)
    found = _timings(data, timings)
    if found is not None:
        answer.timings = found
        answer.note("timings", event.t_ns, found.decode_tokens)


def _read_choice(answer: Answer, t_ns: int, choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta") or choice.get("message")
    if isinstance(delta, dict):
        said = _said(delta)
    else:
        said = _parts(choice.get("text"))
    for kind, parts in groupby(((k, text) for k, text in said if text), lambda part: part[0]):
        answer.chunks.append(Chunk(t_ns, kind, _clean("".join(text for _, text in parts))))
    if returned := _returned_tokens(choice):
        before = answer.running.get("token_ids", [(0, 0)])[-1][1]
        answer.note("token_ids", t_ns, before + returned)
    if isinstance(choice.get("finish_reason"), str):
        answer.finish_reason = _clean(choice["finish_reason"])
        answer.finished_ns = answer.finished_ns or t_ns


def _said(delta: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    """The texts of a delta with their channels."""
    yield Kind.REASONING, next(filter(None, (_text(delta.get(k)) for k in _REASONING_KEYS)), "")
    yield from _parts(delta.get("content"))
    yield Kind.CONTENT, _text(delta.get("refusal"))
    calls = [*_maps(delta.get("tool_calls")), *_maps([{"function": delta.get("function_call")}])]
    yield Kind.TOOL_CALL, "".join(map(_called_text, calls))


def _parts(content: Any) -> Iterator[tuple[Kind, str]]:
    """Content that is one text, or a list of parts of which some may be thoughts."""
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        thought = isinstance(kind, str) and kind.startswith(("thinking", "reasoning"))
        yield Kind.REASONING if thought else Kind.CONTENT, _text(part)


def _text(value: Any, depth: int = _DEEPEST) -> str:
    """The text in a value: itself, or that of its parts one after the other."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return "".join(_text(part, depth - 1) for part in value)
    if depth and isinstance(value, dict):
        return next(filter(None, (_text(value.get(key), depth - 1) for key in _TEXT_KEYS)), "")
    return ""


def _called_text(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call.get("custom")
    if not isinstance(function, dict):
        return ""
    name, given = function.get("name"), function.get("arguments") or function.get("input")
    if isinstance(given, dict | list):
        given = _encoded(given)
    return "".join(text for text in (name, given) if isinstance(text, str))


def _returned_tokens(choice: Mapping[str, Any]) -> int:
    """How many token ids, or log probabilities of tokens, came along."""
    logprobs = choice.get("logprobs")
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    ids = choice.get("token_ids")
    return max((len(found) for found in (ids, listed) if isinstance(found, list)), default=0)


def _read_usage(answer: Answer, usage: Mapping[str, Any]) -> None:
    """Later figures replace earlier ones: with continuous usage the last chunk is the total."""
    # No prompt is empty: a 0 stands for a server that did not count.
    answer.prompt_tokens = _count(usage.get("prompt_tokens"), None) or answer.prompt_tokens
    answer.output_tokens = _count(usage.get("completion_tokens"), answer.output_tokens)
    answer.cached_tokens = _count(usage.get("prompt_cache_hit_tokens"), answer.cached_tokens)
    answer.reasoning_tokens = _count(usage.get("reasoning_tokens"), answer.reasoning_tokens)
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


def _split_thought(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Move a thought that stands between markers in content to the reasoning channel.

    Markers may be cut anywhere by chunk borders, so they are looked for in the joined content. A
    marker itself costs tokens: it stays with the reasoning it encloses.
    """
    content = "".join(c.text for c in chunks if c.kind is Kind.CONTENT)
    own_channel = any(c.kind is Kind.REASONING for c in chunks)
    opened = [m for m in markers() if content.lstrip().startswith(m.open)]
    ends = [_thought_end(content, m, own_channel) for m in opened or markers()]
    end = min(filter(None, ends), default=0)
    if not end:
        return list(chunks)
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


def _thought_end(content: str, marker: Marker, own_channel: bool) -> int:
    """Where the thought ends with which a content begins; 0 where it begins with none.

    A closing marker without an opening one belongs to a template that opened it in the prompt,
    unless the server has a reasoning channel of its own.
    """
    opened = content.lstrip().startswith(marker.open)
    closing = content.find(marker.close)
    if closing < 0:
        return len(content) if opened and not marker.prose else 0
    talked_about = own_channel or marker.prose or 0 <= content.find(marker.open) < closing
    return closing + len(marker.close) if opened or not talked_about else 0


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


def _encoded(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""


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
