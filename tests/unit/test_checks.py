"""Each reason code: the case that raises it, and the sound result that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.samples import sample
from tokrig.record import checks
from tokrig.record.checks import Seen, judge
from tokrig.record.model import (
    BackendFacts,
    Gpu,
    Interference,
    LoadMemory,
    Prompting,
    Resolved,
    Rig,
    WorkloadFacts,
)
from tokrig.record.samples import Cell, Chunk, EngineTimings, Kind, Sample

SOUND = Seen(
    workload=WorkloadFacts(name="chat", prompt_tokens=64, answer_tokens=21),
    backend=BackendFacts(name="llamacpp", engine="llama.cpp", api="cuda", api_confirmed=True),
    rig=Rig(id="rig", gpus=[Gpu(name="NVIDIA Made Card", vendor="nvidia")]),
    interference=Interference(
        engine_wait_share=0.004,
        foreign_wait_share=0.003,
        thread_wait_share=0.002,
        engine_cpus=8,
        other_cores_mean=0.05,
        steal_share=0.0,
        client_wait_share=0.001,
        client_late_share=0.0,
        throttle_reasons=["sw_power_cap"],
        throttled_share=0.0,
        power_limited_share=1.0,
        gpu_busy_before=0.01,
        foreign_gpu_processes=0,
        graphics_processes=3,
        graphics_busy_share=0.02,
    ),
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
        ("clock_mismatch", {"timings": EngineTimings(64, 250.0, 21, 208.0)}),
        ("no_tokens", {"chunks": (), "output_tokens": 0}),
        ("timings_impossible", {"timings": EngineTimings(64, 250.0, 21, -1.0)}),
        ("timings_impossible", {"timings": EngineTimings(64, -1.0, 21, 100.0)}),
        ("timings_impossible", {"timings": EngineTimings(64, 250.0, 21, 0.0)}),
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
        ("throttled", {"interference": {"throttled_share": 0.011}}),
        (
            "throttled",
            {"interference": {"throttle_reasons": ["hw_slowdown"], "throttled_share": None}},
        ),
        ("foreign_cpu_load", {"interference": {"thread_wait_share": 0.021}}),
        ("foreign_cpu_load", {"interference": {"steal_share": 0.021}}),
        ("client_bound", {"interference": {"client_wait_share": 0.011}}),
        ("client_bound", {"interference": {"client_late_share": 0.011}}),
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
        (
            "setting_ignored",
            {"backend": {"asked": {"threads": 1}, "resolved": Resolved(threads=2)}},
        ),
        ("speculation_inactive", {"mode": {"speculative": "ngram"}}),
        (
            "speculation_inactive",
            {"mode": {"speculative": "ngram"}, "counters": {"drafted_tokens": 0.0}},
        ),
        # 21 tokens sampled, 40 counted: somebody else was served meanwhile.
        ("count_mismatch", {"counters": {"output_tokens": 40.0}}),
    ],
)
def test_what_was_seen_beside_them_does_too(code: str, changes: dict[str, Any]) -> None:
    found = judge([sample()], but(**changes))
    assert (found.verdict, found.reasons) == ("invalid", [code])


def test_a_shape_that_grew_with_its_template_is_judged_by_the_length_that_was_measured() -> None:
    longer = but(workload={"target_prompt_tokens": 100})
    assert judge([sample(prompt_tokens=100)], longer).verdict == "valid"
    assert judge([sample(prompt_tokens=64)], longer).reasons == ["prompt_length"]


def of_two_workers(*ttft_s: float) -> list[Sample]:
    """Two rounds of two requests; each answer takes 0.2 s from its first token."""
    sent_s = (0.0, 0.0, ttft_s[0] + 0.2, ttft_s[1] + 0.2)
    pairs = zip(sent_s, ttft_s, strict=True)
    return [sample(concurrency=2, sent_ns=round(at * 1e9), ttft_s=first) for at, first in pairs]


def test_requests_that_were_not_served_at_once_are_no_concurrency() -> None:
    both = replace(SOUND, cell=Cell("chat", 2))
    assert judge(of_two_workers(0.5, 0.51, 0.5, 0.51), both).verdict == "valid"
    in_turn = of_two_workers(0.5, 1.2, 1.2, 1.2)
    assert judge(in_turn, both).reasons == ["concurrency_not_reached"]
    fewer = replace(but(backend={"resolved": Resolved(slots=1)}), cell=Cell("chat", 2))
    assert judge(of_two_workers(0.5, 0.51, 0.5, 0.51), fewer).reasons == ["concurrency_not_reached"]


def test_where_cached_tokens_are_not_told_times_may_tell() -> None:
    untold = [sample(cached_tokens=None)]

    def tried(kept_apart: bool | None) -> Seen:
        return but(backend={"prompting": Prompting(kept_apart=kept_apart)})

    assert judge(untold, tried(None)).unchecked == ["cache"]
    assert judge(untold, tried(True)).unchecked == []
    assert judge(untold, tried(False)).reasons == ["cached_tokens"]
    assert judge([sample()], tried(False)).verdict == "valid", "the engine's own count comes first"


def test_thresholds_allow_what_lies_on_them() -> None:
    edge = sample(prompt_tokens=66, timings=EngineTimings(64, 250.0, 21, 205.8))
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
        ("token_count_unverified", {"counted_by": None}),
        ("no_rate", {"first_chunk_tokens": None}),
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
    ("code", "changes"),
    [
        ("placement_unverified", {"load_memory": {"spilled": None, "doubt": "3 of 4 GiB"}}),
        ("setting_unverified", {"backend": {"asked": {"threads": 1}}}),
        # A running server that drafts unasked was not compared with one that does not.
        ("greedy_unverified", {"counters": {"drafted_tokens": 9.0}}),
        (
            "setting_unverified",
            {"mode": {"reasoning_asked": "on", "reasoning_observed": False}},
        ),
    ],
)
def test_what_the_engine_does_not_confirm_is_unverified(code: str, changes: dict[str, Any]) -> None:
    found = judge([sample()], but(**changes))
    assert (found.verdict, found.unverified, found.unchecked) == ("unverified", [code], [])


def test_what_was_kept_off_the_gpu_on_purpose_is_a_mode_and_no_fault() -> None:
    found = judge([sample()], but(mode={"name": "n-cpu-moe 4", "offload": "n-cpu-moe 4"}))
    assert found.verdict == "valid"


@pytest.mark.parametrize(
    ("code", "one", "seen"),
    [
        ("server_clock", sample(timings=None), SOUND),
        ("cache", sample(cached_tokens=None), SOUND),
        ("output_length_limit", sample(finish_reason=None), SOUND),
        ("scheduling", sample(), but(interference={"thread_wait_share": None})),
        (
            "throttle",
            sample(),
            but(interference={"throttle_reasons": None, "throttled_share": None}),
        ),
        ("gpu_processes", sample(), but(interference={"foreign_gpu_processes": None})),
        ("vram_fit", sample(), but(load_memory={"spilled": None})),
    ],
)
def test_what_nobody_looked_at_is_unchecked_not_passed(code: str, one: Sample, seen: Seen) -> None:
    found = judge([one], seen)
    assert found.unchecked == [code]
    assert found.verdict == "valid"


def at(*stamps_ms: float, **changes: Any) -> Sample:
    """A sample whose chunks come at these times after the first, the engine's clock silent."""
    chunks = tuple(Chunk(500_000_000 + round(t * 1e6), Kind.CONTENT, "xxxx") for t in stamps_ms)
    return sample(tokens=len(chunks), chunks=chunks, **{"timings": None, **changes})


