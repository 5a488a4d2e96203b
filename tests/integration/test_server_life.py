"""The life of an engine process: ready, stopped, never orphaned, whatever happens to whom."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tokrig.backends import Command
from tokrig.backends.llamacpp import BACKEND
from tokrig.errors import EngineDied, StartError
from tokrig.run import guard, server

FAKE = Path(__file__).with_name("fake_llama_server.py")


def command(port: int, *extra: str) -> Command:
    argv = [sys.executable, str(FAKE), "--host", "127.0.0.1", "--port", str(port)]
    return Command((*argv, "--ctx-size", "4096", "--parallel", "1", *extra))


def start(
    tmp_path: Path, *extra: str, patience_s: float = 20
) -> contextlib.AbstractContextManager[server.Server]:
    return server.running(
        BACKEND, lambda port: command(port, *extra), tmp_path / "engine.log", patience_s
    )


def gone(pids: list[int], within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while any(psutil.pid_exists(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def tree(process: subprocess.Popen[bytes]) -> list[int]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [process.pid, *(p.pid for p in children)]


def test_ready_then_stopped_with_nothing_left(tmp_path: Path) -> None:
    with start(tmp_path) as running:
        assert running.load_s > 0
        assert len(running.processes()) == 1
        pids, port = tree(running.process), running.endpoint.port
    assert gone(pids)
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_stopped_when_the_caller_fails(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt), start(tmp_path) as running:  # noqa: PT012
        pids = tree(running.process)
        raise KeyboardInterrupt
    assert gone(pids)


def test_an_engine_that_exits_at_start_gives_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="made to fail") as caught:
        start(tmp_path, "--fault", "exit-at-start").__enter__()
    assert "exit 1" in caught.value.message
    assert "error loading model" in caught.value.log_tail


def test_patience_runs_out(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StartError, match="not ready within 1 s") as caught:
        start(tmp_path, "--fault", "never-ready", patience_s=1).__enter__()
    assert time.monotonic() - began < 120
    assert "--patience" in caught.value.hint


def test_an_engine_that_dies_in_use_is_noticed(tmp_path: Path) -> None:
    with start(tmp_path) as running:
        running.require_alive()
        running.processes()[0].kill()
        running.process.wait(60)
        with pytest.raises(EngineDied, match="killed by SIGKILL"):
            running.require_alive()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (1, "exit 1"),
        (137, "killed by SIGKILL"),
        (-9, "killed by SIGKILL"),
        (132, "built for another processor"),
        (255, "exit 255"),
        (0, "exit 0"),
    ],
)
def test_how_an_engine_ended_is_said_in_words(code: int, says: str) -> None:
    assert says in guard.describe_exit(code)


@contextlib.contextmanager
def stranger() -> Iterator[int]:
    """Somebody else's server that answers 200 to everything."""
    process = subprocess.Popen(
        [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline().decode()
            yield int(line.split(" port ")[1].split()[0])
    finally:
        process.kill()
        process.wait()


def test_a_port_taken_meanwhile_is_tried_again_elsewhere(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], server.free_port()])
        with server.running(
            BACKEND, command, tmp_path / "engine.log", 20, port=lambda: next(ports)
        ) as running:
            assert running.endpoint.port != taken.getsockname()[1]


def test_a_port_that_stays_taken_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        context = server.running(BACKEND, command, tmp_path / "log", 20, port=lambda: port)
        with pytest.raises(StartError, match="(?i)address already in use") as caught:
            context.__enter__()
        assert caught.value.code == "port_in_use"


def test_a_stranger_on_the_port_is_not_taken_for_the_engine(tmp_path: Path) -> None:
    """The engine hangs before it listens, and somebody else answers in its place."""
    sleeper = Command((sys.executable, "-c", "import time; time.sleep(600)"))
    health = tmp_path / "health"
    health.write_text("ok")
    with stranger() as port, contextlib.chdir(tmp_path):
        context = server.running(BACKEND, lambda _: sleeper, tmp_path / "log", 1, port=lambda: port)
        with pytest.raises(StartError):
            context.__enter__()


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_kill_9_leaves_no_orphan(tmp_path: Path, victim: str) -> None:
    """Neither the death of the measuring process nor that of the guard leaves an engine."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.integration.test_server_life import start\n"
        f"with start(Path({str(tmp_path)!r})) as running:\n"
        "    print(running.process.pid, running.processes()[0].pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        guard_pid, engine_pid = map(int, parent.stdout.readline().split())
        os.kill(parent.pid if victim == "parent" else guard_pid, signal.SIGKILL)
        assert gone([engine_pid]), "the engine outlived them"
        parent.kill()
        parent.wait()
    assert gone([guard_pid])


def test_what_an_engine_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    """An engine that daemonizes a worker, as multi-process engines do."""
    marker = tmp_path / "worker.pid"
    code = (
        "import os, subprocess, sys, runpy\n"
        "w = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\n"
        f"open({str(marker)!r}, 'w').write(str(w.pid))\n"
        f"sys.argv = [{str(FAKE)!r}, *sys.argv[1:]]\n"
        f"runpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
    )

    def with_worker(port: int) -> Command:
        return Command((sys.executable, "-c", code, *command(port).argv[2:]))

    with server.running(BACKEND, with_worker, tmp_path / "log", 20):
        worker = int(marker.read_text())
        assert psutil.pid_exists(worker)
    assert gone([worker])
