"""All results as one flat table, for programs and spreadsheets: CSV, JSON, Parquet.

Pure. One row a result; the columns are those of ``columns``.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from tokrig.query.columns import (
    COLUMNS,
    METRICS,
    OF_GPUS,
    OF_LOAD,
    OF_RESULT,
    OF_RUN,
    OPTIONAL,
    SPREAD,
    Column,
)
from tokrig.query.load import Run
from tokrig.record import names
from tokrig.record.model import Metric, Record, Result, Rig

Value = str | int | float | bool | None

_facts_of_run = attrgetter(*(column.source for column in OF_RUN))
_facts_of_result = attrgetter(*(column.source for column in OF_RESULT))
_metrics_of_result = attrgetter(*METRICS)
_NOTHING = (None,) * len(SPREAD)


def flat_rows(runs: Iterable[Run]) -> Iterator[tuple[Value, ...]]:
    """One row a result, values in the order of ``COLUMNS``."""
    for run in runs:
        record = run.record
        load = _optional(record, OF_LOAD)
        of_run = (*_addresses(run), *_facts_of_run(record), *load, *_gpus(record.rig))
        for result in record.results:
            yield (*of_run, *_facts_of_result(result), *_codes(result), *_figures(result))


def _addresses(run: Run) -> tuple[Value, ...]:
    samples = f"data/samples/{run.id}.parquet" if run.samples_digest else None
    page, yaml = f"runs/{run.id}.html", f"data/runs/{run.path}"
    return run.id, page, yaml, samples, len(run.record.errata)


def _gpus(rig: Rig) -> tuple[Value, ...]:
    if not rig.gpus:
        return (0 if names.gpus_known(rig) else None, *[None] * (len(OF_GPUS) - 1))
    gpu = rig.gpus[0]
    facts = (gpu.vendor, gpu.vram_bytes, gpu.driver, gpu.power_limit_w, gpu.power_max_w)
    return (len(rig.gpus), names.gpu_name(gpu), *facts)


def _codes(result: Result) -> Iterator[str]:
    validity = result.validity
    return map(" ".join, (validity.reasons, validity.unverified, validity.unchecked))


def _figures(result: Result) -> list[Value]:
    values: list[Value] = []
    for metric in _metrics_of_result(result):
        values += _NOTHING if metric is None else _spread(metric)
    values += _optional(result, OPTIONAL)
    return values


def _optional(of: Record | Result, columns: Iterable[Column]) -> list[Value]:
    """Fields of blocks that may be missing."""
    values: list[Value] = []
    for column in columns:
        block, _, field = column.source.partition(".")
        found = getattr(of, block)
        values.append(None if found is None else getattr(found, field))
    return values


def _spread(metric: Metric) -> tuple[Value, ...]:
    low, high = metric.ci95 or (None, None)
    return metric.median, metric.min, metric.max, metric.n, low, high


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
    table = _table(rows, _no_formula)
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
    parquet.write_table(_table(rows), sink, compression="zstd")
    return sink.getvalue()


def _table(
    rows: Iterable[Sequence[Value]], text: Callable[[Value], Value] = lambda value: value
) -> Any:
    """The rows as an Arrow table; ``text`` is done to every text."""
    pa: Any = importlib.import_module("pyarrow")  # a third of a second, and without types
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    kinds = {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
    }
    arrays = []
    for column, values in zip(COLUMNS, columns, strict=True):
        cells = list(map(text, values)) if column.kind == "text" else values
        try:
            arrays.append(pa.array(cells, kinds[column.kind]))
        except (OverflowError, UnicodeEncodeError):
            arrays.append(pa.array(map(_storable, cells), kinds[column.kind]))
    return pa.table(arrays, names=[column.name for column in COLUMNS])


def _no_formula(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _storable(value: Value) -> Value:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value
