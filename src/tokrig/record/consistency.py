"""Do a record's own fields contradict each other? Pure: no samples, no I/O.

What a run measured is tied together many times over: a decode rate is one over its TPOT, answers
take at least their first token's time, shares end at one. A figure edited by hand, a block pasted
from another run or a damaged file breaks such a tie. Every rule here holds for every honest record
of any methodology; where an honest one could break it, there is no rule. What the rules allow is
no proof: samples are (``recompute``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from tokrig.record import METHODOLOGY_VERSION, checks
from tokrig.record.model import Record, Validity
from tokrig.record.ties import RESULT_RULES, Broken, Cell, wall_s

Place = tuple[str | int, ...]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID_STAMP = re.compile(r"(\d{8}-\d{6})-")
_ADDRESS = re.compile(r"https?://[^\s/]+\S*|(?!/)[\w.-]+(?:/[\w.-]+)*")
# File headers, tokenizers and padding are no weights: tens of megabytes, or a share.
BESIDE_WEIGHTS_BYTES, BESIDE_WEIGHTS_SHARE = 128 * 1024**2, 0.1
CLOCK_SLACK_S = 2.0


@dataclass(frozen=True)
class Contradiction:
    """What does not go together, and where: ``place`` leads to the key in the record's YAML."""

    place: Place
    rule: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Rule:
    """One tie between fields. ``broken`` yields the dotted path of a field and the reason."""

    name: str
    broken: Callable[[Record], Iterator[Broken]]


def contradictions(record: Record) -> list[Contradiction]:
    """All that the record's own fields contradict; empty for an honest one."""
    found = [
        Contradiction(place_of(path), rule.name, f"{path}: {why}")
        for rule in RECORD_RULES
        for path, why in rule.broken(record)
    ]
    for index, result in enumerate(record.results):
        cell = Cell(record, result)
        where = f"{result.workload.name} × {result.concurrency}: "
        for name, broken in RESULT_RULES:
            found += [
                Contradiction(("results", index, *place_of(path)), name, f"{where}{path}: {why}")
                for path, why in broken(cell)
            ]
    return found


def place_of(path: str) -> Place:
    """The way to a field from its dotted path: ``rig.gpus.0.name``, ``icl_s.p50``."""
    parts = path.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _model(record: Record) -> Iterator[Broken]:
    model = record.model
    parameters, active = model.parameters, model.active_parameters
    if parameters and active and active > parameters:
        yield "model.active_parameters", f"{active} of {parameters} parameters"
    if not (parameters and model.bits_per_weight and model.bytes):
        return
    weights = model.bits_per_weight * parameters / 8
    beside = model.bytes - weights
    if beside < -0.01 * weights or beside > BESIDE_WEIGHTS_BYTES + BESIDE_WEIGHTS_SHARE * weights:
        yield (
            "model.bits_per_weight",
            f"{model.bits_per_weight} × {parameters} parameters / 8 are {weights:.4g} bytes,"
            f" model.bytes is {model.bytes}",
        )


def _hashes(record: Record) -> Iterator[Broken]:
    model = record.model
    made = model.quantized_from
    for path, value in (
        ("model.sha256", model.sha256),
        ("model.chat_template_sha256", model.chat_template_sha256),
        ("model.quantized_from.sha256", made.sha256 if made else None),
        ("mode.draft_sha256", record.mode.draft_sha256),
        ("provenance.source_sha256", record.provenance.source_sha256),
    ):
        if value is not None and not _SHA256.fullmatch(value):
            yield path, f"{value!r} is no SHA-256: 64 digits 0-9 a-f"


def _rig(record: Record) -> Iterator[Broken]:
    cpu, memory = record.rig.cpu, record.rig.memory
    if cpu.cores and cpu.threads and cpu.cores > cpu.threads:
        yield "rig.cpu.cores", f"{cpu.cores} cores with {cpu.threads} threads"
    if cpu.threads and cpu.usable_cpus and cpu.usable_cpus > cpu.threads:
        yield "rig.cpu.usable_cpus", f"{cpu.usable_cpus} of {cpu.threads} threads"
    if memory.total_bytes and (memory.usable_bytes or 0) > memory.total_bytes:
        yield "rig.memory.usable_bytes", f"{memory.usable_bytes} of {memory.total_bytes}"
    for index, gpu in enumerate(record.rig.gpus):
        low, high = gpu.power_min_w or 0, gpu.power_max_w or float("inf")
        for name in ("power_limit_w", "power_default_w"):
            watts = getattr(gpu, name)
            if watts is not None and not low <= watts <= high:
                yield f"rig.gpus.{index}.{name}", f"{watts} W, outside {low:g} to {high:g} W"
        cap = record.mode.power_cap_w
        if cap is not None and not low <= cap <= high:
            yield "mode.power_cap_w", f"{cap} W, outside the card's {low:g} to {high:g} W"


