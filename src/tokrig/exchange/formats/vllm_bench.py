"""``vllm bench serve --save-result``, with ``--save-detailed`` and ``--append-result`` too.

Fields after ``vllm/benchmarks/serve.py`` (vllm-project/vllm, 0.32.0). TPOT is (latency − TTFT) /
(tokens − 1), as tokrig has it where the first chunk carries one token. ITL are the gaps between
chunks, those of chunks that came at once included. Tokens of answers are those that the server
counts, else of its text by a tokenizer. ``backend`` is a dialect, not the engine that answered;
``date`` is in a time zone that the file does not tell.
"""

from __future__ import annotations

from tokrig.exchange.format import Format
from tokrig.exchange.serving import SERVING, UNSAID, served
from tokrig.exchange.values import V

FORMAT = Format(
    name="vllm-bench",
    title="vllm bench serve",
    files="the JSON of --save-result, with --save-detailed or --append-result",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"model_id", "tokenizer_id", "num_prompts", "request_throughput", "duration"}),
    ),
    facts={"model.name": V.text("model_id")},
    result=served("num_prompts"),
    takes=SERVING,
    codes=UNSAID,
)
