"""What was observed of one request: the raw material every published figure comes from.

Plain data without I/O; all times are nanoseconds of one monotonic clock of the measuring process.
What the stamps show is told here too: a *burst* is what came at once, by one read of several events
or one write that took several reads. A stream of few bursts, or one whose last burst waited for its
delivery, tells less about the engine than about what stood between.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import numpy as np

    Ns = np.ndarray[tuple[int], np.dtype[np.int64]]

Phase = Literal["warmup", "measured"]
Load = Literal["closed", "sustained", "session", "constant", "poisson", "gamma", "ramp", "trace"]
"""How requests follow each other: each worker's next one after its last (*closed*); so for long
(*sustained*); as turns of one conversation (*session*); else when they arrive, whatever is in
flight: at a *constant* rate, by *poisson* or *gamma* intervals, at a rate that grows (*ramp*), or
as a *trace* says."""
# Chunks nearer to each other than this share of a token's mean time, and than this time, came at
# once.
AT_ONCE_SHARE, AT_ONCE_NS = 0.1, 1_000_000
# A stream with fewer bursts than this between the first and the last, or a gap longer than this
# share of the decode window, hides its pace.
FEWEST_STAMPS = 16
LONGEST_GAP_SHARE = 0.10
# After a gap in which text was held back, at least this share of what was due comes at once.
HELD_BACK = 0.3
# Bursts of more tokens than this on average are deliveries, not tokens.
BURSTY = 1.1
# Where this share of the steps of speculative decoding is seen as bursts, bursts are steps:
# nine tenths of which take at most so much longer than a tenth of them.
STEPS_SHOWN, STEPS_ALIKE = 0.8, 1.5
# The rate is not told where counts, the first burst and the last leave more of it open than this.
RATE_UNCERTAINTY = 0.01
# Nine tenths of the gaps this near to whole multiples of the usual one may be those of a timer.
ON_TIMER = 0.02
# An engine's clock confirms a rate from which its own differs no more. It runs from the first token
# to the last: what the tokens that a window lacks leave open may be the rest.
CLOCK_CONFIRMS = 0.005
OTHER_TOKENS = RATE_UNCERTAINTY - CLOCK_CONFIRMS
# The most streams at once are those beside at least so many of the chunks: a single chunk may be
# read together with the last one of another stream.
PEAK_SHARE = 0.02
LIMITS: Mapping[str, float] = {
    "at_once_share": AT_ONCE_SHARE,
    "at_once_ns": AT_ONCE_NS,
    "fewest_stamps": FEWEST_STAMPS,
    "longest_gap_share": LONGEST_GAP_SHARE,
    "held_back": HELD_BACK,
    "bursty": BURSTY,
    "steps_shown": STEPS_SHOWN,
    "steps_alike": STEPS_ALIKE,
    "rate_uncertainty": RATE_UNCERTAINTY,
    "on_timer": ON_TIMER,
    "clock_confirms": CLOCK_CONFIRMS,
    "other_tokens": OTHER_TOKENS,
}
"""All that the rate of one request depends on, for scripts that compute it, too."""


class Kind(IntEnum):
    """The channel of a chunk."""

    REASONING = 1
    CONTENT = 2
    TOOL_CALL = 3


@dataclass(frozen=True)
class Cell:
    """What one result is of: a workload after ``depth_tokens`` of context, under a load.

    ``concurrency`` is how many requests are in flight; where they arrive by themselves
    (``rate_per_s`` a second, None for a trace) it is how many slots the server was given.
    """

    workload: str
    concurrency: int
    depth_tokens: int = 0
    load: Load = "closed"
    rate_per_s: float | None = None

    @property
    def plain(self) -> bool:
        """Whether it is a shape of its own length under the closed loop: only such results are
        headlines, ranges and ranks."""
        return self.load == "closed" and not self.depth_tokens

    @property
    def is_open(self) -> bool:
        """Whether requests arrive whatever is in flight."""
        return self.load not in ("closed", "sustained", "session")

    @property
    def shape(self) -> str:
        """The workload with what sets it apart: ``chat``, ``chat at depth 16k``."""
        depth = f" at depth {tokens(self.depth_tokens)}" if self.depth_tokens else ""
        rate = "" if self.rate_per_s is None else f" {self.rate_per_s:g}/s"
        load = f", {self.load}{rate}" if self.load not in ("closed", self.workload) else ""
        return f"{self.workload}{depth}{load}"

    @property
    def label(self) -> str:
        """``agent × 4``; ``chat, poisson 2/s``, which has no concurrency of its own."""
        return self.shape if self.is_open else f"{self.shape} × {self.concurrency}"


def tokens(count: int) -> str:
    """A length as people say it: ``16k``, ``1500``."""
    return f"{count // 1024}k" if count and count % 1024 == 0 else str(count)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One token-bearing chunk: when it was read (ns after the request was sent), and its text."""

    t_ns: int
    kind: Kind
    text: str


