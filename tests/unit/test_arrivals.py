"""When requests arrive: as many as asked, spread as asked, the same for the same seed."""

from __future__ import annotations

import json
import re
import statistics
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokrig.cli.campaign_text import shapes
from tokrig.cli.run import ARRIVALS
from tokrig.errors import SpecError
from tokrig.plan import PlanInputs, Run, run_spec
from tokrig.plan.expand import key_before
from tokrig.plan.order import plan
from tokrig.run.arrivals import due_times
from tokrig.spec.arrivals import Arrival, rate_ends, refusals
from tokrig.spec.campaign import load_campaign
from tokrig.spec.run import RunSpec, merge


def spread(due_s: list[float]) -> float:
    """The coefficient of variation of the intervals."""
    gaps = [after - before for before, after in pairwise(due_s)]
    return statistics.stdev(gaps) / statistics.mean(gaps)


@settings(max_examples=60)
@given(
    arrival=st.sampled_from(["poisson", "constant", "gamma"]),
    rate=st.floats(0.1, 200),
    lasts_s=st.floats(1, 60),
    seed=st.integers(0, 2**31 - 1),
    shape=st.floats(0.1, 20),
)
def test_as_many_arrive_as_asked_in_order_and_in_time(
    arrival: Arrival, rate: float, lasts_s: float, seed: int, shape: float
) -> None:
    due_s = due_times(arrival, (rate, rate), lasts_s, seed, shape)
    assert len(due_s) == round(rate * lasts_s)
    assert all(before <= after for before, after in pairwise(due_s))
    assert all(0 <= due < lasts_s * (1 + 1e-9) for due in due_s)
    assert due_s == due_times(arrival, (rate, rate), lasts_s, seed, shape)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("arrival", "shape", "expected"),
    [
        ("constant", None, 0.0),
        ("poisson", None, 1.0),
        ("gamma", 0.25, 2.0),
        ("gamma", 4.0, 0.5),
        ("gamma", 1.0, 1.0),
        ("gamma", 100.0, 0.1),
    ],
)
def test_the_spread_of_the_intervals(
    arrival: Arrival, shape: float | None, expected: float, seed: int
) -> None:
    due_s = due_times(arrival, (100.0, 100.0), 200.0, seed, shape)
    assert spread(due_s) == pytest.approx(expected, rel=0.05, abs=1e-9)


def test_a_seed_has_one_pattern_at_every_rate() -> None:
    """The first intervals of the same seed, in units of the mean, are the same."""
    slow, fast = (due_times("poisson", (rate, rate), 100.0, 7) for rate in (1.0, 8.0))
    pairs = zip(pairwise(slow), pairwise(fast), strict=False)
    ratios = [(b - a) / (d - c) for (a, b), (c, d) in pairs]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert ratios[0] == pytest.approx(8.0, rel=0.15)
    assert slow != due_times("poisson", (1.0, 1.0), 100.0, 8)


def test_the_numbers_themselves_do_not_change() -> None:
    """They are in records of the past."""
    assert due_times("poisson", (2.0, 2.0), 4.0, 1) == pytest.approx(PINNED["poisson"])
    assert due_times("gamma", (2.0, 2.0), 4.0, 1, 0.5) == pytest.approx(PINNED["gamma"])


