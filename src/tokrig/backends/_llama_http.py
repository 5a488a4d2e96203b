"""What every llama.cpp server says over HTTP, whoever started it.

Checked against the server's README and the running server: ``/props``, ``/v1/models``,
``/slots``, ``/v1/chat/completions/input_tokens``, ``/tokenize``, ``/apply-template``, ``/metrics``,
``timings`` in streams.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tokrig.backends import (
    Ask,
    Capabilities,
    Counters,
    Engine,
    Launch,
    Request,
    _llama_wishes,
    count,
    mapping,
    mappings,
    text,
)
from tokrig.backends import _llama_log as llama_log
from tokrig.backends._openai_http import (
    OpenAIServer,
    chat_body,
    metric,
    owner,
    served_models,
    template_switch,
)
from tokrig.errors import RequestError
from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings

_COUNTERS = {
    "prompt_tokens": "llamacpp:prompt_tokens_total",
    "cached_tokens": "llamacpp:prompt_tokens_cached_total",
    "output_tokens": "llamacpp:tokens_predicted_total",
    "prefill_s": "llamacpp:prompt_seconds_total",
    "decode_s": "llamacpp:tokens_predicted_seconds_total",
    "drafts": "llamacpp:spec_decode_num_drafts_total",
    "drafted_tokens": "llamacpp:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total",
}


class LlamaServer(OpenAIServer):
    """A llama.cpp server, whoever started it."""

    ready_path = "/health"
    capabilities = Capabilities(
        speculation=("ngram", "draft", "mtp", "eagle"),
        apis=("cpu", "cuda", "vulkan", "rocm", "metal", "sycl"),
        cache_switch="request",
        reasoning_switch="start",
        fixed_length=True,
        timings="request",
        counts_prompts=True,
        kv_types=True,
    )

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        return inspect(ask, log, launch)

    def body(self, request: Request) -> dict[str, Any]:
        """An OpenAI chat body plus llama.cpp's switches: full length, no prompt cache, and with
        each chunk how many tokens there were so far."""
        return {
            **chat_body(request),
            **template_switch(request),
            "ignore_eos": True,
            "cache_prompt": False,
            "timings_per_token": True,
        }

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        return count_prompt(ask, request)

    def count_text(self, ask: Ask, text: str) -> int | None:
        return count_text(ask, text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return timings(event)

    def counters(self, ask: Ask) -> Counters | None:
        return counters(ask)

    def failure(self, log: str) -> str | None:
        return llama_log.failure(log)


def counters(ask: Ask) -> Counters | None:
    """The sums of ``/metrics``; None where the server was started without it."""
    try:
        page = str(ask("/metrics", text=True))
    except RequestError:
        return None
    found = {ours: metric(page, theirs) for ours, theirs in _COUNTERS.items()}
    return {name: value for name, value in found.items() if value is not None} or None


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
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def count_prompt(ask: Ask, request: Request) -> int | None:
    """The server's own count after its chat template; older builds render and tokenize."""
    asked = {"messages": request.messages, **template_switch(request)}
    if request.reasoning is not None and request.reasoning.effort:
        asked["reasoning_effort"] = request.reasoning.effort
    try:
        return int(ask("/v1/chat/completions/input_tokens", asked)["input_tokens"])
    except (RequestError, KeyError, TypeError, ValueError, OverflowError):
        pass
    try:
        prompt = ask("/apply-template", asked)["prompt"]
        answer = ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})
        return len(answer["tokens"])
    except (RequestError, KeyError, TypeError):
        return None


def count_text(ask: Ask, plain: str) -> int | None:
    """Tokens of plain text, no special ones added."""
    try:
        return len(ask("/tokenize", {"content": plain, "add_special": False})["tokens"])
    except (RequestError, KeyError, TypeError):
        return None


def inspect(ask: Ask, log: str, launch: Launch | None = None) -> Engine:
    """``/props``, ``/slots`` and the log: what was resolved, never what was asked for. Without a
    log, as of a server that somebody else started, nothing tells what computes."""
    props = mapping(ask("/props"))
    template = props.get("chat_template")
    api, confirmed = llama_log.api_of(log)
    resolved = _resolved(props, llama_log.settings(log))
    asked = _llama_wishes.asked_gpu_layers(launch, log, os.environ)
    return Engine(
        engine="llama.cpp",
        build=llama_log.build_of(str(props.get("build_info") or "")),
        api=api,
        api_confirmed=confirmed,
        served_models=served_models(ask),
        resolved=resolved.model_copy(
            update={
                "chat_template": _template_kind(template) if isinstance(template, str) else None
            }
        ),
        asked_gpu_layers=asked,
        spilled=spilled(api, resolved.gpu_layers, asked),
        offload=_llama_wishes.offload(launch, log, resolved, os.environ),
        asked=_llama_wishes.settings(launch),
        device_bytes=llama_log.device_bytes(log),
        weight_bytes=llama_log.weight_bytes(log),
        unused_bytes=llama_log.unused_bytes(log),
        no_device=llama_log.no_device(log),
        speculation=speculates(ask, log),
        speculates_by=_speculates_by(props),
        model_file=text(props.get("model_path")),
    )


def _resolved(props: Mapping[str, Any], found: Resolved) -> Resolved:
    """The log's settings with what ``/props`` tells too: a slot's context, which is that of all
    slots where they share one cache, as only the log says."""
    context = count(mapping(props.get("default_generation_settings")).get("n_ctx"))
    slots = count(props.get("total_slots"))
    told = {"context_per_slot": context, "slots": slots}
    if found.kv_unified:
        del told["context_per_slot"]
    return found.model_copy(update={key: value for key, value in told.items() if value})


def spilled(api: str | None, there: int | None, asked: int | None) -> str | None:
    """The words for layers that are not where they were asked to be. On the CPU alone nothing
    spilled: another API computed than asked for, which is told."""
    if there is None or asked is None or there >= asked or api == "cpu":
        return None
    return f"{there} of {asked} layers on the GPU"


def speculates(ask: Ask, log: str) -> bool | None:
    """Whether the slots draft. A server goes on without its draft model when that does not fit,
    and says so only here and in its log."""
    try:
        slots = mappings(ask("/slots"))
    except RequestError:
        slots = []
    told = [slot["speculative"] is True for slot in slots if "speculative" in slot]
    return any(told) if told else llama_log.speculates(log)


def _speculates_by(props: Mapping[str, Any]) -> str | None:
    """``draft-mtp`` → ``mtp``: the first type among the defaults of a request."""
    params = mapping(mapping(props.get("default_generation_settings")).get("params"))
    kind = (text(params.get("speculative.types")) or "none").partition(",")[0]
    known = {"ngram": "ngram", "draft-mtp": "mtp", "draft-eagle": "eagle", "draft": "draft"}
    return next((name for prefix, name in known.items() if kind.startswith(prefix)), None)


def is_llama_server(ask: Ask) -> bool:
    """Whether the server is llama.cpp's own. Others imitate its ``/props``, but name themselves
    as the owner of their models."""
    try:
        props = mapping(ask("/props"))
    except RequestError:
        return False
    known = {"total_slots", "default_generation_settings"}
    return known <= props.keys() and owner(ask) == "llamacpp"


def _template_kind(template: str) -> str | None:
    return None if not template else "chatml" if "<|im_start|>" in template else "model"
