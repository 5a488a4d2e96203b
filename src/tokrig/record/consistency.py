"""Does a record hold? What is published against what follows: from the samples, and from the
record's own fields. Pure.

What a run measured is tied together many times over: a decode rate is one over its TPOT, answers
take at least their first token's time, shares end at one. A figure edited by hand, a block pasted
from another run or a damaged file breaks such a tie. What the ties allow is no proof: samples are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from math import inf, nan
from typing import Any

from pydantic import BaseModel

from tokrig.record import METHODOLOGY_VERSION, checks
from tokrig.record.imported import MARKS, given_codes, judge_imported, judge_imported_raw
from tokrig.record.ladder import KNEE_KNOWN, knee_of, ladder_of
from tokrig.record.metrics import METRICS, figures
from tokrig.record.model import Interference, LoadMemory, PeakMemory, Record, Result, Validity
from tokrig.record.quality import FAULTS, NOT_COMPARED
from tokrig.record.rate_limits import rate_limits
from tokrig.record.samples import Sample
from tokrig.record.sustained import sustained
from tokrig.record.ties import MEASURED_RULES, RESULT_RULES, Broken, Cell, known, wall_s

Place = tuple[str | int, ...]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"https?://[^\s/]+\S*|(?!/)[\w.-]+(?:/[\w.-]+)*")
# File headers, tokenizers and padding are no weights: tens of megabytes, or a share.
BESIDE_WEIGHTS_BYTES, BESIDE_WEIGHTS_SHARE = 128 * 1024**2, 0.1
CLOCK_SLACK_S = 2.0
_OF_MEASURED = RESULT_RULES | MEASURED_RULES


@dataclass(frozen=True)
class Contradiction:
    """What does not go together, and where: ``place`` leads to the key in the record's YAML."""

    place: Place
    rule: str
    text: str

    def __str__(self) -> str:
        return self.text


def _of_result(record: Record, number: int, path: str, rule: str, text: str) -> Contradiction:
    """About a field of a result, by its dotted path."""
    return Contradiction(
        ("results", number, *place_of(path)), rule, f"{record.results[number].cell.label}: {text}"
    )


def broken_ties(record: Record) -> list[Contradiction]:
    """All that the record's own fields contradict; empty for an honest one."""
    found = [
        Contradiction(place_of(path), rule, f"{path}: {why}")
        for rule, broken in RECORD_RULES.items()
        for path, why in broken(record)
    ]
    for number, result in enumerate(record.results):
        cell = Cell(record, result)
        found += [
            _of_result(record, number, path, rule, f"{path}: {why}")
            for rule, broken_by in (_OF_MEASURED if cell.measured else RESULT_RULES).items()
            for path, why in broken_by(cell)
        ]
    return found


def place_of(path: str) -> Place:
    """The way to a field from its dotted path: ``rig.gpus.0.name``, ``icl_s.p50``."""
    parts = path.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


# From the samples

# Figures are published with six significant digits.
RELATIVE = 1e-5
_LISTS = ("reasons", "unverified", "unchecked")


def differences(record: Record, samples: Sequence[Sample]) -> list[Contradiction]:
    """All published figures that the samples contradict; empty when everything follows."""
    found = []
    for number, result in enumerate(record.results):
        again = figures(
            _samples_of(result, samples),
            result.counters,
            methodology=record.provenance.methodology or 1,
            starts=None if record.backend.managed else 1,
            arrivals=result.arrivals,
        )
        if (told := result.sustained) is not None:
            mine = _samples_of(result, samples)
            again["sustained"] = sustained(mine, told.seconds, told.seen)
        for name, recomputed in again.items():
            published = getattr(result, name)
            if METRICS[name].later and published is None:
                continue
            if METRICS[name].later and getattr(published, "starts", None) == []:
                # Told one by one since later still.
                recomputed = recomputed and recomputed.model_copy(update={"starts": []})
            for path, *values in _unequal(name, published, recomputed):
                old, new = ("missing" if value is None else value for value in values)
                text = f"{path} is {old}, the samples give {new}"
                found.append(_of_result(record, number, path, "samples", text))
    return found


