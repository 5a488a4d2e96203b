"""llama-bench of llama.cpp: JSON, JSON lines, CSV, SQL, and its Markdown table.

Fields after ``struct test`` and the printers of ``tools/llama-bench/llama-bench.cpp``
(ggml-org/llama.cpp, b11434; older builds lack some fields and have others). A row is a test of one
configuration. Its figures involve no server and no client. Its own average is a mean: JSON and
JSON lines have all repetitions (``samples_ts``), the others only that. ``backends`` are those that
the build has, not what computed, and ``-ngl 99`` is what was asked for, not what was found.
"""

from __future__ import annotations

from tokrig.exchange.format import Format
from tokrig.exchange.values import V, Value


def _length(name: str, group: int) -> Value:
    """Tokens of a test: ``pp512``, ``tg128 @ d4096`` in the table."""
    test = V.part(
        "test", r"(?:pp(\d+))?\+?(?:tg(\d+))?(?: @ d(\d+))?", group, "test of llama-bench"
    )
    return V.first(V.if_(V.all_(V.has("test"), V.not_(V.has("n_prompt"))), test, V.count(name)), 0)


_PROMPT, _OUTPUT, _DEPTH = (
    _length(name, group) for group, name in enumerate(("n_prompt", "n_gen", "n_depth"), 1)
)
_BUILD = V.first(
    V.around(r"^build: \w+ \((\d{1,9})\)\s*$"),  # beneath the table
    V.setting("build_number"),
)
_FLASH, _LAYERS, _MOE = (
    V.setting("fa", "flash_attn"),
    V.setting("ngl", "n_gpu_layers"),
    V.setting("n_cpu_moe"),
)
_THREADS = V.setting("threads", "n_threads")

FORMAT = Format(
    name="llama-bench",
    title="llama-bench",
    files="-o json, jsonl, csv, sql or md",
    kinds=frozenset({"json", "csv", "sql", "markdown"}),
    signatures=(
        frozenset({"n_prompt", "n_gen", "avg_ts", "model_type", "n_threads"}),
        frozenset({"model", "size", "params", "backend", "test", "t/s"}),
    ),
    measured=frozenset(
        "n_prompt n_gen n_depth test test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns"
        " samples_ts t/s".split()
    ),
    facts={
        "model.described": V.text("model_type", "model"),
        "model.file": V.text("model_filename"),
        "model.size": V.setting("model_size"),
        "model.parameters": V.setting("model_n_params"),
        "engine": "llama.cpp",
        "build": V.first(V.words("b{}", V.if_(_BUILD, _BUILD)), V.text("build_commit")),
        "version": V.words("b{}", V.if_(_BUILD, _BUILD)),
        "asked.gpu_layers": _LAYERS,
        "resolved.threads": _THREADS,
        "resolved.threads_batch": _THREADS,
        "resolved.batch": V.setting("n_batch"),
        "resolved.ubatch": V.setting("n_ubatch"),
        "resolved.cache_type_k": V.text("type_k"),
        "resolved.cache_type_v": V.text("type_v"),
        "resolved.flash_attention": V.in_(_FLASH, {"0": "off", "1": "on"}),
        "offload": V.words("n-cpu-moe {}", V.if_(_MOE, _MOE)),
        "rig.cpu": V.text("cpu_info"),
        "rig.gpu": V.split("gpu_info"),
        "started_at": V.text("test_time"),
    },
    skip=V.if_(
        V.all_(_PROMPT, _OUTPUT),
        V.words(
            "pp{}+tg{}: a rate over prompt and answer is neither prefill nor decode",
            *(_PROMPT, _OUTPUT),
        ),
    ),
    raw=(
        {
            "when": V.any_(_PROMPT, _OUTPUT),
            "test": V.words(
                "{}{}",
                V.if_(_PROMPT, V.words("pp{}", _PROMPT), V.words("tg{}", _OUTPUT)),
                V.if_(_DEPTH, V.words(" @ d{}", _DEPTH), ""),
            ),
            "prompt_tokens": _PROMPT,
            "output_tokens": _OUTPUT,
            "depth_tokens": _DEPTH,
            "tok_per_s.values": V.numbers("samples_ts"),
            "tok_per_s.mean": V.if_(V.has("t/s"), V.before("t/s", "±"), V.positive("avg_ts")),
        },
    ),
)
