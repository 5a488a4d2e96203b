"""What every llama.cpp server says over HTTP, and what it was told, whoever started it.

Checked against the server's README and the running server: ``/props``, ``/v1/models``,
``/slots``, ``/v1/chat/completions/input_tokens``, ``/tokenize``, ``/apply-template``, ``/metrics``,
``timings`` in streams. Flags and variables as of b11434's ``common/arg.cpp``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.backends import Ask, Backend, Capabilities, Engine, Launch, Request, Value
from tokrig.backends import _llama_log as llama_log
from tokrig.backends._answers import answer, at, count, mapping, mappings, served_models, text
from tokrig.errors import RequestError
from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings

GPU_LAYERS = ("n-gpu-layers", "gpu-layers", "ngl")

# What keeps parts of the model off the GPU, by its name in a record: the flag under all the names
# it ever had. Where none is given the environment variable of one holds: LLAMA_ARG_CPU_MOE.
_KEPT_BACK = {
    "cpu-moe": "cpu-moe cmoe",
    "n-cpu-moe": "n-cpu-moe ncmoe",
    "n-cpu-ffn": "n-cpu-ffn ncffn",
    "override-tensor": "override-tensor ot",
    "no-kv-offload": "no-kv-offload nkvo",
    "draft cpu-moe": "spec-draft-cpu-moe cpu-moe-draft cmoed",
    "draft n-cpu-moe": "spec-draft-n-cpu-moe spec-draft-ncmoe n-cpu-moe-draft ncmoed",
    "draft override-tensor": "spec-draft-override-tensor override-tensor-draft otd",
    "draft gpu-layers": "spec-draft-ngl gpu-layers-draft n-gpu-layers-draft ngld",
}
_FLAGS = frozenset({"cpu-moe", "no-kv-offload", "draft cpu-moe"})

# Options that choose a setting which the engine logs, by the setting's name in a record.
_SETTINGS = {
    "batch-size": "batch",
    "batch": "batch",
    "ubatch-size": "ubatch",
    "ubatch": "ubatch",
    "threads-batch": "threads_batch",
    "cache-type-k": "cache_type_k",
    "cache-type-v": "cache_type_v",
    "flash-attn": "flash_attention",
    "flash-attention": "flash_attention",
}
_ON = ("1", "true", "on", "enabled")
_SWITCH = dict.fromkeys(_ON, "enabled") | dict.fromkeys(
    ("0", "false", "off", "disabled"), "disabled"
)
# How it drafts, by the beginnings of its own words.
_KINDS = {"ngram": "ngram", "draft-mtp": "mtp", "draft-eagle": "eagle", "draft": "draft"}


class LlamaServer(Backend):
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
    )
    prometheus: Mapping[str, str] = {
        "prompt_tokens": "llamacpp:prompt_tokens_total",
        "cached_tokens": "llamacpp:prompt_tokens_cached_total",
        "output_tokens": "llamacpp:tokens_predicted_total",
        "prefill_s": "llamacpp:prompt_seconds_total",
        "decode_s": "llamacpp:tokens_predicted_seconds_total",
        "drafts": "llamacpp:spec_decode_num_drafts_total",
        "drafted_tokens": "llamacpp:spec_decode_num_draft_tokens_total",
        "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total",
    }

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """``/props``, ``/slots`` and the log: what was resolved, never what was asked for. Without
        a log, as of a server that somebody else started, nothing tells what computes."""
        props = mapping(ask("/props"))
        defaults = at(props, "default_generation_settings")
        told: dict[str, Any] = {
            "slots": count(props.get("total_slots")),
            "chat_template": _template_kind(props.get("chat_template")),
        }
        resolved = llama_log.settings(log)
        if not resolved.kv_unified:  # of one cache for all slots only the log tells each one's part
            told["context_per_slot"] = count(at(defaults, "n_ctx"))
        resolved = resolved.model_copy(update={name: v for name, v in told.items() if v})
        drafts = text(at(defaults, "params", "speculative.types")) or "none"
        try:
            slots = mappings(ask("/slots"))
        except RequestError:
            slots = []
        return Engine(
            engine="llama.cpp",
            build=llama_log.build_of(str(props.get("build_info") or "")),
            served_models=served_models(ask),
            resolved=resolved,
            no_device=llama_log.no_device(log),
            speculation=speculates(slots, log),
            speculates_by=next((k for p, k in _KINDS.items() if drafts.startswith(p)), None),
            weight_bytes=llama_log.weight_bytes(log),
            unused_bytes=llama_log.unused_bytes(log),
            model_file=text(props.get("model_path")),
            asked=asked_settings(launch),
            **placement(launch, log, resolved, os.environ),
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Plus llama.cpp's switches: full length, no prompt cache, and with each chunk how many
        tokens there were so far."""
        return {
            **super().body(request),
            **request.template(),
            "ignore_eos": True,
            "cache_prompt": False,
            "timings_per_token": True,
        }

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        return count_prompt(ask, request)

    def count_text(self, ask: Ask, text: str) -> int | None:
        return count_tokens(ask, "/tokenize", text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return timings(event)

    def failure(self, log: str) -> str | None:
        return llama_log.failure(log)


def timings(event: Mapping[str, Any]) -> EngineTimings | None:
    """``timings`` of the last chunk. Its decode clock starts at the first token but counts it."""
    found = mapping(event.get("timings"))
    try:
        return EngineTimings(
            prompt_tokens=int(found["prompt_n"]),
            prompt_ms=float(found["prompt_ms"]),
            decode_tokens=int(found["predicted_n"]),
            decode_ms=float(found["predicted_ms"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def count_prompt(ask: Ask, request: Request) -> int | None:
    """The server's own count after its chat template; older builds render and tokenize."""
    asked = {"messages": request.messages, **request.template(effort=True)}
    try:
        return int(ask("/v1/chat/completions/input_tokens", asked)["input_tokens"])
    except (RequestError, KeyError, TypeError, ValueError, OverflowError):
        prompt = answer(ask, "/apply-template", asked).get("prompt")
    if prompt is None:
        return None
    return count_tokens(ask, "/tokenize", prompt, add_special=True, parse_special=True)


def count_tokens(
    ask: Ask, path: str, plain: str, *, add_special: bool = False, **more: bool
) -> int | None:
    """Tokens of plain text, without special ones."""
    tokens = answer(ask, path, {"content": plain, "add_special": add_special, **more}).get("tokens")
    return len(tokens) if isinstance(tokens, list) else None


def speculates(slots: list[dict[str, Any]], log: str) -> bool | None:
    """Whether the slots draft. A server goes on without its draft model when that does not fit,
    and says so only here and in its log."""
    told = [slot["speculative"] is True for slot in slots if "speculative" in slot]
    return any(told) if told else llama_log.speculates(log)


def placement(
    launch: Launch | None, log: str, found: Resolved, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Where the model is and where it should be: fields of ``Engine``."""
    api, confirmed = llama_log.api_of(log)
    asked, there = asked_gpu_layers(launch, log, environment), found.gpu_layers
    # On the CPU alone nothing spilled: another API computed than asked for, which is told.
    spilled = asked is not None and there is not None and there < asked and api != "cpu"
    return {
        "api": api,
        "api_confirmed": confirmed,
        "asked_gpu_layers": asked,
        "spilled": f"{there} of {asked} layers on the GPU" if spilled else None,
        "offload": offload(launch, log, found, environment),
        "device_bytes": llama_log.device_bytes(log),
    }


def _template_kind(template: Any) -> str | None:
    if not isinstance(template, str) or not template:
        return None
    return "chatml" if "<|im_start|>" in template else "model"


# What it was told, by options or by variables.


def asked_gpu_layers(
    launch: Launch | None, log: str, environment: Mapping[str, str] | None = None
) -> int | None:
    """Layers that should be on a GPU: as many as an option or a variable says, else all where a
    GPU's API or a device is asked for; None where none is."""
    layers = llama_log.all_layers(log)
    if launch is None or launch.api == "cpu" or layers is None:
        return None
    everything = bool(launch.api or launch.devices)
    variables = {} if everything else environment or {}
    given = _given(_options(launch), GPU_LAYERS, variables)
    if given is not None and str(given).isdecimal():
        return min(int(given), layers)
    return layers if everything or given is not None else None


def offload(
    launch: Launch | None, log: str, found: Resolved, environment: Mapping[str, str] | None = None
) -> str | None:
    """What of the model is kept off the GPU because it was asked for, in plain words: ``20 of 33
    layers, n-cpu-moe 4``. Where nobody asked for a number of layers the engine's own choice
    counts. None where all is on the GPU, and where all computes on the CPU anyway."""
    if launch is None or launch.api == "cpu":
        return None
    api, on_cpu_alone = llama_log.api_of(log)
    if api is None or (api == "cpu" and on_cpu_alone):
        return None
    words = []
    layers, asked = llama_log.all_layers(log), asked_gpu_layers(launch, log, environment)
    on_gpu = found.gpu_layers if asked is None else asked
    if layers is not None and on_gpu is not None and on_gpu < layers:
        words.append(f"{on_gpu} of {layers} layers")
    options = _options(launch)
    words += _kept_back(options, environment or {})
    # Told to fit the model to the free memory, it says so where it had nothing to do.
    if str(options.get("fit")).lower() in _ON and not re.search(r"\bno changes needed\b", log):
        words.append("fit")
    return ", ".join(words) or None


def asked_settings(launch: Launch | None) -> dict[str, Value]:
    """What was asked of settings that the engine logs, by their names in a record."""
    if launch is None:
        return {}
    found = {_SETTINGS[name]: v for name, v in _options(launch).items() if name in _SETTINGS}
    switch = _SWITCH.get(str(found.get("flash_attention")).lower())
    if switch:
        found["flash_attention"] = switch
    else:
        found.pop("flash_attention", None)
    if launch.devices:
        found["devices"] = ",".join(launch.devices)
    return found


def _kept_back(options: Mapping[str, Value], environment: Mapping[str, str]) -> Iterator[str]:
    for word, names in _KEPT_BACK.items():
        given = _given(options, names.split(), environment, is_flag=word in _FLAGS)
        if given is None or given is False:
            continue
        if given is True:
            yield word
        elif word.endswith("override-tensor"):
            # The pairs that do not name main memory move tensors from one device to another.
            pairs = filter(str.strip, str(given).split(","))
            if here := [p for p in pairs if _is_main_memory(p.rpartition("=")[2])]:
                yield f"{word} {','.join(here)}"
        elif word == "draft gpu-layers":
            # No model has 99 layers: people write that or 999 for all.
            if re.fullmatch(r"\d{1,2}", str(given)) and str(given) != "99":
                yield f"{word} {given}"
        elif str(given) != "0":
            yield f"{word} {given}"


def _is_main_memory(buffer: str) -> bool:
    return llama_log.api_of_device(buffer.strip()) is None


def _given(
    options: Mapping[str, Value],
    names: list[str] | tuple[str, ...],
    environment: Mapping[str, str],
    *,
    is_flag: bool = False,
) -> Value | None:
    """An option under any of its names, else its variable. A flag that says no
    (``LLAMA_ARG_NO_KV_OFFLOAD``) has one of its own, and one that says yes where it is 0."""
    for name in names:
        if name in options:
            return options[name]
    for variable in (f"LLAMA_ARG_{name.upper().replace('-', '_')}" for name in names):
        opposite = environment.get(variable.replace("_NO_", "_")) if "_NO_" in variable else None
        if is_flag and opposite:
            return opposite.lower() not in _ON
        if value := environment.get(variable):
            return value.lower() in _ON if is_flag else value
    return None


def _options(launch: Launch) -> dict[str, Value]:
    """Options by their flags' names; what a wrapper hands on (``llamacpp_args``) among them:
    ``--n-cpu-moe 4 --no-mmap``."""
    found = launch.flags
    if "gpu_layers" in launch.settings:
        found[GPU_LAYERS[0]] = launch.settings["gpu_layers"]
    line = str(found.pop("llamacpp-args", ""))
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    flag = ""
    for word in words:
        if word.startswith("-") and not word[1:].isdecimal():
            flag, _, value = word.lstrip("-").partition("=")
            found[flag] = value or True
        elif flag:
            found[flag] = word
    return found
