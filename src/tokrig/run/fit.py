"""Fit a prompt to its shape's length: how many units of material, and which ending.

The length is what the *server* counts after its chat template. A count may cost a whole prefill
(a foreign endpoint tells only through usage), so the search guesses by proportion instead of
halving blindly, and stops at the first prompt within tolerance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from tokrig.errors import RequestError
from tokrig.workloads import Messages, Variant, Workload

Count = Callable[[Messages], int | None]

MAX_COUNTS = 40
_SALT = "[Request 00000000]"
_GUESS_CHARS_PER_TOKEN = 4.4


@dataclass(frozen=True)
class Fit:
    """The chosen prompt. ``tokens`` is the counted length, None where nobody could count."""

    units: int
    ending: int
    tokens: int | None


def salt(number: int) -> str:
    """The unique beginning of a prompt: always the same number of digits, so of tokens."""
    return f"[Request {number % 100_000_000:08d}]"


def fit(workload: Workload, variant: Variant, count: Count) -> Fit:
    """The prompt nearest to ``workload.prompt_tokens``; within tolerance if there is any.

    Where the server cannot count, the length is guessed from characters and stays unverified.
    Raises RequestError when counting fails from the start.
    """
    search = _Search(workload, variant, count)
    first = search.by_characters(workload.prompt_tokens * _GUESS_CHARS_PER_TOKEN)
    units = search.choose_units(first)
    if not search.counts:
        return Fit(units, 0, None)
    search.choose_ending(units)
    (units, ending), tokens = min(
        search.counts.items(), key=lambda item: abs(item[1] - workload.prompt_tokens)
    )
    return Fit(units, ending, tokens)


class _Search:
    """One fitting: remembers every count, and how long each number of units is."""

    def __init__(self, workload: Workload, variant: Variant, count: Count) -> None:
        self.target, self.tolerance = workload.prompt_tokens, workload.tolerance_tokens
        self.variant, self.count = variant, count
        self.counts: dict[tuple[int, int], int] = {}
        self.characters = [
            sum(len(m["content"]) for m in variant.render(units, 0, _SALT))
            for units in range(len(variant.material) + 1)
        ]

    def by_characters(self, characters: float) -> int:
        """The number of units whose prompt has about so many characters."""
        return min(bisect_left(self.characters, characters), len(self.characters) - 1)

    def length(self, units: int, ending: int) -> int | None:
        """Counted tokens of a candidate; None where nobody can tell or enough was asked."""
        key = (units, ending)
        if key not in self.counts:
            if len(self.counts) >= MAX_COUNTS:
                return None
            found = self.count(self.variant.render(units, ending, _SALT))
            if found is None:
                return None
            self.counts[key] = found
        return self.counts[key]

    def near(self, tokens: int) -> bool:
        """Good enough to stop asking: well inside the tolerance, so that a salt that happens to
        tokenize differently cannot push a prompt out of it."""
        return abs(tokens - self.target) <= self.tolerance // 4

    def choose_units(self, units: int) -> int:
        """Secant steps inside a shrinking bracket; the most units that do not pass the target."""
        low, high = -1, len(self.characters)
        while low < units < high:
            try:
                tokens = self.length(units, 0)
            except RequestError as error:
                if units == 0 or error.code != "http_400":
                    raise
                # Refused as too long for the context: it lies above the target.
                high, units = units, (max(low, 0) + units) // 2
                continue
            if tokens is None or self.near(tokens):
                return units
            low, high = (units, high) if tokens < self.target else (low, units)
            guess = self.by_characters(self.characters[units] * self.target / max(tokens, 1))
            units = min(max(guess, low + 1), high - 1)
        return max(low, 0)

    def choose_ending(self, units: int) -> None:
        """Fine steps: the endings of a few neighbouring unit counts."""
        if any(map(self.near, self.counts.values())):
            return
        for candidate in range(units, max(units - 3, -1), -1):
            for ending in range(1, len(self.variant.endings)):
                tokens = self.length(candidate, ending)
                if tokens is None or self.near(tokens):
                    return
                if tokens > self.target + self.tolerance:
                    break
