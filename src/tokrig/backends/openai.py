"""Any OpenAI-compatible endpoint that is already running. Attached to, never started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Availability, Command, Engine, Launch, Request, _llama_http
from tokrig.backends._openai_http import CHAT_PATH, chat_body, served_models
from tokrig.errors import InputError, RequestError
from tokrig.record.samples import EngineTimings


class OpenAI:
    """The generic dialect. What the server does not tell stays unknown and unverified."""

    name = "openai"
    title = "OpenAI-compatible endpoint"
    managed = False
    options: Mapping[str, str] = {}
    chat_path = CHAT_PATH
    ready_path = "/v1/models"

    def availability(self) -> Availability:
        return Availability(True, "attaches to a running server: --backend openai --url URL")

    def command(self, launch: Launch) -> Command:
        raise InputError(
            "the backend 'openai' starts no server", hint="give the address of one with --url"
        )

    def inspect(self, ask: Ask, log: str) -> Engine:
        """llama.cpp is recognised by its own ``/props``; other servers keep their anonymity."""
        try:
            if "total_slots" in ask("/props"):
                return _llama_http.inspect(ask, log)
        except (RequestError, TypeError):
            pass
        return Engine(engine=_owner(ask) or "unknown", served_models=served_models(ask))

    def body(self, request: Request) -> dict[str, Any]:
        """Plus two switches that most servers know or ignore, unless the endpoint is strict."""
        switches = {} if request.plain else {"ignore_eos": True, "cache_prompt": False}
        return {**chat_body(request), **switches}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """Asked of llama.cpp-like servers; else by a one-token request's own usage."""
        counted = _llama_http.count_prompt(ask, request)
        if counted is not None:
            return counted
        probe = {
            key: value
            for key, value in chat_body(request).items()
            if key not in ("stream", "stream_options")
        }
        answer = ask(CHAT_PATH, {**probe, "max_tokens": 1})
        usage = answer.get("usage") if isinstance(answer, dict) else None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _llama_http.count_text(ask, text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return _llama_http.timings(event)

    def failure(self, log: str) -> str | None:
        return None


def _owner(ask: Ask) -> str | None:
    """``owned_by`` of the first model: "vllm", "llamacpp", … where the server says so."""
    try:
        owner = ask("/v1/models")["data"][0]["owned_by"]
    except (RequestError, KeyError, IndexError, TypeError):
        return None
    return str(owner) if owner else None


BACKEND = OpenAI()
