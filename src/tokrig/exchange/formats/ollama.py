"""Ollama: what ``ollama run --verbose`` prints, and the last object of its API's answers.

Fields after ``Metrics`` of ``api/types.go`` (ollama/ollama): durations in nanoseconds, printed as
Go writes them; a zero is left out. A rate is tokens by the engine's own clock: it begins at the
first token, but counts it. What of the prompt was cached is not told. The printed form names no
model.
"""

from __future__ import annotations

from tokrig.exchange.format import NS, Format, Take
from tokrig.exchange.values import V

FORMAT = Format(
    name="ollama",
    title="Ollama",
    files="the text of ollama run --verbose, or the JSON of its API",
    kinds=frozenset({"json", "text"}),
    signatures=(
        frozenset({"eval count:", "eval duration:", "eval rate:"}),
        frozenset({"model", "created_at", "done"}),
    ),
    made_by="printed",
    only=V.all_(V.count("eval_count"), V.number("eval_duration")),
    facts={"model.name": V.text("model"), "engine": "Ollama"},
    # Requests that were sent one after the other, as the file has them.
    gathered={
        "rates": V.over(V.count("eval_count"), V.times(V.positive("eval_duration"), NS)),
        "prompt_rates": V.over(
            V.count("prompt_eval_count"), V.times(V.positive("prompt_eval_duration"), NS)
        ),
        "prompt_tokens": V.count("prompt_eval_count"),
        "tokens": V.count("eval_count"),
    },
    result={"requests": V.count("answers"), "prefill_source": "server"},
    takes=(
        Take("rates", "output_tok_per_s.values", 1.0, ("engine_clock",)),
        Take("prompt_rates", "prefill_tok_per_s.values", 1.0, ("cache_untold",)),
        Take("prompt_tokens", "prompt_tokens.values"),
        Take("tokens", "output_tokens.values"),
    ),
    codes=("warm_up_untold",),
)
