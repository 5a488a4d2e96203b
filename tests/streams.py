"""Streams whose truth is known: what an engine did, what of it went over the wire, and when.

An engine generates tokens at known times. A server makes events of them: it hides some, holds some
back, puts several into one, counts them rightly or not. What stands between server and client
delivers the events: each at once, several a read, on a timer, by size. Each of these is a choice of
a ``Recipe``; ``recipe(seed)`` draws one, ``stream(recipe)`` plays it and gives the response exactly
as the measuring client has it, a tokenizer where the engine has one, and the truth.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

from tokrig.run.client import Response

Hidden = Literal["none", "told", "untold", "first", "dropped", "markers"]
Grouping = Literal["token", "several", "at_once"]
Transport = Literal["direct", "reads", "timer", "size", "slow_writes"]
Script = Literal["words", "cjk", "digits"]
Usage = Literal["end", "late", "finish", "each", "none", "double", "double_each"]

MS = 1_000_000
WIRE_NS = 150_000
PROMPT = "The harbour lies still in the early light and the boats wait for the tide to turn. " * 3


@dataclass(frozen=True)
class Recipe:
    """One stream. Times are in ns, shares of one."""

    seed: int
    tokens: int = 128
    token_ns: int = 20 * MS
    ttft_ns: int = 300 * MS
    jitter: float = 0.0
    """Standard deviation of a token's time, as a share of it."""
    ramp: float = 0.0
    """By how much a token at the end takes longer than one at the beginning."""
    stall_ns: int = 0
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


@dataclass(frozen=True)
class Truth:
    """What really happened.

    ``tok_per_s`` is the engine's rate between the last token of the first delivery and the last
    token shown. ``knowable``: whether a careful person could tell that rate to one percent from
    what went over the wire (see ``_is_knowable``). ``deliveries`` after the first, and the longest
    gap between two as a share of the window; ``spread`` is how far the ninth decile of the gaps is
    from the first; ``waited`` is how long the
    tokens of the first and the last delivery waited for it, as such a share too.
    """

    tok_per_s: float
    tokens: int
    hidden_outside: int
    hidden_inside: int
    deliveries: int
    longest_gap: float
    spread: float
    waited: float
    knowable: bool


@dataclass(frozen=True)
class Stream:
    """A response, who counts text, and the truth."""

    recipe: Recipe
    response: Response
    count_text: Callable[[str], int | None]
    truth: Truth


@dataclass
class _Event:
    """One event on its way: when it was sent, what it shows, the last token that it covers."""

    t_ns: int
    data: dict[str, Any] | None
    last_token: int | None = None
    marks: dict[str, int] = field(default_factory=dict)


