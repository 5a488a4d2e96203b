"""Greedy answers with and without speculation, compared."""

from __future__ import annotations

import pytest

from tokrig.run.preflight import compare_greedy


def words(text: str) -> int:
    return len(text.split())


def test_the_same_answer() -> None:
    found = compare_greedy("one two three", "one two three", words)
    assert found.same
    assert found.compared_characters == 13
    assert found.first_divergence_characters is None
    assert found.first_divergence_tokens is None


@pytest.mark.parametrize(
    ("before", "after", "characters", "tokens"),
    [
        ("one two three", "one two four", 8, 2),
        ("one", "two", 0, 0),
        # One is the beginning of the other: they part where the shorter one ends.
        ("one two", "one two three", 7, 2),
        ("", "one", 0, 0),
    ],
)
def test_where_answers_part(before: str, after: str, characters: int, tokens: int) -> None:
    found = compare_greedy(before, after, words)
    assert not found.same
    assert found.first_divergence_characters == characters
    assert found.first_divergence_tokens == tokens
    assert found.compared_characters == min(len(before), len(after))


def test_without_a_tokenizer_only_characters_are_known() -> None:
    found = compare_greedy("one two", "one six", lambda _: None)
    assert (found.first_divergence_characters, found.first_divergence_tokens) == (4, None)
