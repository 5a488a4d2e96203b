"""Probabilities of tokens as llama.cpp and vLLM tell them, of a model whose every answer is known.

The shapes are those of llama.cpp b11434 (``to_json_non_oaicompat`` and ``probs_vector_to_json`` in
``tools/server/server-task.cpp``) and of vLLM 0.32.0 (``entrypoints/openai/completion/protocol.py``
with ``return_token_ids``, ``return_tokens_as_token_ids`` and ``prompt_logprobs``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tokrig.backends import Ask, Backend, Request
from tokrig.backends.llamacpp import BACKEND as LLAMA
from tokrig.backends.vllm import BACKEND as VLLM
from tokrig.record.quality import Position

VOCABULARY, TOP, END = 50, 20, 7
REQUEST = Request([{"role": "user", "content": "Hi"}], answer_tokens=12, seed=1)


def distribution(prefix: Sequence[int]) -> list[float]:
    """Natural logarithms of the next token's probabilities."""
    chance = random.Random(repr(list(prefix)))
    weights = [math.exp(2 * chance.gauss(0, 1)) for _ in range(VOCABULARY)]
    return [math.log(weight / sum(weights)) for weight in weights]


def truth(prefix: Sequence[int]) -> Position:
    logs = distribution(prefix)
    order = sorted(range(VOCABULARY), key=lambda token: -logs[token])[:TOP]
    return Position(tuple(order), tuple(logs[token] for token in order))


def answer_to(prompt: Sequence[int], tokens: int) -> list[int]:
    found: list[int] = []
    while len(found) < tokens and END not in found:
        found.append(truth([*prompt, *found]).ids[0])
    return found


class Llama:
    """Its ``/completion``. Of the ``split`` tokens, which end within a character, it tells nothing;
    while it ``drafts`` it knows the first token's alone."""

    def __init__(self, split: Sequence[int] = (), *, drafts: bool = False) -> None:
        self.split, self.drafts, self.asked = split, drafts, 0

    def step(self, prefix: Sequence[int], token: int, *, known: bool = True) -> dict[str, Any]:
        at = truth(prefix)
        listed = [
            {"id": i, "token": "x", "logprob": v} for i, v in zip(at.ids, at.logprobs, strict=True)
        ]
        told = distribution(prefix)[token] if known else 0.0
        return {"id": token, "token": "x", "logprob": told, "top_logprobs": listed if known else []}

    def one(self, prompt: Sequence[int], body: dict[str, Any], index: int) -> dict[str, Any]:
        self.asked += 1
        tokens = answer_to(prompt, body["n_predict"])
        if bias := body.get("logit_bias"):
            tokens = [bias[0][0]]
        steps = [
            self.step([*prompt, *tokens[:n]], token, known=not (self.drafts and n))
            for n, token in enumerate(tokens)
            if token not in self.split
        ]
        told = {"index": index, "content": "text", "completion_probabilities": steps}
        return told | ({"tokens": tokens} if body.get("return_tokens") else {"tokens": []})

    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        if path == "/tokenize":
            return {"tokens": [VOCABULARY - 1]}
        prompts = body["prompt"]
        if isinstance(prompts[0], int):
            return self.one(prompts, body, 0)
        found = [self.one(prompt, body, index) for index, prompt in enumerate(prompts)]
        return found[::-1] if len(found) > 1 else found[0]


