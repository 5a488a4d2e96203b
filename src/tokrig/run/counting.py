"""How many tokens an answer has, and which of them came between the first stamp and the last.

The decode rate is tokens over time, so both must speak of the same tokens. What a server counts
and what a client sees can differ: reasoning that is not shown, tokens without text, text held back
and dropped, several tokens in a chunk. Whoever can tell is asked, in this order:

1. running counts that came with the chunks (usage on every chunk, timings, returned token ids);
2. the chunks, where there are as many as tokens: each carries one at least;
3. the engine's tokenizer, over all the text and over that of the first burst;
4. the engine's clock: of two readings of the stream the one that agrees with it;
5. nobody: the first burst is estimated by its share of the text, and the count is not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tokrig.backends import Backend
from tokrig.record.samples import (
    BURSTY,
    CLOCK_CONFIRMS,
    Chunks,
    Kind,
    Sample,
    bursts,
    clock_ran_over_the_same,
    gaps_of,
)
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Response

CountText = Callable[[str], int | None]

# Two readings of a stream whose rates are nearer than this are one.
SAME_RATE = 0.01
# Running counts further from the tokens of the text, by this factor, are counted wrongly.
IMPLAUSIBLE = 1.8
# The same tokenizer may cut an answer otherwise than it was generated: into as many fewer tokens.
RETOKENIZED, RETOKENIZED_TOKENS = 0.05, 2
# Bytes a token that the text of a model has, whatever its language. Half as many are those of a
# server that counts double; digits alone have fewer, and can not be told from it.
PLAUSIBLE_BYTES = 2.8, 7.0
# A gap with room for this many tokens more than came with its end may hide one.
SPARE_TOKENS = 0.6
# A count by tokenizer this near to the length asked for, of an answer that ended for its length,
# is that length.
AS_ASKED = 0.02


# What a sample takes from its answer as it is.
_AS_ANSWERED = (
    *("cached_tokens", "drafted_tokens", "accepted_tokens"),
    *("finish_reason", "timings", "error", "error_detail"),
)


@dataclass(frozen=True)
class Counted:
    """Which tokens came with the first burst of chunks and with the last, by the names of
    ``Sample``; the disagreement is that of text and count."""

    first_chunk_tokens: int | None = None
    last_chunk_tokens: int | None = None
    hidden_tokens: int | None = None
    counted_by: str | None = None
    count_disagreement: float | None = None
    first_chunk_assumed: bool = False


def observe(
    response: Response,
    place: Sample,
    backend: Backend,
    count_text: CountText,
    *,
    asked: int | None = None,
    vet: Callable[[Answer], None] = lambda answer: None,
) -> Sample:
    """The sample of one request for ``asked`` tokens; ``place`` is a sample that tells only where
    it stood in the run. ``vet`` may fail the answer.

    Asks the server's tokenizer only where the stream does not tell, and never about a request that
    failed: the server may be gone, and its counts serve no figure.
    """
    answer = read_answer(response, backend.timings, backend.event)
    vet(answer)
    if answer.error is not None:
        count_text = _ask_nobody
    tokens, source = _output_tokens(answer, asked, count_text)
    counted = Counted()
    if tokens is not None and answer.chunks:
        stream = _Stream(answer, tokens, count_text)
        counted = (
            stream.by_running_counts()
            or stream.by_chunks()
            or stream.by_tokenizer()
            or stream.by_clock()
            or stream.by_share()
        )
    channels = _channels(answer, tokens, counted.counted_by == "one_a_chunk", count_text)
    prompt_tokens = answer.prompt_tokens
    if prompt_tokens is None and answer.timings is not None:
        # The engine's timings count uncached tokens only.
        prompt_tokens = answer.timings.prompt_tokens + (answer.cached_tokens or 0) or None
    disagreement = counted.count_disagreement
    if answer.output_tokens is not None and answer.timings is not None:
        # The larger of two: how far the two counts differ that a server may give, and how far its
        # count is from what the text can hold.
        larger = max(answer.output_tokens, answer.timings.decode_tokens, 1)
        off = abs(answer.output_tokens - answer.timings.decode_tokens) / larger
        disagreement = max(off, disagreement or 0)
    return replace(
        place,
        chunks=answer.chunks,
        connect_ns=response.connect_ns,
        prompt_tokens=prompt_tokens,
        output_tokens=tokens,
        count_source=source,
        reasoning_tokens=channels[Kind.REASONING],
        content_tokens=channels[Kind.CONTENT],
        tool_call_tokens=channels[Kind.TOOL_CALL],
        **{**vars(counted), "count_disagreement": disagreement},
        **{name: getattr(answer, name) for name in _AS_ANSWERED},
    )


def _ask_nobody(text: str) -> int | None:
    return None


def _output_tokens(
    answer: Answer, asked: int | None, count_text: CountText
) -> tuple[int | None, str | None]:
    """The server's usage or timings, returned token ids, a tokenizer. Chunks alone are never
    counted; as many chunks as were asked for, ended for the length, are three facts that agree.
    A server that reports 0 although it streamed text is not believed."""
    streamed = bool(answer.chunks)
    if answer.output_tokens is not None and (answer.output_tokens or not streamed):
        return answer.output_tokens, "usage"
    if answer.timings is not None and (answer.timings.decode_tokens or not streamed):
        return answer.timings.decode_tokens, "timings"
    if not streamed:
        return None, None
    if returned := answer.running.get("token_ids"):
        return returned[-1][1], "token_ids"
    full = asked if answer.finish_reason == "length" else None
    if full is not None and len(answer.chunks) == full:
        return full, "length"
    counted = count_text(answer.chunks.text) or None
    if counted is None:
        return None, None
    if full is not None and abs(counted - full) <= AS_ASKED * full:
        return full, "length"
    return counted, "tokenizer"


class _Stream:
    """The chunks of an answer of known length, and what can be told of them."""

    def __init__(self, answer: Answer, tokens: int, count_text: CountText) -> None:
        self.answer, self.tokens = answer, tokens
        self.chunks, self.count_text = answer.chunks, count_text
        self.ends, self.gaps_ns = bursts(self.chunks, tokens), gaps_of(self.chunks, tokens)
        self.first = self.chunks[: self.ends[0]]
        self.rest = self.chunks[self.ends[0] :]
        self.last = self.chunks[self.ends[-2] :] if len(self.ends) > 1 else self.chunks
        self.stamps_ns = self.chunks.stamps_ns
        self.window_ns = self.stamps_ns[-1] - self.stamps_ns[0]
        self.hidden_reasoning = 0
        told = answer.reasoning_tokens or 0
        shown = self.chunks.kinds.count(Kind.REASONING)
        in_first = self.first.kinds.count(Kind.REASONING)
        # A server that counts everything as reasoning although an answer followed is not believed.
        if told and not shown and told < tokens:
            self.hidden_reasoning = told
        self.first_tokens = len(self.first)
        if shown and in_first == shown <= told < tokens:
            self.first_tokens += told - shown

    # The ways of counting, best first. None where one cannot tell.

    def by_running_counts(self) -> Counted | None:
        """Counts that came with the chunks of the first and of the last burst."""
        for marks in self.answer.running.values():
            at = dict(marks)
            values = [at[t_ns] for end in self.ends if (t_ns := self.stamps_ns[end - 1]) in at]
            if len(values) < len(self.ends) or not self._run(values):
                continue
            last, hidden = values[-1] - values[-2], max(self.tokens - values[-1], 0)
            found = Counted(values[0], last, hidden, "each_chunk")
            return self._checked(found, values[-1] - values[0])
        return None

    def _run(self, values: Sequence[int]) -> bool:
        """Whether these are running counts: they begin above zero, grow with the bursts, and
        leave every chunk its token."""
        if len(values) < 2 or values[0] < 1 or values[-1] > self.tokens:
            return False
        steps = [after - before for before, after in pairwise(values)]
        growing = sum(step > 0 for step in steps)
        return (
            min(steps) >= 0
            and growing >= 0.8 * len(steps)
            and sum(steps) >= len(self.rest) * (1 - SAME_RATE) - 1
        )

    def _checked(self, found: Counted, decoded: int) -> Counted:
        """Running counts against the text, where the chunks alone do not bear them out."""
        if decoded <= len(self.rest) * (1 + SAME_RATE):
            return found
        told = self.count_text(self.rest.text)
        if told:
            off = max(decoded / told, told / decoded)
            return replace(found, count_disagreement=1 - 1 / off) if off > IMPLAUSIBLE else found
        return found if self._plausible(decoded) else replace(found, counted_by=None)

    def by_chunks(self) -> Counted | None:
        """One token a chunk: as many chunks after the first burst as tokens are left for them."""
        after = self.tokens - self.hidden_reasoning - self.first_tokens
        if not self.rest or (apart := abs(after / len(self.rest) - 1)) > SAME_RATE:
            return None
        found = Counted(self.first_tokens, len(self.last), self.hidden_reasoning, "one_a_chunk")
        return replace(found, count_disagreement=apart or None)

    def by_tokenizer(self) -> Counted | None:
        """The text's tokens: what is counted beyond them was not shown.

        A text was generated as at least as many tokens as it is cut into again, and as chunks.
        """
        total = self.count_text(self.chunks.text) if self.rest else None
        first = self.count_text(self.first.text) if total else None
        if not total or not first or first >= total:
            return None
        after = max(total - first, len(self.rest))
        unshown = self.tokens - self.hidden_reasoning - first - after
        # Only where several tokens came at once may the last burst be more than one.
        single = self.tokens <= BURSTY * len(self.ends)
        last = 1 if single else self.count_text(self.last.text)
        found = Counted(first, last, self.hidden_reasoning, "tokenizer")
        if abs(unshown) <= SAME_RATE * after:
            return replace(found, count_disagreement=abs(unshown) / after or None)
        slack = RETOKENIZED * self.tokens + RETOKENIZED_TOKENS
        if unshown < 0:
            off = None if -unshown <= slack else -unshown / (first + after)
            return replace(self.by_clock() or self._unknown(found), count_disagreement=off)
        hidden = self.hidden_reasoning + unshown
        if agreed := self._agreed((after + unshown, self.hidden_reasoning), (after, hidden)):
            return replace(found, hidden_tokens=agreed[1], counted_by="engine_clock")
        if not self._had_time(hidden, after):
            return replace(found, hidden_tokens=hidden, count_disagreement=unshown / self.tokens)
        double = abs(unshown - first - after) <= slack
        if double or total - first > len(self.rest) or not self._steady(after):
            return self._unknown(found)
        return replace(found, hidden_tokens=hidden)

    def by_clock(self) -> Counted | None:
        """The reading of the stream that agrees with the engine's clock: that nothing is hidden,
        or that every chunk is a token and the rest is."""
        if not self.rest:
            return None
        first = max(self._share(self.first), self.first_tokens)
        open_ = (self.tokens - self.hidden_reasoning - first, self.hidden_reasoning)
        closed = (len(self.rest), self.tokens - self.first_tokens - len(self.rest))
        readings = [closed] if closed[1] >= 0 else []
        if self._plausible(open_[0]):
            readings.append(open_)
        agreed = self._agreed(*readings)
        if agreed is None:
            return None
        return Counted(self.tokens - sum(agreed), self._share(self.last), agreed[1], "engine_clock")

    def by_share(self) -> Counted:
        """The first burst's share of the text; unknown where that moves the rate."""
        hidden = self.hidden_reasoning or None
        first = max(self._share(self.first), self.first_tokens)
        left = self.tokens - self.hidden_reasoning - self.first_tokens
        moved = abs(first - len(self.first)) > SAME_RATE * max(left, 0)
        if moved or len(self.first) == len(self.chunks):
            return Counted(hidden_tokens=hidden)
        last = self._share(self.last)
        return Counted(first, last, hidden, first_chunk_assumed=True)

    # What speaks for a reading.

    def _agreed(self, *readings: tuple[int, int]) -> tuple[int, int] | None:
        """Of (tokens in the window, hidden tokens) the one that agrees with the engine's clock,
        if the others do clearly not."""
        timings = self.answer.timings
        if timings is None or timings.decode_ms <= 0 or not self.window_ns:
            return None
        counted = timings.decode_tokens - timings.counts_first
        expected = counted / timings.decode_ms / 1e6 * self.window_ns
        offs = sorted(
            (abs(decoded / expected - 1), (decoded, hidden))
            for decoded, hidden in readings
            if decoded > 0 and expected > 0
        )
        if not offs or offs[0][0] > CLOCK_CONFIRMS:
            return None
        best = offs[0][1]
        if not clock_ran_over_the_same(self.gaps_ns, best[0], counted):
            return None
        if best[1] > self.hidden_reasoning and not self._steady(best[0]):
            return None
        other = [off for off, (n, _) in offs if abs(n - best[0]) > SAME_RATE / 2 * best[0]]
        return best if all(off > 2 * SAME_RATE for off in other) else None

    def _had_time(self, hidden: int, shown: int) -> bool:
        """Whether there was time for hidden tokens before the first stamp and after the last."""
        ended = max(self.answer.finished_ns or 0, self.stamps_ns[-1])
        outside_ns = self.stamps_ns[0] + ended - self.stamps_ns[-1]
        return hidden * self.window_ns / shown <= outside_ns / 0.9

    def _steady(self, shown: int) -> bool:
        """Whether no gap is long enough for hidden tokens to lie in it, at a token a chunk."""
        token_ns = self.window_ns / shown
        spare = max(SPARE_TOKENS, SAME_RATE * shown)
        gaps_ns = (
            (end - begin, self.stamps_ns[begin] - self.stamps_ns[begin - 1])
            for begin, end in pairwise(self.ends)
        )
        return all(gap_ns <= (tokens + spare) * token_ns for tokens, gap_ns in gaps_ns)

    def _plausible(self, decoded: int) -> bool:
        """Whether the text after the first burst can be as many tokens."""
        if decoded <= len(self.rest) * (1 + SAME_RATE):
            return True
        fewest, most = PLAUSIBLE_BYTES
        return fewest <= len(self.rest.text.encode()) / decoded <= most

    def _unknown(self, found: Counted) -> Counted:
        return replace(found, first_chunk_tokens=None, last_chunk_tokens=None, counted_by=None)

    def _share(self, chunks: Chunks) -> int:
        """Tokens of some chunks by their share of the text."""
        part, whole = len(chunks.text.encode()), len(self.chunks.text.encode())
        return max(round((self.tokens - self.hidden_reasoning) * part / whole), 1)


