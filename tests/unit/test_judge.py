"""PASS, FAIL and INCONCLUSIVE over simulated starts whose truth is known; rules worked by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random
from statistics import median
from typing import Any

import pytest

from tests.unit.compared import cell, measured, speculating, with_value
from tokrig.compare import Cell
from tokrig.compare.judge import Judgement, Limits, Word, differing, judge, starts_wanted
from tokrig.compare.pool import Group, groups
from tokrig.compare.statistics import Spread, of_values, ratio_interval, welch_p
from tokrig.record.block import Summary
from tokrig.record.model import Record, Result

FIGURE = "output_tok_per_s"
GEN = Limits(own={FIGURE: 0.03})
STEADY = (99.0, 99.4, 99.8, 100.2, 100.6, 101.0)


@cache
def _bases() -> tuple[Group, Group]:
    """Two records that differ in the build alone."""
    return group(measured()), group(with_value(measured(), "backend.build", "b9300"))


def group(record: Record, **more: Any) -> Group:
    (found,) = groups([record], **more)
    return found


def of_starts(base: Group, cells: Sequence[Sequence[float]], metric: str = FIGURE) -> Group:
    """A group with a cell for each list of medians of starts."""
    made = [_cell(base.subject.cells[0], f"shape-{n}", metric, v) for n, v in enumerate(cells)]
    return replace(base, subject=replace(base.subject, cells=tuple(made)))


def _cell(like: Cell, shape: str, metric: str, values: Sequence[float]) -> Cell:
    figure = Summary(median=median(values), min=min(values), max=max(values), starts=list(values))
    figures = {name: figure if name == metric else None for name in like.figures}
    return replace(like, shape=shape, starts=len(values), figures=figures)


def against(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], limits: Limits = GEN, **more: Any
) -> Judgement:
    metric = more.pop("metric", FIGURE)
    sides = [of_starts(one, v, metric) for one, v in zip(_bases(), (a, b), strict=True)]
    return judge([(sides[0], sides[1])], limits, **more)


def starts(chance: Random, count: int, speed: float, spread: float) -> list[float]:
    return [speed * math.exp(chance.gauss(0, spread)) for _ in range(count)]


def trials(
    many: int, cells: int, count: int, slower: Sequence[float], spread: float, **more: Any
) -> list[Judgement]:
    """Judgements of simulated machines; in cell n B takes ``slower[n]`` more time."""
    chance, found = Random(f"{cells} {count} {slower} {spread}"), []
    for _ in range(many):
        a = [starts(chance, count, 100.0, spread) for _ in range(cells)]
        b = [starts(chance, count, 100.0 / (1 + by), spread) for by in slower]
        found.append(against(a, b, **more))
    return found


# Statistics


@pytest.mark.parametrize(("count", "spread"), [(6, 0.02), (10, 0.02), (6, 0.06)])
def test_two_of_the_same_fail_in_one_comparison_of_twenty_at_most(
    count: int, spread: float
) -> None:
    """Twelve cells each: the chance of any false FAIL among them. Two-sided at 5 %, so about half
    of it is on the slower side; without a correction it would be a quarter of them."""
    found = trials(600, 12, count, [0.0] * 12, spread)
    false = sum(one.verdict == "FAIL" for one in found)
    assert false <= 0.05 * len(found)
    uncorrected = sum(
        any((v.p or 1) <= 0.05 and (v.slower or 0) > v.least for v in one.verdicts) for one in found
    )
    assert uncorrected > 2 * 0.05 * len(found) or spread < 0.06


def test_true_nulls_beside_true_regressions_keep_their_level() -> None:
    """What Holm's procedure is for: three cells are slower by far, nine are not."""
    found = trials(300, 12, 6, [0.2] * 3 + [0.0] * 9, 0.03)
    false = sum(any(v.verdict == "FAIL" for v in one.verdicts[3:]) for one in found)
    assert false <= 0.05 * len(found)
    seen = sum(one.verdicts[n].verdict == "FAIL" for one in found for n in range(3))
    assert seen >= 0.99 * 3 * len(found)