def vllm(path: str, body: Any = None, *, text: bool = False) -> Any:
    """``/v1/completions``. The token itself is told beside the likeliest, as both engines' own."""
    prompt = list(body["prompt"])
    tokens = answer_to(prompt, body["max_tokens"])
    choice: dict[str, Any] = {"index": 0, "text": "text", "token_ids": tokens}
    if "logprobs" in body:
        steps = [truth([*prompt, *tokens[:n]]) for n in range(len(tokens))]
        choice["logprobs"] = {
            "top_logprobs": [
                {f"token_id:{i}": v for i, v in zip(at.ids, at.logprobs, strict=True)}
                for at in steps
            ]
        }
    if "prompt_logprobs" in body:
        choice["prompt_logprobs"] = [None]
        for n in range(1, len(prompt)):
            at, own = truth(prompt[:n]), prompt[n]
            told = {own: distribution(prompt[:n])[own]} | dict(
                zip(at.ids, at.logprobs, strict=True)
            )
            choice["prompt_logprobs"].append(
                {str(i): {"logprob": v, "rank": 1, "decoded_token": "x"} for i, v in told.items()}
            )
    return {"choices": [choice]}


ENGINES: dict[str, tuple[Backend, Callable[[], Ask]]] = {
    "llama.cpp": (LLAMA, Llama),
    "llama.cpp, characters of several tokens": (LLAMA, lambda: Llama(range(0, 40, 2))),
    "llama.cpp, speculating": (LLAMA, lambda: Llama(drafts=True)),
    "vLLM": (VLLM, lambda: vllm),
}


@pytest.mark.parametrize("name", ENGINES)
def test_all_that_is_told_is_true(name: str) -> None:
    backend, engine = ENGINES[name]
    for seed in range(20):
        prompt = tuple(random.Random(seed).choices(range(VOCABULARY), k=5))
        found = backend.greedy(engine(), REQUEST, prompt, TOP)
        assert list(found.ids) == answer_to(prompt, REQUEST.answer_tokens)
        assert found.positions == tuple(
            truth([*prompt, *found.ids[:n]]) for n in range(len(found.ids))
        )


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("first", [0, 1, 5, 8, 9])
def test_what_is_likely_after_another_answer(name: str, first: int) -> None:
    backend, engine = ENGINES[name]
    prompt, answer = (3, 1, 4), (15, 9, 2, 6, 5, 35, 8, 9, 7)
    found = backend.likeliest(engine(), REQUEST, prompt, answer, first, TOP)
    places = range(first, len(answer))
    assert found == tuple(truth([*prompt, *answer[:n]]) for n in places)


def test_a_whole_answer_is_asked_for_once() -> None:
    """Only where it is not told of as a whole each position costs a prompt."""
    plain, split = Llama(), Llama(range(0, 40, 2))
    for engine in (plain, split):
        LLAMA.greedy(engine, REQUEST, (3, 1, 4), TOP)
    assert plain.asked == 1
    assert split.asked == 1 + len(answer_to((3, 1, 4), REQUEST.answer_tokens))


NOT_TOLD: list[Any] = [
    {"content": "text"},
    {"content": "text", "tokens": [1, 2], "completion_probabilities": None},
    {"tokens": [1], "completion_probabilities": [{"id": 1, "top_logprobs": [{"id": 1}]}]},
    # Of a model whose weights are broken the logarithms are no numbers.
    {
        "tokens": [1],
        "completion_probabilities": [
            {"id": 1, "top_logprobs": [{"id": i, "logprob": None} for i in range(TOP)]}
        ],
    },
    {"choices": []},
    {"choices": [{"text": "text", "token_ids": [1], "logprobs": {"top_logprobs": [None]}}]},
    {"choices": [{"text": "text", "token_ids": [1], "logprobs": {"top_logprobs": [{"a": -1}]}}]},
    {"choices": [{"prompt_logprobs": [None, {"a": {"logprob": -1}}]}]},
    [],
    None,
]


@pytest.mark.parametrize("told", NOT_TOLD)
@pytest.mark.parametrize("backend", [LLAMA, VLLM])
def test_what_is_not_told_is_not_made_up(backend: Backend, told: Any) -> None:
    def ask(path: str, body: Any = None, *, text: bool = False) -> Any:
        return told

    assert backend.greedy(ask, REQUEST, (1,), TOP).positions == ()
    assert backend.likeliest(ask, REQUEST, (1,), (1,), 0, TOP) == ()
