"""``vllm bench serve --save-result``, with ``--save-detailed`` and ``--append-result`` too.

Fields after ``vllm/benchmarks/serve.py`` (vllm-project/vllm, 0.32.0). TPOT is (latency − TTFT) /
(tokens − 1), as tokrig has it where the first chunk carries one token. ITL are the gaps between
chunks, those of chunks that came at once included. Tokens of answers are those that the server
counts, else of its text by a tokenizer. ``backend`` is a dialect, not the engine that answered;
``date`` is in a time zone that the file does not tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.exchange.document import Document
from tokrig.exchange.format import UNKNOWN_ENGINE, Format, Found, objects
from tokrig.exchange.models import model_of
from tokrig.exchange.serving import SERVING, UNSAID, serving_result
from tokrig.record.model import BackendFacts


def _read(document: Document) -> Iterable[Found]:
    by_model: dict[str | None, Found] = {}
    for one in objects(document):
        name = one.text("model_id")
        found = by_model.setdefault(
            name,
            Found(
                model=model_of(name),
                backend=BackendFacts(name=FORMAT.name, engine=UNKNOWN_ENGINE),
            ),
        )
        found.results.append(serving_result(one, FORMAT, asked=("num_prompts",)))
    return by_model.values()


FORMAT = Format(
    name="vllm-bench",
    title="vllm bench serve",
    files="the JSON of --save-result, with --save-detailed or --append-result",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"model_id", "tokenizer_id", "num_prompts", "request_throughput", "duration"}),
    ),
    read=_read,
    takes=SERVING,
    codes=UNSAID,
)
