"""The length of a prompt: how many units of material, and which ending.

It is what the *server* counts after its chat template. A count may cost a whole prefill (a foreign
endpoint tells only through usage), so the search guesses by proportion instead of halving blindly,
and stops at the first prompt within tolerance. Behind a context it knows what the shape's own part
takes, and begins with a piece of the context, so that a long prompt is counted once or twice.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate

from tokrig.errors import RequestError
from tokrig.run.http import CONTEXT, code_of
from tokrig.run.session import salt
from tokrig.workloads import Messages, Variant, Workload, context, tolerance

MAX_COUNTS = 40
# Of prose in common tokenizers; and of the thriftiest.
_GUESS_CHARS_PER_TOKEN, MOST_CHARS_PER_TOKEN = 4.4, 7
# A context is first counted in a piece of this share, of so many tokens at least.
PIECES, LEAST_PIECE = 8, 256
SALT_TOKENS = 8
# Tokens of a prompt that have to be the shape's, whatever the chat template adds.
LEAST_OWN_TOKENS = 32
# How wrong the length of an uncounted prompt may be, as a share of what it is longer than a counted
# one: the same prose takes about as many tokens everywhere.
DOUBT = 0.25
# A server that cuts long prompts counts the same text at this many times fewer tokens.
CUT = 2.0


# A word with the white space before it.
_WORDS = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Prompt:
    """A variant at the length that was chosen. ``tokens`` is how long it was counted, None where
    nobody could count."""

    variant: Variant
    units: int
    ending: int
    tokens: int | None

    def render(self, unique: str, *, system_role: bool = True) -> Messages:
        """Its messages, kept apart from all others by ``unique``."""
        return self.variant.render(self.units, self.ending, unique, system_role=system_role)


def target_of(workload: Workload, template_tokens: int | None) -> int:
    """The prompt length to measure a shape at: its own, or a longer one where the chat template
    leaves too little of it."""
    return max(workload.prompt_tokens, (template_tokens or 0) + LEAST_OWN_TOKENS)


def fit(
    workload: Workload,
    variant: Variant,
    count: Callable[[Messages], int | None],
    tokens: int | None = None,
    *,
    system_role: bool = True,
) -> Prompt:
    """The prompt nearest to ``tokens`` (the shape's own length by default); within tolerance if
    there is any.

    Where the server cannot count, the length is guessed from characters and stays unverified.
    Raises RequestError when counting fails from the start, and with ``context_too_small`` when
    the server refuses prompts of this length or cuts them.
    """
    search = _Search(tokens or workload.prompt_tokens, variant, count, system_role)
    return search.prompt(search.target * _GUESS_CHARS_PER_TOKEN)


def behind(
    own: Prompt,
    depth_tokens: int,
    target: int,
    seed: int,
    count: Callable[[Messages], int | None],
    characters: float | None = None,
    *,
    system_role: bool = True,
) -> tuple[Prompt, float | None]:
    """``own`` behind so many tokens of context, ``target`` tokens in all, and how many characters
    a token of the context has. Where the context before it had told that, it is counted once.

    Raises what ``fit`` raises.
    """
    read = context(depth_tokens * MOST_CHARS_PER_TOKEN, seed)
    variant = own.variant.behind(read, own.units)
    search = _Search(target, variant, count, system_role)
    begin = search.known = (search.characters[0], own.tokens or target - depth_tokens)
    # A salt that tokenizes differently moves a few tokens, of hundreds that are tolerated.
    search.close = max(search.close, search.tolerance - SALT_TOKENS)
    whole = characters or own.tokens is None or depth_tokens < PIECES * LEAST_PIECE
    piece = 1 if whole else PIECES
    guess = (characters or _GUESS_CHARS_PER_TOKEN) * depth_tokens / piece
    found = search.prompt(begin[0] + guess)
    if found.tokens is None or found.tokens <= begin[1]:
        return found, None
    per_token = (search.characters[found.units] - begin[0]) / (found.tokens - begin[1])
    if abs(found.tokens - target) > search.tolerance:
        # A sentence is too coarse for a short context: from its end on, words.
        kept = max(found.units - 1, 0)
        finer = (*read[:kept], *_WORDS.findall("".join(read[kept:])))
        search = _Search(target, own.variant.behind(finer, own.units), count, system_role)
        search.known = begin
        found = search.prompt(begin[0] + per_token * (target - begin[1]))
    return found, per_token


def of_length(
    workload: Workload,
    tokens: int,
    count: Callable[[Messages], int | None],
    characters: float | None = None,
    *,
    system_role: bool = True,
) -> tuple[Prompt, float | None]:
    """A shape that is nothing but a context and a question, at a length of its own, to a word;
    otherwise as ``behind``."""
    (asked,) = workload.variants
    read = tuple(_WORDS.findall("".join(context(tokens * MOST_CHARS_PER_TOKEN, tokens))))
    search = _Search(tokens, replace(asked, material=read), count, system_role)
    found = search.prompt((characters or _GUESS_CHARS_PER_TOKEN) * tokens)
    if found.tokens is None:
        return found, None
    return found, search.characters[found.units] / found.tokens


@dataclass
class _Search:
    """One fitting: remembers every count, and how long each number of units is. ``known`` are the
    characters and the tokens of the prompt without material, ``close`` how near is near enough:
    well inside the tolerance, so that a salt that happens to tokenize differently cannot push a
    prompt out of it."""

    target: int
    variant: Variant
    count: Callable[[Messages], int | None]
    system_role: bool
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    refusal: RequestError | None = None
    known: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.tolerance = tolerance(self.target)
        self.close = self.tolerance // 4
        joiner = len(self.variant.joiner)
        units = [len(unit) + joiner * (n > 0) for n, unit in enumerate(self.variant.material)]
        bare = sum(len(m["content"]) for m in self.render(0, 0))
        self.characters = list(accumulate(units, initial=bare))

    def prompt(self, characters: float) -> Prompt:
        """The nearest prompt, looked for from one of so many characters on."""
        units = self.choose_units(self.by_characters(characters))
        if not self.counts:
            return Prompt(self.variant, units, 0, None)
        self.require_whole()
        self.choose_ending(units)
        near = min(self.counts.items(), key=lambda item: abs(item[1] - self.target))
        (units, ending), found = near
        if found < self.target - self.tolerance:
            self.require_room()
        return Prompt(self.variant, units, ending, found)

    def render(self, units: int, ending: int) -> Messages:
        return self.variant.render(units, ending, salt(0), system_role=self.system_role)

    def by_characters(self, characters: float) -> int:
        """The number of units whose prompt has about so many characters."""
        return min(bisect_left(self.characters, characters), len(self.characters) - 1)

    def length(self, units: int, ending: int) -> int | None:
        """Counted tokens of a candidate; None where nobody can tell or enough was asked."""
        key = (units, ending)
        if key not in self.counts and len(self.counts) < MAX_COUNTS:
            found = self.count(self.render(units, ending))
            if found is not None:
                self.counts[key] = found
        return self.counts.get(key)

    def near(self, tokens: int) -> bool:
        """Whether to stop asking."""
        return abs(tokens - self.target) <= self.close

    def choose_units(self, units: int) -> int:
        """Secant steps inside a shrinking bracket; the most units that do not pass the target."""
        low, high, (bare, begun) = -1, len(self.characters), self.known
        while low < units < high:
            try:
                tokens = self.length(units, 0)
            except RequestError as error:
                if units == 0 or code_of(error) != CONTEXT:
                    raise
                # Refused as too long for the context: it lies above the target.
                self.refusal = error
                if self.hopeless(units):
                    self.require_room()
                high, units = units, (max(low, 0) + units) // 2
                continue
            if tokens is None or self.near(tokens):
                return units
            low, high = (units, high) if tokens < self.target else (low, units)
            share = (self.target - begun) / max(tokens - begun, 1)
            guess = self.by_characters(bare + (self.characters[units] - bare) * share)
            units = min(max(guess, low + 1), high - 1)
        return max(low, 0)

    def hopeless(self, units: int) -> bool:
        """Whether a prompt of so many units, which was refused, is well below the target: what fits
        is then of no use, and finding it would take a dozen prefills."""
        if not self.counts:
            return False
        (longest, _), tokens = max(self.counts.items(), key=lambda item: item[1])
        more = tokens * (self.characters[units] / max(self.characters[longest], 1) - 1)
        return tokens + max(more, 0) * (1 + DOUBT) < self.target - self.tolerance

    def choose_ending(self, units: int) -> None:
        """Fine steps: the endings of a few neighbouring unit counts."""
        if any(map(self.near, self.counts.values())):
            return
        for candidate in range(units, max(units - 3, -1), -1):
            for ending in range(1, len(self.variant.endings)):
                try:
                    tokens = self.length(candidate, ending)
                except RequestError as error:
                    if code_of(error) != CONTEXT:
                        raise
                    self.refusal = error
                    break
                if tokens is None or self.near(tokens):
                    return
                if tokens > self.target + self.tolerance:
                    break

    def require_room(self) -> None:
        """Nothing reached the target. Raises RequestError where that is the context's fault: longer
        prompts were refused."""
        if self.refusal is not None:
            raise RequestError(self.refusal.message, code=CONTEXT)

    def require_whole(self) -> None:
        """Raises RequestError where prompts are silently cut: more text, and no more tokens."""
        units, ending = max(self.counts)
        tokens, characters = self.counts[units, ending], self.characters[units]
        short = tokens < self.target - self.tolerance
        if short and characters / max(tokens, 1) > CUT * _GUESS_CHARS_PER_TOKEN:
            raise RequestError(
                f"the server cuts long prompts: {characters} characters are {tokens} tokens to it",
                code=CONTEXT,
            )
