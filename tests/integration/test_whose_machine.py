"""Servers that somebody else started: what a record says of their machine and their memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.cli import FAKE, Home
from tokrig.rig import default_rig_id, probe_rig
from tokrig.run.http import Endpoint, get_status
from tokrig.run.server import free_port

# Passes on what it hears at one port to another one, until it is stopped.
FORWARDER = """
import socket, sys, threading
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    there = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    here, _ = server.accept()
    for pair in ((here, there), (there, here)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
STATED = """---
hardware:
  cpu: {model: AMD Ryzen 9 7900, cores: 12}
  gpus: [{name: NVIDIA GeForce RTX 5070, vendor: nvidia, vram_bytes: 12820938752}]
---
In the cellar.
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@contextmanager
def running(*argv: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server() -> Iterator[tuple[int, psutil.Process]]:
    """The fake engine, its port and its process."""
    port = free_port()
    words = ("--host", "127.0.0.1", "--port", str(port), "--ctx-size", "8192", "--parallel", "1")
    with running(sys.executable, str(FAKE), *words) as process:
        await_answer(port)
        yield port, process


def await_answer(port: int) -> None:
    for _ in range(1000):
        answer = get_status(Endpoint("127.0.0.1", port), "/health", timeout_s=1)
        if answer is not None and answer[0] == 200:
            return
        time.sleep(0.05)
    raise AssertionError("the server did not come up")


def test_on_loopback_the_listening_process_is_the_engine(
    home: Home, server: tuple[int, psutil.Process]
) -> None:
    port, process = server
    done = home.tokrig("run", "--url", f"http://localhost:{port}", "--workload", "chat")
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["rig"]["facts_from"] == "probes"
    assert record["rig"]["id"] == default_rig_id(probe_rig())
    held = record["results"][0]["memory"]["engine_rss_bytes"]
    assert held == pytest.approx(process.memory_info().rss, rel=0.3)
    assert record["load_memory"]["engine_rss_bytes"] > 0


def test_behind_a_tunnel_nothing_is_known_but_what_its_user_states(
    home: Home, server: tuple[int, psutil.Process], tmp_path: Path
) -> None:
    ssh, port = tmp_path / "ssh", free_port()
    ssh.symlink_to(Path(sys.executable).resolve())
    (home.content / "rigs").mkdir(parents=True)
    (home.content / "rigs/cellar.md").write_text(STATED)
    run = ("run", "--url", f"http://127.0.0.1:{port}", "--workload", "chat")
    with running(str(ssh), "-c", FORWARDER, str(port), str(server[0])):
        await_answer(port)
        unknown = home.tokrig(*run)
        stated = home.tokrig(*run, "--rig", "cellar")
    assert (unknown.code, stated.code) == (0, 0), unknown.err + stated.err
    assert "note: ssh listens at" in unknown.err
    by_id = {record["rig"]["id"]: record for record in home.records()}
    assert by_id["unknown-rig"]["rig"] == {
        "id": "unknown-rig",
        "facts_from": "nobody",
        "gpus": [],
    }
    cellar = by_id["cellar"]["rig"]
    assert (cellar["facts_from"], cellar["cpu"]["cores"]) == ("user", 12)
    assert [gpu["name"] for gpu in cellar["gpus"]] == ["NVIDIA GeForce RTX 5070"]
    assert "kernel" not in cellar
    for record in by_id.values():
        [result] = record["results"]
        assert not result.get("memory")
        assert not result.get("energy")
        assert result.get("interference", {}).get("load_average_max") is None
        assert "gpu_processes" in result["validity"]["unchecked"]
        assert "env" not in record["backend"]
    assert "unknown-rig" in home.tokrig("list").out