def _times(record: Record) -> Iterator[Broken]:
    provenance = record.provenance
    moments = {}
    for name in ("started_at", "finished_at"):
        text = getattr(provenance, name)
        if text is None:
            continue
        try:
            moments[name] = datetime.fromisoformat(text)
        except ValueError:
            yield f"provenance.{name}", f"{text!r} is no time: 2026-11-22T18:31:11Z"
    if len(moments) < 2 or len({moment.tzinfo is None for moment in moments.values()}) > 1:
        return
    took_s = (moments["finished_at"] - moments["started_at"]).total_seconds()
    if took_s < 0:
        yield "provenance.finished_at", f"before the start, {provenance.started_at}"
        return
    measured_s = sum(wall_s(result) or 0.0 for result in record.results)
    # A resumed run starts its clock where it was first begun, so there is only this bound.
    if measured_s > took_s + CLOCK_SLACK_S:
        yield (
            "provenance.finished_at",
            f"{took_s:.0f} s after the start; the answers alone took {measured_s:.0f} s",
        )


def _status(record: Record) -> Iterator[Broken]:
    if record.status == "complete" and record.failure is not None:
        yield "failure.code", "a complete run has no failure"
    if record.status == "failed" and record.failure is None:
        yield "status", "failed, and no failure says why"
    if record.status == "complete" and not (record.results or record.raw or record.skipped):
        yield "status", "complete, with nothing measured"
    if record.results and record.raw:
        yield "raw", "raw figures beside results: one record holds one kind"


def _cells(record: Record) -> Iterator[Broken]:
    seen: set[tuple[str, int]] = set()
    for index, result in enumerate(record.results):
        cell = (result.workload.name, result.concurrency)
        if cell in seen:
            yield f"results.{index}", f"{cell[0]} × {cell[1]} stands there twice"
        seen.add(cell)
        if result.concurrency < 1:
            yield f"results.{index}.concurrency", "no request at a time is no measurement"


def _provenance(record: Record) -> Iterator[Broken]:
    told = record.provenance
    if told.methodology is not None and not 1 <= told.methodology <= METHODOLOGY_VERSION:
        yield (
            "provenance.methodology",
            f"{told.methodology}: this tokrig knows 1 to {METHODOLOGY_VERSION}; update it",
        )
    if told.kind == "measured":
        managed = record.backend.managed
        if managed is False and told.server_starts:
            yield "provenance.server_starts", "tokrig started a server that it did not manage"
        return
    if (told.methodology or 1) < 2:
        return
    for name in ("source", "source_url", "source_sha256"):
        if getattr(told, name) is None:
            yield f"provenance.{name}", f"missing: what is {told.kind} names what it is from"
    if told.source_url is not None and not _ADDRESS.fullmatch(told.source_url):
        yield "provenance.source_url", "no address, and no path inside the repository"


def _verdicts(record: Record) -> Iterator[Broken]:
    version_1 = (record.provenance.methodology or 1) < 2
    validities = [("validity", record.validity, bool(record.results or record.raw))]
    validities += [
        (f"results.{i}.validity", r.validity, True) for i, r in enumerate(record.results)
    ]
    for path, validity, has_figures in validities:
        yield from _verdict(path, validity, version_1, has_figures)
        for name in ("reasons", "unverified", "unchecked"):
            for code in getattr(validity, name):
                if code not in checks.HINTS:
                    yield f"{path}.{name}", f"unknown code {code!r}"


def _verdict(path: str, validity: Validity, version_1: bool, has_figures: bool) -> Iterator[Broken]:
    failed = bool(validity.reasons) or not has_figures
    expected = checks.verdict(failed, [] if version_1 else validity.unverified)
    if validity.verdict != expected:
        lists = ", ".join(validity.reasons + validity.unverified) or "nothing"
        yield f"{path}.verdict", f"{validity.verdict}, with {lists} against it: {expected}"


RECORD_RULES: tuple[Rule, ...] = (
    Rule("model", _model),
    Rule("hashes", _hashes),
    Rule("rig", _rig),
    Rule("times", _times),
    Rule("status", _status),
    Rule("cells", _cells),
    Rule("provenance", _provenance),
    Rule("verdicts", _verdicts),
)