def contradictions(record: Record, samples: Sequence[Sample]) -> list[Contradiction]:
    """Everything published that does not follow: figures, verdicts, results left out."""
    found = differences(record, samples)
    cells = {result.cell for result in record.results}
    for cell in dict.fromkeys(s.cell for s in samples):
        if cell not in cells:
            text = f"{cell.label}: there are samples, but no result"
            found.append(Contradiction(("results",), "samples", text))
    for number, result in enumerate(record.results):
        again = _judged_again(record, result, samples)
        if again is not None:
            found += _verdicts_differ(record, number, again, "the samples give")
    found += _ladders_differ(record, samples)
    return _each_place_once(found + own_contradictions(record))


def _ladders_differ(record: Record, samples: Sequence[Sample]) -> Iterator[Contradiction]:
    """Ladders whose steps, end or knee do not follow from their results and samples."""
    for number, told in enumerate(record.ladders):
        again = ladder_of(
            [r for r in record.results if told.has(r.cell)],
            [s for s in samples if told.has(s.cell)],
            record.skipped,
            most=told.most,
            slots=record.backend.resolved.slots,
        )
        where = f"ladders.{number}"
        for path, old, new in _unequal(where, told, again):
            text = f"{told.workload}: {path} is {old}, the results give {new}"
            yield Contradiction(place_of(path), "ladder", text)


def own_contradictions(record: Record) -> list[Contradiction]:
    """What can be told without samples: cheap enough for every record of a page."""
    found = broken_ties(record)
    if record.provenance.kind != "measured":
        # Nobody saw the requests behind it, so it is never valid.
        expected = "unchecked" if (record.provenance.methodology or 1) < 2 else "unverified"
        text = f"there are no samples, and validity.{expected} does not say so"
        found += [
            _of_result(record, number, "validity", "samples", text)
            for number, result in enumerate(record.results)
            if "samples" not in getattr(result.validity, expected)
        ]
    if record.provenance.kind == "imported" and (record.provenance.methodology or 1) >= 2:
        for number, result in enumerate(record.results):
            again = judge_imported(result, given_codes(result.validity))
            found += _verdicts_differ(record, number, again, "the figures give")
    return _each_place_once(found + _overall(record))


def _each_place_once(found: Iterable[Contradiction]) -> list[Contradiction]:
    """Of what is found about one field the first: the samples know best."""
    return list({one.place: one for one in reversed(list(found))}.values())[::-1]


def _overall(record: Record) -> list[Contradiction]:
    version, complete = record.provenance.methodology or 1, record.status == "complete"
    if not record.raw or record.results:
        again = checks.judge_run(
            record.results, complete=complete, methodology=version, ladders=record.ladders
        )
        return _verdicts_differ(record, None, again, "the results give")
    told = record.validity
    if record.provenance.kind == "imported":
        codes = given_codes(told)
        again = judge_imported_raw(record.raw, record.backend, codes, complete=complete)
        return _verdicts_differ(record, None, again, "the record gives")
    seen = {
        reason: None if unlooked in told.unchecked else reason in told.reasons
        for reason, unlooked in checks.UNLOOKED.items()
    }
    if not record.rig.gpus:
        seen["foreign_gpu_load"] = bool(seen["foreign_gpu_load"])
    again = checks.judge_raw(
        len(record.raw), record.backend, seen, complete=complete, methodology=version
    )
    return _verdicts_differ(record, None, again, "the record gives")


