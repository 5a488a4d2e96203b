"""AIPerf: ``profile_export_aiperf.json``, and its CSV.

Fields after ``aiperf/common/models/export_models.py`` and ``aiperf/metrics/types`` (ai-dynamo/
aiperf, 0.13.0); units stand beside the values and are looked at. Its inter-token latency is
(latency − TTFT) / (tokens − those of the first chunk) of each request: TPOT, percentiles of means.
Its prefill rate is prompt tokens by TTFT. Times of begin and end have no time zone. The CSV names
no model.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokrig.exchange.format import MS, Format, Take
from tokrig.exchange.values import V

_PARTS = {"p50": "median", "avg": "mean", "min": "min", "max": "max", "count": "n"}
_ICL = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max", "count": "n"}


def _of(metric: str, figure: str, scale: float, *codes: str) -> Iterator[Take]:
    parts = _ICL if figure == "icl_s" else _PARTS
    for part, ours in parts.items():
        yield Take(f"{metric}.{part}", f"{figure}.{ours}", 1.0 if ours == "n" else scale, codes)


_GOOD = V.count("request_count.avg")
# How requests followed each other: of the last phase, which is the measured one.
_PHASES = ("input_config.phases.-1", "input_config.loadgen")
_RATE = V.first(
    *(V.positive(f"{at}.{name}") for at in _PHASES for name in ("rate", "request_rate"))
)

FORMAT = Format(
    name="aiperf",
    title="AIPerf",
    files="profile_export_aiperf.json, or its CSV",
    kinds=frozenset({"json", "csv"}),
    signatures=(
        frozenset({"input_config", "request_throughput.unit", "request_latency.unit"}),
        frozenset({"Metric", "avg", "min", "max", "p50", "p99"}),
    ),
    made_by="metrics",
    units={
        "time_to_first_token": "ms",
        "inter_token_latency": "ms",
        "inter_chunk_latency": "ms",
        "output_token_throughput_per_user": "tokens/sec/user",
        "prefill_throughput_per_user": "tokens/sec/user",
        "output_token_throughput": "tokens/sec",
        "input_sequence_length": "tokens",
        "output_sequence_length": "tokens",
        "request_count": "requests",
        "error_request_count": "requests",
    },
    facts={
        "model.name": V.text(
            "input_config.endpoint.model_names.0", "input_config.models.items.0.name"
        ),
        "version": V.text("aiperf_version"),
        "complete": V.not_(
            V.any_(V.flag("was_cancelled"), V.is_(V.flag("is_complete"), False)),
        ),
    },
    result={
        "requests": V.sum(_GOOD, V.count("error_request_count.avg")),
        "request_errors": V.if_(V.is_(_GOOD, None), None, V.count("error_request_count.avg")),
        "load": V.if_(_RATE, "poisson", "closed"),
        "rate_per_s": _RATE,
        "concurrency": V.required(
            V.first(*(V.count(f"{at}.concurrency") for at in _PHASES), _GOOD),
            "request_count",
            "nothing says how many requests there were",
        ),
    },
    takes=(
        *_of("inter_token_latency", "tpot_s", MS, "first_chunk_assumed"),
        *_of("output_token_throughput_per_user", "output_tok_per_s", 1.0),
        *_of("time_to_first_token", "ttft_s", MS),
        *_of("prefill_throughput_per_user", "prefill_tok_per_s", 1.0, "prefill_from_ttft"),
        *_of("inter_chunk_latency", "icl_s", MS, "chunks_at_once"),
        *_of("input_sequence_length", "prompt_tokens", 1.0),
        *_of("output_sequence_length", "output_tokens", 1.0),
        Take("output_token_throughput.avg", "system_tok_per_s.median"),
    ),
    codes=("token_count_unverified", "warm_up_untold"),
    left_out=(
        V.if_(
            V.has("inter_token_latency"),
            "percentiles of inter-token latency: they are of the requests' means, not of gaps",
        ),
    ),
)
