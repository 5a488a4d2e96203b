"""llama-benchy: ``--format json`` (``--save-result``).

Fields after ``llama_benchy/results.py`` (eugr/llama-benchy, 0.4.0). All figures have their values,
so medians are of these. A token is a chunk there (``token_timestamps``): too few where a chunk
carries several, as with speculative decoding. Prefill is prompt tokens by the time to the first
response, less a latency that was measured before; of several requests at once it is prompt tokens
by the time until the last first token. A run that only fills the context is no measurement of an
answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokrig.exchange.format import MS, Format, Take
from tokrig.exchange.values import V, Value


def _of(
    field: str, figure: str, scale: float = 1.0, *codes: str, when: Value = True
) -> Iterator[Take]:
    yield Take(f"{field}.values", f"{figure}.values", scale, codes, when=when)
    yield Take(f"{field}.mean", f"{figure}.mean", scale, codes, when=when)


# Its prompt tokens are those of the request: what the cache had is not among them.
_UNCACHED: Value = V.not_(V.flag("^prefix_caching_enabled"))

FORMAT = Format(
    name="llama-benchy",
    title="llama-benchy",
    files="the JSON of --format json --save-result",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"version", "latency_mode", "prefix_caching_enabled", "model", "benchmarks"}),
    ),
    rows=("benchmarks",),
    skip=V.if_(V.flag("is_context_prefill_phase"), "a run that only fills the context"),
    facts={"model.name": V.text("^model"), "version": V.text("^version")},
    result={
        "prompt": V.count("prompt_size"),
        "answer": V.count("response_size"),
        "depth_tokens": V.count("context_size"),
        "concurrency": V.required(
            V.count("concurrency"), "concurrency", "nothing says how many requests were in flight"
        ),
    },
    takes=(
        *_of("tg_req_throughput", "output_tok_per_s", 1.0, "chunks_as_tokens"),
        *_of("pp_req_throughput", "prefill_tok_per_s", 1.0, "prefill_from_ttft", when=_UNCACHED),
        *_of("e2e_ttft", "ttft_s", MS),
    ),
    codes=("warm_up_untold",),
)
