"""What every llama.cpp server says over HTTP, and what it was asked for, whoever started it.

Checked against the server's README and the running server: ``/props``, ``/v1/models``,
``/slots``, ``/v1/chat/completions/input_tokens``, ``/tokenize``, ``/apply-template``, ``/metrics``,
``timings`` in streams. Flags and variables as of b11434's ``common/arg.cpp``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokrig.backends import Ask, Backend, Capabilities, Engine, Greedy, Launch, Request, Value
from tokrig.backends import _likely as likely
from tokrig.backends import _llama_log as llama_log
from tokrig.backends import _reading as read
from tokrig.errors import RequestError
from tokrig.record.model import Resolved
from tokrig.record.quality import Position
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
_FLAGS = ("cpu-moe", "no-kv-offload", "draft cpu-moe")

# Options that choose a setting which the engine logs, by the setting's name in a record.
_CHOSEN = {
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
# How it drafts, by the beginnings of its own words.
_KINDS = {"ngram": "ngram", "draft-mtp": "mtp", "draft-eagle": "eagle", "draft": "draft"}


class LlamaServer(Backend):
    """A llama.cpp server, whoever started it."""

    ready_path = "/health"
    tokenize_path = "/tokenize"
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
        props = read.mapping(ask("/props"))
        defaults, template = props.get("default_generation_settings"), props.get("chat_template")
        resolved = llama_log.settings(log)
        told: dict[str, Any] = {"slots": read.count(props, "total_slots")}
        if isinstance(template, str) and template:
            told["chat_template"] = "chatml" if "<|im_start|>" in template else "model"
        if not resolved.kv_unified:  # of one cache for all slots only the log tells each one's part
            told["context_per_slot"] = read.count(defaults, "n_ctx")
        resolved = resolved.model_copy(update={name: v for name, v in told.items() if v})
        drafts = read.text(defaults, "params", "speculative.types") or "none"
        return Engine(
            engine="llama.cpp",
            build=llama_log.build_of(str(props.get("build_info") or "")),
            served_models=read.served_models(ask),
            resolved=resolved,
            no_device=llama_log.no_device(log),
            speculation=llama_log.speculates(log, read.answers(ask, "/slots")),
            speculates_by=next((k for p, k in _KINDS.items() if drafts.startswith(p)), None),
            weight_bytes=llama_log.weight_bytes(log),
            unused_bytes=llama_log.unused_bytes(log),
            model_file=read.text(props, "model_path"),
            asked=asked_settings(launch),
            **placement(launch, log, resolved, os.environ),
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Plus llama.cpp's switches: full length, the prompt cache, and with each chunk how many
        tokens there were so far."""
        return {
            **super().body(request),
            **request.template(),
            "ignore_eos": True,
            "cache_prompt": request.keeps_prompt,
            "timings_per_token": True,
        }

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """The server's own count after its chat template; older builds render and tokenize."""
        asked = {"messages": request.messages, **request.template(effort=True)}
        try:
            return int(ask("/v1/chat/completions/input_tokens", asked)["input_tokens"])
        except (RequestError, KeyError, TypeError, ValueError, OverflowError):
            found = self.prompt_ids(ask, request)
        return None if found is None else len(found)

    def count_text(self, ask: Ask, text: str) -> int | None:
        found = self.text_ids(ask, text)
        return None if found is None else len(found)

    def prompt_ids(self, ask: Ask, request: Request) -> likely.Ids | None:
        asked = {"messages": request.messages, **request.template(effort=True)}
        prompt = read.answer(ask, "/apply-template", asked).get("prompt")
        if prompt is None:
            return None
        special = {"add_special": True, "parse_special": True}
        return likely.ids(read.answer(ask, "/tokenize", {"content": prompt, **special}))

    def text_ids(self, ask: Ask, text: str) -> likely.Ids | None:
        asked = {"content": text, "add_special": False}
        return likely.ids(read.answer(ask, self.tokenize_path, asked))

    def greedy(self, ask: Ask, request: Request, prompt: likely.Ids, top: int) -> Greedy:
        return likely.llama_greedy(ask, request, prompt, top)

    def likeliest(
        self,
        ask: Ask,
        request: Request,
        prompt: likely.Ids,
        answer: likely.Ids,
        first: int,
        top: int,
    ) -> tuple[Position, ...]:
        return likely.llama_likeliest(ask, prompt, answer, first, top)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        """``timings`` of the last chunk. Its decode clock starts at the first token but counts
        it."""
        found = read.mapping(event, "timings")
        try:
            return EngineTimings(
                prompt_tokens=int(found["prompt_n"]),
                prompt_ms=float(found["prompt_ms"]),
                decode_tokens=int(found["predicted_n"]),
                decode_ms=float(found["predicted_ms"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def failure(self, log: str) -> str | None:
        return llama_log.failure(log)


# What it was asked for, by options or by variables, and where the model is.


def placement(
    launch: Launch | None, log: str, found: Resolved, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Where the model is and where it should be: fields of ``Engine``."""
    api, confirmed = llama_log.api_of(log)
    options, layers, on_gpu = _options(launch), llama_log.all_layers(log), found.gpu_layers
    # As many layers as an option or a variable says, else all where a GPU's API or a device is
    # asked for.
    everything = bool(launch and (launch.api or launch.devices))
    given, asked = _given(options, GPU_LAYERS, {} if everything else environment), None
    if launch and launch.api != "cpu" and layers and (everything or given is not None):
        asked = min(int(str(given)), layers) if str(given).isdecimal() else layers
    # On the CPU alone nothing spilled: another API computed than asked for, which is told.
    spilled = asked is not None and on_gpu is not None and on_gpu < asked and api != "cpu"
    kept: list[str] = []
    if launch is not None and launch.api != "cpu" and api and not (api == "cpu" and confirmed):
        # Where nobody asked for a number of layers the engine's own choice counts.
        wanted = on_gpu if asked is None else asked
        if layers is not None and wanted is not None and wanted < layers:
            kept.append(f"{wanted} of {layers} layers")
        kept += _kept_back(options, environment)
        # Told to fit the model to the free memory, it says so where it had nothing to do.
        if str(options.get("fit")).lower() in llama_log.ON and "no changes needed" not in log:
            kept.append("fit")
    return {
        "api": api,
        "api_confirmed": confirmed,
        "asked_gpu_layers": asked,
        "spilled": f"{on_gpu} of {asked} layers on the GPU" if spilled else None,
        "offload": ", ".join(kept) or None,
        "device_bytes": llama_log.device_bytes(log),
    }


def asked_settings(launch: Launch | None) -> dict[str, Value]:
    """What was asked of settings that the engine logs, by their names in a record."""
    found = {_CHOSEN[name]: v for name, v in _options(launch).items() if name in _CHOSEN}
    if switch := llama_log.SWITCH.get(str(found.pop("flash_attention", "")).lower()):
        found["flash_attention"] = switch
    if launch and launch.devices:
        found["devices"] = ",".join(launch.devices)
    return found


def _kept_back(options: Mapping[str, Value], environment: Mapping[str, str]) -> Iterator[str]:
    for kept, names in _KEPT_BACK.items():
        given = _given(options, names.split(), environment)
        if given is None or given is False:
            continue
        if kept in _FLAGS:
            if str(given).lower() in llama_log.ON:
                yield kept
        elif kept.endswith("override-tensor"):
            # The pairs that do not name main memory move tensors from one device to another.
            pairs = filter(str.strip, str(given).split(","))
            if here := [
                p for p in pairs if not llama_log.api_of_device(p.rpartition("=")[2].strip())
            ]:
                yield f"{kept} {','.join(here)}"
        elif kept == "draft gpu-layers":
            # No model has 99 layers: people write that or 999 for all.
            if re.fullmatch(r"\d{1,2}", str(given)) and str(given) != "99":
                yield f"{kept} {given}"
        elif str(given) != "0":
            yield f"{kept} {given}"


def _given(
    options: Mapping[str, Value], names: Sequence[str], environment: Mapping[str, str]
) -> Value | None:
    """An option under any of its names, else its variable. A flag that says no
    (``LLAMA_ARG_NO_KV_OFFLOAD``) has one of its own, and one that says yes where it is 0."""
    for name in names:
        if name in options:
            return options[name]
    for variable in (f"LLAMA_ARG_{name.upper().replace('-', '_')}" for name in names):
        opposite = environment.get(variable.replace("_NO_", "_")) if "_NO_" in variable else None
        if opposite:
            return opposite.lower() not in llama_log.ON
        if value := environment.get(variable):
            return value
    return None


def _options(launch: Launch | None) -> dict[str, Value]:
    """Options by their flags' names; what a wrapper hands on (``llamacpp_args``) among them:
    ``--n-cpu-moe 4 --no-mmap``."""
    found = launch.flags if launch else {}
    if launch and "gpu_layers" in launch.settings:
        found[GPU_LAYERS[0]] = launch.settings["gpu_layers"]
    line = str(found.pop("llamacpp-args", ""))
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    flag = ""
    for part in words:
        if part.startswith("-") and not part[1:].isdecimal():
            flag, _, value = part.lstrip("-").partition("=")
            found[flag] = value or True
        elif flag:
            found[flag] = part
    return found
