"""Campaign runs and load on a real Ray cluster of three nodes on this machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import FAKE, Done, Home
from tests.integration.ray_cluster import START_S, TOKEN, WAIT_S, Cluster, until
from tokrig.campaign import ray_executor
from tokrig.campaign.ray_executor import RayExecutor
from tokrig.errors import InputError, Interrupted, PutOff, RecordError, StoreError
from tokrig.measure import Ended
from tokrig.plan import Run, Weights
from tokrig.record.samples import Sample
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation
from tokrig.spec.run import RunSpec
from tokrig.store import Store


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """This process is a head, and Ray reads its environment once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's sockets lie in its folder, and a socket's path may not be long.
    root = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = Cluster(root)
    try:
        cluster.start()
        yield cluster
        assert all(rig.home.no_engines_left() for rig in cluster.rigs.values()), "orphan engine"
    finally:
        cluster.stop()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def joined(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], tuple[RayExecutor, Home]]]:
    """The head's executor and its folders: one for all tests, until a test has cancelled it."""
    home, made = Home(tmp_path_factory.mktemp("head")), list[RayExecutor]()

    def executor() -> tuple[RayExecutor, Home]:
        if not made or not made[-1].rigs():
            made.append(RayExecutor(cluster.address, home.content, even_if_busy=True))
            until(lambda: list(made[-1].rigs()) == ["rig-a", "rig-b"], START_S)
        return made[-1], home

    try:
        yield executor
    finally:
        for one in made:
            one.cancel()


@pytest.fixture
def executor(joined: Callable[[], tuple[RayExecutor, Home]]) -> RayExecutor:
    return joined()[0]


@pytest.fixture
def home(joined: Callable[[], tuple[RayExecutor, Home]]) -> Home:
    home = joined()[1]
    shutil.rmtree(home.content, ignore_errors=True)
    return home


def planned(rig: str, key: str, **changes: object) -> tuple[Run, RunSpec]:
    """A run that a plan would want, on the fake engine: two cells of about a second."""
    run = Run(
        key=key,
        campaign="test",
        entry="ray",
        priority=0,
        rig=rig,
        weights=Weights("smollm2", local="smollm2-135m"),
        quant=None,
        creator=None,
        backend="llamacpp",
        build=None,
        server_bin=str(FAKE),
        driver=None,
        workloads=("chat",),
        concurrency=None,
        level="quick",
    )
    spec = RunSpec(
        model="smollm2-135m",
        backend="llamacpp",
        server_bin=str(FAKE),
        workloads=["chat"],
        concurrency=[1, 2],
        rig=rig,
        campaign="test/ray",
        planned=key,
    )
    return run, RunSpec.model_validate({**spec.model_dump(), **changes})


def quiet(text: str) -> None:
    """Nobody listens."""


def in_thread(executor: RayExecutor, run: Run, spec: RunSpec, note: list[str]) -> Future[Ended]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(executor.measure, run, spec, note.append)
    pool.shutdown(wait=False)
    return future


def test_rigs_measure_side_by_side_and_each_one_run_at_a_time(
    cluster: Cluster, executor: RayExecutor, home: Home
) -> None:
    wanted = [planned(rig, f"{rig}-{n}") for rig in cluster.rigs for n in (1, 2)]
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda one: executor.measure(one[0], one[1], quiet), wanted))
    assert {e.record.provenance.planned for e in ended} == {run.key for run, _ in wanted}
    assert all(e.error is None and e.record.status == "complete" for e in ended)
    assert sorted(e.path for e in ended) == home.record_paths()
    assert home.checks()
    spans: dict[str, list[tuple[str, str]]] = {}
    for one in ended:
        times = (one.record.provenance.started_at or "", one.record.provenance.finished_at or "")
        spans.setdefault(one.record.rig.id, []).append(times)
    for first, second in map(sorted, spans.values()):
        assert first[1] <= second[0], "two runs at once on one rig"
    a, b = (sorted(s) for s in spans.values())
    assert a[0][0] < b[-1][1] and b[0][0] < a[-1][1], "the rigs waited for each other"
    for rig in cluster.rigs.values():
        assert not list((rig.home.state / "outbox").rglob("*.yaml")), "stored, and not forgotten"


