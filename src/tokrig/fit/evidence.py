"""What records say for an estimate: rates beside the ceiling of their machine, the models that are
known, and what an engine took beside weights and cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from tokrig.naming import hardware_name, model_label
from tokrig.quants import UBATCH, cache_cells
from tokrig.record.ceiling import active_bytes, ceiling, rough_reads, with_stated
from tokrig.record.conditions import computed_on, loaded_bytes
from tokrig.record.model import Model, Record, Result

Place = Literal["cpu", "gpu"]
Group = tuple[int, int | None]
"""Bytes of cache that a token adds, and the tokens from which on it adds none."""

ModelKey = tuple[str, str, str]
"""Family, variant and quant, without regard to case."""


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of one record: decode and prefill rate of one request alone, the decode rate that
    its machine allows (``ideal``) and its active parameters, None where not known."""

    record: str
    model: ModelKey
    hardware: str
    place: Place
    tok_per_s: float
    ideal: float | None = None
    prefill_tok_per_s: float | None = None
    active_parameters: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may run. ``read_bytes`` are the weights that a token reads, ``cache`` is None
    where nobody knows it, ``source`` says where its figures are from."""

    name: str
    model: ModelKey
    bytes: int | None
    read_bytes: int | None
    cache: tuple[Group, ...] | None = None
    state_bytes: int = 0
    active_parameters: float | None = None
    context_train: int | None = None
    source: str = ""

    def cache_bytes(self, context: int) -> int | None:
        """Bytes that llama.cpp allots for one sequence of ``context`` tokens."""
        if self.cache is None:
            return None
        grown = (each * cache_cells(context, window=window) for each, window in self.cache)
        return sum(grown) + self.state_bytes

    def step_bytes(self, tokens: int) -> int | None:
        """Bytes that a step reads with ``tokens`` in the context."""
        if self.read_bytes is None:
            return None
        cache = (each * min(tokens, window or tokens) for each, window in self.cache or ())
        return self.read_bytes + sum(cache) + self.state_bytes


def model_key(model: Model) -> ModelKey:
    """What makes two records ones of the same model in the same quant."""
    parts = (model.family, model.variant or "", model.quant or "")
    return (parts[0].casefold(), parts[1].casefold(), parts[2].casefold())


def points(records: Iterable[Record], stated: Mapping[str, float]) -> list[Point]:
    """What of the records can be learnt from; ``stated`` are bandwidths (bytes/s) that people wrote
    down, by rig.

    One point a record: medians over its cold results of one request. Left out are records without
    such a result, INVALID ones, speculation (a step gives several tokens), models that lie in two
    memories, and imported figures, which other clients took.
    """
    found = []
    for record in records:
        where = computed_on(record.backend, record.mode)
        if len(where) != 1 or record.mode.speculative or record.provenance.kind == "imported":
            continue
        good = [r for r in record.results if _counts(r)]
        rates = [(r, r.output_tok_per_s.median) for r in good if r.output_tok_per_s]
        rates = [(r, rate) for r, rate in rates if rate > 0 and math.isfinite(rate)]
        if not rates:
            continue
        shares = _shares(record, [r for r, _ in rates], stated.get(record.rig.id))
        rate = median(rate for _, rate in rates)
        prefills = [r.prefill_tok_per_s.median for r in good if r.prefill_tok_per_s]
        found.append(
            Point(
                record=record.id,
                model=model_key(record.model),
                hardware=hardware_name(record.rig),
                place="gpu" if "gpu" in where else "cpu",
                tok_per_s=rate,
                ideal=rate / median(shares) if shares else None,
                prefill_tok_per_s=max((p for p in prefills if p > 0), default=None),
                active_parameters=record.model.active_parameters or record.model.parameters,
            )
        )
    return found


def _counts(result: Result) -> bool:
    cell = result.cell
    plain = cell.plain and cell.concurrency == 1 and not cell.depth_tokens
    return plain and result.validity.verdict != "invalid"


def _shares(record: Record, results: Iterable[Result], stated: float | None) -> list[float]:
    """The share of the ceiling of each result that has one."""
    rig, reads = with_stated(record.rig, stated), record.reads or rough_reads(record)
    found = []
    for result in results:
        of = dict(result)
        top = ceiling(rig, record.backend, record.mode, reads, result.cell, of)
        if top is not None and top.tok_per_s > 0:
            found.append(of["output_tok_per_s"].median / top.tok_per_s)
    return found


def candidates(records: Iterable[Record]) -> list[Candidate]:
    """The models that the records know, each once: as the record tells it that knows most of it,
    the newest first."""
    best: dict[ModelKey, Candidate] = {}
    for record in records:
        model, key, reads = record.model, model_key(record.model), record.reads
        size = active_bytes(model)
        read = sum(reads.weight_bytes.values()) if reads else None
        cache = None
        if reads and reads.cache and model.architecture not in _SPARSE:
            cache = _merged((one.bytes_per_token, one.window_tokens) for one in reads.cache)
        new = Candidate(
            name=model_label(model),
            model=key,
            bytes=model.bytes,
            read_bytes=read if read is not None or size is None else int(size),
            cache=cache,
            active_parameters=model.active_parameters or model.parameters,
            context_train=model.context_train,
            source=record.id,
        )
        old = best.get(key)
        if old is None or _knows(new) > _knows(old):
            best[key] = new
    return list(best.values())


# These read less of their cache than they keep, and a record tells what is read.
_SPARSE = ("deepseek32", "glm-dsa")


def _knows(one: Candidate) -> int:
    return 2 * (one.cache is not None) + (one.bytes is not None)


def _merged(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Parts that lie in two memories are one here."""
    found: dict[int | None, int] = {}
    for each, window in groups:
        found[window] = found.get(window, 0) + each
    return tuple((each, window) for window, each in found.items())


