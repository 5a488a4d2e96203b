"""How far answers are from a reference's, and what is wrong with an answer by itself."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.errors import RecordError
from tokrig.record.consistency import broken_ties
from tokrig.record.quality import (
    FAULTS,
    TOP_K,
    Answer,
    Answers,
    Interval,
    Position,
    Quality,
    Reference,
    divergence,
    faults_of,
    interval,
    quality,
)
from tokrig.record.quality_file import from_parquet, to_parquet
from tokrig.run.quality import ANSWER_TOKENS, questions, version
from tokrig.workloads import blocks, lines

Distribution = list[float]
VOCABULARY = 60
OWN = "20261122-120000-tiny-aaaa"


def distribution(chance: random.Random, sharpness: float) -> Distribution:
    weights = [math.exp(sharpness * chance.gauss(0, 1)) for _ in range(VOCABULARY)]
    return [weight / sum(weights) for weight in weights]


def listed(p: Distribution, top: int = TOP_K) -> Position:
    """What a server tells of a distribution."""
    order = sorted(range(len(p)), key=lambda token: -p[token])[:top]
    return Position(tuple(order), tuple(math.log(p[token]) for token in order))


def true_divergence(p: Distribution, q: Distribution) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@given(st.integers(0, 10_000), st.floats(0.1, 6), st.floats(0.1, 6), st.floats(0, 1))
def test_the_divergence_is_never_more_than_the_true_one(
    seed: int, sharp: float, other: float, near: float
) -> None:
    chance = random.Random(seed)
    p, far = distribution(chance, sharp), distribution(chance, other)
    q = [near * a + (1 - near) * b for a, b in zip(p, far, strict=True)]
    found, true = divergence(listed(p), listed(q)), true_divergence(p, q)
    assert 0 <= found <= true * (1 + 1e-9) + 1e-9


@given(st.integers(0, 10_000), st.floats(0.1, 3))
def test_it_is_the_true_one_where_every_token_is_told(seed: int, sharp: float) -> None:
    chance = random.Random(seed)
    p, q = distribution(chance, sharp), distribution(chance, sharp)
    found = divergence(listed(p, VOCABULARY), listed(q, VOCABULARY))
    assert found == pytest.approx(true_divergence(p, q), rel=1e-6, abs=1e-6)


def test_it_loses_little_where_the_likeliest_hold_nearly_all() -> None:
    """As of a language model, whose twenty likeliest tokens mostly hold 95 % and more."""
    chance = random.Random(1)
    found = true = 0.0
    for _ in range(200):
        p = distribution(chance, 3)
        q = [a * math.exp(0.3 * chance.gauss(0, 1)) for a in p]
        q = [b / sum(q) for b in q]
        found, true = found + divergence(listed(p), listed(q)), true + true_divergence(p, q)
    assert 0.9 * true < found <= true


def test_lists_without_a_token_in_common_are_far_apart() -> None:
    p = [0.9 / 20] * 20 + [0.1 / 40] * 40
    assert divergence(listed(p), listed(p[::-1])) > 1


def sure(token: int) -> Position:
    """A model that is nearly certain of a token."""
    others = [t for t in range(TOP_K) if t != token][: TOP_K - 1]
    rest = 0.05 / (TOP_K - 1)
    return Position((token, *others), (math.log(0.95), *[math.log(rest)] * (TOP_K - 1)))


def answered(tokens: list[int], name: str = "one", **more: object) -> Answer:
    return replace(
        Answer(name, "language", "en", "All is well.", (1, 2), (2,), tuple(tokens)),
        positions=tuple(map(sure, tokens)),
        **more,  # type: ignore[arg-type]
    )


def reference(*given: Answer) -> Reference:
    return Reference("best", "F16", "a" * 64, Answers("v", given))


def test_positions_are_compared_after_the_same_text() -> None:
    """Up to where they part the own positions count, and the one at which they part; from there
    on those after the reference's tokens."""
    best = answered([5, 6, 7, 8])
    mine = answered([5, 9, 3, 3], forced_from=2, forced=(sure(7), sure(4)))
    block = quality(Answers("v", (mine,), "best"), reference(best))
    assert block.not_compared is None
    assert (block.positions, block.other_prompts) == (4, 0)
    assert block.top1_agreement is not None
    assert block.top1_agreement.value == 0.5, "9 for 6 and 4 for 8"
    assert block.kl_nats is not None
    # 0.95 against 0.05 / 19 twice, and back.
    once = (0.95 - 0.05 / 19) * math.log(0.95 * 19 / 0.05)
    assert block.kl_nats.value == pytest.approx(2 * once / 4, rel=1e-3)


