"""The nvidia probe through the real binding over a compiled stand-in for NVML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.nvml import compile_stub
from tokrig.probes import nvidia
from tokrig.registry import get_extra
from tokrig.units import MIB

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


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml_old"), "-DOLD_DRIVER")


# What the kernel tells of a process that may do everything, and of one that may do nothing.
STATUS = "Name:\tpython\nCapEff:\t{}\n"
CAP = """
import dataclasses, json, sys
from pathlib import Path
from tokrig.errors import TokrigError
from tokrig.registry import get_extra
from tokrig.probes.nvidia import NvidiaProbe
probe = NvidiaProbe(root=Path(sys.argv[1]))
seen = {"before": [dataclasses.asdict(cap) for cap in probe.caps()]}
try:
    probe.set_cap(0, float(sys.argv[2]))
except TokrigError as error:
    seen["error"] = [type(error).__name__, error.message, error.hint]
seen["after"] = [cap.limit_w for cap in probe.caps()]
print(json.dumps(seen))
"""


def look(library_folder: Path, **environment: str) -> dict[str, Any]:
    seen: dict[str, Any] = ask(library_folder, [LOOK], environment)
    return seen


def ask(library_folder: Path, program: list[str], environment: dict[str, str]) -> Any:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", *program],
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
    return json.loads(run.stdout)


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
            "mig_profile": None,
            "vram_bytes": 12227 * MIB,
            "unified_memory": None,
            "driver": "570.86.10",
            "power_limit_w": 200.0,
            "power_min_w": 100.0,
            "power_max_w": 300.0,
            "power_default_w": None,  # the stub does not support it
            "clock_max_mhz": 3090.0,
            "memory_clock_max_mhz": 14001.0,
            "pcie_generation": 5,
            "pcie_width": 16,
            "bandwidth_bytes_per_s": 672.05e9,  # NVIDIA states 672 GB/s
            "bandwidth_from": "driver",
            "matrix_flop_per_s": None,  # only what was measured
            "matrix_type": None,
        }
    ]


def test_nvml_starts_once(stub: Path) -> None:
    assert look(stub)["starts"] == 1


def test_reading_of_one_card(stub: Path) -> None:
    reading = look(stub)["reading"]
    assert reading["cards"] == [
        {
            "key": "GPU-00000000-0000-4000-8000-000000000000",
            "name": "NVIDIA GeForce RTX 5070",
            "power_w": 187.5,
            "limit_w": 200.0,
            "enforced_limit_w": 200.0,
            "temperature_c": 67,
            "clock_mhz": 2812,
            "memory_used_bytes": 3000 * MIB,
            "gtt_used_bytes": None,
            "compute_bytes": {"4242": 2048 * MIB, "77": 100 * MIB},
            "graphics_bytes": {"77": 100 * MIB},
            "complete": True,
            "busy": None,
            "process_busy": None,
            # Idle and application clocks hold nothing down.
            "reasons": ["hw_thermal_slowdown", "sw_power_cap"],
            "held_s": {},
            "energy_j": 123456.789,
        }
    ]


def test_two_cards_sum_up_and_an_unknown_part_makes_the_sum_unknown(stub: Path) -> None:
    seen = look(stub, NVML_STUB_CARDS="2")
    assert [g["arch"] for g in seen["gpus"]] == ["Blackwell", "Ada"]
    assert seen["gpus"][1]["power_default_w"] == 130.0
    reading = seen["reading"]
    assert [card["memory_used_bytes"] for card in reading["cards"]] == [3000 * MIB, 500 * MIB]
    assert [card["compute_bytes"] for card in reading["cards"]] == [
        {"4242": 2048 * MIB, "77": 100 * MIB},
        {"4242": 400 * MIB, "99": 0},
    ]
    assert [card["power_w"] for card in reading["cards"]] == [187.5, None]
    assert [card["energy_j"] for card in reading["cards"]] == [123456.789, None]


def test_an_old_driver_answers_by_the_older_names(old_stub: Path) -> None:
    (card,) = look(old_stub)["reading"]["cards"]
    assert card["reasons"] == ["hw_thermal_slowdown", "sw_power_cap"]
    assert card["temperature_c"] == 66


def state(folder: Path, *lines: str) -> str:
    """A file of what the stub's cards do."""
    (folder / "state").write_text("\n".join(lines) + "\n")
    return str(folder / "state")


