"""Is the model where it should be: in the GPU's memory, or, on a CPU, in main memory at all?

METHODOLOGY, run hygiene 6. The judgement is pure; ``look`` reads probes and processes. Tables of
which a token looks up single rows (input embeddings) stay in main memory on purpose, and on disk
until a row is needed: their bytes are not expected anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tokrig.backends import Engine, Launch
from tokrig.errors import InputError, ModelError
from tokrig.models import gguf, needs
from tokrig.probes import Probe
from tokrig.record.model import LoadMemory, Model
from tokrig.record.placement import loaded_bytes
from tokrig.units import MIB, human_bytes

if TYPE_CHECKING:
    from tokrig.run.session import Session

# What an engine takes beside weights and cache, for suggestions of what would fit.
OVERHEAD_BYTES = 768 * MIB

# The devices of these APIs have no probe here; what another card's memory does says nothing.
_UNWATCHED_APIS = frozenset({"metal", "sycl"})
# Mesa's Vulkan on the CPU.
_SOFTWARE_DEVICE = "llvmpipe"


@dataclass(frozen=True)
class Memory:
    """Bytes in use at one moment, None where nobody tells. ``gpu_bytes`` of all cards and
    processes, ``engine_*`` of the engine's own processes, ``gpu_total_bytes`` what there is."""

    gpu_bytes: int | None = None
    gpu_total_bytes: int | None = None
    engine_gpu_bytes: int | None = None
    engine_rss_bytes: int | None = None


@dataclass(frozen=True)
class Fit:
    """``spilled``: parts of the model are not on the GPU that should be; None where that could
    not be looked at. ``reason`` says by which figures."""

    spilled: bool | None
    reason: str = ""
    memory: LoadMemory | None = None
    free_bytes: int | None = None
    looked_up_bytes: int | None = None


def look(probes: Sequence[Probe], processes: Sequence[psutil.Process] = ()) -> Memory:
    """Memory now. ``processes`` are the engine's own."""
    readings = [probe.read() for probe in probes]
    pids = {process.pid for process in processes}
    own = [
        size
        for reading in readings
        for pid, size in (reading.gpu_process_bytes or {}).items()
        if pid in pids
    ]
    used = [r.gpu_memory_used_bytes for r in readings if r.gpu_memory_used_bytes is not None]
    rss = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            rss += process.memory_info().rss
    return Memory(
        gpu_bytes=sum(used) if used else None,
        gpu_total_bytes=_total(probes),
        # In a container a driver may list no processes, or by numbers that mean nothing inside.
        engine_gpu_bytes=sum(own) or None,
        engine_rss_bytes=rss or None,
    )


def _total(probes: Sequence[Probe]) -> int | None:
    """Memory of all cards; None where one has none of its own, or does not tell."""
    gpus = [gpu for probe in probes for gpu in probe.facts().gpus]
    sizes = [None if gpu.unified_memory else gpu.vram_bytes for gpu in gpus]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def fit_of(session: Session, model: Model, gpu_asked: bool) -> Fit:
    """Whether the model of an open session is where it should be."""
    processes = session.monitor.processes()
    after = look(session.monitor.probes, processes)
    launch = session.prepared.launch
    looked_up = looked_up_bytes(launch.model) if launch else None
    return judge(session.before, after, model, session.engine, gpu_asked, looked_up)


def judge(
    before: Memory | None,
    after: Memory,
    model: Model,
    engine: Engine,
    asked_gpu: bool,
    looked_up: int | None = None,
) -> Fit:
    """Where the model is, by the engine's own words, its layers, and the GPU memory it took, in
    this order. ``looked_up`` are the bytes of tables that stay in main memory, None where that is
    not known: then all bytes of the model are expected on the GPU.
    """
    before = before or Memory()
    spilled, reason = _by_engine(engine, asked_gpu)
    if spilled is None and not reason and model.bytes is not None and _watched(engine):
        expected = loaded_bytes(model, engine.resolved) - (looked_up or 0)
        spilled, reason = _by_bytes(before, after, expected)
    free = None
    if before.gpu_total_bytes is not None and before.gpu_bytes is not None:
        free = max(before.gpu_total_bytes - before.gpu_bytes, 0)
    memory = LoadMemory(
        gpu_before_bytes=before.gpu_bytes,
        gpu_after_bytes=after.gpu_bytes,
        engine_vram_bytes=after.engine_gpu_bytes,
        engine_rss_bytes=after.engine_rss_bytes,
        looked_up_bytes=looked_up,
        spilled=spilled,
    )
    return Fit(spilled, reason, memory, free, looked_up)


