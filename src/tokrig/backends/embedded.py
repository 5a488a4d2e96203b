"""The real llama.cpp server inside the wheel ``xllamacpp``, run as a process of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokrig.backends import Ask, Availability, Command, Engine, Launch, Request, _llama_http
from tokrig.errors import InputError, did_you_mean
from tokrig.record.samples import EngineTimings

_HINT = "install it with: pip install 'tokrig[embedded]'"


class Embedded:
    """Managed. Needs no download by hand and no GPU."""

    name = "embedded"
    title = "llama.cpp embedded (xllamacpp)"
    managed = True
    options: Mapping[str, str] = {
        "batch": "logical batch size in tokens",
        "ubatch": "physical batch size in tokens",
        "cache_type_k": "KV cache type of keys: f32, f16, bf16, q8_0, q4_0 …",
        "cache_type_v": "KV cache type of values",
        "flash_attention": "on, off or auto",
        "threads_batch": "threads for prompt processing",
        "chat_template": "a Jinja chat template, or the name of a built-in one",
    }
    chat_path = _llama_http.CHAT_PATH
    ready_path = _llama_http.READY_PATH

    def availability(self) -> Availability:
        if importlib.util.find_spec("xllamacpp") is None:
            return Availability(False, "the wheel xllamacpp is not installed", _HINT)
        return Availability(True, f"xllamacpp {importlib.metadata.version('xllamacpp')}")

    def command(self, launch: Launch) -> Command:
        if not self.availability().ok:
            raise InputError("the embedded engine is not installed", hint=_HINT)
        for name in launch.options:
            if name not in self.options:
                raise InputError(
                    f"the backend 'embedded' knows no option {name!r}",
                    hint=did_you_mean(name, self.options),
                )
        settings = {
            "model": str(launch.model),
            "port": launch.port,
            "context": launch.context_per_slot * launch.slots,
            "slots": launch.slots,
            "threads": launch.threads,
            **launch.options,
        }
        module = "tokrig.backends._embedded_server"
        return Command((sys.executable, "-m", module, json.dumps(settings)))

    def inspect(self, ask: Ask, log: str) -> Engine:
        """The wheel carries no llama.cpp build number: its own version stands for the build."""
        version = importlib.metadata.version("xllamacpp")
        return replace(_llama_http.inspect(ask, log), build=f"xllamacpp {version}")

    def body(self, request: Request) -> dict[str, Any]:
        return _llama_http.body(request)

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        return _llama_http.count_prompt(ask, request)

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _llama_http.count_text(ask, text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return _llama_http.timings(event)

    def failure(self, log: str) -> str | None:
        return _llama_http.failure(log)


BACKEND = Embedded()
