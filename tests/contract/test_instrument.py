"""The measuring client measured: the report's figures mean what they say."""

from __future__ import annotations

import dataclasses
import time
from array import array
from pathlib import Path

import numpy as np
import pytest

from tokrig.errors import EngineDied, InputError
from tokrig.record.samples import Chunks
from tokrig.run import instrument
from tokrig.run.answer import Answer, read_answer
from tokrig.run.ceiling import Ceiling, measured_here
from tokrig.run.client import Loop, closed_loop
from tokrig.run.instrument import InstrumentReport, Load, Spread, climb, measure


def test_many_streams() -> None:
    report = measure(Load(streams=8, tokens=100, interval_s=0.002))
    assert (report.streams, report.tokens, report.interval_s) == (8, 100, 0.002)
    # No stamp may come long before its token was sent, and none much later: wide limits, for
    # other programs may hold both processes up.
    assert 0 < report.error_s.p50 < 0.5
    assert report.error_s.p50 <= (report.error_s.p95 or 0) <= (report.error_s.p99 or 0)
    assert (report.error_s.p99 or 0) <= report.error_s.max
    assert 0 < report.ttft_error_s.p50 < 0.5
    assert 0 <= report.server_late_s.p50 <= report.server_late_s.max
    assert set(report.icl_error_s) == {"p50", "p90", "p95", "p99"}
    assert 0 <= report.coalesced_share <= 1
    assert 0 < report.client_cpu_share <= 1.5
    assert report.client_us_per_token == pytest.approx(
        report.receive_us_per_token + report.decode_us_per_token
    )
    # 4,000 a second are due; a server that was held up catches up.
    assert 100 < report.tok_per_s < 8_000


def test_one_stream_has_too_few_tokens_for_p99() -> None:
    report = measure(Load(streams=1, tokens=140, interval_s=0.002))
    assert report.error_s.p95 is not None
    assert report.error_s.p99 is None
    assert "p99" not in report.icl_error_s


def later(answer: Answer, shift_ns: int, last_ns: int = 0) -> Answer:
    """The same with its stamps later, the last one by ``last_ns`` more."""
    chunks = answer.chunks
    stamps = array("q", [stamp + shift_ns for stamp in chunks.stamps_ns])
    stamps[-1] += last_ns
    return dataclasses.replace(
        answer, chunks=Chunks(stamps, chunks.kinds, chunks.text, chunks.ends)
    )


def test_a_client_that_stamps_late_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        instrument, "read_answer", lambda *args: later(read_answer(*args), 40_000_000)
    )
    report = measure(Load(streams=2, tokens=20, interval_s=0.002))
    assert 0.04 < report.error_s.p50 < 0.5
    assert 0.04 < report.ttft_error_s.p50 < 0.5


