"""Figures of requests that arrive by themselves, on queues of which everything is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record import consistency
from tokrig.record.loads import Arrivals, OpenLoop, Slo
from tokrig.record.metrics import figures
from tokrig.record.model import Result
from tokrig.record.samples import EngineTimings, Load, Sample

TTFT_S, GAP_S, TOKENS = 0.1, 0.005, 21
SERVICE_S = TTFT_S + (TOKENS - 1) * GAP_S
LASTS_S, WARM_S = 30.0, 5.0


def asked(**limits: float) -> Arrivals:
    slo = Slo(**limits) if limits else None
    return Arrivals(duration_s=LASTS_S, warm_up_window_s=WARM_S, slo=slo)


def queue(rate: float, *, slots: int = 1, lag_s: float = 0.0, load: Load = "constant") -> list[Any]:
    """What a server with so many slots makes of even arrivals: each request takes ``SERVICE_S``
    from when a slot is free; those that find none wait."""
    free_s, found = [0.0] * slots, []
    for number in range(round(rate * LASTS_S)):
        due_s = number / rate
        sent_s = due_s + lag_s
        begins_s = max(sent_s, min(free_s))
        free_s[free_s.index(min(free_s))] = begins_s + SERVICE_S
        found.append(
            sample(
                ttft_s=begins_s - sent_s + TTFT_S,
                gap_s=GAP_S,
                tokens=TOKENS,
                load=load,
                rate_per_s=rate,
                concurrency=slots,
                iteration=number,
                phase="measured" if due_s >= WARM_S else "warmup",
                sent_ns=round(sent_s * 1e9),
                due_ns=round(due_s * 1e9),
                connect_ns=50_000,
                timings=EngineTimings(64, 90.0, TOKENS, (TOKENS - 1) * GAP_S * 1e3),
            )
        )
    return found


def block(samples: list[Sample], **limits: float) -> OpenLoop:
    found = figures(samples, arrivals=asked(**limits))["open_loop"]
    assert isinstance(found, OpenLoop)
    return found


def test_below_capacity_nobody_waits() -> None:
    """Half of what the server can do: TTFT from due is the server's own."""
    found = block(queue(2.5), ttft_s=0.101)
    assert found.ttft_s is not None and found.latency_s is not None and found.tpot_s is not None
    assert found.ttft_s.p50 == pytest.approx(TTFT_S)
    assert found.ttft_s.max == pytest.approx(TTFT_S)
    assert found.latency_s.p50 == pytest.approx(SERVICE_S)
    assert found.tpot_s.p50 == pytest.approx(GAP_S)
    assert found.sent_per_s == pytest.approx(2.5, rel=0.02)
    assert found.in_flight_max == 1
    assert found.completed_per_s == pytest.approx(2.5, rel=0.02)
    assert (found.overloaded, found.unfinished, found.goodput_share) == (False, 0, 1.0)
    assert found.goodput_per_s == pytest.approx(2.5, rel=0.02)


def test_above_capacity_waiting_grows_linearly() -> None:
    """Twice as many as the server can do: the n-th request waits n × (service − interval)."""
    samples = queue(10.0)
    found = block(samples, ttft_s=10.0)
    waits = [TTFT_S + n * (SERVICE_S - 0.1) for n in range(50, 300)]
    assert found.ttft_s is not None
    assert found.ttft_s.p50 == pytest.approx(waits[125], rel=0.01)
    assert found.ttft_s.max == pytest.approx(waits[-1])
    assert found.overloaded
    assert found.completed_per_s == pytest.approx(5.0, rel=0.02)
    met = sum(wait <= 10.0 for wait in waits)
    assert found.goodput_share == pytest.approx(met / 250, abs=1e-4)
    assert found.goodput_per_s == pytest.approx(met / (LASTS_S - WARM_S), rel=1e-4)
    assert found.in_flight_max == pytest.approx(150, abs=2)


