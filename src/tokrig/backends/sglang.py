"""SGLang's ``sglang serve``.

Written from the source and documentation of SGLang 0.5.23; its kernels need a GPU, so no test
runs it. ``/server_info`` holds its resolved arguments, ``/metrics`` its sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Capabilities,
    Command,
    Counters,
    Engine,
    Launch,
    Request,
    Speculation,
    _python_server,
    count,
    mapping,
    mappings,
    text,
)
from tokrig.backends._openai_http import (
    OpenAIServer,
    chat_body,
    kv_flags,
    option_flags,
    owner,
    served_models,
    start_time,
    template_switch,
)
from tokrig.errors import InputError, RequestError
from tokrig.record.model import Resolved
from tokrig.spec.run import Api, SpeculativeType
from tokrig.units import GIB

_OWN = frozenset(
    {"model", "model-path", "served-model-name", "host", "port", "context-length", "device"}
    | {"max-running-requests", "disable-radix-cache", "enable-metrics", "enable-cache-report"}
    | {"speculative-algorithm", "speculative-draft-model-path", "speculative-draft-model"}
)
_HINT = "give its path with --server-bin, or put sglang on the PATH"

# PyTorch's names. AMD's devices are called "cuda" too.
_DEVICES: Mapping[Api, str] = {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda", "sycl": "xpu"}
# Of devices called "cuda" these kernels tell whose they are; Triton's run on both.
_KERNELS = {
    "cuda": ("flashinfer", "fa3", "fa4", "flashmla", "cutlass_mla", "trtllm_mla", "trtllm_mha"),
    "rocm": ("aiter", "wave"),
}

# Options that choose a setting which it reads back.
_SETTINGS = {
    "dtype": "dtype",
    "quantization": "quantization",
    "tp-size": "tensor_parallel",
    "tensor-parallel-size": "tensor_parallel",
    "kv-cache-dtype": "cache_type_k",
}

_ALGORITHMS: Mapping[SpeculativeType, str] = {
    "ngram": "NGRAM",
    "draft": "STANDALONE",
    "mtp": "NEXTN",
    "eagle": "EAGLE",
}

# Times between tokens, summed, cover all tokens but each request's first. Its time to the first
# token begins in its queue, so it is no prefill time and left out.
_COUNTERS = {
    "requests": "sglang:num_requests_total",
    "prompt_tokens": "sglang:prompt_tokens_total",
    "cached_tokens": "sglang:cached_tokens_total",
    "output_tokens": "sglang:generation_tokens_total",
    "decode_s": "sglang:inter_token_latency_seconds_sum",
    "drafts": "sglang:spec_verify_calls_total",
}


class SGLang(OpenAIServer):
    """Managed. Options are its long flags without dashes (``quantization: modelopt_fp4``,
    ``tp-size: 2``, ``reasoning-parser: qwen3``); the engine itself judges them."""

    name = "sglang"
    title = "SGLang"
    starts = True
    precedence = 20
    ports: tuple[int, ...] = (30000,)
    patience_s = 900.0
    # Answers 200 once the engine has generated a token.
    ready_path = "/health_generate"
    options: Mapping[str, str] = {"<any long flag>": "as sglang serve --help lists it"}
    capabilities = Capabilities(
        speculation=("ngram", "draft", "mtp", "eagle"),
        apis=("cpu", "cuda", "rocm", "sycl"),
        cache_switch="start",
        reasoning_switch="request",
        fixed_length=True,
        timings="counters",
        counts_prompts=True,
        kv_types=True,
    )

    def availability(self) -> Availability:
        return _python_server.available("sglang", _HINT, package="sglang")

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        return ((_python_server.binary(launch, "sglang", _HINT), "serve", "--help"),)

    def vet(self, launch: Launch) -> None:
        known = _python_server.answer(launch, 0)
        _python_server.vet_help(launch, known, "sglang", "model-path", hint=_HINT)

    def command(self, launch: Launch) -> Command:
        argv = [
            _python_server.binary(launch, "sglang", _HINT),
            "serve",
            *("--model-path", str(launch.model)),
            *("--served-model-name", launch.model.name),
            *("--host", "127.0.0.1"),
            *("--port", str(launch.port)),
            *("--context-length", str(launch.context_per_slot)),
            *("--max-running-requests", str(launch.slots)),
            "--disable-radix-cache",
            "--enable-metrics",
            "--enable-cache-report",
        ]
        if launch.api is not None:
            argv += ["--device", _device(launch.api)]
        if launch.speculation is not None:
            argv += _speculation(launch.speculation)
        kv_types = _python_server.choices(_python_server.answer(launch, 0), "kv-cache-dtype")
        for flag, kind in kv_flags(launch, "kv-cache-dtype", known=kv_types).items():
            argv += [f"--{flag}", kind]
        argv += option_flags(launch.options, _OWN)
        environment = {
            **_python_server.ENVIRONMENT,
            **_python_server.threads(launch),
            **_python_server.visible_devices(launch),
        }
        return Command(tuple(argv), environment)

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        return start_time(ask)

    def recognises(self, ask: Ask) -> bool:
        return owner(ask) == "sglang" and bool(_server_info(ask))

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """All of it over HTTP: the arguments as the engine resolved them."""
        info = _server_info(ask)
        api = _api(info)
        return Engine(
            engine="SGLang",
            build=text(info.get("version")),
            api=api,
            api_confirmed=None if api is None else True,
            served_models=served_models(ask),
            resolved=_resolved(ask, info),
            offload=_python_server.offload(launch) if api != "cpu" else None,
            asked=_python_server.chosen(launch, _SETTINGS),
            device_bytes=_device_bytes(info, api),
            speculation=bool(info["speculative_algorithm"])
            if "speculative_algorithm" in info
            else None,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Full length, usage on every chunk, and what was drafted at the end."""
        return {
            **chat_body(request),
            **template_switch(request),
            "ignore_eos": True,
            "min_tokens": request.answer_tokens,
            "return_spec_tokens_details": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    def event(self, data: dict[str, Any]) -> dict[str, Any]:
        """Drafted and accepted tokens in the words of llama.cpp's ``timings``."""
        extension = data.get("sglext")
        found = extension.get("spec_tokens_details") if isinstance(extension, dict) else None
        if not isinstance(found, dict):
            return data
        drafted, accepted = (
            found.get("spec_num_proposed_drafts"),
            found.get("spec_num_correct_drafts"),
        )
        return {**data, "timings": {"draft_n": drafted, "draft_n_accepted": accepted}}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """The server's own count after its chat template."""
        question = {"messages": request.messages, **template_switch(request)}
        if request.reasoning is not None and request.reasoning.effort:
            question["reasoning_effort"] = request.reasoning.effort
        return _python_server.tokens(ask, question)

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _python_server.tokens(ask, {"prompt": text, "add_special_tokens": False})

    def counters(self, ask: Ask) -> Counters | None:
        """Its sums; None where it was started without ``--enable-metrics``."""
        return _python_server.sums(ask, _COUNTERS)

    def failure(self, log: str) -> str | None:
        return _python_server.failure(log)


def _device(api: Api) -> str:
    if api not in _DEVICES:
        raise InputError(
            f"SGLang computes on no {api}", hint=f"it knows {', '.join(sorted(_DEVICES))}"
        )
    return _DEVICES[api]


def _speculation(asked: Speculation) -> list[str]:
    """SGLang counts the token that is sure along: a draft of n is a window of n + 1."""
    algorithm = _ALGORITHMS[asked.type]
    argv = []
    if asked.type in ("draft", "eagle") or asked.draft_model is not None:
        model = _python_server.draft(asked)
        argv = ["--speculative-draft-model-path", model]
        # The two generations of heads are told apart by their names, as SGLang's users do.
        if asked.type == "eagle" and "eagle3" in model.lower():
            algorithm = "EAGLE3"
    if asked.draft_tokens is not None:
        argv += ["--speculative-num-draft-tokens", str(asked.draft_tokens + 1)]
        if asked.type != "ngram":
            steps = str(asked.draft_tokens)
            argv += ["--speculative-num-steps", steps, "--speculative-eagle-topk", "1"]
    return ["--speculative-algorithm", algorithm, *argv]


def _server_info(ask: Ask) -> dict[str, Any]:
    """``/server_info``, which older builds call ``/get_server_info``; empty without either."""
    for path in ("/server_info", "/get_server_info"):
        try:
            info = ask(path)
        except RequestError:
            continue
        if isinstance(info, dict):
            return info
    return {}


def _api(info: Mapping[str, Any]) -> str | None:
    device = info.get("device")
    if device == "cuda":
        kernels = {str(info.get(key)) for key in info if key.endswith("attention_backend")}
        return next((api for api, known in _KERNELS.items() if kernels & {*known}), None)
    return {"cpu": "cpu", "xpu": "sycl", "mps": "metal"}.get(str(device))


def _state(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the first scheduler tells of itself."""
    return next(iter(mappings(info.get("internal_states"))), {})


def _resolved(ask: Ask, info: Mapping[str, Any]) -> Resolved:
    slots = count(_state(info).get("effective_max_running_requests_per_dp"))
    cached = info.get("disable_radix_cache")
    kv = text(info.get("kv_cache_dtype"))
    return Resolved(
        context_per_slot=count(info.get("context_length")) or _python_server.context(ask),
        slots=slots or count(info.get("max_running_requests")),
        cache_type_k=kv,
        cache_type_v=kv,
        dtype=text(info.get("dtype")),
        quantization=text(info.get("quantization")),
        tensor_parallel=count(info.get("tp_size")),
        prefix_caching=not cached if isinstance(cached, bool) else None,
    )


def _device_bytes(info: Mapping[str, Any], api: str | None) -> dict[str, int]:
    """Weights, cache and captured graphs of one device, in GB of 2³⁰ bytes."""
    usage = mapping(_state(info).get("memory_usage"))
    parts = [usage.get(name) for name in ("weight", "kvcache", "cuda_graph", "graph")]
    told = [part for part in parts if isinstance(part, int | float) and part > 0]
    if api in (None, "cpu") or not isinstance(usage.get("weight"), int | float):
        return {}
    return {str(api): round(sum(told) * GIB)}


BACKEND = SGLang()
