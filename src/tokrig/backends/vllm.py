"""vLLM's ``vllm serve``.

Checked against vLLM 0.32.0 (its command line, its log, its metrics and a running server): per
request clock ``metrics`` on the usage chunk, the same sums in ``/metrics``, ``/tokenize``.
"""

from __future__ import annotations

import json
import re
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
from tokrig.backends._python_server import number, word
from tokrig.errors import InputError, RequestError
from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings
from tokrig.units import GIB

_OWN = frozenset(
    {"model", "host", "port", "served-model-name", "max-model-len", "max-num-seqs"}
    | {"enable-prefix-caching", "no-enable-prefix-caching", "disable-log-stats"}
    | {"speculative-config", "spec-method", "spec-model", "spec-tokens", "device-ids"}
)
_HINT = "give its path with --server-bin, or put vllm on the PATH"

# vLLM has no draft length of its own for n-grams and draft models.
_DRAFT_TOKENS = 4

# What makes it tell more about each request, in builds that have it; the last only where it
# speculates.
_TELLING = (("enable-prompt-tokens-details",), ("enable-per-request-metrics",))
_TELLING_DRAFTS = ("per-request-spec-decode-metrics", "summary")

# Its decode clock runs from a request's first token to its last and so covers all but the first.
_COUNTERS = {
    "requests": "vllm:request_success_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prefix_cache_hits_total",
    "output_tokens": "vllm:generation_tokens_total",
    "prefill_s": "vllm:request_prefill_time_seconds_sum",
    "decode_s": "vllm:request_decode_time_seconds_sum",
    "drafts": "vllm:spec_decode_num_drafts_total",
    "drafted_tokens": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
}

# Options that choose a setting which its log tells.
_SETTINGS = {
    "dtype": "dtype",
    "quantization": "quantization",
    "tensor-parallel-size": "tensor_parallel",
    "kv-cache-dtype": "cache_type_k",
}

A_DAY_S = 86_400


