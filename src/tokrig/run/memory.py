"""Is the model where it should be: in the GPU's memory, or, on a CPU, in main memory at all?

METHODOLOGY, run hygiene 6. The engine's own words decide: its list of buffers, its log, its API.
Only where it says nothing are bytes counted, and a count that falls short is a doubt, no verdict.
Tables of which a token looks up single
rows (input embeddings) stay in main memory on purpose, and on disk until a row is needed: their
bytes are not expected anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tokrig.backends import Engine, Launch
from tokrig.errors import InputError, ModelError
from tokrig.models import needs
from tokrig.models.architecture import kv_bytes_per_token, layout_of
from tokrig.quants import OVERHEAD_BYTES, UBATCH, would_fit
from tokrig.record.conditions import loaded_bytes
from tokrig.record.model import Gpu, LoadMemory, Model, Resolved
from tokrig.run.interference import Look, total
from tokrig.run.monitor import look_now, probes
from tokrig.units import human_bytes

if TYPE_CHECKING:
    from tokrig.run.session import Session

# The devices of these APIs have no probe here; what another card's memory does says nothing.
_UNWATCHED_APIS = frozenset({"metal", "sycl"})
# Mesa's Vulkan on the CPU.
_SOFTWARE_DEVICE = "llvmpipe"
# The share of a file's weights that an engine's own list of buffers may lack: a file's header,
# and tensors that a model's graph does not use.
MISSING_SHARE = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes in use at one moment, None where nobody tells. ``gpu_bytes`` of all cards and
    processes, ``engine_*`` of the engine's own processes, ``gpu_total_bytes`` what there is.
    ``shared``: a card lives, or may live, in main memory, where drivers count as they like."""

    gpu_bytes: int | None = None
    gpu_total_bytes: int | None = None
    engine_gpu_bytes: int | None = None
    engine_rss_bytes: int | None = None
    shared: bool = False


class Fit(NamedTuple):
    """What was found, as the record tells it; ``reason`` says what the engine says of a spill."""

    memory: LoadMemory
    reason: str = ""
    free_bytes: int | None = None


def seen(gpus: Sequence[Gpu], look: Look) -> Memory:
    """What a look at the machine tells of the memory of its ``gpus`` and of the engine."""
    held = (look.engine_bytes(key) or 0 for key in look.cards)
    return Memory(
        gpu_bytes=total(card.memory_used_bytes for card in look.cards.values()),
        gpu_total_bytes=total(gpu.vram_bytes if _has_its_own(gpu) else None for gpu in gpus),
        shared=not all(map(_has_its_own, gpus)),
        # In a container a driver may list no processes, or by numbers that mean nothing inside.
        engine_gpu_bytes=sum(held) or None,
        engine_rss_bytes=look.engine_rss_bytes or None,
    )


def _has_its_own(gpu: Gpu) -> bool:
    """Whether a card has memory of its own. AMD's older kernels do not tell an integrated one by
    it; NVIDIA's driver gives no figures for one."""
    if gpu.unified_memory is None:
        return gpu.vendor == "nvidia" and gpu.vram_bytes is not None
    return not gpu.unified_memory


def free_bytes(*, gpu: bool) -> int | None:
    """Bytes that are free at this moment: of all graphics cards together, or of main memory as far
    as this process may use it; None where no probe tells."""
    facts = [probe.facts() for probe in probes()]
    if not gpu:
        usable = [one.memory.usable_bytes for one in facts if one.memory]
        return int(min(filter(None, (psutil.virtual_memory().available, *usable))))
    now = seen([card for one in facts for card in one.gpus], look_now(probes()))
    if now.gpu_total_bytes is None or now.gpu_bytes is None:
        return None
    return max(now.gpu_total_bytes - now.gpu_bytes, 0)


def slots_that_fit(
    path: Path, model: Model, context_per_slot: int, kv_type: str | None, free: int
) -> int | None:
    """How many slots of so much context fit beside the weights into ``free`` bytes; None where
    the model's header does not tell."""
    kind = kv_type or "f16"
    try:
        layout = None if path.is_dir() else layout_of(path)
        if layout is None or not layout.layers or not layout.fits_type(kind, kind):
            return None
    except InputError:
        return None
    if model.bytes is None:
        return None
    room = free - OVERHEAD_BYTES - model.bytes
    return layout.most_slots(room, context_per_slot, type_k=kind, type_v=kind)


def fit_of(session: Session, model: Model, gpu_asked: bool) -> Fit:
    """Whether the model of an open session is where it should be."""
    monitor = session.monitor
    gpus = [gpu for probe in monitor.probes for gpu in probe.facts().gpus]
    before = seen(gpus, Look(0.0, monitor.before)) if monitor.started else None
    after = seen(gpus, monitor.look())
    launch, resolved = session.prepared.launch, session.engine.resolved
    looked_up = cache = None
    if launch is not None:
        looked_up = looked_up_bytes(launch.model)
        with contextlib.suppress(InputError, ModelError):
            cache = _allotted(launch, resolved)
    return judge(before, after, model, session.engine, gpu_asked, looked_up, cache)


def _allotted(launch: Launch, resolved: Resolved) -> int | None:
    """Bytes of the cache that llama.cpp made for all slots; None where the header does not tell.
    A folder's engine has a pool of its own size."""
    kinds = (resolved.cache_type_k or "f16", resolved.cache_type_v or "f16")
    layout = None if launch.model.is_dir() else layout_of(launch.model)
    if layout is None or not layout.fits_type(*kinds):
        return None
    slots = resolved.slots or launch.slots
    return layout.allotted_bytes(
        (resolved.context_total or launch.context) // slots,
        slots,
        type_k=kinds[0],
        type_v=kinds[1],
        unified=bool(resolved.kv_unified),
        ubatch=resolved.ubatch or UBATCH,
        swa_full="swa-full" in launch.flags,
    )


