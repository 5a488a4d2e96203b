"""The machine that a file names: a rig of what stands there, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tokrig.naming import UNKNOWN_RIG
from tokrig.record.model import Cpu, Gpu, Memory, Rig
from tokrig.rig import default_rig_id
from tokrig.units import GIB

VENDORS: tuple[tuple[Literal["nvidia", "amd", "intel", "apple"], tuple[str, ...]], ...] = (
    ("nvidia", ("nvidia", "geforce", "tesla", "quadro", "rtx ")),
    ("amd", ("amd", "radeon", "instinct")),
    ("intel", ("intel", "arc ")),
    ("apple", ("apple",)),
)


def machine(
    cpu: str | None = None,
    gpus: Sequence[Gpu] = (),
    *,
    cores: int | None = None,
    threads: int | None = None,
    memory_bytes: float | None = None,
    os: str | None = None,
    kernel: str | None = None,
) -> Rig:
    """A rig by what a file says of it. Its id says that nobody looked: ``stated-…``, made of the
    names; that of no machine where the file names neither processor nor graphics card."""
    rig = Rig(
        id=UNKNOWN_RIG,
        facts_from="file" if cpu or gpus else "nobody",
        cpu=Cpu(model=cpu, cores=cores or None, threads=threads or None),
        memory=Memory(total_bytes=int(memory_bytes) if memory_bytes else None),
        gpus=list(gpus),
        os=os,
        kernel=kernel,
    )
    if not (cpu or gpus):
        return rig
    return rig.model_copy(update={"id": f"stated-{default_rig_id(rig)}"[:80].rstrip("-.")})


def card(name: str, vram_gb: float | None = None, *, unified: bool | None = None) -> Gpu:
    """A graphics card by its name; its memory in GiB, which tools call GB."""
    vram = int(vram_gb * GIB) if vram_gb else None
    return Gpu(name=name, vendor=_vendor(name), vram_bytes=vram, unified_memory=unified)


def _vendor(name: str) -> Literal["nvidia", "amd", "intel", "apple", "other"]:
    words = f"{name.lower()} "
    return next((vendor for vendor, found in VENDORS if any(w in words for w in found)), "other")
