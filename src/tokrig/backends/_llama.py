"""What every llama.cpp server says, over HTTP and in its log, and what it was asked for, whoever
started it.

Checked against the server's README and the running server: ``/props``, ``/v1/models``,
``/slots``, ``/v1/chat/completions/input_tokens``, ``/tokenize``, ``/apply-template``, ``/metrics``,
``timings`` in streams. Flags and variables as of b11434's ``common/arg.cpp``.

A build *with* CUDA or Vulkan says nothing about what computed, and neither does a line about
offloaded layers: without a device it says "31/31" all the same. The buffers that hold the weights
say it. llama.cpp logs them as "trace" since it has such a level (verbosity 4), before that by
default.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokrig.backends import Ask, Backend, Capabilities, Engine, Greedy, Launch, Request, Value
from tokrig.backends import _likely as likely
from tokrig.backends import _reading as read
from tokrig.errors import InputError, RequestError, did_you_mean
from tokrig.record.model import Resolved
from tokrig.record.quality import Position
from tokrig.record.samples import EngineTimings

# What a device's name begins with. AMD's GPUs are called ROCm0 by builds for HIP. Others keep
# their own names: CANN0, MUSA0, WebGPU, and RPC0 for a device of another machine.
_APIS = {
    "CUDA": "cuda",
    "Vulkan": "vulkan",
    "ROCm": "rocm",
    "HIP": "rocm",
    "MTL": "metal",
    "Metal": "metal",
    "SYCL": "sycl",
    "OpenCL": "opencl",
    "GPUOpenCL": "opencl",
    "HTP": "hexagon",
}
# Main memory under its several names: repacked weights, matrix units, linear algebra libraries,
# and what is pinned for a device.
_MAIN_MEMORY = re.compile(r"CPU|AMX|BLAS|Accelerate|KleidiAI|\w+_(?i:host)\b")
# Several devices that share every tensor: Meta(CUDA0,CUDA1).
_SHARED = re.compile(r"Meta\(([^)]*)\)")
_STARTED = {
    "vulkan": r"ggml_vulkan",
    "cuda": r"ggml_cuda_init.*\bCUDA\b",
    "rocm": r"ggml_cuda_init.*\bROCm\b",
    "metal": r"ggml_metal",
    "sycl": r"ggml_sycl|\[SYCL\]",
}
# Whether it is weights that are loaded, the name, the kind, the size. Early builds name weights
# without the word "model".
_BUFFER = re.compile(
    r"(load_tensors)?:\s+(Meta\([^)]*\)|\w+)\S*\s+(?:([\w ]+) )?buffer size\s*=\s*([\d.]+) MiB"
)
_UNUSED = re.compile(r"model has unused tensor \S+ \(size = (\d+) bytes\)")
# Its own words for having no device, though built for one.
_NO_DEVICE = (
    r"(ggml_vulkan: No devices found|failed to initialize (?:CUDA|ROCm): [^\n]+"
    r"|no usable GPU found, [^\n]+|not compiled with GPU offload support, [^\n]+)"
)
_DRAFT = re.compile(r"loading draft model|creating MTP draft context")
_MIB = 1 << 20

# Settings of the model by their names in a record, and those of the slots.
_LOGGED = {
    "context_total": r"\bn_ctx\s*=\s*(\d+)",
    "threads": r"\bn_threads\s*=\s*(\d+)",
    "threads_batch": r"n_threads_batch\s*=\s*(\d+)",
    "batch": r"\bn_batch\s*=\s*(\d+)",
    "ubatch": r"\bn_ubatch\s*=\s*(\d+)",
    "cache_type_k": r"K \((\w+)\)",
    "cache_type_v": r"V \((\w+)\)",
    "layers": r"\bn_layer\s*=\s*(\d+)",
}
_SLOTS = {
    "context": r"\bn_ctx_slot\s*=\s*(\d+)",
    "slots": r"\bn_slots\s*=\s*(\d+)",
    "unified": r"\bkv_unified\s*=\s*'?(true|false)",
}

# The most specific first. Of what else is marked as an error the first line is the cause, the
# rest its consequences.
_REASONS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"error while handling argument .+",
        r"(?<=error: )invalid argument: .+",
        r"error while loading shared libraries: .+",
        r"couldn't bind .+|bind\(\) .+|(?i:address already in use.*)",
        r"invalid magic characters.+|failed to open GGUF file.+",
        r"(?<=failed to initialize speculative decoding context: ).+",
        r"(?<=llama_init_from_model: )context type MTP requested .+",
        r"^.*(?i:(?:out of|insufficient|outofdevice) ?memory|(?:unable|failed) to allocate).*",
        r"(?<=error loading model: )(?!llama_model_loader: failed to load model from).+",
        r"(?:CUDA|ROCm) error: .+|(?<=what\(\):  ).+",
        r"^\S+\.(?:c|cpp|cu|cuh|m|h):\d+: .+",
        r"common_chat_templates_init: error: .+",
        r"^[\d.]+ E .+",
        r"(?<=\berror: ).+",
        r"failed to load model.*",
    )
)
_PREFIX = re.compile(r"^(?:\d[\d.]+ [A-Z] )?(?:(?:srv|cmn|spec|slot|que) +\S+: |\S+\.\w+:\d+: )?")

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
_ON, _OFF = ("1", "true", "on", "enabled"), ("0", "false", "off", "disabled")
_SWITCH = dict.fromkeys(_ON, "enabled") | dict.fromkeys(_OFF, "disabled")
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
        resolved = settings(log)
        told: dict[str, Any] = {"slots": read.count(props, "total_slots")}
        if isinstance(template, str) and template:
            told["chat_template"] = "chatml" if "<|im_start|>" in template else "model"
        if not resolved.kv_unified:  # of one cache for all slots only the log tells each one's part
            told["context_per_slot"] = read.count(defaults, "n_ctx")
        resolved = resolved.model_copy(update={name: v for name, v in told.items() if v})
        drafts = read.text(defaults, "params", "speculative.types") or "none"
        return Engine(
            engine="llama.cpp",
            build=build_of(str(props.get("build_info") or "")),
            served_models=read.served_models(ask),
            resolved=resolved,
            no_device=no_device(log),
            speculation=speculates(log, read.answers(ask, "/slots")),
            speculates_by=next((k for p, k in _KINDS.items() if drafts.startswith(p)), None),
            weight_bytes=weight_bytes(log),
            unused_bytes=unused_bytes(log),
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
        return failure(log)


# What its log says.


def build_of(text: str) -> str | None:
    """The build of ``/props`` (``b9174-abc``) or of ``--version``; None where it has no number."""
    match = re.search(r"\bb([1-9]\d*)\b|\bbuild:? ([1-9]\d*)\b|^version: ([1-9]\d*) \(", text, re.M)
    return f"b{next(filter(None, match.groups()))}" if match else None


def devices_of(listing: str) -> tuple[str, ...]:
    """Names in the output of ``--list-devices``: ``("Vulkan0", "CUDA1")``."""
    return tuple(re.findall(r"^\s+(\w+): .*\(\d+ MiB", listing, re.M))


def api_of_device(name: str) -> str | None:
    """``ROCm0``, ``CUDA_Split`` → the API of that device; None for main memory (``CPU_Mapped``),
    pinned for a device or not (``CUDA_Host``). What tokrig does not know keeps its own name."""
    if shared := _SHARED.match(name):
        name = shared.group(1)
    if _MAIN_MEMORY.match(name):
        return None
    letters = re.match(r"[A-Za-z]*", name)
    own = letters.group().lower() or None if letters else None
    return next((api for prefix, api in _APIS.items() if name.startswith(prefix)), own)


def built_with(text: str) -> frozenset[str]:
    """APIs that a build has, devices or not: those of its devices, and those that it says to
    have loaded or looked for devices with."""
    names = [*devices_of(text), *re.findall(r"loaded (\w+) backend", text)]
    started = [api for api, pattern in _STARTED.items() if re.search(pattern, text)]
    return frozenset(filter(None, map(api_of_device, names))).union(started)


def require_api(
    listing: str, api: str | None, devices: Sequence[str], program: str, flag: str
) -> None:
    """Refuse a build without the API asked for, by its ``listing`` of devices, and devices that
    are not there. An API that the build has but finds no device for is no error yet. ``flag`` is
    how a user names another ``program``.

    Raises InputError.
    """
    listed = devices_of(listing)
    if api not in (None, "cpu") and api not in built_with(listing):
        raise InputError(
            f"this {program} was built without {api}, or cannot load it here",
            hint=f"its devices: {', '.join(listed) or 'none'}. Give a build with {api} with"
            f" {flag}, or leave out --api",
        )
    for name in devices:
        if name not in listed:
            raise InputError(
                f"this {program} has no device {name!r}",
                hint=did_you_mean(name, listed) if listed else "it found no devices",
            )
        if api and api_of_device(name) != api:
            raise InputError(
                f"the device {name!r} is not a {api} device",
                hint="give --api and --device that go together, or only --device",
            )


def devices_for(listing: str, api: str | None, devices: Sequence[str]) -> list[str]:
    """The devices asked for, else all of the API asked for: a second API's stay out, and for the
    CPU all do ("none"). Empty where nothing was asked or a build finds none: then it runs, and its
    log will tell on what."""
    if api == "cpu":
        return ["none"]
    if devices or api is None:
        return list(devices)
    return [name for name in devices_of(listing) if api_of_device(name) == api]


def api_of(log: str) -> tuple[str | None, bool | None]:
    """What computes, by the buffers that hold the model's weights, and whether the log shows it.

    Several APIs at once are named together: ``cuda+vulkan``. With all weights in main memory a
    device that holds a compute buffer still takes over the products of long prompts: then "cpu"
    is not confirmed.
    """
    filled = _filled(log)
    if not filled:
        return None, None
    apis = sorted(set(filter(None, map(api_of_device, filled))))
    if apis:
        return "+".join(apis), True
    return "cpu", not any(api_of_device(name) for name in device_bytes(log))


def device_bytes(log: str) -> dict[str, int]:
    """Bytes by device as the engine logged them: weights, caches, outputs and compute buffers of
    the model and its draft; everything in main memory as ``CPU``. A context that reserves its
    compute buffers again replaces them."""
    total: Counter[str] = Counter()
    for context in log.split("constructing llama_context"):
        buffers = _buffers(context)
        computing = {name: (name, mib) for _, name, kind, mib in buffers if kind == "compute"}
        lasting = [(name, mib) for _, name, kind, mib in buffers if kind != "compute"]
        total.update(_bytes_by_owner([*lasting, *computing.values()]))
    return {name: size for name, size in total.items() if size}


def weight_bytes(log: str) -> dict[str, int]:
    """Bytes of the model's weights by device, everything in main memory as ``CPU``. What is mapped
    from the file counts from the first of its tensors to the last, whatever lies between."""
    return {name: size for name, size in _bytes_by_owner(_weights(log)).items() if size}


def unused_bytes(log: str) -> int:
    """Bytes of the file's tensors that the engine leaves aside, such as layers for drafting."""
    return sum(map(int, _UNUSED.findall(_of_the_model(log))))


