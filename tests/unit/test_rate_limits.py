"""The search for the highest rate, on servers whose limit is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.records import record_of
from tests.unit.test_open_loop import asked, queue
from tokrig.record import checks, consistency
from tokrig.record.loads import Arrivals
from tokrig.record.model import Record
from tokrig.record.rate_limits import MOST_PROBES, NEAR, limits, next_rate, rate_limits
from tokrig.record.samples import Cell
from tokrig.run import open_loop
from tokrig.run.open_loop import probes


def search(limit: float, first: float) -> dict[float, bool]:
    """What a server gives that meets the SLO up to a rate and no further."""
    probed: dict[float, bool] = {}
    while (rate := next_rate(probed, first)) is not None:
        assert rate not in probed
        probed[rate] = rate <= limit
    return probed


@given(st.floats(0.05, 500), st.floats(0.1, 20))
def test_it_ends_and_brackets_the_limit(limit: float, first: float) -> None:
    probed = search(limit, first)
    assert len(probed) <= MOST_PROBES
    low, high = limits(probed)
    if low is not None:
        assert low <= limit * (1 + 1e-9)
    if high is not None:
        assert high > limit
    if low is not None and high is not None and len(probed) < MOST_PROBES:
        assert high <= low * NEAR * 1.001
    if low is None:
        assert high == pytest.approx(first / 32)
        assert limit < first / 32


def test_the_same_answers_lead_the_same_way() -> None:
    """Two runs try the same rates, so that their results can be laid beside each other."""
    assert list(search(3.1, 1.0)) == list(search(3.1, 1.0))
    assert list(search(3.1, 1.0))[:4] == [1.0, 2.0, 4.0, pytest.approx(math.sqrt(8), rel=1e-3)]


def test_a_server_that_is_too_slow_for_any_is_given_up() -> None:
    assert search(0.0, 1.0) == dict.fromkeys([1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125], False)


def test_a_rate_that_met_it_above_one_that_did_not_counts_for_nothing() -> None:
    assert limits({1.0: True, 2.0: False, 4.0: True}) == (1.0, 2.0)
    assert limits({2.0: False, 4.0: True}) == (None, 2.0)


def probed(*rates: float, **slo: float) -> tuple[Record, list[object]]:
    """A record of several rates on a queue whose capacity is 5/s."""
    samples = {rate: queue(rate) for rate in rates}
    made = [record_of(of, arrivals=asked(**slo)) for of in samples.values()]
    results = [result for one in made for result in one.results]
    whole = made[0].model_copy(
        update={
            "results": results,
            "rate_limits": rate_limits(results),
            "validity": checks.judge_run(results, complete=True),
        }
    )
    return whole, [s for of in samples.values() for s in of]


def test_a_record_tells_it_and_check_holds_it() -> None:
    whole, samples = probed(2.5, 4.0, 10.0, ttft_s=0.2)
    [found] = whole.rate_limits
    assert (found.rate_per_s, found.missed_per_s, found.rates) == (4.0, 10.0, 3)
    assert [str(one) for one in consistency.contradictions(whole, samples)] == []  # type: ignore[arg-type]
    # That it falls behind at 10/s is what was found, and no doubt about the run.
    assert "overloaded" in whole.results[2].validity.unverified
    assert "overloaded" not in whole.validity.unverified


@pytest.mark.parametrize("change", [{"rate_per_s": 10.0}, {"missed_per_s": None}, {"rates": 9}])
def test_another_rate_is_found_by_check(change: dict[str, object]) -> None:
    whole, _ = probed(2.5, 4.0, 10.0, ttft_s=0.2)
    edited = [whole.rate_limits[0].model_copy(update=change)]
    for limits_ in (edited, [], [*whole.rate_limits, *whole.rate_limits]):
        wrong = whole.model_copy(update={"rate_limits": limits_})
        assert any("rate_limits" in str(one) for one in consistency.broken_ties(wrong))


def test_further_repeats_measure_the_rates_next_to_the_limit() -> None:
    load = Cell("chat", 4, load="poisson", rate_per_s=1.0)
    known: dict[float, bool] = {}
    tried = []
    for cell in probes(load, 0, lambda: known, 100.0):
        assert cell.rate_per_s is not None
        tried.append(cell.rate_per_s)
        known[cell.rate_per_s] = cell.rate_per_s <= 3.1
    assert tried[:3] == [1.0, 2.0, 4.0]
    again = [cell.rate_per_s for cell in probes(load, 1, lambda: known, 100.0)]
    assert again == list(limits(known))
    assert again == [pytest.approx(3.1, rel=NEAR - 1), pytest.approx(3.1, rel=NEAR - 1)]


def test_a_search_ends_where_answers_could_not_be_kept() -> None:
    load = Cell("chat", 4, load="poisson", rate_per_s=1.0)
    known: dict[float, bool] = {}
    for cell in probes(load, 0, lambda: known, 5.0):
        known[cell.rate_per_s or 0] = True
    assert list(known) == [1.0, 2.0, 4.0]


def test_probes_beside_the_limit_need_no_further_repeats() -> None:
    whole, _ = probed(2.5, 4.0, 10.0, ttft_s=0.2)
    standard = whole.provenance.model_copy(update={"level": "standard"})
    record = whole.model_copy(update={"provenance": standard})
    assert not [c for c in consistency.broken_ties(record) if c.rule == "level"]
    alone = record.model_copy(update={"rate_limits": []})
    assert [c for c in consistency.broken_ties(alone) if c.rule == "level"]


def test_a_lost_server_is_waited_for_so_long_and_no_longer() -> None:
    arrive = open_loop.Arrive(asked(), [0.0, 1.0])
    source = arrive([b"a", b"b"])
    assert (source.most, source.until_ns) == (1000, (30 + 60) * 1e9)
    assert (source.gives_up(0, 999), source.due_ns()) == (False, 0)
    assert (source.gives_up(0, 1000), source.due_ns()) == (False, None)
    assert source.gives_up(91 * 10**9, 1)
    longer = open_loop.Arrive(Arrivals(duration_s=600, warm_up_window_s=100), [0.0])
    assert longer([b"a"]).until_ns == 1200 * 1e9


def test_a_server_that_falls_behind_at_every_rate_is_doubted() -> None:
    whole, _ = probed(10.0, 12.0, ttft_s=0.2)
    assert whole.rate_limits[0].rate_per_s is None
    assert "overloaded" in whole.validity.unverified


def test_without_an_slo_there_is_no_limit() -> None:
    assert probed(2.5, 4.0)[0].rate_limits == []
