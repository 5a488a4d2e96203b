"""Streams whose truth is known: what an engine did, what of it goes over the wire, and when.

An engine generates tokens at known times. A server makes events of them: it hides some, holds some
back, puts several into one, counts them rightly or not. What stands between server and client
delivers the events: each at once, on a timer, by size. Each of these is a choice of a ``Recipe``.

Everything is lazy and comes from the random numbers that it is given: an event is made when it is
asked for, so a server can play a thousand streams at once, and a long one takes no memory.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Literal

Hidden = Literal["none", "told", "untold", "first", "dropped", "markers"]
Grouping = Literal["token", "several", "at_once"]
Transport = Literal["direct", "reads", "timer", "size", "slow_writes"]
Script = Literal["words", "cjk", "digits"]
Usage = Literal["end", "late", "finish", "each", "none", "double", "double_each"]
Noise = Literal["normal", "uniform", "lognormal"]

MS = 1_000_000
SHORTEST = 0.2  # of the usual time of a token, where it jitters

REASONING, CONTENT, TOOL_CALL = "reasoning_content", "content", "tool_calls"


@dataclass(frozen=True)
class Recipe:
    """One stream. Times are in ns, shares of one.

    ``wire_ns`` is how long an event takes from the engine to the network; ``role_at`` when the
    chunk that only names the role comes, as a share of the TTFT.
    """

    seed: int
    tokens: int = 128
    token_ns: int = 20 * MS
    ttft_ns: int = 300 * MS
    jitter: float = 0.0
    """Standard deviation of a token's time, as a share of it."""
    noise: Noise = "normal"
    ramp: float = 0.0
    """By how much a token at the end takes longer than one at the beginning."""
    stall_ns: int = 0
    stall_every: int = 0
    """Every how many gaps it stalls; 0: once, somewhere."""
    script: Script = "words"
    pieces: float = 0.0
    """Share of tokens that a tokenizer would join with the one before."""
    accepted: int = 0
    """Most draft tokens that a step accepts; 0: no speculation."""
    tells_drafts: bool = False
    hidden: Hidden = "none"
    hidden_tokens: int = 0
    reasoning: int = 0
    """Shown tokens of reasoning before the answer."""
    grouping: Grouping = "token"
    several: int = 1
    """Tokens a chunk, where ``grouping`` is several."""
    held_back: int = 1
    """Tokens whose text comes with the first chunk."""
    tool_call: int = 0
    """Tokens at the end that are a tool call."""
    transport: Transport = "direct"
    period_ns: int = 0
    """Of a proxy's timer; ``flushes`` says whether it passes the end on at once."""
    flushes: bool = True
    size_bytes: int = 0
    usage: Usage = "end"
    tokenizer: bool = False
    timings: bool = False
    prompt_tokens: int = 1
    cached_tokens: int = 0
    finish: str = "length"
    wire_ns: int = 0
    role_at: float = 1.0


@dataclass(slots=True)
class Event:
    """One event on its way: when it is sent; ``text`` in the channel ``kind``, of ``tokens``
    tokens up to number ``last_token``; what else it says in ``more``. Without ``kind`` and
    ``more`` it is the end of all."""

    t_ns: int
    kind: str = ""
    text: str = ""
    last_token: int | None = None
    tokens: int = 0
    more: dict[str, Any] | None = None


@dataclass(slots=True)
class _Engine:
    """What the engine's own clock has seen."""

    first_ns: int = 0
    last_ns: int = -1
    steps: int = 0


# The engine.

_NOISE: Mapping[Noise, Callable[[random.Random, float], float]] = {
    "normal": lambda r, sd: r.gauss(1, sd),
    "uniform": lambda r, sd: 1 + sd * 3**0.5 * r.uniform(-1, 1),
    "lognormal": lambda r, sd: r.lognormvariate(-sd * sd / 2, sd),
}