def test_slots_carry_more() -> None:
    found = block(queue(9.0, slots=2), ttft_s=0.101)
    assert (found.overloaded, found.goodput_share, found.in_flight_max) == (False, 1.0, 2)


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"ttft_s": 0.099}, 0.0),
        ({"ttft_s": 0.101, "tpot_s": 0.0049}, 0.0),
        ({"ttft_s": 0.101, "tpot_s": 0.0051}, 1.0),
        ({"e2e_s": SERVICE_S + 0.001}, 1.0),
        ({"e2e_s": SERVICE_S - 0.001}, 0.0),
        ({}, None),
    ],
)
def test_all_limits_have_to_be_met(limits: dict[str, float], share: float | None) -> None:
    assert block(queue(2.5), **limits).goodput_share == share


def test_latency_counts_from_when_it_was_due() -> None:
    """A client that is late makes no server look quick."""
    found = block(queue(2.5, lag_s=0.05))
    assert found.ttft_s is not None and found.lag_s is not None
    assert found.ttft_s.p50 == pytest.approx(TTFT_S + 0.05)
    assert found.lag_s.max == pytest.approx(0.05)


def test_a_request_that_failed_meets_nothing() -> None:
    samples = queue(2.5)
    failed = [replace(s, error="http_500") if s.iteration % 2 else s for s in samples]
    found = block(failed, ttft_s=1.0)
    assert found.goodput_share == pytest.approx(0.5, abs=0.02)
    assert not found.overloaded
    assert record(failed).validity.reasons == ["request_errors"]


@pytest.mark.parametrize("code", ["unfinished", "not_sent"])
def test_what_was_given_up_is_told_and_is_no_failure_of_the_server(code: str) -> None:
    samples = queue(2.5)
    samples[-3:] = [replace(s, error=code, chunks=()) for s in samples[-3:]]
    found = block(samples, ttft_s=1.0)
    assert (found.unfinished, found.overloaded) == (3, True)
    validity = record(samples).validity
    assert (validity.reasons, "overloaded" in validity.unverified) == ([], True)


def test_without_a_known_tpot_there_is_no_goodput_under_a_limit_of_it() -> None:
    samples = [replace(s, first_chunk_tokens=None) for s in queue(2.5)]
    assert block(samples, tpot_s=1.0).goodput_share is None
    assert block(samples, ttft_s=1.0).goodput_share == 1.0


def record(samples: list[Sample], **limits: float) -> Result:
    return record_of(samples, arrivals=asked(**limits)).results[0]


def test_a_late_client_is_the_limit() -> None:
    assert record(queue(2.5, lag_s=0.0009)).validity.reasons == []
    assert record(queue(2.5, lag_s=0.003)).validity.reasons == ["client_bound"]
    connecting = [replace(s, connect_ns=2_000_000) for s in queue(2.5, lag_s=0.002)]
    assert record(connecting).validity.reasons == []


@pytest.mark.parametrize("rate", [2.5, 10.0])
def test_an_honest_record_holds(rate: float) -> None:
    samples = queue(rate)
    made = record_of(samples, arrivals=asked(ttft_s=1.0))
    assert [str(one) for one in consistency.contradictions(made, samples)] == []
    result = made.results[0]
    assert result.cell.label == f"chat, constant {rate:g}/s"
    assert result.requests == sum(s.phase == "measured" for s in samples)


@pytest.mark.parametrize(
    ("field", "value"),
    [("goodput_share", 1.0), ("overloaded", False), ("completed_per_s", 10.0)],
)
def test_a_figure_that_was_edited_is_found(field: str, value: object) -> None:
    samples = queue(10.0)
    made = record_of(samples, arrivals=asked(ttft_s=1.0))
    result = made.results[0]
    assert result.open_loop is not None
    changed = result.open_loop.model_copy(update={field: value})
    edited = made.model_copy(update={"results": [result.model_copy(update={"open_loop": changed})]})
    found = [str(one) for one in consistency.contradictions(edited, samples)]
    assert any(f"open_loop.{field}" in one for one in found), found


def test_a_changed_slo_is_found() -> None:
    samples = queue(10.0)
    made = record_of(samples, arrivals=asked(ttft_s=1.0))
    edited = made.model_copy(
        update={"results": [made.results[0].model_copy(update={"arrivals": asked(ttft_s=20.0)})]}
    )
    assert any("goodput" in str(one) for one in consistency.contradictions(edited, samples))