# Memory clocks as nvidia-smi tells them of these cards, widths and GB/s by their data sheets.
CARDS = [
    ("GeForce RTX 3060", 7501, 192, 360),
    ("GeForce RTX 3090", 9751, 384, 936),
    ("GeForce RTX 4090", 10501, 384, 1008),
    ("GeForce RTX 5090", 14001, 512, 1792),
    ("GeForce GTX 1080", 5005, 256, 320),
    ("L4", 6251, 192, 300),
    ("T4", 5001, 256, 320),
    ("V100", 877, 4096, 900),
    ("A100 40GB", 1215, 5120, 1555),
    ("H100 SXM", 2619, 5120, 3350),
    ("B200", 3996, 7680, 7680),
]


def test_bandwidths_of_cards_as_their_makers_state_them(stub: Path, tmp_path: Path) -> None:
    for card, clock, bits, gb_per_s in CARDS:
        told = state(tmp_path, f"0 memory_clock {clock}", f"0 bus_width {bits}")
        (gpu,) = look(stub, NVML_STUB_STATE=told)["gpus"]
        assert gpu["bandwidth_bytes_per_s"] == pytest.approx(gb_per_s * 1e9, rel=0.004), card
    told = state(tmp_path, "0 bus_width -")
    (gpu,) = look(stub, NVML_STUB_STATE=told)["gpus"]
    assert (gpu["bandwidth_bytes_per_s"], gpu["bandwidth_from"]) == (None, None)


def test_what_a_card_does(stub: Path, tmp_path: Path) -> None:
    told = state(
        tmp_path,
        "0 compute 42:500 43:-",
        "0 graphics 77:90",
        "0 using 42:93 77:4",
        "0 busy 95",
        "0 enforced 150000",
        "0 reasons 0x1a4",
        "0 held_power 2500000000",
        "0 held_thermal 0",
        "0 held_brake 7000000",
    )
    (card,) = look(stub, NVML_STUB_STATE=told)["reading"]["cards"]
    assert card["compute_bytes"] == {"42": 500 * MIB, "43": 0}
    assert (card["process_busy"], card["busy"]) == ({"42": 0.93, "77": 0.04}, 0.95)
    assert (card["limit_w"], card["enforced_limit_w"]) == (200, 150)
    assert card["reasons"] == [
        "display_clock_setting",
        "hw_power_brake",
        "sw_power_cap",
        "sw_thermal_slowdown",
    ]
    assert card["held_s"] == {"sw_power_cap": 2.5, "thermal": 0.0, "hw_power_brake": 0.007}


def test_memory_that_is_not_told(stub: Path, tmp_path: Path) -> None:
    # NVIDIA GB10: nvmlDeviceGetMemoryInfo is not supported, processes are told
    # (NVIDIA/dgx-spark-playbooks; "Memory-Usage: Not Supported" in nvidia-smi).
    seen = look(stub, NVML_STUB_STATE=state(tmp_path, "0 memory -", "0 compute 42:500"))
    assert seen["gpus"][0]["vram_bytes"] is None
    (card,) = seen["reading"]["cards"]
    assert card["memory_used_bytes"] is None
    assert card["compute_bytes"] == {"42": 500 * MIB}


