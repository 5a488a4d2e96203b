"""The real llama.cpp server inside the wheel ``xllamacpp``, run as a process of its own on
loopback: ``python -m tokrig.backends.embedded SETTINGS``, JSON, until SIGTERM."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from tokrig.backends import Ask, Availability, Command, Engine, Launch
from tokrig.backends._llama import LlamaServer
from tokrig.errors import InputError
from tokrig.registry import get_extra

# What llama.cpp has KV cache kernels for, whatever other tensor types there are.
_KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_SPECULATION = {
    "ngram": "ngram-simple",
    "draft": "draft-simple",
    "mtp": "draft-mtp",
    "eagle": "draft-eagle3",
}
# Options by llama.cpp's own names: the length that must match, and that of the draft.
_NGRAM_MAP = {"ngram_size_n": "size_n", "ngram_size_m": "size_m", "ngram_min_hits": "min_hits"}
_NGRAM_MOD = {"ngram_size_n": "n_match", "ngram_size_m": "n_max"}
_NGRAM = {"spec_type", *_NGRAM_MAP}
# Settings that are words of an enumeration: the place, the enumeration, how its names begin.
_WORDS = {
    "cache_type_k": ("cache_type_k", "ggml_type", "GGML_TYPE_"),
    "cache_type_v": ("cache_type_v", "ggml_type", "GGML_TYPE_"),
    "flash_attention": ("flash_attn_type", "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_"),
}
_FLASH = {"on": "enabled", "true": "enabled", "off": "disabled", "false": "disabled"}

# Nothing is fitted to free memory behind our back: what was asked is what is resolved, or it fails.
# Verbosity 4 makes the engine log buffers, batch sizes and KV types, which are read back. But for
# sessions everything that could reuse a prompt is off.
_ALWAYS = {
    "hostnames": ["127.0.0.1"],
    "model_alias": {"served"},
    "fit_params": False,
    "ui": False,
    "endpoint_metrics": True,
    "verbosity": 4,
}
_CACHE_OFF = {"cache_prompt": False, "cache_ram_mib": 0, "n_ctx_checkpoints": 0}
# Where a setting goes, and as what.
_GOES_TO: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "model": (("model.path",), str),
    "port": (("port",), int),
    "context": (("n_ctx",), int),
    "slots": (("n_parallel",), int),
    "threads": (("cpuparams.n_threads", "cpuparams_batch.n_threads"), int),
    "threads_batch": (("cpuparams_batch.n_threads",), int),
    "batch": (("n_batch",), int),
    "ubatch": (("n_ubatch",), int),
    "n_gpu_layers": (("n_gpu_layers",), int),
    "reasoning": (("enable_reasoning",), lambda asked: int(asked == "on")),
    "chat_template": (("chat_template",), str),
    "draft_model": (("speculative.draft.mparams.path",), str),
}


class Embedded(LlamaServer):
    """Managed. Needs no download by hand and no GPU."""

    name = "embedded"
    title = "llama.cpp embedded (xllamacpp)"
    starts = True
    attaches = False
    get_it = f"install it with: {get_extra('embedded')}"
    takes: Mapping[str, tuple[str, ...]] = {
        "threads": ("threads",),
        "kv_type": ("cache_type_k", "cache_type_v"),
        "batch": ("batch",),
        "ubatch": ("ubatch",),
        "gpu_layers": ("n_gpu_layers",),
    }
    options: Mapping[str, str] = {
        "batch": "logical batch size in tokens",
        "ubatch": "physical batch size in tokens",
        "cache_type_k": "KV cache type of keys: f32, f16, q8_0, q4_0 …",
        "cache_type_v": "KV cache type of values",
        "flash_attention": "on, off or auto",
        "threads_batch": "threads for prompt processing",
        "chat_template": "a Jinja chat template, or the name of a built-in one",
        "n_gpu_layers": "layers on the GPU; all of them by default",
        "spec_type": "how ngram drafts: ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod",
        "ngram_size_n": "tokens that must match for a draft to follow",
        "ngram_size_m": "tokens of a draft",
        "ngram_min_hits": "how often the match must have occurred; not for ngram-mod",
    }

    def availability(self) -> Availability:
        if importlib.util.find_spec("xllamacpp") is None:
            return Availability(False, "the wheel xllamacpp is not installed", self.get_it)
        return Availability(True, f"xllamacpp {importlib.metadata.version('xllamacpp')}")

    def vet(self, launch: Launch) -> None:
        """Raises InputError for what the wheel has no switch for."""
        self.require_settings(["devices"] if launch.devices else [])
        self.require_options(launch)
        ngram = launch.speculation is not None and launch.speculation.type == "ngram"
        for name in launch.options.keys() & _NGRAM if not ngram else ():
            raise InputError(
                f"option {name!r} belongs to n-gram speculation, which is off",
                hint="add --speculative ngram, or leave the option out",
            )

    def command(self, launch: Launch) -> Command:
        if not self.availability().ok:
            raise InputError("the embedded engine is not installed", hint=self.get_it)
        self.vet(launch)
        asked = launch.speculation
        settings = {
            "model": str(launch.model),
            "port": launch.port,
            "context": launch.context,
            "slots": launch.slots,
            "api": launch.api,
            "speculative": asked.type if asked else None,
            "draft_model": str(asked.draft_model) if asked and asked.draft_model else None,
            "draft_tokens": asked.draft_tokens if asked else None,
            "reasoning": launch.engine_switch,
            "keeps_prompts": launch.keeps_prompts or None,
            **self.setting_flags(launch),
            **launch.options,
        }
        told = json.dumps({name: value for name, value in settings.items() if value is not None})
        return Command((sys.executable, "-m", "tokrig.backends.embedded", told))

    def values(self, launch: Launch, flag: str) -> tuple[str, ...]:
        return _KV_TYPES if flag.startswith("cache_type") else ()

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The wheel carries no llama.cpp build number: its own version stands for the build."""
        version = importlib.metadata.version("xllamacpp")
        return replace(super().inspect(ask, log, launch), build=f"xllamacpp {version}")