def asked(tokens: int) -> Seen:
    return but(workload={"answer_tokens": tokens})


def test_few_bursts_hide_the_pace() -> None:
    few = at(*(10.0 * i for i in range(17)))
    assert judge([few], asked(17)).unverified == ["coarse_stream"]
    assert judge([at(*(10.0 * i for i in range(18)))], asked(18)).unverified == []


STALLED = [10.0 * i + (200 if i > 30 else 0) for i in range(64)]


def test_a_stall_is_told_and_its_rate_stands() -> None:
    found = judge([at(*STALLED)], asked(64))
    assert found.unverified == ["coarse_stream"]
    # The engine's clock saw the same stall.
    confirmed = at(*STALLED, timings=EngineTimings(64, 250.0, 64, STALLED[-1]))
    assert judge([confirmed], asked(64)).verdict == "valid"


def test_a_stall_among_others_is_the_engines_pace() -> None:
    """Between the tokens of one request it works on the prompts of others."""
    assert judge([at(*STALLED, concurrency=4)], asked(64)).verdict == "valid"
    held_back = [10.0 * i if i < 20 or i > 40 else 400.0 for i in range(64)]
    found = judge([at(*held_back, concurrency=4)], asked(64))
    assert "coarse_stream" in found.unverified


def test_single_requests_off_the_engines_clock_count() -> None:
    off = sample(timings=EngineTimings(64, 250.0, 21, 208.0))
    assert judge([sample()] * 20 + [off], SOUND).reasons == ["clock_mismatch"]