KINDS: Mapping[int, Kind] = {int(kind): kind for kind in Kind}
_LETTER = re.compile(r"\S")


class Chunks(Sequence[Chunk]):
    """The chunks of one answer, side by side: 13 bytes for each beside its text, not 200.

    Never altered once made. ``stamps_ns`` has one ``t_ns`` a chunk, ``kinds`` one byte, ``text``
    all texts joined, ``ends`` where in it each of them ends.
    """

    __slots__ = ("ends", "kinds", "stamps_ns", "text")

    def __init__(self, stamps_ns: array[int], kinds: bytes, text: str, ends: array[int]) -> None:
        self.stamps_ns, self.kinds, self.text, self.ends = stamps_ns, kinds, text, ends

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Chunks:
        """The same chunks in this form."""
        if isinstance(chunks, Chunks):
            return chunks
        chunks = list(chunks)
        return cls.joined(
            array("q", [c.t_ns for c in chunks]),
            bytes(c.kind for c in chunks),
            [c.text for c in chunks],
        )

    @classmethod
    def joined(cls, stamps_ns: array[int], kinds: bytes, texts: Sequence[str]) -> Chunks:
        """Of a text for each chunk."""
        return cls(stamps_ns, kinds, "".join(texts), array("I", accumulate(map(len, texts))))

    def times_ns(self) -> Ns:
        """The stamps for computing with, not to be altered."""
        import numpy as np

        return np.frombuffer(self.stamps_ns, np.int64) if self else np.empty(0, np.int64)

    def text_of(self, kind: Kind) -> str:
        """The joined text of one channel."""
        if self.kinds.count(kind) == len(self.kinds):
            return self.text
        return "".join(chunk.text for chunk in self if chunk.kind is kind)

    def texts(self) -> list[str]:
        """The text of each chunk."""
        text = self.text
        return [text[begin:end] for begin, end in pairwise((0, *self.ends))]

    def without_text(self) -> Chunks:
        """With an ``x`` for every character that is no white space."""
        return Chunks(self.stamps_ns, self.kinds, _LETTER.sub("x", self.text), self.ends)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __iter__(self) -> Iterator[Chunk]:
        begin, text = 0, self.text
        for t_ns, kind, end in zip(self.stamps_ns, self.kinds, self.ends, strict=True):
            yield Chunk(t_ns, KINDS[kind], text[begin:end])
            begin = end

    @overload
    def __getitem__(self, at: int) -> Chunk: ...
    @overload
    def __getitem__(self, at: slice) -> Chunks: ...
    def __getitem__(self, at: int | slice) -> Chunk | Chunks:
        if isinstance(at, int):
            place = range(len(self))[at]
            begin = self.ends[place - 1] if place else 0
            text = self.text[begin : self.ends[place]]
            return Chunk(self.stamps_ns[place], KINDS[self.kinds[place]], text)
        first, last, step = at.indices(len(self))
        if step != 1 or last <= first:
            return Chunks.of([self[place] for place in range(first, last, step)])
        begin = self.ends[first - 1] if first else 0
        ends = self.ends[first:last]
        if begin:
            ends = array("I", [end - begin for end in ends])
        text = self.text[begin : begin + ends[-1]]
        return Chunks(self.stamps_ns[first:last], self.kinds[first:last], text, ends)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Chunks):
            return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(map(Chunk.__eq__, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.kinds, self.text, len(self)))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """The engine's own clock for one request. ``decode_tokens`` counts the first token too
    where ``counts_first`` is true (llama.cpp), though the clock starts at it."""

    prompt_tokens: int
    prompt_ms: float
    decode_tokens: int
    decode_ms: float
    counts_first: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    ``sent_ns`` counts from the start of its phase. Token counts are ``None`` where neither the
    server nor a tokenizer could tell. ``error`` is a code; the rest then holds what arrived.

    ``first_chunk_tokens`` and ``last_chunk_tokens`` came with the first and the last burst of
    chunks; ``hidden_tokens`` are counted in ``output_tokens``, but generated before the first
    stamp or after the last, and carried by no chunk. ``counted_by`` says who confirms all three:
    ``each_chunk`` (running counts), ``one_a_chunk`` (as many chunks as tokens), ``tokenizer``,
    ``engine_clock``; ``None`` where nobody does. Samples of methodology 1 have none of them.

    ``due_ns`` is when a request that arrives by itself should have been sent, from the start of
    the first one's phase; ``connect_ns`` how long connecting took before it was, the TLS
    handshake included; ``None`` where it never was.

    ``…_tokens_asked`` are the lengths of a request that has its own, as those of a trace have.

    ``chunks`` may be given as any sequence and are kept as ``Chunks``. ``text_kept`` is false where
    their texts were not kept.
    """

    workload: str
    concurrency: int
    repeat: int
    iteration: int
    worker: int
    phase: Phase
    variant: int
    salt: str
    sent_ns: int
    chunks: Sequence[Chunk] = field(default_factory=tuple)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    content_tokens: int | None = None
    first_chunk_tokens: int | None = None
    first_chunk_assumed: bool = False
    count_source: str | None = None
    count_disagreement: float | None = None
    finish_reason: str | None = None
    timings: EngineTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    error: str | None = None
    error_detail: str | None = None
    tool_call_tokens: int | None = None
    hidden_tokens: int | None = None
    last_chunk_tokens: int | None = None
    counted_by: str | None = None
    depth_tokens: int = 0
    load: Load = "closed"
    rate_per_s: float | None = None
    due_ns: int | None = None
    connect_ns: int | None = None
    prompt_tokens_asked: int | None = None
    output_tokens_asked: int | None = None
    text_kept: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", Chunks.of(self.chunks))

    @property
    def stream(self) -> Chunks:
        """The chunks in their own form."""
        assert isinstance(self.chunks, Chunks)
        return self.chunks

    @property
    def cell(self) -> Cell:
        """What result it belongs to."""
        return Cell(self.workload, self.concurrency, self.depth_tokens, self.load, self.rate_per_s)


# What the stamps show


def bursts(chunks: Chunks, tokens: int | None) -> list[int]:
    """Where each burst ends: the indexes one past its last chunk."""
    return [*map(int, _later_bursts(chunks, tokens)), len(chunks)] if chunks else []


def _later_bursts(chunks: Chunks, tokens: int | None) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Where each burst but the first begins."""
    import numpy as np

    steps = max((tokens or len(chunks)) - 1, 1)
    mean_ns = (chunks.stamps_ns[-1] - chunks.stamps_ns[0]) / steps
    at_once_ns = min(AT_ONCE_SHARE * mean_ns, AT_ONCE_NS)
    return np.flatnonzero(np.diff(chunks.times_ns()) > at_once_ns) + 1