def judge(
    before: Memory | None,
    after: Memory,
    model: Model,
    engine: Engine,
    asked_gpu: bool,
    looked_up: int | None = None,
    cache: int | None = None,
) -> Fit:
    """Where the model is: by the engine's own words where it has any, else by the GPU memory that
    weights and cache should have taken. What the engine was asked to keep elsewhere is no spill,
    and its bytes are not looked for. Of a model's file ``looked_up`` are the bytes of tables that
    stay in main memory, ``cache`` those of the cache for all slots; None where it does not tell."""
    before = before or Memory()
    spilled, reason = _by_engine(engine, asked_gpu)
    doubt = None
    if spilled is None and not reason and model.bytes is not None:
        weights = loaded_bytes(model, engine.resolved) - (looked_up or 0)
        if _on_devices(engine.device_bytes):
            doubt = _by_list(before, engine, weights)
            spilled = None if doubt else False
        elif _watched(engine):
            spilled, doubt = _by_bytes(before, after, weights + (cache or 0))
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
        doubt=doubt,
    )
    return Fit(memory, reason, free)


def _by_engine(engine: Engine, asked_gpu: bool) -> tuple[bool | None, str]:
    """What the engine tells of itself; a reason without a verdict where nobody could look."""
    if engine.spilled:
        return True, engine.spilled
    if engine.api == "cpu":
        # Where a GPU was asked for that is another finding.
        return None if asked_gpu else False, ""
    there, asked = engine.resolved.gpu_layers, engine.asked_gpu_layers
    if there is not None and asked is not None and there < asked:
        return True, f"{there} of {asked} layers are there"
    layers = engine.resolved.layers
    partial = asked is not None and layers is not None and asked < layers
    if engine.offload or partial:
        return False, ""
    if not asked_gpu and not engine.api_confirmed:
        return None, "nobody tells what computes"
    return None, ""


def _on_devices(device_bytes: Mapping[str, int]) -> int:
    """Bytes that an engine lists on devices of this machine."""
    elsewhere = ("CPU", "RPC")
    return sum(size for name, size in device_bytes.items() if not name.startswith(elsewhere))


def _by_list(before: Memory, engine: Engine, weights: int) -> str | None:
    """What in the engine's own list of buffers speaks against a model that is wholly on its
    devices: fewer weights than the file has, or more than the cards can hold."""
    listed = _on_devices(engine.device_bytes)
    total = before.gpu_total_bytes
    if total is not None and listed > total:
        return (
            f"the engine lists {human_bytes(listed)} on its devices, which have"
            f" {human_bytes(total)}: the driver keeps the rest in main memory"
        )
    elsewhere = any(name.startswith("RPC") for name in engine.weight_bytes)
    held = _on_devices(engine.weight_bytes)
    expected = weights - engine.unused_bytes
    if held and not elsewhere and held < expected * (1 - MISSING_SHARE):
        return (
            f"the engine lists {human_bytes(held)} of weights on its devices, the file has"
            f" {human_bytes(expected)}"
        )
    return None


def _by_bytes(before: Memory, after: Memory, expected: int) -> tuple[bool | None, str | None]:
    """The engine's own share of GPU memory, else how much all of it grew, against weights and
    cache. A count that falls short may be the driver's way of counting: a doubt, no spill. Of a
    card in main memory it says nothing: managed and borrowed memory may show in no counter."""
    if after.engine_gpu_bytes is not None:
        held, words = after.engine_gpu_bytes, "the engine holds {} of GPU memory"
    elif before.gpu_bytes is not None and after.gpu_bytes is not None:
        held = max(after.gpu_bytes - before.gpu_bytes, 0)
        words = "GPU memory grew by {} while loading"
    else:
        return None, None
    if held >= expected:
        return False, None
    if after.shared:
        return None, None
    needs_it = f"weights and cache take {human_bytes(expected)}"
    return None, f"{words.format(human_bytes(held))}, {needs_it}"


def _watched(engine: Engine) -> bool:
    """Whether a probe can see the memory of the devices that compute."""
    software = any(_SOFTWARE_DEVICE in device.lower() for device in engine.resolved.devices)
    return engine.api not in _UNWATCHED_APIS and not software


def looked_up_bytes(path: Path) -> int | None:
    """Bytes of a GGUF's tables of which a token needs single rows; None for other formats."""
    try:
        return needs.looked_up_bytes(path)
    except ModelError:
        return None


def spill_message(fit: Fit, model: Model) -> str:
    """What went wrong, with figures."""
    name = model.file or model.family
    size = f" ({human_bytes(model.bytes)})" if model.bytes is not None else ""
    return f"{name}{size} is not on the GPU as asked: {fit.reason}"


def spill_hint(fit: Fit, model: Model, launch: Launch | None) -> str:
    """What would fit, as far as the free memory and the model's file tell."""
    if launch is None or fit.free_bytes is None:
        return "use a smaller context, KV cache type or quant, or fewer requests in flight"
    try:
        per_token = kv_bytes_per_token(launch.model, at_most=True)
    except InputError:
        per_token = None
    found = would_fit(
        fit.free_bytes - OVERHEAD_BYTES,
        model.bytes or 0,
        (per_token or 0) * launch.slots,
        launch.context_per_slot,
        bits=model.bits_per_weight,
        gguf=model.format == "gguf",
    )
    free = f"{human_bytes(fit.free_bytes)} of GPU memory were free"
    if not found:
        return f"{free}, which should do: the engine's log says why it did not use them"
    if fit.free_bytes <= OVERHEAD_BYTES:
        return f"{free}, too few for any model: stop what else holds this memory"
    return f"{free}; what would fit: {'; '.join(found)}"
