"""One benchmark of ``vllm bench serve``, or of a tool that grew from it: the same fields."""

from __future__ import annotations

from collections.abc import Mapping

from tokrig.exchange.format import MS, Take
from tokrig.exchange.values import V, Value


def _each(total: str) -> Value:
    return V.over(V.positive(total), V.count("completed"))


SERVING = (
    Take("median_tpot_ms", "tpot_s.median", MS, ("first_chunk_assumed",)),
    Take("mean_tpot_ms", "tpot_s.mean", MS, ("first_chunk_assumed",)),
    Take("median_tpot_ms", "output_tok_per_s.median", MS, inverse=True),
    Take("mean_tpot_ms", "output_tok_per_s.mean", MS, inverse=True),
    Take("median_ttft_ms", "ttft_s.median", MS),
    Take("mean_ttft_ms", "ttft_s.mean", MS),
    Take("ttfts", "ttft_s.values"),
    Take("median_itl_ms", "icl_s.p50", MS, ("chunks_at_once",)),
    Take("p90_itl_ms", "icl_s.p90", MS, ("chunks_at_once",)),
    Take("p95_itl_ms", "icl_s.p95", MS, ("chunks_at_once",)),
    Take("p99_itl_ms", "icl_s.p99", MS, ("chunks_at_once",)),
    Take("max_itl_ms", "icl_s.max", MS, ("chunks_at_once",)),
    Take("output_throughput", "system_tok_per_s.median"),
    # With details, requests that failed have zeros among the values; these are left out there.
    Take("input_lens", "prompt_tokens.values"),
    Take("output_lens", "output_tokens.values"),
    Take(_each("total_input_tokens"), "prompt_tokens.mean", rank=1),
    Take(_each("total_output_tokens"), "output_tokens.mean", rank=1),
)
"""Their fields: 1 / TPOT is the decode rate, so both come from one field."""
UNSAID = ("token_count_unverified", "warm_up_untold")
"""What none of their files says: who counted the tokens, whether there was a warm-up."""

_LENGTHS_HOLD = V.is_(V.text("dataset_name"), None, "random", "random-ids")
# Requests at a rate arrive by themselves; at an infinite one they follow each other, or come all at
# once.
_LOAD = V.if_(
    V.endless("request_rate"),
    "closed",
    V.if_(
        V.equals("request_rate", "trace"),
        "trace",
        V.if_(V.is_(V.positive("burstiness"), None, 1), "poisson", "gamma"),
    ),
)
_HAS_RATE = V.not_(V.any_(V.endless("request_rate"), V.equals("request_rate", "trace")))


def served(*asked: str) -> Mapping[str, Value]:
    """The fields of a result. ``asked`` are fields with the number of prompts, for tools that tell
    no failed requests."""
    completed = V.count("completed")
    failed = V.count("failed")
    if asked:
        unanswered = V.less(V.count(*asked), completed)
        failed = V.if_(V.is_(failed, None), unanswered, failed)
    return {
        "requests": V.sum(completed, failed),
        "request_errors": V.if_(V.is_(completed, None), None, failed),
        "prompt": V.if_(_LENGTHS_HOLD, V.count("random_input_len")),
        "answer": V.if_(_LENGTHS_HOLD, V.count("random_output_len")),
        "load": _LOAD,
        "rate_per_s": V.if_(_HAS_RATE, V.positive("request_rate")),
        # As many as were let, else all of them.
        "concurrency": V.required(
            V.first(V.count("max_concurrency"), *map(V.count, asked), completed),
            "max_concurrency",
            "neither this nor a number of prompts is there",
        ),
    }
