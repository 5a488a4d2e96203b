"""Rates of a load that was kept up, and why they fell: from answers and looks that are known."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig import naming
from tokrig.errors import StoreError
from tokrig.probes import Card
from tokrig.record.checks import Seen, judge
from tokrig.record.consistency import contradictions
from tokrig.record.loads import OverTime
from tokrig.record.model import Interference, Record, WorkloadFacts
from tokrig.record.samples import Cell, Sample
from tokrig.record.sustained import POINTS, edges, sustained, window_s
from tokrig.run.body import Body
from tokrig.run.client import Loop, Response
from tokrig.run.interference import Look, over_time
from tokrig.run.lasting import Lasting
from tokrig.run.monitor import MOST_LOOKS, Monitor
from tokrig.run.spool import Spool
from tokrig.site.charts.load import sustained_chart

TOKENS = 51


def load(
    seconds: float, gap_s: Callable[[float], float], *, workers: int = 2, ttft_s: float = 0.5
) -> list[Sample]:
    """Workers that send until the time is over; a token takes as long as ``gap_s`` says then."""

    def of(worker: int) -> Iterator[Sample]:
        at_s, number = 0.0, 0
        while at_s < seconds:
            gap = gap_s(at_s)
            one = sample(ttft_s=ttft_s, gap_s=gap, tokens=TOKENS)
            placed = replace(one, worker=worker, iteration=number, sent_ns=round(at_s * 1e9))
            yield replace(placed, concurrency=workers, load="sustained")
            at_s, number = at_s + ttft_s + (TOKENS - 1) * gap, number + 1

    return [one for worker in range(workers) for one in of(worker)]


def test_the_rates_are_those_of_the_first_and_of_the_last_minute() -> None:
    """1.5 s an answer before, 3 s after the fourth minute: 51 tokens of two workers each."""
    samples = load(300, lambda at_s: 0.02 if at_s < 230 else 0.05)
    found = sustained(samples, 300)
    assert found is not None
    assert found.tok_per_s_first == pytest.approx(2 * 51 / 1.5, rel=0.01)
    assert found.tok_per_s_last == pytest.approx(2 * 51 / 3, rel=0.02)
    assert found.last_over_first == pytest.approx(0.5, rel=0.02)
    assert (found.window_s, found.cause) == (60, "unknown")
    assert len(found.tok_per_s) == 120
    # No token is lost, but those that came when the time was over.
    inside = sum(s.sent_ns + c.t_ns < 300e9 for s in samples for c in s.chunks)
    assert sum(found.tok_per_s) * found.point_s == pytest.approx(inside, rel=1e-4)


def test_the_first_window_begins_when_all_workers_have_a_token() -> None:
    """A prompt that takes long is no slow start of the engine."""
    samples = load(60, lambda _: 0.02, ttft_s=0.5)
    late = [
        replace(s, sent_ns=s.sent_ns + 20_000_000_000) if s.worker == 1 else s
        for s in samples
        if s.worker == 0 or s.sent_ns < 40e9
    ]
    found = sustained(late, 60)
    assert found is not None
    assert found.last_over_first == pytest.approx(1.0, abs=0.03)
    alone, both = sum(found.tok_per_s[:12]), sum(found.tok_per_s[30:42])
    assert alone == pytest.approx(both / 2, rel=0.05)


@pytest.mark.parametrize("seconds", [1.0, 7.5, 60.0, 179.0, 180.0, 600.0, 86400.0])
def test_points_and_windows_are_bounded(seconds: float) -> None:
    bounds = edges(seconds)
    assert (bounds[0], bounds[-1]) == (0, seconds)
    assert len(bounds) - 1 <= POINTS
    assert all(b > a for a, b in pairwise(bounds))
    assert window_s(seconds) == (60 if seconds >= 180 else pytest.approx(seconds / 6, rel=1e-4))


def test_what_was_not_counted_has_no_rate() -> None:
    samples = load(10, lambda _: 0.02)
    assert sustained([replace(samples[0], output_tokens=None), *samples[1:]], 10) is None
    assert sustained([replace(s, error="timeout") for s in samples], 10) is None


# Why


def looks(clock: Callable[[int], float], **more: Any) -> list[Look]:
    """A look a second, of a card at a clock."""
    return [
        Look(
            at_s=1000.0 + second,
            cards={"0": Card("0", clock_mhz=clock(second), temperature_c=60 + second / 10, **more)},
            cpu_mhz=3000.0,
            cpu_temperature_c=50.0,
        )
        for second in range(-1, 302)
    ]


def hot(second: int) -> float:
    return 1800.0 if second < 200 else 1500.0


@pytest.mark.parametrize(
    ("clock", "gap", "reasons", "cause"),
    [
        (hot, 0.02, ("sw_thermal_slowdown",), "heat"),
        (hot, 0.02, ("sw_power_cap",), "power_limit"),
        (hot, 0.02, ("hw_slowdown",), "slowdown"),
        (hot, 0.02, (), "clocks_fell"),
        (hot, 0.02, None, "clocks_fell"),
        (lambda _: 1800.0, 0.03, ("sw_power_cap",), "same_clocks"),
        (lambda _: 1800.0, 0.02, ("sw_power_cap",), None),
    ],
)
def test_the_cause_is_what_held_the_clocks_down(
    clock: Callable[[int], float], gap: float, reasons: tuple[str, ...] | None, cause: str | None
) -> None:
    seen = over_time(looks(clock, reasons=reasons), ["0"], 1000.0, edges(300), window_s(300))
    found = sustained(load(300, lambda at_s: 0.02 if at_s < 200 else gap), 300, seen)
    assert found is not None
    assert found.cause == cause
    assert len(seen.gpu_clock_mhz) == len(found.tok_per_s) == 120
    assert found.clock_last_over_first == pytest.approx(clock(250) / clock(10), rel=1e-4)
    assert "{" not in " ".join(naming.sustained_lines(found))


def test_on_a_processor_its_own_clock_heat_and_energy_count() -> None:
    seen = over_time(
        [
            Look(
                at_s=second,
                cpu_mhz=4000.0 if second < 40 else 3000.0,
                cpu_temperature_c=70.0 + second / 10,
                cpu_throttles=5 + max(0, second - 40),
                package_j=65.0 * second,
            )
            for second in range(61)
        ],
        [],
        0.0,
        edges(60),
        window_s(60),
    )
    assert seen.gpu_clock_mhz == []
    assert (seen.cpu_clock_mhz[0], seen.cpu_clock_mhz[-1]) == (4000, 3000)
    assert (seen.temperature_c[-1], seen.power_w[30]) == (75.9, 65)
    assert seen.reasons == ["thermal"]
    found = sustained(load(60, lambda _: 0.02), 60, seen)
    assert found and found.cause == "heat"


def test_where_nobody_tells_anything_nothing_is_said() -> None:
    seen = over_time([Look(at_s=s) for s in range(61)], [], 0.0, edges(60), 10.0)
    assert seen == OverTime()


# The record


def recorded(seconds: float = 60.0) -> tuple[Record, list[Sample]]:
    samples = load(seconds, lambda at_s: 0.02 if at_s < 45 else 0.03)
    record = record_of(samples)
    result = record.results[0].model_copy(
        update={"load": "sustained", "sustained": sustained(samples, seconds)}
    )
    return record.model_copy(update={"results": [result]}), samples


def test_check_computes_the_rates_again() -> None:
    record, samples = recorded()
    assert contradictions(record, samples) == []
    told = record.results[0].sustained
    assert told is not None
    slips: list[dict[str, Any]] = [
        {"tok_per_s_last": told.tok_per_s_first},
        {"cause": None},
        {"tok_per_s": [1.0, *told.tok_per_s[1:]]},
    ]
    for slip in slips:
        result = record.results[0].model_copy(update={"sustained": told.model_copy(update=slip)})
        found = contradictions(record.model_copy(update={"results": [result]}), samples)
        assert [one for one in found if next(iter(slip)) in str(one)]


def test_a_machine_that_throttles_is_what_it_is_to_find() -> None:
    _, samples = recorded()
    hot_card = Interference(throttle_reasons=["sw_thermal_slowdown"], throttled_share=0.4)
    shape = WorkloadFacts(name="chat", prompt_tokens=64, answer_tokens=TOKENS)
    lists = {
        kind: judge(
            samples, Seen(workload=shape, cell=Cell("chat", 2, load=kind), interference=hot_card)
        ).reasons
        for kind in ("closed", "sustained")
    }
    assert "throttled" in lists["closed"]
    assert "throttled" not in lists["sustained"]


# The monitor


def test_looks_are_bounded_and_gaps_between_them_are_not_hidden() -> None:
    monitor = Monitor([], list)
    with monitor.watching():
        begin = monitor._last_s
        for second in range(10 * MOST_LOOKS):
            monitor._keep(Look(at_s=begin + 1 + second, package_j=second))
        kept = monitor._looks
        assert MOST_LOOKS / 3 < len(kept) <= MOST_LOOKS
        assert kept[0].at_s <= begin
        assert kept[-1].at_s == begin + 10 * MOST_LOOKS
        assert monitor._widest_s == pytest.approx(1.0, abs=0.01)


# What is shown, and what ends it


def test_its_chart_has_a_panel_for_what_was_told_and_gaps_where_nothing_was() -> None:
    record, samples = recorded()
    clocks: list[float | None] = [1800.0] * 60
    clocks[30] = None
    seen = OverTime(gpu_clock_mhz=clocks)
    told = sustained(samples, 60.0, seen)
    chart = sustained_chart(record.results[0].model_copy(update={"sustained": told}))
    assert chart is not None
    assert chart.columns == ("from, s", "system tok/s", "GPU clock, MHz")
    assert (len(chart.rows), chart.rows[30][2]) == (60, "–")
    assert chart.drawing.parts.count("<path") == 1 + 2
    assert sustained_chart(record.results[0].model_copy(update={"sustained": None})) is None


def test_a_load_lasts_its_time_or_until_it_is_ended(tmp_path: Path) -> None:
    load = Lasting(2, 10.0, tmp_path)([b"0", b"1", b"2", b"3"])
    assert (load.next(0, 0), load.next(1, 0)) == ((0, b"0"), (1, b"1"))
    with load.going_on():
        assert load.next(0, 4_000_000_000) == (2, b"2")
        signal.raise_signal(signal.SIGTERM)
        assert load.ends
        # Nothing is sent any more, and the time is that of the first worker that rests.
        assert load.next(1, 5_500_000_000) is None
        assert load.next(0, 6_000_000_000) is None
    assert load.seconds == 5.5
    whole = Lasting(1, 10.0, tmp_path)([b"0", b"1"])
    with whole.going_on(may_end=False):
        assert whole.next(0, 9_999_999_999) == (0, b"0")
        assert whole.next(0, 10_000_000_000) is None
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert whole.seconds == 10


def test_a_second_signal_interrupts(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    load = Lasting(1, 10.0, tmp_path)([b"0"])
    with load.going_on():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_comes_back_waits_on_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    pieces = Body([(10, b"data: 1\n\n"), (20, b"data: 2\n\n")])
    came = [Response(n, 0, n, n + 5, 200, {"a": "b"}, pieces) for n in (1, 0)]
    for one in came:
        spool.append(one)
    assert len(spool) == 2
    for _ in range(2):
        assert [r.index for r in spool] == [1, 0]
    assert [list(r.pieces) for r in Loop([], 1.0, 0.1, spool=spool).taken()] == [list(pieces)] * 2
    spool.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="cannot be kept"):
        Spool(tmp_path / "no such folder")
