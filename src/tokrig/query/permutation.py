"""The exact permutation test of the rank sum, Holm's correction, and A/A noise. Pure.

The test is Wilcoxon's (1945; Mann and Whitney 1947): all C(n_a + n_b, n_a) ways of handing out
the labels count as equally likely, and the two-sided p-value is the share of them whose rank sum
lies at least as far from its mean as the one that was found. Ranks, because an outlier stays,
and because seconds and their inverse have to give the same answer.

The smallest p-value is 2 / C(2n, n): 0.1 with 3 repeats, 0.029 with 4, 0.0079 with 5, 0.0022
with 6, 0.00058 with 7, 0.000011 with 10.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb
from statistics import median

# The chance of calling any difference of a family real that is not: that of a 95 % interval.
LEVEL = Fraction(1, 20)


def aa_noise(*arms: Sequence[float]) -> Fraction | None:
    """Median of larger / smaller - 1 over consecutive values of the same arm; None without any."""
    consecutive = [
        Fraction(max(pair)) / Fraction(min(pair)) - 1
        for values in arms
        for pair in itertools.pairwise(values)
    ]
    return median(consecutive) if consecutive else None


def permutation_p(a: Sequence[float], b: Sequence[float]) -> Fraction:
    """Two-sided exact p-value of the rank sum over all C(n_a + n_b, n_a) relabelings, equal values
    sharing their mean rank."""
    together = sorted([*a, *b])
    # Doubled, so that a mean rank is a whole number.
    ranks = {x: bisect_left(together, x) + bisect_right(together, x) + 1 for x in together}
    chosen, of = len(b), len(together)
    mean = chosen * (of + 1)
    distance = abs(sum(ranks[x] for x in b) - mean)
    ways = _rank_sums(tuple(ranks[x] for x in together), chosen)
    as_far = sum(count for total, count in enumerate(ways) if abs(total - mean) >= distance)
    return Fraction(as_far, comb(of, chosen))


@lru_cache(maxsize=64)
def _rank_sums(ranks: tuple[int, ...], chosen: int) -> tuple[int, ...]:
    """How many ways to choose so many of the ranks add up to 0, 1, 2 …

    The coefficients of y^chosen in the product of (1 + y x^rank): for each power of y one long
    integer whose digits, wide enough for any count, are the coefficients of the powers of x.
    """
    width = comb(len(ranks), chosen).bit_length() // 8 + 1
    ways = [1] + [0] * chosen
    for rank in ranks:
        for size in range(chosen, 0, -1):
            ways[size] += ways[size - 1] << (8 * width * rank)
    digits = ways[chosen].to_bytes(width * (sum(ranks) + 1), "little")
    return tuple(
        int.from_bytes(digits[at : at + width], "little") for at in range(0, len(digits), width)
    )


def smallest_p(a: int, b: int) -> Fraction:
    """The p-value of arms of so many values, all different, that do not overlap: the least."""
    return min(Fraction(1), Fraction(2, comb(a + b, a)))


def holm(p_values: Sequence[Fraction]) -> list[Fraction]:
    """Holm's step-down correction: the smallest of m p-values times m, the next one times m - 1 …,
    none below the one before it. It bounds the chance of any false one, however they depend."""
    adjusted = [Fraction(1)] * len(p_values)
    reached = Fraction(0)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for place, index in enumerate(order):
        reached = max(reached, min(Fraction(1), (len(order) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted


def repeats_needed(tests: int) -> int:
    """The fewest repeats with which one of so many tests can show a difference at all."""
    return next(n for n in itertools.count(1) if tests * smallest_p(n, n) <= LEVEL)
