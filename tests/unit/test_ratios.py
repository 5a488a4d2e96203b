"""What may be called faster, what is inconclusive and why; ties. Figures are worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.compared import cell, measured, with_value
from tokrig.compare import LENGTH_SHARE, LENGTH_TOKENS, rules
from tokrig.compare.statistics import (
    NO_INTERVAL,
    SMALLEST_EFFECT,
    STARTS_NEEDED,
    UNKNOWN_SPREAD,
    WIDEST,
    Ratio,
    Side,
    beyond,
    critical,
    of_values,
    rank_words,
    ratio,
    ratio_interval,
    tie_span,
    ties,
)
from tokrig.record.block import Summary
from tokrig.record.formulas import MIN_REPEATS_FOR_INTERVAL
from tokrig.record.model import Record, Result, Validity
from tokrig.store.load import Row, Run

METHODOLOGY = Path(__file__).parents[2] / "docs" / "methodology.md"


def of(values: Sequence[float], starts: int | None = None) -> Side:
    """A figure of starts with these medians."""
    metric = Summary(median=median(values), min=min(values), max=max(values), starts=list(values))
    return Side(metric, len(values) if starts is None else starts)


def interval(middle: float, low: float, high: float, starts: int | None = 6) -> Side:
    """A figure of an older record: an interval, and nothing of the single starts."""
    return Side(Summary(median=middle, min=low, max=high, n=18, ci95=(low, high)), starts)


def against(side: Side | None, reference: Side | None, **also: float) -> Ratio:
    return ratio(side, reference, higher_is_better=True, **also)  # type: ignore[arg-type]


STEADY = (99.0, 99.4, 99.8, 100.2, 100.6, 101.0)


def times(factor: float, values: Sequence[float] = STEADY) -> tuple[float, ...]:
    return tuple(factor * value for value in values)


# Student's t


@pytest.mark.parametrize(
    ("freedom", "tests", "quantile"),
    # The printed tables: two-sided 5 %, 1 % (5 tests), 0.1 % (50 tests).
    [
        (5, 1, 2.571),
        (9, 1, 2.262),
        (10, 1, 2.228),
        (18, 1, 2.101),
        (10, 5, 3.169),
        (11, 5, 3.106),
        (10, 50, 4.587),
        (60, 50, 3.460),
        (1, 1, 12.706),
        (2, 1, 4.303),
    ],
)
def test_quantiles_are_those_of_the_tables(freedom: int, tests: int, quantile: float) -> None:
    assert critical(freedom, tests) == pytest.approx(quantile, abs=6e-4)
    assert beyond(quantile, freedom) == pytest.approx(0.05 / tests, rel=3e-3)


def test_the_interval_of_a_ratio_by_hand() -> None:
    logs = [math.log(value) for value in STEADY]
    mean = sum(logs) / 6
    error = sum((one - mean) ** 2 for one in logs) / 5 / 6
    half = 2.22814 * math.sqrt(2 * error)  # equal spreads: 10 degrees of freedom
    low, high = ratio_interval(of_values(times(1.1)), of_values(STEADY), 1)
    assert low == pytest.approx(1.1 * math.exp(-half), rel=1e-6)
    assert high == pytest.approx(1.1 * math.exp(half), rel=1e-6)


def test_equal_values_leave_nothing_open() -> None:
    assert ratio_interval(of_values([2.0] * 6), of_values([1.0] * 6), 9) == pytest.approx((2, 2))
    found = against(of([103.0] * 6), of([100.0] * 6))
    assert [found.low, found.high] == pytest.approx([1.03, 1.03])
    assert found.verdict == "faster"


# Verdicts


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (1.10, "faster"),
        (1.0, "not_distinguishable"),
        (1.019, "not_distinguishable"),
        (0.9, "slower"),
        (0.985, "not_distinguishable"),
    ],
)
def test_six_steady_starts(factor: float, verdict: str) -> None:
    found = against(of(times(factor)), of(STEADY))
    assert (found.verdict, found.basis, found.settle) == (verdict, "starts", "")
    assert found.low is not None and found.high is not None
    assert found.low < factor < found.high
    turned = against(of(STEADY), of(times(factor)))
    assert turned.verdict == {"faster": "slower", "slower": "faster"}.get(verdict, verdict)
    inverse = [tuple(1 / one for one in values) for values in (times(factor), STEADY)]
    lower = ratio(*map(of, inverse), higher_is_better=False)
    assert lower.verdict == verdict


def test_the_same_difference_needs_more_the_more_is_tested() -> None:
    unsteady = (97.0, 99.0, 99.5, 100.5, 101.0, 103.0)
    pair = (of(times(1.03, unsteady)), of(unsteady))
    narrow, wide = against(*pair, tests=1), against(*pair, tests=60)
    assert (narrow.verdict, wide.verdict) == ("faster", "inconclusive")
    assert narrow.low is not None and wide.low is not None and wide.low < narrow.low


def test_an_effect_within_the_noise_of_the_rig_is_no_difference() -> None:
    assert against(of(times(1.06)), of(STEADY)).verdict == "faster"
    assert against(of(times(1.06)), of(STEADY), least=0.08).verdict == "not_distinguishable"
    assert against(of(times(1.1)), of(STEADY), least=0.08).verdict == "faster"


def test_a_wide_interval_is_inconclusive_and_tells_how_many_starts_settle_it() -> None:
    noisy = (90.0, 94.0, 98.0, 102.0, 106.0, 110.0)
    seen = against(of(times(1.05, noisy)), of(noisy))
    assert seen.verdict == "inconclusive"
    assert seen.settle == "about 39 starts on each side"
    # Less noise, or more of a difference, takes less.
    assert against(of(times(1.1, noisy)), of(noisy)).settle == "about 11 starts on each side"
    hardly = against(of(times(1.001, noisy)), of(noisy))
    assert hardly.settle == "about 21 starts on each side"
    wild = (50.0, 70.0, 90.0, 110.0, 130.0, 150.0)
    assert against(of(times(1.03, wild)), of(wild)).settle == "more than 100 starts on each side"


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (1, 6, "A 1, B 6"),
        (10, 5, "A 10, B 5"),
        (None, 6, "A unknown, B 6"),
        (None, None, "A unknown, B unknown"),
        (0, 0, "A 0, B 0"),
    ],
)
def test_fewer_than_six_starts_are_inconclusive(a: int | None, b: int | None, told: str) -> None:
    for pair in (
        (of(times(2), 99), of(STEADY, 99)),
        (interval(200, 199, 201), interval(100, 99, 101)),
        (Side(Summary(median=200), 99), Side(Summary(median=100), 99)),
    ):
        mine, other = pair
        found = against(Side(mine.metric, b), Side(other.metric, a))
        assert found.value == pytest.approx(2)
        assert (found.low, found.high) == (None, None)
        assert (found.verdict, found.basis) == ("inconclusive", "none")
        assert found.settle == f"engine starts: {told}; 6 are needed on each side"


def test_values_that_share_a_start_do_not_count_as_starts() -> None:
    """Six repeats on an attached server, as version 1 gave them an interval."""
    attached = with_value(measured(), "backend.managed", False)
    faster = with_value(attached, "results", [cell("chat", speed=300.0)])
    for one in (attached, faster):
        assert one.results[0].output_tok_per_s is not None
        assert one.results[0].output_tok_per_s.ci95
    rows_ = [Row(Run(one, "", ""), one.results[0]) for one in (faster, attached)]
    assert ties(rows_) == ["1", "2"]
    found = against(of(times(2), 1), of(STEADY, 1))
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("side", "reference", "verdict"),
    [
        (interval(110, 105, 115), interval(100, 95, 104), "faster"),
        (interval(90, 88, 91), interval(100, 95, 105), "slower"),
        (interval(110, 103, 115), interval(100, 95, 104), "inconclusive"),
        (interval(101, 100, 102), interval(100, 99, 101), "not_distinguishable"),
        (interval(101.9, 101.8, 102), interval(100, 99.9, 100.1), "not_distinguishable"),
        (of(times(1.2)), interval(100, 99, 101), "inconclusive"),
    ],
)
def test_older_records_have_their_intervals(side: Side, reference: Side, verdict: str) -> None:
    found = against(side, reference)
    assert found.verdict == verdict
    if side.metric.ci95:
        assert found.basis == "intervals"
        assert found.low == pytest.approx(side.metric.ci95[0] / reference.metric.ci95[1])  # type: ignore[index]
    else:
        assert found.settle == NO_INTERVAL


def test_bare_medians_of_many_starts_are_inconclusive() -> None:
    found = against(Side(Summary(median=300), 10), Side(Summary(median=100), 10))
    assert (found.verdict, found.settle) == ("inconclusive", NO_INTERVAL)


@pytest.mark.parametrize("middle", [0.0, -1.0, 1e-300, None])
def test_what_cannot_be_divided_has_no_ratio(middle: float | None) -> None:
    side = None if middle is None else Side(Summary(median=middle), 6)
    one = Side(Summary(median=1.0), 6)
    for pair in ((side, one), (one, side), (side, side)):
        found = against(*pair)
        assert (found.value, found.verdict, found.settle) == (None, "none", "")


@pytest.mark.parametrize("ci95", [(0.0, 120.0), (120.0, 100.0), (-1.0, 5.0)])
def test_bounds_that_cannot_be_divided_are_no_interval(ci95: tuple[float, float]) -> None:
    broken = Side(Summary(median=110, ci95=ci95), 6)
    assert against(broken, interval(100, 90, 95)).settle == NO_INTERVAL


@given(
    st.lists(st.floats(1e-3, 1e6), min_size=6, max_size=10),
    st.lists(st.floats(1e-3, 1e6), min_size=6, max_size=10),
    st.integers(1, 80),
)
def test_any_figures_have_a_verdict_that_its_interval_shows(
    mine: list[float], other: list[float], tests: int
) -> None:
    found = against(of(mine), of(other), tests=tests)
    assert found.value is not None and found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high
    assert all(map(math.isfinite, (found.low, found.high)))
    if found.verdict in ("faster", "slower"):
        assert found.low > 1.0 or found.high < 1.0
        assert max(found.value, 1 / found.value) - 1 > SMALLEST_EFFECT
    assert bool(found.settle) == (found.verdict == "inconclusive")


def test_thresholds_are_the_documented_ones() -> None:
    text = METHODOLOGY.read_text(encoding="utf-8")
    assert (SMALLEST_EFFECT, WIDEST, UNKNOWN_SPREAD) == (0.02, 0.05, 0.06)
    assert (LENGTH_SHARE, LENGTH_TOKENS, STARTS_NEEDED) == (0.02, 4, 6)
    assert MIN_REPEATS_FOR_INTERVAL == STARTS_NEEDED
    for row in (
        "| smallest effect of a comparison | 2 % |",
        "| an interval that leaves more open than this is inconclusive | 5 % |",
        "| figures of fewer than 6 starts that tie | 6 % |",
        "| two prompt lengths that are the same | 2 %, at least 4 tokens |",
    ):
        assert row in text
    assert rules()["starts_needed"] == 6


# Ties


def rows(*results: Result, record: Record | None = None) -> list[Row]:
    run = Run(record or measured(), "a/b.yaml", "0")
    return [Row(run, result) for result in results]


def test_every_member_of_a_group_is_tied_with_every_other() -> None:
    """100, 99 and 98 in a chain: neighbours tie, the first and the last do not."""
    speeds = [200.0, 100.0, 99.0, 97.7, 97.0, 50.0]
    ranked = ties(rows(*(cell("chat", speed=speed, spread=0.0) for speed in speeds)))
    assert ranked == ["1", "2=", "2=", "4=", "4=", "6"]


spans = st.lists(
    st.tuples(st.floats(1, 100), st.floats(1, 1.5)).map(
        lambda one: (one[0] / one[1], one[0] * one[1])
    ),
    max_size=12,
)


@given(spans)
def test_groups_are_complete_and_closed(found: list[tuple[float, float]]) -> None:
    found.sort(key=lambda one: -one[0] * one[1])
    words = rank_words(found)

    def tied(one: int, other: int) -> bool:
        return found[one][0] <= found[other][1] and found[other][0] <= found[one][1]

    groups = [list(places) for _, places in itertools.groupby(range(len(found)), words.__getitem__)]
    for group in groups:
        assert all(tied(a, b) for a, b in itertools.combinations(group, 2))
        assert words[group[0]] == f"{group[0] + 1}{'=' if len(group) > 1 else ''}"
    for group, after in itertools.pairwise(groups):
        # The next figure was not tied with all of the group before it.
        assert not all(tied(after[0], one) for one in group)


@pytest.mark.parametrize(
    ("level", "other", "ranks"),
    [
        # Of six steady starts 2 % tie; of a quick run 6 %, or what its own values cover.
        ({"spread": 0.0}, 98.2, ["1=", "1="]),
        ({"spread": 0.0}, 97.9, ["1", "2"]),
        ({"spread": None}, 94.5, ["1=", "1="]),
        ({"spread": None}, 94.2, ["1", "2"]),
        ({"spread": 0.05}, 97.0, ["1=", "1="]),
        ({"spread": 0.05, "starts": False}, 92.0, ["1=", "1="]),
    ],
)
def test_ties_go_by_what_is_known(level: dict[str, Any], other: float, ranks: list[str]) -> None:
    made = [cell("chat", speed=speed, **level) for speed in (100.0, other)]
    starts = None if level["spread"] is None else 6
    record = with_value(measured(), "provenance.server_starts", starts)
    assert ties(rows(*made, record=record)) == ranks


def test_single_values_of_a_quick_run_tie_where_they_overlap() -> None:
    quick = with_value(measured(), "provenance.server_starts", 1)
    wide = Summary(median=90.0, min=80.0, max=99.0, n=3)
    results = [
        cell("chat").model_copy(update={"repeats": 1}),
        cell("chat").model_copy(update={"repeats": 1, "output_tok_per_s": wide}),
    ]
    assert ties(rows(*results, record=quick)) == ["1=", "1="]


def test_only_valid_rows_are_ranked_unless_there_is_none() -> None:
    bare_row = cell("chat").model_copy(update={"output_tok_per_s": None})
    doubted = cell("chat", speed=500.0).model_copy(
        update={"validity": Validity(verdict="unverified", unverified=["no_rate"])}
    )
    ranked = ties(
        rows(doubted, cell("chat"), cell("chat", valid=False), bare_row, cell("chat", speed=10.0))
    )
    assert ranked == ["", "1", "", "", "2"]
    assert ties(rows(doubted, cell("chat", valid=False))) == ["1", ""]
    assert ties([]) == []


def test_a_figure_that_cannot_be_ranked_covers_nothing() -> None:
    assert tie_span(None) is None
    assert tie_span(Side(Summary(median=0.0), 6)) is None
    low, high = tie_span(Side(Summary(median=100.0, min=0.0), 1)) or (0, 0)
    assert [low, high] == pytest.approx([100 / math.sqrt(1.06), 100 * math.sqrt(1.06)])
