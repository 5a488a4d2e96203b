"""The nvidia probe through the real binding over a compiled stand-in for NVML."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokrig.probes import nvidia
from tokrig.units import MIB

STUB = Path(__file__).parents[1] / "fixtures" / "nvml_stub.c"

# Runs in a process of its own, because the binding keeps the library it loaded first.
LOOK = """
import dataclasses, json, pynvml
from tokrig.probes.nvidia import PROBE
reading, again = PROBE.read(), PROBE.read()
facts = PROBE.facts()
print(json.dumps({
    "available": dataclasses.asdict(PROBE.availability()),
    "gpus": [g.model_dump() for g in facts.gpus],
    "reading": dataclasses.asdict(reading),
    "starts": pynvml.nvmlLib.stub_starts() if pynvml.nvmlLib else 0,
}))
"""


def compile_stub(folder: Path, *flags: str) -> Path:
    # `make test` installs zig's compiler where the machine has none of its own.
    own = shutil.which("cc") or shutil.which("gcc")
    compiler = [own] if own else [sys.executable, "-m", "ziglang", "cc"]
    library = folder / "libnvidia-ml.so.1"
    command = [
        *compiler,
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        *flags,
        "-o",
        str(library),
        str(STUB),
    ]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml_old"), "-DOLD_DRIVER")


def look(library_folder: Path, **environment: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(library_folder),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    seen: dict[str, Any] = json.loads(run.stdout)
    return seen


def test_facts_of_one_card(stub: Path) -> None:
    seen = look(stub)
    assert seen["available"] == {
        "ok": True,
        "detail": "1 NVIDIA card(s), driver 570.86.10",
        "hint": "",
    }
    assert seen["gpus"] == [
        {
            "name": "NVIDIA GeForce RTX 5070",
            "vendor": "nvidia",
            "arch": "Blackwell",
            "vram_bytes": 12227 * MIB,
            "unified_memory": None,
            "driver": "570.86.10",
            "power_limit_w": 200.0,
            "power_max_w": 300.0,
            "power_default_w": None,  # the stub does not support it
            "clock_max_mhz": 3090.0,
            "memory_clock_max_mhz": 14001.0,
            "pcie_generation": 5,
            "pcie_width": 16,
        }
    ]


def test_nvml_starts_once(stub: Path) -> None:
    assert look(stub)["starts"] == 1


def test_reading_of_one_card(stub: Path) -> None:
    assert look(stub)["reading"] == {
        "load_average": None,
        "busy_cpu_s": None,
        "gpu_power_w": 187.5,
        "gpu_temperature_c": 67,
        "gpu_clock_mhz": 2812,
        "gpu_memory_used_bytes": 3000 * MIB,
        # Process 77 stands among the compute and the graphics processes: counted once.
        "gpu_process_bytes": {"4242": 2048 * MIB, "77": 100 * MIB},
        "gpu_processes_complete": True,
        # Idle and application clocks are no throttling.
        "throttle_reasons": ["hw_thermal_slowdown", "sw_power_cap"],
        "energy_j": {"gpu": 123456.789},
    }


def test_two_cards_sum_up_and_an_unknown_part_makes_the_sum_unknown(stub: Path) -> None:
    seen = look(stub, NVML_STUB_CARDS="2")
    assert [g["arch"] for g in seen["gpus"]] == ["Blackwell", "Ada"]
    assert seen["gpus"][1]["power_default_w"] == 130.0
    reading = seen["reading"]
    assert reading["gpu_memory_used_bytes"] == 3500 * MIB
    assert reading["gpu_clock_mhz"] == 2812
    assert reading["gpu_process_bytes"] == {"4242": 2448 * MIB, "77": 100 * MIB, "99": 0}
    assert reading["gpu_power_w"] is None
    assert reading["energy_j"] == {}


def test_an_old_driver_answers_by_the_older_names(old_stub: Path) -> None:
    reading = look(old_stub)["reading"]
    assert reading["throttle_reasons"] == ["hw_thermal_slowdown", "sw_power_cap"]
    assert reading["gpu_temperature_c"] == 66


@pytest.mark.parametrize(
    ("environment", "detail"),
    [
        ({"NVML_STUB_INIT": "9"}, "NVML does not start: Driver Not Loaded"),
        ({"NVML_STUB_CARDS": "0"}, "NVML works but shows no card"),
    ],
)
def test_nothing_to_read(stub: Path, environment: dict[str, str], detail: str) -> None:
    seen = look(stub, **environment)
    assert seen["available"]["ok"] is False
    assert seen["available"]["detail"] == detail
    assert "nvidia-smi" in seen["available"]["hint"]
    assert seen["gpus"] == []
    assert seen["reading"]["gpu_power_w"] is None


def test_no_library(tmp_path: Path) -> None:
    # An empty file of that name stops the loader, also where a real driver is installed.
    (tmp_path / "libnvidia-ml.so.1").touch()
    seen = look(tmp_path)
    assert seen["available"]["ok"] is False
    assert "libnvidia-ml.so.1" in seen["available"]["detail"]
    assert "driver" in seen["available"]["hint"]
    assert seen["gpus"] == []


def test_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    available = nvidia.NvidiaProbe().availability()
    assert not available.ok
    assert "nvidia-ml-py" in available.detail
    assert "tokrig[nvidia]" in available.hint