def gaps_ns(sample: Sample) -> Ns:
    """Times between successive bursts; none where nothing came."""
    return gaps_of(sample.stream, sample.output_tokens)


def gaps_of(chunks: Chunks, tokens: int | None) -> Ns:
    """The same of the chunks of an answer of so many tokens."""
    import numpy as np

    times = chunks.times_ns()
    return np.diff(times[[0, *_later_bursts(chunks, tokens)]]) if chunks else times


def decoded_tokens(sample: Sample) -> int | None:
    """Tokens generated between the first stamp and the last: all of N but those of the first
    burst and those that no chunk carried."""
    if sample.output_tokens is None or sample.first_chunk_tokens is None:
        return None
    return sample.output_tokens - sample.first_chunk_tokens - (sample.hidden_tokens or 0)


def has_few_bursts(sample: Sample) -> bool:
    """Whether the stamps between the first and the last are too few to show a pace."""
    return 0 < len(gaps_ns(sample)) <= FEWEST_STAMPS


def has_long_gap(sample: Sample) -> bool:
    """Whether one gap is much of the stream.

    Between the tokens of one of several requests an engine works on the others: there a gap is
    its own pace, unless the text that follows it at once was held back meanwhile.
    """
    gaps, chunks = gaps_ns(sample), sample.stream
    window, text = int(gaps.sum()), len(chunks.text)
    long = (gaps > LONGEST_GAP_SHARE * window).nonzero()[0]
    if len(long):
        ends = bursts(chunks, sample.output_tokens)
        for gap, begin, end in ((int(gaps[i]), ends[i], ends[i + 1]) for i in long):
            came = (chunks.ends[end - 1] - chunks.ends[begin - 1]) / text
            alone = sample.concurrency == 1 and sample.due_ns is None
            if alone or came > HELD_BACK * gap / window:
                return True
    return False