@pytest.mark.parametrize(
    ("visible", "profile", "key"),
    [
        ("", "1g.5gb", "MIG-01000000-0000-5000-8000-000000000000"),
        ("MIG-02", "2g.10gb", "MIG-02000000-0000-5000-8000-000000000000"),
    ],
)
def test_a_slice_of_a_card(
    stub: Path, tmp_path: Path, visible: str, profile: str, key: str
) -> None:
    told = state(tmp_path, "0 mig 1g.5gb 2g.10gb", "0 memory 12", "0 compute 42:7", "0 using 42:7")
    seen = look(stub, NVML_STUB_STATE=told, CUDA_VISIBLE_DEVICES=visible)
    (gpu,) = seen["gpus"]
    assert (gpu["name"], gpu["mig_profile"]) == ("NVIDIA GeForce RTX 5070", profile)
    assert (gpu["vram_bytes"], gpu["power_limit_w"]) == (4864 * MIB, 200)
    (card,) = seen["reading"]["cards"]
    assert (card["key"], card["memory_used_bytes"]) == (key, 12 * MIB)
    assert card["compute_bytes"] == {"42": 7 * MIB}
    # Of the whole card, or not told of slices.
    assert (card["power_w"], card["energy_j"], card["limit_w"]) == (None, None, None)
    assert (card["busy"], card["process_busy"]) == (None, None)
    assert card["reasons"] == ["hw_thermal_slowdown", "sw_power_cap"]


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
    assert seen["reading"]["cards"] == []


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
    assert get_extra("nvidia") in available.hint


def set_cap(
    library: Path, folder: Path, watts: float, *, capabilities: str = "1ffffffffff", **stub: str
) -> dict[str, Any]:
    """What the probe tells before and after it caps the first of two cards."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/status").write_text(STATUS.format(capabilities))
    caps = folder / "caps"
    caps.write_text("200000 130000\n")
    environment = {"NVML_STUB_CARDS": "2", "NVML_STUB_CAPS": str(caps), **stub}
    seen: dict[str, Any] = ask(library, [CAP, str(folder), str(watts)], environment)
    return seen


def test_caps_and_setting_one(stub: Path, tmp_path: Path) -> None:
    seen = set_cap(stub, tmp_path, 150)
    assert seen["before"] == [
        {
            "gpu": "NVIDIA GeForce RTX 5070",
            "index": 0,
            "limit_w": 200.0,
            "default_w": None,
            "min_w": 100.0,
            "max_w": 300.0,
            "settable": True,
            "why": "",
        },
        {
            "gpu": "NVIDIA RTX 4000 Ada Generation",
            "index": 1,
            "limit_w": 130.0,
            "default_w": 130.0,
            "min_w": 100.0,
            "max_w": 130.0,
            "settable": True,
            "why": "",
        },
    ]
    assert "error" not in seen
    assert seen["after"] == [150, 130]


def test_only_an_administrator_may_cap(stub: Path, tmp_path: Path) -> None:
    # A root of a container: all that such a one has, less CAP_SYS_ADMIN.
    seen = set_cap(stub, tmp_path, 150, capabilities="00000000a80425fb", NVML_STUB_DENY="4")
    assert [cap["settable"] for cap in seen["before"]] == [False, False]
    assert "sudo nvidia-smi -i 1 -pl" in seen["before"][1]["why"]
    kind, message, hint = seen["error"]
    assert kind == "PutOff"
    assert "NVIDIA GeForce RTX 5070 may not be set" in message
    assert "CAP_SYS_ADMIN" in hint and "sudo nvidia-smi -i 0 -pl" in hint
    assert seen["after"] == [200, 130]


@pytest.mark.parametrize(
    ("watts", "environment", "error"),
    [
        (99, {}, ["InputError", "a power cap of 99 W is not what the card allows"]),
        (150, {"NVML_STUB_DENY": "15"}, ["PutOff", "a power cap of 150 W failed: GPU is lost"]),
    ],
)
def test_a_cap_that_the_driver_refuses(
    stub: Path, tmp_path: Path, watts: float, environment: dict[str, str], error: list[str]
) -> None:
    seen = set_cap(stub, tmp_path, watts, **environment)
    kind, message, hint = seen["error"]
    assert [kind, message] == [error[0], f"NVIDIA GeForce RTX 5070: {error[1]}"]
    assert "nvidia-smi -q -d POWER" in hint
    assert seen["after"] == [200, 130]


def test_a_card_without_settable_cap_is_not_among_the_caps(stub: Path) -> None:
    program = "import json; from tokrig.probes.nvidia import PROBE; print(json.dumps(PROBE.caps()))"
    assert ask(stub, [program], {"NVML_STUB_FIXED": "1"}) == []


def test_no_card_no_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvidia.NvidiaProbe().caps() == ()
