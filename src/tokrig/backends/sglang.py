"""SGLang's ``sglang serve``.

Written from the source and documentation of SGLang 0.5.23; its kernels need a GPU, so no test
runs it. ``/server_info`` holds its resolved arguments, ``/metrics`` its sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokrig.backends import Ask, Engine, Launch, Request, Value
from tokrig.backends import _reading as read
from tokrig.backends._python import BatchingServer, method
from tokrig.spec.settings import Api

# Of devices that PyTorch calls "cuda" these kernels tell whose they are; Triton's run on both.
_KERNELS = {
    "cuda": ("flashinfer", "fa3", "fa4", "flashmla", "cutlass_mla", "trtllm_mla", "trtllm_mha"),
    "rocm": ("aiter", "wave"),
}
_ALGORITHMS = {
    "ngram": "NGRAM",
    "draft": "STANDALONE",
    "mtp": "NEXTN",
    "eagle": "EAGLE",
    "eagle3": "EAGLE3",
}


class SGLang(BatchingServer):
    """Options are its long flags (``quantization: modelopt_fp4``, ``tp-size: 2``,
    ``reasoning-parser: qwen3``)."""

    name = "sglang"
    title = "SGLang"
    program = package = "sglang"
    ports = (30000,)
    # Answers 200 once the engine has generated a token.
    ready_path = "/health_generate"
    options: Mapping[str, str] = {"<any long flag>": "as sglang serve --help lists it"}
    capabilities = replace(BatchingServer.capabilities, timings="counters")
    serve = ("serve",)
    flags: Mapping[str, str] = {
        "model-path": "{0.model}",
        "served-model-name": "{0.model.name}",
        "context-length": "{0.context_per_slot}",
        "max-running-requests": "{0.slots}",
        "disable-radix-cache": "",
        "enable-metrics": "",
        "enable-cache-report": "",
    }
    cache_off = ("disable-radix-cache",)
    own = frozenset(
        {"model", "device", "speculative-algorithm"}
        | {"speculative-draft-model-path", "speculative-draft-model"}
    )
    listed = "model-path"
    help_words = ("serve", "--help")
    devices: Mapping[Api, str] = {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda", "sycl": "xpu"}
    drafts = (
        ("sglext", "spec_tokens_details"),
        "spec_num_proposed_drafts",
        "spec_num_correct_drafts",
    )
    # Times between tokens, summed, cover all tokens but each request's first. Its time to the
    # first token begins in its queue, so it is no prefill time and left out.
    prometheus: Mapping[str, str] = {
        "requests": "sglang:num_requests_total",
        "prompt_tokens": "sglang:prompt_tokens_total",
        "cached_tokens": "sglang:cached_tokens_total",
        "output_tokens": "sglang:generation_tokens_total",
        "decode_s": "sglang:inter_token_latency_seconds_sum",
        "drafts": "sglang:spec_verify_calls_total",
    }

    def more_flags(self, launch: Launch, help_text: str) -> Mapping[str, Value | None]:
        """SGLang counts the token that is sure along: a draft of n is a window of n + 1."""
        asked = launch.speculation
        if asked is None:
            return {}
        algorithm, model = method(asked, _ALGORITHMS)
        found: dict[str, Value | None] = {
            "speculative-algorithm": algorithm,
            "speculative-draft-model-path": model,
        }
        if asked.draft_tokens is not None:
            found["speculative-num-draft-tokens"] = asked.draft_tokens + 1
            if asked.type != "ngram":
                found |= {"speculative-num-steps": asked.draft_tokens, "speculative-eagle-topk": 1}
        return found

    def recognises(self, ask: Ask) -> bool:
        return read.owner(ask) == "sglang" and bool(_server_info(ask))

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """All of it over HTTP: the arguments as the engine resolved them."""
        info = _server_info(ask)
        state = next(iter(read.mappings(info, "internal_states")), {})
        cached, algorithm = info.get("disable_radix_cache"), "speculative_algorithm"
        told = {
            "context_per_slot": read.count(info, "context_length"),
            "slots": read.count(state, "effective_max_running_requests_per_dp")
            or read.count(info, "max_running_requests"),
            "cache_type_k": read.text(info, "kv_cache_dtype"),
            "dtype": read.text(info, "dtype"),
            "quantization": read.text(info, "quantization"),
            "tensor_parallel": read.count(info, "tp_size"),
            "prefix_caching": not cached if isinstance(cached, bool) else None,
        }
        # Weights, cache and captured graphs of one device, in GB of 2³⁰ bytes.
        weights, *more = (
            max(read.number(state, "memory_usage", part) or 0, 0)
            for part in ("weight", "kvcache", "cuda_graph", "graph")
        )
        return self.engine(
            ask,
            launch,
            told,
            api=_api(info),
            gib=weights + sum(more) if weights else 0,
            build=read.text(info, "version"),
            speculation=bool(info[algorithm]) if algorithm in info else None,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """What was drafted is told at the end."""
        return {**super().body(request), "return_spec_tokens_details": True}


def _server_info(ask: Ask) -> dict[str, Any]:
    """``/server_info``, which older builds call ``/get_server_info``; empty without either."""
    return read.answer(ask, "/server_info") or read.answer(ask, "/get_server_info")


def _api(info: Mapping[str, Any]) -> str | None:
    device = info.get("device")
    if device == "cuda":
        kernels = {str(info.get(key)) for key in info if key.endswith("attention_backend")}
        return next((api for api, known in _KERNELS.items() if kernels & {*known}), None)
    return {"cpu": "cpu", "xpu": "sycl", "mps": "metal"}.get(str(device))


BACKEND = SGLang()
