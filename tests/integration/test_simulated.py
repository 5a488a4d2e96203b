"""``tokrig run`` against ``tokrig simulate``: the figures are those that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli import Home
from tokrig.rig import probe_rig
from tokrig.run.ceiling import Ceiling
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.alone
def test_a_run_finds_what_was_simulated_and_is_held_against_the_clients_ceiling(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(home.state))
    Ceiling(400.0, False, probe_rig().cpu.model).keep()
    made = Simulation(ttft_s=0.05, itl_s=0.005, jitter=0.05, timings=True)
    words = ("--workload", "chat", "--concurrency", "1,4", "--even-if-busy")
    with simulated(made) as server:
        done = home.in_process("run", "--url", f"http://127.0.0.1:{server.port}", *words)
    assert done.code == 0, done.err
    assert server.report["outcomes"] == {"answered": server.report["requests"]}
    results = home.records()[0]["results"]
    for result in results:
        assert result["output_tok_per_s"]["median"] == pytest.approx(200, rel=0.3)
        assert result["ttft_s"]["median"] == pytest.approx(0.05, abs=0.25)
        assert result["interference"]["client_ceiling_tok_per_s"] == 400
    # A ceiling of 400 tok/s leaves room for 200: one request has about 187, four at once 740.
    assert "client_bound" in results[1]["validity"]["reasons"]
    assert home.checks()
    path = home.record_paths()[0]
    path.write_text(path.read_text().replace("client_bound", "throttled"))
    assert not home.checks()


def test_a_server_that_fails_every_other_request_is_measured_and_called_invalid(
    home: Home,
) -> None:
    made = Simulation(ttft_s=0.01, itl_s=0.002, error_every=2)
    words = ("--workload", "chat", "--even-if-busy")
    with simulated(made) as server:
        done = home.in_process("run", "--url", f"http://127.0.0.1:{server.port}", *words)
    assert done.code == 0, done.err
    assert "note: the first request failed (http_500: request 2 fails" in done.err
    assert "system messages" not in done.err  # one failure says nothing of the template
    [result] = home.records()[0]["results"]
    assert 0 < result["request_errors"] < result["requests"]
    assert "request_errors" in result["validity"]["reasons"]
