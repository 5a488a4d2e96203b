"""Slots and prefix caches of a simulated engine.

A token is four characters: so every count is told from a length alone, and the counts of a prompt
and of its parts agree.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

CHARACTERS = 4
# What a cache over all requests remembers.
MOST_TEXTS = 256


def tokens_in(text: str) -> int:
    """How many tokens a text has; the last one may be short."""
    return -(-len(text) // CHARACTERS)


def common_prefix(a: str, b: str) -> int:
    """How many characters two texts begin with in common, by halving: long prompts are compared
    while streams wait."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(eq=False)
class Slot:
    """One place in which a request is served, and the text that its cache holds."""

    text: str = ""
    used: int = 0


@dataclass
class Slots:
    """``count`` of them, None for as many as there are requests; ``cache`` as in Simulation."""

    count: int | None
    cache: Literal["off", "slot", "all"]
    free: list[Slot] = field(default_factory=list)
    texts: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_TEXTS))
    busy: int = 0
    turns: int = 0

    def __post_init__(self) -> None:
        self.free = [Slot() for _ in range(self.count or 0)]

    def take(self, prompt: str) -> tuple[Slot, str] | None:
        """A slot for this prompt and the text whose beginning it shares most; None when all are
        busy. As llama.cpp does, the slot is the one with the most in common, else the one that
        was left alone longest."""
        if not self.free and self.count is not None:
            return None
        self.busy += 1
        best = max(
            self.free,
            key=lambda slot: (common_prefix(slot.text, prompt), -slot.used),
            default=None,
        )
        slot = best or Slot()
        if best is not None:
            self.free.remove(best)
        texts = {"off": [], "slot": [slot.text], "all": self.texts}[self.cache]
        return slot, max(texts, key=lambda text: common_prefix(text, prompt), default="")

    def give_back(self, slot: Slot, text: str) -> None:
        """``text`` is what the slot has seen: prompt and answer."""
        self.busy -= 1
        self.turns += 1
        slot.text, slot.used = text if self.cache == "slot" else "", self.turns
        if self.cache == "all":
            self.texts.append(text)
        if self.count is not None or self.cache == "slot":
            self.free.append(slot)


def cached_tokens(seen: str, prompt: str) -> int:
    """Tokens of the prompt that need no computing: whole ones, and never the last, which is
    always computed."""
    return min(common_prefix(seen, prompt) // CHARACTERS, max(tokens_in(prompt) - 1, 0))
