"""Is the model still right? Its greedy answers to fixed prompts, and how far they are from those of
a more precise file of the same model. Pure.

The *reference* is the run of the highest precision. It answers each prompt greedily and keeps, for
every token, the ``TOP_K`` likeliest with their log-probabilities. Another run answers the same
prompts; wherever its answer has left the reference's, it is asked what it would say after the
reference's own tokens. So each position of the reference is compared after the same text:

- ``top1_agreement``: the share of positions at which both hold the same token for the likeliest;
- ``kl_nats``: the mean of KL(reference ‖ run), see ``divergence``.

Both are means over all positions; their intervals come from drawing whole prompts, since the
positions of one answer depend on each other. And each answer is looked at by itself: ``faults_of``
names what no sound model answers, with or without a reference.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from tokrig.record.block import Block, Count
from tokrig.units import significant

TOP_K = 20
"""As many as vLLM gives unless it is told otherwise."""
RESAMPLES = 2000
LEAST_PROMPTS = 6
"""Fewer have no interval."""
DIGITS = 5


class Interval(Block):
    """A mean over all positions, and its 95 % interval over prompts: null below six of them."""

    value: Annotated[float, Field(ge=0)]
    ci95: tuple[float, float] | None = None


class QualityReference(Block):
    """The run that another is held against, its quant, and the SHA-256 of its answers' file."""

    id: str
    quant: str | None = None
    sha256: str


class Quality(Block):
    """What the model's answers are worth, beside its speed. ``version`` is that of the prompts,
    ``faults`` how many answers have which fault. ``top1_agreement`` is the share of the
    reference's ``positions`` at which both hold the same token for the likeliest, ``kl_nats`` the
    mean of KL(reference ‖ run), at least; ``other_prompts`` how many prompts reached the model as
    other tokens than the reference's. ``not_compared`` says why there are none of these."""

    version: str
    prompts: Count
    faults: dict[str, Count] = Field(default_factory=dict)
    reference: QualityReference | None = None
    positions: Count | None = None
    other_prompts: Count | None = None
    top1_agreement: Interval | None = None
    kl_nats: Interval | None = None
    not_compared: str | None = None


@dataclass(frozen=True)
class Position:
    """What a model held for likely in one place: token ids, the likeliest first, and the natural
    logarithms of their probabilities among all tokens."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """The greedy answer to one prompt. ``language`` is the one that was asked in, ``prompt_ids``
    are the tokens that reached the model, ``text_ids`` those of the bare question: equal ones tell
    the same tokenizer. ``ids`` are the answer's own tokens with their ``positions``: none where the
    server does not tell. ``forced`` are the positions after the reference's tokens, from
    ``forced_from`` on."""

    name: str
    kind: str
    language: str
    text: str
    prompt_ids: tuple[int, ...] = ()
    text_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    positions: tuple[Position, ...] = ()
    forced_from: int = 0
    forced: tuple[Position, ...] = ()

    def parted(self, reference: Answer) -> int:
        """The first position of the reference's answer that this one does not tell of: the one
        after that at which they part."""
        same = 0
        for own, other in zip(self.ids, reference.ids, strict=False):
            if own != other:
                break
            same += 1
        return min(same + 1, len(self.positions), len(reference.ids))

    def after(self, reference: Answer) -> Sequence[Position]:
        """The positions after the reference's tokens, as many as are known without a gap."""
        own = self.parted(reference)
        if self.forced_from > own:
            return self.positions[:own]
        return (
            (*self.positions[: self.forced_from], *self.forced)
            if self.forced
            else (self.positions[:own])
        )


@dataclass(frozen=True)
class Answers:
    """All of a run: ``version`` is that of the prompts, ``reference`` the id of the run whose
    tokens ``forced`` positions follow; ``failure`` why nothing was told of probabilities."""

    version: str
    answers: tuple[Answer, ...]
    reference: str | None = None
    failure: str | None = None

    @property
    def told(self) -> bool:
        """Whether another run can be held against these."""
        return bool(self.answers) and all(answer.positions for answer in self.answers)


@dataclass(frozen=True)
class Reference:
    """The run that others are held against."""

    id: str
    quant: str | None
    sha256: str
    answers: Answers

    @property
    def named(self) -> QualityReference:
        """As a record names it."""
        return QualityReference(id=self.id, quant=self.quant, sha256=self.sha256)