def generated(made: Recipe, r: random.Random) -> Iterator[int]:
    """When each token was generated. The tokens of a step of speculation share a time."""
    now, step, count, noise = made.ttft_ns, 0, 0, _NOISE[made.noise]
    stall_at = r.randint(made.tokens // 4, made.tokens * 3 // 4)
    while count < made.tokens:
        if count:
            took = made.token_ns * (1 + made.ramp * count / made.tokens)
            now += round(took * max(SHORTEST, noise(r, made.jitter)) if made.jitter else took)
            if step % made.stall_every == 0 if made.stall_every else count == stall_at:
                now += made.stall_ns
        # The first token comes of the prompt, alone.
        yielded = 1 + r.randint(0, made.accepted) if step and made.accepted else 1
        for _ in range(yielded):
            if count < made.tokens:
                yield now
            count += 1
        step += 1


def texts(made: Recipe, r: random.Random) -> Iterator[str]:
    """The text of each token, as the engine's tokenizer would cut it, nearly."""
    for index in range(made.tokens):
        if made.script == "cjk":
            yield chr(0x4E00 + r.randrange(5000))
        elif made.script == "digits":
            yield str(r.randrange(10))
        else:
            word = "".join(r.choices("etaoinshrdlu", k=r.choice([1, 2, 2, 3, 3, 4, 5, 6, 8])))
            glued = index > 0 and r.random() < made.pieces
            yield word if glued else f" {word}"


# The server.


def hidden(made: Recipe) -> frozenset[int]:
    """The tokens that are not shown at all."""
    count = max(min(made.hidden_tokens, made.tokens - 32), 0)
    if made.hidden in ("told", "untold", "first"):
        return frozenset(range(count))
    if made.hidden == "dropped":
        return frozenset(range(made.tokens - count, made.tokens))
    if made.hidden == "markers":
        # A header, three tokens, and the passage from the thought to the answer, six.
        return frozenset((*range(3), *range(40, 46)))
    return frozenset()


Token = tuple[int, int, str]
"""Its number, when it was generated, its text."""


def events(
    made: Recipe, times: Iterable[int], said: Iterable[str], r: random.Random
) -> Iterator[Event]:
    """What the server sends of the tokens generated at ``times`` with the texts ``said``."""
    unseen, engine = hidden(made), _Engine()
    thought_end, call_start = _channels(made, unseen)

    def kind_of(token: Token) -> str:
        if token[0] >= call_start:
            return TOOL_CALL
        return REASONING if token[0] < thought_end else CONTENT

    each = made.usage in ("each", "double_each")
    factor = 2 if made.usage == "double_each" else 1
    yield Event(
        int(made.ttft_ns * made.role_at), more={"delta": {"role": "assistant", "content": ""}}
    )
    for group in _groups(made, _shown(times, said, unseen, engine)):
        at_ns = group[-1][1] + made.wire_ns
        parts: Iterable[tuple[str, Iterable[Token]]] = [(kind_of(group[0]), group)]
        for kind, part in groupby(group, kind_of) if len(group) > 1 else parts:
            part = [*part]
            last, text = part[-1][0], "".join([token[2] for token in part])
            # Within a step of speculation the events count up one by one.
            counted = (last if made.accepted else group[-1][0]) + 1
            more = {"usage": _usage(made, factor * counted)} if each else None
            yield Event(at_ns, kind, text, last, len(part), more)
    yield from _endings(made, engine, len(unseen), r)


def _shown(
    times: Iterable[int], said: Iterable[str], unseen: frozenset[int], engine: _Engine
) -> Iterator[Token]:
    for index, (t_ns, text) in enumerate(zip(times, said, strict=False)):
        if t_ns != engine.last_ns:
            engine.first_ns = engine.first_ns or t_ns
            engine.steps += 1
            engine.last_ns = t_ns
        if index not in unseen:
            yield index, t_ns, text


def _channels(made: Recipe, unseen: frozenset[int]) -> tuple[int, int]:
    """The token that ends the shown reasoning, and the one that begins the tool call."""
    if not (made.reasoning or made.tool_call):
        return 0, made.tokens
    shown = [i for i in range(made.tokens) if i not in unseen]
    thoughts, calls = shown[: made.reasoning], shown[len(shown) - made.tool_call :]
    return (thoughts[-1] + 1 if thoughts else 0), (calls[0] if calls else made.tokens)


def _groups(made: Recipe, tokens: Iterator[Token]) -> Iterator[list[Token]]:
    """The shown tokens, chunk by chunk."""
    first = made.reasoning if made.grouping == "at_once" else made.held_back
    yield from filter(None, [list(islice(tokens, max(first, 1)))])
    if made.grouping == "several":
        while group := list(islice(tokens, made.several)):
            yield group
    elif made.accepted and made.seed % 2:
        # One event a step, as vLLM does; llama.cpp sends one a token.
        yield from (list(step) for _, step in groupby(tokens, itemgetter(1)))
    else:
        for token in tokens:
            yield [token]


def _usage(made: Recipe, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": made.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": made.prompt_tokens + completion,
    }


def _endings(made: Recipe, engine: _Engine, unseen: int, r: random.Random) -> Iterator[Event]:
    """Finish reason, usage, timings and the end, in the server's way."""
    now_ns = engine.last_ns + made.wire_ns
    finish: dict[str, Any] = {"delta": {}, "finish_reason": made.finish}
    usage = _usage(made, made.tokens * (2 if "double" in made.usage else 1))
    usage["prompt_tokens_details"] = {"cached_tokens": made.cached_tokens}
    if made.hidden == "told":
        usage["completion_tokens_details"] = {"reasoning_tokens": unseen}
    if made.usage == "finish":
        finish["usage"] = usage
    yield Event(now_ns, more=finish)
    if made.usage not in ("finish", "none"):
        now_ns += r.randint(1, 400) * MS if made.usage == "late" else 0
        yield Event(now_ns, more={"usage": usage})
    timings: dict[str, Any] = {}
    if made.timings:
        timings = {
            "cache_n": made.cached_tokens,
            "prompt_n": made.prompt_tokens - made.cached_tokens,
            "prompt_ms": engine.first_ns / MS,
            "predicted_n": made.tokens,
            "predicted_ms": (engine.last_ns - engine.first_ns) / MS,
        }
    if made.accepted and made.tells_drafts:
        steps = engine.steps - 1
        timings["draft_n"] = steps * made.accepted
        timings["draft_n_accepted"] = made.tokens - 1 - steps
    if timings:
        yield Event(now_ns, more={"timings": timings})
    yield Event(now_ns)


# What goes over the wire.

_text = json.JSONEncoder(ensure_ascii=False).encode
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encoder(common: Mapping[str, Any]) -> Callable[[Event], bytes]:
    """Makes an OpenAI chat chunk of an event, as a server-sent event; ``common`` is what all the
    chunks of an answer say."""
    opening = f"data: {_compact(dict(common))[:-1]},"
    spoken = f'{opening}"choices":[{{"index":0,"delta":{{"'

    def encoded(event: Event) -> bytes:
        kind, more = event.kind, event.more
        if kind and kind is not TOOL_CALL and more is None:
            text = _text(event.text)
            return f'{spoken}{kind}":{text}}},"finish_reason":null}}]}}\n\n'.encode()
        if not kind and more is None:
            return b"data: [DONE]\n\n"
        said = dict(more or {})
        delta = said.pop("delta", {kind: event.text} if kind else None)
        if kind == TOOL_CALL:
            delta = {kind: [{"index": 0, "function": {"arguments": event.text}}]}
        choice = {"index": 0, "delta": delta, "finish_reason": said.pop("finish_reason", None)}
        said = {"choices": [] if delta is None else [choice], **said}
        return f"{opening}{_compact(said)[1:]}\n\n".encode()

    return encoded


# What stands between.

Delivery = tuple[int, Sequence[Event]]


def delivered(
    made: Recipe, sent: Iterable[Event], encoded: Callable[[Event], bytes]
) -> Iterator[Delivery]:
    """The events as they are passed on: those of one moment together."""
    if made.transport == "timer":
        return _by_timer(made, sent)
    if made.transport == "size":
        return _by_size(made, sent, encoded)
    return together((event.t_ns, event) for event in sent)


def together(at: Iterable[tuple[int, Event]]) -> Iterator[Delivery]:
    """Events that arrive at times which never go back; those of one time are one delivery."""
    moment, held = 0, list[Event]()
    for t_ns, event in at:
        if held and t_ns > moment:
            yield moment, held
            held = []
        if not held:
            moment = t_ns
        held.append(event)
    if held:
        yield moment, held


def _by_timer(made: Recipe, sent: Iterable[Event]) -> Iterator[Delivery]:
    tick, held = 0, list[Event]()
    for event in sent:
        due = -(-event.t_ns // made.period_ns) * made.period_ns
        if held and due > tick:
            yield tick, held
            held = []
        tick = due
        held.append(event)
    if held:
        yield (min(tick, held[-1].t_ns) if made.flushes else tick), held


def _by_size(
    made: Recipe, sent: Iterable[Event], encoded: Callable[[Event], bytes]
) -> Iterator[Delivery]:
    held, held_bytes = list[Event](), 0
    for event in sent:
        held.append(event)
        held_bytes += len(encoded(event))
        if held_bytes >= made.size_bytes:
            yield event.t_ns, held
            held, held_bytes = [], 0
    if held:
        yield held[-1].t_ns, held
