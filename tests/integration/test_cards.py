"""From a graphics card's driver to the verdict: the real NVML binding over a compiled stand-in.

Each case is what was there before the engine started, what was while it was measured, and what
must come of it. All run in one process: the binding keeps the library that it loaded first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.nvml import compile_stub

MIB = 1 << 20
QUIET = ["0 memory 500", "0 compute ", "0 graphics ", "0 using ", "0 busy 0", "0 reasons 0x1"]
# The engine is this process, "ENGINE"; "OTHER" is a real one, "GONE" a number that none has.
AT_WORK = [
    *("0 memory 3500", "0 compute ENGINE:3000", "0 graphics ", "0 using ENGINE:95"),
    *("0 busy 95", "0 reasons 0x0"),
]
SECOND = ["1 memory 500", "1 compute ", "1 graphics ", "1 using ", "1 busy 0", "1 reasons 0x1"]


def but(lines: list[str], *changes: str) -> list[str]:
    """The lines with those replaced or added whose words are the same."""
    words = {tuple(line.split(" ")[:2]): line for line in [*lines, *changes]}
    return list(words.values())


CASES: dict[str, dict[str, Any]] = {
    "alone": {"before": QUIET, "during": [AT_WORK], "seen": {"foreign_gpu_processes": 0}},
    # Xorg, a shell and a browser; NVIDIA/nvidia-docker#1264 has such a list.
    "desktop": {
        "before": but(QUIET, "0 graphics OTHER:300 900001:90", "0 busy 2"),
        "during": [but(AT_WORK, "0 graphics OTHER:300 900001:90", "0 using ENGINE:93 OTHER:2")],
        "seen": {"foreign_gpu_processes": 0, "graphics_processes": 2},
    },
    "desktop that plays a film": {
        "before": but(QUIET, "0 graphics OTHER:300", "0 busy 30"),
        "during": [but(AT_WORK, "0 graphics OTHER:300", "0 using ENGINE:70 OTHER:3")],
        "unverified": ["gpu_was_busy"],
    },
    "a game begun meanwhile": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 graphics OTHER:3000", "0 using ENGINE:50 OTHER:50")],
        "unverified": ["gpu_was_busy"],
    },
    # A model server that holds its memory and rests.
    "another program that rests": {
        "before": but(QUIET, "0 compute OTHER:4000"),
        "during": [but(AT_WORK, "0 compute ENGINE:3000 OTHER:4000")],
        "seen": {"foreign_gpu_processes": 0},
    },
    "another program that computes": {
        "before": but(QUIET, "0 compute OTHER:4000", "0 using OTHER:3"),
        "during": [but(AT_WORK, "0 compute ENGINE:3000 OTHER:4000", "0 using ENGINE:60 OTHER:40")],
        "reasons": ["foreign_gpu_load"],
    },
    "another program that loads a model": {
        "before": but(QUIET, "0 compute OTHER:100", "0 using -"),
        "during": [but(AT_WORK, "0 compute ENGINE:3000 OTHER:4000", "0 using -")],
        "reasons": ["foreign_gpu_load"],
    },
    # Old drivers tell no use by process: what rests cannot be told from what computes.
    "another program, and no word of its use": {
        "before": but(QUIET, "0 compute OTHER:4000", "0 using -"),
        "during": [but(AT_WORK, "0 compute ENGINE:3000 OTHER:4000", "0 using -")],
        "unchecked": ["gpu_processes"],
    },
    # The engine under its number outside (NVIDIA/nvidia-docker#179, #1483).
    "container": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 compute GONE:3000", "0 using GONE:95")],
        "unchecked": ["gpu_processes"],
    },
    "container whose numbers mean another process here": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 compute OTHER:3000", "0 using OTHER:95")],
        "unchecked": ["gpu_processes"],
    },
    "container beside another one that computes": {
        "before": but(QUIET, "0 compute GONE:900"),
        "during": [but(AT_WORK, "0 compute GONE:900 900002:3000", "0 using GONE:40 900002:60")],
        "reasons": ["foreign_gpu_load"],
    },
    "a job on the other card": {
        "before": [*QUIET, *but(SECOND, "1 compute OTHER:9000", "1 busy 100")],
        "during": [
            [
                *AT_WORK,
                *but(
                    SECOND,
                    "1 compute OTHER:9000",
                    "1 using OTHER:100",
                    "1 busy 100",
                    "1 reasons 0x40",
                ),
            ]
        ],
        "seen": {"foreign_gpu_processes": 0, "throttled_share": 0.0, "throttle_reasons": []},
    },
    # llama.cpp asks every card for its free memory, which opens each: a context is no model.
    "a job on the other card, which the engine has opened": {
        "before": [*QUIET, *but(SECOND, "1 compute OTHER:9000")],
        "during": [
            [*AT_WORK, *but(SECOND, "1 compute OTHER:9000 ENGINE:200", "1 using OTHER:100")]
        ],
        "seen": {"foreign_gpu_processes": 0},
    },
    "no list of processes": {
        "before": but(QUIET, "0 compute -", "0 graphics -", "0 using -"),
        "during": [but(AT_WORK, "0 compute -", "0 graphics -", "0 using -")],
        "unchecked": ["gpu_processes"],
    },
    # noonghunna/club-3090#103: every sample under a cap of its owner.
    "a cap that binds": {
        "before": but(QUIET, "0 reasons 0x4"),
        "during": [but(AT_WORK, "0 reasons 0x4", "0 power 196000", "0 enforced 200000")],
        "seen": {
            "throttle_reasons": ["sw_power_cap"],
            "throttled_share": 0.0,
            "power_limited_share": 1.0,
            "gpu_power_over_limit": 0.98,
        },
    },
    "a cap that binds half of the time, by the driver's counter": {
        "before": but(QUIET, "0 held_power 5000000000"),
        "during": [
            but(AT_WORK, "0 held_power 5000000000"),
            but(AT_WORK, "0 held_power 5000000000+HALF"),
        ],
        "seen": {"throttled_share": 0.0, "power_limited_share": pytest.approx(0.5, abs=0.15)},
    },
    "less enforced than set": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 enforced 150000")],
        "seen": {"gpu_enforced_limit_w": 150.0},
    },
    "heat": {
        "before": QUIET,
        "during": [AT_WORK, but(AT_WORK, "0 reasons 0x20")],
        "reasons": ["throttled"],
    },
    "heat, by the driver's counter, too short to matter": {
        "before": but(QUIET, "0 held_thermal 7"),
        "during": [
            but(AT_WORK, "0 held_thermal 7"),
            but(AT_WORK, "0 held_thermal 1000007", "0 reasons 0x20"),
        ],
        "seen": {"throttle_reasons": ["sw_thermal_slowdown"]},
    },
    "hardware slowdown": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 reasons 0x8")],
        "reasons": ["throttled"],
    },
    "power brake": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 reasons 0x88")],
        "reasons": ["throttled"],
    },
    "clocks that the user set, a display, cards in step": {
        "before": QUIET,
        "during": [but(AT_WORK, "0 reasons 0x113")],
        "seen": {"throttled_share": 0.0, "power_limited_share": 0.0},
    },
    # NVIDIA GB10: no figures of memory, a list of processes.
    "memory that is not told": {
        "before": but(QUIET, "0 memory -"),
        "during": [but(AT_WORK, "0 memory -")],
        "seen": {"foreign_gpu_processes": 0},
    },
    "a slice of a card": {
        "before": but(QUIET, "0 mig 1g.5gb 2g.10gb"),
        "during": [but(AT_WORK, "0 mig 1g.5gb 2g.10gb", "0 power 300000")],
        "seen": {"gpu_power_mean_w": None, "foreign_gpu_processes": 0, "throttled_share": 0.0},
    },
    "a run on the processor beside a card at work": {
        "api": "cpu",
        "before": but(QUIET, "0 compute OTHER:9000", "0 busy 100"),
        "during": [but(QUIET, "0 compute OTHER:9000", "0 using OTHER:99", "0 reasons 0x40")],
        "unchecked": ["throttle"],
    },
}

DRIVER = """
import json, os, sys, threading, time
from dataclasses import fields, replace
from pathlib import Path
import psutil
from tests.unit.test_checks import SOUND
from tests.unit.samples import sample
from tokrig.probes.nvidia import NvidiaProbe
from tokrig.record import checks
from tokrig.record.model import Interference
from tokrig.run import monitor
from tokrig.run.assemble import interference

