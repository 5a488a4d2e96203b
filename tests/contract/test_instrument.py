"""The measuring client measured: the report's figures mean what they say."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tokrig.errors import EngineDied, InputError
from tokrig.run import instrument
from tokrig.run.client import Loop, closed_loop
from tokrig.run.instrument import SERVER, measure, token_server


def test_many_streams() -> None:
    report = measure(streams=8, tokens=100, interval_s=0.002)
    assert (report.streams, report.tokens, report.interval_s) == (8, 100, 0.002)
    # No stamp may come long before its token was sent, and none much later: wide limits, for
    # other programs may hold both processes up.
    assert 0 < report.error_s.p50 < 0.05
    assert report.error_s.p50 <= (report.error_s.p95 or 0) <= (report.error_s.p99 or 0)
    assert (report.error_s.p99 or 0) <= report.error_s.max
    assert 0 <= report.server_late_s.p50 <= report.server_late_s.max
    assert 0 <= report.coalesced_share <= 1
    assert 0 < report.client_cpu_share <= 1.5
    assert report.client_us_per_token == pytest.approx(
        report.receive_us_per_token + report.decode_us_per_token
    )
    assert 1_000 < report.tok_per_s < 4_100


def test_one_stream_has_too_few_tokens_for_p99() -> None:
    report = measure(streams=1, tokens=140, interval_s=0.002)
    assert report.error_s.p95 is not None
    assert report.error_s.p99 is None


def test_the_stamps_are_compared_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stamps 40 ms late is found out."""
    real = closed_loop

    def late(*args: object, **options: object) -> Loop:
        phase: Loop = real(*args, **options)  # type: ignore[arg-type]
        responses = [
            replace(one, pieces=[(t + 40_000_000, data) for t, data in one.pieces])
            for one in phase.responses
        ]
        return replace(phase, responses=responses)

    monkeypatch.setattr(instrument, "closed_loop", late)
    assert 0.04 < measure(streams=2, tokens=20, interval_s=0.002).error_s.p50 < 0.1


def test_coalesced_tokens_are_counted() -> None:
    stamps = np.array([[1, 1, 2, 3, 3, 3, 4], [5, 6, 7, 8, 9, 10, 10]])
    assert instrument.coalesced(stamps) == 5 + 2


@pytest.mark.parametrize(("streams", "tokens", "interval_s"), [(0, 9, 1), (1, 1, 1), (1, 9, 0)])
def test_figures_that_are_no_load(streams: int, tokens: int, interval_s: float) -> None:
    with pytest.raises(InputError, match="cannot measure"):
        measure(streams, tokens, interval_s)


def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "SERVER", (sys.executable, "-c", ""))
    with pytest.raises(EngineDied, match="did not start"):
        measure(1, 2, 0.001)


def test_a_server_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    real = closed_loop

    def cut(*args: object, **options: object) -> Loop:
        phase: Loop = real(*args, **options)  # type: ignore[arg-type]
        first, *others = phase.responses
        return replace(phase, responses=[replace(first, pieces=first.pieces[:10]), *others])

    monkeypatch.setattr(instrument, "closed_loop", cut)
    with pytest.raises(EngineDied, match="broke after"):
        measure(1, 20, 0.001)


def test_the_server_is_gone_afterwards() -> None:
    with token_server(1, 2, 0.001) as endpoint:
        socket.create_connection((endpoint.host, endpoint.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((endpoint.host, endpoint.port), timeout=5)


def test_the_server_ends_when_nobody_is_left() -> None:
    argv = [*SERVER, "1", "2", "1000000"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().strip().isdigit()
        process.stdin.close()
        assert process.wait(5) == 0


def test_the_server_keeps_its_pace() -> None:
    began = time.monotonic()
    report = measure(streams=4, tokens=50, interval_s=0.004)
    assert time.monotonic() - began >= 0.19
    assert 500 < report.tok_per_s < 1_050
