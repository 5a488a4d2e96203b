"""A plain CSV with columns called like tokrig's own.

Names and meanings are those of the site's data file (``store/table.py``); numbers have a point for
decimals and nothing between thousands. Needed are a model (``family``), unless the command line
names it, and at least one figure. A column that is none of tokrig's is refused, with the nearest.
"""

from __future__ import annotations

from tokrig.exchange.format import Format, Take
from tokrig.exchange.values import V
from tokrig.record.metrics import METRICS
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
COLUMNS = (*_OF_RUN, *_OF_RIG, *_OF_CELL, *(str(take.field) for take in _TAKES))
"""The columns that are read, all of them optional but the model's family and one figure."""
_WORKLOAD = V.first(V.text("workload"), "table")

FORMAT = Format(
    name="csv",
    title="a CSV table",
    files="columns called like tokrig's own",
    kinds=frozenset({"csv"}),
    signatures=tuple(frozenset({f"{name}_{part}"}) for name in _SUMMARIES for part in _PARTS),
    columns=COLUMNS,
    ignored=tuple(column.name for column in table.COLUMNS if column.name not in COLUMNS),
    facts={
        "model.family": V.text("family"),
        "model.variant": V.text("variant"),
        "model.quant": V.text("quant"),
        "model.parameters": V.first(V.count("parameters"), None),
        "model.bits_per_weight": V.positive("bits_per_weight"),
        "engine": V.text("engine"),
        "build": V.text("build"),
        "api": V.text("api"),
        "rig.cpu": V.text("cpu"),
        "rig.gpu": V.text("gpu"),
        "rig.vram_gb": V.times(V.count("gpu_vram_bytes"), 1 / GIB),
        "rig.cores": V.count("cpu_cores"),
        "rig.memory_bytes": V.count("memory_bytes"),
        "rig.os": V.text("os"),
        "rig.kernel": V.text("kernel"),
    },
    result={
        "requests": V.count("requests"),
        "request_errors": V.count("request_errors"),
        "prefill_source": V.one_of("prefill_source", "server", "ttft_derived"),
        "workload": V.if_(V.begins(_WORKLOAD, "csv-"), _WORKLOAD, V.words("csv-{}", _WORKLOAD)),
        "prompt": V.first(V.count("prompt_tokens_target"), None),
        "answer": V.first(V.count("answer_tokens_target"), None),
        "concurrency": V.first(V.count("concurrency"), 1),
        "depth_tokens": V.count("depth_tokens"),
    },
    takes=_TAKES,
    codes=("token_count_unverified", "warm_up_untold"),
)