def _by_engine(engine: Engine, asked_gpu: bool) -> tuple[bool | None, str]:
    """What the engine tells of itself; a reason without a verdict where nobody could look.

    Layers that were never asked to be on the GPU are no spill, and their bytes are not looked for.
    """
    if engine.spilled:
        return True, engine.spilled
    if engine.api == "cpu":
        # Where a GPU was asked for, its memory tells; what the engine says is another finding.
        return (None, "") if asked_gpu else (False, "")
    if not asked_gpu and not engine.api_confirmed:
        return None, "nobody tells what computes"
    there, asked = engine.resolved.gpu_layers, engine.asked_gpu_layers
    if there is None or asked is None:
        return None, ""
    if there < asked:
        return True, f"{there} of {asked} layers are there"
    partial = engine.resolved.layers is not None and asked < engine.resolved.layers
    return (False if partial else None), ""


def _by_bytes(before: Memory, after: Memory, expected: int) -> tuple[bool | None, str]:
    """The engine's own share of GPU memory, else how much all of it grew, against the model."""
    if after.engine_gpu_bytes is not None:
        held, words = after.engine_gpu_bytes, "the engine holds {} there, the model takes {}"
    elif before.gpu_bytes is not None and after.gpu_bytes is not None:
        held = max(after.gpu_bytes - before.gpu_bytes, 0)
        words = "its memory grew by {} while loading, the model takes {}"
    else:
        return None, "no probe tells of the memory of this GPU"
    if held >= expected:
        return False, ""
    return True, words.format(human_bytes(held), human_bytes(expected))


def _watched(engine: Engine) -> bool:
    """Whether a probe can see the memory of the devices that compute."""
    software = any(_SOFTWARE_DEVICE in device.lower() for device in engine.resolved.devices)
    return engine.api not in _UNWATCHED_APIS and not software


def looked_up_bytes(path: Path) -> int | None:
    """Bytes of a GGUF's tables of which a token needs single rows: embeddings per layer, and
    input embeddings unless they serve as output weights too. None for other formats."""
    try:
        tensors = [tensor for part in gguf.parts(path) for tensor in gguf.read_gguf(part).tensors]
    except ModelError:
        return None
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    tables = {"per_layer_token_embd.weight"} | (set() if tied else {"token_embd.weight"})
    return sum(tensor.bytes or 0 for tensor in tensors if tensor.name in tables)


def spill_message(fit: Fit, model: Model) -> str:
    """What went wrong, with figures."""
    name = model.file or model.family
    size = f" ({human_bytes(model.bytes)})" if model.bytes is not None else ""
    return f"{name}{size} is not wholly on the GPU: {fit.reason}"


def spill_hint(fit: Fit, model: Model, launch: Launch | None) -> str:
    """What would fit, as far as the free memory and the model's file tell."""
    if launch is None or fit.free_bytes is None:
        return "use a smaller context, KV cache type or quant, or fewer requests in flight"
    try:
        per_token = needs.kv_bytes_per_token(launch.model)
    except InputError:
        per_token = None
    found = needs.fitting(
        fit.free_bytes, model, per_token, launch.context_per_slot, launch.slots, OVERHEAD_BYTES
    )
    free = f"{human_bytes(fit.free_bytes)} of GPU memory were free"
    if not found:
        return f"{free}, which should do: the engine's log says why it did not use them"
    return f"{free}; what would fit: {'; '.join(found)}"
