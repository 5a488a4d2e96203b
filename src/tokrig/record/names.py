"""What things are called on pages and in addresses: short names of models, machines, engines.

Pure, and without the record's model, which takes a while to load. The same words everywhere:
the command line, the pages, the charts, the feed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tokrig.units import human_bytes, slug

if TYPE_CHECKING:
    from tokrig.record.model import Cpu, Gpu, Memory, Rig

_VENDORS = re.compile(r"^(NVIDIA|AMD|Intel\(R\)|Intel|Apple)\s+")
_NOISE = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor)\b|\s\d+-Core\b|@.*$")
MAX_SLUG = 80
# The id of every machine that nobody named: two such are never known to be the same one.
UNKNOWN_RIG = "unknown-rig"
# A limit that leaves all but this much of the memory takes nothing that counts.
NEGLIGIBLE_SHARE = 0.07


class Named(Protocol):
    """A model: of a record, or of a line in a list of records."""

    @property
    def family(self) -> str: ...

    @property
    def variant(self) -> str | None: ...


class Built(Protocol):
    """An engine, likewise."""

    @property
    def engine(self) -> str: ...

    @property
    def build(self) -> str | None: ...

    @property
    def api(self) -> str | None: ...


def model_name(model: Named) -> str:
    """``Gemma-4 E2B-it``; a family that ends in its variant is not said twice."""
    if model.variant is None or model.family.endswith(model.variant):
        return model.family
    return f"{model.family} {model.variant}"


def backend_name(backend: Built) -> str:
    """``llama.cpp b9174 (cuda)``."""
    name = " ".join(filter(None, (backend.engine, backend.build)))
    return f"{name} ({backend.api})" if backend.api else name


def gpu_name(gpu: Gpu) -> str:
    """``GeForce RTX 5070``: without the vendor, which the name implies; ``… MIG 1g.10gb`` where
    only a slice of the card was there."""
    mig = f" MIG {gpu.mig_profile}" if gpu.mig_profile else ""
    return _VENDORS.sub("", gpu.name) + mig


def cpu_name(rig: Rig) -> str:
    """``Ryzen 9 7900``; the id where the processor is not known."""
    model = rig.cpu.model
    if not model:
        return rig.id
    short = " ".join(_NOISE.sub(" ", model).split())
    return _VENDORS.sub("", short) or model


def limited_cpus(cpu: Cpu) -> float | None:
    """How many logical CPUs may be used where those are not all; else None."""
    usable = cpu.usable_cpus
    return usable if usable and cpu.threads and usable < cpu.threads else None


def limited_bytes(memory: Memory) -> int | None:
    """How much memory may be used where that is noticeably not all; else None."""
    usable, total = memory.usable_bytes, memory.total_bytes
    if not usable or (total is not None and usable > total * (1 - NEGLIGIBLE_SHARE)):
        return None
    return usable


def gpus_known(rig: Rig) -> bool:
    """Whether an empty list of cards means that there is none."""
    return bool(rig.gpus) or rig.facts_from in (None, "probes")


def hardware_name(rig: Rig) -> str:
    """``GeForce RTX 5070 · 11.94 GiB``, ``2 × … each``, or the processor and its memory; then how
    many CPUs could be used where a limit left less than there are."""
    if rig.id == UNKNOWN_RIG:
        return "machine not known"
    cpus = limited_cpus(rig.cpu)
    limit = f"{cpus:g} CPU{'' if cpus == 1 else 's'}" if cpus else ""
    if not rig.gpus:
        memory = limited_bytes(rig.memory) or rig.memory.total_bytes
        parts = [cpu_name(rig), limit, human_bytes(memory) if memory is not None else ""]
    else:
        parts = [_cards(rig.gpus), limit]
    return " · ".join(filter(None, parts))


def _cards(gpus: Sequence[Gpu]) -> str:
    first = gpus[0]
    alike = all((gpu.name, gpu.vram_bytes) == (first.name, first.vram_bytes) for gpu in gpus)
    if not alike:
        return " + ".join(_with_memory(gpu) for gpu in gpus)
    if len(gpus) == 1:
        return _with_memory(first)
    return f"{len(gpus)} × {_with_memory(first)} each"


def _with_memory(gpu: Gpu) -> str:
    memory = f" · {human_bytes(gpu.vram_bytes)}" if gpu.vram_bytes is not None else ""
    return gpu_name(gpu) + memory


def power_share(gpu: Gpu) -> float | None:
    """Power limit now / highest limit, 0 … 1; None where either is unknown."""
    if gpu.power_limit_w is None or not gpu.power_max_w:
        return None
    return gpu.power_limit_w / gpu.power_max_w


def address(text: str) -> str:
    """A name as part of an address: lower case, hyphens, at most 80 characters.

    Names that differ only in what an address cannot hold get a piece of their digest, so that
    two models never share a page: ``slug("Ä") == slug("Ö")``, ``address("Ä") != address("Ö")``.
    """
    plain = slug(text)
    if len(plain) <= MAX_SLUG and re.fullmatch(r"[A-Za-z0-9._ -]+", text):
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[:MAX_SLUG]}-{digest}"


def filter_word(text: str) -> str:
    """A name as the value of a filter: ``llama.cpp-b9174-cuda``. Two names that differ only in
    marks share it, and then a filter lets both through."""
    return slug(text)[:MAX_SLUG]


def model_address(model: Named) -> str:
    """The page of a model: ``gemma-4-e2b-it``."""
    return address(model_name(model))