def quality(found: Answers, reference: Reference | None) -> Quality:
    """The block of a record: what its own answers are worth, and how far they are from the
    reference's."""
    if reference is not None and found.reference != reference.id:
        # What follows another run's tokens says nothing here.
        bare = tuple(replace(answer, forced_from=0, forced=()) for answer in found.answers)
        found = replace(found, answers=bare)
    faults = Counter(code for answer in found.answers for code in faults_of(answer))
    block = Quality(
        version=found.version,
        prompts=len(found.answers),
        faults={code: faults[code] for code in FAULTS if code in faults},
        not_compared=not_compared(found, reference),
    )
    if reference is None:
        return block
    block = block.model_copy(update={"reference": reference.named})
    if block.not_compared:
        return block
    pairs = list(zip(found.answers, reference.answers.answers, strict=True))
    agreed: list[list[float]] = []
    apart: list[list[float]] = []
    for mine, other in pairs:
        told = list(zip(mine.after(other), other.positions, other.ids, strict=False))
        agreed.append([float(at.ids[0] == token) for at, _, token in told])
        apart.append([divergence(sure, at) for at, sure, _ in told])
    return block.model_copy(
        update={
            "positions": sum(map(len, agreed)),
            "other_prompts": sum(a.prompt_ids != b.prompt_ids for a, b in pairs),
            "top1_agreement": interval(agreed),
            "kl_nats": interval(apart),
        }
    )


def not_compared(found: Answers, reference: Reference | None) -> str | None:
    """Why a run is not held against a reference; None where it is."""
    if found.failure or not found.told:
        return found.failure or "no_logprobs"
    if reference is None:
        return "no_reference"
    other = reference.answers
    if other.version != found.version or not other.told:
        return "other_prompts"
    mine, theirs = ([a.text_ids for a in one.answers] for one in (found, other))
    if mine != theirs:
        return "other_tokenizer"
    gaps = (
        len(a.after(b)) < len(b.positions)
        for a, b in zip(found.answers, other.answers, strict=True)
    )
    return "not_measured" if any(gaps) else None


def divergence(reference: Position, other: Position) -> float:
    """KL(reference ‖ other) in nats, from the likeliest tokens of both: never more than the true
    one.

    Both distributions are made coarser: each token that both lists have stands alone, those that
    only the reference's has are one bucket, all else another. By the log-sum inequality a coarser
    one cannot raise the divergence. What the other gives to the bucket is not known, but no more
    than its last listed probability for each token in it, nor than its own list leaves; of what is
    allowed, that counts which makes the divergence smallest. Lists of ``TOP_K`` nearly always hold
    all that matters; where they have nothing in common the bound is large, as it should be.
    """
    p = dict(zip(reference.ids, map(math.exp, reference.logprobs), strict=True))
    logs = dict(zip(other.ids, other.logprobs, strict=True))
    both = [token for token in p if token in logs]
    total = sum(p[token] * (math.log(p[token]) - logs[token]) for token in both if p[token] > 0)
    missing = sum(p[token] for token in p if token not in logs)
    p_left = max(1.0 - sum(p.values()), 0.0)
    q_left = max(1.0 - sum(math.exp(logs[token]) for token in both), 0.0)
    others_own = sum(math.exp(logs[token]) for token in logs if token not in p)
    most = min((len(p) - len(both)) * math.exp(min(other.logprobs)), q_left - others_own)
    share = missing / (missing + p_left) if missing else 0.0
    q_missing = max(min(share * q_left, most), 0.0)
    for mine, others in ((missing, q_missing), (p_left, q_left - q_missing)):
        if mine > 0:
            total += mine * math.log(mine / max(others, _LEAST))
    return total if total > _DUST else 0.0


# Log-probabilities are kept as 32-bit numbers: what is left of 1 is not known below this.
_LEAST = 1e-6
_DUST = 1e-9


def interval(groups: Sequence[Sequence[float]]) -> Interval | None:
    """The mean of all values with its 95 % percentile bootstrap over whole groups, whose random
    indices come from PCG64's raw stream, which numpy guarantees never to change."""
    import numpy as np

    held = [group for group in groups if group]
    if not held:
        return None
    sums, sizes = (np.array([measure(g) for g in held], dtype=float) for measure in (sum, len))
    ends = None
    if len(held) >= LEAST_PROMPTS:
        bits = np.random.PCG64(20261128)
        drawn = (bits.random_raw(RESAMPLES * len(held)) % len(held)).astype(np.intp)
        chosen = drawn.reshape(RESAMPLES, len(held))
        means = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        ends = (significant(float(low), DIGITS), significant(float(high), DIGITS))
    return Interval(value=significant(float(sums.sum() / sizes.sum()), DIGITS), ci95=ends)


# What no sound model answers.

