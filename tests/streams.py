"""Streams drawn at random, played without a socket, and the truth about them.

``recipe(seed)`` draws one, ``stream(recipe)`` plays it as ``tokrig.simulate`` does and gives the
response exactly as the measuring client has it, a tokenizer where the engine has one, and the
truth. What the client itself does to a stream (several events a read, several reads a write) is
played here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from tokrig.run.client import Response
from tokrig.simulate.streams import (
    Delivery,
    Event,
    Grouping,
    Hidden,
    Recipe,
    Script,
    Transport,
    Usage,
    delivered,
    encoder,
    events,
    generated,
    hidden,
    texts,
    together,
)

WIRE_NS = 150_000
PROMPT = "The harbour lies still in the early light and the boats wait for the tide to turn. " * 3


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
        wire_ns=WIRE_NS,
        role_at=0.5,
        prompt_tokens=prompt_tokens(),
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
    times = list(generated(made, r))
    sent = list(events(made, times, list(texts(made, r)), r))
    encoded = encoder({"object": "chat.completion.chunk"})
    if made.transport == "reads":
        deliveries = list(_read_late(made, sent, r))
    elif made.transport == "slow_writes":
        deliveries = list(_read_apart(sent, r))
    else:
        deliveries = list(delivered(made, sent, encoded))
    truth = _truth(made, times, deliveries)
    pieces = [(t_ns, b"".join(map(encoded, group))) for t_ns, group in deliveries]
    headers = {"content-type": "text/event-stream"}
    response = Response(0, 0, 0, pieces[-1][0], 200, headers, pieces)
    return Stream(made, response, _count_text if made.tokenizer else _no_tokenizer, truth)


def prompt_tokens() -> int:
    """How long the prompt is by the engine's tokenizer."""
    return _count_text(PROMPT)


def _count_text(text: str) -> int:
    return len(re.findall(r" ?[a-z]+|[0-9]|[\u4e00-\u9fff]|[^a-z0-9\u4e00-\u9fff ]+", text.lower()))


def _no_tokenizer(text: str) -> int | None:
    return None


# How the client reads.


def _read_late(made: Recipe, sent: Sequence[Event], r: random.Random) -> Iterator[Delivery]:
    """The client is away for a moment now and then, and finds several events afterwards. How late
    its own stamps may be is judged elsewhere: here no later than can matter."""
    longest_ns = round(0.004 * (sent[-1].t_ns - made.ttft_ns))

    def at() -> Iterator[tuple[int, Event]]:
        back_ns = 0
        for event in sent:
            yield max(event.t_ns, back_ns), event
            if event.t_ns >= back_ns and r.random() < 0.1:
                away_ns = round(r.uniform(1, 1.8) * made.token_ns)
                back_ns = event.t_ns + min(away_ns, longest_ns)

    return together(at())


def _read_apart(sent: Sequence[Event], r: random.Random) -> Iterator[Delivery]:
    """Several writes of one moment take several reads."""
    before_ns = 0
    for event in sent:
        spread = r.randint(5_000, 40_000)
        at_ns = event.t_ns + spread
        before_ns = at_ns if at_ns > before_ns else before_ns + spread
        yield before_ns, [event]


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
    unseen = hidden(made)
    inside = sum(first < index <= last for index in unseen)
    truth = Truth(
        tok_per_s=(last - first) / span_ns * 1e9 if span_ns else 0.0,
        tokens=made.tokens,
        hidden_outside=len(unseen) - inside,
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
