"""Each reason code: the case that raises it, and the sound result that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.samples import sample
from tokrig.record import checks
from tokrig.record.checks import Seen, judge
from tokrig.record.model import BackendFacts, Gpu, Interference, LoadMemory, Rig, WorkloadFacts
from tokrig.record.samples import EngineTimings, Sample

SOUND = Seen(
    workload=WorkloadFacts(name="chat", prompt_tokens=64, answer_tokens=11),
    backend=BackendFacts(name="llamacpp", engine="llama.cpp", api="cuda", api_confirmed=True),
    rig=Rig(id="rig", gpus=[Gpu(name="NVIDIA Made Card", vendor="nvidia")]),
    interference=Interference(throttle_reasons=[], foreign_gpu_processes=0),
    load_memory=LoadMemory(spilled=False),
    client_cpu_share=0.02,
)


def but(**changes: Any) -> Seen:
    """SOUND, with fields of its blocks changed: ``backend={"api": "cpu"}``."""
    blocks = {
        name: getattr(SOUND, name).model_copy(update=change) if isinstance(change, dict) else change
        for name, change in changes.items()
        if name != "counters"
    }
    return replace(SOUND, **blocks, counters=changes.get("counters", {}))


def test_a_sound_result_is_valid_with_nothing_left_open() -> None:
    found = judge([sample(), sample()], SOUND)
    assert found.verdict == "valid"
    assert (found.reasons, found.unverified, found.unchecked) == ([], [], [])


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("request_errors", {"error": "stream_cut"}),
        ("output_length", {"output_tokens": 10}),
        ("cached_tokens", {"cached_tokens": 1}),
        ("prompt_length", {"prompt_tokens": 67}),
        ("prompt_length", {"prompt_tokens": 61}),
        ("count_mismatch", {"count_disagreement": 0.011}),
        ("clock_mismatch", {"timings": EngineTimings(64, 250.0, 11, 104.0)}),
        ("no_tokens", {"chunks": (), "output_tokens": 0}),
        ("timings_impossible", {"timings": EngineTimings(64, 250.0, 11, -1.0)}),
        ("timings_impossible", {"timings": EngineTimings(64, -1.0, 11, 100.0)}),
        ("timings_impossible", {"timings": EngineTimings(64, 250.0, 11, 0.0)}),
        ("count_mismatch", {"output_tokens": 5}),
    ],
)
def test_what_the_samples_show_makes_a_result_invalid(code: str, changes: dict[str, Any]) -> None:
    found = judge([sample(**changes)], SOUND)
    assert found.verdict == "invalid"
    assert code in found.reasons


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("client_bound", {"client_cpu_share": 0.81}),
        ("throttled", {"interference": {"throttle_reasons": ["hw_thermal_slowdown"]}}),
        ("throttled", {"interference": {"throttle_reasons": ["sw_power_cap"]}}),
        ("foreign_gpu_load", {"interference": {"foreign_gpu_processes": 1}}),
        ("cpu_spill", {"load_memory": {"spilled": True}}),
        (
            "not_resident",
            {
                "backend": {"api": "cpu"},
                "model": {"bytes": 2 << 30},
                "memory": {"engine_rss_bytes": 1 << 30},
            },
        ),
        ("api_not_confirmed", {"backend": {"api": "cpu", "api_asked": "vulkan"}}),
        ("api_not_confirmed", {"backend": {"api": None, "api_asked": "cuda"}}),
        ("api_not_confirmed", {"backend": {"api_confirmed": None, "api_asked": "cuda"}}),
        ("speculation_inactive", {"mode": {"speculative": "ngram"}}),
        (
            "speculation_inactive",
            {"mode": {"speculative": "ngram"}, "counters": {"drafted_tokens": 0.0}},
        ),
        # 11 tokens sampled, 20 counted: somebody else was served meanwhile.
        ("count_mismatch", {"counters": {"output_tokens": 20.0}}),
    ],
)
def test_what_was_seen_beside_them_does_too(code: str, changes: dict[str, Any]) -> None:
    found = judge([sample()], but(**changes))
    assert (found.verdict, found.reasons) == ("invalid", [code])


def test_thresholds_allow_what_lies_on_them() -> None:
    edge = sample(prompt_tokens=66, timings=EngineTimings(64, 250.0, 11, 102.9))
    seen = but(client_cpu_share=0.80)
    assert judge([edge], seen).verdict == "valid"


def test_a_long_prompt_may_miss_by_one_percent() -> None:
    seen = but(workload={"prompt_tokens": 4096})
    assert judge([sample(prompt_tokens=4137)], seen).verdict == "valid"
    assert "prompt_length" in judge([sample(prompt_tokens=4138)], seen).reasons


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("prompt_length_unverified", {"prompt_tokens": None}),
        ("token_count_unverified", {"output_tokens": None}),
        ("first_chunk_assumed", {"first_chunk_assumed": True}),
        ("no_rate", {"chunks": ()}),
    ],
)
def test_what_cannot_be_confirmed_is_unverified_not_invalid(
    code: str, changes: dict[str, Any]
) -> None:
    found = judge([sample(**changes)], SOUND)
    assert code in found.unverified
    assert found.verdict == "unverified"


@pytest.mark.parametrize(
    ("code", "one", "seen"),
    [
        ("server_clock", sample(timings=None), SOUND),
        ("cache", sample(cached_tokens=None), SOUND),
        ("output_length_limit", sample(finish_reason=None), SOUND),
        ("throttle", sample(), but(interference={"throttle_reasons": None})),
        ("gpu_processes", sample(), but(interference={"foreign_gpu_processes": None})),
        ("vram_fit", sample(), but(load_memory={"spilled": None})),
    ],
)
def test_what_nobody_looked_at_is_unchecked_not_passed(code: str, one: Sample, seen: Seen) -> None:
    found = judge([one], seen)
    assert found.unchecked == [code]
    assert found.verdict == "valid"


def test_every_code_has_a_hint() -> None:
    for hint in checks.HINTS.values():
        assert hint.strip()


def test_a_run_that_did_not_finish_is_never_valid() -> None:
    found = checks.judge_run([], complete=True)
    assert found.verdict == "invalid"
    assert "incomplete" in checks.judge_run([], complete=False).reasons
