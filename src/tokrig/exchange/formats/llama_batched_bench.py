"""llama-batched-bench of llama.cpp: JSON lines, and its table.

Fields after ``tools/batched-bench/batched-bench.cpp`` (ggml-org/llama.cpp, b11434). A row is
``pl`` sequences of ``pp`` prompt tokens, then ``tg`` tokens each, measured once; its rates are of
all sequences together. The file names no model.
"""

from __future__ import annotations

from tokrig.exchange.format import Format
from tokrig.exchange.values import V

_PROMPT, _OUTPUT = V.first(V.count("pp", "PP"), 0), V.first(V.count("tg", "TG"), 0)
_AT_ONCE = V.required(V.count("pl", "B"), "pl", "a test of no sequences")

FORMAT = Format(
    name="llama-batched-bench",
    title="llama-batched-bench",
    files="--output-format jsonl or md",
    kinds=frozenset({"json", "markdown"}),
    signatures=(
        frozenset({"pp", "tg", "pl", "speed_pp", "speed_tg"}),
        frozenset({"PP", "TG", "B", "S_PP t/s", "S_TG t/s"}),
    ),
    names_model=False,
    facts={
        "engine": "llama.cpp",
        "resolved.context_total": V.setting("n_kv_max"),
        "resolved.threads": V.setting("n_threads"),
        "resolved.threads_batch": V.setting("n_threads_batch"),
        "resolved.batch": V.setting("n_batch"),
        "resolved.ubatch": V.setting("n_ubatch"),
        "resolved.flash_attention": V.in_(V.setting("flash_attn"), {"0": "off", "1": "on"}),
    },
    raw=(
        {
            "when": _PROMPT,
            "test": V.words("pp{}", _PROMPT),
            "prompt_tokens": _PROMPT,
            "concurrency": _AT_ONCE,
            "tok_per_s.values": V.list(V.positive("speed_pp", "S_PP t/s")),
        },
        {  # Generation goes on behind the prompt, so at its depth.
            "when": _OUTPUT,
            "test": V.words("tg{} @ d{}", _OUTPUT, _PROMPT),
            "output_tokens": _OUTPUT,
            "depth_tokens": _PROMPT,
            "concurrency": _AT_ONCE,
            "tok_per_s.values": V.list(V.positive("speed_tg", "S_TG t/s")),
        },
    ),
    left_out=("speed: a rate over prompts and answers is neither prefill nor decode",),
)