# The process.


def serve(settings: dict[str, Any]) -> None:
    """Serve until SIGTERM. Exits with 1 when the model cannot be loaded."""
    import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        _running = xllamacpp.Server(parameters(xllamacpp, settings))
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        sys.exit(f"error: {error}")
    while True:
        signal.pause()


def parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    """llama.cpp's parameter block. For the CPU alone nothing may go to a GPU, large prompts
    neither. Raises ValueError naming the words it knows for one it does not."""
    p = xllamacpp.CommonParams()
    off = {} if settings.get("keeps_prompts") else _CACHE_OFF
    for name, value in {**_ALWAYS, **off}.items():
        setattr(p, name, value)
    for name, (places, as_) in _GOES_TO.items():
        for place in places if name in settings else ():
            *way, last = place.split(".")
            setattr(reduce(getattr, way, p), last, as_(settings[name]))
    if settings.get("api") == "cpu":
        p.n_gpu_layers = 0
        p.no_kv_offload = p.no_op_offload = True
    for name in settings.keys() & _WORDS.keys():
        place, kinds, prefix = _WORDS[name]
        word = str(settings[name]).lower()
        word = _FLASH.get(word, word) if name == "flash_attention" else word
        setattr(p, place, _named(getattr(xllamacpp, kinds), prefix, name, word))
    if "chat_template" in settings:
        p.use_jinja = True
    if "speculative" in settings:
        _speculate(xllamacpp, p, settings)
    return p


def _speculate(xllamacpp: Any, p: Any, settings: dict[str, Any]) -> None:
    """Speculative decoding. ``draft_tokens`` is the longest draft, however drafts are made."""
    kind = str(settings.get("spec_type", _SPECULATION[settings["speculative"]]))
    kinds = xllamacpp.common_speculative_type
    p.speculative.types = [_named(kinds, "COMMON_SPECULATIVE_TYPE_", "spec_type", kind, "-")]
    longest = settings.get("draft_tokens")
    if settings["speculative"] != "ngram":
        if longest is not None:
            p.speculative.draft.n_max = longest
        return
    ngram = getattr(p.speculative, kind.replace("-", "_"))
    names = _NGRAM_MOD if kind == "ngram-mod" else _NGRAM_MAP
    for option, value in {"ngram_size_m": longest, **settings}.items():
        if option in names and value is not None:
            setattr(ngram, names[option], int(value))


def _named(kinds: Any, prefix: str, setting: str, word: str, joint: str = "_") -> Any:
    """The value of an enumeration that goes by this word."""
    known = {
        name.removeprefix(prefix).lower().replace("_", joint): name
        for name in dir(kinds)
        if name.startswith(prefix)
    }
    if word not in known:
        raise ValueError(f"invalid argument: {setting} {word!r}; known: {', '.join(sorted(known))}")
    return getattr(kinds, known[word])


BACKEND = Embedded()

if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
