"""How fast decoding can be at most: what a step reads, over the bandwidth of what it is read from.

Pure, and from the record's own blocks alone, so that ``check`` makes the same ceiling again. What
is not known for certain is taken so that the ceiling comes out too high rather than too low: a
rate above it is then told for what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokrig.record.conditions import computed_on
from tokrig.record.formulas import DIGITS
from tokrig.record.model import (
    BackendFacts,
    Gpu,
    Memory,
    Mode,
    Model,
    Record,
    Resolved,
    Result,
    Rig,
)
from tokrig.record.reads import Place, Reads
from tokrig.record.samples import Cell
from tokrig.units import MIB, significant

# (t) A rate this many times the ceiling is told: the bandwidth or the rate is in doubt.
ABOVE_CEILING = 1.05
# (t) What a step reads may stay in the caches of a processor: below this many times what these
# hold, and below so many bytes where nobody tells, nothing is said of the memory behind them.
CACHES = 2
CACHED_BYTES = 512 * MIB


class Width(NamedTuple):
    """A bandwidth, and how it is known: ``measured``, from the ``driver``, or ``stated``."""

    bytes_per_s: float
    kind: str


class Ceiling(NamedTuple):
    """The highest decode rate of each request, and the kinds of bandwidth that it rests on."""

    tok_per_s: float
    kind: str


def ceiling(
    rig: Rig,
    backend: BackendFacts,
    mode: Mode,
    reads: Reads | None,
    cell: Cell,
    of: Mapping[str, Any],
) -> Ceiling | None:
    """Tokens a step / Σ (bytes read / bandwidth), over the places that a step reads from; ``of``
    are the figures of the result by name. None where bytes or bandwidth are not known, where what
    is read may lie in caches, of requests that come and go as they like, of experts that several
    tokens of one step may choose, and of speculation whose steps nobody counts."""
    per_step = _tokens_a_step(mode, of)
    if reads is None or per_step is None or cell.is_open:
        return None
    if reads.routed and (cell.concurrency > 1 or per_step > 1):
        return None
    seconds, kinds = 0.0, set()
    for place, size in step_bytes(reads, cell.concurrency, of).items():
        if size < cached_bytes(rig, place):
            continue
        width = bandwidth(rig, backend.resolved, place)
        if width is None:
            return None
        seconds += size / width.bytes_per_s
        kinds.add(width.kind)
    if not seconds:
        return None
    return Ceiling(significant(per_step / seconds, DIGITS), "+".join(sorted(kinds)))


def ceiling_of(record: Record, result: Result) -> Ceiling | None:
    """That of a result in its record."""
    parts = (record.rig, record.backend, record.mode, record.reads)
    return ceiling(*parts, result.cell, dict(result))


def fields(found: Ceiling | None, of: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a result that tell a ceiling, and the share of it that was reached."""
    rate = of.get("output_tok_per_s")
    if found is None or rate is None:
        return {}
    share = significant(rate.median / found.tok_per_s, 4)
    return {
        "ceiling_tok_per_s": found.tok_per_s,
        "ceiling_kind": found.kind,
        "ceiling_share": share,
    }


def matrix_share(
    rig: Rig, backend: BackendFacts, mode: Mode, reads: Reads | None, of: Mapping[str, Any]
) -> dict[str, Any]:
    """The field of a result that holds its prefill against products of matrices; empty where
    either is not known, or where processor and card shared the work.

    The weights alone are counted, not attention, which grows with the prompt.
    """
    rate, where = of.get("prefill_tok_per_s"), computed_on(backend, mode)
    if rate is None or reads is None or not reads.multiplied or len(where) != 1:
        return {}
    parts = [rig.cpu] if where == {"cpu"} else rig.gpus
    if not parts or not (most := parts[0].matrix_flop_per_s):
        return {}
    if where == {"gpu"}:
        most *= _cards(rig, backend.resolved)
    share = 2 * reads.multiplied * rate.median / most
    return {"prefill_matrix_share": significant(share, 4)}


def step_bytes(reads: Reads, concurrency: int, of: Mapping[str, Any]) -> Mapping[Place, float]:
    """Bytes that a step reads, by place: the weights once for all requests that decode, the cache
    of each of them up to the middle of its answer."""
    total: Counter[Place] = Counter(reads.weight_bytes)
    prompt, answer = of.get("prompt_tokens"), of.get("output_tokens")
    depth = (prompt.median if prompt else 0.0) + (answer.median / 2 if answer else 0.0)
    requests = decoding_at_once(concurrency, of)
    found: dict[Place, float] = dict(total)
    for one in reads.cache:
        tokens = depth if one.window_tokens is None else min(depth, one.window_tokens)
        found[one.place] = found.get(one.place, 0.0) + requests * tokens * one.bytes_per_token
    return found


