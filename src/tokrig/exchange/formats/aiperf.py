"""AIPerf: ``profile_export_aiperf.json``, and its CSV.

Fields after ``aiperf/common/models/export_models.py`` and ``aiperf/metrics/types`` (ai-dynamo/
aiperf, 0.13.0); units stand beside the values and are looked at. Its inter-token latency is
(latency − TTFT) / (tokens − those of the first chunk) of each request: TPOT, percentiles of means.
Its prefill rate is prompt tokens by TTFT. Times of begin and end have no time zone. The CSV names
no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import (
    MS,
    UNKNOWN_ENGINE,
    Format,
    Found,
    Take,
    figures_of,
    objects,
    result_of,
    shape,
)
from tokrig.exchange.models import model_of
from tokrig.record.model import BackendFacts, Result
from tokrig.record.samples import Load

_PARTS = {"p50": "median", "avg": "mean", "min": "min", "max": "max", "count": "n"}
_ICL = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max", "count": "n"}
# The units that the fields of each metric are in; other ones are refused.
_UNITS = {
    "time_to_first_token": "ms",
    "inter_token_latency": "ms",
    "inter_chunk_latency": "ms",
    "output_token_throughput_per_user": "tokens/sec/user",
    "prefill_throughput_per_user": "tokens/sec/user",
    "output_token_throughput": "tokens/sec",
    "input_sequence_length": "tokens",
    "output_sequence_length": "tokens",
}


def _of(metric: str, figure: str, scale: float, *codes: str) -> Iterator[Take]:
    parts = _ICL if figure == "icl_s" else _PARTS
    for part, ours in parts.items():
        yield Take(f"{metric}.{part}", f"{figure}.{ours}", 1.0 if ours == "n" else scale, codes)


_TAKES = (
    *_of("inter_token_latency", "tpot_s", MS, "first_chunk_assumed"),
    *_of("output_token_throughput_per_user", "output_tok_per_s", 1.0),
    *_of("time_to_first_token", "ttft_s", MS),
    *_of("prefill_throughput_per_user", "prefill_tok_per_s", 1.0, "prefill_from_ttft"),
    *_of("inter_chunk_latency", "icl_s", MS, "chunks_at_once"),
    *_of("input_sequence_length", "prompt_tokens", 1.0),
    *_of("output_sequence_length", "output_tokens", 1.0),
    Take("output_token_throughput.avg", "system_tok_per_s.median"),
)
# The CSV's names of metrics, ``Time to First Token (ms)``, as the JSON has them.
_HEADERS = {
    "Time to First Token": "time_to_first_token",
    "Inter Token Latency": "inter_token_latency",
    "Inter Chunk Latency": "inter_chunk_latency",
    "Output Token Throughput Per User": "output_token_throughput_per_user",
    "Prefill Throughput Per User": "prefill_throughput_per_user",
    "Output Token Throughput": "output_token_throughput",
    "Input Sequence Length": "input_sequence_length",
    "Output Sequence Length": "output_sequence_length",
    "Request Count": "request_count",
    "Error Request Count": "error_request_count",
    "Request Throughput": "request_throughput",
}
_HEADER = re.compile(r"(?P<name>[^()]+?)(?: \((?P<unit>[^()]+)\))?")
_PER_REQUEST = "percentiles of inter-token latency: they are of the requests' means, not of gaps"


def _read(document: Document) -> Iterable[Found]:
    reports = [_of_csv(document)] if document.kind == "csv" else objects(document)
    for report in reports:
        _look_at_units(report)
        name = _first(
            report, "input_config.endpoint.model_names.0", "input_config.models.items.0.name"
        )
        found = Found(
            model=model_of(name),
            backend=BackendFacts(name=FORMAT.name, engine=UNKNOWN_ENGINE),
            version=report.text("aiperf_version"),
            complete=not report.flag("was_cancelled") and report.flag("is_complete") is not False,
            results=[_result(report)],
        )
        if report.has("inter_token_latency"):
            found.left_out[_PER_REQUEST] = None
        yield found


def _first(of: Fields, *paths: str) -> str | None:
    return next((found for path in paths if (found := of.text(path))), None)


def _look_at_units(report: Fields) -> None:
    for metric, unit in _UNITS.items():
        told = report.text(f"{metric}.unit")
        if told is not None and told.lower() != unit:
            raise report.refuse(f"{metric}.unit", f"should be {unit!r}, not {told[:40]!r}")


def _of_csv(document: Document) -> Fields:
    """The CSV's rows as the JSON has them; numbers are looked at when they are read."""
    found: dict[str, Any] = {}
    for row in objects(document):
        match = _HEADER.fullmatch(str(row.get("Metric") or ""))
        if match is None or match["name"] not in _HEADERS:
            continue
        cells = {name: row.number(name) for name in row.data if name not in ("Metric", "")}
        metric = _HEADERS[match["name"]]
        found[metric] = {"unit": match["unit"], "avg": cells.pop("Value", None)} | cells
    return Fields(found, document.name)


def _result(report: Fields) -> Result:
    figures, codes = figures_of(report, _TAKES)
    good = report.count("request_count.avg")
    errors = report.count("error_request_count.avg")
    if good is not None:
        figures |= {"requests": good + (errors or 0), "request_errors": errors}
    load, rate, at_once = _load(report, good)
    return result_of(
        figures,
        [*FORMAT.codes, *codes],
        workload=shape(FORMAT.name, None, None),
        concurrency=at_once,
        load=load,
        rate_per_s=rate,
    )


def _load(report: Fields, requests: int | None) -> tuple[Load, float | None, int]:
    """How requests followed each other: of the last phase, which is the measured one."""
    phases = report.get("input_config.phases")
    last = f"input_config.phases.{len(phases) - 1}" if isinstance(phases, list) and phases else ""
    places = [last] if last else ["input_config.loadgen"]
    at_once = next((n for at in places if (n := report.count(f"{at}.concurrency"))), None)
    paths = (f"{at}.{name}" for at in places for name in ("rate", "request_rate"))
    rate = next((found for path in paths if (found := report.positive(path))), None)
    most = at_once or requests
    if not most:
        raise report.refuse("request_count", "nothing says how many requests there were")
    return ("poisson" if rate else "closed"), rate, most


FORMAT = Format(
    name="aiperf",
    title="AIPerf",
    files="profile_export_aiperf.json, or its CSV",
    kinds=frozenset({"json", "csv"}),
    signatures=(
        frozenset({"input_config", "request_throughput.unit", "request_latency.unit"}),
        frozenset({"Metric", "avg", "min", "max", "p50", "p99"}),
    ),
    read=_read,
    takes=_TAKES,
    codes=("token_count_unverified", "warm_up_untold"),
)