def no_device(log: str) -> str | None:
    """The engine's own words that it found no GPU, or was built for none."""
    return read.word(log, _NO_DEVICE)


def settings(log: str) -> Resolved:
    """What the model runs with, as logged; a draft model's own settings are not among it.

    Slots that share one cache (``kv_unified``) have what is left when all of them are full.
    """
    # Slots are set up when all is loaded, drafts too.
    at_last = read.logged(log, _SLOTS)
    context, slots, unified = at_last["context"], at_last["slots"], at_last["unified"]
    log = _of_the_model(log)
    found = read.logged(log, _LOGGED)
    if unified == "true" and context and slots:
        context = min(context, (found["context_total"] or context) // slots)
    # A line about offloaded layers says nothing where no device holds weights.
    offloaded = read.word(log, r"offloaded (\d+)/\d+ layers to GPU")
    if offloaded and api_of(log)[0] == "cpu":
        offloaded = "0"
    features = read.word(log, r"CPU\s*:((?:\s*\w+ = 1 \|)+)") or ""
    # "auto" is a request; a later line says what became of it.
    flash = read.word(log, r"Flash Attention (?:was auto, set to )?(enabled|disabled)")
    flash = flash or read.word(log, r"flash_attn\s*=\s*(enabled|disabled|on|off|[01])\b")
    return Resolved(
        **found,
        context_per_slot=context,
        kv_unified=None if unified is None else unified == "true",
        slots=slots,
        flash_attention=_SWITCH.get(flash or ""),
        gpu_layers=int(offloaded) if offloaded else None,
        devices=list(dict.fromkeys(re.findall(r"using device (\w+)\S* \(", log))),
        split_mode=_split_mode(log),
        cpu_features=re.findall(r"(\w+) = 1", features.lower()),
    )


def all_layers(log: str) -> int | None:
    """Layers that can be offloaded: the model's own and the output layer."""
    layers = read.count(read.word(log, _LOGGED["layers"]))
    return read.count(read.word(log, r"offloaded \d+/(\d+) layers")) or (
        layers + 1 if layers else None
    )


def speculates(log: str, slots: Sequence[Mapping[str, Any]] = ()) -> bool | None:
    """Whether it drafts, as its slots say, else its log. A server goes on without a draft model
    that does not fit, and says so only there."""
    told = [slot["speculative"] is True for slot in slots if "speculative" in slot]
    if told:
        return any(told)
    if "speculative decoding context initialized" in log:
        return True
    refused = r"failed to initialize speculative|speculative decoding not supported|no implementat"
    return False if re.search(refused, log) else None


def failure(log: str) -> str | None:
    """The log's own reason, without time, level and module."""
    for pattern in _REASONS:
        match = pattern.search(log)
        if match and (reason := _PREFIX.sub("", match.group()).strip()):
            return reason[:300]
    return None


def _of_the_model(log: str) -> str:
    """The part about the model itself: it is loaded before its draft."""
    return _DRAFT.split(log, maxsplit=1)[0]


def _buffers(log: str) -> list[tuple[str, ...]]:
    found = (_BUFFER.search(line) for line in log.splitlines() if "buffer size" in line)
    return [match.groups("") for match in found if match]


def _weights(log: str) -> list[tuple[str, str]]:
    """Buffers of the model's weights: name, MiB."""
    found = _buffers(_of_the_model(log))
    return [(name, mib) for loads, name, kind, mib in found if loads and kind in ("", "model")]


def _filled(log: str) -> list[str]:
    return [name for name, mib in _weights(log) if float(mib) > 0]


def _bytes_by_owner(buffers: Iterable[tuple[str, str]]) -> Counter[str]:
    """``Vulkan0``, ``MTL0_Mapped`` → the device; main memory of any kind → ``CPU``; devices that
    share every tensor → ``CUDA0+CUDA1``."""
    total: Counter[str] = Counter()
    for name, mib in buffers:
        owner = "CPU" if api_of_device(name) is None else name.partition("_")[0]
        if shared := _SHARED.match(name):
            owner = "+".join(re.split(r"\s*,\s*", shared.group(1)))
        total[owner] += round(float(mib) * _MIB)
    return total


def _split_mode(log: str) -> str | None:
    """How several devices share the model, told by the buffers: rows have one of their own."""
    holders = {name for name in _filled(log) if api_of_device(name) is not None}
    if any(_SHARED.match(name) for name in holders):
        return "tensor"
    if any(name.endswith("_Split") for name in holders):
        return "row"
    return "layer" if len(holders) > 1 else None


# What it was asked for, by options or by variables, and where the model is.


def placement(
    launch: Launch | None, log: str, found: Resolved, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Where the model is and where it should be: fields of ``Engine``."""
    api, confirmed = api_of(log)
    options, layers, on_gpu = _options(launch), all_layers(log), found.gpu_layers
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
        if str(options.get("fit")).lower() in _ON and "no changes needed" not in log:
            kept.append("fit")
    return {
        "api": api,
        "api_confirmed": confirmed,
        "asked_gpu_layers": asked,
        "spilled": f"{on_gpu} of {asked} layers on the GPU" if spilled else None,
        "offload": ", ".join(kept) or None,
        "device_bytes": device_bytes(log),
    }


def asked_settings(launch: Launch | None) -> dict[str, Value]:
    """What was asked of settings that the engine logs, by their names in a record."""
    found = {_CHOSEN[name]: v for name, v in _options(launch).items() if name in _CHOSEN}
    if switch := _SWITCH.get(str(found.pop("flash_attention", "")).lower()):
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
            if str(given).lower() in _ON:
                yield kept
        elif kept.endswith("override-tensor"):
            # The pairs that do not name main memory move tensors from one device to another.
            pairs = filter(str.strip, str(given).split(","))
            if here := [p for p in pairs if not api_of_device(p.rpartition("=")[2].strip())]:
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
            return opposite.lower() not in _ON
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