def _judged_again(record: Record, result: Result, samples: Sequence[Sample]) -> Validity | None:
    """The verdict the samples give, with what the record says was seen beside them, by the version
    of the methodology that they were measured under.

    None where the record does not tell the shape's lengths.
    """
    shape = result.workload
    if None in (shape.answer_tokens, shape.prompt_tokens) and result.load != "trace":
        return None
    seen = checks.Seen(
        workload=shape,
        cell=result.cell,
        arrivals=result.arrivals,
        backend=record.backend,
        mode=record.mode,
        model=record.model,
        rig=record.rig,
        interference=result.interference or Interference(),
        memory=result.memory or PeakMemory(),
        load_memory=record.load_memory or LoadMemory(),
        counters=result.counters or {},
        client_cpu_share=result.client_cpu_share,
        load_nodes=result.load_nodes,
        compared_greedy=result.greedy is not None,
        ceiling_share=result.ceiling_share,
        told=result.validity,
    )
    mine = _samples_of(result, samples)
    return checks.judge(mine, seen, methodology=record.provenance.methodology or 1)


def _samples_of(result: Result, samples: Sequence[Sample]) -> list[Sample]:
    cell = result.cell
    return [s for s in samples if s.cell == cell]


def _verdicts_differ(
    record: Record, number: int | None, again: Validity, source: str
) -> list[Contradiction]:
    """Fields in which two verdicts differ, on the run or on one of its results; the order of
    codes says nothing."""
    published = record.validity if number is None else record.results[number].validity
    differing = {}
    if published.verdict != again.verdict:
        differing["verdict"] = f"{published.verdict}, {source} {again.verdict}"
    for name in _LISTS:
        old, new = getattr(published, name), getattr(again, name)
        if set(old) != set(new):
            said = (", ".join(codes) or "empty" for codes in (old, new))
            differing[name] = f", {source} ".join(said)
    texts = {f"validity.{name}": f"validity.{name} is {text}" for name, text in differing.items()}
    if number is None:
        return [Contradiction(place_of(at), "verdict", text) for at, text in texts.items()]
    return [_of_result(record, number, at, "verdict", text) for at, text in texts.items()]


