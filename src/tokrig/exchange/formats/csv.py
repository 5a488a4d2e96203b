"""A plain CSV with columns called like tokrig's own.

Names and meanings are those of the site's data file (``store/table.py``); numbers have a point for
decimals and nothing between thousands. Needed are a model (``family``), unless the command line
names it, and at least one figure. A column that is none of tokrig's is refused, with the nearest.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.errors import ImportRefused, did_you_mean
from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import (
    UNKNOWN_ENGINE,
    Format,
    Found,
    Take,
    figures_of,
    head,
    objects,
    result_of,
)
from tokrig.exchange.machine import card, machine
from tokrig.record.metrics import METRICS
from tokrig.record.model import BackendFacts, Model, Result, WorkloadFacts
from tokrig.store import table
from tokrig.units import GIB

_PARTS = ("median", "mean", "min", "max", "n")
_SUMMARIES = [name for name, metric in METRICS.items() if metric.kind == "summary"]
_TAKES = (
    *(Take(f"{name}_{part}", f"{name}.{part}") for name in _SUMMARIES for part in _PARTS),
    *(Take(f"icl_s_{part}", f"icl_s.{part}") for part in ("p50", "p90", "p95", "p99", "max", "n")),
)
_OF_RUN = ("family", "variant", "quant", "parameters", "bits_per_weight", "engine", "build", "api")
_OF_RIG = ("cpu", "cpu_cores", "memory_bytes", "gpu", "gpu_vram_bytes", "os", "kernel")
_OF_CELL = (
    *("workload", "prompt_tokens_target", "answer_tokens_target", "concurrency", "depth_tokens"),
    *("requests", "request_errors", "prefill_source"),
)
COLUMNS = (*_OF_RUN, *_OF_RIG, *_OF_CELL, *(take.field for take in _TAKES))
"""The columns that are read, all of them optional but the model's family and one figure."""


def _read(document: Document) -> Iterable[Found]:
    _refuse_unknown(document)
    by_run: dict[tuple[str | None, ...], Found] = {}
    for row in objects(document):
        key = tuple(row.text(name) for name in (*_OF_RUN, *_OF_RIG))
        found = by_run.get(key) or by_run.setdefault(key, _run(row))
        found.results.append(_result(row))
        unread = [name for name, value in row.data.items() if value and name not in COLUMNS]
        found.left_out |= {f"the column {name}": None for name in unread}
    return by_run.values()


def _refuse_unknown(document: Document) -> None:
    known = {column.name for column in table.COLUMNS}
    for name in head(document).data:
        if name not in COLUMNS and name not in known:
            at = next(n for n, line in enumerate(document.text.splitlines(), 1) if line.strip())
            raise ImportRefused(
                f"{document.name}:{at}: no column of tokrig's: {name[:60]!r}",
                hint=_nearest(name),
            )


def _nearest(name: str) -> str:
    hint = did_you_mean(name, COLUMNS)
    near = hint.partition("? Known:")[0]
    return f"{near}?" if near != hint else "docs/cli.md lists the columns that are read"


def _run(row: Fields) -> Found:
    family, api = row.text("family"), row.text("api")
    gpu, vram = row.text("gpu"), row.count("gpu_vram_bytes")
    return Found(
        model=Model(
            family=family,
            variant=row.text("variant"),
            quant=row.text("quant"),
            parameters=row.count("parameters") or None,
            bits_per_weight=row.positive("bits_per_weight"),
        )
        if family
        else None,
        backend=BackendFacts(
            name=FORMAT.name,
            engine=row.text("engine") or UNKNOWN_ENGINE,
            build=row.text("build"),
            api=api,
        ),
        rig=machine(
            row.text("cpu"),
            [card(gpu, vram and vram / GIB)] if gpu else [],
            cores=row.count("cpu_cores"),
            memory_bytes=row.count("memory_bytes"),
            os=row.text("os"),
            kernel=row.text("kernel"),
        ),
    )


def _result(row: Fields) -> Result:
    figures, codes = figures_of(row, _TAKES)
    figures |= _counts(row)
    source = row.text("prefill_source")
    if source not in (None, "server", "ttft_derived"):
        raise row.refuse("prefill_source", "should be server or ttft_derived")
    if source and "prefill_tok_per_s" in figures:
        figures["prefill_source"] = source
    name = row.text("workload") or "table"
    return result_of(
        figures,
        [*FORMAT.codes, *codes],
        workload=WorkloadFacts(
            name=name if name.startswith("csv-") else f"csv-{name}",
            prompt_tokens=row.count("prompt_tokens_target") or None,
            answer_tokens=row.count("answer_tokens_target") or None,
        ),
        concurrency=row.count("concurrency") or 1,
        depth_tokens=row.count("depth_tokens") or 0,
    )


def _counts(row: Fields) -> dict[str, int]:
    told = ((name, row.count(name)) for name in ("requests", "request_errors"))
    return {name: count for name, count in told if count is not None}


FORMAT = Format(
    name="csv",
    title="a CSV table",
    files="columns called like tokrig's own",
    kinds=frozenset({"csv"}),
    signatures=tuple(frozenset({f"{name}_{part}"}) for name in _SUMMARIES for part in _PARTS),
    read=_read,
    takes=_TAKES,
    codes=("token_count_unverified", "warm_up_untold"),
)