def is_coarse(sample: Sample) -> bool:
    """Whether the chunks hide the pace of the tokens."""
    return has_few_bursts(sample) or has_long_gap(sample)


def rate_uncertainty(sample: Sample) -> float:
    """The share of the decode rate that is open: by the count and by deliveries, together.

    Every stamp may be as late as gaps differ from each other. Where several tokens come at once
    they may have waited for it: those of the first burst as long as from one delivery to the next,
    those of the last as long as it took beyond what its tokens need. Where each burst is a step of
    speculative decoding nothing waited. Where gaps look like a timer's, single tokens and steps may
    have waited for its next tick.
    """
    decoded, gaps = decoded_tokens(sample), gaps_ns(sample)
    if not decoded or decoded < 1 or not len(gaps):
        return 0.0
    counted = sample.count_disagreement or 0.0
    if counted > RATE_UNCERTAINTY:
        counted = 0.0  # that is no rounding but another count, and judged as such
    window, last = int(gaps.sum()), sample.last_chunk_tokens or 1
    last_gap, (short, usual, long) = int(gaps[-1]), _deciles(gaps)
    if decoded <= BURSTY * len(gaps):
        tick = usual if _on_timer(gaps, decoded) else 0
        return counted + max(long - short, tick) / window
    steps = _steps(sample, decoded)
    if 0 < steps * STEPS_SHOWN <= len(gaps) and long <= STEPS_ALIKE * short:
        return counted + (usual / window if _on_timer(gaps, steps) else 0.0)
    token = (window - last_gap) / max(decoded - last, 1)
    return counted + max(window / len(gaps), last_gap - last * token, long - short) / window


