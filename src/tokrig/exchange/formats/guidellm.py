"""GuideLLM: ``benchmarks.json`` of its report, schemas of 0.2 to 0.8.

Fields after ``guidellm/benchmark/schemas`` and ``guidellm/schemas/base/request_stats.py``
(vllm-project/guidellm, 0.8.1; the older schema: ``src/guidellm/benchmark/benchmark.py``, commit
47ce29248e510dd6852133a7e833efed30a96a16). Its inter-token latency is (last token − first) /
(tokens − 1) of each request: TPOT, percentiles of means, weighted by tokens; where the file has all
requests, medians are of these instead. Its own TPOT (``time_per_output_token``)
counts from the request, TTFT within; older ones divide by one token more. It is taken where there
is nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

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


def _of(
    field: str, figure: str, scale: float, *codes: str, inverse: bool = False, rank: int = 0
) -> Iterator[Take]:
    """A distribution over the requests that were answered."""
    told = {"median": "median", "mean": "mean", "min": "min", "max": "max", "count": "n"}
    for part, ours in told.items():
        if ours == "n" and field in _WEIGHTED:
            continue
        path = f"metrics.{field}.successful.{part}"
        turned = inverse and ours != "n"
        yield Take(path, f"{figure}.{ours}", scale if ours != "n" else 1.0, codes, turned, rank)


# Its own medians of these are weighted by tokens, so their count is of tokens.
_BY_TOKENS = ("first_chunk_assumed", "weighted_by_tokens")
_WEIGHTED = frozenset({"inter_token_latency_ms", "time_per_output_token_ms"})
_OF_EACH = ("inter_token_latency_ms", "time_to_first_token_ms")
_PER_REQUEST = "percentiles of inter-token latency: they are of the requests' means, not of gaps"
_LOADS: dict[str, Load] = {"constant": "constant", "poisson": "poisson", "trace": "trace"}
_TAKES = (
    Take("each.inter_token_latency_ms", "tpot_s.values", MS, ("first_chunk_assumed",)),
    Take("each.inter_token_latency_ms", "output_tok_per_s.values", MS, inverse=True),
    Take("each.time_to_first_token_ms", "ttft_s.values", MS),
    *_of("inter_token_latency_ms", "tpot_s", MS, *_BY_TOKENS, rank=1),
    *_of("time_per_output_token_ms", "tpot_s", MS, "tpot_with_ttft", rank=2),
    *_of("inter_token_latency_ms", "output_tok_per_s", MS, *_BY_TOKENS, inverse=True, rank=1),
    *_of(
        "time_per_output_token_ms", "output_tok_per_s", MS, "tpot_with_ttft", inverse=True, rank=2
    ),
    *_of("time_to_first_token_ms", "ttft_s", MS, rank=1),
    *_of("prompt_token_count", "prompt_tokens", 1.0),
    *_of("output_token_count", "output_tokens", 1.0),
    Take("metrics.output_tokens_per_second.successful.mean", "system_tok_per_s.median"),
)


def _read(document: Document) -> Iterable[Found]:
    for report in objects(document):
        by_model: dict[str | None, Found] = {}
        for one in report.each("benchmarks"):
            name = _model(report, one)
            found = by_model.setdefault(
                name,
                Found(
                    model=model_of(name),
                    backend=BackendFacts(name=FORMAT.name, engine=UNKNOWN_ENGINE),
                    version=report.text("metadata.guidellm_version"),
                ),
            )
            found.results.append(_result(one))
            found.left_out[_PER_REQUEST] = None
            began = _moment(
                one, "scheduler_metrics.start_time", "run_stats.start_time", "start_time"
            )
            found.started_at = min(filter(None, (found.started_at, began)), default=None)
        yield from by_model.values()


def _model(report: Fields, one: Fields) -> str | None:
    places = (
        *((one, path) for path in ("config.backend.model", "worker.backend_model")),
        *((one, path) for path in ("config.backend.attributes.model", "benchmarker.backend.model")),
        *((report, path) for path in ("args.model", "config.spec.backend.model")),
    )
    return next((name for of, path in places if (name := of.text(path))), None)


def _result(one: Fields) -> Result:
    figures, codes = figures_of(_with_each(one), _TAKES)
    totals = [one.count(f"metrics.request_totals.{name}") for name in ("successful", "errored")]
    if totals[0] is not None:
        figures |= {"requests": sum(filter(None, totals)), "request_errors": totals[1]}
    load, rate, at_once = _load(one)
    return result_of(
        figures,
        [*FORMAT.codes, *codes],
        workload=shape(FORMAT.name, None, None),
        concurrency=at_once,
        load=load,
        rate_per_s=rate,
    )


def _with_each(one: Fields) -> Fields:
    """The same with the figures of its requests in lists, where the file has all of them."""
    each: dict[str, list[float]] = {}
    answered = one.each("requests.successful") if one.inside("requests") else []
    if len(answered) == one.count("metrics.request_totals.successful"):
        for name in _OF_EACH:
            values = [request.positive(name) for request in answered]
            each[name] = [value for value in values if value]
    return Fields({**one.data, "each": each}, one.name, one.place)


def _load(one: Fields) -> tuple[Load, float | None, int]:
    """How requests followed each other, at which rate, and how many were in flight at most."""
    at = "config.strategy" if one.inside("config.strategy") else "args.strategy"
    kind = one.text(f"{at}.type_") or one.text(f"{at}.kind")
    streams = one.count(f"{at}.streams") or one.count(f"{at}.max_concurrency")
    if kind == "synchronous":
        streams = 1
    reached = one.positive("metrics.request_concurrency.successful.max")
    at_once = streams or (reached and max(1, round(reached)))
    if not at_once:
        raise one.refuse(f"{at}.streams", "nothing says how many requests were in flight")
    load = _LOADS.get(kind or "", "closed")
    return load, one.positive(f"{at}.rate") if load != "closed" else None, int(at_once)


def _moment(one: Fields, *paths: str) -> str | None:
    seconds = next((found for path in paths if (found := one.positive(path))), None)
    if seconds is None or not 1e9 < seconds < 1e10:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


FORMAT = Format(
    name="guidellm",
    title="GuideLLM",
    files="benchmarks.json",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset(
            {
                "benchmarks",
                "benchmarks.0.metrics.time_to_first_token_ms",
                "benchmarks.0.metrics.inter_token_latency_ms",
            }
        ),
    ),
    read=_read,
    takes=_TAKES,
    codes=("token_count_unverified", "warm_up_untold"),
)
