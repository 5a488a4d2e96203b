"""Workload shapes: what is asked of a model, how long the prompt and the answer are.

A shape is one file beside this one exposing ``WORKLOAD``. Its texts are real prose, code
and tool schemas written for tokrig, in the folder ``texts``. Nothing here counts tokens or sends
requests: a ``Variant`` only says how its prompt grows and shrinks; ``run`` fits it to the target.
A prompt may stand behind a long context, which ``annals`` writes.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import count
from typing import Literal

from tokrig import registry

MATERIAL = "{material}"
ENDING = "{ending}"

Role = Literal["system", "user", "assistant"]
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Variant:
    """One prompt of a shape, elastic in two places.

    Exactly one message holds ``{material}``: the first ``n`` units of ``material`` go there,
    joined by ``joiner``; each unit ends where a reader can stop. Exactly one message holds
    ``{ending}``: one of ``endings``, from shortest to longest, goes there; they differ by a
    token or two, so that a short prompt can meet its length exactly.
    """

    messages: tuple[tuple[Role, str], ...]
    material: tuple[str, ...]
    endings: tuple[str, ...] = ("",)
    joiner: str = " "

    def render(self, units: int, ending: int, salt: str, *, system_role: bool = True) -> Messages:
        """The chat messages with ``units`` units of material, kept apart from all others by
        ``salt``.

        A system message opens with the salt, one of its own where the shape has none: before a
        first user message a template may put a system prompt, which all prompts would share. The
        first user message of several turns opens with it too, because some templates (Mistral's)
        move the system text to the last turn. Without ``system_role``, for a template that
        refuses or drops it, the first user message carries the salt alone.
        """
        material = self.joiner.join(self.material[:units])
        rendered: Messages = [
            {
                "role": role,
                "content": text.replace(MATERIAL, material).replace(ENDING, self.endings[ending]),
            }
            for role, text in self.messages
        ]
        own_system = rendered[0]["role"] == "system"
        turns = rendered[1:] if own_system else rendered
        if own_system:
            rendered[0]["content"] = f"{salt} {rendered[0]['content']}"
        if len(turns) > 1 or not system_role:
            turns[0]["content"] = f"{salt} {turns[0]['content']}"
        if system_role and not own_system:
            rendered.insert(0, {"role": "system", "content": salt})
        return rendered

    def behind(self, context: Iterable[str], units: int) -> Variant:
        """The same prompt with ``units`` of its own material, behind a context whose units are
        the elastic part now. It opens the first turn, so that a system prompt stays where it is.
        """
        own = self.joiner.join(self.material[:units])
        messages = [(role, text.replace(MATERIAL, own)) for role, text in self.messages]
        first = next(i for i, (role, _) in enumerate(messages) if role != "system")
        role, text = messages[first]
        messages[first] = (role, f"{MATERIAL}\n\n{text}")
        return Variant(tuple(messages), tuple(context), self.endings, joiner="")


@dataclass(frozen=True)
class Turn:
    """One request of a session. ``prompt_tokens`` is about how long its prompt is; that it is
    text, not made to fit, is up to the tokenizer."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Workload:
    """A shape: target lengths in tokens, default concurrencies, and its prompts.

    A shape of conversations has ``sessions`` instead, each whole: a system message, a task, and for
    each further one of its ``turns`` what the assistant said and what its tool gave back.
    """

    name: str
    summary: str
    prompt_tokens: int
    answer_tokens: int
    concurrencies: tuple[int, ...]
    variants: tuple[Variant, ...]
    sessions: tuple[Variant, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def content_hash(self) -> str:
        """First 12 hex digits of the SHA-256 over lengths and all texts: the shape's version."""
        whole = (*self.variants, *self.sessions)
        parts: list[object] = [[v.messages, v.material, v.endings, v.joiner] for v in whole]
        if self.turns:
            parts.append([turn.answer_tokens for turn in self.turns])
        text = json.dumps([self.prompt_tokens, self.answer_tokens, parts], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def version(self, depth_tokens: int = 0) -> str:
        """The same behind a context of so many tokens: of both texts, whatever its length."""
        if not depth_tokens:
            return self.content_hash
        return hashlib.sha256(f"{self.content_hash} {annals_hash()}".encode()).hexdigest()[:12]

    def variant(self, index: int) -> Variant:
        """The prompt of the ``index``-th request; requests walk through the variants in order."""
        return self.variants[index % len(self.variants)]

    def prompts(self, session: int, salt: str, *, system_role: bool) -> list[Messages]:
        """The messages of a session's turns; those of each begin with those of the one before."""
        whole = self.sessions[session % len(self.sessions)].render(
            0, 0, salt, system_role=system_role
        )
        return [whole[: 2 * (turn + 1)] for turn in range(len(self.turns))]

    def variant_number(self, index: int, concurrency: int) -> int:
        """Which text the ``index``-th request has: of sessions side by side each has its own."""
        if self.sessions:
            return index % concurrency % len(self.sessions)
        return index % len(self.variants)


@cache
def texts() -> dict[str, str]:
    """The version of each shape, by its name, and of the ``context`` before a turn at a depth."""
    names = registry.names("workloads")
    shapes = {name: registry.load("workloads", name, "WORKLOAD").content_hash for name in names}
    return {**shapes, "context": annals_hash()}


def tolerance(tokens: int) -> int:
    """How far a prompt of so many tokens may miss them: 1 %, at least 2 (METHODOLOGY)."""
    return max(2, round(tokens * 0.01))


def lines(name: str) -> list[str]:
    """The lines of a text in the folder ``texts``."""
    return files(__name__).joinpath("texts", name).read_text("utf-8").strip().splitlines()


def blocks(name: str) -> list[list[str]]:
    """The same, by the blank lines between them."""
    return [block.splitlines() for block in "\n".join(lines(name)).split("\n\n")]


def question(text: str, units: Iterable[str], endings: Iterable[str] = ()) -> Variant:
    """A prompt of one message; units bring their own white space, so that none is left over."""
    return Variant((("user", text),), tuple(units), ("", *endings), joiner="")


# Context before a measured turn

_SLOT = re.compile(r"\{([\w-]+)\}")
# Sentences of a paragraph.
_PARAGRAPH = 5


def annals(seed: int) -> Iterator[str]:
    """Sentences of the annals of a canal network that never was, one after the other without end.

    The rules of ``texts/annals.txt`` write them: a rule's name, then what may stand for it, a line
    each, with the names of other rules and the bounds of whole numbers in braces. Names, places,
    dates and figures are drawn anew each time, so that no sentence comes twice and hardly any
    eight words do: drafting by look-up has nothing to look up. The same ``seed`` writes the same
    text everywhere; each sentence brings the white space before it.
    """
    rules = {name: choices for name, *choices in blocks("annals.txt")}
    chance = random.Random(seed).random  # stays the same over versions of Python

    def drawn(name: str) -> str:
        low, dash, high = name.partition("-")
        if dash:
            return str(int(low) + int(chance() * (int(high) - int(low) + 1)))
        choices = rules[name]
        return _SLOT.sub(lambda slot: drawn(slot[1]), choices[int(chance() * len(choices))])

    for number in count():
        before = " " if number % _PARAGRAPH else "\n\n" if number else ""
        sentence = drawn("sentence")
        yield before + sentence[0].upper() + sentence[1:]


def context(characters: int, seed: int) -> tuple[str, ...]:
    """The annals up to so many characters, in sentences."""
    found, length = [], 0
    for sentence in annals(seed):
        if length >= characters:
            break
        found.append(sentence)
        length += len(sentence)
    return tuple(found)


@cache
def annals_hash() -> str:
    """The version of the annals: of their rules, and of how these are followed."""
    text = "\n".join([*lines("annals.txt"), *context(10_000, seed=0)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
