"""Which cards matter and who else is on them, from AMD's files: an APU with borrowed memory, a
discrete card beside it. NVIDIA's cards are in tests/integration/test_cards.py."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.unit.test_probes_amd import (
    APU_FILES,
    CARD_FILES,
    at_slot,
    client,
    fdinfo,
    metrics,
    write,
)
from tokrig.probes import Card
from tokrig.probes.amd import AmdProbe
from tokrig.record import conditions
from tokrig.record.model import Interference
from tokrig.run.interference import Look, holding_down, holding_model, sharing
from tokrig.units import GIB

APU, CARD = "0000:c1:00.0", "0000:03:00.0"
ENGINE, OTHER = 4242, os.getppid()


@pytest.fixture
def machine_of_two(tmp_path: Path) -> Path:
    at_slot(tmp_path, 0, CARD, {**CARD_FILES, "gpu_busy_percent": "0\n"})
    at_slot(tmp_path, 1, APU, {**APU_FILES, "gpu_busy_percent": "97\n"})
    held(tmp_path, APU, 0)
    (tmp_path / f"sys/devices/{CARD}/gpu_metrics").write_bytes(metrics(1, 3, 0))
    return tmp_path


def held(root: Path, address: str, power: int, heat: int = 0) -> None:
    """The counters of an APU's metrics, format 3.0."""
    raw = bytearray(metrics(3, 0, 0))
    struct.pack_into("<7I", raw, 228, 0, power, 0, 0, 0, heat, 0)
    (root / f"sys/devices/{address}/gpu_metrics").write_bytes(raw)


def seen(probe: AmdProbe, at_s: float) -> Look:
    found = {card.key: card for card in probe.read().cards}
    return Look(at_s, found, frozenset({ENGINE}), frozenset({ENGINE, OTHER}))


def test_an_apu_holds_the_model_in_borrowed_memory(machine_of_two: Path) -> None:
    probe = AmdProbe(machine_of_two)
    before = seen(probe, 0).cards
    lines = ("drm-resident-vram:\t100 MiB", "drm-resident-gtt:\t5000 MiB")
    fdinfo(machine_of_two, ENGINE, 3, client(1, *lines, card=APU))
    moments = [seen(probe, 1)]
    held(machine_of_two, APU, power=40)
    moments.append(seen(probe, 2))
    used = holding_model(before, moments, "vulkan")
    assert used == {APU}
    found = holding_down(moments, used)
    assert found["throttle_reasons"] == ["power_limit"]
    assert (found["throttled_share"], found["power_limited_share"]) == (0.0, 0.5)
    held(machine_of_two, APU, power=40, heat=9)
    found = holding_down([*moments, seen(probe, 3)], used)
    share = found["throttled_share"]
    assert conditions.throttled(Interference(throttled_share=share)) is True


@pytest.mark.parametrize(("bytes_held", "foreign"), [(GIB, None), (9 * GIB, 1)])
def test_who_computes_with_rocm_beside_it(
    machine_of_two: Path, bytes_held: int, foreign: int | None
) -> None:
    """Files of other users are closed, so nobody seen is not nobody there; who takes ever more
    memory is seen all the same."""
    node = machine_of_two / "sys/class/kfd/kfd/topology/nodes/1"
    write(node / "gpu_id", "51737\n")
    write(node / "properties", "location_id 768\ndomain 0\n")
    theirs = machine_of_two / f"sys/class/kfd/kfd/proc/{OTHER}/vram_51737"
    write(theirs, f"{GIB}\n")
    write(machine_of_two / f"sys/class/kfd/kfd/proc/{ENGINE}/vram_51737", f"{4 * GIB}\n")
    probe = AmdProbe(machine_of_two)
    before = seen(probe, 0).cards
    moments = [seen(probe, 1)]
    write(theirs, f"{bytes_held}\n")
    moments.append(seen(probe, 2))
    used = holding_model(before, moments, "rocm")
    assert used == {CARD}
    assert sharing(before, moments, used, started=True)["foreign_gpu_processes"] == foreign


def test_cards_by_what_grew_by_name_or_all() -> None:
    before = {key: Card(key, f"Made {key}", memory_used_bytes=GIB) for key in ("GPU-1", "GPU-2")}
    grown = {**before, "GPU-2": Card("GPU-2", "Made GPU-2", memory_used_bytes=5 * GIB)}
    assert holding_model(before, [Look(1, grown)], "cuda") == {"GPU-2"}
    same = [Look(1, before)]
    assert holding_model(before, same, "cuda", ["CUDA0: Made GPU-1"]) == {"GPU-1"}
    assert holding_model(before, same, "cuda", ["CUDA0"]) == set(before)
    assert holding_model(before, same, "cpu") == frozenset()
    assert holding_model({}, [], "cuda") == frozenset()


def test_an_attached_server_may_stand_in_the_list_of_before() -> None:
    """Its processes are not known here: whoever computes may be it."""
    card = Card("a", compute_bytes={7: GIB}, process_busy={7: 0.9})
    moments = [Look(1, {"a": card}), Look(2, {"a": card})]
    assert sharing({"a": card}, moments, "a", started=False)["foreign_gpu_processes"] is None
    assert sharing({"a": card}, moments, "a", started=True)["foreign_gpu_processes"] == 1
