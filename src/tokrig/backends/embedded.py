"""The real llama.cpp server inside the wheel ``xllamacpp``, run as a process of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import replace

from tokrig.backends import Ask, Availability, Command, Engine, Launch
from tokrig.backends._llama import LlamaServer
from tokrig.errors import InputError
from tokrig.registry import get_extra

_NGRAM = frozenset({"spec_type", "ngram_size_n", "ngram_size_m", "ngram_min_hits"})
# What llama.cpp has KV cache kernels for, whatever other tensor types there are.
_KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


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
        "cache_type_k": "KV cache type of keys: f32, f16, bf16, q8_0, q4_0 …",
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
            **self.setting_flags(launch),
            **launch.options,
        }
        told = json.dumps({name: value for name, value in settings.items() if value is not None})
        return Command((sys.executable, "-m", "tokrig.backends._embedded_server", told))

    def values(self, launch: Launch, flag: str) -> tuple[str, ...]:
        return _KV_TYPES if flag.startswith("cache_type") else ()

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The wheel carries no llama.cpp build number: its own version stands for the build."""
        version = importlib.metadata.version("xllamacpp")
        return replace(super().inspect(ask, log, launch), build=f"xllamacpp {version}")


BACKEND = Embedded()
