"""One benchmark of ``vllm bench serve``, or of a tool that grew from it: the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokrig.exchange.fields import Fields
from tokrig.exchange.format import MS, Format, Take, figures_of, result_of, shape, summary
from tokrig.record.model import Result
from tokrig.record.samples import Load
from tokrig.units import significant

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
    Take("input_lens", "prompt_tokens.values"),
    Take("output_lens", "output_tokens.values"),
)
"""Their fields: 1 / TPOT is the decode rate, so both come from one field."""
UNSAID = ("token_count_unverified", "warm_up_untold")
"""What none of their files says: who counted the tokens, whether there was a warm-up."""


def serving_result(one: Fields, of: Format, *, asked: Sequence[str] = ()) -> Result:
    """Its figures. ``asked`` are fields with the number of prompts, for tools that tell no failed
    requests."""
    completed, failed = one.count("completed"), one.count("failed")
    prompts = next((count for name in asked if (count := one.count(name))), None)
    if failed is None and completed is not None and prompts is not None and prompts >= completed:
        failed = prompts - completed
    # With details, requests that failed have zeros among the values; these are left out there.
    figures, codes = figures_of(one, of.takes)
    for name, total in (
        ("prompt_tokens", "total_input_tokens"),
        ("output_tokens", "total_output_tokens"),
    ):
        tokens = one.positive(total)
        if name not in figures and tokens and completed:
            figures[name] = summary(mean=significant(tokens / completed, 6))
            codes.append("mean_not_median")
    if completed is not None:
        figures["requests"] = completed + (failed or 0)
        figures["request_errors"] = failed
    lengths = [one.count(name) for name in ("random_input_len", "random_output_len")]
    is_random = one.text("dataset_name") in (None, "random", "random-ids")
    load, rate = _load(one)
    return result_of(
        figures,
        [*of.codes, *codes],
        workload=shape(of.name, *(lengths if is_random else (None, None))),
        concurrency=_at_once(one, load, prompts or completed),
        load=load,
        rate_per_s=rate,
    )


def _load(one: Fields) -> tuple[Load, float | None]:
    """Requests at a rate arrive by themselves; at an infinite one they follow each other, or come
    all at once."""
    told = one.get("request_rate")
    if told in (None, "inf", float("inf")):
        return "closed", None
    if told == "trace":
        return "trace", None
    rate, burstiness = one.positive("request_rate"), one.positive("burstiness")
    return ("poisson" if burstiness in (None, 1.0) else "gamma"), rate


def _at_once(one: Fields, load: Load, prompts: int | None) -> int:
    """How many requests were in flight at most: as many as were let, else all of them."""
    most: Any = one.count("max_concurrency") or prompts
    if most:
        return int(most)
    raise one.refuse("max_concurrency", "neither this nor a number of prompts is there")
