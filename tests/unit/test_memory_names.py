"""Memory as people name it."""

from __future__ import annotations

import pytest

from tokrig.naming import memory_gb, vram_gb
from tokrig.record.model import Gpu, Rig

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
