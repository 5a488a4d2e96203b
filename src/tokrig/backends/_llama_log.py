"""What llama.cpp's programs print: builds, devices, buffers, settings, reasons of failure.

Pure functions over text. A build *with* CUDA or Vulkan says nothing about what computed, and
neither does a line about offloaded layers: without a device it says "31/31" all the same. The
buffers that hold the weights say it. llama.cpp logs them as "trace" since it has such a level
(verbosity 4), before that by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tokrig.backends._answers import logged, number, word
from tokrig.errors import InputError, did_you_mean
from tokrig.record.model import Resolved

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
# Early builds name the weights' buffers without the word "model".
_NAME = r"(Meta\([^)]*\)|\w+)\S*"
_WEIGHTS = re.compile(rf"load_tensors:\s+{_NAME}(?: model)? buffer size\s*=\s*([\d.]+) MiB")
_BUFFER = re.compile(rf":\s+{_NAME}\s+(?:([\w ]+) )?buffer size\s*=\s*([\d.]+) MiB")
_UNUSED = re.compile(r"model has unused tensor \S+ \(size = (\d+) bytes\)")
# Its own words for having no device, though built for one.
_NO_DEVICE = (
    r"(ggml_vulkan: No devices found|failed to initialize (?:CUDA|ROCm): [^\n]+"
    r"|no usable GPU found, [^\n]+|not compiled with GPU offload support, [^\n]+)"
)
_DRAFT = re.compile(r"loading draft model|creating MTP draft context")
_MIB = 1 << 20

# Settings of the model by their names in a record.
_SETTINGS = {
    "context_total": r"\bn_ctx\s*=\s*(\d+)",
    "threads": r"\bn_threads\s*=\s*(\d+)",
    "threads_batch": r"n_threads_batch\s*=\s*(\d+)",
    "batch": r"\bn_batch\s*=\s*(\d+)",
    "ubatch": r"\bn_ubatch\s*=\s*(\d+)",
    "cache_type_k": r"K \((\w+)\)",
    "cache_type_v": r"V \((\w+)\)",
    "layers": r"\bn_layer\s*=\s*(\d+)",
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
    known = next((api for prefix, api in _APIS.items() if name.startswith(prefix)), None)
    letters = re.match(r"[A-Za-z]*", name)
    return known or (letters.group().lower() if letters else None) or None


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
                hint=did_you_mean(name, listed) if listed else "it found none at all",
            )
        if api and api_of_device(name) != api:
            raise InputError(
                f"the device {name!r} is none of {api}",
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
        computing: dict[str, float] = {}
        for name, kind, mib in _BUFFER.findall(context):
            if kind == "compute":
                computing[name] = float(mib)
            else:
                total[_owner(name)] += round(float(mib) * _MIB)
        for name, size in computing.items():
            total[_owner(name)] += round(size * _MIB)
    return {name: size for name, size in total.items() if size}


def weight_bytes(log: str) -> dict[str, int]:
    """Bytes of the model's weights by device, everything in main memory as ``CPU``. What is mapped
    from the file counts from the first of its tensors to the last, whatever lies between."""
    total: Counter[str] = Counter()
    for name, mib in _WEIGHTS.findall(_of_the_model(log)):
        total[_owner(name)] += round(float(mib) * _MIB)
    return {name: size for name, size in total.items() if size}


def unused_bytes(log: str) -> int:
    """Bytes of the file's tensors that the engine leaves aside, such as layers for drafting."""
    return sum(map(int, _UNUSED.findall(_of_the_model(log))))


def no_device(log: str) -> str | None:
    """The engine's own words that it found no GPU, or was built for none."""
    return word(log, _NO_DEVICE)


def settings(log: str) -> Resolved:
    """What the model runs with, as logged; a draft model's own settings are not among it.

    Slots that share one cache (``kv_unified``) have what is left when all of them are full.
    """
    # Slots are set up when all is loaded, drafts too.
    context = number(log, r"\bn_ctx_slot\s*=\s*(\d+)")
    slots = number(log, r"\bn_slots\s*=\s*(\d+)")
    unified = word(log, r"\bkv_unified\s*=\s*'?(true|false)")
    log = _of_the_model(log)
    found = logged(log, _SETTINGS)
    if unified == "true" and context and slots:
        context = min(context, (found["context_total"] or context) // slots)
    # A line about offloaded layers says nothing where no device holds weights.
    offloaded = re.search(r"offloaded (\d+)/\d+ layers to GPU", log)
    gpu_layers = int(offloaded.group(1)) if offloaded and api_of(log)[0] != "cpu" else None
    features = re.search(r"CPU\s*:((?:\s*\w+ = 1 \|)+)", log)
    return Resolved(
        **found,
        context_per_slot=context,
        kv_unified=None if unified is None else unified == "true",
        slots=slots,
        flash_attention=_flash_attention(log),
        gpu_layers=0 if offloaded and gpu_layers is None else gpu_layers,
        devices=list(dict.fromkeys(re.findall(r"using device (\w+)\S* \(", log))),
        split_mode=_split_mode(log),
        cpu_features=re.findall(r"(\w+) = 1", features.group(1).lower()) if features else [],
    )


def all_layers(log: str) -> int | None:
    """Layers that can be offloaded: the model's own and the output layer."""
    layers = number(log, _SETTINGS["layers"])
    return number(log, r"offloaded \d+/(\d+) layers") or (layers + 1 if layers else None)


def speculates(log: str) -> bool | None:
    """Whether the server drafts, as it logged when it set its slots up."""
    if re.search(r"speculative decoding context initialized", log):
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


def _filled(log: str) -> list[str]:
    """Buffers that hold weights of the model."""
    return [name for name, mib in _WEIGHTS.findall(_of_the_model(log)) if float(mib) > 0]


def _owner(buffer: str) -> str:
    """``Vulkan0``, ``MTL0_Mapped`` → the device; main memory of any kind → ``CPU``; devices that
    share every tensor → ``CUDA0+CUDA1``."""
    if shared := _SHARED.match(buffer):
        return "+".join(re.split(r"\s*,\s*", shared.group(1)))
    return "CPU" if api_of_device(buffer) is None else buffer.partition("_")[0]


def _split_mode(log: str) -> str | None:
    """How several devices share the model, told by the buffers: rows have one of their own."""
    holders = {name for name in _filled(log) if api_of_device(name) is not None}
    if any(_SHARED.match(name) for name in holders):
        return "tensor"
    if any(name.endswith("_Split") for name in holders):
        return "row"
    return "layer" if len(holders) > 1 else None


def _flash_attention(log: str) -> str | None:
    """``auto`` is a request; the engine says in a later line what became of it."""
    said = r"Flash Attention (?:was auto, set to )?(enabled|disabled)"
    first = word(log, r"flash_attn\s*=\s*(enabled|disabled|on|off|[01])\b")
    switch = {"on": "enabled", "1": "enabled", "off": "disabled", "0": "disabled"}
    return word(log, said) or switch.get(first or "", first)
