"""The records of a file by the table of its format: rows, what they say, their figures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tokrig.errors import ImportRefused, did_you_mean
from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import (
    DIGITS,
    NS,
    UNKNOWN_ENGINE,
    Format,
    Found,
    figures_of,
    objects,
    result_of,
    shape,
    summary,
)
from tokrig.exchange.machine import card, machine
from tokrig.exchange.models import llama_model, model_of
from tokrig.exchange.values import value
from tokrig.record.model import BackendFacts, Mode, Model, Raw, Resolved, Result, Rig, WorkloadFacts
from tokrig.units import significant


def read(document: Document, of: Format) -> Iterable[Found]:
    """The configurations in a file, each with its figures. Raises ImportRefused for a field that
    cannot be what it is called."""
    if of.read is not None:
        return of.read(document)
    groups: dict[str, Found] = {}
    gathered: dict[str, list[Fields]] = {}
    reports = STEPS[of.made_by](document, of) if of.made_by else objects(document)
    for number, report in enumerate(reports):
        _look_at_units(report, of)
        if of.columns and not number:
            _refuse_unknown(report, document, of)
        for row in _rows(report, of):
            if not value(of.only, row):
                continue
            facts = {name: value(one, row) for name, one in of.facts.items()}
            key = json.dumps([number if of.rows else 0, _apart(row, of, facts)])
            found = groups.get(key) or groups.setdefault(key, _found(of, facts))
            times = filter(None, (found.started_at, facts.get("started_at")))
            found.started_at = min(times, default=None)
            told = [value(one, row) for one in (of.skip, *of.left_out)]
            unread = [name for name, cell in row.data.items() if cell and name not in of.columns]
            told += [f"the column {name}" for name in unread] if of.columns else []
            found.left_out |= dict.fromkeys(filter(None, told))
            if told[0]:
                continue
            if of.gathered:
                gathered.setdefault(key, []).append(row)
            elif of.result is not None:
                found.results.append(_result(row, of))
            found.raw += _raw(row, of)
    for key, rows in gathered.items():
        groups[key].results.append(_result(_together(rows, of), of))
    return groups.values()


def _rows(report: Fields, of: Format) -> Iterator[Fields]:
    path = next((path for path in of.rows if report.has(path)), "")
    if not path:
        yield Fields(**vars(report) | {"report": report})
        return
    if of.keyed:
        keys = [name for name in getattr(report.inside(path), "data", ()) if "." not in name]
        rows = [(name, report.inside(f"{path}.{name}")) for name in keys]
    else:
        rows = [("", one) for one in report.each(path)]
    for key, row in rows:
        if row is not None:
            yield Fields(**vars(row) | {"report": report, "key": key})


def _apart(row: Fields, of: Format, facts: Mapping[str, Any]) -> list[Any]:
    """What tells the rows of one record from those of another."""
    told = [(name, one) for name, one in facts.items() if name != "started_at"]
    if of.measured is not None:
        told += [pair for pair in row.data.items() if pair[0] not in of.measured]
    # 512.0 is no other batch than 512.
    return [
        (name, int(one) if isinstance(one, float) and one.is_integer() else one)
        for name, one in told
    ]


def _together(rows: list[Fields], of: Format) -> Fields:
    """The fields of several answers as lists."""
    told = {
        name: [found for row in rows if (found := value(one, row))]
        for name, one in of.gathered.items()
    }
    return Fields({**told, "answers": len(rows)}, rows[0].name)


def _look_at_units(report: Fields, of: Format) -> None:
    for field, unit in of.units.items():
        told = report.text(f"{field}.unit")
        if told is not None and told.lower() != unit:
            raise report.refuse(f"{field}.unit", f"should be {unit!r}, not {told[:40]!r}")


def _refuse_unknown(head: Fields, document: Document, of: Format) -> None:
    for name in head.data:
        if name not in of.columns and name not in of.ignored:
            lines = enumerate(document.text.splitlines(), 1)
            at = next(number for number, line in lines if line.strip())
            hint = did_you_mean(name, of.columns)
            near = hint.partition("? Known:")[0]
            raise ImportRefused(
                f"{document.name}:{at}: no column of tokrig's: {name[:60]!r}",
                hint=f"{near}?" if near != hint else "docs/cli.md lists the columns that are read",
            )


# What a record says of model, engine and machine


def _found(of: Format, facts: Mapping[str, Any]) -> Found:
    asked, resolved = _below(facts, "asked"), _below(facts, "resolved")
    return Found(
        model=_model(_below(facts, "model")),
        backend=BackendFacts(
            name=of.name,
            engine=facts.get("engine") or UNKNOWN_ENGINE,
            build=facts.get("build"),
            api=facts.get("api"),
            asked={name: one for name, one in asked.items() if one is not None},
            resolved=Resolved(**resolved),
        ),
        rig=_rig(_below(facts, "rig")),
        mode=Mode(name=offload, offload=offload) if (offload := facts.get("offload")) else Mode(),
        version=facts.get("version"),
        complete=facts.get("complete", True),
    )


def _below(facts: Mapping[str, Any], part: str) -> dict[str, Any]:
    begin = f"{part}."
    return {name.removeprefix(begin): one for name, one in facts.items() if name.startswith(begin)}


def _model(told: dict[str, Any]) -> Model | None:
    if "family" in told:
        return Model(**told) if told["family"] else None
    if "described" in told:
        return llama_model(**told)
    return model_of(told.pop("name", None), **told)


def _rig(told: dict[str, Any]) -> Rig:
    names, number = told.pop("gpu", None), told.pop("gpus", 1)
    vram, unified = told.pop("vram_gb", None), told.pop("unified", None)
    each = [names] * min(number or 0, 64) if isinstance(names, str) else names or []
    return machine(told.pop("cpu", None), [card(n, vram, unified=unified) for n in each], **told)


# Figures


def _result(row: Fields, of: Format) -> Result:
    figures, codes = figures_of(row, of.takes)
    told = {name: value(one, row) for name, one in (of.result or {}).items()}
    for name in ("requests", "request_errors"):
        if (count := told.pop(name, None)) is not None:
            figures[name] = count
    source = told.pop("prefill_source", None)
    if source and "prefill_tok_per_s" in figures:
        figures["prefill_source"] = source
    prompt, answer = told.pop("prompt", None), told.pop("answer", None)
    depth = told.pop("depth_tokens", None) or 0
    if name := told.pop("workload", None):
        workload = WorkloadFacts(name=name, prompt_tokens=prompt, answer_tokens=answer)
    else:
        workload = shape(of.name, prompt, answer)
        if depth and prompt:
            workload = workload.model_copy(update={"prompt_tokens": depth + prompt})
    return result_of(
        figures,
        [*of.codes, *codes],
        workload=workload,
        concurrency=told.pop("concurrency", 1),
        depth_tokens=depth,
        load=told.pop("load", "closed"),
        **told,
    )


def _raw(row: Fields, of: Format) -> Iterator[Raw]:
    for table in of.raw:
        if not value(table.get("when", True), row):
            continue
        told = {name: value(one, row) for name, one in table.items() if name != "when"}
        rate, first = (
            summary(**{part: _rounded(one) for part, one in _below(told, name).items() if one})
            for name in ("tok_per_s", "ttft_s")
        )
        if rate is not None:
            plain = {name: one for name, one in told.items() if one and "." not in name}
            yield Raw(tok_per_s=rate, ttft_s=first, **plain)


def _rounded(told: Any) -> Any:
    if isinstance(told, list):
        return [significant(one, DIGITS) for one in told if one]
    return significant(told, DIGITS)


# Steps: files whose objects are made of something else

PRINTED = re.compile(
    r"^\W*(?:total duration|load duration|prompt eval (?:count|duration|rate)"
    r"|eval (?:count|duration|rate)):\s+\S.*$"
)
DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)", re.ASCII)
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
METRIC = re.compile(r"([^()]+?)(?: \(([^()]+)\))?")


def _of_metrics(document: Document, of: Format) -> Iterable[Fields]:
    """AIPerf's CSV, a row a metric, as its JSON has them: ``Time to First Token (ms)``."""
    if document.kind != "csv":
        return objects(document)
    found: dict[str, Any] = {}
    for row in objects(document):
        match = METRIC.fullmatch(str(row.get("Metric") or ""))
        metric = match[1].lower().replace(" ", "_") if match else ""
        if match and metric in of.units:
            cells = {name: row.number(name) for name in row.data if name not in ("Metric", "")}
            found[metric] = {"unit": match[2], "avg": cells.pop("Value", None)} | cells
    return [Fields(found, document.name)]


