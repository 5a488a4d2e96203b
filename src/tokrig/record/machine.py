"""What the machine did while something was measured: the rules of who starved whom, pure, from
the record's own blocks. Shares are of the measured window unless said otherwise."""

from __future__ import annotations

from tokrig.record.model import BackendFacts, Interference, Mode

# An engine that computes on the CPU loses up to what its threads wait, all together, and what
# others take of the processors that it may use; one on a GPU only needs its threads in time.
CPU_ENGINE_WAIT_SHARE = 0.03
FOREIGN_CPU_SHARE = 0.05
GPU_ENGINE_WAIT_SHARE = 0.02
CLIENT_CPU_SHARE = 0.80
CLIENT_WAIT_SHARE = 0.01
CLIENT_LATE_SHARE = 0.01
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
