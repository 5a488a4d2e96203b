"""Several measuring clients on this machine: nothing is lost, and none is left."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest
from click.testing import CliRunner

from tokrig.cli.main import main
from tokrig.errors import EngineError, RequestError
from tokrig.run import clients
from tokrig.run.client import Closed, Open, send
from tokrig.run.clients import several
from tokrig.run.http import Endpoint
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

PATH = "/v1/chat/completions"


def body(tokens: int) -> bytes:
    asked = {"messages": [{"role": "user", "content": "count"}], "max_tokens": tokens}
    return json.dumps({**asked, "stream": True}).encode()


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 60
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(psutil.pid_exists, pids))


def test_two_clients_lose_nothing_and_begin_together() -> None:
    made = Simulation(ttft_s=0.02, itl_s=0.005)
    ticks: list[tuple[int, int]] = []
    with simulated(made) as server, several(2) as both:
        endpoint = Endpoint(server.host, server.port)
        pids = both.pids
        loop = both.send(
            endpoint,
            PATH,
            Closed([body(20 + i) for i in range(12)], 4),
            silence_s=60,
            tick=lambda ended, reads: ticks.append((ended, reads)),
        )
        # A second load of the same processes, of arrivals.
        later = both.send(
            endpoint, PATH, Open([body(9)] * 6, [0.01 * i for i in range(6)]), silence_s=60
        )
        alone = both.send(endpoint, PATH, Closed([body(9)], 1), silence_s=60)
    assert [r.index for r in loop.responses] == list(range(12))
    assert [r.worker for r in loop.responses[:4]] == [0, 1, 2, 3]
    assert all(r.worker // 2 == r.index % 4 // 2 for r in loop.responses)  # two of each client
    assert all(r.failure is None and r.status == 200 for r in loop.responses)
    texts = [b"".join(data for _, data in r.pieces) for r in loop.responses]
    assert [text.count(b'"content":"') - 1 for text in texts] == [20 + i for i in range(12)]
    assert len(loop.parts) == 2
    assert abs(loop.parts[0].start_ns - loop.parts[1].start_ns) < 10_000_000_000
    assert all(part.client_wait_share is not None for part in loop.parts)
    assert ticks
    assert [r.index for r in later.responses] == list(range(6))
    assert (len(alone.responses), alone.parts) == (1, ())
    assert gone(pids)


def test_a_load_that_time_ends_is_handed_more() -> None:
    made = Simulation(ttft_s=0.03, itl_s=0.005)
    with simulated(made) as server, several(2) as both:
        endless = iter(lambda: body(5), None)
        loop = both.send(
            Endpoint(server.host, server.port), PATH, Closed(endless, 2, until_s=2.5), silence_s=60
        )
    indexes = [r.index for r in loop.responses]
    assert len(set(indexes)) == len(indexes) > 41
    assert 2.4 < loop.wall_s < 60


def test_a_client_that_is_killed_is_told_and_replaced() -> None:
    made = Simulation(ttft_s=0.02, itl_s=0.01)
    with simulated(made) as server, several(2) as both:
        endpoint, pids = Endpoint(server.host, server.port), both.pids

        def kill(ended: int, reads: int) -> None:
            if psutil.pid_exists(pids[0]):
                os.kill(pids[0], signal.SIGKILL)

        with pytest.raises(RequestError, match="ended in the middle") as caught:
            both.send(endpoint, PATH, Closed([body(300)] * 2, 2), silence_s=60, tick=kill)
        assert caught.value.code == "load_node_lost"
        assert gone(pids)
        again = both.send(endpoint, PATH, Closed([body(5)] * 4, 2), silence_s=60)
        assert [r.status for r in again.responses] == [200] * 4


def test_nobody_listens() -> None:
    with several(2) as both:
        loop = both.send(Endpoint("127.0.0.1", 9), PATH, Closed([b"{}"] * 2, 2), silence_s=5)
        alone = send(Endpoint("127.0.0.1", 9), PATH, Closed([b"{}"], 1), silence_s=5)
    assert {r.failure for r in loop.responses} == {r.failure for r in alone.responses}


def test_a_client_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PROGRAM", ("/bin/false",))
    with pytest.raises(EngineError, match="did not start"), several(2):
        pass


def test_more_clients_than_processors_are_refused() -> None:
    done = CliRunner().invoke(main, ["run", "--clients", "9999", "--dry-run"])
    assert done.exit_code == 2
    assert "--clients 9999: this process may use" in done.stderr
    both = ["--clients", "1", "--load-from", "auto"]
    done = CliRunner().invoke(main, ["run", "--url", "http://10.0.0.1", *both, "--dry-run"])
    assert done.exit_code == 2
    assert "--clients and --load-from" in done.stderr


def test_a_dry_run_says_how_many_clients_send() -> None:
    done = CliRunner().invoke(main, ["run", "--clients", "1", "--dry-run", "--even-if-busy"])
    assert done.exit_code == 0, done.stderr
    assert "1 process of this machine" in " ".join(done.stdout.split())
