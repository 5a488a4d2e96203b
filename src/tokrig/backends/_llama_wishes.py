"""What a llama.cpp server was told: which parts to keep off the GPU, and which settings to use.

By its flags under all the names they ever had, and by its environment variables, which hold where
no flag says otherwise. Names as of b11434's ``common/arg.cpp``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from tokrig.backends import Launch
from tokrig.backends import _llama_log as llama_log
from tokrig.record.model import Resolved

Value = str | int | float | bool

GPU_LAYERS = ("n-gpu-layers", "gpu-layers", "ngl")
_GPU_LAYERS_VARIABLE = "LLAMA_ARG_N_GPU_LAYERS"

# What it is called in a record, the flags' names, the variable.
_KEPT_BACK: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("cpu-moe", ("cpu-moe", "cmoe"), "LLAMA_ARG_CPU_MOE"),
    ("n-cpu-moe", ("n-cpu-moe", "ncmoe"), "LLAMA_ARG_N_CPU_MOE"),
    ("n-cpu-ffn", ("n-cpu-ffn", "ncffn"), "LLAMA_ARG_N_CPU_FFN"),
    ("override-tensor", ("override-tensor", "ot"), "LLAMA_ARG_OVERRIDE_TENSOR"),
    ("no-kv-offload", ("no-kv-offload", "nkvo"), "LLAMA_ARG_NO_KV_OFFLOAD"),
    (
        "draft cpu-moe",
        ("spec-draft-cpu-moe", "cpu-moe-draft", "cmoed"),
        "LLAMA_ARG_SPEC_DRAFT_CPU_MOE",
    ),
    (
        "draft n-cpu-moe",
        ("spec-draft-n-cpu-moe", "spec-draft-ncmoe", "n-cpu-moe-draft", "ncmoed"),
        "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
    ),
    (
        "draft override-tensor",
        ("spec-draft-override-tensor", "override-tensor-draft", "otd"),
        "",
    ),
    (
        "draft gpu-layers",
        ("spec-draft-ngl", "gpu-layers-draft", "n-gpu-layers-draft", "ngld"),
        "LLAMA_ARG_N_GPU_LAYERS_DRAFT",
    ),
)
_FLAGS = frozenset({"cpu-moe", "no-kv-offload", "draft cpu-moe"})
VARIABLES = (_GPU_LAYERS_VARIABLE, *filter(None, (row[2] for row in _KEPT_BACK)))

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
_SWITCH = {"on": "enabled", "true": "enabled", "1": "enabled", "enabled": "enabled"} | {
    "off": "disabled",
    "false": "disabled",
    "0": "disabled",
    "disabled": "disabled",
}
# What it says where it was told to fit the model to the free memory, and had nothing to do.
_FITS = re.compile(r"\bno changes needed\b")
_ON = frozenset({"1", "true", "on", "enabled"})
_ALL_LAYERS = frozenset({"all", "auto", "-1", "-2"})


def asked_gpu_layers(
    launch: Launch | None, log: str, environment: Mapping[str, str] | None = None
) -> int | None:
    """Layers that should be on a GPU: as many as an option or a variable says, else all where a
    GPU's API or a device is asked for; None where none is."""
    layers = llama_log.all_layers(log)
    if launch is None or launch.api == "cpu" or layers is None:
        return None
    given = _given(_options(launch), GPU_LAYERS)
    everything = bool(launch.api or launch.devices)
    if given is None and not everything:
        given = (environment or {}).get(_GPU_LAYERS_VARIABLE)
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
    if str(options.get("fit")).lower() in _ON and not _FITS.search(log):
        words.append("fit")
    return ", ".join(words) or None


def settings(launch: Launch | None) -> dict[str, Value]:
    """What was asked of settings that the engine logs, by their names in a record."""
    if launch is None:
        return {}
    found: dict[str, Value] = {}
    for option, value in _options(launch).items():
        name = _SETTINGS.get(option)
        if name == "flash_attention":
            switched = _SWITCH.get(str(value).lower())
            found |= {name: switched} if switched else {}
        elif name is not None:
            found[name] = value
    if launch.devices:
        found["devices"] = ",".join(launch.devices)
    return found


def _kept_back(options: Mapping[str, Value], environment: Mapping[str, str]) -> Iterator[str]:
    for word, names, variable in _KEPT_BACK:
        given = _given(options, names)
        if given is None:
            given = _by_variable(environment, variable, is_flag=word in _FLAGS)
        if given is None or given is False:
            continue
        if given is True:
            yield word
        elif word.endswith("override-tensor"):
            if overrides := _to_main_memory(str(given)):
                yield f"{word} {overrides}"
        elif word == "draft gpu-layers":
            if str(given) not in _ALL_LAYERS and not _many(given):
                yield f"{word} {given}"
        elif str(given) != "0":
            yield f"{word} {given}"


def _by_variable(environment: Mapping[str, str], variable: str, *, is_flag: bool) -> Value | None:
    """A flag that says no (``LLAMA_ARG_NO_KV_OFFLOAD``) has a variable of its own, and one that
    says yes where it is 0."""
    value = environment.get(variable)
    if not is_flag:
        return value
    if "_NO_" in variable and (opposite := environment.get(variable.replace("_NO_", "_"))):
        return opposite.lower() not in _ON
    return None if value is None else value.lower() in _ON


def _to_main_memory(overrides: str) -> str:
    """Of ``pattern=buffer`` pairs those that name main memory: ``exps=CPU``. The others move
    tensors from one device to another."""
    pairs = [pair for pair in overrides.split(",") if pair.strip()]
    return ",".join(
        pair for pair in pairs if llama_log.api_of_device(pair.rpartition("=")[2].strip()) is None
    )


def _many(layers: Value) -> bool:
    """No model has so many: people write 99 or 999 for all."""
    return str(layers).isdecimal() and int(layers) >= 99


def _options(launch: Launch) -> dict[str, Value]:
    """Options by their flags' names; what a wrapper hands on (``llamacpp_args``) among them."""
    found: dict[str, Value] = {}
    for name, value in launch.options.items():
        flag = name.lstrip("-").replace("_", "-")
        found |= _arguments(str(value)) if flag == "llamacpp-args" else {flag: value}
    return found


def _arguments(line: str) -> dict[str, Value]:
    """``--n-cpu-moe 4 --no-mmap`` as options."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    found: dict[str, Value] = {}
    flag = ""
    for word in words:
        if word.startswith("-") and not word[1:].isdecimal():
            flag, _, value = word.lstrip("-").partition("=")
            found[flag] = value or True
        elif flag:
            found[flag] = word
    return found


def _given(options: Mapping[str, Value], names: tuple[str, ...]) -> Value | None:
    return next((options[name] for name in names if name in options), None)
