"""OpenAI chat requests as a simulated server reads them, and answers that are not streamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokrig.simulate.cache import tokens_in
from tokrig.simulate.simulation import Asked, Simulation
from tokrig.simulate.streams import TOOL_CALL, Recipe


class BadRequest(Exception):
    """A request that is refused, and with which status and code."""

    def __init__(self, text: str, code: str = "invalid_request_error", status: int = 400) -> None:
        super().__init__(text)
        self.code, self.status = code, status


def read_chat(body: bytes, made: Simulation) -> Asked:
    """What a body asks for. Raises BadRequest."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' has to be a list of messages")
    if not all(isinstance(message, dict) for message in messages):
        raise BadRequest("each of 'messages' has to be an object")
    most = data.get("max_completion_tokens", data.get("max_tokens"))
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise BadRequest("'max_tokens' has to be a whole number of at least 1")
    prompt = _templated(messages, data.get("tools"))
    _refuse_too_long(made, tokens_in(prompt), most)
    options = data.get("stream_options")
    options = options if isinstance(options, dict) else {}
    streams = bool(data.get("stream"))
    usage = "none" if streams else "end"
    if options.get("include_usage"):
        usage = "each" if options.get("continuous_usage_stats") else "end"
    named = data.get("model")
    return Asked(
        prompt=prompt,
        model=named if isinstance(named, str) and named else made.model,
        most_tokens=most,
        streams=streams,
        usage=usage,
        may_use_cache=data.get("cache_prompt") is not False,
    )


def _templated(messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    """The prompt as a chat template makes it, open where the answer goes on: the prompt of a next
    turn that repeats this one and its answer begins with both."""
    parts = [json.dumps(tools), "\n"] if tools else []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
        parts += [f"<|{message.get('role')}|>", str(content or "")]
        if message.get("tool_calls"):
            parts.append(json.dumps(message["tool_calls"]))
        parts.append("\n")
    return "".join([*parts, "<|assistant|>"])


def _refuse_too_long(made: Simulation, prompt: int, most: int | None) -> None:
    """The refusal is worded as vLLM's is."""
    if made.context is None or prompt + (most or 1) <= made.context:
        return
    raise BadRequest(
        f"This model's maximum context length is {made.context} tokens. However, you requested "
        f"{prompt + (most or 1)} tokens ({prompt} in the messages, {most or 1} in the completion). "
        "Please reduce the length of the messages or completion.",
        "context_length_exceeded",
    )


def whole_answer(
    recipe: Recipe, number: int, model: str, said: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The answer in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for kind in dict.fromkeys(kind for kind, _ in said if kind != TOOL_CALL):
        message[kind] = "".join(text for one, text in said if one == kind)
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{number:016x}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": recipe.finish}],
    }
    if recipe.usage != "none":
        answer["usage"] = {
            "prompt_tokens": recipe.prompt_tokens,
            "completion_tokens": recipe.tokens,
            "total_tokens": recipe.prompt_tokens + recipe.tokens,
            "prompt_tokens_details": {"cached_tokens": recipe.cached_tokens},
        }
    return answer
