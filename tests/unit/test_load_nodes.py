"""Load from several machines: what a node does, and what is said of nodes that cannot."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.contract.loopback import DONE, SSE_HEAD, Talk, chunks, closed_port, delta, serving
from tests.unit.samples import sample
from tests.unit.test_checks import SOUND
from tokrig.cli.main import main
from tokrig.errors import InputError, PutOff, RequestError, SpecError
from tokrig.record.checks import CLOCKS_SHARE, judge
from tokrig.record.loads import LoadNodes
from tokrig.run import preflight
from tokrig.run.client import Closed, Loop
from tokrig.run.http import Endpoint
from tokrig.run.load_nodes import RAN_DRY, Client, Clock, Node, Nodes, joined, machine
from tokrig.run.prepare import outline
from tokrig.run.shares import RESERVE, Share, split
from tokrig.spec.run import RunSpec, merge
from tokrig.stamps import now_ns

PATH = "/v1/chat/completions"


def answer(talk: Talk) -> None:
    talk.send(SSE_HEAD)
    talk.send(chunks([delta("x"), DONE]))


def slow(talk: Talk) -> None:
    """So that a reserve lasts for a second."""
    talk.send(SSE_HEAD)
    talk.send(chunks([delta("x"), DONE]), gap_s=1 / RESERVE)


def silent(talk: Talk) -> None:
    talk.send(SSE_HEAD)
    talk.sock.recv(1)  # until the client leaves


def test_a_node_sends_its_share_at_the_time_it_is_told() -> None:
    client = Client()
    at_ns = client.clock_ns() + 50_000_000
    with serving(answer) as there:
        assert client.unreachable(there.endpoint) is None
        client.take(Share(Closed([b"{}"] * 3, 2), 4))
        loop = client.send(there.endpoint, PATH, 60.0, at_ns)
    assert isinstance(loop, Loop)
    assert [r.failure for r in loop.responses] == [None] * 3
    assert at_ns <= loop.start_ns < at_ns + 60_000_000_000
    assert loop.client_wait_share is not None
    assert loop.client_wait_share >= 0


@pytest.mark.parametrize("in_time", [True, False])
def test_a_node_is_handed_more_while_it_sends(in_time: bool) -> None:
    client, came = Client(), list[Any]()
    source = Closed(itertools.repeat(b"{}"), 1, until_s=3.0)
    [share] = split(source, 1)
    with serving(slow) as there:
        client.take(share)
        words = there.endpoint, PATH, 60.0, now_ns()
        thread = threading.Thread(target=lambda: came.append(client.send(*words)))
        thread.start()
        while thread.is_alive():
            if in_time:
                client.hand(list(itertools.islice(source.bodies, client.progress()[2])))
            thread.join(0.001)
    [loop] = came
    if not in_time:
        assert loop == RAN_DRY
        return
    assert isinstance(loop, Loop)
    assert [r.index for r in loop.responses] == list(range(len(loop.responses)))
    assert len(loop.responses) > RESERVE


def test_a_node_stops_when_it_is_told() -> None:
    client, came = Client(), list[Any]()
    with serving(silent) as there:
        client.take(Share(Closed([b"{}"], 1)))
        words = there.endpoint, PATH, 60.0, now_ns()
        thread = threading.Thread(target=lambda: came.append(client.send(*words)))
        thread.start()
        client.stop()
        thread.join(60)
    assert came == ["stopped"]


def test_a_server_that_is_not_there_is_not_reached() -> None:
    assert Client().unreachable(closed_port()) == "Connection refused"
    loop = Client()
    loop.take(Share(Closed([b"{}"], 1)))
    assert isinstance(loop.send(Endpoint("nowhere.invalid", 80), PATH, 1.0, 0), str)


class Actor:
    """Stands for the handle of an actor: ``client.method.remote()``."""

    def __init__(self, **methods: Any) -> None:
        for name, method in methods.items():
            setattr(self, name, SimpleNamespace(remote=method))


class DeadError(Exception):
    pass


class TaskError(DeadError):
    pass


def ray(**more: Any) -> ModuleType:
    """As much of Ray as hands on what a method returned; one that returns an error raises it."""

    def get(value: Any, timeout: float) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    errors = SimpleNamespace(RayError=DeadError, RayTaskError=TaskError)
    kill = lambda client: None  # noqa: E731
    return SimpleNamespace(get=get, exceptions=errors, kill=kill, **more)  # type: ignore[return-value]


def node(there: str, **methods: Any) -> Node:
    return Node("id", "10.0.0.5", Actor(**methods), there, 1)


def test_the_address_of_a_loopback_is_another_one_on_another_machine() -> None:
    nodes = Nodes(ray(), [node("elsewhere")])
    with pytest.raises(InputError, match="the node itself") as caught:
        nodes.require_reach(Endpoint("127.0.0.1", 8080))
    assert "load node 10.0.0.5 cannot reach the server at 127.0.0.1:8080" in caught.value.message
    assert "--host 0.0.0.0" in caught.value.hint
    Nodes(ray(), [node(machine(), unreachable=lambda e: None)]).require_reach(
        Endpoint("127.0.0.1", 8080)
    )


def test_a_server_that_a_node_does_not_reach() -> None:
    nodes = Nodes(ray(), [node("elsewhere", unreachable=lambda e: "No route to host")])
    with pytest.raises(InputError, match="No route to host") as caught:
        nodes.require_reach(Endpoint("10.0.0.1", 8080))
    assert "firewall" in caught.value.hint


def test_the_quickest_answer_tells_a_clock_and_two_of_them_what_it_drifted() -> None:
    nodes = Nodes(ray(), [node("elsewhere", clock_ns=lambda: now_ns() + 5_000_000_000)])
    clock = nodes._clock(nodes.nodes[0])
    assert abs(clock.offset_ns - 5_000_000_000) <= clock.off_ns + 1000
    assert clock.and_then(replace(clock, offset_ns=clock.offset_ns + 600)) == Clock(
        clock.offset_ns + 300, clock.off_ns + 300
    )


def test_a_node_that_is_gone_is_told_and_the_last_one_ends_the_run() -> None:
    told = list[str]()
    gone = replace(node("elsewhere", clock_ns=lambda: DeadError("gone")), id="gone")
    nodes = Nodes(ray(), [gone, node("elsewhere", clock_ns=now_ns)], note=told.append)
    assert list(nodes._clocks()) == ["id"]
    assert told == ["load node 10.0.0.5 was lost; 1 are left"]
    assert nodes.lost == 1
    nodes.nodes = [gone]
    with pytest.raises(PutOff, match="the last of 2") as caught:
        nodes._clocks()
    assert (caught.value.code, "--resume" in caught.value.hint) == ("load_node_lost", True)


def test_a_node_that_is_lost_before_the_run_is_left_out_and_told() -> None:
    gone = replace(node("elsewhere", unreachable=lambda e: DeadError("gone")), id="gone")
    nodes = Nodes(ray(), [gone, node("elsewhere", unreachable=lambda e: None)])
    nodes.require_reach(Endpoint("10.0.0.1", 8080))
    assert (nodes.lost, nodes.told()) == (
        1,
        "sent from 1 load node; lost before the run began: 1",
    )


def test_a_probe_whose_sender_is_lost_is_sent_by_another() -> None:
    told, tries = list[str](), iter([True, False])

    def send(*words: Any) -> Any:
        if next(tries):
            raise RequestError("load node 10.0.0.5 was lost; 1 is left", code="load_node_lost")
        return [sample()], None

    nodes = Nodes(ray(), [], note=told.append)
    session: Any = SimpleNamespace(
        send=send,
        prepared=SimpleNamespace(nodes=nodes),
        salt=lambda: "A000000",
        system_role=True,
        request=lambda *words, **more: None,
    )
    assert preflight.answers(session)
    assert told == ["load node 10.0.0.5 was lost; 1 is left; sending it anew"]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(InputError, match="load nodes need Ray, which is not installed") as caught,
        joined("127.0.0.1:6379", None, Endpoint("127.0.0.1", 1)),
    ):
        pass
    assert "ray" in caught.value.hint


def test_nodes_belong_to_a_cluster() -> None:
    with pytest.raises(SpecError, match="--load-nodes: the Ray cluster"):
        merge(RunSpec(), {"load_nodes": 3})
    with pytest.raises(SpecError, match="other machines cannot reach a server that tokrig starts"):
        outline(RunSpec(load_from="127.0.0.1:6379"), datetime.now(UTC))


def test_a_dry_run_says_who_would_send_and_joins_nothing() -> None:
    words = ["run", "--url", "http://10.0.0.1:8000", "--load-from", "10.0.0.2:6379", "--dry-run"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    assert "all load nodes of the Ray cluster at 10.0.0.2:6379" in done.stdout
    found = json.loads(CliRunner().invoke(main, [*words, "--load-nodes", "2", "--json"]).stdout)
    assert (found["load_from"], found["load_nodes"]) == ("10.0.0.2:6379", 2)


@pytest.mark.parametrize(("off_s", "apart"), [(0.9, False), (1.1, True), (None, False)])
def test_clocks_that_leave_much_of_the_window_open(off_s: float | None, apart: bool) -> None:
    samples = [sample(sent_ns=n * 800_000_000) for n in range(4)]
    last = samples[-1]
    window_s = (last.sent_ns + last.chunks[-1].t_ns - samples[0].sent_ns) / 1e9
    off_s = off_s and off_s * CLOCKS_SHARE * window_s
    nodes = LoadNodes(nodes=3, clock_uncertainty_s=off_s)
    found = judge(samples, replace(SOUND, load_nodes=nodes))
    assert ("clocks_apart" in found.unverified) is apart
    assert "clocks_apart" not in judge(samples, SOUND).unverified