def recipe(seed: int, *, longest: int = 1024) -> Recipe:
    """A stream drawn at random. The same seed gives the same stream."""
    r = random.Random(seed)
    tokens = r.choice([n for n in (128, 128, 128, 256, 1024) if n <= longest])
    token_ns = round(10 ** r.uniform(5.8, 8.0))
    grouping: Grouping = _pick(r, {"token": 7, "several": 2, "at_once": 1})
    transport: Transport = _pick(
        r, {"direct": 6, "reads": 1, "timer": 1.5, "size": 1, "slow_writes": 0.7}
    )
    hidden: Hidden = _pick(
        r, {"none": 6, "told": 1, "untold": 0.6, "first": 0.8, "dropped": 0.8, "markers": 0.5}
    )
    script: Script = _pick(r, {"words": 6, "cjk": 1, "digits": 1})
    usage: Usage = _pick(
        r,
        {
            "end": 5,
            "late": 0.5,
            "finish": 1,
            "each": 2,
            "none": 0.7,
            "double": 0.5,
            "double_each": 0.4,
        },
    )
    hidden_tokens = 0 if hidden == "none" else 9 if hidden == "markers" else r.randint(1, 90)
    if hidden == "first":
        hidden_tokens = r.randint(1, 40)
    if hidden == "dropped":
        hidden_tokens = r.randint(1, 30)
    at_once = grouping == "at_once" and hidden != "told"
    shown = r.choices([0, r.randint(1, 90)], [3, 1])[0]
    return Recipe(
        seed=seed,
        tokens=tokens,
        token_ns=token_ns,
        ttft_ns=round(10 ** r.uniform(7.3, 9.3)),
        jitter=r.choice([0, 0.02, 0.1, 0.3]),
        ramp=r.choice([0, 0, 0.05, 0.15]),
        stall_ns=round(r.choices([0, r.uniform(1, 40)], [5, 1])[0] * token_ns),
        script=script,
        pieces=r.choice([0, 0, 0.01, 0.04]),
        accepted=r.choices([0, r.randint(1, 6)], [5, 1])[0],
        tells_drafts=r.random() < 0.6,
        hidden=hidden,
        hidden_tokens=hidden_tokens,
        reasoning=0 if hidden == "told" else r.randint(8, 60) if at_once else shown,
        grouping=grouping,
        several=r.randint(2, 12),
        held_back=r.choices([1, r.randint(2, 20)], [4, 1])[0],
        tool_call=r.choices([0, r.randint(4, 20)], [6, 1])[0],
        transport=transport,
        period_ns=round(10 ** r.uniform(7, 8.8)),
        flushes=r.random() < 0.5,
        size_bytes=round(10 ** r.uniform(2.7, 4)),
        usage=usage,
        tokenizer=r.random() < 0.5,
        timings=r.random() < 0.35,
    )


T = TypeVar("T")


def _pick(r: random.Random, weights: dict[T, float]) -> T:
    return r.choices(list(weights), list(weights.values()))[0]


def stream(made: Recipe) -> Stream:
    """Play a recipe."""
    r = random.Random(made.seed + 1)
    times = _generated(made, r)
    events = _events(made, times, _texts(made, r), r)
    deliveries = _delivered(made, events, r)
    truth = _truth(made, times, deliveries)
    pieces = [(t_ns, b"".join(_encoded(event) for event in group)) for t_ns, group in deliveries]
    headers = {"content-type": "text/event-stream"}
    response = Response(0, 0, 0, pieces[-1][0], 200, headers, pieces)
    return Stream(made, response, _count_text if made.tokenizer else _no_tokenizer, truth)


def prompt_tokens() -> int:
    """How long the prompt is by the engine's tokenizer."""
    return _count_text(PROMPT)


# The engine.