PINNED: dict[str, list[float]] = {
    "poisson": [
        *(0.41755048824, 0.44922329311, 1.65667519670, 1.68953911638),
        *(2.41600017006, 2.95189515740, 3.06978383314, 3.62683859591),
    ],
    "gamma": [
        *(0.65829167942, 1.00316593463, 1.67467721455, 1.85894298200),
        *(1.91208698979, 3.04994362465, 3.68630586605, 3.71903598957),
    ],
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_ramp_grows_evenly(seed: int) -> None:
    due_s = due_times("ramp", (10.0, 50.0), 100.0, seed)
    assert len(due_s) == 3000
    # 10 to 30 a second in the first half, 30 to 50 in the second.
    assert sum(due < 50 for due in due_s) == pytest.approx(1000, rel=0.1)
    falling = due_times("ramp", (50.0, 10.0), 100.0, seed)
    assert sum(due < 50 for due in falling) == pytest.approx(2000, rel=0.1)


def test_every_arrival_is_a_load_of_its_own() -> None:
    from tokrig.record.samples import Load

    assert set(get_args(Arrival)) < set(get_args(Load))
    assert get_args(Arrival) == ARRIVALS


# What is asked


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ("2/s", [(2, 2)]),
        (2, [(2, 2)]),
        ("30/min", [(0.5, 0.5)]),
        ("7200 / h", [(2, 2)]),
        (["1", "1..4/s"], [(1, 1), (1, 4)]),
        ("0-4/s", [(0, 4)]),
    ],
)
def test_a_rate_has_a_unit(given: object, rates: list[tuple[float, float]]) -> None:
    spec = merge(RunSpec(), {"rate": given})
    assert [rate_ends(one) for one in spec.rate or []] == rates
    assert merge(RunSpec(), spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rate": "2/day"}, r"^--rate: should be a rate such as 2/s"),
        ({"rate": "fast"}, r"^--rate: should be a rate such as 2/s"),
        ({"rate": "0/s"}, r"^--rate: should be above 0 and at most 10,000/s"),
        ({"rate": "20000/s"}, r"^--rate: should be above 0 and at most 10,000/s"),
        ({"rate": ["2/s", "120/min"]}, r"^--rate: '2/s' is named twice"),
        ({"slo": "ttft=0.5"}, r"^--slo: ttft=0.5 has no unit: write ttft=0.5s or ttft=0.5ms"),
        ({"slo": "tft=1s"}, r"^--slo: 'tft' is no limit: did you mean 'ttft'"),
        ({"slo": "ttft=1 parsec"}, r"^--slo: ttft: should be a time with its unit"),
        ({"slo": "ttft=1s,ttft=2s"}, r"^--slo: 'ttft' is named twice"),
        ({"slo": "ttft=0s"}, r"^--slo: ttft: should be above 0"),
        ({"duration_s": "60"}, r"^--duration: should be a time with its unit"),
        ({"burstiness": 0}, r"^--burstiness: should be"),
        ({"arrival": "uniform"}, r"^--arrival: should be"),
    ],
)
def test_what_cannot_be_read_is_one_message(given: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=why) as caught:
        merge(RunSpec(), given)
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"slo": "ttft=1s"}, "--slo: this belongs to requests that arrive"),
        ({"rate": 1, "concurrency": [1, 4]}, "one number"),
        ({"rate": 1, "arrival": "gamma"}, "--arrival gamma and --burstiness belong together"),
        ({"rate": 1, "burstiness": 2}, "--arrival gamma and --burstiness belong together"),
        ({"rate": 1, "arrival": "ramp"}, "a ramp goes from one rate to another"),
        ({"rate": "1-2/s"}, "a ramp goes from one rate to another"),
        ({"find_rate": True}, "the highest rate that meets an SLO"),
        ({"find_rate": True, "slo": "e2e=1s", "rate": [1, 2]}, "begins at one rate"),
        ({"rate": 1, "duration_s": "5s", "warm_up_window_s": "5s"}, "nothing is left"),
        ({"rate": 1000, "duration_s": "1h"}, "3,600,000 requests at 1000/s for 3600 s"),
        ({"trace": "t.csv", "arrival": "poisson"}, "with it there is no --arrival"),
        ({"trace": "t.csv", "rate": [1, 2]}, "--trace takes one --rate"),
    ],
)
def test_what_does_not_go_together(given: dict[str, object], why: str) -> None:
    found = [
        message for wrong, message, hint in refusals(merge(RunSpec(), given)) if wrong and hint
    ]
    assert any(why in message for message in found), found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"rate": 2},
        {"rate": [1, 2], "arrival": "constant", "concurrency": [8]},
        {"rate": 1, "arrival": "gamma", "burstiness": 0.5, "slo": "ttft=1s"},
        {"rate": "1-4/s", "arrival": "ramp", "warm_up_window_s": 0},
        {"find_rate": True, "slo": "ttft=1s", "rate": 0.5},
        {"trace": "t.csv", "rate": 2, "duration_s": "10m"},
    ],
)
def test_what_does(given: dict[str, object]) -> None:
    assert not [message for wrong, message, _ in refusals(merge(RunSpec(), given)) if wrong]


# In a campaign


def planned(folder: Path, entry: dict[str, object]) -> list[Run]:
    matrix = {"model": "a.gguf", "backend": "embedded"}
    told = {"name": "e", "title": "E", **entry, "matrix": {**matrix, **entry.get("matrix", {})}}  # type: ignore[dict-item]
    path = folder / "t.yaml"
    path.write_text(json.dumps({"title": "T", "rig": "desktop", "entries": [told]}), "utf-8")
    return [p.run for p in plan([load_campaign(path)], PlanInputs(here="desktop")).runs]


def test_a_campaign_plans_rates_and_no_other_key_changes(tmp_path: Path) -> None:
    [plain] = planned(tmp_path, {})
    [run] = planned(
        tmp_path,
        {
            "matrix": {"rate": [1, "2/s"]},
            "set": {"arrival": "constant", "duration_s": "2m", "slo": "ttft=1s"},
        },
    )
    spec = run_spec(run)
    assert (spec.rate, spec.arrival, spec.duration_s) == (["1/s", "2/s"], "constant", 120.0)
    assert (spec.slo, run.workloads) == ({"ttft": 1.0}, ("chat",))
    assert shapes(run) == "chat, 1/s, 2/s"
    assert run.key != plain.key
    assert (key_before(run), bool(key_before(plain))) == ("", True)
    assert planned(tmp_path, {})[0].key == plain.key


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"set": {"slo": "ttft=1s"}}, "t.yaml:1: entry 'e': --slo: this belongs to requests"),
        ({"matrix": {"rate": "1/s"}, "set": {"arrival": "gamma"}}, "belong together"),
        ({"matrix": {"rate": "1/day"}}, "should be a rate such as 2/s"),
        ({"matrix": {"rate": "1/s"}, "exclude": [{"rate": "1/s"}]}, "rate is measured inside"),
    ],
)
def test_what_a_campaign_cannot_ask(tmp_path: Path, entry: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=re.escape(why)):
        planned(tmp_path, entry)
