"""A real Ray cluster of three nodes on this machine: a head and two rigs, each with a state folder
of its own, on loopback addresses of their own. All three are load nodes too."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.integration.cli import Home
from tokrig.run.server import free_port

RAY = Path(sys.executable).with_name("ray")
START_S = 120.0
UP = "Ray runtime started"
WAIT_S = 90.0


class Rig:
    """A node of the cluster. Its folders are a ``Home``, of which only the state is used."""

    def __init__(self, name: str, root: Path, address: str, ip: str) -> None:
        self.name, self.home = name, Home(root / name)
        self.home.root.mkdir()
        self._words = [f"--address={address}", f'--resources={{"rig:{name}": 1, "load": 1}}']
        self._ip = ip
        self.start()

    def start(self) -> None:
        self.process = ray_start(self.home, self._ip, *self._words)

    def wait_until_up(self) -> None:
        """Ray gives a node half a minute, which a busy machine may not keep: then once more."""
        until(self._is_up, START_S)

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            self.start()
        return UP in (self.home.root / "ray.log").read_text()

    def kill_raylet(self) -> None:
        """As a power cut would, as far as the head can tell."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        [raylet] = [process for process in below if process.name() == "raylet"]
        raylet.kill()
        self.process.wait(START_S)


class Cluster:
    """Three nodes that end with the test."""

    def __init__(self, root: Path) -> None:
        self.address = f"127.0.0.2:{free_port()}"
        self._root, self.rigs = root, dict[str, Rig]()
        self._head: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        home = Home(self._root / "head")
        home.root.mkdir()
        self._head = ray_start(
            home,
            "127.0.0.2",
            *("--head", f"--port={self.address.partition(':')[2]}", "--include-dashboard=false"),
            *(f"--temp-dir={self._root / 'ray'}", "--disable-usage-stats"),
            '--resources={"load": 1}',
        )
        until(self._is_up, START_S)
        for number, name in enumerate(("rig-a", "rig-b"), start=3):
            self.rigs[name] = Rig(name, self._root, self.address, f"127.0.0.{number}")
        for rig in self.rigs.values():
            rig.wait_until_up()

    def _is_up(self) -> bool:
        told = (self._root / "head" / "ray.log").read_text()
        assert self._head and self._head.poll() is None, told
        return UP in told

    def stop(self) -> None:
        """All that this cluster started, orphans included, by the folders they inherited."""
        deadline = time.monotonic() + WAIT_S
        while left := self._processes():
            assert time.monotonic() < deadline, left
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        for started in filter(None, [self._head, *(rig.process for rig in self.rigs.values())]):
            started.wait()

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TOKRIG_STATE", "").startswith(f"{self._root}/"):
                    # Ray's workers write their titles over their environment.
                    found += [process, *process.children(recursive=True)]
        return found


# As docs/rigs.md asks for. A token that lies in the user's home is not looked at.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


# As `ray start &` in a script has it: what it starts ignores SIGINT.
IN_BACKGROUND = ("sh", "-c", 'trap \'\' INT; exec "$0" "$@"')


def ray_start(home: Home, ip: str, *words: str) -> subprocess.Popen[bytes]:
    environment = home.environment(
        {
            **TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            # A dozen Python processes import the same: let the first compile it for all.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": os.environ["XDG_CACHE_HOME"] + "/python",
            # Engine threads that spin while they wait would take each other's processor.
            "OMP_WAIT_POLICY": "passive",
        }
    )
    small = ["--num-cpus=0", f"--object-store-memory={80 << 20}", "--include-log-monitor=false"]
    with open(home.root / "ray.log", "wb") as log:
        return subprocess.Popen(
            [*IN_BACKGROUND, RAY, "start", "--block", f"--node-ip-address={ip}", *small, *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def until(holds: Callable[[], bool], within_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.1)