def _generated(made: Recipe, r: random.Random) -> list[int]:
    """When each token was generated. The tokens of a step of speculation share a time."""
    times: list[int] = []
    now, step = made.ttft_ns, 0
    stall_at = r.randint(made.tokens // 4, made.tokens * 3 // 4)
    while len(times) < made.tokens:
        if times:
            slower = 1 + made.ramp * len(times) / made.tokens
            noise = max(0.2, r.gauss(1, made.jitter)) if made.jitter else 1.0
            now += round(made.token_ns * slower * noise)
        if made.stall_ns and len(times) <= stall_at < len(times) + 1:
            now += made.stall_ns
        # The first token comes of the prompt, alone.
        yielded = 1 + (r.randint(0, made.accepted) if step else 0)
        times += [now] * min(yielded, made.tokens - len(times))
        step += 1
    return times


def _texts(made: Recipe, r: random.Random) -> list[str]:
    """The text of each token, as the engine's tokenizer would cut it, nearly."""
    texts = []
    for index in range(made.tokens):
        if made.script == "cjk":
            texts.append(chr(0x4E00 + r.randrange(5000)))
        elif made.script == "digits":
            texts.append(str(r.randrange(10)))
        else:
            word = "".join(r.choices("etaoinshrdlu", k=r.choice([1, 2, 2, 3, 3, 4, 5, 6, 8])))
            glued = index > 0 and r.random() < made.pieces
            texts.append(word if glued else f" {word}")
    return texts


def _count_text(text: str) -> int:
    return len(re.findall(r" ?[a-z]+|[0-9]|[\u4e00-\u9fff]|[^a-z0-9\u4e00-\u9fff ]+", text.lower()))


def _no_tokenizer(text: str) -> int | None:
    return None


# The server.


def _visible(made: Recipe) -> list[bool]:
    """Which tokens are shown at all."""
    shown = [True] * made.tokens
    count = min(made.hidden_tokens, made.tokens - 32)
    if made.hidden in ("told", "untold", "first"):
        shown[:count] = [False] * count
    elif made.hidden == "dropped" and count:
        shown[-count:] = [False] * count
    elif made.hidden == "markers":
        # A header, three tokens, and the passage from the thought to the answer, six.
        shown[:3] = [False] * 3
        shown[40:46] = [False] * 6
    return shown


def _events(
    made: Recipe, times: Sequence[int], texts: Sequence[str], r: random.Random
) -> list[_Event]:
    shown = [i for i, visible in enumerate(_visible(made)) if visible]
    groups = list(_groups(made, shown, times))
    events = [_Event(made.ttft_ns // 2, {"delta": {"role": "assistant", "content": ""}})]
    reasoning = set(shown[: made.reasoning] if made.reasoning else [])
    tool = set(shown[len(shown) - made.tool_call :]) if made.tool_call else set()
    for group in groups:
        last = group[-1]
        for kind, part in _by_channel(group, reasoning, tool):
            text = "".join(texts[i] for i in part)
            at_ns = times[last] + WIRE_NS
            events.append(_Event(at_ns, {"delta": _delta(kind, text)}, part[-1]))
    generated_ns = times[-1] + WIRE_NS
    finish = _Event(generated_ns, {"delta": {}, "finish_reason": "length"})
    if made.usage in ("each", "double_each"):
        factor = 2 if made.usage == "double_each" else 1
        for event in events[1:]:
            generated = sum(t + WIRE_NS <= event.t_ns for t in times)
            # Within a step the events count up one by one.
            counted = max((event.last_token or 0) + 1, 1) if made.accepted else generated
            event.marks["completion_tokens"] = factor * counted
    events.append(finish)
    events += _endings(made, finish, times, r)
    return events


def _groups(made: Recipe, shown: Sequence[int], times: Sequence[int]) -> Iterator[list[int]]:
    """The shown tokens, chunk by chunk."""
    rest = list(shown)
    first = made.reasoning if made.grouping == "at_once" else made.held_back
    yield rest[: max(first, 1)]
    rest = rest[max(first, 1) :]
    while rest:
        if made.grouping == "several":
            size = made.several
        elif made.accepted and made.seed % 2:
            # One event a step, as vLLM does; llama.cpp sends one a token.
            size = sum(times[i] == times[rest[0]] for i in rest[:16])
        else:
            size = 1
        yield rest[:size]
        rest = rest[size:]


def _by_channel(
    group: list[int], reasoning: set[int], tool: set[int]
) -> Iterator[tuple[str, list[int]]]:
    for kind, members in (
        ("reasoning_content", [i for i in group if i in reasoning and i not in tool]),
        ("content", [i for i in group if i not in reasoning and i not in tool]),
        ("tool_calls", [i for i in group if i in tool]),
    ):
        if members:
            yield kind, members


def _delta(kind: str, text: str) -> dict[str, Any]:
    if kind == "tool_calls":
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
    return {kind: text}


def _endings(
    made: Recipe, finish: _Event, times: Sequence[int], r: random.Random
) -> Iterator[_Event]:
    """Usage, timings and the end, in the server's way."""
    now_ns = finish.t_ns
    if made.usage != "none":
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens(),
            "completion_tokens": made.tokens * (2 if "double" in made.usage else 1),
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        if made.hidden == "told":
            hidden = sum(not visible for visible in _visible(made))
            usage["completion_tokens_details"] = {"reasoning_tokens": hidden}
        if made.usage == "finish" and finish.data is not None:
            finish.data["usage"] = usage
        else:
            now_ns += r.randint(1, 400) * MS if made.usage == "late" else 0
            yield _Event(now_ns, {"usage": usage})
    timings: dict[str, Any] = {}
    if made.timings:
        timings = {
            "cache_n": 0,
            "prompt_n": prompt_tokens(),
            "prompt_ms": times[0] / MS,
            "predicted_n": made.tokens,
            "predicted_ms": (times[-1] - times[0]) / MS,
        }
    if made.accepted and made.tells_drafts:
        steps = len(set(times)) - 1
        timings["draft_n"] = steps * made.accepted
        timings["draft_n_accepted"] = made.tokens - 1 - steps
    if timings:
        yield _Event(now_ns, {"timings": timings})
    yield _Event(now_ns, None)


def _encoded(event: _Event) -> bytes:
    if event.data is None:
        return b"data: [DONE]\n\n"
    chunk: dict[str, Any] = {"object": "chat.completion.chunk", "choices": []}
    if "delta" in event.data:
        reason = event.data.get("finish_reason")
        chunk["choices"] = [{"index": 0, "delta": event.data["delta"], "finish_reason": reason}]
    chunk |= {k: v for k, v in event.data.items() if k in ("usage", "timings")}
    if event.marks:
        chunk["usage"] = {"prompt_tokens": prompt_tokens(), **event.marks}
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


# What stands between.

Delivery = tuple[int, list[_Event]]


def _delivered(made: Recipe, events: list[_Event], r: random.Random) -> list[Delivery]:
    """The events as they arrive: those of one read together."""
    deliveries: list[Delivery] = []
    if made.transport == "timer":
        end_ns = events[-1].t_ns
        for event in events:
            tick = -(-event.t_ns // made.period_ns) * made.period_ns
            _add(deliveries, min(tick, end_ns) if made.flushes else tick, event)
    elif made.transport == "size":
        held: list[_Event] = []
        for event in events:
            held.append(event)
            if sum(len(_encoded(e)) for e in held) >= made.size_bytes or event is events[-1]:
                deliveries.append((event.t_ns, held))
                held = []
    elif made.transport == "reads":
        # The client is away for a moment now and then, and finds several events afterwards. How
        # late its own stamps may be is judged elsewhere: here no later than can matter.
        back_ns, longest_ns = 0, round(0.004 * (events[-1].t_ns - made.ttft_ns))
        for event in events:
            _add(deliveries, max(event.t_ns, back_ns), event)
            if event.t_ns >= back_ns and r.random() < 0.1:
                away_ns = round(r.uniform(1, 1.8) * made.token_ns)
                back_ns = event.t_ns + min(away_ns, longest_ns)
    else:
        for event in events:
            # Several writes of one moment may take several reads.
            spread = r.randint(5_000, 40_000) if made.transport == "slow_writes" else 0
            at_ns = event.t_ns + spread
            if deliveries and at_ns <= deliveries[-1][0]:
                at_ns = deliveries[-1][0] + spread
            _add(deliveries, at_ns, event)
    return deliveries


def _add(deliveries: list[Delivery], t_ns: int, event: _Event) -> None:
    if deliveries and t_ns <= deliveries[-1][0]:
        deliveries[-1][1].append(event)
    else:
        deliveries.append((t_ns, [event]))


# The truth.


def _truth(made: Recipe, times: Sequence[int], deliveries: Sequence[Delivery]) -> Truth:
    bearing = [
        (t_ns, [e for e in group if e.last_token is not None])
        for t_ns, group in deliveries
        if any(e.last_token is not None for e in group)
    ]
    # The events of one moment are one delivery, whichever reads they took.
    near_ns = 0.05 * made.token_ns if made.transport == "slow_writes" else 0
    moment = [group for t_ns, group in bearing if t_ns - bearing[0][0] <= near_ns]
    first = max(e.last_token or 0 for group in moment for e in group)
    last = max(e.last_token or 0 for _, group in bearing for e in group)
    span_ns = times[last] - times[first]
    stamps = [t_ns for t_ns, _ in bearing]
    window = max(stamps[-1] - stamps[0], 1)
    gaps = [b - a for a, b in pairwise(stamps) if b - a > near_ns]
    in_order = sorted(gaps)
    waits = stamps[0] - times[first] + stamps[-1] - times[last] - 2 * WIRE_NS
    shown = _visible(made)
    inside = sum(not visible for visible in shown[first + 1 : last + 1])
    truth = Truth(
        tok_per_s=(last - first) / span_ns * 1e9 if span_ns else 0.0,
        tokens=made.tokens,
        hidden_outside=sum(not visible for visible in shown) - inside,
        hidden_inside=inside,
        deliveries=len(gaps),
        longest_gap=max(gaps, default=0) / window,
        spread=(in_order[len(gaps) * 9 // 10] - in_order[len(gaps) // 10]) / window if gaps else 0,
        waited=waits / window,
        knowable=False,
    )
    return replace(truth, knowable=_is_knowable(made, truth, last - first))


def _is_knowable(made: Recipe, truth: Truth, decoded: int) -> bool:
    """Whether the rate can be told to one percent from what went over the wire, by anybody.

    *When*: the deliveries must show the pace. At least 16 of them, none after a gap of more than
    a tenth of the window, and all at about the same distance: by how much they differ the first
    and the last may be late. Where several tokens come at once they may have waited for it, the
    first and the last of them: so there must be more than a hundred deliveries, and the last must
    not have waited, which its tokens tell that came too late for their number. Or the engine tells
    its steps, and they take about the same time, or it has a clock.

    *What*: somebody must tell which tokens came between the first and the last. Running counts
    do. So do chunks of one token each, if the total is right and what is hidden is told. So does
    an exact tokenizer, if what is hidden lies at the ends, left time for itself there, and is not
    as much as what is shown, which would be a server that counts double. So does the engine's
    clock, at a steady pace, if either nothing or all that no chunk carries lies at the ends.
    Counts that are doubled tell nothing; running counts, and clocks, of several tokens a chunk
    might be so, unless the text has the usual bytes a token. Somebody must tell the prompt's
    length.
    """
    several = made.grouping == "several" or made.accepted > 0
    several = several or made.transport in ("timer", "size", "reads")
    if truth.deliveries < 17 or truth.longest_gap > 0.095 or "double" in made.usage:
        return False
    steps = made.accepted and made.tells_drafts and made.grouping == "token"
    steps = steps and made.transport in ("direct", "slow_writes") and made.jitter <= 0.1
    many = truth.deliveries > 102 or (truth.deliveries > 20 and (steps or made.timings))
    if decoded < 32 or truth.spread > 0.009 or (several and not (many and truth.waited < 0.004)):
        return False
    hidden = truth.hidden_outside + truth.hidden_inside
    told = not hidden or (made.hidden == "told" and made.usage != "none")
    one_each = made.grouping == "token" and made.held_back == 1
    one_each = one_each and not (made.accepted and made.seed % 2)
    if made.usage == "none" and not made.timings:
        return False
    if made.usage == "each":
        return one_each or made.script == "words" or (made.tokenizer and not made.pieces)
    if one_each and told:
        return True
    alone = one_each and not truth.hidden_inside and not several and not made.stall_ns
    alone = alone and not made.ramp and made.jitter <= 0.02
    whole = not hidden and made.held_back == 1 and made.grouping != "at_once"
    if made.timings and (alone or (whole and made.script == "words")):
        return True
    if not made.tokenizer or made.pieces:
        return False
    few = hidden < 0.8 * (truth.tokens - hidden)
    return told or (alone and few)
