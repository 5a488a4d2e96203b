"""llmfit: what ``llmfit bench --share`` sends and keeps, and the JSON of ``llmfit bench --json``.

Fields after ``llmfit-core/src/share.rs`` and ``bench.rs`` (AlexsJones/llmfit, commit
3f44fd30a43d2619146f7bc0aa66c90aa54d78e6). Four short prompts, one request at a time. With Ollama
the rate is that of its own clock, and ``ttft`` its prompt time, which is none; with all others the
rate is tokens by the whole request, answered in one piece. What is shared has means; ``--json`` has
all runs. Engine versions are not told, nor what a model's file is beside its name.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokrig.exchange.format import Format, Take
from tokrig.exchange.values import V, Value
from tokrig.units import GIB

_IS_OLLAMA: Value = V.is_(V.text("provider"), "ollama")


def _rates(figure: str, when: Value, *codes: str) -> Iterator[Take]:
    yield Take(V.column("runs.*.tps"), f"{figure}.values", 1.0, codes, when=when)
    for field, part in (("avgTps", "mean"), ("minTps", "min"), ("maxTps", "max"), ("numRuns", "n")):
        yield Take(field, f"{figure}.{part}", 1.0, codes if part == "mean" else (), when=when)


_CARDS, _UNIFIED = V.count("^hardware.gpuCount"), V.flag("^hardware.unifiedMemory")

FORMAT = Format(
    name="llmfit",
    title="llmfit bench",
    files="the JSON that --share sends, or that of --json",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"schemaVersion", "tool.name", "hardware.hwClass", "results"}),
        frozenset({"model", "provider", "runs", "summary.avg_tps"}),
    ),
    rows=("results",),
    facts={
        "model.name": V.text("model"),
        "engine": V.in_(
            V.text("provider"),
            {"ollama": "Ollama", "vllm": "vLLM", "mlx": "mlx-lm", "llamacpp": "llama.cpp"},
        ),
        "version": V.text("^tool.version"),
        "rig.cpu": V.text("^hardware.cpu"),
        "rig.gpu": V.text("^hardware.hardwareName"),
        "rig.gpus": V.first(_CARDS, 0),
        "rig.vram_gb": V.if_(_UNIFIED, None, V.over(V.positive("^hardware.vramGb"), _CARDS)),
        "rig.unified": _UNIFIED,
        "rig.memory_bytes": V.times(V.positive("^hardware.ramGb"), GIB),
        "rig.os": V.text("^hardware.os"),
    },
    result={"requests": V.first(V.column_length("runs.*.tps"), V.count("numRuns"))},
    takes=(
        *_rates("output_tok_per_s", _IS_OLLAMA, "engine_clock"),
        *_rates("end_to_end_tok_per_s", V.not_(_IS_OLLAMA)),
        Take(V.column("runs.*.output_tokens"), "output_tokens.values"),
        Take("avgOutputTokens", "output_tokens.mean"),
    ),
    left_out=(
        V.if_(
            V.all_(_IS_OLLAMA, V.any_(V.has("avgTtftMs"), V.has("runs"))),
            "ttft: the engine's prompt time, not the time to a first token",
        ),
    ),
)
