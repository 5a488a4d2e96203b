"""What OpenAI-compatible servers share: the chat body and the list of models."""

from __future__ import annotations

from typing import Any

from tokrig.backends import Ask, Request
from tokrig.errors import RequestError

CHAT_PATH = "/v1/chat/completions"


def chat_body(request: Request) -> dict[str, Any]:
    """A streaming, greedy chat completion of fixed budget that reports its usage."""
    body: dict[str, Any] = {
        "messages": request.messages,
        "max_tokens": request.answer_tokens,
        "temperature": 0,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.served_model is not None:
        body["model"] = request.served_model
    return body


def served_models(ask: Ask) -> tuple[str, ...]:
    """Ids of ``/v1/models``; empty where the server has no such list."""
    try:
        data = ask("/v1/models")["data"]
        return tuple(str(entry["id"]) for entry in data)
    except (RequestError, KeyError, TypeError):
        return ()
