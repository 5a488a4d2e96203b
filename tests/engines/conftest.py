"""Engines that `make test-engines` has built and installed, and a check that nothing of them
stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.engines.llama_builds import builds
from tests.integration.cli import Home
from tokrig.models import catalog

# Read at once: the tests' clean environment drops it.
ENGINES = Path(os.environ.get("TOKRIG_ENGINES", ""))
# Engine threads that spin while they wait would take each other's processor.
PATIENT = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"}
# Mesa's software device is hidden from llama.cpp unless it is asked for by its number.
SOFTWARE_GPU = {**PATIENT, "GGML_VK_VISIBLE_DEVICES": "0"}


def left_by(home: Home) -> set[str]:
    """Processes that were started in this home and are still there."""
    found = set()
    for process in psutil.process_iter(["name"]):
        try:
            if process.environ().get("TOKRIG_STATE") == str(home.state):
                found.add(f"process {process.info['name']}")
        except psutil.Error:
            continue
    return found


def shared() -> set[str]:
    """Temporary files, shared memory and listening ports of this machine."""
    files = {
        str(path)
        for folder in ("/tmp", "/dev/shm")
        for path in Path(folder).iterdir()
        if not path.name.startswith("pytest-")
    }
    ports = {
        f"port {c.laddr.port}"
        for c in psutil.net_connections("tcp")
        if c.laddr and c.status == psutil.CONN_LISTEN
    }
    return files | ports


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose engines leave nothing behind: no process, port, temporary file."""
    home, before = Home(tmp_path), shared()
    yield home
    assert home.no_engines_left(), "an engine outlived its run"
    assert not left_by(home)
    assert shared() <= before


@pytest.fixture(scope="session")
def engines() -> Path:
    """The folder of all engines."""
    assert ENGINES.is_dir(), "run these tests with: make test-engines"
    return ENGINES


@pytest.fixture(scope="session")
def cpu_build(engines: Path) -> Path:
    """llama.cpp without any accelerator API."""
    return builds(engines)[0]


@pytest.fixture(scope="session")
def vulkan_build(engines: Path) -> Path:
    """llama.cpp with Vulkan."""
    return builds(engines)[1]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return catalog.resolve("smollm2-135m")