def test_the_same_answers_are_not_apart() -> None:
    best = answered([5, 6, 7])
    block = quality(Answers("v", (best,), "best"), reference(best))
    assert block.top1_agreement is not None
    assert block.kl_nats is not None
    assert (block.top1_agreement.value, block.kl_nats.value) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("mine", "why"),
    [
        (Answers("v", (replace(answered([5, 6]), positions=()),), "best"), "no_logprobs"),
        (Answers("v", (), None, "failed"), "failed"),
        (Answers("w", (answered([5, 6]),), "best"), "other_prompts"),
        (Answers("v", (replace(answered([5, 6]), text_ids=(7,)),), "best"), "other_tokenizer"),
        (Answers("v", (answered([5, 9]),), "another"), "not_measured"),
    ],
)
def test_what_cannot_be_compared_says_why(mine: Answers, why: str) -> None:
    block = quality(mine, reference(answered([5, 6, 7])))
    assert block.not_compared == why
    assert (block.kl_nats, block.top1_agreement, block.positions) == (None, None, None)


def test_a_run_without_reference_says_so() -> None:
    assert quality(Answers("v", (answered([5, 6]),)), None).not_compared == "no_reference"


def test_what_follows_another_runs_tokens_is_not_used() -> None:
    mine = answered([5, 9, 3], forced_from=2, forced=(sure(7),))
    block = quality(Answers("v", (mine,), "another"), reference(answered([5, 6, 7])))
    assert block.not_compared == "not_measured"


def test_an_interval_is_over_prompts_and_holds_the_truth() -> None:
    """Positions of one prompt are alike: drawing positions would promise too much."""
    chance = random.Random(3)
    hits = 0
    for _ in range(200):
        groups = []
        for _ in range(24):
            level = min(max(chance.gauss(0.8, 0.15), 0), 1)
            groups.append([float(chance.random() < level) for _ in range(48)])
        found = interval(groups)
        assert found is not None
        assert found.ci95 is not None
        low, high = found.ci95
        assert low <= found.value <= high
        hits += low <= 0.797 <= high  # the mean of the clipped levels
    assert hits > 0.88 * 200
    few = interval([[1.0], [0.0]])
    assert few is not None
    assert few.ci95 is None
    assert interval([[], []]) is None


def told(**changes: object) -> Quality:
    """An honest block, changed."""
    groups = [[1.0, 0.0, 1.0]] * 8
    block = Quality(
        version="v",
        prompts=24,
        faults={"loop": 2},
        reference=reference(answered([5])).named,
        positions=24,
        other_prompts=0,
        top1_agreement=interval(groups),
        kl_nats=interval(groups),
    )
    return block.model_copy(update=changes)


@pytest.mark.parametrize(
    ("place", "block"),
    [
        ("quality.faults.loop", told(faults={"loop": 25})),
        ("quality.faults.odd", told(faults={"odd": 1})),
        ("quality.not_compared", told(not_compared="odd")),
        ("quality", told(not_compared="no_logprobs")),
        ("quality", told(kl_nats=None)),
        ("quality.reference", told(reference=None)),
        ("quality.reference.sha256", told(reference=replace(reference(), sha256="b").named)),
        ("quality.reference.id", told(reference=replace(reference(), id=OWN).named)),
        ("quality.other_prompts", told(other_prompts=25)),
        ("quality.top1_agreement", told(top1_agreement=Interval(value=1.2))),
        ("quality.kl_nats", told(kl_nats=Interval(value=1, ci95=(2, 1)))),
    ],
)
def test_a_block_that_contradicts_itself_is_refused(place: str, block: Quality) -> None:
    record = record_of([sample()], OWN)
    assert not broken_ties(record.model_copy(update={"quality": told()}))
    found = broken_ties(record.model_copy(update={"quality": block}))
    assert ".".join(map(str, found[0].place)) == place


# The file


def full() -> Answers:
    chance = random.Random(2)
    given = []
    for number in range(6):
        tokens = [chance.randrange(TOP_K) for _ in range(12)]
        more = {"forced_from": 3, "forced": tuple(map(sure, tokens[3:]))}
        given.append(answered(tokens, f"prompt {number}", **more))
    return Answers("v", tuple(given), "best")