_MARKS = re.compile(
    r"<\|?/?(?:im_(?:start|end)|(?:start|end)_of_turn|(?:start|end)_header_id|eot_id|eom_id"
    r"|endoftext|begin_of_text|end_of_text|assistant|user|system|end|turn|message|return)\|?>"
    r"|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>|<unused\d+>|\[(?:UNK|PAD|MASK)\]"
    r"|<[\uff5c|](?:User|Assistant|(?:begin|end).of.sentence)[\uff5c|]>"
    r"|^#{2,3} (?:Instruction|Response|Human|Assistant):|^(?:USER|ASSISTANT|Human|Assistant):",
    re.MULTILINE,
)
_SCRIPTS = {"ru": ("CYRILLIC",), "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA")}
_OTHER_SCRIPT = 0.3
"""(t) Share of an answer's letters that another script may have."""
_GARBLED = 0.05
"""(t) Share of its characters that may be none."""
_LOOP_TIMES, _LOOP_CHARACTERS, _LOOP_SHARE = 4, 24, 0.4
"""(t) An answer loops that says the same at least so often at its end, over so many characters and
so much of it."""
# The commonest words that hardly any other of these languages has.
_WORDS = {
    "en": "the and of to is that with for this are it you on have be which from an",
    "de": "der die das und ist nicht ein eine zu den mit sich auf dem wird von für durch",
    "fr": "le les des et est une dans pour que qui sur pas du avec sont ce au aux",
    "es": "el los las y es una para que por con del se su como en lo más al",
}
_COMMON = {name: frozenset(text.split()) for name, text in _WORDS.items()}
_LEAST_WORDS, _LEAST_HITS = 10, 4


def _empty(answer: Answer) -> bool:
    return not re.search(r"\w", answer.text)


def _garbled(answer: Answer) -> bool:
    bad = sum(c == "\ufffd" or unicodedata.category(c) in _NO_TEXT for c in answer.text)
    # A token may end within a character: one at the end is none.
    bad -= answer.text.endswith("\ufffd")
    return bad > _GARBLED * len(answer.text)


_NO_TEXT = ("Cn", "Co", "Cs")


def _loops(answer: Answer) -> bool:
    """Whether an end of the answer is one piece of text again and again."""
    text = answer.text.rstrip()
    for period in range(1, len(text) // _LOOP_TIMES + 1):
        length = period
        while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
            length += 1
        long_enough = length >= max(_LOOP_CHARACTERS, _LOOP_SHARE * len(text))
        if length >= _LOOP_TIMES * period and long_enough:
            return True
    return False


def _marked(answer: Answer) -> bool:
    return _MARKS.search(answer.text) is not None


def _other_language(answer: Answer) -> bool:
    """Another script than that of the question (but for Latin letters, which code and names have
    everywhere), or a common language of the same script."""
    letters = [c for c in answer.text if c.isalpha()]
    wanted = _SCRIPTS.get(answer.language, ())
    if wanted:
        own = sum(unicodedata.name(c, "").startswith(wanted) for c in letters)
        return len(letters) >= _LEAST_WORDS and own < _OTHER_SCRIPT * len(letters)
    strange = sum(not unicodedata.name(c, "LATIN").startswith(_EVERYWHERE) for c in letters)
    if strange > _OTHER_SCRIPT * len(letters):
        return True
    words = re.findall(r"[^\W\d_]+", answer.text.lower())
    hits = {name: sum(w in common for w in words) for name, common in _COMMON.items()}
    own = hits.pop(answer.language, 0)
    most = max(hits.values())
    return len(words) >= _LEAST_WORDS and most >= _LEAST_HITS and most > 2 * own


_EVERYWHERE = ("LATIN", "GREEK", "MICRO", "MATHEMATICAL", "DOUBLE-STRUCK", "SUPERSCRIPT")

_RULES: Mapping[str, Callable[[Answer], bool]] = {
    "empty": _empty,
    "garbled": _garbled,
    "template_marks": _marked,
    "loop": _loops,
    "other_language": _other_language,
}
FAULTS: Mapping[str, str] = {
    "empty": "without a letter or a digit",
    "garbled": "with characters that are none",
    "template_marks": "with marks of a chat template",
    "loop": "ending in one piece of text again and again",
    "other_language": "in another language or script than the question's",
}
"""What can be wrong with an answer, by its code, the gravest first."""
NOT_COMPARED: Mapping[str, str] = {
    "no_logprobs": "the server tells no token ids with log-probabilities",
    "no_reference": "no run of this model with at least its precision is in the store",
    "other_prompts": "the reference answered other prompts",
    "other_tokenizer": "the reference has another tokenizer",
    "not_measured": "not every position was asked for after the reference's tokens",
    "failed": "the server failed the requests",
}
"""Why answers are not held against a reference, by its code."""


def faults_of(answer: Answer) -> list[str]:
    """The codes of what is wrong with an answer, whatever the model."""
    return [code for code, rule in _RULES.items() if rule(answer)]