def _printed(document: Document, of: Format) -> Iterator[Fields]:
    """What ``ollama run --verbose`` prints after each answer, as the API has it."""
    if document.items:
        yield from objects(document)
    told: dict[str, float] = {}
    first = 1
    for number, line in enumerate(document.text.splitlines(), 1):
        if document.items or not PRINTED.match(line):
            continue
        name, _, written = line.strip().lstrip("-*>• ").partition(":")
        key = name.strip().replace(" ", "_")
        if key in told or key == "total_duration":
            yield Fields(told, document.name, f"line {first}")
            told, first = {}, number
        told |= _number(key, written.strip(), document, number)
    yield Fields(told, document.name, f"line {first}")


def _number(key: str, written: str, document: Document, line: int) -> dict[str, float]:
    if key.endswith("_rate"):
        return {}  # count by duration, rounded
    if key.endswith("_count"):
        whole = written.split(" ", maxsplit=1)[0]
        if whole.isascii() and whole.isdigit() and len(whole) < 13:
            return {key: int(whole)}
    elif (parts := DURATION.findall(written)) and _is_written(parts, written):
        return {key: sum(float(number) * UNITS[unit] for number, unit in parts) / NS}
    at = Fields({}, document.name, f"line {line}", is_table=True)
    raise at.refuse(key.replace("_", " "), f"{written[:40]!r} is not what Ollama prints")


def _is_written(parts: list[tuple[str, str]], written: str) -> bool:
    """Whether a duration is as Go writes it: ``1m2.104s``, with decimals in the last unit alone."""
    whole = all("." not in number for number, _ in parts[:-1])
    return whole and "".join(map("".join, parts)) == written


STEPS: dict[str, Callable[[Document, Format], Iterable[Fields]]] = {
    "metrics": _of_metrics,
    "printed": _printed,
}
