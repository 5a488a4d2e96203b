"""What every llama.cpp server says over HTTP, whoever started it.

Checked against the server's README and the running server: ``/props``, ``/v1/models``,
``/v1/chat/completions/input_tokens``, ``/tokenize``, ``/apply-template``, ``timings`` in streams.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Engine, Request
from tokrig.backends._openai_http import chat_body, served_models
from tokrig.errors import RequestError
from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings

CHAT_PATH = "/v1/chat/completions"
READY_PATH = "/health"

_DEVICE_BUFFERS = {
    "CUDA": "cuda",
    "Vulkan": "vulkan",
    "ROCm": "rocm",
    "MTL": "metal",
    "Metal": "metal",
    "SYCL": "sycl",
}

_REASONS = (
    r"error loading model: (.+)",
    r"failed to load model[:, ]*(.*)",
    r"(couldn't bind .+)",
    r"(bind\(\) .+|address already in use.*)",
    r"(unable to allocate .+|failed to allocate .+|out of memory.*)",
    r"error: (invalid argument: .+)",
    r"\berror: (.+)",
    r"^[\d.]+ E (.+)",  # newer builds mark the level with a letter after the time
)


def body(request: Request) -> dict[str, Any]:
    """An OpenAI chat body plus llama.cpp's switches: full length, no prompt cache."""
    return {**chat_body(request), "ignore_eos": True, "cache_prompt": False}


def timings(event: Mapping[str, Any]) -> EngineTimings | None:
    """``timings`` of the last chunk. Its decode clock starts at the first token but counts it."""
    found = event.get("timings")
    if not isinstance(found, dict):
        return None
    try:
        return EngineTimings(
            prompt_tokens=int(found["prompt_n"]),
            prompt_ms=float(found["prompt_ms"]),
            decode_tokens=int(found["predicted_n"]),
            decode_ms=float(found["predicted_ms"]),
            counts_first=True,
        )
    except (KeyError, TypeError, ValueError):
        return None


def count_prompt(ask: Ask, request: Request) -> int | None:
    """The server's own count after its chat template; older builds render and tokenize."""
    messages = {"messages": request.messages}
    try:
        return int(ask("/v1/chat/completions/input_tokens", messages)["input_tokens"])
    except (RequestError, KeyError, TypeError, ValueError):
        pass
    try:
        prompt = ask("/apply-template", messages)["prompt"]
        answer = ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})
        return len(answer["tokens"])
    except (RequestError, KeyError, TypeError):
        return None


def count_text(ask: Ask, text: str) -> int | None:
    """Tokens of plain text, no special ones added."""
    try:
        return len(ask("/tokenize", {"content": text, "add_special": False})["tokens"])
    except (RequestError, KeyError, TypeError):
        return None


def inspect(ask: Ask, log: str) -> Engine:
    """``/props`` and the log: what was resolved, never what was asked for."""
    props = ask("/props")
    api, confirmed = api_of(log)
    return Engine(
        engine="llama.cpp",
        build=build_of(str(props.get("build_info") or "")),
        api=api,
        api_confirmed=confirmed,
        served_models=served_models(ask),
        resolved=Resolved(
            context_per_slot=props.get("default_generation_settings", {}).get("n_ctx"),
            slots=props.get("total_slots"),
            threads=_number(log, r"\bn_threads\s*=\s*(\d+)"),
            threads_batch=_number(log, r"n_threads_batch\s*=\s*(\d+)"),
            batch=_number(log, r"\bn_batch\s*=\s*(\d+)"),
            ubatch=_number(log, r"\bn_ubatch\s*=\s*(\d+)"),
            cache_type_k=_word(log, r"K \((\w+)\)"),
            cache_type_v=_word(log, r"V \((\w+)\)"),
            flash_attention=_flash_attention(log),
            gpu_layers=_number(log, r"offloaded (\d+)/\d+ layers to GPU"),
            layers=_number(log, r"\bn_layer\s*=\s*(\d+)"),
            cpu_features=_features(log),
            chat_template=_template_kind(props),
        ),
    )


def build_of(build_info: str) -> str | None:
    """``b9174-abc`` → ``b9174``; builds that carry no number (``b0-unknown``) → None."""
    match = re.match(r"(b[1-9]\d*)\b", build_info)
    return match.group(1) if match else None


def api_of(log: str) -> tuple[str | None, bool | None]:
    """The accelerator API by the buffers that hold the weights, as the engine logged them.

    A build *with* CUDA or Vulkan says nothing about what computed; a device buffer does. Pinned
    host memory (``CUDA_Host``) is no device.
    """
    buffers = re.findall(r"(\w+) model buffer size\s*=\s*(\d+\.\d+)", log)
    filled = [name for name, mib in buffers if float(mib) > 0]
    if not filled:
        return None, None
    for name in filled:
        for prefix, api in _DEVICE_BUFFERS.items():
            if name.startswith(prefix) and not name.endswith("_Host"):
                return api, True
    return "cpu", True


def failure(log: str) -> str | None:
    """The log's own reason, most specific first."""
    for pattern in _REASONS:
        found = re.findall(pattern, log, re.IGNORECASE | re.MULTILINE)
        reasons = [f.strip() for f in found if f.strip()]
        if reasons:
            return str(reasons[0])[:300]
    return None


def _flash_attention(log: str) -> str | None:
    """``auto`` is a request; the engine says in a later line what became of it."""
    resolved = _word(log, r"Flash Attention (enabled|disabled)")
    return resolved or _word(log, r"flash_attn\s*=\s*(enabled|disabled|on|off|[01])\b")


def _template_kind(props: Mapping[str, Any]) -> str | None:
    template = props.get("chat_template")
    return None if not template else "chatml" if "<|im_start|>" in template else "model"


def _features(log: str) -> list[str]:
    match = re.search(r"CPU\s*:((?:\s*\w+ = 1 \|)+)", log)
    return [f.lower() for f in re.findall(r"(\w+) = 1", match.group(1))] if match else []


def _number(log: str, pattern: str) -> int | None:
    match = re.search(pattern, log)
    return int(match.group(1)) if match else None


def _word(log: str, pattern: str) -> str | None:
    match = re.search(pattern, log)
    return match.group(1) if match else None
