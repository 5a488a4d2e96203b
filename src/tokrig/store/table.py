"""All results as one flat table, for programs and spreadsheets: CSV, JSON, Parquet. Pure.

One row a result. Names and meanings of the columns are a promise to whoever reads the files:
columns may be added, none is renamed. Null means *not known*. A metric has six:
``<metric>_median``, ``_min``, ``_max``, ``_n``, ``_ci95_low``, ``_ci95_high``. What has keys of
its own (the engine's counters, its memory by device, tensor types) stays in the record.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Literal, get_args

from tokrig import naming
from tokrig.record.block import Summary
from tokrig.record.metric import Metric
from tokrig.record.metrics import METRICS
from tokrig.record.model import Record, Result, Rig
from tokrig.record.quality import Quality
from tokrig.spec.settings import SETTINGS
from tokrig.store.load import Run

Kind = Literal["text", "integer", "number", "boolean"]
Value = str | int | float | bool | None
Read = Callable[[Any], Value]


@dataclass(frozen=True)
class Column:
    """One column. ``text`` says what it holds, and in which unit; ``source`` where in the record
    or the result it stands, "" for what is put together."""

    name: str
    kind: Kind
    text: str
    source: str = ""


def _columns(kind: Kind) -> Callable[..., Column]:
    return lambda name, text, source="": Column(name, kind, text, source)


_text, _integer, _number, _boolean = map(_columns, get_args(Kind))

ADDRESSES = (
    _text("run_id", "the run, one YAML file"),
    _text("page", "page of the run, relative to the site"),
    _text("yaml", "the run's record, relative to the site"),
    _text("samples", "what it was computed from, relative to the site; null without samples"),
    _integer("errata", "number of corrections in the record"),
)
OF_RUN = (
    _text("status", "complete, failed or interrupted", "status"),
    _text("run_verdict", "valid, unverified or invalid: the run as a whole", "validity.word"),
    _text("provenance", "measured, transcribed or imported", "provenance.kind"),
    _text("source", "where figures come from that tokrig did not measure", "provenance.source"),
    _text("level", "quick, standard or publish", "provenance.level"),
    _text("started_at", "begin of the run, UTC", "provenance.started_at"),
    _text("tokrig_version", "version that measured", "provenance.tokrig_version"),
    _integer("methodology", "version of the methodology", "provenance.methodology"),
    _integer("server_starts", "starts of the engine", "provenance.server_starts"),
    _text("family", "family of the model", "model.family"),
    _text("variant", "member of the family", "model.variant"),
    _text("quant", "quantization", "model.quant"),
    _text("quant_creator", "who made the quantized file", "model.quant_creator"),
    _text("model_format", "format of the weights", "model.format"),
    _text("model_file", "name of the file", "model.file"),
    _text("model_sha256", "SHA-256 of the file", "model.sha256"),
    _integer("model_bytes", "size of the file, bytes", "model.bytes"),
    _integer("parameters", "parameters", "model.parameters"),
    _integer("active_parameters", "parameters used per token", "model.active_parameters"),
    _number("bits_per_weight", "bits per weight", "model.bits_per_weight"),
    _text("architecture", "architecture, as the file names it", "model.architecture"),
    _text("base_model", "model that this one was made from", "model.base_model"),
    _boolean("reasoning", "whether the model was seen to reason", "model.reasoning"),
    _text("rig", "id of the machine", "rig.id"),
    _text("cpu", "processor", "rig.cpu.model"),
    _integer("cpu_cores", "physical cores", "rig.cpu.cores"),
    _number("usable_cpus", "logical CPUs that the engine may use", "rig.cpu.usable_cpus"),
    _integer("memory_bytes", "main memory, bytes", "rig.memory.total_bytes"),
    _integer("usable_memory_bytes", "what of it a limit leaves", "rig.memory.usable_bytes"),
    _text("os", "operating system", "rig.os"),
    _text("kernel", "kernel", "rig.kernel"),
    _text("virtualization", "virtual machine or container", "rig.virtualization"),
    _text("backend", "how tokrig drove the engine", "backend.name"),
    _text("engine", "engine", "backend.engine"),
    _text("build", "build of the engine", "backend.build"),
    _text("api", "accelerator API that computed", "backend.api"),
    _boolean("api_confirmed", "whether the engine itself named the API", "backend.api_confirmed"),
    _text("api_asked", "accelerator API, as asked for", "backend.api_asked"),
    _text("wrapper", "program in front of the engine, with its version", "backend.wrapper"),
    _text("bypass", "why the engine was once started without its wrapper", "backend.bypass"),
    _integer("context", "context per slot, tokens", "backend.resolved.context_per_slot"),
    _integer("slots", "requests the engine serves at once", "backend.resolved.slots"),
    _integer("context_total", "context of all slots together", "backend.resolved.context_total"),
    _boolean("kv_unified", "whether slots share one KV cache", "backend.resolved.kv_unified"),
    _integer("threads", "threads of the engine", "backend.resolved.threads"),
    _text("cache_type_k", "type of the K cache", "backend.resolved.cache_type_k"),
    _text("cache_type_v", "type of the V cache", "backend.resolved.cache_type_v"),
    _text("flash_attention", "flash attention", "backend.resolved.flash_attention"),
    _integer("gpu_layers", "layers on the GPU", "backend.resolved.gpu_layers"),
    _text("split_mode", "how several GPUs share the model", "backend.resolved.split_mode"),
    _text("dtype", "type that the engine computes in", "backend.resolved.dtype"),
    _text("quantization", "quantization, as the engine names it", "backend.resolved.quantization"),
    _integer("tensor_parallel", "GPUs that share each layer", "backend.resolved.tensor_parallel"),
    _boolean("prefix_caching", "the engine's prefix cache", "backend.resolved.prefix_caching"),
    _text("mode", "what was switched on; baseline is nothing", "mode.name"),
    _text("offload", "what was asked to stay off the GPU", "mode.offload"),
    _text("speculative", "kind of speculative decoding", "mode.speculative"),
    _text("draft_model", "file of the draft model", "mode.draft_model"),
    _text("draft_sha256", "SHA-256 of that file", "mode.draft_sha256"),
    _integer("draft_tokens", "longest draft; null is the engine's default", "mode.draft_tokens"),
    _text("reasoning_asked", "reasoning, as asked for: on or off", "mode.reasoning_asked"),
    _number(
        "power_cap_w", "cap that was set on each graphics card for this run", "mode.power_cap_w"
    ),
    _text("reasoning_switch", "how that was asked for", "mode.reasoning_switch"),
    _boolean("reasoning_observed", "reasoning, as observed", "mode.reasoning_observed"),
)
# Of a block that a run need not have. All GPUs and all processes, where not said otherwise.
OF_LOAD = (
    _integer("load_gpu_before_bytes", "GPU memory before", "load_memory.gpu_before_bytes"),
    _integer("load_gpu_after_bytes", "GPU memory after", "load_memory.gpu_after_bytes"),
    _integer("load_vram_bytes", "the engine's own GPU memory", "load_memory.engine_vram_bytes"),
    _integer("load_rss_bytes", "the engine's own main memory", "load_memory.engine_rss_bytes"),
)
OF_GPUS = (
    _integer("gpus", "number of GPUs"),
    _text("gpu", "first GPU, without its vendor's name"),
    _text("gpu_vendor", "its vendor"),
    _integer("gpu_vram_bytes", "its memory, bytes"),
    _text("gpu_driver", "its driver"),
    _number("gpu_power_limit_w", "its power limit while measured, W"),
    _number("gpu_power_max_w", "the highest limit it can be given, W"),
)
# Of the model's answers.
OF_QUALITY = (
    _number(
        "top1_agreement",
        "share of positions at which the reference held the same token for the likeliest",
        "quality.top1_agreement.value",
    ),
    _number("top1_agreement_ci95_low", "lower end of its 95 % interval"),
    _number("top1_agreement_ci95_high", "upper end of that interval"),
    _number(
        "kl_nats", "mean divergence from the reference, at least, nats", "quality.kl_nats.value"
    ),
    _number("kl_nats_ci95_low", "lower end of its 95 % interval"),
    _number("kl_nats_ci95_high", "upper end of that interval"),
    _text("quality_reference", "the run that the answers are held against"),
    _text("quality_reference_quant", "its quant"),
    _text("quality_not_compared", "why they are held against none", "quality.not_compared"),
    _text("answer_faults", "answers with a fault, by its code, with spaces between"),
)
_KINDS: dict[str, Kind] = {
    "text": "text",
    "count": "integer",
    "whole": "integer",
    "number": "number",
    "amount": "number",
    "share": "number",
    "flag": "boolean",
}
# What was found of settings that have no column above.
OF_SETTINGS = tuple(
    Column(path.rpartition(".")[2], _KINDS.get(setting.kind, "text"), setting.label, path)
    for setting in SETTINGS.values()
    for path in setting.found
    if path not in {column.source for column in OF_RUN}
)
CODES = (
    _text("invalid_because", "reason codes, with spaces between"),
    _text("unverified", "codes of what could not be confirmed, likewise"),
    _text("unchecked", "codes of what nobody could look at, likewise"),
)
SPREAD = (
    _number("median", "median of the repeats' medians"),
    _number("min", "lowest value"),
    _number("max", "highest value"),
    _integer("n", "number of values"),
    _number("ci95_low", "lower end of the 95 % interval; null below 6 repeats"),
    _number("ci95_high", "upper end of that interval"),
)


def _column(metric: Metric[Any]) -> Column:
    text = re.sub(r"[*`]", "", metric.definition) + (f", {metric.unit}" if metric.unit else "")
    return Column(metric.column, _KINDS[metric.kind], text, metric.name)


def _optional_columns() -> Iterator[Column]:
    """Of blocks that a result need not have."""
    for metric in METRICS.values():
        for one in (metric, *metric.parts):
            if one.kind == "percentiles":
                for part in ("p50", "p90", "p95", "p99", "max"):
                    text = f"{one.label}, {part}, s"
                    yield _number(f"{one.column}_{part}", text, f"{one.name}.{part}")
                yield _integer(f"{one.column}_n", "number of values", f"{one.name}.n")
            elif one is not metric and one.kind in _KINDS:
                yield _column(one)


SUMMARIES = tuple(name for name, metric in METRICS.items() if metric.kind == "summary")
OF_RESULT = (
    _text("workload", "shape", "workload.name"),
    _text("workload_hash", "hash of the shape's texts and lengths", "workload.content_hash"),
    _integer("prompt_tokens_target", "prompt length of the shape", "workload.prompt_tokens"),
    _integer("answer_tokens_target", "answer length of the shape", "workload.answer_tokens"),
    _integer("concurrency", "requests in flight", "concurrency"),
    _integer("depth_tokens", "tokens of context before the shape", "depth_tokens"),
    _text("load", "how requests follow each other; closed: the next after the last", "load"),
    _number("rate_per_s", "requests that arrive a second", "rate_per_s"),
    _text("verdict", "valid, unverified or invalid: invalid is no headline", "validity.word"),
    *(_column(metric) for metric in METRICS.values() if metric.kind in _KINDS),
)
OPTIONAL = tuple(_optional_columns())
# Files have had this order since their first version; what is newer than them stands at the end.
_FIRST_ORDER = """
workload workload_hash prompt_tokens_target answer_tokens_target concurrency verdict repeats
requests request_errors prefill_source token_count_source reasoning_tokens_median
content_tokens_median tool_call_tokens_median hidden_tokens_median answered_share cached_tokens
ceiling_share client_cpu_share invalid_because unverified unchecked output_tok_per_s
prefill_tok_per_s ttft_s ttfa_s tpot_s end_to_end_tok_per_s useful_tok_per_s system_tok_per_s
prompt_tokens output_tokens icl_s_p50 icl_s_p90 icl_s_p95 icl_s_p99 icl_s_max icl_s_n
server_difference server_difference_largest server_source drafted_tokens accepted_tokens
acceptance_rate draft_steps acceptance_length greedy_same greedy_compared_characters
greedy_first_divergence_characters greedy_first_divergence_tokens engine_rss_bytes
engine_vram_bytes energy_scope energy_j j_per_output_token
""".split()


def reader(column: Column) -> Read:
    """Reads a column of a record or a result, whose blocks may be missing."""
    block, _, field = column.source.partition(".")
    inside: Callable[[Any], Any] = attrgetter(field) if field else lambda found: found

    def read(of: Record | Result) -> Value:
        value = None if (found := getattr(of, block)) is None else inside(found)
        return " ".join(map(str, value)) or None if isinstance(value, list) else value

    return read


def _spread(metric: str) -> Iterator[tuple[Column, Read]]:
    for number, part in enumerate(SPREAD):
        column = Column(f"{metric}_{part.name}", part.kind, part.text, f"{metric}.{part.name}")
        if part.name.startswith("ci95"):
            yield column, partial(_end_of_interval, metric, number - len(SPREAD))
        else:
            yield column, reader(column)


def _end_of_interval(metric: str, end: int, result: Result) -> Value:
    found: Summary | None = getattr(result, metric)
    return found.ci95[end] if found and found.ci95 else None


def _codes(field: str, result: Result) -> Value:
    return " ".join(getattr(result.validity, field))


def _of_result() -> Iterator[tuple[str, Column, Read]]:
    """The columns of a result, each with what stands for it in the first order."""
    yield from ((column.name, column, reader(column)) for column in (*OF_RESULT, *OPTIONAL))
    for column, field in zip(CODES, ("reasons", "unverified", "unchecked"), strict=True):
        yield column.name, column, partial(_codes, field)
    for metric in SUMMARIES:
        yield from ((metric, column, read) for column, read in _spread(metric))


def _place(made: tuple[str, Column, Read]) -> int:
    return _FIRST_ORDER.index(made[0]) if made[0] in _FIRST_ORDER else len(_FIRST_ORDER)


_RESULT = sorted(_of_result(), key=_place)
_OLD = sum(name in _FIRST_ORDER for name, *_ in _RESULT)
COLUMNS = (
    *(*ADDRESSES, *OF_RUN, *OF_LOAD, *OF_GPUS),
    *(column for _, column, _ in _RESULT[:_OLD]),
    *OF_SETTINGS,
    *(column for _, column, _ in _RESULT[_OLD:]),
    *OF_QUALITY,
)
RUN_COLUMNS = (*ADDRESSES, *OF_RUN, *OF_LOAD, *OF_GPUS, *OF_SETTINGS, *OF_QUALITY)
_READ_RUN = [reader(column) for column in (*OF_RUN, *OF_LOAD)]
_READ_SETTINGS = [reader(column) for column in OF_SETTINGS]

_TAIL = (-len(OF_SETTINGS) - len(OF_QUALITY), -len(OF_QUALITY))
_PARTS = (slice(_TAIL[0]), slice(*_TAIL), slice(_TAIL[1], None))


def flat_rows(runs: Iterable[Run]) -> Iterator[tuple[Value, ...]]:
    """One row a result, values in the order of ``COLUMNS``."""
    for run in runs:
        found = run_values(run)
        of_run, settings, answers = (found[place] for place in _PARTS)
        for result in run.record.results:
            values = [read(result) for _, _, read in _RESULT]
            yield (*of_run, *values[:_OLD], *settings, *values[_OLD:], *answers)


def _answers(told: Quality | None) -> tuple[Value, ...]:
    if told is None:
        return (None,) * len(OF_QUALITY)
    figures: list[Value] = []
    for figure in (told.top1_agreement, told.kl_nats):
        low, high = figure.ci95 if figure and figure.ci95 else (None, None)
        figures += [figure.value if figure else None, low, high]
    against = told.reference
    faults = " ".join(f"{code}:{count}" for code, count in told.faults.items())
    return (
        *figures,
        against.id if against else None,
        against.quant if against else None,
        told.not_compared,
        faults,
    )


def run_values(run: Run) -> tuple[Value, ...]:
    """What all rows of a run have, in the order of ``RUN_COLUMNS``."""
    record = run.record
    samples = f"data/samples/{run.id}.parquet" if run.samples_digest else None
    return (
        *(run.id, f"runs/{run.id}.html", f"data/runs/{run.path}", samples, len(record.errata)),
        *(read(record) for read in _READ_RUN),
        *_gpus(record.rig),
        *(read(record) for read in _READ_SETTINGS),
        *_answers(record.quality),
    )


def _gpus(rig: Rig) -> tuple[Value, ...]:
    if not rig.gpus:
        return (0 if naming.gpus_known(rig) else None, *[None] * (len(OF_GPUS) - 1))
    gpu = rig.gpus[0]
    facts = (gpu.vendor, gpu.vram_bytes, gpu.driver, gpu.power_limit_w, gpu.power_max_w)
    return (len(rig.gpus), naming.gpu_name(gpu), *facts)


def to_json(rows: Iterable[Sequence[Value]]) -> bytes:
    """``{"columns": [names], "data": [[values], …]}``, one row a line, UTF-8: a quarter of what
    an array of objects takes, and pandas reads it with ``orient="split"``."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    header = encode([column.name for column in COLUMNS])
    lines = ",\n".join(encode(row) for row in rows)
    return f'{{"columns":{header},\n"data":[\n{lines}\n]}}\n'.encode("utf-8", "replace")


