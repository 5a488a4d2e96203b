"""Prompts meet their length with any tokenizer, in few questions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tokrig import registry
from tokrig.errors import RequestError
from tokrig.run.fitting import Prompt, fit, target_of
from tokrig.run.session import salt
from tokrig.workloads import Messages, Workload, tolerance

SHAPES: list[Workload] = [
    registry.load("workloads", name, "WORKLOAD") for name in registry.names("workloads")
]


class Tokenizer:
    """Counts a token for every ``per_token`` characters, plus a template's overhead."""

    def __init__(self, per_token: float, overhead: int, limit: int | None = None) -> None:
        self.per_token, self.overhead, self.limit = per_token, overhead, limit
        self.asked = 0

    def __call__(self, messages: Messages) -> int | None:
        self.asked += 1
        characters = sum(len(m["content"]) for m in messages)
        tokens = self.overhead + math.ceil(characters / self.per_token)
        if self.limit is not None and tokens > self.limit:
            raise RequestError("exceeds the available context size", code="http_400")
        return tokens


@pytest.mark.parametrize("overhead", [5, 20, 45])
@pytest.mark.parametrize("per_token", [3.2, 4.0, 4.6, 5.2])
@pytest.mark.parametrize("workload", SHAPES, ids=lambda w: w.name)
def test_any_tokenizer_is_met(workload: Workload, per_token: float, overhead: int) -> None:
    for variant in workload.variants:
        count = Tokenizer(per_token, overhead)
        found = fit(workload, variant, count)
        assert found.tokens is not None
        assert abs(found.tokens - workload.prompt_tokens) <= tolerance(workload.prompt_tokens)
        assert found.tokens == count(variant.render(found.units, found.ending, salt(0)))


def test_a_count_that_costs_a_prefill_is_asked_for_rarely() -> None:
    rag = next(w for w in SHAPES if w.name == "rag")
    count = Tokenizer(4.1, 12)
    fit(rag, rag.variants[0], count)
    assert count.asked <= 6


def test_candidates_too_long_for_the_context_are_stepped_back_from() -> None:
    rag = next(w for w in SHAPES if w.name == "rag")
    found = fit(rag, rag.variants[0], Tokenizer(3.2, 12, limit=4200))
    assert found.tokens is not None
    assert abs(found.tokens - rag.prompt_tokens) <= tolerance(rag.prompt_tokens)


def test_without_anyone_to_count_the_length_is_guessed_and_unverified() -> None:
    chat = next(w for w in SHAPES if w.name == "chat")
    found = fit(chat, chat.variants[0], lambda messages: None)
    assert isinstance(found, Prompt)
    assert found.tokens is None
    assert found.units > 0


def test_an_error_that_is_no_length_is_not_swallowed() -> None:
    chat = next(w for w in SHAPES if w.name == "chat")

    def refuse(messages: Messages) -> int | None:
        raise RequestError("slow down", code="http_429")

    with pytest.raises(RequestError, match="slow down"):
        fit(chat, chat.variants[0], refuse)


def test_salts_have_one_length_and_differ_from_the_first_character_on() -> None:
    numbers = range(99_999_990, 100_000_120)
    salts = [salt(n) for n in numbers]
    assert {len(one) for one in salts} == {7}
    assert all(one[0] != two[0] and one[1] != two[1] for one, two in pairwise(salts))
    # What two salts of a run begin with alike is never more than the letter, and rarely that.
    assert len({one[:2] for one in salts}) == len(salts)
    assert len({salt(n) for n in range(200_000)}) == 200_000


@pytest.mark.parametrize(
    ("template_tokens", "length"), [(None, 64), (12, 64), (32, 64), (33, 65), (600, 632)]
)
def test_a_template_that_leaves_no_room_makes_the_shape_longer(
    template_tokens: int | None, length: int
) -> None:
    """kekzl/imp#78, kubernetes-sigs/inference-perf#693: templates with hundreds of tokens."""
    chat = next(w for w in SHAPES if w.name == "chat")
    assert target_of(chat, template_tokens) == length
    if template_tokens is not None:
        for variant in chat.variants:
            found = fit(chat, variant, Tokenizer(4.2, template_tokens), length)
            assert found.tokens is not None
            assert abs(found.tokens - length) <= tolerance(length)


def test_a_context_that_cannot_hold_the_shape_is_told_in_the_servers_words() -> None:
    rag = next(w for w in SHAPES if w.name == "rag")
    with pytest.raises(RequestError, match="available context size") as caught:
        fit(rag, rag.variants[0], Tokenizer(4.1, 12, limit=2000))
    assert caught.value.code == "context_too_small"


def test_a_server_that_cuts_prompts_without_a_word_is_found_out() -> None:
    """Ollama answers 200 with half of its context (ollama/ollama#17427, #17889)."""
    rag = next(w for w in SHAPES if w.name == "rag")
    whole = Tokenizer(4.1, 12)

    def cut(messages: Messages) -> int | None:
        tokens = whole(messages)
        return tokens if tokens is None or tokens <= 2048 else 1026

    with pytest.raises(RequestError, match="cuts long prompts") as caught:
        fit(rag, rag.variants[0], cut)
    assert caught.value.code == "context_too_small"