monitor.PERIOD_S = 0.02
state = Path(os.environ["NVML_STUB_STATE"])
own = psutil.Process()

def say(lines, window_s):
    text = "\\n".join(lines)
    names = {"ENGINE": own.pid, "OTHER": os.getppid(), "GONE": 2**22 + 7,
             "5000000000+HALF": 5 * 10**9 + int(window_s / 2 * 1e9)}
    for name, number in names.items():
        text = text.replace(name, str(number))
    state.with_suffix(".new").write_text(text + "\\n")
    os.replace(state.with_suffix(".new"), state)

def verdict(case):
    say(case["before"], 0)
    probe = NvidiaProbe()
    alone = monitor.Monitor([probe], list)
    alone.look_before(0.02)
    say(case["during"][0], 0)
    watching = monitor.Monitor([probe], lambda: [own], alone.idle, alone.before, True)
    began = time.monotonic()
    with watching.watching():
        time.sleep(0.15)
        for lines in case["during"][1:]:
            say(lines, time.monotonic() - began + 0.15)
            time.sleep(0.15)
            say(lines, time.monotonic() - began)  # as long as it was, on a busy machine, too
    api = case.get("api", "cuda")
    seen = interference([watching.observed(1.0, 0.01, api, [])])
    # This test is about cards: what its own process waited for is no part of it.
    calm = dict.fromkeys(("foreign_wait_share", "thread_wait_share", "steal_share",
                          "client_wait_share", "other_cores_mean"), 0.0)
    seen = seen.model_copy(update=calm)
    backend = SOUND.backend.model_copy(update={"api": api})
    found = checks.judge([sample(), sample()], replace(SOUND, backend=backend, interference=seen))
    return {"validity": found.model_dump(), "seen": seen.model_dump()}

cases = json.loads(Path(sys.argv[1]).read_text())
print(json.dumps({name: verdict(case) for name, case in cases.items()}))
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cards")
    compile_stub(folder)
    told = {name: {k: v for k, v in case.items() if k != "seen"} for name, case in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(told))
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder / "cases.json")],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(folder),
            "NVML_STUB_STATE": str(folder / "state"),
            "NVML_STUB_CARDS": "2",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), *filter(None, sys.path)]
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_on(verdicts: dict[str, Any], name: str) -> None:
    case, found = CASES[name], verdicts[name]
    for key in ("reasons", "unverified", "unchecked"):
        assert found["validity"][key] == case.get(key, []), found["seen"]
    for key, value in case.get("seen", {}).items():
        assert found["seen"][key] == value, key
