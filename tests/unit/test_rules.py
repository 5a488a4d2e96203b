"""Who starved whom: the rules, by where the engine computed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.samples import sample
from tokrig.record import conditions
from tokrig.record.model import BackendFacts, Interference, Mode, Resolved

CPU = BackendFacts(name="llamacpp", engine="llama.cpp", api="cpu")
GPU = BackendFacts(
    name="llamacpp", engine="llama.cpp", api="cuda", resolved=Resolved(gpu_layers=33, layers=33)
)
SHARED = GPU.model_copy(update={"resolved": Resolved(gpu_layers=20, layers=33)})
SOFTWARE = BackendFacts(
    name="llamacpp",
    engine="llama.cpp",
    api="vulkan",
    resolved=Resolved(devices=["Vulkan0: llvmpipe (LLVM 15.0.7, 256 bits)"]),
)
UNKNOWN = BackendFacts(name="openai", engine="unknown")


def test_experts_kept_off_the_card_compute_on_the_processor() -> None:
    assert conditions.computed_on(GPU, Mode(offload="n-cpu-moe=12")) == {"cpu", "gpu"}
    assert conditions.computed_on(GPU, Mode()) == {"gpu"}
    seen = Interference(foreign_wait_share=0.03, thread_wait_share=0.03)
    assert conditions.foreign_cpu_load(seen, GPU, Mode(offload="cpu-moe")) is False
    assert conditions.foreign_cpu_load(seen, GPU, Mode()) is True


@pytest.mark.parametrize(
    ("backend", "where"),
    [(CPU, "cpu"), (GPU, "gpu"), (SHARED, "cpu gpu"), (SOFTWARE, "cpu"), (UNKNOWN, "")],
)
def test_where_it_computed(backend: BackendFacts, where: str) -> None:
    assert conditions.computed_on(backend) == set(where.split())


@pytest.mark.parametrize(
    ("backend", "seen", "starved"),
    [
        # Threads of a CPU engine that waited for others, and cores that others used.
        (CPU, {"foreign_wait_share": 0.03}, False),
        (CPU, {"foreign_wait_share": 0.031}, True),
        (CPU, {"foreign_wait_share": 0.0, "engine_cpus": 16, "other_cores_mean": 0.8}, False),
        (CPU, {"foreign_wait_share": 0.0, "engine_cpus": 16, "other_cores_mean": 0.81}, True),
        (CPU, {"foreign_wait_share": 0.0, "engine_cpus": 2, "steal_share": 0.06}, True),
        (
            CPU,
            {
                "foreign_wait_share": 0.0,
                "engine_cpus": 2,
                "steal_share": 0.03,
                "other_cores_mean": 0.05,
            },
            True,
        ),
        # An engine with more threads than processors waits for itself: that is its own doing.
        (CPU, {"engine_wait_share": 3.9, "foreign_wait_share": 0.01, "engine_cpus": 4}, False),
        # Part of the layers on the CPU, or a processor that plays a graphics card.
        (SHARED, {"foreign_wait_share": 0.03}, False),
        (SHARED, {"foreign_wait_share": 0.06}, True),
        (SOFTWARE, {"foreign_wait_share": 0.03}, False),
        (UNKNOWN, {"foreign_wait_share": 0.03}, False),
        (UNKNOWN, {"foreign_wait_share": 0.06}, True),
        # An engine on a card needs its threads in time; what others do elsewhere is no matter.
        (GPU, {"thread_wait_share": 0.021, "engine_cpus": 16}, True),
        (GPU, {"thread_wait_share": 0.02, "engine_cpus": 16, "other_cores_mean": 9.0}, False),
        (GPU, {"engine_cpus": 16, "other_cores_mean": 9.0}, None),
        # Others are seen although the engine's own threads are not.
        (CPU, {"engine_cpus": 2, "other_cores_mean": 1.0}, True),
        (CPU, {"engine_cpus": 2, "other_cores_mean": 0.01}, None),
        (CPU, {}, None),
    ],
)
def test_foreign_load(backend: BackendFacts, seen: dict[str, Any], starved: bool | None) -> None:
    assert conditions.foreign_cpu_load(Interference(**seen), backend) is starved


@pytest.mark.parametrize(
    ("seen", "throttled"),
    [
        ({}, None),
        ({"throttle_reasons": []}, False),
        # A limit that binds says how fast this card is, as it was set.
        ({"throttle_reasons": ["power_limit", "sw_power_cap"]}, False),
        (
            {
                "throttle_reasons": ["sw_power_cap"],
                "throttled_share": 0.0,
                "power_limited_share": 1.0,
            },
            False,
        ),
        ({"throttle_reasons": ["sync_boost", "display_clock_setting"]}, False),
        ({"throttle_reasons": ["prochot"]}, True),
        ({"throttle_reasons": ["hw_thermal_slowdown"], "throttled_share": 0.01}, False),
        ({"throttle_reasons": ["hw_thermal_slowdown"], "throttled_share": 0.02}, True),
    ],
)
def test_limits_are_not_faults(seen: dict[str, Any], throttled: bool | None) -> None:
    assert conditions.throttled(Interference(**seen)) is throttled


@pytest.mark.parametrize(
    ("seen", "busy"),
    [
        ({}, False),
        ({"gpu_busy_before": 0.05, "graphics_busy_share": 0.05}, False),
        ({"gpu_busy_before": 0.06}, True),
        ({"graphics_busy_share": 0.5}, True),
    ],
)
def test_a_busy_card(seen: dict[str, Any], busy: bool) -> None:
    assert conditions.gpu_was_busy(Interference(**seen)) is busy


def test_a_client_that_saw_chunks_late() -> None:
    fine = Interference(client_wait_share=0.01, client_late_share=0.01)
    assert not conditions.client_bound(fine, 0.8)
    assert conditions.client_bound(fine, 0.81)
    assert conditions.client_bound(Interference(client_wait_share=0.011), 0.1)
    assert conditions.client_bound(Interference(client_late_share=0.011), None)


def test_a_rate_near_what_the_client_can_do() -> None:
    good = [sample()]  # 21 tokens in 0.7 s
    assert not conditions.near_ceiling(Interference(), good)
    assert not conditions.near_ceiling(Interference(client_ceiling_tok_per_s=60.1), good)
    assert conditions.near_ceiling(Interference(client_ceiling_tok_per_s=59.9), good)
