"""What every llama.cpp server says in its log and in the list of its devices.

A build *with* CUDA or Vulkan says nothing about what computed, and neither does a line about
offloaded layers: without a device it says "31/31" all the same. The buffers that hold the weights
say it. llama.cpp logs them as "trace" since it has such a level (verbosity 4), before that by
default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokrig.backends import _reading as read
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
ON, OFF = ("1", "true", "on", "enabled"), ("0", "false", "off", "disabled")
SWITCH = dict.fromkeys(ON, "enabled") | dict.fromkeys(OFF, "disabled")


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
        flash_attention=SWITCH.get(flash or ""),
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
