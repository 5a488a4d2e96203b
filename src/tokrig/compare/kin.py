"""What other records say of one: is its decode rate possible, and how far do two of a kind differ?

Decoding reads every weight in use once a token, so memory bandwidth bounds it; and the same model
on the same kind of machine under the same engine is not several times as fast from one record to
the next. Where one of these is not known, nothing is said. A rate beyond them is no proof of a
slip: it is told, and the result is unverified.

What moves all starts of a record together, a warm room or a busy neighbour, is in no interval
of that record. Two records of the same thing show it: nothing between them was changed. Pure.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tokrig.compare import COMPARED
from tokrig.compare.statistics import STARTS_NEEDED, aa_noise, starts_of, usable
from tokrig.compare.variables import configuration
from tokrig.record import checks
from tokrig.record.ceiling import CACHED_BYTES, active_bytes, ceiling, rough_reads, with_stated
from tokrig.record.model import Record, Validity
from tokrig.record.samples import Cell
from tokrig.store.facts import RigFigures
from tokrig.store.index import Problem
from tokrig.store.load import Run

CODE = "implausible"
# (t) A rate this many times that of its nearest kin is told.
KIN = 3.0
# (t) Tables that are only looked up, and a bandwidth from a data sheet: both together.
CEILING_SLACK = 2.0
# (t) Attention over longer prompts than this takes a share of its own.
SHORT_PROMPT_TOKENS = 8192


@dataclass(frozen=True)
class _Rate:
    """One decode rate, and what makes others its kin."""

    run_id: str
    index: int
    rate: float
    model: tuple[str | None, ...]
    shape: str
    is_short: bool
    read_bytes: float | None
    is_invalid: bool


def implausible(
    records: Iterable[Record], facts: Mapping[str, RigFigures]
) -> dict[str, dict[int, str]]:
    """What is told of results, by run and by their place in it. ``facts`` are those of rigs."""
    by_machine: dict[tuple[object, ...], list[_Rate]] = {}
    ceilings: dict[str, float | None] = {}
    for record in records:
        if record.mode.speculative is not None:
            continue  # a step may give many tokens
        ceilings[record.id] = _rough_ceiling(record, facts.get(record.rig.id))
        for machine, one in _rates(record):
            by_machine.setdefault(machine, []).append(one)
    found: dict[str, dict[int, str]] = {}
    for rates in by_machine.values():
        nearest = _nearest_kin(rates)
        for one in rates:
            ceiling, why = ceilings[one.run_id], ""
            if ceiling is not None and one.rate > ceiling * CEILING_SLACK:
                why = f"but the machine's memory bandwidth allows {ceiling:.4g}"
            elif (kin := nearest(one)) is not None and one.rate > KIN * kin:
                times = f"{one.rate / kin:.3g} times as fast as its nearest kin"
                why = f"{times} ({kin:.4g} tok/s)"
            if why:
                found.setdefault(one.run_id, {})[one.index] = f"{one.rate:g} tok/s, {why}"
    return found


def marked(record: Record, told: Mapping[int, str]) -> Record:
    """The record with those results unverified."""
    results = [
        result.model_copy(update={"validity": _doubted(result.validity)})
        if index in told
        else result
        for index, result in enumerate(record.results)
    ]
    return record.model_copy(update={"results": results, "validity": _doubted(record.validity)})


def mark(
    runs: Sequence[Run], facts: Mapping[str, RigFigures]
) -> tuple[tuple[Run, ...], list[Problem]]:
    """The runs with implausible results marked, and what is to be told of them."""
    found = implausible((run.record for run in runs), facts)
    marked_runs, problems = [], []
    for run in runs:
        if told := found.get(run.id):
            lines = texts(run.record, told)
            problems += [Problem(run.path, f"{run.path}: {line}") for line in lines]
            digest = hashlib.sha256(f"{run.digest} {sorted(told)}".encode()).hexdigest()
            run = replace(run, record=marked(run.record, told), digest=digest)
        marked_runs.append(run)
    return tuple(marked_runs), problems


def texts(record: Record, told: Mapping[int, str]) -> Iterator[str]:
    """One line a result."""
    for index, why in told.items():
        result = record.results[index]
        yield f"{result.cell.label}: {why}"


def _doubted(validity: Validity) -> Validity:
    unverified = list(dict.fromkeys([*validity.unverified, CODE]))
    word = checks.verdict(validity.verdict == "invalid", unverified)
    return validity.model_copy(update={"verdict": word, "unverified": unverified})


def _rates(record: Record) -> Iterator[tuple[tuple[object, ...], _Rate]]:
    """The decode rates, each with the kind of machine, engine and settings that it was on."""
    model, backend, resolved = record.model, record.backend, record.backend.resolved
    cards = tuple((gpu.name, gpu.vram_bytes) for gpu in record.rig.gpus)
    machine = (cards or record.rig.cpu.model or record.rig.id, backend.engine, backend.api)
    placed = (record.mode.name, resolved.gpu_layers, resolved.threads)
    for index, result in enumerate(record.results):
        if result.output_tok_per_s is None or not result.plain:
            continue
        measured = result.prompt_tokens.median if result.prompt_tokens else 0
        yield (
            (*machine, *placed, result.concurrency),
            _Rate(
                run_id=record.id,
                index=index,
                rate=result.output_tok_per_s.median,
                model=(model.family.casefold(), (model.variant or "").casefold(), model.quant),
                shape=result.workload.name,
                is_short=(result.workload.prompt_tokens or measured) <= SHORT_PROMPT_TOKENS,
                read_bytes=active_bytes(record.model),
                is_invalid=result.validity.verdict == "invalid",
            ),
        )


def _rough_ceiling(record: Record, facts: RigFigures | None) -> float | None:
    """The highest rate that the memory can carry, of a record that does not tell what a step
    reads: such a one has its own."""
    reads = None if record.reads is not None else rough_reads(record)
    rig = with_stated(record.rig, facts.bandwidth if facts else None)
    found = ceiling(rig, record.backend, record.mode, reads, Cell("", 1), {})
    return None if found is None else found.tok_per_s


def _nearest_kin(rates: Iterable[_Rate]) -> Callable[[_Rate], float | None]:
    """The highest rate of a rate's nearest kin among those of one kind of machine under one engine:
    the same shape elsewhere, other shapes of the same model, else larger models by the bytes they
    read."""
    valid = sorted((one for one in rates if not one.is_invalid), key=lambda one: -one.rate)
    of_shape: dict[tuple[object, ...], list[_Rate]] = {}
    of_model: dict[tuple[object, ...], list[_Rate]] = {}
    for one in valid:
        of_shape.setdefault((one.model, one.shape), []).append(one)
        if one.is_short:
            of_model.setdefault(one.model, []).append(one)

    def nearest(one: _Rate) -> float | None:
        for other in of_shape.get((one.model, one.shape), []):
            if other.run_id != one.run_id:
                return other.rate
        for other in of_model.get(one.model, []):
            if (other.run_id, other.index) != (one.run_id, one.index):
                return other.rate
        own = one.read_bytes
        if own is None or own < CACHED_BYTES:
            return None
        # A small model is never as much faster as it is smaller: larger ones alone are a bound.
        return max(
            (
                other.rate * other.read_bytes / own
                for other in valid
                if other.read_bytes is not None and other.read_bytes >= own
                if other.shape == one.shape and other.model != one.model
            ),
            default=None,
        )

    return nearest


# A/A noise: by how much two records of one configuration differ on one rig


def noise_of(records: Iterable[Record]) -> dict[str, Mapping[str, float]]:
    """By rig, the median difference of consecutive records of one configuration, as a share, of
    every figure that was measured twice with six starts; ``records`` in any order."""
    shares: dict[tuple[str, str], list[float]] = {}
    # By little first: all keys of thousands of records that are alone would take their time.
    for like in _grouped(filter(tells_noise, records), _at_a_glance):
        for group in _grouped(like, configuration) if len(like) > 1 else ():
            group.sort(key=lambda record: record.provenance.started_at or "")
            for metric, values in _series(group):
                pairs = map(aa_noise, itertools.pairwise(values))
                found = [float(share) for share in pairs if share is not None]
                shares.setdefault((group[0].rig.id, metric), []).extend(found)
    noise: dict[str, Mapping[str, float]] = {}
    for (rig, metric), found in shares.items():
        if found:
            noise[rig] = {**noise.get(rig, {}), metric: round(median(found), 4)}
    return noise


def tells_noise(record: Record) -> bool:
    """Whether a record of the same beside it would tell the noise of its rig."""
    starts = record.provenance.server_starts or 0
    is_ours = record.provenance.kind == "measured" and record.backend.managed is True
    return is_ours and starts >= STARTS_NEEDED


def _grouped(
    records: Iterable[Record], key: Callable[[Record], tuple[object, ...]]
) -> Iterable[list[Record]]:
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found.values()


def _at_a_glance(record: Record) -> tuple[object, ...]:
    model, backend = record.model, record.backend
    served = (model.sha256, model.file, model.quant, backend.engine, backend.build, backend.api)
    return (record.rig.id, record.provenance.methodology, record.mode.name, *served)


def _series(group: Sequence[Record]) -> Iterator[tuple[str, list[float]]]:
    """The values of each figure of each shape and concurrency, record after record."""
    found: dict[tuple[object, ...], list[float]] = {}
    for record, result in ((one, result) for one in group for result in one.results):
        if result.validity.word != "valid" or (starts_of(record, result) or 0) < STARTS_NEEDED:
            continue
        shape = result.workload
        cell = (result.cell, shape.content_hash, result.prefill_source)
        for metric in COMPARED:
            figure = getattr(result, metric)
            if figure is not None and usable(figure.median):
                found.setdefault((metric, *cell), []).append(float(figure.median))
    return ((str(metric), values) for (metric, *_), values in found.items())
