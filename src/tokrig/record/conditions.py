"""Under what conditions a figure was taken: the machine, the client, where the model lay, and
which settings the engine really took. Pure.

Thresholds are those of docs/methodology.md and change only with a line in the CHANGELOG's
Methodology section.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.record.formulas import (
    Measured,
    system_tok_per_s,
)
from tokrig.record.model import (
    BackendFacts,
    Interference,
    Mode,
    Model,
    Resolved,
)
from tokrig.record.samples import Sample

Value = str | int | float | bool

# An engine that computes on the CPU loses up to what its threads wait, all together, and what
# others take of the processors that it may use; one on a GPU only needs its threads in time.
CPU_ENGINE_WAIT_SHARE = 0.03
FOREIGN_CPU_SHARE = 0.05
GPU_ENGINE_WAIT_SHARE = 0.02
CLIENT_CPU_SHARE = 0.80
CLIENT_WAIT_SHARE = 0.01
CLIENT_LATE_SHARE = 0.01
CLIENT_CEILING_SHARE = 0.5
THROTTLED_SHARE = 0.01
GPU_BUSY_SHARE = 0.05
FAULTS = frozenset(
    "sw_thermal_slowdown hw_thermal_slowdown hw_slowdown hw_power_brake thermal prochot".split()
)
"""Why a card runs below what it was set to: too hot, or its supply fails. What it then does says
nothing of the card in a sound machine."""

LIMITS = frozenset("sw_power_cap power_limit current_limit".split())
"""What a card was set to, or was built for: it says how fast this card is."""

# Mesa's Vulkan on the CPU.
_SOFTWARE_DEVICE = "llvmpipe"

# The share of a model that input embeddings may take where nobody can tell: tokrig's own figure.
# Untied ones are 2 to 8 % of models of 7 to 70 billion parameters.
LOOKED_UP_SHARE = 0.10
_LOADED_BITS = {"float16": 16, "half": 16, "bfloat16": 16, "float32": 32, "float": 32}

# Engines make contexts a multiple of this, never less than was asked.
CONTEXT_STEP = 256

# Other names of the same type.
_SAME = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16"}


def computed_on(backend: BackendFacts, mode: Mode | None = None) -> frozenset[str]:
    """``cpu``, ``gpu`` or both: where layers or experts were kept off the card. Empty where nobody
    tells."""
    resolved = backend.resolved
    software = any(_SOFTWARE_DEVICE in device.lower() for device in resolved.devices)
    if backend.api == "cpu" or software:
        return frozenset({"cpu"})
    if backend.api is None:
        return frozenset()
    there, layers = resolved.gpu_layers, resolved.layers
    shared = there is not None and layers is not None and there < layers
    shared = shared or (mode is not None and mode.offload is not None)
    return frozenset({"cpu", "gpu"}) if shared else frozenset({"gpu"})


def foreign_cpu_load(
    seen: Interference, backend: BackendFacts, mode: Mode | None = None
) -> bool | None:
    """Whether others took from the engine what it needed of the processor; None where its threads
    could not be looked at and nothing else tells."""
    waited, stolen = seen.foreign_wait_share, seen.steal_share or 0.0
    if computed_on(backend, mode) == {"gpu"}:
        # Its threads do different things: what one waits the others need not.
        if seen.thread_wait_share is None:
            return None
        return max(seen.thread_wait_share, stolen) > GPU_ENGINE_WAIT_SHARE
    others = (seen.other_cores_mean or 0.0) / seen.engine_cpus if seen.engine_cpus else 0.0
    if (waited or 0.0) > CPU_ENGINE_WAIT_SHARE or others + stolen > FOREIGN_CPU_SHARE:
        return True
    return None if waited is None else False


def client_bound(seen: Interference, client_cpu_share: float | None) -> bool:
    """Whether the client may have been the limit, or have seen chunks late."""
    return (
        (client_cpu_share or 0.0) > CLIENT_CPU_SHARE
        or (seen.client_wait_share or 0.0) > CLIENT_WAIT_SHARE
        or (seen.client_late_share or 0.0) > CLIENT_LATE_SHARE
    )


def near_ceiling(seen: Interference, good: Sequence[Sample]) -> bool:
    """Whether the tokens came at more than half of the rate up to which the client is true."""
    if seen.client_ceiling_tok_per_s is None:
        return False
    rate = system_tok_per_s(Measured(good))
    highest = rate.max if rate else None
    return (highest or 0.0) > CLIENT_CEILING_SHARE * seen.client_ceiling_tok_per_s


def throttled(seen: Interference) -> bool | None:
    """Whether a fault held a graphics card down; a limit that binds is none. None where nobody
    looked."""
    if seen.throttled_share is not None:
        return seen.throttled_share > THROTTLED_SHARE
    return None if seen.throttle_reasons is None else bool(FAULTS & set(seen.throttle_reasons))


def gpu_was_busy(seen: Interference) -> bool:
    """Whether the cards had work of others, by what they did before the start or by what those
    that draw did meanwhile."""
    return max(seen.gpu_busy_before or 0.0, seen.graphics_busy_share or 0.0) > GPU_BUSY_SHARE


def loaded_bytes(model: Model, resolved: Resolved) -> int:
    """Bytes of the weights as loaded: fewer than on disk where an engine narrows their type."""
    assert model.bytes is not None
    bits = _LOADED_BITS.get((resolved.dtype or "").removeprefix("torch."))
    if bits is None or model.bits_per_weight is None or model.bits_per_weight <= bits:
        return model.bytes
    return int(model.bytes * bits / model.bits_per_weight)


def not_resident(
    model: Model,
    backend: BackendFacts,
    rss_bytes: int | None,
    looked_up: int | None = None,
    offload: str | None = None,
) -> bool:
    """Whether less of the model was in main memory than a run on the CPU needs, or one that keeps
    a part of the model there (``offload``): ``rss_bytes`` is the most its processes held while
    measuring. False also where that could not be looked at.

    Experts that no token chose may stay on disk: only the active ones are expected.
    """
    if model.bytes is None or rss_bytes is None:
        return False
    expected = loaded_bytes(model, backend.resolved)
    expected -= int(model.bytes * LOOKED_UP_SHARE) if looked_up is None else looked_up
    if backend.api != "cpu":
        listed = backend.resolved.device_bytes
        if offload is None or not listed:
            return False
        expected -= sum(size for name, size in listed.items() if name != "CPU")
    if model.active_parameters and model.parameters:
        expected = int(expected * min(1.0, model.active_parameters / model.parameters))
    return rss_bytes < expected


def ignored(backend: BackendFacts) -> dict[str, str]:
    """Settings that the engine resolved to something else than was asked, by name: ``1 asked, 2
    used``."""
    told = {name: getattr(backend.resolved, name, None) for name in backend.asked}
    return {
        name: f"{_shown(asked)} asked, {_shown(told[name])} used"
        for name, asked in backend.asked.items()
        if told[name] not in (None, []) and not _honoured(name, asked, told[name], backend.resolved)
    }


def untold(backend: BackendFacts) -> list[str]:
    """Settings that were asked for and that the engine does not read back."""
    return [n for n in backend.asked if getattr(backend.resolved, n, None) in (None, [])]


def _honoured(name: str, asked: Value, found: object, resolved: Resolved) -> bool:
    if name == "devices" and isinstance(found, list):
        return {*str(asked).split(",")} == {*map(str, found)}
    if isinstance(found, int) and isinstance(asked, int) and not isinstance(found, bool):
        if name == "context_per_slot":
            return asked <= found < asked + CONTEXT_STEP
        # No batch is longer than the context, no part of it longer than the batch; and people
        # write 99 for all layers.
        most = {
            "batch": resolved.context_total,
            "ubatch": resolved.batch,
            "gpu_layers": resolved.layers,
        }
        largest = most.get(name)
        return found == asked or (found < asked and found == largest)
    one, other = _plain(asked), _plain(found)
    # fp8 → fp8_e4m3, awq → awq_marlin.
    return one == other or other.startswith(f"{one}_")


def _plain(value: object) -> str:
    word = str(value).lower().removeprefix("torch.")
    return _SAME.get(word, word)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
