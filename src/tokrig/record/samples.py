"""What was observed of one request: the raw material every published figure comes from.

Plain data without I/O. ``store`` keeps it as one Parquet row; ``metrics`` computes from it.
All times are nanoseconds of one monotonic clock of the measuring process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

Phase = Literal["warmup", "measured"]


class Kind(IntEnum):
    """The channel of a chunk."""

    REASONING = 1
    CONTENT = 2
    TOOL_CALL = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """One token-bearing chunk: when it was read (ns after the request was sent), and its text."""

    t_ns: int
    kind: Kind
    text: str


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
