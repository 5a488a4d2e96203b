"""Every formula of METHODOLOGY against numbers worked out by hand."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import sample
from tokrig.record import formulas
from tokrig.record.metrics import figures
from tokrig.record.samples import Chunk, EngineTimings, Kind


def test_times_of_one_request() -> None:
    one = sample(ttft_s=0.5, gap_s=0.01, tokens=11)
    assert formulas.ttft_s(one) == pytest.approx(0.5)
    assert formulas.ttfa_s(one) == pytest.approx(0.5)
    assert formulas.tpot_s(one) == pytest.approx(0.1 / 10)
    assert formulas.output_tok_per_s(one) == pytest.approx(100)
    assert formulas.end_to_end_tok_per_s(one) == pytest.approx(11 / 0.6)


def test_ttfa_waits_for_content_and_is_never_a_copy_of_ttft() -> None:
    kinds = [Kind.REASONING] * 4 + [Kind.CONTENT] * 7
    thinking = sample(kinds=kinds)
    assert formulas.ttft_s(thinking) == pytest.approx(0.5)
    assert formulas.ttfa_s(thinking) == pytest.approx(0.54)
    never = sample(kinds=[Kind.REASONING] * 11)
    assert formulas.ttfa_s(never) is None
    assert formulas.useful_tok_per_s(never) == 0
    tool_only = sample(kinds=[Kind.TOOL_CALL] * 11)
    assert formulas.ttfa_s(tool_only) is None


def test_tpot_leaves_the_first_chunk_out_however_many_tokens_it_carries() -> None:
    three_at_once = sample(tokens=11, first_chunk_tokens=3)
    assert formulas.tpot_s(three_at_once) == pytest.approx(0.1 / 8)
    assert formulas.tpot_s(sample(tokens=1)) is None
    assert formulas.tpot_s(sample(output_tokens=None)) is None


def test_several_tokens_in_a_chunk_count_as_tokens_not_as_chunks() -> None:
    chunks = tuple(Chunk(round((0.5 + i * 0.05) * 1e9), Kind.CONTENT, "xxxx") for i in range(3))
    burst = sample(chunks=chunks, output_tokens=12, first_chunk_tokens=4)
    assert formulas.output_tok_per_s(burst) == pytest.approx(8 / 0.1)


def test_prefill_from_the_server_or_from_ttft() -> None:
    assert formulas.prefill_tok_per_s(sample()) == pytest.approx(64 / 0.25)
    silent = sample(timings=None, cached_tokens=4)
    assert formulas.prefill_tok_per_s(silent) is None
    assert formulas.ttft_prefill_tok_per_s(silent) == pytest.approx(60 / 0.5)
    assert figures([silent])["prefill_source"] == "ttft_derived"
    assert figures([sample()])["prefill_source"] == "server"


def test_the_engines_clock_is_corrected_for_the_token_it_counts() -> None:
    one = sample(tokens=11, gap_s=0.01)
    # 11 tokens in 100 ms would be 110 tok/s; ten intervals make 100.
    assert formulas.server_tok_per_s(one) == pytest.approx(100)
    assert formulas.clock_difference(one) == pytest.approx(0, abs=1e-9)
    exact = replace(one, timings=EngineTimings(64, 250.0, 10, 100.0, counts_first=False))
    assert formulas.server_tok_per_s(exact) == pytest.approx(100)


@pytest.mark.parametrize("decode_ms", [0.0, -5.0])
def test_nonsense_timings_give_no_figure(decode_ms: float) -> None:
    broken = sample(timings=EngineTimings(0, -1.0, 11, decode_ms))
    assert formulas.server_tok_per_s(broken) is None
    assert formulas.prefill_tok_per_s(broken) is None


def test_headline_is_the_median_of_the_repeats_medians() -> None:
    groups = [[1.0, 2.0, 9.0], [3.0, 3.0, 3.0], [100.0, 5.0, 4.0]]
    found = formulas.summary(groups)
    assert found is not None
    assert found.median == statistics.median([2.0, 3.0, 5.0])
    assert (found.min, found.max, found.n) == (1.0, 100.0, 9)
    assert found.ci95 is None


def test_an_interval_exists_from_six_repeats_on_and_is_the_same_every_time() -> None:
    groups = [[10.0 + r, 10.5 + r, 11.0 + r] for r in range(6)]
    found = formulas.summary(groups)
    assert found is not None
    assert found.ci95 is not None
    assert found.min is not None and found.max is not None
    low, high = found.ci95
    assert found.min <= low <= found.median <= high <= found.max
    assert formulas.summary(groups) == found
    assert formulas.summary(groups[:5]).ci95 is None  # type: ignore[union-attr]


def test_the_medians_of_the_starts_are_kept_where_they_are_compared() -> None:
    groups = [[10.0, 12.0, 11.0], [20.0, 22.0]]
    assert formulas.summary(groups, by_start=True).starts == [11.0, 21.0]  # type: ignore[union-attr]
    assert formulas.summary(groups[:1], by_start=True).starts == []  # type: ignore[union-attr]
    samples = [sample(repeat=repeat) for repeat in range(3)]
    found, old = figures(samples), figures(samples, methodology=1)
    compared = ("output_tok_per_s", "ttft_s", "prefill_tok_per_s", "end_to_end_tok_per_s")
    for name in (*compared, "system_tok_per_s"):
        assert len(found[name].starts) == 3
        assert old[name].starts == []
    assert found["tpot_s"] is not None and found["tpot_s"].starts == []


def test_an_interval_of_equal_values_is_a_point() -> None:
    assert formulas.interval([[7.0, 7.0]] * 6) == (7.0, 7.0)


def test_connecting_stands_beside_ttft_and_older_samples_have_none() -> None:
    taken = [sample(connect_ns=ns) for ns in (2_000_000, 3_000_000, 30_000_000)]
    found = figures(taken)
    assert found["connect_s"].median == 0.003
    assert found["ttft_s"] == figures([replace(s, connect_ns=None) for s in taken])["ttft_s"]
    assert figures([sample()])["connect_s"] is None


@given(st.lists(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=4), min_size=6, max_size=10))
def test_an_interval_lies_inside_the_range(groups: list[list[float]]) -> None:
    low, high = formulas.interval(groups)
    values = [v for group in groups for v in group]
    assert min(values) * (1 - 1e-5) <= low <= high <= max(values) * (1 + 1e-5)


def test_percentiles_need_enough_gaps() -> None:
    few = formulas.inter_chunk_s([sample(tokens=64)])
    assert few is not None
    assert (few.n, few.p90, few.p95, few.p99) == (63, None, None, None)
    some = formulas.inter_chunk_s([sample(tokens=65)])
    assert some is not None
    assert some.p90 == pytest.approx(0.01)
    assert some.p95 is None
    many = formulas.inter_chunk_s([sample(tokens=663)])
    assert many is not None
    assert many.p99 == pytest.approx(0.01)


def test_system_rate_is_all_tokens_over_the_wall_time_of_the_phase() -> None:
    first = sample(sent_ns=0, tokens=11)
    second = sample(sent_ns=400_000_000, worker=1, tokens=11)
    # 22 tokens from the first request sent (0) to the last token (0.4 + 0.6 s).
    found = figures([first, second])["system_tok_per_s"]
    assert found is not None
    assert found.median == pytest.approx(22 / 1.0)
    assert figures([first, sample(output_tokens=None)])["system_tok_per_s"] is None


def test_failed_requests_are_counted_and_never_averaged() -> None:
    good, bad = sample(), sample(gap_s=1.0, error="stream_cut")
    warm = sample(phase="warmup", gap_s=5.0)
    found = figures([warm, good, bad])
    assert (found["requests"], found["request_errors"]) == (2, 1)
    assert found["output_tok_per_s"] is not None
    assert found["output_tok_per_s"].n == 1
    assert found["finish_reasons"] == {"length": 1}


def test_without_samples_there_are_no_figures() -> None:
    found = figures([])
    assert found["output_tok_per_s"] is None
    assert found["answered_share"] is None
    assert found["icl_s"] is None


def test_speculation_is_summed() -> None:
    found = figures([sample(drafted_tokens=10, accepted_tokens=7)] * 2)
    assert found["speculative"] is not None
    assert (found["speculative"].drafted_tokens, found["speculative"].accepted_tokens) == (20, 14)
    assert found["speculative"].acceptance_rate == pytest.approx(0.7)


def test_white_space_is_no_answer() -> None:
    blank = replace(sample().chunks[0], text=" \n")
    later = sample(chunks=(blank, *sample().chunks[1:]))
    assert formulas.ttft_s(later) == pytest.approx(0.5)
    assert formulas.ttfa_s(later) == pytest.approx(0.51)
    assert figures([sample(chunks=(blank,))])["answered_share"] == 0
    before = figures([later], methodology=1)["ttfa_s"]
    assert before is not None
    assert before.median == pytest.approx(0.5)


def test_an_interval_counts_starts_not_repeats() -> None:
    repeats = [sample(repeat=i, gap_s=0.01 + i / 1e5) for i in range(8)]
    started = figures(repeats)["output_tok_per_s"]
    attached = figures(repeats, starts=1)["output_tok_per_s"]
    assert started is not None and attached is not None
    assert started.ci95 is not None
    assert len(started.starts) == 8
    assert (attached.ci95, attached.starts, attached.median) == (None, [], started.median)
    assert attached.min == started.min
    # Version 1 counted repeats, whoever started the server.
    before = figures(repeats, starts=1, methodology=1)["output_tok_per_s"]
    assert before is not None
    assert before.ci95 == started.ci95


SILENT = {"timings": None, "cached_tokens": None}


@pytest.mark.parametrize(
    ("changes", "counters", "expected"),
    [
        ({}, {}, 64 / 0.5),
        # Whoever tells cached tokens: the answer, else the engine's sums.
        ({"cached_tokens": 14}, {}, 50 / 0.5),
        ({}, {"cached_tokens": 24.0}, 40 / 0.5),
        # Other requests, hidden tokens and long first chunks lie in TTFT too.
        ({"concurrency": 4}, {}, None),
        ({"hidden_tokens": 3}, {}, None),
        ({"first_chunk_tokens": 3}, {}, None),
        ({"first_chunk_tokens": None}, {}, None),
        ({"first_chunk_tokens": 2, "gap_s": 0.001}, {}, 64 / 0.5),
        ({"cached_tokens": 64}, {}, None),
    ],
)
def test_prefill_from_ttft(
    changes: dict[str, Any], counters: dict[str, float], expected: float | None
) -> None:
    found = figures([sample(**{**SILENT, **changes})], counters)["prefill_tok_per_s"]
    assert found is None if expected is None else found and found.median == pytest.approx(expected)


def test_a_prompt_time_of_unknown_cache_is_no_prefill() -> None:
    timed = sample(cached_tokens=None, concurrency=4)
    assert figures([timed])["prefill_tok_per_s"] is None
    counters = {"prompt_tokens": 64.0, "prefill_s": 0.25}
    assert figures([timed], counters)["prefill_tok_per_s"] is None
    known = figures([timed], {**counters, "cached_tokens": 0.0})
    assert known["prefill_source"] == "server"
    assert figures([timed], methodology=1)["prefill_tok_per_s"] is not None


def test_requests_off_the_engines_clock_are_named() -> None:
    off = sample(iteration=2, worker=1, timings=EngineTimings(64, 250.0, 21, 190.0))
    server = figures([sample(), sample(iteration=1), off])["server"]
    assert server is not None
    assert server.difference == pytest.approx(0, abs=1e-9)
    assert server.difference_largest == pytest.approx(-0.05)
    assert server.off_clock == ["repeat 0, iteration 2, worker 1"]


def test_chunks_that_came_at_once_have_no_gap_between_them() -> None:
    pairs = tuple(
        Chunk(500_000_000 + 10_000_000 * (i // 2) + 2_000 * (i % 2), Kind.CONTENT, "x")
        for i in range(64)
    )
    found = formulas.inter_chunk_s([sample(chunks=pairs, output_tokens=64)])
    assert found is not None
    assert found.n == 31
    assert found.p50 == found.max == pytest.approx(0.01)