def overheads(records: Iterable[Record]) -> dict[Place, list[int]]:
    """What engines took beside weights and cache, by where they computed: what they list on their
    devices, else what their processes held, less both. Records whose cache is not known, or whose
    model lies in two memories, say nothing."""
    found: dict[Place, list[int]] = {"cpu": [], "gpu": []}
    for record in records:
        where = computed_on(record.backend, record.mode)
        taken, kept = _taken(record, where), _kept(record)
        if taken is not None and kept is not None and taken > kept:
            found["gpu" if "gpu" in where else "cpu"].append(taken - kept)
    return found


def _taken(record: Record, where: frozenset[str]) -> int | None:
    memory, listed = record.load_memory, record.backend.resolved.device_bytes
    if len(where) != 1:
        return None
    if "gpu" in where:
        held = memory.engine_vram_bytes if memory else None
        return held or sum(n for name, n in listed.items() if not name.startswith("CPU")) or None
    return memory.engine_rss_bytes if memory else None


def _kept(record: Record) -> int | None:
    """Bytes of weights and cache."""
    reads, resolved = record.reads, record.backend.resolved
    if record.model.bytes is None or reads is None or not reads.cache:
        return None
    slots = resolved.slots or 1
    context = resolved.context_per_slot or (resolved.context_total or 0) // slots
    if not context or record.model.architecture in _SPARSE:
        return None
    unified, ubatch = bool(resolved.kv_unified), resolved.ubatch or UBATCH
    cells = {
        one.window_tokens: cache_cells(
            context, slots, one.window_tokens, unified=unified, ubatch=ubatch
        )
        for one in reads.cache
    }
    cache = sum(one.bytes_per_token * cells[one.window_tokens] for one in reads.cache)
    looked_up = (record.load_memory.looked_up_bytes or 0) if record.load_memory else 0
    on_gpu = "gpu" in computed_on(record.backend, record.mode)
    return loaded_bytes(record.model, resolved) + cache - (looked_up if on_gpu else 0)


def at_most(points_: Iterable[Point], number: int) -> list[Point]:
    """Points alike (model, hardware, place) as one: the medians of the latest ``number``."""
    groups: dict[tuple[ModelKey, str, Place], list[Point]] = {}
    for point in points_:
        groups.setdefault((point.model, point.hardware, point.place), []).append(point)
    return [_one(group[:number]) for group in groups.values()]


def _one(group: list[Point]) -> Point:
    shares = [p.tok_per_s / p.ideal for p in group if p.ideal]
    rate = median(p.tok_per_s for p in group)
    prefills = [p.prefill_tok_per_s for p in group if p.prefill_tok_per_s]
    return replace(
        group[0],
        tok_per_s=rate,
        ideal=rate / median(shares) if shares else None,
        prefill_tok_per_s=median(prefills) if prefills else None,
    )
