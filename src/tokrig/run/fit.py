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
from tokrig.run.refusal import CONTEXT, code_of
from tokrig.workloads import Messages, Variant, Workload, tolerance

Count = Callable[[Messages], int | None]

MAX_COUNTS = 40
_GUESS_CHARS_PER_TOKEN = 4.4
# Tokens of a prompt that have to be the shape's, whatever the chat template adds.
LEAST_OWN_TOKENS = 32
# A server that cuts long prompts counts the same text at this many times fewer tokens.
CUT = 2.0
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Fit:
    """The chosen prompt. ``tokens`` is the counted length, None where nobody could count."""

    units: int
    ending: int
    tokens: int | None


def target_of(workload: Workload, template_tokens: int | None) -> int:
    """The prompt length to measure a shape at: its own, or a longer one where the chat template
    leaves too little of it."""
    least = (template_tokens or 0) + LEAST_OWN_TOKENS
    return max(workload.prompt_tokens, least)


def salt(number: int) -> str:
    """The unique beginning of a prompt: one letter and six digits, so always as many tokens.

    Read from the left, numbers that follow each other differ in the letter and in the first digit:
    nothing of two prompts is the same, not even the first token.
    """
    return _LETTERS[number % len(_LETTERS)] + f"{number % 1_000_000:06d}"[::-1]


_SALT = salt(0)


def fit(
    workload: Workload,
    variant: Variant,
    count: Count,
    tokens: int | None = None,
    *,
    system_role: bool = True,
) -> Fit:
    """The prompt nearest to ``tokens`` (the shape's own length by default); within tolerance if
    there is any.

    Where the server cannot count, the length is guessed from characters and stays unverified.
    Raises RequestError when counting fails from the start, and with ``context_too_small`` when
    the server refuses prompts of this length or cuts them.
    """
    target = tokens or workload.prompt_tokens
    search = _Search(target, variant, count, system_role)
    first = search.by_characters(target * _GUESS_CHARS_PER_TOKEN)
    units = search.choose_units(first)
    if not search.counts:
        return Fit(units, 0, None)
    search.choose_ending(units)
    (units, ending), found = min(search.counts.items(), key=lambda item: abs(item[1] - target))
    if found < target - search.tolerance:
        search.require_room()
    return Fit(units, ending, found)


class _Search:
    """One fitting: remembers every count, and how long each number of units is."""

    def __init__(self, target: int, variant: Variant, count: Count, system_role: bool) -> None:
        self.target, self.tolerance = target, tolerance(target)
        self.variant, self.count, self.system_role = variant, count, system_role
        self.counts: dict[tuple[int, int], int] = {}
        self.refusal: RequestError | None = None
        self.characters = [
            sum(len(m["content"]) for m in self.render(units, 0))
            for units in range(len(variant.material) + 1)
        ]

    def render(self, units: int, ending: int) -> Messages:
        return self.variant.render(units, ending, _SALT, system_role=self.system_role)

    def by_characters(self, characters: float) -> int:
        """The number of units whose prompt has about so many characters."""
        return min(bisect_left(self.characters, characters), len(self.characters) - 1)

    def length(self, units: int, ending: int) -> int | None:
        """Counted tokens of a candidate; None where nobody can tell or enough was asked."""
        key = (units, ending)
        if key not in self.counts:
            if len(self.counts) >= MAX_COUNTS:
                return None
            found = self.count(self.render(units, ending))
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
                if units == 0 or code_of(error) != CONTEXT:
                    raise
                # Refused as too long for the context: it lies above the target.
                self.refusal = error
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

    def require_room(self) -> None:
        """Nothing reached the target. Raises RequestError where that is the context's fault: longer
        prompts were refused, or silently cut (more text, and no more tokens)."""
        if self.refusal is not None:
            raise RequestError(self.refusal.message, code=CONTEXT)
        units, ending = max(self.counts)
        tokens, characters = self.counts[units, ending], self.characters[units]
        if characters / max(tokens, 1) > CUT * _GUESS_CHARS_PER_TOKEN:
            raise RequestError(
                f"the server cuts long prompts: {characters} characters are {tokens} tokens to it",
                code=CONTEXT,
            )
