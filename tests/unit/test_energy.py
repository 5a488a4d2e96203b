"""Energy is that of the device that computed, over the time that was measured, or none."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from tokrig.probes import Card, Reading
from tokrig.record.model import Gpu, Interference, Rig
from tokrig.run import monitor
from tokrig.run.assemble import energy
from tokrig.run.journal import Observed
from tokrig.run.monitor import Idle, Monitor

CPU, GPU, BOTH = frozenset({"cpu"}), frozenset({"gpu"}), frozenset({"cpu", "gpu"})
SEEN = Observed(
    wall_s=9.0,
    window_s=10.0,
    energy_j={"gpu": 1000.0, "package": 400.0},
    idle_w={"gpu": 25.0, "package": 10.0},
)


def test_each_device_has_its_own() -> None:
    found = energy([SEEN], 500, GPU)
    assert found is not None
    assert (found.scope, found.total_j, found.j_per_output_token) == ("gpu", 1000.0, 2.0)
    # 25 W over the ten seconds that were counted.
    assert found.idle_subtracted_j_per_output_token == 1.5
    found = energy([SEEN, SEEN], 1000, CPU)
    assert found is not None
    assert (found.scope, found.total_j, found.j_per_output_token) == ("package", 800.0, 0.8)
    assert found.idle_subtracted_j_per_output_token == 0.6


@pytest.mark.parametrize(
    ("observed", "computed"),
    [
        # A processor without a counter beside an idle card; a card without one.
        ([Observed(energy_j={"gpu": 250.0})], CPU),
        ([Observed(energy_j={"package": 250.0})], GPU),
        ([SEEN, Observed()], GPU),
        # Both computed: neither tells it all. Nobody tells what did.
        ([SEEN], BOTH),
        ([SEEN], frozenset()),
        ([], GPU),
    ],
)
def test_none_where_it_is_not_known(observed: list[Observed], computed: frozenset[str]) -> None:
    assert energy(observed, 500, computed) is None


class Counting:
    """Two cards and a processor that take constant watts."""

    name = "made"

    def read(self) -> Reading:
        now_s = time.monotonic()
        held = {os.getpid(): 1 << 30}
        return Reading(
            cards=(
                Card("a", energy_j=now_s * 300, compute_bytes=held, busy=0.0),
                Card("b", energy_j=now_s * 2500, compute_bytes={}, busy=0.5),
            ),
            package_j=now_s * 65,
        )


def test_only_the_cards_that_hold_the_model_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "PERIOD_S", 0.02)
    monkeypatch.setattr(monitor, "MIN_ENERGY_WINDOW_S", 0.05)
    watch = Monitor([Counting()], lambda: [psutil.Process()])  # type: ignore[list-item]
    watch.look_before(0.04)
    with watch.watching():
        time.sleep(0.1)
    seen = watch.observed(0.1, 0.0, "cuda")
    assert seen.energy_j["gpu"] == pytest.approx(300 * seen.window_s, rel=0.5)
    assert seen.energy_j["package"] == pytest.approx(65 * seen.window_s, rel=0.5)
    assert seen.idle_w == pytest.approx({"gpu": 300, "package": 65}, rel=0.5)
    assert seen.interference.gpu_busy_before == 0.0  # the other card's is no matter


def test_a_short_window_has_none() -> None:
    watch = Monitor([Counting()], list, Idle({"a": 1.0}))  # type: ignore[list-item]
    with watch.watching():
        pass
    assert watch.observed(0.0, 0.0, "cuda").energy_j == {}


def test_what_a_person_should_know_although_it_is_no_fault() -> None:
    rig = Rig(id="r", gpus=[Gpu(name="Made Card", vendor="nvidia", power_limit_w=300)])
    seen = Interference(graphics_processes=3, gpu_enforced_limit_w=250.0, power_limited_share=0.97)
    assert monitor.remarks(Observed(interference=seen), rig) == [
        "3 programs draw on the graphics card, as a desktop does",
        "the graphics card's driver enforces 250 W, less than the 300 W that are set",
        "its power limit held the graphics card down most of the time",
    ]
    calm = Interference(graphics_processes=0, gpu_enforced_limit_w=300.0, power_limited_share=0.01)
    assert monitor.remarks(Observed(interference=calm), rig) == []
