"""LocalScore: the JSON that its program sends and writes.

Fields after ``src/pages/api/results.ts`` (cjpais/LocalScore, commit
ef2c21fa13d4ad9ab87ee23f88df5b9eecb6b607). A test is ``n_prompt`` tokens, then ``n_gen``; both rates
and TTFT are means. The program runs the model itself: there is no server and no client.
"""

from __future__ import annotations

from tokrig.exchange.format import MS, Format
from tokrig.exchange.values import V
from tokrig.units import GIB

_PROMPT, _OUTPUT = V.first(V.count("n_prompt"), 0), V.first(V.count("n_gen"), 0)

FORMAT = Format(
    name="localscore",
    title="LocalScore",
    files="its JSON",
    kinds=frozenset({"json"}),
    signatures=(frozenset({"system_info", "accelerator_info", "runtime_info", "results"}),),
    rows=("results",),
    facts={
        "model.name": V.text("^results.0.model_name"),
        "model.quant": V.text("^results.0.model_quant_str"),
        "model.parameters": V.count("^results.0.model_n_params"),
        "engine": V.first(V.text("^runtime_info.name"), "llama.cpp"),
        "build": V.text("^runtime_info.version", "^runtime_info.commit"),
        "version": V.text("^runtime_info.version"),
        "rig.cpu": V.text("^system_info.cpu_name"),
        "rig.gpu": V.if_(
            V.is_(V.text("^accelerator_info.type"), "GPU"), V.text("^accelerator_info.name")
        ),
        "rig.vram_gb": V.number("^accelerator_info.memory_gb"),
        "rig.memory_bytes": V.times(V.positive("^system_info.ram_gb"), GIB),
        "rig.kernel": V.text("^system_info.kernel_release"),
        "rig.os": V.text("^system_info.kernel_type"),
    },
    raw=(
        {
            "when": _PROMPT,
            "test": V.words("pp{}", _PROMPT),
            "prompt_tokens": _PROMPT,
            "tok_per_s.mean": V.positive("prompt_tps"),
            "ttft_s.mean": V.times(V.positive("ttft_ms"), MS),
        },
        {
            "when": _OUTPUT,
            "test": V.words("tg{} @ d{}", _OUTPUT, _PROMPT),
            "output_tokens": _OUTPUT,
            "depth_tokens": _PROMPT,
            "tok_per_s.mean": V.positive("gen_tps"),
        },
    ),
)
