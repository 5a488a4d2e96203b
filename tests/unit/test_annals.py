"""The context before a measured turn is language, as long as anybody wants it, and repeats
nothing; a shape stands whole behind it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from tokrig import registry
from tokrig.workloads import (
    ENDING,
    MATERIAL,
    Workload,
    annals,
    annals_hash,
    blocks,
    context,
)

# 128k tokens of a thrifty tokenizer: 5.5 characters each.
LONGEST = 131_072 * 55 // 10
SHAPES: list[Workload] = [
    registry.load("workloads", name, "WORKLOAD") for name in registry.names("workloads")
]


def words(sentences: tuple[str, ...]) -> list[str]:
    return re.findall(r"[\w':-]+", "".join(sentences).lower())


def repeated(of: list[str], length: int) -> float:
    """The share of the runs of so many words that stand there more than once."""
    found = Counter(zip(*(of[start:] for start in range(length)), strict=False))
    return sum(times for times in found.values() if times > 1) / found.total()


@pytest.fixture(scope="module")
def longest() -> tuple[str, ...]:
    return context(LONGEST, seed=1)


def test_nothing_in_128k_tokens_is_there_to_be_looked_up(longest: tuple[str, ...]) -> None:
    assert sum(map(len, longest)) >= LONGEST
    sentences = [sentence.strip() for sentence in longest]
    assert len(set(sentences)) == len(sentences) > 5_000
    read = words(longest)
    assert repeated(read, 8) < 0.005  # 0.3 %
    assert repeated(read, 12) < 0.0001
    # As in the prose of the rag shape, which is as long as this part of it.
    assert repeated(words(tuple(" ".join(block) + " " for block in blocks("rag.md"))), 8) == 0
    assert repeated(read[:5_000], 8) == 0


def test_a_text_that_repeats_would_be_seen(longest: tuple[str, ...]) -> None:
    read = words(longest)
    assert repeated(read[:5_000] * 2, 8) > 0.99
    assert repeated(read[:9_500] + read[:500], 8) > 0.09


def test_two_contexts_share_nothing(longest: tuple[str, ...]) -> None:
    other = context(100_000, seed=2)
    assert not set(other) & set(longest)
    runs = [set(zip(*(text[at:] for at in range(8)), strict=False)) for text in
            (words(other), words(longest[: len(other)]))]  # fmt: skip
    assert len(runs[0] & runs[1]) < 0.002 * len(runs[0])


def test_it_is_the_same_text_everywhere() -> None:
    assert context(50_000, seed=3) == context(50_000, seed=3)
    assert context(2_000, seed=3) == context(50_000, seed=3)[: len(context(2_000, seed=3))]
    # Records name this version: it changes with the text, and never by itself.
    assert annals_hash() == "e59d1d81b527"


def test_every_rule_is_followed_and_none_is_missing() -> None:
    rules = {name: choices for name, *choices in blocks("annals.txt")}
    slots = {slot for of in rules.values() for one in of for slot in re.findall(r"\{(.*?)\}", one)}
    bounds = {slot for slot in slots if re.fullmatch(r"\d+-\d+", slot)}
    assert slots - bounds == rules.keys() - {"sentence"}
    assert all(int(low) < int(high) for low, high in (slot.split("-") for slot in bounds))
    twice = {name for name, choices in rules.items() if len(set(choices)) < len(choices)}
    assert not twice


def test_it_reads_as_language(longest: tuple[str, ...]) -> None:
    text = "".join(longest)
    for sentence in longest:
        assert re.fullmatch(r"(?:|\s|\n\n)[A-Z0-9].*\.", sentence), sentence
    for wrong in ("  ", "{", "}", " ,", " .", "..", "\n\n\n"):
        assert wrong not in text
    assert not re.search(r"\ba [aeiou]", text)
    assert text.count("\n\n") == (len(longest) - 1) // 5


def test_sentences_come_without_end() -> None:
    assert len(list(islice(annals(4), 20_000))) == 20_000


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_stands_whole_behind_its_context(shape: Workload) -> None:
    read = context(20_000, seed=5)
    for variant in shape.variants:
        own = variant.render(4, len(variant.endings) - 1, "A1")
        deep = variant.behind(read, 4)
        assert deep.endings == variant.endings
        fixed = "".join(text for _, text in deep.messages)
        assert (fixed.count(MATERIAL), fixed.count(ENDING)) == (1, 1)
        messages = deep.render(len(read), len(deep.endings) - 1, "A1")
        assert [m["role"] for m in messages] == [m["role"] for m in own]
        # Behind the salt, before the first turn; a system prompt stays as it is.
        assert messages[0] == own[0]
        changed = [(now, was) for now, was in zip(messages, own, strict=True) if now != was]
        [(now, was)] = changed
        salted = "A1 " if was["content"].startswith("A1") else ""
        said = was["content"].removeprefix(salted)
        assert now["content"] == f"{salted}{''.join(read)}\n\n{said}"


def test_a_context_makes_another_version_of_a_shape() -> None:
    for shape in SHAPES:
        assert shape.version() == shape.content_hash
        assert shape.version(4096) == shape.version(16384) != shape.content_hash
        assert re.fullmatch(r"[0-9a-f]{12}", shape.version(4096))