def test_a_client_whose_clock_runs_on_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last stamp is as late as all the stream took: every mean is twice as long."""
    monkeypatch.setattr(
        instrument, "read_answer", lambda *args: later(read_answer(*args), 0, 38_000_000)
    )
    report = measure(Load(streams=2, tokens=20, interval_s=0.002))
    assert 0.05 < report.tpot_off < 1.3
    assert 0.05 < report.itl_mean_off < 1.3
    assert any("mean gap off" in words for words in report.untrue)


def test_coalesced_tokens_are_counted() -> None:
    stamps = np.array([[1, 1, 2, 3, 3, 3, 4], [5, 6, 7, 8, 9, 10, 10]])
    assert instrument.coalesced(stamps) == 5 + 2


@pytest.mark.parametrize(("streams", "tokens", "interval_s"), [(0, 9, 1), (1, 1, 1), (1, 9, 0)])
def test_figures_that_are_no_load(streams: int, tokens: int, interval_s: float) -> None:
    with pytest.raises(InputError, match="cannot measure"):
        Load(streams, interval_s, tokens)


def test_a_server_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    real = closed_loop

    def cut(*args: object, **options: object) -> Loop:
        loop: Loop = real(*args, **options)  # type: ignore[arg-type]
        loop.responses[0] = dataclasses.replace(
            loop.responses[0], pieces=list(loop.responses[0].pieces)[:5]
        )
        return loop

    monkeypatch.setattr(instrument, "closed_loop", cut)
    with pytest.raises(EngineDied, match="broke after"):
        measure(Load(1, 0.001, 20))


def test_the_server_keeps_its_pace() -> None:
    began = time.monotonic()
    report = measure(Load(streams=4, tokens=50, interval_s=0.004))
    assert time.monotonic() - began >= 0.19
    assert 100 < report.tok_per_s < 1_050


# The rate up to which it is true.


def measured(load: Load, **changes: object) -> InstrumentReport:
    none = Spread(0.0, 0.0, 0.0, 0.0)
    report = InstrumentReport(
        streams=load.streams,
        tokens=load.tokens,
        interval_s=load.interval_s,
        error_s=none,
        ttft_error_s=none,
        server_late_s=none,
        tpot_off=0.0,
        itl_mean_off=0.0,
        icl_error_s={"p50": 0.0, "p99": 0.0},
        coalesced_share=0.0,
        receive_us_per_token=9.0,
        decode_us_per_token=1.0,
        client_cpu_share=0.1,
        client_late_share=0.0,
        tok_per_s=0.99 * load.tok_per_s,
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"icl_error_s": {"p99": 0.0011}}, "p99 of the gaps"),
        ({"icl_error_s": {"p99": -0.0011}}, "p99 of the gaps"),
        ({"itl_mean_off": -0.011}, "mean gap"),
        ({"client_late_share": 0.011}, "long rounds"),
        ({"client_cpu_share": 0.81}, "of a core"),
    ],
)
def test_why_a_client_is_not_true(changes: dict[str, object], reason: str) -> None:
    load = Load(1, 0.01, 100)
    assert measured(load).untrue == []
    untrue = measured(load, **changes).untrue
    assert len(untrue) == 1
    assert reason in untrue[0]


def test_the_ladder_ends_where_the_client_does() -> None:
    tried: list[float] = []

    def one(load: Load) -> InstrumentReport:
        tried.append(round(load.tok_per_s))
        # The rung of 2,000 is disturbed once, that of 8,000 is too much.
        bad = load.tok_per_s > 5_000 or len(tried) == 1
        return measured(load, client_late_share=0.5 if bad else 0.0)

    found = [reach for _, reach in climb(one, (2_000, 4_000, 8_000, 16_000), 0.1)]
    assert tried == [2_000, 2_000, 4_000, 8_000, 8_000, 8_000]
    assert found[-1].tok_per_s == pytest.approx(3_960)
    assert not found[-1].at_least
    assert "long rounds" in found[-1].limit


def test_where_the_server_gives_out_more_may_be_possible() -> None:
    def one(load: Load) -> InstrumentReport:
        return measured(load, tok_per_s=min(load.tok_per_s, 5_000.0))

    *_, (_, reach) = climb(one, (2_000, 4_000, 8_000), 0.1)
    assert reach.tok_per_s == pytest.approx(4_000)
    assert reach.at_least
    assert "the server" in reach.limit


def test_a_client_that_is_true_at_no_rate() -> None:
    *_, (_, reach) = climb(lambda load: measured(load, client_cpu_share=1.0), (2_000,), 0.1)
    assert reach.tok_per_s is None


def test_what_was_measured_is_kept_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path / "state"))
    assert measured_here("A CPU") is None
    kept = Ceiling(40_000.0, False, "A CPU").keep()
    assert kept.measured_at
    assert measured_here("A CPU") == kept
    path = tmp_path / "state" / "client.json"
    assert measured_here("another CPU") is None
    for old, new in (('"python": "', '"python": "2'), ('"tokrig": "', '"tokrig": "0')):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        assert measured_here("A CPU") is None
        path.write_text(text)
    path.write_text("{")
    assert measured_here("A CPU") is None
