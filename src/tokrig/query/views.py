"""The views that SQL is asked of, the meaning of every column, and what stands in them. Pure.

Names are a promise, as those of the flat files are: columns may be added, none is renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokrig.store import table
from tokrig.store.facts import Family, RigFacts
from tokrig.store.load import Run
from tokrig.store.table import Column, Value

Row = tuple[Value, ...]


@dataclass(frozen=True)
class View:
    """One view: what a row of it is, and its columns in their order."""

    name: str
    text: str
    columns: tuple[Column, ...]


_OF_RECORD = (
    Column("finished_at", "text", "end of the run, UTC", "provenance.finished_at"),
    Column("campaign", "text", "campaign and entry that asked for it", "provenance.campaign"),
    Column("planned", "text", "key of the planned run that it answers", "provenance.planned"),
    Column(
        "load_s", "number", "from the engine's start until it was ready, s", "cold_start.load_s"
    ),
    Column(
        "first_ttft_s", "number", "TTFT of the very first request, s", "cold_start.first_ttft_s"
    ),
    Column("failure_code", "text", "what ended the run, as a code", "failure.code"),
    Column("failure", "text", "the same in words", "failure.message"),
    Column("notes", "text", "what whoever measured wrote down", "notes"),
)
_COUNTED = (
    Column("results", "integer", "how many results it has: rows of the view rows"),
    Column("skipped", "integer", "cells that were asked for and could not be measured"),
)
RUNS = View(
    "runs",
    "a run, one record: model, rig, engine, settings, whether it finished",
    (*table.RUN_COLUMNS, *_OF_RECORD, *_COUNTED, *table.CODES),
)
ROWS = View("rows", "a result: a run's figures for one workload under one load", table.COLUMNS)

_FOUND = {column.name: column for column in RUNS.columns}
_IDENTITY = (
    *("family", "variant", "quant", "quant_creator", "model_format", "model_file"),
    "model_sha256",
)
_OF_MODEL = (
    *("model_bytes", "parameters", "active_parameters", "bits_per_weight", "architecture"),
    *("base_model", "reasoning"),
)
MODELS = View(
    "models",
    "a file of a model that was measured, with what content/models says of it",
    (
        *(_FOUND[name] for name in (*_IDENTITY, *_OF_MODEL)),
        Column("released", "text", "month of the family's release"),
        Column("context", "integer", "context that its makers state, tokens"),
        Column("capabilities", "text", "what it can do, with spaces between"),
        Column("runs", "integer", "how many runs measured it"),
        Column("rigs", "integer", "on how many rigs"),
    ),
)
_OF_RIG = (
    *("cpu", "cpu_cores", "usable_cpus", "memory_bytes", "usable_memory_bytes", "os", "kernel"),
    *("virtualization", *(column.name for column in table.OF_GPUS)),
)
_RATES = {
    "memory_bandwidth_bytes_per_s": "memory bandwidth, bytes/s",
    "matrix_flop_per_s": "matrix arithmetic, operations/s",
}
RIGS = View(
    "rigs",
    "a machine, as its newest run found it, with what content/rigs says of it",
    (
        _FOUND["rig"],
        Column("name", "text", "what its owner calls it"),
        *(_FOUND[name] for name in _OF_RIG),
        *(
            Column(f"{rate}_{which}", "number", f"{text}, {said}")
            for rate, text in _RATES.items()
            for which, said in (("measured", "as measured"), ("theoretical", "as its makers say"))
        ),
        Column("runs", "integer", "how many runs it did"),
        Column("first_at", "text", "begin of its first run, UTC"),
        Column("last_at", "text", "begin of its last run, UTC"),
    ),
)


def of_runs(runs: Iterable[Run]) -> Iterator[Row]:
    """The rows of ``runs``."""
    readers = [table.reader(column) for column in _OF_RECORD]
    for run in runs:
        record, validity = run.record, run.record.validity
        codes = (validity.reasons, validity.unverified, validity.unchecked)
        yield (
            *table.run_values(run),
            *(read(record) for read in readers),
            len(record.results),
            len(record.skipped),
            *map(" ".join, codes),
        )


def of_models(runs: Sequence[Row], families: Mapping[str, Family]) -> Iterator[Row]:
    """The rows of ``models``, of those of ``runs``, newest first."""
    for identity, group in _grouped(runs, _IDENTITY).items():
        newest = group[0]
        family = families.get(str(newest["family"]))
        variant = family.variants.get(str(newest["variant"])) if family else None
        yield (
            *identity,
            *(newest[name] for name in _OF_MODEL),
            family.released if family else None,
            variant.context if variant else None,
            " ".join(variant.capabilities) if variant else None,
            len(group),
            len({one["rig"] for one in group}),
        )


def of_rigs(runs: Sequence[Row], facts: Mapping[str, RigFacts]) -> Iterator[Row]:
    """The rows of ``rigs``: those of ``runs``, then those that are only written about."""
    groups: dict[Any, list[dict[str, Value]]] = {
        rig: group for (rig,), group in _grouped(runs, ("rig",)).items()
    }
    for rig in [*groups, *sorted(facts.keys() - groups.keys())]:
        group, told = groups.get(rig, []), facts.get(rig)
        newest: Mapping[str, Value] = group[0] if group else {}
        rates = [getattr(told, name, None) for name in _RATES]
        days = sorted(str(one["started_at"]) for one in group if one["started_at"])
        yield (
            rig,
            told.name if told else None,
            *(newest.get(name) for name in _OF_RIG),
            *(
                rate and getattr(rate, which)
                for rate in rates
                for which in ("measured", "theoretical")
            ),
            len(group),
            *((days[0], days[-1]) if days else (None, None)),
        )


def _grouped(runs: Sequence[Row], by: Sequence[str]) -> dict[Row, list[dict[str, Value]]]:
    groups: dict[Row, list[dict[str, Value]]] = {}
    for values in runs:
        run = dict(zip(_FOUND, values, strict=True))
        groups.setdefault(tuple(run[name] for name in by), []).append(run)
    return groups


# Samples, one row a request: what each field of ``record.samples.Sample`` means.
_SAMPLE = """
workload text shape
concurrency integer requests in flight
repeat integer which repeat, from 0
iteration integer which request of the repeat, from 0
worker integer which of the requests in flight
phase text warmup or measured: figures are made of measured ones alone
variant integer which of the shape's prompts
salt text what makes the prompt unlike any other
sent_ns integer when it was sent, ns from the begin of its phase
prompt_tokens integer tokens of the prompt
output_tokens integer tokens of the answer
cached_tokens integer tokens of the prompt that the engine had already
reasoning_tokens integer tokens of the reasoning
content_tokens integer tokens of the answer itself
first_chunk_tokens integer tokens that came with the first stamp
first_chunk_assumed boolean whether that is the client's assumption
count_source text who counted the tokens
count_disagreement number how far two counts of them are apart, as a share
finish_reason text why it ended: length, stop
drafted_tokens integer tokens that were drafted
accepted_tokens integer drafted tokens that were accepted
error text code of what went wrong; null of a request that succeeded
error_detail text the same in words
tool_call_tokens integer tokens of tool calls
hidden_tokens integer tokens that no chunk carried
last_chunk_tokens integer tokens that came with the last stamp
counted_by text who confirms the tokens of the first and the last stamp
depth_tokens integer tokens of context before the shape
load text how requests follow each other
rate_per_s number requests that arrive a second
due_ns integer when it should have been sent, ns; null in a closed loop
connect_ns integer how long connecting took, ns
prompt_tokens_asked integer length of the prompt that a trace asked for
output_tokens_asked integer length of the answer that a trace asked for
text_kept boolean whether texts are as they came; else every character is an x
chunk_t_ns integer list: when each chunk was read, ns after sent_ns
chunk_kind integer list: 1 reasoning, 2 content, 3 tool call
chunk_text text list: text of each chunk
timings_prompt_tokens integer the engine's own count of prompt tokens it read
timings_prompt_ms number the engine's own time for them, ms
timings_decode_tokens integer the engine's own count of tokens generated
timings_decode_ms number the engine's own time for them, ms
timings_counts_first boolean whether that count has the first token
"""
SAMPLES = View(
    "samples",
    "a request behind a result, as the samples files of measured runs have them",
    (
        _FOUND["run_id"],
        *(Column(*line.split(" ", 2)) for line in _SAMPLE.strip().splitlines()),  # type: ignore[arg-type]
    ),
)
VIEWS = {view.name: view for view in (ROWS, RUNS, SAMPLES, RIGS, MODELS)}
