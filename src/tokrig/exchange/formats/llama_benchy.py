"""llama-benchy: ``--format json`` (``--save-result``).

Fields after ``llama_benchy/results.py`` (eugr/llama-benchy, 0.4.0). All figures have their values,
so medians are of these. A token is a chunk there (``token_timestamps``): too few where a chunk
carries several, as with speculative decoding. Prefill is prompt tokens by the time to the first
response, less a latency that was measured before; of several requests at once it is prompt tokens
by the time until the last first token. A run that only fills the context is no measurement of an
answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def _of(field: str, figure: str, scale: float = 1.0, *codes: str) -> Iterator[Take]:
    yield Take(f"{field}.values", f"{figure}.values", scale, codes)
    yield Take(f"{field}.mean", f"{figure}.mean", scale, codes)


_TAKES = (
    *_of("tg_req_throughput", "output_tok_per_s", 1.0, "chunks_as_tokens"),
    *_of("pp_req_throughput", "prefill_tok_per_s", 1.0, "prefill_from_ttft"),
    *_of("e2e_ttft", "ttft_s", MS),
)


def _read(document: Document) -> Iterable[Found]:
    for report in objects(document):
        name = report.text("model")
        found = Found(
            model=model_of(name),
            backend=BackendFacts(name=FORMAT.name, engine=UNKNOWN_ENGINE),
            version=report.text("version"),
        )
        cached = report.flag("prefix_caching_enabled")
        for one in report.each("benchmarks"):
            if one.flag("is_context_prefill_phase"):
                found.left_out["a run that only fills the context"] = None
            else:
                found.results.append(_result(one, bool(cached)))
        yield found


def _result(one: Fields, cached: bool) -> Result:
    figures, codes = figures_of(one, _TAKES)
    if cached:
        # Its prompt tokens are those of the request: what the cache had is not among them.
        figures.pop("prefill_tok_per_s", None)
    prompt, answer = one.count("prompt_size"), one.count("response_size")
    depth, at_once = one.count("context_size") or 0, one.count("concurrency")
    if not at_once:
        raise one.refuse("concurrency", "nothing says how many requests were in flight")
    workload = shape(FORMAT.name, prompt, answer)
    if depth and prompt:
        workload = workload.model_copy(update={"prompt_tokens": depth + prompt})
    return result_of(
        figures,
        [*FORMAT.codes, *codes],
        workload=workload,
        concurrency=at_once,
        depth_tokens=depth,
    )


FORMAT = Format(
    name="llama-benchy",
    title="llama-benchy",
    files="the JSON of --format json --save-result",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"version", "latency_mode", "prefix_caching_enabled", "model", "benchmarks"}),
    ),
    read=_read,
    takes=_TAKES,
    codes=("warm_up_untold",),
)
