"""What comparisons of simulated records say: no difference that is none, and those that are."""

from __future__ import annotations

from random import Random
from typing import get_args

import pytest

from tests.unit.simulated import Kind, Level, record
from tokrig.compare import comparison, subject
from tokrig.compare.statistics import Verdict

PAIRS = 80
# The widest spread of all kinds, and a narrow one: bench/verdicts.py has the whole table.
SPREADS = [(0.02, kind) for kind in get_args(Kind)] + [(0.01, "normal")]


def verdicts(
    seed: int, level: Level, spread: float, faster: float, kind: Kind
) -> list[set[Verdict]]:
    """The verdicts of every pair: of all its figures, four shapes with five each."""
    chance, found = Random(seed), []
    for _ in range(PAIRS):
        a = subject(record(chance, level, spread, kind=kind))
        b = subject(record(chance, level, spread, faster=faster, kind=kind))
        pairs = comparison(a, b).pairs
        found.append(
            {figure.ratio.verdict for pair in pairs for figure in pair.figures if figure.a}
        )
    return found


@pytest.mark.parametrize(("spread", "kind"), SPREADS)
@pytest.mark.parametrize("level", ["standard", "publish"])
def test_two_records_of_the_same_are_called_different_in_one_pair_of_twenty_at_most(
    level: Level, spread: float, kind: Kind
) -> None:
    """In any of their twenty figures. Seeded: the true rate is below 5 %, chance adds to it."""
    found = verdicts(1, level, spread, 1.0, kind)
    assert sum(bool(said & {"faster", "slower"}) for said in found) <= 0.05 * PAIRS


@pytest.mark.parametrize("level", ["quick", "attached"])
def test_one_start_shows_nothing_however_large(level: Level) -> None:
    for faster in (1.0, 1.5):
        assert set().union(*verdicts(2, level, 0.02, faster, "normal")) == {"inconclusive"}


@pytest.mark.parametrize(("spread", "kind"), SPREADS)
def test_five_percent_are_found_at_level_publish(spread: float, kind: Kind) -> None:
    chance, found = Random(3), 0
    for _ in range(PAIRS):
        a = subject(record(chance, "publish", spread, kind=kind))
        b = subject(record(chance, "publish", spread, faster=1.05, kind=kind))
        figures = comparison(a, b).pairs[0].figures
        assert {figure.ratio.verdict for figure in figures if figure.a} <= {
            "faster",
            "inconclusive",
        }
        found += figures[0].ratio.verdict == "faster"
    assert found >= 0.8 * PAIRS
