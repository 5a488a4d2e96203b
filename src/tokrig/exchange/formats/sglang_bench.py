"""SGLang's ``bench_serving`` (``--output-file``, with ``--output-details`` too): JSON lines.

Fields after ``python/sglang/bench_serving.py`` (sgl-project/sglang, commit
50a613687fe1ffc6f1bb630c684a24c428a54a74). Definitions are those of ``vllm bench serve``; what the
server says of itself (``server_info``) names model and version where it is SGLang. ``backend`` is
a dialect: only the native one (``sglang``) is SGLang's alone.
"""

from __future__ import annotations

from tokrig.exchange.format import UNKNOWN_ENGINE, Format
from tokrig.exchange.serving import SERVING, UNSAID, served
from tokrig.exchange.values import V, Value


def _info(name: str) -> list[str]:
    return [f"server_info.{part}{name}" for part in ("", "server_args.", "decode.0.")]


_IS_NATIVE: Value = V.any_(
    V.is_(V.text("backend"), "sglang", "sglang-native"), V.object("server_info")
)

FORMAT = Format(
    name="sglang-bench",
    title="SGLang's bench_serving",
    files="the JSON lines of --output-file, with --output-details too",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset(
            {
                *("backend", "dataset_name", "random_range_ratio", "duration", "completed"),
                *("request_throughput", "median_ttft_ms"),
            }
        ),
    ),
    facts={
        "model.name": V.text(*_info("model_path")),
        "engine": V.if_(_IS_NATIVE, "SGLang", UNKNOWN_ENGINE),
        "build": V.text(*_info("version")),
        "resolved.tensor_parallel": V.count(*_info("tp_size")),
        "resolved.quantization": V.text(*_info("quantization")),
    },
    result=served(),
    takes=SERVING,
    codes=UNSAID,
)
