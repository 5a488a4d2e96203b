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

from collections.abc import Iterator

from tokrig.exchange.format import MS, Format, Take
from tokrig.exchange.values import V, Value


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


def _each(field: str, figure: str, *codes: str, inverse: bool = False) -> Take:
    """Those of all requests, where the file has them."""
    of_each = V.column(f"requests.successful.*.{field}")
    return Take(of_each, f"{figure}.values", MS, codes, inverse, when=_HAS_ALL)


def _strategy(name: str) -> list[str]:
    return [f"{at}.strategy.{name}" for at in ("config", "args")]


# Its own medians of these are weighted by tokens, so their count is of tokens.
_BY_TOKENS = ("first_chunk_assumed", "weighted_by_tokens")
_WEIGHTED = frozenset({"inter_token_latency_ms", "time_per_output_token_ms"})
_ANSWERED = V.count("metrics.request_totals.successful")
_HAS_ALL = V.all_(
    V.object("requests"), V.is_(V.less(_ANSWERED, V.length("requests.successful")), 0)
)
_KIND = V.text(*_strategy("type_"), *_strategy("kind"))
_LOAD: Value = V.in_(
    _KIND, {"constant": "constant", "poisson": "poisson", "trace": "trace"}, "closed"
)
_STARTS = ("scheduler_metrics.start_time", "run_stats.start_time", "start_time")

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
    rows=("benchmarks",),
    facts={
        "model.name": V.text(
            *("config.backend.model", "worker.backend_model", "config.backend.attributes.model"),
            *("benchmarker.backend.model", "^args.model", "^config.spec.backend.model"),
        ),
        "version": V.text("^metadata.guidellm_version"),
        "started_at": V.moment(V.first(*map(V.positive, _STARTS))),
    },
    result={
        "requests": V.sum(_ANSWERED, V.count("metrics.request_totals.errored")),
        "request_errors": V.if_(
            V.is_(_ANSWERED, None), None, V.count("metrics.request_totals.errored")
        ),
        "load": _LOAD,
        "rate_per_s": V.if_(V.is_(_LOAD, "closed"), None, V.positive(*_strategy("rate"))),
        "concurrency": V.required(
            V.first(
                V.if_(V.is_(_KIND, "synchronous"), 1),
                V.count(*_strategy("streams")),
                V.count(*_strategy("max_concurrency")),
                V.nearest(V.positive("metrics.request_concurrency.successful.max")),
            ),
            "config.strategy.streams",
            "nothing says how many requests were in flight",
        ),
    },
    takes=(
        _each("inter_token_latency_ms", "tpot_s", "first_chunk_assumed"),
        _each("inter_token_latency_ms", "output_tok_per_s", inverse=True),
        _each("time_to_first_token_ms", "ttft_s"),
        *_of("inter_token_latency_ms", "tpot_s", MS, *_BY_TOKENS, rank=1),
        *_of("time_per_output_token_ms", "tpot_s", MS, "tpot_with_ttft", rank=2),
        *_of("inter_token_latency_ms", "output_tok_per_s", MS, *_BY_TOKENS, inverse=True, rank=1),
        *_of(
            "time_per_output_token_ms",
            "output_tok_per_s",
            MS,
            "tpot_with_ttft",
            inverse=True,
            rank=2,
        ),
        *_of("time_to_first_token_ms", "ttft_s", MS, rank=1),
        *_of("prompt_token_count", "prompt_tokens", 1.0),
        *_of("output_token_count", "output_tokens", 1.0),
        Take("metrics.output_tokens_per_second.successful.mean", "system_tok_per_s.median"),
    ),
    codes=("token_count_unverified", "warm_up_untold"),
    left_out=("percentiles of inter-token latency: they are of the requests' means, not of gaps",),
)
