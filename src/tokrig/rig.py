"""This machine as a record sees it: the facts of all probes, and a name for it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tokrig import registry
from tokrig.bandwidth import with_measured
from tokrig.naming import UNKNOWN_RIG, limited_bytes, limited_cpus
from tokrig.probes import Facts, Probe
from tokrig.probes.linux import PROBE as LINUX
from tokrig.record.model import Cpu, Gpu, Memory, Rig
from tokrig.units import GIB, slug

# Sizes that memory is sold in. A machine shows a little less than it has: firmware, kernel and
# integrated graphics keep some.
_SIZES = (
    "1 2 3 4 6 8 12 16 18 24 32 36 48 64 80 96 112 128 160 192 224 256 320 384 448 512 640 768"
    " 1024 1152 1536 2048 3072 4096"
)
MEMORY_SIZES_GB = tuple(map(int, _SIZES.split()))
HIDDEN_SHARE = 0.07
# A Jetson sets aside more of its one memory, for firmware and graphics.
JETSON_HIDDEN_SHARE = 0.15

# Integrated graphics of desktop processors keep this much or less; they name no rig.
SMALL_VRAM = 2 * GIB
WHOLE_SIZE = r"[\s-]+\d+\s*GB\b"


def probe_rig(rig_id: str | None = None) -> Rig:
    """Facts of all probes, merged; ``rig_id`` (made safe as a file name) or a name from the
    hardware becomes the id. Probes that find nothing add nothing. What may be used is that of
    this process, whose children inherit it; the bandwidth of main memory is known where it was
    measured here."""
    probes: list[Probe] = [registry.load("probes", n, "PROBE") for n in registry.names("probes")]
    return _named(with_measured(merge([probe.facts() for probe in probes])), rig_id)


def rig_of_server(rig_id: str | None, process: int | None) -> Rig:
    """The same for a server that somebody else started on this machine: what may be used is that
    of its process, and not known where the process cannot be seen (None)."""
    rig = probe_rig()
    its = LINUX.facts(str(process)) if process is not None else Facts()
    cpus = its.cpu.usable_cpus if its.cpu else None
    room = its.memory.usable_bytes if its.memory else None
    changed = {
        "cpu": rig.cpu.model_copy(update={"usable_cpus": cpus}),
        "memory": rig.memory.model_copy(update={"usable_bytes": room}),
    }
    return _named(rig.model_copy(update=changed), rig_id)


def rig_elsewhere(rig_id: str | None, stated: Rig | None) -> Rig:
    """A machine that no probe here can look at: what its user states of it, if anything."""
    told = {"facts_from": "user" if stated else "nobody"}
    name = {"id": slug(rig_id) if rig_id else UNKNOWN_RIG}
    return (stated or Rig(id=UNKNOWN_RIG)).model_copy(update=told | name)


def _named(rig: Rig, rig_id: str | None) -> Rig:
    return rig.model_copy(update={"id": slug(rig_id) if rig_id else default_rig_id(rig)})


def merge(facts: list[Facts]) -> Rig:
    """One rig without a name: of each part the first that is known; all GPUs, largest first."""

    def first(name: str) -> Any:
        return next((found for one in facts if (found := getattr(one, name))), None)

    return Rig(
        id="unnamed",
        facts_from="probes",
        cpu=first("cpu") or Cpu(),
        memory=first("memory") or Memory(),
        gpus=sorted((gpu for f in facts for gpu in f.gpus), key=lambda g: -(g.vram_bytes or 0)),
        **{name: first(name) for name in ("os", "kernel", "board", "virtualization")},
    )


def default_rig_id(rig: Rig) -> str:
    """A file-name-safe name from the hardware, the same on every machine of the same make.

    ``geforce-rtx-5070-12gb``, ``2x-geforce-rtx-3090-24gb``; without a GPU of its own memory
    ``amd-ryzen-9-7900-12c-32gb``. Where less of the processor or the memory may be used than is
    there, that much: ``amd-epyc-7643-4t-16gb``, ``h100-hbm3-80gb-with-4t-16gb`` (``t``: logical
    CPUs). Never from the host name.
    """
    cpus, memory = limited_cpus(rig.cpu), limited_bytes(rig.memory)
    gpus = [g for g in rig.gpus if g.vram_bytes is None or g.vram_bytes > SMALL_VRAM]
    hidden = HIDDEN_SHARE
    if gpus and rig.board and (rig.cpu.soc or "").startswith("nvidia,tegra"):
        # One chip on modules of many sizes, whose graphics have no memory of their own.
        parts = [_gpu_words(Gpu(name=rig.board, vendor="nvidia"))]
        hidden = HIDDEN_SHARE if memory else JETSON_HIDDEN_SHARE
        memory = memory or rig.memory.total_bytes
    elif gpus:
        counts = Counter(_gpu_words(g) for g in gpus)
        parts = [" and ".join(f"{n}x {w}" if n > 1 else w for w, n in counts.items())]
        if cpus or memory:
            parts.append("with")
    else:
        parts = [_cpu_words(rig.cpu.model)]
        memory = memory or rig.memory.total_bytes
    if cpus:
        parts.append(f"{cpus:g}t")
    elif not gpus and (rig.cpu.cores or rig.cpu.threads):
        parts.append(f"{rig.cpu.cores}c" if rig.cpu.cores else f"{rig.cpu.threads}t")
    if memory:
        parts.append(f"{_sold_gb(memory, hidden)}gb")
    return slug(" ".join(parts))


def _gpu_words(gpu: Gpu) -> str:
    # "AMD GPU 0x744c" without its vendor would say nothing.
    name = re.sub(r"^(NVIDIA|AMD|Intel)\s+(?!GPU\b)", "", _without_marks(gpu.name))
    if gpu.mig_profile:
        # "H100 80GB HBM3" is the whole card's name, with its memory; a profile names its own.
        return f"{re.sub(WHOLE_SIZE, '', name)} mig {gpu.mig_profile}"
    if gpu.vram_bytes is None:
        return name
    # "H100 80GB HBM3" already holds its size; the size is said once, at the end.
    name = re.sub(WHOLE_SIZE, "", name)
    return f"{name} {round(gpu.vram_bytes / GIB)}gb"


def _cpu_words(model: str | None) -> str:
    if not model:
        return "unknown-cpu"
    name = re.sub(r"\bCPU\b|@.*", " ", _without_marks(model))
    name = re.sub(r"\b(\d+|Dual|Quad|Six|Eight)-Core\b.*", "", name, flags=re.IGNORECASE)
    name = re.sub(r"\s(w/|with)\s.*", "", name)
    name = re.sub(r"\b\d+x\s", "", name)  # how many cores of each kind
    return re.sub(r"^\d+th Gen\s+", "", name).strip()


def _without_marks(name: str) -> str:
    return re.sub(r"\((R|TM|C)\)|®|™", " ", name, flags=re.IGNORECASE).strip()


def _sold_gb(total_bytes: int, hidden: float = HIDDEN_SHARE) -> int:
    """The memory size as sold: the next common one when no more hides, else rounded."""
    gib = total_bytes / GIB
    for size in MEMORY_SIZES_GB:
        if gib <= size:
            return size if gib >= size * (1 - hidden) else max(1, round(gib))
    return round(gib)
