"""Memory as people name it."""

from __future__ import annotations

import pytest

from tokrig.naming import hardware_name, memory_gb, memory_text, vram_gb
from tokrig.record.model import Cpu, Gpu, Memory, Rig

# What drivers and kernels show of memories that are sold as so many GB: nvidia-smi of a 5070, a
# 1080 Ti, a T4 and an A10 with ECC, an L40S, an A100, an H200; MemTotal of PCs.
SHOWN = [
    (11.94, 12), (10.91, 11), (14.75, 16), (22.49, 24), (44.99, 48), (79.25, 80), (140.4, 141),
    (191.98, 192), (7.6, 8), (31.84, 32), (23.54, 24), (62.7, 64), (125.6, 128), (503.5, 512),
]  # fmt: skip


@pytest.mark.parametrize(("gib", "sold"), SHOWN)
def test_a_memory_is_named_as_it_is_sold(gib: float, sold: int) -> None:
    assert memory_gb(round(gib * 2**30)) == sold


def test_what_is_no_size_on_sale_is_rounded() -> None:
    assert memory_gb(round(13.4 * 2**30)) == 13
    assert memory_gb(1) == 1


def test_cards_add_up_and_one_unknown_leaves_the_sum_unknown() -> None:
    card = Gpu(name="A", vendor="nvidia", vram_bytes=round(23.99 * 2**30))
    assert vram_gb(Rig(id="a", gpus=[card, card])) == 48
    assert vram_gb(Rig(id="a", gpus=[card, Gpu(name="B", vendor="amd")])) is None
    assert vram_gb(Rig(id="a", facts_from="probes")) == 0
    assert vram_gb(Rig(id="a", facts_from="nobody")) is None


def size(gib: float) -> int:
    return round(gib * 2**30)


@pytest.mark.parametrize(
    ("gib", "told"), [(0.5, "512 MB"), (11.94, "12 GB"), (1007.5, "1 TB"), (1511.6, "1.5 TB")]
)
def test_a_memory_is_told_with_its_unit(gib: float, told: str) -> None:
    assert memory_text(size(gib)) == told


def test_the_kind_of_memory_is_told() -> None:
    """MemTotal and mem_info_vram_total of a Framework Desktop of 128 GB, of which firmware gives
    its graphics half a GiB or 96; a Mac, a Jetson Orin."""
    ryzen = Cpu(model="AMD Ryzen 9 7900 12-Core Processor")
    assert hardware_name(Rig(id="a", cpu=ryzen, memory=Memory(total_bytes=size(30.4)))) == (
        "Ryzen 9 7900 · 32 GB RAM"
    )

    def shared(vendor: str, name: str, own: float | None, main: float) -> str:
        card = Gpu.model_validate({"name": name, "vendor": vendor, "unified_memory": True})
        card = card.model_copy(update={"vram_bytes": size(own) if own else None})
        return hardware_name(Rig(id="a", memory=Memory(total_bytes=size(main)), gpus=[card]))

    for own, main in ((0.5, 124.9), (96, 31.1)):
        assert shared("amd", "AMD Radeon 8060S", own, main) == "Radeon 8060S · 128 GB unified"
    assert shared("apple", "Apple M4 Max", 48, 64) == "M4 Max · 64 GB unified"
    assert shared("nvidia", "Orin", None, 61.4) == "Orin · 64 GB unified"


def test_a_name_that_tells_its_memory_is_not_told_it_twice() -> None:
    def named(name: str, gib: float, mig: str | None = None) -> str:
        card = Gpu(name=name, vendor="nvidia", mig_profile=mig, vram_bytes=size(gib))
        return hardware_name(Rig(id="a", gpus=[card]))

    assert named("NVIDIA H100 80GB HBM3", 79.6) == "H100 80GB HBM3"
    assert named("NVIDIA H100", 9.75, "1g.10gb") == "H100 MIG 1g.10gb · 10 GB"
    assert named("NVIDIA GeForce GTX 1060 3GB", 2.95) == "GeForce GTX 1060 3GB"
    assert named("NVIDIA GeForce GTX 1060 6GB", 2.95) == "GeForce GTX 1060 6GB · 3 GB"
