"""A/B comparisons: the exact test against brute force, symmetry, and what may be compared."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compared import cell, measured, with_value
from tokrig.compare.ab import FIGURES, VARIABLES_OF, Arms, Outcome, compare
from tokrig.compare.statistics import (
    LEVEL,
    aa_noise,
    holm,
    permutation_p,
    repeats_needed,
    smallest_p,
)
from tokrig.compare.variables import VARIABLES
from tokrig.record.model import Failure, Record, Validity
from tokrig.spec.campaign import AXES

NOISE = (1.0, 1.002, 0.999, 1.001, 0.998, 1.003, 0.997, 1.004)
values = st.lists(st.integers(1, 12).map(float), min_size=1, max_size=5)


# Statistics


def brute_force(a: Sequence[float], b: Sequence[float]) -> Fraction:
    """The definition: every relabeling, mean ranks counted one by one."""
    both = [*a, *b]
    ranks = [sum(y < x for y in both) + Fraction(1 + sum(y == x for y in both), 2) for x in both]
    mean = Fraction(len(b) * (len(both) + 1), 2)
    distance = abs(sum(ranks[len(a) :]) - mean)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(b))]
    return Fraction(sum(abs(one - mean) >= distance for one in sums), len(sums))


@settings(max_examples=60)
@given(values, values)
def test_the_test_is_the_enumeration_of_all_relabelings(a: list[float], b: list[float]) -> None:
    p = permutation_p(a, b)
    assert p == brute_force(a, b)
    assert Fraction(1, math.comb(len(a) + len(b), len(a))) <= p <= 1
    assert p == permutation_p(b, a) == permutation_p([1 / x for x in a], [1 / x for x in b])


@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 6, 10, 30])
def test_arms_that_do_not_overlap_have_the_smallest_p(repeats: int) -> None:
    p = permutation_p(range(1, repeats + 1), range(100, 100 + repeats))
    assert p == smallest_p(repeats, repeats) == min(1, Fraction(2, math.comb(2 * repeats, repeats)))


def test_equal_values_say_nothing() -> None:
    assert permutation_p([5.0] * 6, [5.0] * 6) == 1


@given(st.lists(st.fractions(0, 1), max_size=8))
def test_holm_rejects_what_its_steps_reject(ps: list[Fraction]) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        if ps[index] * (len(ps) - step) > LEVEL:
            break
        rejected.add(index)
    adjusted = holm(ps)
    assert {index for index, p in enumerate(adjusted) if p <= LEVEL} == rejected
    assert all(p <= more <= 1 for p, more in zip(ps, adjusted, strict=True))


def test_holm_by_hand() -> None:
    ps = [Fraction(1, 100), Fraction(4, 100), Fraction(3, 100)]
    assert holm(ps) == [Fraction(3, 100), Fraction(6, 100), Fraction(6, 100)]


def test_noise_is_the_median_ratio_of_consecutive_values_of_an_arm() -> None:
    assert aa_noise([100.0, 102.0, 100.0], [50.0, 55.0]) == Fraction(1, 50)
    assert aa_noise([100.0], [50.0]) is None


def test_repeats_that_a_family_needs() -> None:
    assert [repeats_needed(tests) for tests in (1, 3, 6, 7, 23, 24, 86)] == [4, 5, 5, 6, 6, 7, 8]
    for tests in (1, 7, 24):
        n = repeats_needed(tests)
        assert tests * smallest_p(n, n) <= LEVEL < tests * smallest_p(n - 1, n - 1)


# Arms


def record(arm: str, place: int, speed: float, **changed: Any) -> Record:
    """A record of the sequence A B B A …; arm B is another build."""
    made = with_value(measured(), "id", f"20261122-{arm}{place}")
    made = with_value(made, "results", [cell("chat", 1, speed), cell("agent", 4, speed / 2)])
    order = 2 * place + ((place % 2) != (arm == "B"))
    made = with_value(made, "provenance.started_at", f"2026-11-22T{order:02d}:00:00Z")
    made = with_value(made, "backend.build", "b9174" if arm == "A" else "b9999")
    for path, value in changed.items():
        made = with_value(made, path.replace("__", "."), value)
    return made


def arms(faster: float = 1.1, repeats: int = 6, **changed: Any) -> Arms:
    a = [record("A", n, 100 * NOISE[n]) for n in range(repeats)]
    b = [record("B", n, 100 * faster * NOISE[-1 - n], **changed) for n in range(repeats)]
    return Arms("gemma", a, b)


def only(found: tuple[Outcome, ...]) -> Outcome:
    assert len(found) == 1
    return found[0]


def verdicts(outcome: Outcome) -> set[str]:
    return {effect.verdict for effect in outcome.effects}


def test_every_axis_names_variables_that_exist() -> None:
    assert set(VARIABLES_OF) == set(AXES)
    named = {name for names in VARIABLES_OF.values() for name in names}
    assert named <= {variable.name for variable in VARIABLES if variable.counts}


@pytest.mark.parametrize(("faster", "verdict"), [(1.1, "faster"), (0.9, "slower")])
def test_a_difference_beyond_noise_is_called_by_its_direction(faster: float, verdict: str) -> None:
    found = only(compare("build", 6, [arms(faster)]))
    assert (found.reason, found.complete, found.order) == ("", True, "ABBAABBAABBA")
    assert [(e.shape, e.concurrency, e.metric) for e in found.effects] == [
        (shape, concurrency, metric)
        for shape, concurrency in (("chat", 1), ("agent", 4))
        for metric in FIGURES
    ]
    assert verdicts(found) == {verdict}
    # Six tests, each with the smallest p of six repeats.
    assert {e.adjusted_p for e in found.effects} == {Fraction(2 * 6, 924)}
    ttft = next(e for e in found.effects if e.metric == "ttft_s")
    assert ttft.ratio is not None
    assert float(ttft.ratio) == pytest.approx(1 / faster, rel=0.01)


@pytest.mark.parametrize("faster", [1.0, 1.015])
def test_less_than_two_percent_is_not_distinguishable(faster: float) -> None:
    found = only(compare("build", 6, [arms(faster)]))
    assert verdicts(found) == {"not_distinguishable"}


def test_an_effect_within_the_noise_is_not_called() -> None:
    """Every B is faster than every A, yet one record differs from the next by as much."""
    a = [record("A", n, speed) for n, speed in enumerate([108, 90, 108, 90, 108, 107])]
    b = [record("B", n, speed) for n, speed in enumerate([111, 140, 111, 140, 111, 112])]
    gen = only(compare("build", 6, [Arms("", a, b)])).effects[0]
    assert (gen.p, gen.ratio) == (smallest_p(6, 6), Fraction(223, 215))
    assert gen.noise == Fraction(1, 5)
    assert gen.verdict == "inconclusive"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(50, 200), min_size=4, max_size=4),
    st.lists(st.floats(50, 200), min_size=4, max_size=4),
)
def test_swapped_arms_give_the_reciprocal(a: list[float], b: list[float]) -> None:
    first = [record("A", n, speed) for n, speed in enumerate(a)]
    other = [record("B", n, speed) for n, speed in enumerate(b)]
    there = only(compare("build", 4, [Arms("", first, other)]))
    back = only(compare("build", 4, [Arms("", other, first)]))
    mirrored = {"faster": "slower", "slower": "faster"}
    for one, two in zip(there.effects, back.effects, strict=True):
        assert one.ratio is not None
        assert two.ratio == 1 / one.ratio
        assert (two.p, two.adjusted_p, two.noise) == (one.p, one.adjusted_p, one.noise)
        assert two.verdict == mirrored.get(one.verdict, one.verdict)


def test_too_few_repeats_are_named_as_such() -> None:
    found = only(compare("build", 3, [arms(1.5, repeats=3)]))
    assert verdicts(found) == {"inconclusive"}
    assert found.effects[0].p == Fraction(1, 10)
    # Six tests, whose smallest p three repeats cannot reach, however many starts were in each.
    assert {effect.settle for effect in found.effects} == {"so many figures need 5 repeats"}


def quick(one: Record) -> Record:
    results = [result.model_copy(update={"repeats": 1}) for result in one.results]
    return with_value(with_value(one, "results", results), "provenance.server_starts", 1)


@pytest.mark.parametrize(
    ("a", "b", "settle"),
    [
        (6, 6, ""),
        (8, 6, ""),
        (5, 8, "engine starts: A 5, B 8; 6 are needed on each side"),
    ],
)
def test_an_arm_has_as_many_starts_as_its_records(a: int, b: int, settle: str) -> None:
    made = arms(1.2, repeats=8)
    failed = [with_value(one, "status", "failed") for one in made.a]
    first = [*map(quick, made.a[:a]), *failed[a:]]
    other = [*map(quick, made.b[:b]), *(with_value(one, "status", "failed") for one in made.b[b:])]
    found = only(compare("build", 8, [Arms("", first, other)]))
    assert {effect.settle for effect in found.effects} == {settle}
    assert verdicts(found) == ({"inconclusive"} if settle else {"faster"})


def test_all_records_of_an_attached_server_are_one_start() -> None:
    made = arms(1.5, backend__managed=False)
    a = [with_value(one, "backend.managed", False) for one in made.a]
    found = only(compare("build", 6, [Arms("", a, made.b)]))
    assert verdicts(found) == {"inconclusive"}
    assert found.effects[0].starts == (1, 1)
    assert found.effects[0].settle == "engine starts: A 1, B 1; 6 are needed on each side"


def test_a_wide_interval_is_inconclusive_and_says_what_settles_it() -> None:
    spread = [94.0, 97.0, 98.0, 102.0, 103.0, 106.0]
    a = [record("A", n, speed) for n, speed in enumerate(spread)]
    b = [record("B", n, 1.06 * speed) for n, speed in enumerate(spread)]
    gen = only(compare("build", 6, [Arms("", a, b)])).effects[0]
    assert gen.verdict == "inconclusive"
    assert gen.low is not None and gen.high is not None and gen.low < 1 < gen.high
    assert gen.settle.startswith("about ")


def test_unverified_results_count_and_are_named() -> None:
    made = arms()
    doubted = Validity(verdict="unverified", unverified=["api_unverified"])
    results = [one.model_copy(update={"validity": doubted}) for one in made.b[0].results]
    b = [with_value(made.b[0], "results", results), *made.b[1:]]
    found = only(compare("build", 6, [Arms("", made.a, b)]))
    assert {effect.unverified for effect in found.effects} == {("api_unverified",)}
    assert verdicts(found) == {"faster"}


def test_nothing_is_tested_before_every_arm_of_the_entry_is_measured() -> None:
    whole, part = arms(), arms(repeats=5)
    for entry in ([part], [whole, part]):
        for outcome in compare("build", 6, entry):
            assert verdicts(outcome) == {"inconclusive"}
            assert all(e.p is None and e.ratio is not None for e in outcome.effects)
    assert not only(compare("build", 6, [part])).complete
    assert only(compare("build", 6, [Arms("", [], [])])).effects == ()


def test_all_arms_of_an_entry_are_one_family() -> None:
    alone = only(compare("build", 6, [arms()])).effects[0]
    both = compare("build", 6, [arms(), arms(1.2)])[0].effects[0]
    assert alone.adjusted_p is not None
    assert both.adjusted_p == 2 * alone.adjusted_p


# What does not count


def test_invalid_and_failed_records_are_left_out_by_name() -> None:
    made = arms(repeats=7)
    bad = cell("chat", 1, 1.0, valid=False)
    a = [*made.a[:-1], with_value(made.a[-1], "results", [bad, cell("agent", 4, 50.0)])]
    failed = with_value(made.b[0], "status", "failed")
    failed = with_value(failed, "failure", Failure(code="engine_died", message="it ended"))
    found = only(compare("build", 7, [Arms("", a, [failed, *made.b[1:]])]))
    told = [(one.arm, one.record, one.where, one.why) for one in found.left_out]
    assert ("A", "20261122-A6", "chat × 1", "INVALID: cached_tokens") in told
    assert ("B", "20261122-B0", "", "it ended") in told
    assert len(told) == 2
    sizes = {(e.shape, len(e.a), len(e.b)) for e in found.effects}
    assert sizes == {("chat", 6, 6), ("agent", 7, 6)}
    assert verdicts(found) == {"faster"}


def test_records_beyond_the_fixed_repeats_change_nothing() -> None:
    found = only(compare("build", 4, [arms(repeats=6)]))
    assert {(len(e.a), len(e.b)) for e in found.effects} == {(4, 4)}
    assert len(found.left_out) == 4
    assert "4 repeats that were fixed beforehand" in found.left_out[0].why


def test_other_texts_and_other_kinds_of_figures_are_not_mixed() -> None:
    made = arms()
    other = cell("chat", 1, 110.0, hash="ffff")
    derived = cell("agent", 4, 55.0, prefill_source="ttft_derived")
    b = [with_value(made.b[0], "results", [other, derived]), *made.b[1:]]
    found = only(compare("build", 6, [Arms("", made.a, b)]))
    assert [one.why for one in found.left_out] == ["another text under the same shape name"]
    of_agent = {e.metric: e.verdict for e in found.effects if e.shape == "agent"}
    assert of_agent == {
        "output_tok_per_s": "faster", "prefill_tok_per_s": "not_comparable", "ttft_s": "faster",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "changed", "reason", "keys"),
    [
        (
            "build",
            {"backend__api": "vulkan"},
            "the arms differ in more than build: API",
            ["backend.api"],
        ),
        (
            "build",
            {"rig__kernel": "7.1", "rig__os": "x"},
            "the arms differ in more than build: os, kernel",
            ["rig.os", "rig.kernel"],
        ),
        ("quant", {}, "the arms differ in more than quant: build", ["backend.build"]),
        ("build", {"backend__build": "b9174"}, "the records show no difference in build", []),
    ],
)
def test_arms_that_differ_in_something_else_are_not_compared(
    axis: Any, changed: dict[str, Any], reason: str, keys: list[str]
) -> None:
    found = only(compare(axis, 6, [arms(**changed)]))
    assert (found.reason, found.effects) == (reason, ())
    assert [entry.key for entry in found.differing] == keys


def test_an_arm_that_changed_under_way_is_not_compared() -> None:
    made = arms()
    b = [*made.b[:3], *(with_value(one, "rig.kernel", "7.1") for one in made.b[3:])]
    found = only(compare("build", 6, [Arms("", made.a, b)]))
    assert found.reason == (
        "arm B is not one configuration: kernel changed from 20261122-B0 to 20261122-B3"
    )
    assert [(e.key, e.a, e.b) for e in found.differing] == [("rig.kernel", "7.0.0", "7.1")]


def test_a_power_cap_is_seen_in_the_cards_limit() -> None:
    made = arms(0.8, backend__build="b9174")
    gpu = measured().rig.gpus[0].model_copy(update={"power_limit_w": 200.0})
    b = [with_value(one, "rig.gpus", [gpu]) for one in made.b]
    found = only(compare("power_cap_w", 6, [Arms("", made.a, b)]))
    assert (found.reason, verdicts(found)) == ("", {"slower"})


def test_plain_data_for_machines() -> None:
    outcome = only(compare("build", 6, [arms()]))
    data = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert data["complete"] is True
    assert data["effects"][0]["p"] == pytest.approx(2 / 924)
    assert data["effects"][0]["verdict"] == "faster"
