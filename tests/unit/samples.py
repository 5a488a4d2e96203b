"""Samples made by hand for the tests of figures and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tokrig.record.samples import Chunk, EngineTimings, Kind, Sample


def sample(
    *,
    ttft_s: float = 0.5,
    gap_s: float = 0.01,
    tokens: int = 21,
    kinds: Sequence[Kind] | None = None,
    **changes: Any,
) -> Sample:
    """A request whose ``tokens`` chunks come ``gap_s`` apart, and an engine that agrees."""
    channel = kinds or [Kind.CONTENT] * tokens
    chunks = tuple(
        Chunk(round((ttft_s + i * gap_s) * 1e9), kind, "x") for i, kind in enumerate(channel)
    )
    made = Sample(
        workload="chat",
        concurrency=1,
        repeat=0,
        iteration=0,
        worker=0,
        phase="measured",
        variant=0,
        salt="[Request 00000001]",
        sent_ns=0,
        chunks=chunks,
        prompt_tokens=64,
        output_tokens=tokens,
        cached_tokens=0,
        reasoning_tokens=sum(k is Kind.REASONING for k in channel),
        content_tokens=sum(k is Kind.CONTENT for k in channel),
        first_chunk_tokens=1,
        count_source="usage",
        count_disagreement=0.0,
        tool_call_tokens=sum(k is Kind.TOOL_CALL for k in channel),
        hidden_tokens=0,
        last_chunk_tokens=1,
        counted_by="one_a_chunk",
        finish_reason="length",
        timings=EngineTimings(64, 250.0, tokens, (tokens - 1) * gap_s * 1e3, True),
    )
    return replace(made, **changes)