def test_a_file_gives_back_what_was_put_in() -> None:
    data = to_parquet(full())
    found = from_parquet(data, "file")
    assert to_parquet(found) == data
    assert replace(found, answers=()) == replace(full(), answers=())
    for one, other in zip(found.answers, full().answers, strict=True):
        assert (one.ids, one.text, one.forced_from) == (other.ids, other.text, other.forced_from)
        mine, before = one.positions + one.forced, other.positions + other.forced
        for at, was in zip(mine, before, strict=True):
            assert at.ids == was.ids
            assert at.logprobs == pytest.approx(was.logprobs, abs=1e-5)


def test_nothing_but_a_whole_file_is_read() -> None:
    data, chance = to_parquet(full()), random.Random(5)
    for _ in range(300):
        harmed = bytearray(data)
        if chance.random() < 0.3:
            del harmed[chance.randrange(len(harmed)) :]
        else:
            harmed[chance.randrange(len(harmed))] ^= 1 << chance.randrange(8)
        try:
            found = from_parquet(bytes(harmed), "some/file")
        except RecordError as problem:
            assert problem.message.startswith("some/file: ")
        else:
            assert quality(found, reference(*full().answers)).prompts <= 6


# Answers by themselves

NONSENSE = {
    # Reported of broken quants and kernels: "!!!!" and "@@@@" (ggml-org/llama.cpp 8740, 5424), one
    # word for ever (ollama 4072), half characters.
    "loop": (
        "!" * 48,
        "GGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG",
        "The answer is that the lighthouse is a light, is a light, is a light, is a light, is a",
        "Sure! Here it is:\n" + "I am a\nI am a\n" * 9,
    ),
    "empty": ("", "\n\n  ", "…", "```"),
    "template_marks": (
        "Hello!<|im_end|>\n<|im_start|>user\nAnd then?",
        "It turns.<end_of_turn>\n<start_of_turn>model\nIt turns.",
        "[/INST] It turns so that ships see it from all sides.",
        "It turns.\n### Instruction:\nWrite more.",
        "It turns.\nUSER: and why\nASSISTANT: because",
        "<|start_header_id|>assistant<|end_header_id|> It turns.",
    ),
    "garbled": (
        "It t\ufffdrns \ufffd\ufffd so that \ufffd\ufffd sh\ufffdps see it",
        "\U000e0fff\U000f1234 ab",
    ),
    "other_language": (
        "灯塔需要旋转, 因为光必须照到各个方向, 船只才能看见它。",
        next(one.text for one in questions() if one.language == "ru"),
        "Der Leuchtturm dreht sich, damit das Licht von allen Seiten zu sehen ist und die Schiffe"
        " nicht auf die Felsen fahren.",
    ),
}


@pytest.mark.parametrize(
    ("code", "text"), [(code, text) for code, texts in NONSENSE.items() for text in texts]
)
def test_a_fault_is_named(code: str, text: str) -> None:
    assert code in faults_of(Answer("one", "language", "en", text))


def test_sound_texts_have_no_fault() -> None:
    """Prose, code and tables as people write them, cut wherever an answer may end."""
    texts = ["\n".join(lines(name)) for name in ("rag.md", "agent_system.md", "session_system.md")]
    texts += ["\n".join(block) for name in ("chat.txt", "codegen.txt") for block in blocks(name)]
    texts.append(Path(__file__).read_text("utf-8").partition("NONSENSE")[0])
    found = {}
    for whole in texts:
        for start in range(0, len(whole), 97):
            piece = whole[start : start + 220]
            if len(piece) > 60 and (faults := faults_of(Answer("one", "code", "en", piece))):
                found[piece] = faults
    assert not found


@pytest.mark.parametrize("language", ["de", "fr", "es", "ru", "zh"])
def test_an_answer_in_the_questions_language_is_right(language: str) -> None:
    question = next(one for one in questions() if one.language == language)
    asked = Answer("one", "language", language, question.text * 2)
    assert "other_language" not in faults_of(asked)
    english = "The loaf rises because the yeast makes gas and this is held by the dough for it."
    assert "other_language" in faults_of(replace(asked, text=english))


def test_every_fault_can_be_found_and_is_explained() -> None:
    assert set(FAULTS) == set(NONSENSE)


# The prompts


def test_the_prompts_are_of_all_kinds_and_their_version_is_theirs() -> None:
    kinds = [one.kind for one in questions()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "language": 10,
        "code": 5,
        "arithmetic": 5,
        "tool": 4,
    }
    assert len({one.name for one in questions()}) == len(kinds) == 24
    assert ANSWER_TOKENS == 48
    # Published figures hang on it: a change takes a line under Methodology in the changelog.
    assert version() == "08fd81923b0a"
