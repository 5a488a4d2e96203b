"""Any OpenAI-compatible endpoint that is already running, hosted ones included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Backend, Capabilities, Request
from tokrig.backends._llama import LlamaServer
from tokrig.record.samples import EngineTimings

_LLAMA = LlamaServer()


class OpenAI(Backend):
    """The generic dialect. What the server does not tell stays unknown and unverified."""

    name = "openai"
    title = "OpenAI-compatible endpoint"
    precedence = 100
    capabilities = Capabilities(reasoning_switch="request")

    def body(self, request: Request) -> dict[str, Any]:
        """Plus what most servers know or ignore: a strict one says so, and gets less. Usage on
        every chunk tells how many tokens each carries."""
        return {
            **super().body(request),
            **request.template(),
            "ignore_eos": True,
            "cache_prompt": request.keeps_prompt,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """Asked of llama.cpp-like servers; else by a one-token request's own usage."""
        counted = _LLAMA.count_prompt(ask, request)
        return super().count_prompt(ask, request) if counted is None else counted

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _LLAMA.count_text(ask, text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        """llama.cpp's, which engines built on it pass on."""
        return _LLAMA.timings(event)


BACKEND = OpenAI()