# What a spreadsheet takes for the begin of a formula; the last four are full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff0b", "\uff0d", "\uff1d", "\uff20")


def to_csv(rows: Iterable[Sequence[Value]]) -> bytes:
    """RFC 4180 with a header line, UTF-8; null is an empty cell.

    Records come from strangers, and a spreadsheet runs a text that begins with ``=`` as a
    formula. Such a text gets an apostrophe in front, in CSV alone: JSON and Parquet are exact.
    Numbers are never touched. What Parquet cannot hold is here as it is there.
    """
    table = arrow(rows, text=no_formula)
    sink = io.BytesIO()
    arrow_csv = importlib.import_module("pyarrow.csv")
    style = {"quoting_style": "needed", "quoting_header": "none", "eol": "\r\n"}
    arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(**style))
    return sink.getvalue()


def to_parquet(rows: Iterable[Sequence[Value]]) -> bytes:
    """Typed columns (text, int64, double, boolean), compressed by zstd; equal rows give equal
    bytes. An integer beyond 64 bits, which Parquet cannot hold, is null there, and a lone
    surrogate, which UTF-8 cannot, is ``?``."""
    sink = io.BytesIO()
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(arrow(rows), sink, compression="zstd")
    return sink.getvalue()


def arrow(
    rows: Iterable[Sequence[Value]],
    of: Sequence[Column] = COLUMNS,
    text: Callable[[Value], Value] = lambda value: value,
) -> Any:
    """The rows as an Arrow table with the columns ``of``; ``text`` is done to every text."""
    pa: Any = importlib.import_module("pyarrow")  # a third of a second, and without types
    columns = list(zip(*rows, strict=True)) or [()] * len(of)
    kinds = {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
    }
    arrays = []
    for column, values in zip(of, columns, strict=True):
        cells = list(map(text, values)) if column.kind == "text" else values
        try:
            arrays.append(pa.array(cells, kinds[column.kind]))
        except (OverflowError, UnicodeEncodeError):
            arrays.append(pa.array(map(_storable, cells), kinds[column.kind]))
    return pa.table(arrays, names=[column.name for column in of])


def no_formula(value: Value) -> Value:
    """A text that a spreadsheet would run as a formula, with an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _storable(value: Value) -> Value:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value
