"""Workload shapes: what is asked of a model, how long the prompt and the answer are.

A shape is one file beside this one exposing ``WORKLOAD``. Its texts are real prose, code
and tool schemas written for tokrig, in the folder ``texts``. Nothing here counts tokens or sends
requests: a ``Variant`` only says how its prompt grows and shrinks; ``run`` fits it to the target.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
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


@dataclass(frozen=True)
class Workload:
    """A shape: target lengths in tokens, default concurrencies, and its prompts."""

    name: str
    summary: str
    prompt_tokens: int
    answer_tokens: int
    concurrencies: tuple[int, ...]
    variants: tuple[Variant, ...]

    @property
    def content_hash(self) -> str:
        """First 12 hex digits of the SHA-256 over lengths and all texts: the shape's version."""
        parts = [[v.messages, v.material, v.endings, v.joiner] for v in self.variants]
        text = json.dumps([self.prompt_tokens, self.answer_tokens, parts], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def tolerance_tokens(self) -> int:
        """How far a prompt may miss this shape's length."""
        return tolerance(self.prompt_tokens)

    def variant(self, index: int) -> Variant:
        """The prompt of the ``index``-th request; requests walk through the variants in order."""
        return self.variants[index % len(self.variants)]


@cache
def texts() -> dict[str, str]:
    """The version of each shape, by its name."""
    names = registry.names("workloads")
    return {name: registry.load("workloads", name, "WORKLOAD").content_hash for name in names}


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