def test_a_rig_killed_under_way_goes_on_when_it_is_back(
    cluster: Cluster, executor: RayExecutor, home: Home
) -> None:
    rig, notes = cluster.rigs["rig-b"], list[str]()
    run, spec = planned("rig-b", "killed", workloads=["chat", "codegen"])
    future = in_thread(executor, run, spec, notes)
    rig.home.wait_for_cells(2)
    rig.kill_raylet()
    assert rig.home.no_engines_left(), "an engine outlived its rig's node"
    [begun] = rig.home.unfinished()
    until(lambda: bool(notes))
    assert notes == ["rig rig-b was lost; waiting for it"]
    rig.start()
    rig.wait_until_up()
    ended = future.result(WAIT_S + START_S)
    assert ended.record.id == begun
    assert ended.record.provenance.server_starts == 2
    assert len(ended.record.results) == 4
    assert home.record_paths() == [ended.path]
    assert rig.home.unfinished() == []
    assert home.checks()


def test_a_record_that_was_not_stored_is_handed_over_and_not_measured_again(
    cluster: Cluster, executor: RayExecutor, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spec = planned("rig-a", "waits")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", _no_space)
        with pytest.raises(StoreError):
            executor.measure(run, spec, quiet)
    waiting = Store(cluster.rigs["rig-a"].home.state / "outbox")
    [path] = waiting.iter_paths()
    ended = executor.measure(run, spec, quiet)
    assert ended.record.id == path.stem
    assert len(Store(home.content).read_samples(ended.record.id)) > 0
    assert list(waiting.iter_paths()) == []


def _no_space(*_: object, **__: object) -> None:
    raise StoreError("the disk is full")


def test_what_is_wrong_on_a_rig_arrives_as_it_was_said(executor: RayExecutor, home: Home) -> None:
    run, spec = planned("rig-a", "wrong", server_bin="/no/such/llama-server")
    with pytest.raises(InputError) as caught:
        executor.measure(run, spec, quiet)
    assert caught.value.message.startswith("rig rig-a: ")
    assert "llama-server" in caught.value.message
    assert caught.value.hint and "Traceback" not in caught.value.message
    run, spec = planned("rig-a", "fails", options={"fault": "exit-at-start"})
    ended = executor.measure(run, spec, quiet)
    assert ended.error is not None and "made to fail" in ended.error.message
    assert ended.error.code == "engine_start_failed"
    [record] = home.records()
    assert (record["status"], record["provenance"]["planned"]) == ("failed", "fails")


def test_a_record_of_another_rig_is_refused(
    cluster: Cluster, executor: RayExecutor, home: Home
) -> None:
    run, spec = planned("rig-a", "strange")
    spec = spec.model_copy(update={"rig": "rig-c"})
    with pytest.raises(RecordError, match="is of rig 'rig-c'"):
        executor.measure(run, spec, quiet)
    assert home.record_paths() == []


def test_another_version_is_refused(
    executor: RayExecutor, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokrig

    there = tokrig.__version__
    monkeypatch.setattr("tokrig.__version__", "9.9.9")
    with pytest.raises(InputError) as caught:
        executor.measure(*planned("rig-a", "versions"), quiet)
    assert caught.value.code == "version_mismatch"
    assert f"has tokrig {there}; this machine has tokrig 9.9.9" in caught.value.message


def test_a_rig_that_stays_away_puts_the_run_off(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "away_s", 1.5)
    notes = list[str]()
    with pytest.raises(PutOff) as caught:
        executor.measure(*planned("rig-z", "away"), notes.append)
    assert caught.value.code == "rig_away"
    assert notes == ["rig rig-z is away; waiting for it"]


def test_cancel_ends_a_run_in_order_and_the_next_head_goes_on(
    cluster: Cluster,
    executor: RayExecutor,
    home: Home,
    joined: Callable[[], tuple[RayExecutor, Home]],
) -> None:
    rig = cluster.rigs["rig-a"]
    run, spec = planned("rig-a", "cancelled", workloads=["chat", "codegen"])
    before = signal.getsignal(signal.SIGTERM)
    future = in_thread(executor, run, spec, [])
    rig.home.wait_for_cells(1)
    began = time.monotonic()
    executor.cancel()
    assert time.monotonic() - began < ray_executor.STOP_S, "the run was left to itself"
    with pytest.raises(Interrupted):
        future.result(WAIT_S)
    assert executor.rigs() == []
    assert rig.home.no_engines_left()
    [begun] = rig.home.unfinished()
    again, _ = joined()
    assert again.measure(run, spec, quiet).record.id == begun
    assert signal.getsignal(signal.SIGTERM) is before, "SIGTERM is tokrig's own"
    assert len(home.record_paths()) == 1


# Load from its nodes


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A simulated server's address: 0.7 s an answer, whoever asks."""
    with simulated(Simulation(ttft_s=0.05, itl_s=0.005)) as there:
        yield f"http://127.0.0.1:{there.port}"


def six_at_once(server: str, *words: str) -> list[str]:
    shape = ["--workload", "chat", "--concurrency", "6", "--even-if-busy"]
    return ["run", "--url", server, *shape, *words]


def ended(home: Home, done: Done) -> tuple[dict[str, Any], list[Sample]]:
    """The only result of the newest record, and its measured samples."""
    assert done.code == 0, done.err
    path = home.record_paths()[-1]
    assert "127.0.0." not in path.read_text(), "where nodes are is nobody's business"
    assert home.checks()
    [result] = yaml.safe_load(path.read_text())["results"]
    samples = Store(home.content).read_samples(path.stem)
    return result, [sample for sample in samples if sample.phase == "measured"]


@pytest.mark.alone
def test_three_nodes_send_as_one_client_does(cluster: Cluster, server: str, home: Home) -> None:
    alone, _ = ended(home, home.tokrig(*six_at_once(server)))
    words = six_at_once(server, "--load-from", cluster.address)
    done = home.tokrig(*words, env=TOKEN)
    together, samples = ended(home, done)
    assert "sent from 3 load nodes" in done.err
    nodes = together["load_nodes"]
    assert (nodes["nodes"], nodes.get("lost")) == (3, None)
    assert 0 < nodes["clock_uncertainty_s"] < 0.1
    assert "load_nodes" not in alone
    # Nothing is lost in merging, and nothing counted twice.
    assert together["requests"] == alone["requests"] == 18
    assert together["output_tokens"] == alone["output_tokens"]
    assert len({sample.salt for sample in samples}) == 18
    assert Counter(sample.worker for sample in samples) == dict.fromkeys(range(6), 3)
    for name in ("output_tok_per_s", "ttft_s", "system_tok_per_s"):
        near = pytest.approx(alone[name]["median"], rel=0.03, abs=0.005)
        assert together[name]["median"] == near, name
    assert together["concurrency_mean"] == pytest.approx(alone["concurrency_mean"], rel=0.03)


OTHER_VERSION = "import tokrig; tokrig.__version__ = '9.9.9'; import runpy; "
OTHER_VERSION += "runpy.run_module('tokrig', run_name='__main__', alter_sys=True)"


def test_what_is_wrong_with_load_nodes_is_told_before_anything_is_sent(
    cluster: Cluster, server: str, home: Home
) -> None:
    words = six_at_once(server, "--load-from", cluster.address)
    done = home.tokrig(*words, "--load-nodes", "4", env=TOKEN)
    assert done.code == 2
    assert "has 3 load nodes, 4 are asked for" in done.err
    assert "--resources='{\"load\": 1}'" in done.err
    line = [sys.executable, "-c", OTHER_VERSION, *words]
    other = subprocess.run(
        line, capture_output=True, text=True, check=False, env=home.environment(TOKEN)
    )
    assert other.returncode == 2, other.stderr
    assert "load node 127.0.0.2 has tokrig" in other.stderr
    assert "this machine has tokrig 9.9.9" in other.stderr
    assert home.record_paths() == []
    assert home.unfinished() == []


@pytest.mark.alone
@pytest.mark.engine
def test_a_real_engine_measures_on_a_rig(executor: RayExecutor, home: Home, shallow: Path) -> None:
    engine = {"backend": "embedded", "server_bin": None, "model": str(shallow)}
    run, spec = planned("rig-a", "real", concurrency=[1], **engine)
    ended = executor.measure(run, spec, quiet)
    assert ended.record.status == "complete", ended.record.failure
    assert ended.record.backend.engine == "llama.cpp"
    assert ended.record.results[0].output_tok_per_s is not None
    assert home.checks()


@pytest.mark.alone
def test_a_load_node_that_is_lost_under_way_does_not_count(
    cluster: Cluster, server: str, home: Home
) -> None:
    """The last that needs the cluster whole."""
    rig, told = cluster.rigs["rig-b"], list[str]()
    words = six_at_once(server, "--load-from", cluster.address)
    with home.start(*words, env=TOKEN) as process:
        assert process.stderr and process.stdout
        for line in process.stderr:
            told.append(line)
            if "measuring" in line and rig.process.poll() is None:
                rig.kill_raylet()
        out, code = process.stdout.read(), process.wait(WAIT_S)
    result, samples = ended(home, Done(code, out, "".join(told)))
    assert "raylet" not in out, "Ray speaks in between"
    [lost] = [line for line in told if "was lost" in line]
    assert "chat × 6: load node 127.0.0.4 was lost" in lost
    assert "2 are left; measuring it anew" in lost
    assert result["load_nodes"]["nodes"] == 2
    assert result["load_nodes"]["lost"] == 1
    # The figures are those of six at once, from the nodes that were left.
    assert Counter(sample.worker for sample in samples) == dict.fromkeys(range(6), 3)
    assert result["requests"] == 18
    assert "request_errors" not in result or result["request_errors"] == 0