def decoding_at_once(concurrency: int, of: Mapping[str, Any]) -> float:
    """How many of the requests in flight take part in a step on average, at least the one that is
    looked at: the others read their prompts, or wait, for TTFT / (TTFT + decoding) of their
    time."""
    ttft, tpot, answer = (of.get(name) for name in ("ttft_s", "tpot_s", "output_tokens"))
    if concurrency < 2 or ttft is None or tpot is None or answer is None:
        return 1.0
    decoding_s = tpot.median * max(answer.median - 1, 0)
    whole_s = ttft.median + decoding_s
    return max(1.0, concurrency * decoding_s / whole_s) if whole_s > 0 else 1.0


def _tokens_a_step(mode: Mode, of: Mapping[str, Any]) -> float | None:
    """One without speculation; with it what a step yields on average, None where nobody counts."""
    drafts = of.get("speculative")
    if drafts is None:
        return None if mode.speculative else 1.0
    return drafts.acceptance_length if drafts.drafted_tokens else 1.0


def cached_bytes(rig: Rig, place: Place) -> float:
    """Below this a step may read from caches instead of memory."""
    size = rig.cpu.cache_bytes if place == "cpu" else None
    return CACHED_BYTES if size is None else CACHES * size


def bandwidth(rig: Rig, resolved: Resolved, place: Place) -> Width | None:
    """Bytes a second that can be read from a place; None where it is not known.

    Of several kinds of cards the fastest counts, for nobody tells which of them holds what; cards
    that share every layer read at the same time, those that have layers of their own in turn.
    """
    if place == "cpu":
        return _width(rig.memory)
    if not rig.gpus:  # a chip whose graphics no probe knows reads main memory
        width = _width(rig.memory)
        return width if width and width.kind == "stated" else None
    known = [width for gpu in rig.gpus if (width := _width(gpu))]
    if not known or _width(rig.gpus[0]) is None:  # the one with most memory
        return None
    fastest = max(known)
    return Width(fastest.bytes_per_s * _cards(rig, resolved), fastest.kind)


def _width(of: Memory | Gpu) -> Width | None:
    if not of.bandwidth_bytes_per_s:
        return None
    return Width(of.bandwidth_bytes_per_s, of.bandwidth_from or "stated")


def _cards(rig: Rig, resolved: Resolved) -> int:
    """How many cards read at the same time."""
    if resolved.tensor_parallel is not None:
        return max(1, resolved.tensor_parallel)
    if resolved.split_mode == "layer":
        return 1
    listed = {d for name in resolved.device_bytes for d in name.split("+")} - {"CPU"}
    return len(listed) or len(resolved.devices) or max(1, len(rig.gpus))


def with_stated(rig: Rig, bytes_per_s: float | None) -> Rig:
    """The rig with a bandwidth that a person states, where no better one is known: of its graphics
    card where it has one, else of main memory."""
    if not bytes_per_s:
        return rig
    stated = {"bandwidth_bytes_per_s": bytes_per_s, "bandwidth_from": "stated"}
    if not rig.gpus:
        known = rig.memory.bandwidth_bytes_per_s is not None
        memory = rig.memory if known else rig.memory.model_copy(update=stated)
        return rig.model_copy(update={"memory": memory})
    gpus = [
        gpu if gpu.bandwidth_bytes_per_s is not None else gpu.model_copy(update=stated)
        for gpu in rig.gpus
    ]
    return rig.model_copy(update={"gpus": gpus})


def active_bytes(model: Model) -> float | None:
    """Bytes of a model's file, of experts the share that a token uses; None where the record does
    not tell."""
    if not model.bytes or not model.parameters:
        return None
    return model.bytes * min(1.0, (model.active_parameters or model.parameters) / model.parameters)


def rough_reads(record: Record) -> Reads | None:
    """What a step reads where nobody looked into the file: all that a token uses of it, tables of
    which single rows are looked up with it, so this is too much. None where it is not known which
    memory that lies in."""
    size, where = active_bytes(record.model), computed_on(record.backend, record.mode)
    if size is None or (not where and record.rig.gpus):
        return None
    return Reads(weight_bytes={"gpu" if "gpu" in where else "cpu": int(size)})
