"""What a finished stream said: token-bearing chunks by channel, counts, timings, errors. Runs
after the stream, never during it.

A body is read run by run (see ``tokrig.run.body``). Most tokens stand in events that are alike but
for their text, and what such a *frame* means is read once, as an event with a text of ours; the
texts themselves then only have to be decoded. Whatever else there is goes the general way, event
by event, and so does a frame that says anything beside its text.

Framing as the WHATWG specifies it: lines end in LF, CR or CRLF, ``:`` begins a comment, several
``data`` lines of one event are joined by LF, a blank line ends the event. One deviation: an event
at the very end that lacks its blank line is still delivered, because cut streams are judged by
their content later and silently losing a token would falsify it.

Understands the dialects of OpenAI-compatible servers: ``reasoning_content`` (llama.cpp and
others), ``reasoning`` (newer vLLM), ``thinking`` (Ollama), ``reasoning_details`` (gateways),
thoughts between markers in content (the table in ``spec/reasoning.yaml``); content as text or as
a list of parts; usage on its own chunk, on the finish chunk, on every chunk or nowhere.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Any, NamedTuple, TypeGuard

from tokrig.record.samples import Chunk, Chunks, EngineTimings, Kind
from tokrig.run.body import Body, Piece, Run
from tokrig.run.client import GIVEN_UP, Response
from tokrig.run.http import error_text, reason_in
from tokrig.spec.reasoning import Marker, markers

# Beyond these a figure is no measurement: a month, and more tokens than any context holds.
MOST_MS = 31 * 86_400_000
MOST_TOKENS = 2**31 - 1

# The first that carries text: some servers repeat the same text under two names.
_REASONING_KEYS = (
    *("reasoning_content", "reasoning", "thinking"),
    *("reasoning_details", "thinking_content", "thought"),
)
# Where the text of a part may stand; a part within a part is read as deep as this.
_TEXT_KEYS = ("text", "thinking", "reasoning", "summary", "content", "refusal")
_DEEPEST = 6
# Two texts of ours: what a frame means is what it says of both.
_PROBES = (b"tokrig", b"0")
# What JSON may hold between quotes and ASCII as it is.
_PLAIN = bytes(code for code in range(0x20, 0x80) if code not in b'"\\')
# Counts of an answer: in which object of an event they stand, under which name. Later figures
# replace earlier ones: with continuous usage the last chunk is the total.
_COUNTS = (
    ("prompt_tokens", "usage", "prompt_tokens"),
    ("output_tokens", "usage", "completion_tokens"),
    ("cached_tokens", "usage", "prompt_cache_hit_tokens"),
    ("reasoning_tokens", "usage", "reasoning_tokens"),
    ("cached_tokens", "prompt_tokens_details", "cached_tokens"),
    ("reasoning_tokens", "completion_tokens_details", "reasoning_tokens"),
    ("cached_tokens", "timings", "cache_n"),
    ("drafted_tokens", "timings", "draft_n"),
    ("accepted_tokens", "timings", "draft_n_accepted"),
)

ReadTimings = Callable[[Mapping[str, Any]], EngineTimings | None]
Translate = Callable[[dict[str, Any]], dict[str, Any]]


class Event(NamedTuple):
    """One event: when its last data line was complete (ns), its data and type; ``whole`` is false
    where the body ended inside its last line."""

    t_ns: int
    data: str
    type: str = ""
    whole: bool = True


def parse(pieces: Sequence[Piece], *, begins: bool = True) -> list[Event]:
    """All server-sent events of a body, in order. Undecodable bytes become U+FFFD, never an
    exception. ``begins`` is false where the pieces are not the first of their body."""
    events: list[Event] = []
    data: list[str] = []
    kind, stamp, whole = "", 0, True
    for t_ns, line, ended in _lines(pieces, begins):
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


def _lines(pieces: Sequence[Piece], begins: bool = True) -> Iterator[tuple[int, bytes, bool]]:
    """Each line without its end, the stamp of the piece in which it was complete, and whether it
    had an end at all. Lines, events and characters may be cut by the borders of pieces anywhere."""
    body = b"".join(data for _, data in pieces)
    ends = list(accumulate(len(data) for _, data in pieces))
    text = body.removeprefix(b"\xef\xbb\xbf") if begins else body
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


@dataclass
class Answer:
    """One decoded stream. Counts are the server's own words, ``None`` where it said nothing.

    ``running`` is what events in mid-stream said of the tokens generated so far, a list of
    (stamp, tokens) for each way of saying it: ``usage``, ``timings``, returned ``token_ids``.
    ``finished_ns`` is when the finish reason came.
    """

    chunks: Chunks = field(default_factory=lambda: Chunks.of(()))
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


def read_answer(response: Response, timings: ReadTimings, event: Translate | None = None) -> Answer:
    """Decode a response. Never raises for anything a server can send.

    ``event`` turns an event of an engine's own into an OpenAI chunk, ``timings`` reads the
    engine's clock out of it.
    """
    reader = _Reader(timings, event)
    answer = reader.answer
    if response.status is not None and response.status != 200:
        answer.fail(f"http_{response.status}", _reason(response))
        return answer
    kind = response.headers.get("content-type", "")
    streamed, cut = reader.body(response.pieces, ndjson="ndjson" in kind)
    streamed = streamed or "event-stream" in kind
    answer.chunks = _split_thought(reader.chunks())
    body = b"" if streamed else b"".join(data for _, data in response.pieces).strip()
    if body and response.failure is None:
        # Status 200, but no event stream: some put an error there, some cannot stream.
        data = _decoded(body.decode("utf-8", "replace"))
        if isinstance(data, dict) and data.get("error") is not None:
            answer.fail("error_event", _clean(error_text(data["error"])[:400]))
        else:
            answer.fail("invalid_json", f"no event stream but: {_reason(response)}")
    elif response.timed_out:
        code = "unfinished" if response.failure == GIVEN_UP else "timeout"
        answer.fail(code, response.failure or "")
    elif response.failure is not None:
        answer.fail("stream_cut" if response.pieces else "no_answer", response.failure)
    elif cut or (not answer.done and answer.finish_reason is None):
        answer.fail("stream_cut", "the stream ended without a finish reason or [DONE]")
    elif not answer.chunks:
        answer.fail("no_tokens", "the stream ended properly but carried no token")
    return answer


def _reason(response: Response) -> str:
    words = reason_in(b"".join(data for _, data in response.pieces))[:400]
    retry = response.headers.get("retry-after")
    return _clean(words) + (f" (retry after {retry} s)" if retry else "")


class _Reader:
    """Reads one body into an answer. The chunks stand side by side until all are there."""

    def __init__(self, timings: ReadTimings, translate: Translate | None) -> None:
        self.answer = Answer()
        self.timings, self.translate = timings, translate
        self.stamps_ns, self.kinds, self.ends = array("q"), bytearray(), array("I")
        self.texts: list[str] = []
        self.length = 0
        self.meanings: dict[tuple[bytes, bytes], tuple[Kind, str | None] | None] = {}

    def chunks(self) -> Chunks:
        """The chunks that were read."""
        return Chunks(self.stamps_ns, bytes(self.kinds), "".join(self.texts), self.ends)

    def body(self, pieces: Sequence[Piece], *, ndjson: bool) -> tuple[bool, bool]:
        """Read all of it. Whether there was an event, and whether the last one was cut."""
        if not isinstance(pieces, Body) or ndjson:
            return self.events((parse_ndjson if ndjson else parse)(list(pieces)))
        streamed = cut = False
        for number, run in enumerate(pieces.runs()):
            if run.framed and self.framed(run):
                found, cut = True, False
            else:
                found, cut = self.events(parse(list(run.pieces()), begins=number == 0))
            streamed = streamed or found
        return streamed, cut

    def events(self, events: Sequence[Event]) -> tuple[bool, bool]:
        """Read events in the general way; the answer is that of ``body``."""
        # A half-sent last event says nothing by itself; that it was cut is said by the caller.
        last = events[-1].data.strip() if events and not events[-1].whole else ""
        cut = last not in ("", "[DONE]") and _decoded(last) is None
        for one in events[:-1] if cut else events:
            self.event(one)
        return bool(events), cut

    def framed(self, run: Run) -> bool:
        """Read events that are alike but for their text; False, and nothing read, where that
        cannot be told."""
        frame = run.head, run.tail
        if frame not in self.meanings:
            self.meanings[frame] = self.meaning(*frame)
        meaning, texts = self.meanings[frame], _texts(run)
        if meaning is None or texts is None:
            return False
        kind, model = meaning
        text, ends = texts
        self.answer.model = model or self.answer.model
        self.stamps_ns.extend(run.stamps)
        self.kinds += bytes((kind,)) * len(run.stamps)
        self.texts.append(text)
        self.ends.extend([end + self.length for end in ends])
        self.length += len(text)
        return True

    def meaning(self, head: bytes, tail: bytes) -> tuple[Kind, str | None] | None:
        """The channel of the text in a frame, and the model it names; None where it says more, or
        shows another text than what stands in it."""
        meanings = set()
        for probe in _PROBES:
            reader = _Reader(self.timings, self.translate)
            reader.events(parse([(0, head + probe + tail)], begins=False))
            found, said = reader.answer, list(reader.chunks())
            if replace(found, model=None) != Answer() or [c.text.encode() for c in said] != [probe]:
                return None
            meanings.add((said[0].kind, found.model))
        return meanings.pop() if len(meanings) == 1 else None

    def event(self, event: Event) -> None:
        """Read one event in the general way."""
        answer, text, t_ns = self.answer, event.data.strip(), event.t_ns
        if text == "[DONE]":
            answer.done = True
        if text in ("", "[DONE]"):
            return
        data = _decoded(text)
        if not isinstance(data, dict):
            what = "JSON" if data is None else "a JSON object"
            answer.fail("invalid_json", f"a chunk is not {what}: {_clean(text[:120])!r}")
            return
        if data.get("error") is not None or event.type == "error":
            answer.fail("error_event", _clean(error_text(data.get("error", data))[:400]))
            return
        if self.translate is not None:
            data = self.translate(data)
        model, usage = data.get("model"), data.get("usage")
        if isinstance(model, str):
            answer.model = _clean(model)
        for choice in _maps(data.get("choices")):
            self.choice(t_ns, choice)
        if usage is not None or "timings" in data:
            _read_counts(answer, data)
        if isinstance(usage, dict) and _is_count(generated := usage.get("completion_tokens")):
            answer.running.setdefault("usage", []).append((t_ns, generated))
        found = _timings(data, self.timings)
        if found is not None:
            answer.timings = found
            answer.running.setdefault("timings", []).append((t_ns, found.decode_tokens))

    def choice(self, t_ns: int, choice: Mapping[str, Any]) -> None:
        """Read what one choice of an event says."""
        delta = choice.get("delta") or choice.get("message")
        parts = _said(delta) if isinstance(delta, dict) else _parts(choice.get("text"))
        # Parts of one channel that follow each other are one chunk.
        for kind, group in groupby((part for part in parts if part[1]), key=lambda part: part[0]):
            text = _clean("".join(text for _, text in group))
            self.stamps_ns.append(t_ns)
            self.kinds.append(kind)
            self.texts.append(text)
            self.length += len(text)
            self.ends.append(self.length)
        answer = self.answer
        if ("token_ids" in choice or "logprobs" in choice) and (
            returned := _returned_tokens(choice)
        ):
            running = answer.running.setdefault("token_ids", [])
            running.append((t_ns, returned + (running[-1][1] if running else 0)))
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            answer.finish_reason = _clean(reason)
            answer.finished_ns = answer.finished_ns or t_ns


def _texts(run: Run) -> tuple[str, Sequence[int]] | None:
    """The texts of a run, joined, and where in them each ends; None where what stands between the
    quotes of one is no text in JSON."""
    if not run.text.translate(None, _PLAIN):
        return run.text.decode("ascii"), run.ends
    texts, begin = [], 0
    for end in run.ends:
        part, begin = run.text[begin:end], end
        text = part.decode("utf-8", "replace")
        if part.translate(None, _PLAIN):
            text = _decoded(f'"{text}"')
            if text is None:
                return None
            text = _clean(text)
        texts.append(text)
    return "".join(texts), list(accumulate(map(len, texts)))


def _said(delta: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    for key in _REASONING_KEYS:
        if key in delta and (text := _text(delta[key])):
            yield Kind.REASONING, text
            break
    content = delta.get("content")
    if isinstance(content, str):
        yield Kind.CONTENT, content
    else:
        yield from _parts(content)
    if "refusal" in delta:
        yield Kind.CONTENT, _text(delta["refusal"])
    if "tool_calls" not in delta and "function_call" not in delta:
        return
    for call in [*_maps(delta.get("tool_calls")), {"function": delta.get("function_call")}]:
        yield Kind.TOOL_CALL, _called_text(call)


def _parts(content: Any) -> Iterator[tuple[Kind, str]]:
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        thought = isinstance(kind, str) and kind.startswith(("thinking", "reasoning"))
        yield Kind.REASONING if thought else Kind.CONTENT, _text(part)


def _text(value: Any, depth: int = _DEEPEST) -> str:
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
        try:
            given = json.dumps(given, ensure_ascii=False)
        except (ValueError, RecursionError):
            given = ""
    return "".join(text for text in (name, given) if isinstance(text, str))


def _returned_tokens(choice: Mapping[str, Any]) -> int:
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    return max((len(found) for found in (ids, listed) if isinstance(found, list)), default=0)


def _read_counts(answer: Answer, data: Mapping[str, Any]) -> None:
    usage = data.get("usage")
    objects = {**(usage if isinstance(usage, dict) else {}), **data}
    for name, place, key in _COUNTS:
        found = objects.get(place)
        value = found.get(key) if isinstance(found, dict) else None
        # No prompt is empty: a 0 stands for a server that did not count.
        if _is_count(value) and (value or name != "prompt_tokens"):
            setattr(answer, name, value)


def _timings(data: Mapping[str, Any], read: ReadTimings) -> EngineTimings | None:
    """The engine's own clock. Zero and negative times stay: they are found out later. What is no
    time at all (a figure beyond any run, nan) is dropped."""
    try:
        found = read(data)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None
    possible = (
        found is not None
        and all(abs(ms) <= MOST_MS for ms in (found.prompt_ms, found.decode_ms))
        and all(0 <= n <= MOST_TOKENS for n in (found.prompt_tokens, found.decode_tokens))
    )
    return found if possible else None


def _split_thought(chunks: Chunks) -> Chunks:
    """Move a thought that stands between markers in content to the reasoning channel.

    Markers may be cut anywhere by chunk borders, so they are looked for in the joined content. A
    marker itself costs tokens: it stays with the reasoning it encloses.
    """
    content = chunks.text_of(Kind.CONTENT)
    own_channel = Kind.REASONING in chunks.kinds
    opened = [m for m in markers() if content.lstrip().startswith(m.open)]
    ends = [_thought_end(content, m, own_channel) for m in opened or markers()]
    end = min(filter(None, ends), default=0)
    if not end:
        return chunks
    split: list[Chunk] = []
    left = end
    for chunk in chunks:
        cut = left if chunk.kind is Kind.CONTENT else 0
        left -= len(chunk.text[:cut])
        for kind, text in ((Kind.REASONING, chunk.text[:cut]), (chunk.kind, chunk.text[cut:])):
            if text:
                split.append(Chunk(chunk.t_ns, kind, text))
    return Chunks.of(split)


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


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