@pytest.mark.parametrize(("slower", "spread"), [(0.06, 0.03), (0.08, 0.03), (0.045, 0.025)])
def test_the_starts_that_are_named_find_a_regression_in_four_trials_of_five(
    slower: float, spread: float
) -> None:
    wanted = starts_wanted(_spread(spread), _spread(spread), slower, 0.03, 0.03, 4)
    assert wanted is not None
    found = trials(400, 4, wanted, [slower, 0.0, 0.0, 0.0], spread)
    shown = sum(one.verdicts[0].verdict == "FAIL" for one in found) / len(found)
    assert 0.77 <= shown <= 0.97
    fewer = trials(200, 4, max(6, wanted // 2), [slower, 0.0, 0.0, 0.0], spread)
    assert sum(one.verdicts[0].verdict == "FAIL" for one in fewer) / len(fewer) < shown


@pytest.mark.parametrize("spread", [0.015, 0.03])
def test_the_starts_that_are_named_let_the_same_pass_in_four_trials_of_five(spread: float) -> None:
    wanted = starts_wanted(_spread(spread), _spread(spread), 0.0, 0.03, 0.03, 1)
    assert wanted is not None
    found = trials(400, 1, wanted, [0.0], spread)
    shown = sum(one.verdict == "PASS" for one in found) / len(found)
    assert 0.77 <= shown <= 0.97


def _spread(deviation: float, count: int = 6) -> Spread:
    return Spread(0.0, deviation, count)


def test_pass_is_wrong_in_one_trial_of_twenty_at_most() -> None:
    """B is slower by just the limit: PASS would be false."""
    found = trials(1000, 1, 8, [0.03], 0.01)
    assert sum(one.verdict == "PASS" for one in found) <= 0.05 * len(found)


@pytest.mark.parametrize("count", [6, 10])
def test_intervals_cover_the_true_ratio(count: int) -> None:
    found = trials(1000, 1, count, [0.05], 0.03)
    spans = [one.verdicts[0].span or (0.0, 0.0) for one in found]
    covered = sum(low <= 0.05 <= high for low, high in spans) / len(spans)
    assert 0.935 <= covered <= 0.98


def test_the_p_value_is_that_of_the_interval() -> None:
    """Welch's: below 5 % just where the interval of one test excludes 1."""
    chance = Random(7)
    for _ in range(300):
        a, b = (of_values(starts(chance, chance.randint(6, 12), 100, 0.03)) for _ in range(2))
        low, high = ratio_interval(a, b, 1)
        assert (welch_p(a, b) < 0.05) == (low > 1 or high < 1)
    same = of_values([2.0] * 6)
    assert (welch_p(same, same), welch_p(same, of_values([1.0] * 6))) == (1.0, 0.0)


# Rules


def times(factor: float, values: Sequence[float] = STEADY) -> list[float]:
    return [factor * value for value in values]


@pytest.mark.parametrize(
    ("factor", "limits", "word", "effect"),
    [
        (1.0, GEN, "PASS", ""),
        (1.10, GEN, "PASS", "faster"),
        (0.90, GEN, "FAIL", "slower"),
        (0.975, GEN, "INCONCLUSIVE", "slower"),
        (0.975, Limits(own={FIGURE: 0.10}), "PASS", "slower"),
        (0.975, Limits(), "FAIL", "slower"),
        (0.985, Limits(), "PASS", ""),
        (0.985, Limits(every=0.01), "INCONCLUSIVE", ""),
        (0.995, Limits(every=0.001), "INCONCLUSIVE", ""),
    ],
)
def test_steady_starts(factor: float, limits: Limits, word: Word, effect: str) -> None:
    (found,) = against([STEADY], [times(factor)], limits).verdicts
    assert (found.verdict, found.effect) == (word, effect)
    assert bool(found.settle) == (word == "INCONCLUSIVE")
    turned = [[1 / v for v in values] for values in (STEADY, times(factor))]
    (seconds,) = against(
        [turned[0]], [turned[1]], replace(limits, own=dict.fromkeys(["ttft_s"], limits.own[FIGURE]))
        if limits.own else limits, metric="ttft_s",
    ).verdicts  # fmt: skip
    assert (seconds.verdict, seconds.effect) == (word, effect)


def test_noise_that_was_measured_beside_both_is_no_regression() -> None:
    noise = {("shape-0", (1, 1), FIGURE): 0.06}
    (found,) = against([STEADY], [times(0.95)], Limits(), control=noise).verdicts
    assert (found.verdict, found.least) == ("INCONCLUSIVE", 0.06)
    (found,) = against([STEADY], [times(1.0)], GEN, control=noise).verdicts
    assert found.verdict == "INCONCLUSIVE"
    assert "two runs of the same differ by 6 % here" in found.settle
    (found,) = against([STEADY], [times(0.9)], GEN, control=noise).verdicts
    assert found.verdict == "FAIL"
    (found,) = against([STEADY], [times(1.2)], GEN, control=noise).verdicts
    assert found.verdict == "PASS"


def test_a_control_tells_by_how_much_the_same_differs() -> None:
    control = against([STEADY, STEADY], [times(0.98), times(1.01)])
    found = differing(control)
    assert found["shape-0", (1, 1), FIGURE] == pytest.approx(1 / 0.98 - 1)
    assert found["shape-1", (1, 1), FIGURE] == pytest.approx(0.01)


def test_the_whole_passes_only_where_everything_does() -> None:
    noisy = [80.0, 90.0, 100.0, 110.0, 120.0, 125.0]
    assert against([STEADY, STEADY], [STEADY, STEADY]).verdict == "PASS"
    assert against([STEADY, noisy], [STEADY, noisy]).verdict == "INCONCLUSIVE"
    found = against([STEADY, noisy, STEADY], [times(0.9), noisy, STEADY])
    assert found.verdict == "FAIL"
    assert Counter(one.verdict for one in found.verdicts) == dict.fromkeys(
        ("FAIL", "INCONCLUSIVE", "PASS"), 1
    )
    assert found.family == "3 tests: 1 figure (gen tok/s) of 3 cells"
    missing = against([STEADY, STEADY], [STEADY])
    assert missing.verdict == "INCONCLUSIVE"
    assert missing.pairs[0].missing == ("shape-1 × 1: only A has it",)


def test_the_same_difference_takes_more_the_more_is_judged() -> None:
    unsteady = (97.0, 99.0, 99.5, 100.5, 101.0, 103.0)
    alone = against([unsteady], [times(0.955, unsteady)])
    among = against([unsteady] * 40, [times(0.955, unsteady), *([unsteady] * 39)])
    assert (alone.verdict, among.verdicts[0].verdict) == ("FAIL", "INCONCLUSIVE")
    assert alone.verdicts[0].p == among.verdicts[0].p
    assert among.verdicts[0].adjusted_p == pytest.approx(40 * (alone.verdicts[0].p or 0))


def test_too_few_starts_decide_nothing_however_large_the_difference() -> None:
    few = [50.0, 51.0, 50.5, 49.0, 50.2]
    (found,) = against([STEADY], [few]).verdicts
    assert (found.verdict, found.p) == ("INCONCLUSIVE", None)
    assert found.settle == "engine starts: A 6, B 5; 6 are needed on each side"


# Every kind of cell


def with_results(*results: Result) -> Record:
    return with_value(measured(), "results", list(results))


def test_every_kind_of_cell_is_judged_among_its_like() -> None:
    """Depths, ladders' steps, sustained loads, open loops and sessions."""
    plain = cell("chat")
    session = cell("session").model_copy(
        update={
            "load": "session",
            **dict.fromkeys(("prefill_tok_per_s", "system_tok_per_s")),
            "session_s": Summary(median=30.0, min=29.0, max=31.0, n=6, starts=list(STEADY)),
        }
    )
    kinds = [
        plain,
        cell("chat", 4),
        plain.model_copy(update={"depth_tokens": 4096}),
        plain.model_copy(update={"load": "sustained"}),
        plain.model_copy(update={"load": "poisson", "rate_per_s": 2.0}),
        session,
    ]
    a = group(with_results(*kinds))
    b = group(with_value(with_results(*kinds), "backend.build", "b9300"))
    found = judge([(a, b)], Limits())
    assert found.verdict == "PASS"
    cells = {(one.shape, one.concurrency) for one in found.verdicts}
    assert len(cells) == len(kinds)
    assert {one.metric for one in found.verdicts if "session" in one.shape} == {
        *("output_tok_per_s", "ttft_s", "end_to_end_tok_per_s", "session_s")
    }


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (cell("chat", valid=False), "chat × 1: B INVALID (cached_tokens)"),
        (cell("chat", hash="ffff"), "chat × 1: other texts"),
        (cell("chat", prompt_tokens=200.0), "chat × 1: another length"),
        (
            cell("chat").model_copy(update={"output_tok_per_s": None}),
            "chat × 1 gen tok/s: B has no such figure",
        ),
        (
            cell("chat", prefill_source="ttft_derived"),
            "chat × 1 prefill tok/s: measured in two ways",
        ),
    ],
)
def test_what_is_not_judged_is_named_and_keeps_the_whole_from_passing(
    result: Result, told: str
) -> None:
    other = with_value(with_results(result, cell("rag")), "backend.build", "b9300")
    found = judge([(group(with_results(cell("chat"), cell("rag"))), group(other))], Limits())
    assert found.verdict == "INCONCLUSIVE"
    assert found.pairs[0].missing == (told,)


def test_class_d_is_not_judged() -> None:
    other = with_value(measured(), "provenance.methodology", 1)
    found = judge([(group(measured()), group(other))], Limits())
    assert (found.verdict, found.rated, found.tests) == ("INCONCLUSIVE", False, 0)
    assert found.pairs[0].missing == ("not comparable: the methodology differs",)


def test_what_stands_beside_speed_is_told() -> None:
    from tokrig.record.model import Greedy

    record = speculating()
    results = [
        one.model_copy(
            update={"greedy": Greedy(same=False, compared_characters=80), "ceiling_share": 0.6}
        )
        for one in record.results
    ]
    shared = [one.model_copy(update={"ceiling_share": 0.5}) for one in measured().results]
    a = group(with_value(measured(), "results", shared))
    b = group(with_value(record, "results", results))
    found = judge([(a, b)], Limits())
    assert found.pairs[0].beside == (
        "B: speculation changed the greedy answer of chat × 1, rag × 1, agent × 1",
        "share of the decode ceiling: A 50 %, B 60 %",
    )
