"""SGLang's ``bench_serving`` (``--output-file``, with ``--output-details`` too): JSON lines.

Fields after ``python/sglang/bench_serving.py`` (sgl-project/sglang, commit
50a613687fe1ffc6f1bb630c684a24c428a54a74). Definitions are those of ``vllm bench serve``; what the
server says of itself (``server_info``) names model and version where it is SGLang. ``backend`` is
a dialect: only the native one (``sglang``) is SGLang's alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import UNKNOWN_ENGINE, Format, Found, objects
from tokrig.exchange.models import model_of
from tokrig.exchange.serving import SERVING, UNSAID, serving_result
from tokrig.record.model import BackendFacts, Resolved

_NATIVE = frozenset({"sglang", "sglang-native"})
_INFO = ("server_info.", "server_info.server_args.", "server_info.decode.0.")


def _read(document: Document) -> Iterable[Found]:
    by_server: dict[str, Found] = {}
    for one in objects(document):
        model, backend = model_of(_info(one, "model_path")), _backend(one)
        key = repr((model, backend))
        found = by_server.setdefault(key, Found(model=model, backend=backend))
        found.results.append(serving_result(one, FORMAT))
    return by_server.values()


def _info(one: Fields, name: str) -> str | None:
    return next((text for info in _INFO if (text := one.text(info + name))), None)


def _backend(one: Fields) -> BackendFacts:
    is_native = one.text("backend") in _NATIVE or one.inside("server_info") is not None
    tp = next((count for info in _INFO if (count := one.count(f"{info}tp_size"))), None)
    return BackendFacts(
        name=FORMAT.name,
        engine="SGLang" if is_native else UNKNOWN_ENGINE,
        build=_info(one, "version"),
        resolved=Resolved(tensor_parallel=tp, quantization=_info(one, "quantization")),
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
    read=_read,
    takes=SERVING,
    codes=UNSAID,
)