class VLLM(OpenAIServer):
    """Managed. Options are ``vllm serve``'s long flags without dashes (``quantization: fp8``,
    ``tensor-parallel-size: 2``, ``reasoning-parser: qwen3``); the engine itself judges them.

    Its prompt cache is switched off when it starts. Warm-up, compilation and tuning of kernels
    come before it is ready: hence its patience.
    """

    name = "vllm"
    title = "vLLM"
    starts = True
    precedence = 20
    ports: tuple[int, ...] = (8000,)
    patience_s = 900.0
    ready_path = "/health"
    options: Mapping[str, str] = {"<any long flag>": "as vllm serve --help=all lists it"}
    capabilities = Capabilities(
        speculation=("ngram", "draft", "mtp", "eagle"),
        apis=("cpu", "cuda", "rocm", "sycl"),
        cache_switch="start",
        reasoning_switch="request",
        fixed_length=True,
        timings="request",
        counts_prompts=True,
        kv_types=True,
    )

    def availability(self) -> Availability:
        return _python_server.available("vllm", _HINT, package="vllm")

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """Each takes it some ten seconds, so the second is asked only where it matters."""
        program = _python_server.binary(launch, "vllm", _HINT)
        version = () if launch.api in (None, "cpu") else ((program, "--version"),)
        return ((program, "serve", "--help=all"), *version)

    def vet(self, launch: Launch) -> None:
        known = _python_server.answer(launch, 0)
        _python_server.vet_help(launch, known, "vllm", "max-num-seqs", hint=_HINT)
        if (
            launch.answers
            and launch.speculation
            and not _python_server.knows(known, "speculative-config")
        ):
            raise InputError(
                "this vLLM is too old for --speculative-config",
                hint="upgrade it, or leave --speculative out",
            )
        built = word(_python_server.answer(launch, 1), r"(?m)^(\d+\.\S*\+cpu\S*)")
        if built and launch.api not in (None, "cpu"):
            raise InputError(
                f"this vLLM ({built}) is built for the CPU, not for {launch.api}",
                hint=f"install the build for {launch.api}, or leave --api out",
            )

    def command(self, launch: Launch) -> Command:
        known = _python_server.answer(launch, 0)
        argv = [
            _python_server.binary(launch, "vllm", _HINT),
            *("serve", str(launch.model)),
            *("--served-model-name", launch.model.name),
            *("--host", "127.0.0.1"),
            *("--port", str(launch.port)),
            *("--max-model-len", str(launch.context_per_slot)),
            *("--max-num-seqs", str(launch.slots)),
            "--no-enable-prefix-caching",
        ]
        if launch.speculation is not None:
            argv += ["--speculative-config", json.dumps(_speculation(launch.speculation))]
        chosen = {name.lstrip("-").replace("_", "-") for name in launch.options}
        telling = (*_TELLING, _TELLING_DRAFTS) if launch.speculation else _TELLING
        for flag, *value in telling:
            if _python_server.knows(known, flag) and flag not in chosen:
                argv += [f"--{flag}", *value]
        kv_types = _python_server.choices(known, "kv-cache-dtype")
        for flag, kind in kv_flags(launch, "kv-cache-dtype", known=kv_types).items():
            argv += [f"--{flag}", kind]
        argv += option_flags(launch.options, _OWN)
        environment = {
            **_python_server.ENVIRONMENT,
            "VLLM_NO_USAGE_STATS": "1",
            # A first load may tune its kernels for an hour: how long it may take, tokrig decides.
            "VLLM_ENGINE_READY_TIMEOUT_S": str(A_DAY_S),
            **_threads(launch),
            **_python_server.visible_devices(launch),
        }
        return Command(tuple(argv), environment)

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        return start_time(ask)

    def recognises(self, ask: Ask) -> bool:
        try:
            return owner(ask) == "vllm" and "version" in ask("/version")
        except (RequestError, TypeError):
            return False

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The version and the model's context over HTTP, all else from the line in which the
        engine logs its configuration. A server that runs already shows no log."""
        api = _api(log)
        return Engine(
            engine="vLLM",
            build=_version(ask),
            api=api,
            api_confirmed=None if api is None else True,
            served_models=served_models(ask),
            resolved=_resolved(ask, log, launch),
            offload=_python_server.offload(launch) if api != "cpu" else None,
            asked=_python_server.chosen(launch, _SETTINGS),
            device_bytes=_device_bytes(log, api),
            speculation=_speculates(log),
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Full length, and usage on every chunk: one may carry several tokens."""
        return {
            **chat_body(request),
            **template_switch(request),
            "ignore_eos": True,
            "min_tokens": request.answer_tokens,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    def event(self, data: dict[str, Any]) -> dict[str, Any]:
        """Drafted and accepted tokens in the words of llama.cpp's ``timings``."""
        metrics = data.get("metrics")
        found = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
        if not isinstance(found, dict):
            return data
        drafted, accepted = found.get("num_draft_tokens"), found.get("num_accepted_draft_tokens")
        return {**data, "timings": {"draft_n": drafted, "draft_n_accepted": accepted}}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """The server's own count after its chat template. Where an effort is asked for only a
        real request gets it into the template."""
        if request.reasoning is not None and request.reasoning.effort:
            return super().count_prompt(ask, request)
        return _python_server.tokens(
            ask, {"messages": request.messages, **template_switch(request)}
        )

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _python_server.tokens(ask, {"prompt": text, "add_special_tokens": False})

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        """``metrics`` of the usage chunk. Prefill is from the first scheduling to the first
        token, decode from the first token to the last."""
        metrics, usage = mapping(event.get("metrics")), mapping(event.get("usage"))
        prompt, answer = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
        prompt_ms, decode_ms = (
            metrics.get(key) for key in ("time_to_first_token_ms", "generation_time_ms")
        )
        if prompt is None or answer is None:
            return None
        if not isinstance(prompt_ms, int | float) or not isinstance(decode_ms, int | float):
            return None
        cached = count(mapping(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0
        return EngineTimings(
            prompt_tokens=max(prompt - cached, 0),
            prompt_ms=float(prompt_ms),
            decode_tokens=answer,
            decode_ms=float(decode_ms),
            counts_first=True,
        )

    def counters(self, ask: Ask) -> Counters | None:
        return _python_server.sums(ask, _COUNTERS)

    def failure(self, log: str) -> str | None:
        return _python_server.failure(log)


def _speculation(asked: Speculation) -> dict[str, Any]:
    """``--speculative-config`` for a type. MTP layers and EAGLE heads bring their own length."""
    length = {} if asked.draft_tokens is None else {"num_speculative_tokens": asked.draft_tokens}
    if asked.type == "ngram":
        found = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
        return {**found, "num_speculative_tokens": _DRAFT_TOKENS, **length}
    if asked.type == "mtp":
        model = {} if asked.draft_model is None else {"model": str(asked.draft_model)}
        return {"method": "mtp", **model, **length}
    model = {"model": _python_server.draft(asked)}
    if asked.type == "draft":
        return {"method": "draft_model", **model, "num_speculative_tokens": _DRAFT_TOKENS, **length}
    # The two generations of heads are told apart by their names, as vLLM itself does.
    third = "eagle3" in model["model"].lower()
    return {"method": "eagle3" if third else "eagle", **model, **length}


def _threads(launch: Launch) -> dict[str, str]:
    """On the CPU it binds a thread to each core but one, and sets OpenMP's variable over ours,
    unless it is told to bind none."""
    given = _python_server.threads(launch)
    return {**given, "VLLM_CPU_OMP_THREADS_BIND": "nobind"} if given else {}


def _threads_found(log: str, launch: Launch | None) -> int | None:
    """Of one worker: the cores it bound, else what OpenMP was told, where the log says that it
    left that alone. Builds before that line list the threads themselves."""
    bound = re.search(r"local_rank=0, core ids=\[([\d, ]+)\]", log)
    if bound is not None:
        return len(bound.group(1).split(","))
    if re.search(r"\bskip_setup=True\b", log):
        return launch.threads if launch else None
    return len(set(re.findall(r"OMP tid: (\d+), core \d+", log))) or None


def _device_bytes(log: str, api: str | None) -> dict[str, int]:
    """Weights and cache on the devices, as each worker logs them; empty where not all did."""
    weights = re.findall(r"[Mm]odel (?:loading|weights) took ([\d.]+) Gi?B", log)
    workers = number(log, r"(?<!\w)tensor_parallel_size=(\d+)") or 1
    if api in (None, "cpu") or len(weights) != workers:
        return {}
    caches = re.findall(r"Available KV cache memory: ([\d.]+) Gi?B", log)
    return {str(api): round(sum(map(float, (*weights, *caches))) * GIB)}


def _version(ask: Ask) -> str | None:
    try:
        return text(mapping(ask("/version")).get("version"))
    except RequestError:
        return None


def _api(log: str) -> str | None:
    """What computes. PyTorch calls AMD's devices "cuda" too: there the build's name and the
    kernels it chose tell."""
    device = word(log, r"(?<!\w)device_config=(\w+)")
    if device == "cuda":
        amd = word(log, r"(platform rocm|version \S+\+rocm|\bROCM_(?:ATTN|AITER))")
        return "rocm" if amd else "cuda"
    return {"cpu": "cpu", "xpu": "sycl"}.get(device or "")


def _speculates(log: str) -> bool | None:
    found = re.search(r"(?<!\w)speculative_config=(\w+)", log)
    return None if found is None else found.group(1) != "None"


def _resolved(ask: Ask, log: str, launch: Launch | None) -> Resolved:
    """The engine logs all of its configuration but the number of sequences, which stands among
    the arguments as its server read them."""
    caching = word(log, r"(?<!\w)enable_prefix_caching=(\w+)") or _cache_info(ask)
    kv = word(log, r"(?<!\w)kv_cache_dtype=([\w.]+)")
    return Resolved(
        context_per_slot=number(log, r"(?<!\w)max_seq_len=(\d+)") or _python_server.context(ask),
        slots=number(log, r"'max_num_seqs': (\d+)"),
        threads=_threads_found(log, launch),
        cache_type_k=kv,
        cache_type_v=kv,
        dtype=word(log, r"(?<!\w)dtype=(?:torch\.)?(\w+)"),
        quantization=word(log, r"(?<!\w)quantization=([\w-]+)"),
        tensor_parallel=number(log, r"(?<!\w)tensor_parallel_size=(\d+)"),
        prefix_caching=None if caching is None else caching == "True",
    )


def _cache_info(ask: Ask) -> str | None:
    """Whether prompts are cached, as a running server's ``/metrics`` say."""
    try:
        return word(str(ask("/metrics", text=True)), r'enable_prefix_caching="(\w+)"')
    except RequestError:
        return None


BACKEND = VLLM()