def _unequal(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Leaves at which two values differ by more than rounding."""
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for name in type(old).model_fields:
            yield from _unequal(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _unequal(f"{path}[{index}]", a, b)
    elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new)):
        if not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=1e-12):
            yield path, old, new
    elif old != new:
        yield path, old, new


# From its own fields


def _model(record: Record) -> Broken:
    model = record.model
    if known(model.active_parameters) > known(model.parameters or None):
        yield (
            "model.active_parameters",
            f"{model.active_parameters} of {model.parameters} parameters",
        )
    weights = known(model.bits_per_weight or None) * known(model.parameters or None) / 8
    beside = known(model.bytes or None) - weights
    if beside < -0.01 * weights or beside > BESIDE_WEIGHTS_BYTES + BESIDE_WEIGHTS_SHARE * weights:
        yield (
            "model.bits_per_weight",
            f"{model.bits_per_weight} × {model.parameters} parameters / 8 are {weights:.4g} bytes,"
            f" model.bytes is {model.bytes}",
        )


def _hashes(record: Record) -> Broken:
    model, made = record.model, record.model.quantized_from
    hashes = {
        "model.sha256": model.sha256,
        "model.chat_template_sha256": model.chat_template_sha256,
        "model.quantized_from.sha256": made.sha256 if made else None,
        "mode.draft_sha256": record.mode.draft_sha256,
        "provenance.source_sha256": record.provenance.source_sha256,
    }
    for path, value in hashes.items():
        if value is not None and not _SHA256.fullmatch(value):
            yield path, f"{value!r} is no SHA-256: 64 digits 0-9 a-f"


def _rig(record: Record) -> Broken:
    cpu, memory = record.rig.cpu, record.rig.memory
    threads, total = cpu.threads or nan, memory.total_bytes or nan
    if (cpu.cores or 0) > threads:
        yield "rig.cpu.cores", f"{cpu.cores} cores with {threads} threads"
    if (cpu.usable_cpus or 0) > threads:
        yield "rig.cpu.usable_cpus", f"{cpu.usable_cpus} of {threads} threads"
    if (memory.usable_bytes or 0) > total:
        yield "rig.memory.usable_bytes", f"{memory.usable_bytes} of {total}"
    for index, gpu in enumerate(record.rig.gpus):
        low, high = gpu.power_min_w or 0, gpu.power_max_w or inf
        for path, watts, whose in (
            (f"rig.gpus.{index}.power_limit_w", gpu.power_limit_w, ""),
            (f"rig.gpus.{index}.power_default_w", gpu.power_default_w, ""),
            ("mode.power_cap_w", record.mode.power_cap_w, "the card's "),
        ):
            if watts is not None and not low <= watts <= high:
                yield path, f"{watts} W, outside {whose}{low:g} to {high:g} W"


def _times(record: Record) -> Broken:
    told, moments = record.provenance, []
    for name in ("started_at", "finished_at"):
        text = getattr(told, name)
        try:
            moments += [] if text is None else [datetime.fromisoformat(text)]
        except ValueError:
            yield f"provenance.{name}", f"{text!r} is no time: 2026-11-22T18:31:11Z"
    if len(moments) < 2 or len({moment.tzinfo is None for moment in moments}) > 1:
        return
    took_s = (moments[1] - moments[0]).total_seconds()
    measured_s = sum(s for result in record.results if not math.isnan(s := wall_s(result)))
    if took_s < 0:
        yield "provenance.finished_at", f"before the start, {told.started_at}"
    # A resumed run starts its clock where it was first begun, so there is only this bound.
    elif measured_s > took_s + CLOCK_SLACK_S:
        yield (
            "provenance.finished_at",
            f"{took_s:.0f} s after the start; the answers alone took {measured_s:.0f} s",
        )


def _status(record: Record) -> Broken:
    complete = record.status == "complete"
    if complete and record.failure is not None:
        yield "failure.code", "a complete run has no failure"
    if record.status == "failed" and record.failure is None:
        yield "status", "failed, and no failure says why"
    if complete and not (record.results or record.raw or record.skipped):
        yield "status", "complete, with nothing measured"
    if record.results and record.raw:
        yield "raw", "raw figures beside results: one record holds one kind"


def _cells(record: Record) -> Broken:
    cells = [result.cell for result in record.results]
    for index, result in enumerate(record.results):
        if result.cell in cells[:index]:
            yield f"results.{index}", f"{result.cell.label} stands there twice"
        length = result.workload.target_prompt_tokens or result.workload.prompt_tokens
        if result.depth_tokens and length is not None and length <= result.depth_tokens:
            text = f"prompts of {length} tokens behind {result.depth_tokens} of context"
            yield f"results.{index}.depth_tokens", text
        if result.concurrency < 1:
            yield f"results.{index}.concurrency", "no request at a time is no measurement"


def _ladders(record: Record) -> Broken:
    """What of a ladder its results tell without their samples."""
    for index, told in enumerate(record.ladders):
        place = f"ladders.{index}"
        mine = [r for r in record.results if told.has(r.cell)]
        if told.steps != sorted(result.concurrency for result in mine) or not told.steps:
            yield f"{place}.steps", f"{told.steps}, and the results of {told.workload} are others"
        elif told.knee != (knee := knee_of(mine) if told.ended_by in KNEE_KNOWN else None):
            yield f"{place}.knee", f"{told.knee}, where the results give {knee}"


def _rate_limits(record: Record) -> Broken:
    for index, (told, found) in enumerate(
        zip_longest(record.rate_limits, rate_limits(record.results))
    ):
        if told is None:
            yield "rate_limits", f"{found.load_shape} is missing"
        elif told != found:
            given = "none" if found is None else f"{found.rate_per_s}, {found.missed_per_s} not"
            yield f"rate_limits.{index}.rate_per_s", f"{told.rate_per_s}, the results give {given}"


def _provenance(record: Record) -> Broken:
    told = record.provenance
    if told.methodology is not None and not 1 <= told.methodology <= METHODOLOGY_VERSION:
        known = f"this tokrig knows 1 to {METHODOLOGY_VERSION}; update it"
        yield "provenance.methodology", f"{told.methodology}: {known}"
    if told.kind == "measured":
        if record.backend.managed is False and told.server_starts:
            yield "provenance.server_starts", "tokrig started a server that it did not manage"
    elif (told.methodology or 1) >= 2:
        # A file that was imported need not be published: its hash says which one it was.
        needed = ["source", "source_sha256"] + ["source_url"] * (told.kind == "transcribed")
        for name in needed:
            if getattr(told, name) is None:
                yield f"provenance.{name}", f"missing: what is {told.kind} names what it is from"
        if told.source_url is not None and not _ADDRESS.fullmatch(told.source_url):
            yield "provenance.source_url", "no address, and no path inside the repository"


def _verdicts(record: Record) -> Broken:
    version = record.provenance.methodology or 1
    validities = [("validity", record.validity, bool(record.results or record.raw))]
    validities += [
        (f"results.{i}.validity", r.validity, True) for i, r in enumerate(record.results)
    ]
    for path, validity, has_figures in validities:
        failed = bool(validity.reasons) or not has_figures
        expected = checks.verdict(failed, validity.unverified, version)
        if validity.verdict != expected:
            against = ", ".join(validity.reasons + validity.unverified) or "nothing"
            yield f"{path}.verdict", f"{validity.verdict}, with {against} against it: {expected}"
        for name in _LISTS:
            for code in getattr(validity, name):
                if code not in checks.HINTS:
                    yield f"{path}.{name}", f"unknown code {code!r}"
                elif code in MARKS and record.provenance.kind == "measured":
                    yield f"{path}.{name}", f"{code} is of other tools' figures"


def _quality(record: Record) -> Broken:
    """What of the answers their own figures tell, without the files of answers."""
    if (told := record.quality) is None:
        return
    for code, count in told.faults.items():
        if code not in FAULTS or not 0 < count <= told.prompts:
            yield f"quality.faults.{code}", f"{count}, of {told.prompts} answers"
    if told.not_compared not in (None, *NOT_COMPARED):
        yield "quality.not_compared", f"unknown code {told.not_compared!r}"
    figures = (told.positions, told.other_prompts, told.top1_agreement, told.kl_nats)
    compared = told.not_compared is None
    if any((figure is not None) != compared for figure in figures):
        yield "quality", "it was compared, or it says why not"
    if told.reference is None and told.not_compared is None:
        yield "quality.reference", "missing: what was it compared with?"
    if told.reference and told.reference.id == record.id:
        yield "quality.reference.id", "a run is no reference of its own"
    if told.reference and not _SHA256.fullmatch(told.reference.sha256):
        yield "quality.reference.sha256", "no SHA-256"
    if told.other_prompts is not None and told.other_prompts > told.prompts:
        yield "quality.other_prompts", f"{told.other_prompts} of {told.prompts}"
    for name, most in (("top1_agreement", 1.0), ("kl_nats", inf)):
        if figure := getattr(told, name):
            low, high = figure.ci95 or (figure.value, figure.value)
            if not (0 <= low <= high <= most and 0 <= figure.value <= most):
                yield f"quality.{name}", f"{figure.value} ({low} to {high}) cannot be"


RECORD_RULES: dict[str, Callable[[Record], Broken]] = {
    "model": _model,
    "hashes": _hashes,
    "rig": _rig,
    "times": _times,
    "status": _status,
    "cells": _cells,
    "ladders": _ladders,
    "rate limits": _rate_limits,
    "quality": _quality,
    "provenance": _provenance,
    "verdicts": _verdicts,
}
