"""What engines tell of their tokens' probabilities: llama.cpp's ``/completion``, vLLM's
``/v1/completions``.

Checked against llama.cpp b11434 (``server-context.cpp``, ``server-task.cpp``) and vLLM 0.32.0
(``entrypoints/openai/completion``). Both tell them of all tokens and before any sampler, llama.cpp
unless ``post_sampling_probs`` is asked for, vLLM unless ``logprobs_mode`` says otherwise.

Two traps of llama.cpp's: of a token that ends within a character it tells nothing, and with
speculation it tells 0 for every drafted one (issue #27972). Where an answer is not told of as a
whole each position is asked for by itself: a prompt of all before it, and one token, which a bias
makes a whole character; the probabilities are those without the bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tokrig.backends import Ask, Greedy, Request
from tokrig.backends import _reading as read
from tokrig.record.quality import Position

Ids = tuple[int, ...]
_SURE = 1000.0


def ids(told: Mapping[str, Any]) -> Ids | None:
    """``tokens`` of a tokenizer's answer."""
    found = told.get("tokens")
    whole = isinstance(found, list) and all(isinstance(one, int) for one in found)
    return tuple(found) if whole and found else None


def _position(pairs: Iterable[tuple[Any, Any]], top: int) -> Position | None:
    """The likeliest of what is told of one position, None where that is too little."""
    found: dict[int, float] = {}
    for token, logprob in pairs:
        number = isinstance(logprob, int | float) and math.isfinite(logprob)
        if not number or not str(token).isdecimal():
            return None
        found[int(token)] = min(float(logprob), 0.0)
    order = sorted(found, key=lambda token: -found[token])[:top]
    return Position(tuple(order), tuple(found[t] for t in order)) if len(order) == top else None


# llama.cpp

_GREEDY = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": True, "id_slot": 0}


def llama_greedy(ask: Ask, request: Request, prompt: Ids, top: int) -> Greedy:
    """Raises RequestError."""
    body = {"prompt": prompt, "n_predict": request.answer_tokens, "n_probs": top, **_GREEDY}
    told = read.mapping(ask("/completion", {**body, "return_tokens": True}))
    answer, steps = ids(told) or (), read.mappings(told, "completion_probabilities")
    positions = [_llama_position(step, top) for step in steps]
    whole = [step.get("id") for step in steps] == list(answer) and None not in positions
    if not whole:
        positions = list(llama_likeliest(ask, prompt, answer, 0, top))
    return Greedy(str(told.get("content") or ""), answer, tuple(filter(None, positions)))


def llama_likeliest(
    ask: Ask, prompt: Ids, answer: Ids, first: int, top: int
) -> tuple[Position, ...]:
    """One request with as many prompts as there are positions: each begins with the one before it,
    so that the cache leaves one token of it to read. Empty where any is not told."""
    if first >= len(answer):
        return ()
    plain = ids(read.mapping(ask("/tokenize", {"content": "a", "add_special": False})))
    asked = {
        "prompt": [[*prompt, *answer[:end]] for end in range(first, len(answer))],
        "n_predict": 1,
        "n_probs": top,
        "logit_bias": [[plain[-1], _SURE]] if plain else [],
        **_GREEDY,
    }
    told = ask("/completion", asked)
    each = told if isinstance(told, list) else [told]
    if all("index" in read.mapping(one) for one in each):
        each = sorted(each, key=lambda one: one["index"])
    steps = [read.mappings(one, "completion_probabilities")[:1] for one in each]
    found = [_llama_position(step[0], top) if step else None for step in steps]
    complete = len(found) == len(answer) - first and None not in found
    return tuple(filter(None, found)) if complete else ()


def _llama_position(step: Mapping[str, Any], top: int) -> Position | None:
    listed = read.mappings(step, "top_logprobs")
    return _position(((one.get("id"), one.get("logprob")) for one in listed), top)


# vLLM

_NO_SAMPLER = {"temperature": 0, "repetition_penalty": 1.0, "stream": False}


def vllm_greedy(ask: Ask, request: Request, prompt: Ids, top: int) -> Greedy:
    """Raises RequestError."""
    asked = {"prompt": prompt, "max_tokens": request.answer_tokens, "logprobs": top}
    named = {"return_token_ids": True, "return_tokens_as_token_ids": True}
    told = _choice(ask("/v1/completions", {**_of(request), **asked, **named, **_NO_SAMPLER}))
    answer = ids({"tokens": told.get("token_ids")}) or ()
    steps = read.mappings(told, "logprobs", "top_logprobs")
    positions = [
        _position(((name.rpartition(":")[2], v) for name, v in step.items()), top) for step in steps
    ]
    whole = len(positions) == len(answer) and None not in positions
    return Greedy(
        str(told.get("text") or ""), answer, tuple(filter(None, positions)) if whole else ()
    )


def vllm_likeliest(
    ask: Ask, request: Request, prompt: Ids, answer: Ids, first: int, top: int
) -> tuple[Position, ...]:
    """One request: vLLM tells of each token of a prompt what it held for likely."""
    if first >= len(answer):
        return ()
    asked = {"prompt": [*prompt, *answer], "max_tokens": 1, "prompt_logprobs": top}
    told = _choice(ask("/v1/completions", {**_of(request), **asked, **_NO_SAMPLER}))
    steps = told.get("prompt_logprobs")
    if not isinstance(steps, list) or len(steps) != len(prompt) + len(answer):
        return ()
    found = [
        _position(
            ((token, read.at(one, "logprob")) for token, one in read.mapping(step).items()), top
        )
        for step in steps[len(prompt) + first :]
    ]
    return tuple(filter(None, found)) if None not in found else ()


def _of(request: Request) -> dict[str, Any]:
    return {"model": request.served_model} if request.served_model is not None else {}


def _choice(told: Any) -> dict[str, Any]:
    return next(iter(read.mappings(told, "choices")), {})
