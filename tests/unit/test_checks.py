"""Each reason code: the case that raises it, and the sound result that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.samples import sample
from tokrig.record import checks
from tokrig.record.checks import Circumstances, judge
from tokrig.record.samples import EngineTimings, Sample

SOUND = Circumstances(
    answer_tokens=11,
    prompt_tokens=64,
    client_cpu_share=0.02,
    throttle_reasons=[],
    foreign_gpu_processes=0,
    has_gpu=True,
    spilled=False,
    api="cuda",
    api_confirmed=True,
)


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
        ("throttled", {"throttle_reasons": ["hw_thermal_slowdown"]}),
        ("throttled", {"throttle_reasons": ["sw_power_cap"]}),
        ("foreign_gpu_load", {"foreign_gpu_processes": 1}),
        ("cpu_spill", {"spilled": True}),
        ("not_resident", {"not_resident": True}),
        ("api_not_confirmed", {"api": "cpu", "api_asked": "vulkan"}),
        ("api_not_confirmed", {"api": None, "api_asked": "cuda"}),
        ("api_not_confirmed", {"api_confirmed": None, "api_asked": "cuda"}),
        ("speculation_inactive", {"speculative": "ngram"}),
        ("speculation_inactive", {"speculative": "ngram", "counters": {"drafted_tokens": 0.0}}),
        # 11 tokens sampled, 20 counted: somebody else was served meanwhile.
        ("count_mismatch", {"counters": {"output_tokens": 20.0}}),
    ],
)
def test_what_was_seen_beside_them_does_too(code: str, changes: dict[str, Any]) -> None:
    found = judge([sample()], replace(SOUND, **changes))
    assert (found.verdict, found.reasons) == ("invalid", [code])


def test_thresholds_allow_what_lies_on_them() -> None:
    edge = sample(prompt_tokens=66, timings=EngineTimings(64, 250.0, 11, 102.9))
    seen = replace(SOUND, client_cpu_share=0.80)
    assert judge([edge], seen).verdict == "valid"


def test_a_long_prompt_may_miss_by_one_percent() -> None:
    seen = replace(SOUND, prompt_tokens=4096)
    assert judge([sample(prompt_tokens=4137)], seen).verdict == "valid"
    assert "prompt_length" in judge([sample(prompt_tokens=4138)], seen).reasons


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("prompt_length_unverified", {"prompt_tokens": None}),
        ("token_count_unverified", {"output_tokens": None}),
        ("first_chunk_assumed", {"first_chunk_assumed": True}),
    ],
)
def test_what_cannot_be_confirmed_is_unverified_not_invalid(
    code: str, changes: dict[str, Any]
) -> None:
    found = judge([sample(**changes)], SOUND)
    assert code in found.unverified
    assert found.verdict == "valid"


def test_repeats_of_a_server_nobody_restarted_are_unverified() -> None:
    two = [sample(repeat=0), sample(repeat=1)]
    assert judge(two, replace(SOUND, managed=False)).unverified == ["repeats_share_a_start"]
    assert judge(two, replace(SOUND, managed=True)).unverified == []
    assert judge(two[:1], replace(SOUND, managed=False)).unverified == []


@pytest.mark.parametrize(
    ("code", "one", "seen"),
    [
        ("server_clock", sample(timings=None), SOUND),
        ("cache", sample(cached_tokens=None), SOUND),
        ("output_length_limit", sample(finish_reason=None), SOUND),
        ("throttle", sample(), replace(SOUND, throttle_reasons=None)),
        ("gpu_processes", sample(), replace(SOUND, foreign_gpu_processes=None)),
        ("vram_fit", sample(), replace(SOUND, spilled=None)),
    ],
)
def test_what_nobody_looked_at_is_unchecked_not_passed(
    code: str, one: Sample, seen: Circumstances
) -> None:
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