@pytest.mark.parametrize("reason", ["stop", "end_turn", "tool_calls"])
def test_an_uncounted_answer_that_ended_early(reason: str) -> None:
    found = judge([sample(output_tokens=None, finish_reason=reason)], SOUND)
    assert "output_length" in found.reasons
    at_length = judge([sample(output_tokens=None)], SOUND)
    assert "output_length" not in at_length.reasons


def test_cached_tokens_told_by_counters_only() -> None:
    found = judge([sample(cached_tokens=None)], but(counters={"cached_tokens": 34.0}))
    assert "cached_tokens" in found.reasons
    assert "cache" not in found.unchecked
    clean = judge([sample(cached_tokens=None)], but(counters={"cached_tokens": 0.0}))
    assert (clean.verdict, clean.unchecked) == ("valid", [])


OFF = but(mode={"reasoning_asked": "off"})


@pytest.mark.parametrize(
    ("text", "told"), [("<think>Hm.</think>", 0), ("Hm", 0), ("", 5), ("◁think▷Hm", 0)]
)
def test_a_thought_in_spite_of_off(text: str, told: int) -> None:
    chunks = sample().chunks
    if text:
        chunks = (replace(chunks[0], kind=Kind.REASONING, text=text), *chunks[1:])
    found = judge([sample(chunks=chunks, reasoning_tokens=told)], OFF)
    assert found.reasons == ["reasoning_off_not_honoured"]


@pytest.mark.parametrize(
    "empty", ["<think>\n\n</think>", "[THINK][/THINK]", "<|channel>thought\n<channel|>"]
)
def test_markers_around_nothing_are_no_thought(empty: str) -> None:
    chunks = (replace(sample().chunks[0], kind=Kind.REASONING, text=empty), *sample().chunks[1:])
    assert judge([sample(chunks=chunks, reasoning_tokens=2)], OFF).verdict == "valid"


def test_text_cut_up_on_its_way_may_have_more_chunks_than_tokens() -> None:
    many = sample(tokens=40, output_tokens=21)
    assert "count_mismatch" in judge([many], SOUND).reasons
    counted = replace(many, counted_by="tokenizer")
    assert "count_mismatch" not in judge([counted], SOUND).reasons


def test_the_engines_sums_confirm_what_no_request_does() -> None:
    counted = {"requests": 1.0, "output_tokens": 21.0, "decode_s": 0.2, "prompt_tokens": 64.0}
    unconfirmed = sample(counted_by=None, timings=None)
    assert judge([unconfirmed], but(counters=counted)).verdict == "valid"
    assert judge([unconfirmed], but(counters={**counted, "decode_s": 0.204})).unverified == [
        "token_count_unverified"
    ]


def test_every_code_has_a_hint() -> None:
    for hint in checks.HINTS.values():
        assert hint.strip()


def test_a_run_that_did_not_finish_is_never_valid() -> None:
    found = checks.judge_run([], complete=True)
    assert found.verdict == "invalid"
    assert "incomplete" in checks.judge_run([], complete=False).reasons