def _deciles(gaps: Ns) -> tuple[int, int, int]:
    """The first, the fifth and the ninth."""
    in_order: list[int] = sorted(gaps.tolist())
    return in_order[len(gaps) // 10], in_order[len(gaps) // 2], in_order[len(gaps) * 9 // 10]


def clock_ran_over_the_same(gaps: Ns, decoded: float, timed: float) -> bool:
    """Whether the rate of ``timed`` tokens by a clock is that of the ``decoded`` ones of a window,
    but for ``OTHER_TOKENS``.

    The mean time of the others may differ from that of these by chance, as single ones differ (from
    the first to the ninth decile); as the usual one of the later half does from that of the
    earlier; and as the mean does from the usual one, by a stall. Where tokens came in bursts, which
    hide all this, it may differ by as much as it is.
    """
    others, unlike = timed - decoded, 1.0
    if others > 0 and 1 < decoded <= BURSTY * len(gaps):
        (short, usual, long), half = _deciles(gaps), len(gaps) // 2
        by_chance = (long - short) / usual * (1 / others + 1 / decoded) ** 0.5
        drift = abs(_deciles(gaps[-half:])[1] / _deciles(gaps[:half])[1] - 1)
        stalls = abs(int(gaps.sum()) / decoded / usual - 1)
        unlike = min(by_chance + drift + stalls, 1.0)
    return others * unlike <= OTHER_TOKENS * timed


def _on_timer(gaps: Ns, expected: int) -> bool:
    """Whether gaps are whole multiples of the usual one, and a tick came without what was
    ``expected`` (tokens, steps), or one with two of them."""
    import numpy as np

    ticks = gaps / np.median(gaps)
    whole = np.maximum(np.rint(ticks), 1)
    beats = expected > len(gaps) or bool((whole == 2).any())
    return beats and bool(np.quantile(np.abs(ticks - whole), 0.9) <= ON_TIMER)


def _steps(sample: Sample, decoded: int) -> int:
    """Steps of speculative decoding in the window: each yields what was accepted and one token
    more. 0 where nobody tells."""
    if sample.accepted_tokens is None or sample.output_tokens is None:
        return 0
    after_first = sample.output_tokens - 1
    return round((after_first - sample.accepted_tokens) * decoded / after_first)


def concurrency_mean(samples: Iterable[Sample]) -> float | None:
    """Mean number of requests being served beside each chunk, its own included, over the repeats'
    phases; at most as many as ever streamed at once. None for one request at a time, for requests
    that arrive by themselves, and where nothing was streamed.

    Waiting shows only before the first token, where prefill and the way to the server show too:
    so a request counts as served from its first token on, and before it for as long as the engine
    says that it read the prompt, at least as long as the quickest first token of its phase took.
    What streamed at once at most is a limit to that: on a long way to a server the requests that
    wait and those that travel look alike. The mean is over chunks, not over time: while an engine
    reads prompts one after the other, streams that have begun stand almost still, and that is no
    lack of slots. Only the time counts in which all workers have work.
    """
    import numpy as np

    repeats: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.chunks and sample.concurrency > 1 and sample.due_ns is None:
            repeats.setdefault(sample.repeat, []).append(sample)
    if not repeats:
        return None
    groups = list(repeats.values())
    mean = np.concatenate([_beside(group, before=True) for group in groups]).mean()
    # A stream of fewer stamps does not show when it ran.
    if min(len(set(s.stream.stamps_ns)) for group in groups for s in group) >= FEWEST_STAMPS:
        streaming = np.concatenate([_beside(group, before=False) for group in groups])
        mean = min(mean, np.quantile(streaming, 1 - PEAK_SHARE))
    return round(float(mean), 4)


def _beside(group: Sequence[Sample], *, before: bool) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """For each chunk of a phase the number of requests that were being served, ``before`` their
    first token too."""
    import numpy as np

    quickest_ns = min(s.chunks[0].t_ns for s in group) if before else 0
    begins = np.sort(
        [
            s.sent_ns + s.chunks[0].t_ns - (_before_ns(s, quickest_ns) if before else 0)
            for s in group
        ]
    )
    ends = np.sort([s.sent_ns + s.chunks[-1].t_ns for s in group])
    # From here on a worker that ends finds no further request.
    busy_until = ends[max(len(group) - group[0].concurrency, 0)]
    if group[0].load == "session":
        last = {s.worker: s.sent_ns + s.chunks[-1].t_ns for s in sorted(group, key=_sent_ns)}
        busy_until = min(last.values())
    stamps = np.concatenate([s.sent_ns + s.stream.times_ns() for s in group])
    stamps = stamps[stamps <= busy_until]
    begun, ended = np.searchsorted(begins, stamps, "right"), np.searchsorted(ends, stamps, "left")
    return np.asarray(begun - ended, dtype=np.intp)


def _sent_ns(sample: Sample) -> int:
    return sample.sent_ns


def _before_ns(sample: Sample, quickest_ns: int) -> int:
    """How long before its first token a request was being served."""
    prompt_ns = sample.timings.prompt_ms * 1e6 if sample.timings else 0
    return min(max(round(prompt_ns), quickest_ns), sample.chunks[0].t_ns)