def _channels(
    answer: Answer, tokens: int | None, one_a_chunk: bool, count_text: CountText
) -> dict[Kind, int | None]:
    """The tokens of each channel; all of them where there is but one.

    Reasoning by the server's count where it can be true: servers that report 0 although they
    streamed reasoning, or everything although an answer followed, are not believed. Else by
    chunks of one token each, else the channel's text is counted. What is left is content.
    """
    told = answer.reasoning_tokens
    streamed = set(map(Kind, set(answer.chunks.kinds)))
    found: dict[Kind, int | None] = dict.fromkeys(Kind, 0)
    if len(streamed) == 1 and not (told and streamed != {Kind.REASONING}):
        return found | {next(iter(streamed)): tokens}
    for kind in (Kind.REASONING, Kind.TOOL_CALL):
        if kind is Kind.REASONING and told and (tokens is None or told < tokens):
            found[kind] = told
        elif kind in streamed and one_a_chunk and not told:
            found[kind] = answer.chunks.kinds.count(kind)
        elif kind in streamed:
            found[kind] = count_text(answer.chunks.text_of(kind))
    others = [found[Kind.REASONING], found[Kind.TOOL_CALL]]
    known = [n for n in others if n is not None]
    unknown = tokens is None or len(known) < len(others)
    if not unknown and streamed == {Kind.TOOL_CALL}:
        return found | {Kind.CONTENT: 0, Kind.TOOL_CALL: max((tokens or 0) - known[0], 0)}
    return found | {Kind.CONTENT: None if unknown else max((tokens or 0) - sum(known), 0)}
