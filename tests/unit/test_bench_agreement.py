"""bench/agreement: each tool's definition, tried on files that the pinned versions wrote, gives the
figure that stands in the file; what two tools differ by is taken apart without a rest."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import pytest

from bench.agreement.__main__ import beside
from bench.agreement.definitions import (
    AIPERF,
    DECODE,
    GUIDELLM,
    LLAMA_BENCH,
    OWN,
    PREFILL,
    TTFT,
    VLLM,
    Definition,
    Engine,
    Request,
    row,
    seen,
)
from bench.agreement.engine import Load, engine_times
from bench.agreement.report import found, page
from bench.agreement.tools import (
    TOOLS,
    Reading,
    read_aiperf,
    read_guidellm,
    read_llama_bench,
    read_llama_benchy,
    read_vllm,
)
from bench.instrument.report import Facts
from bench.processes import Failed

DATA = Path(__file__).parent.parent / "data"
FILES = DATA / "imports"
LOAD = Load("smollm2", "a load", 1, 4, 64, 16)


def vllm_requests() -> list[Request]:
    """The chunk that opens an answer comes with its first token."""
    told = json.loads((FILES / "vllm-bench" / "detailed.json").read_text("utf-8"))
    per_request = zip(
        told["input_lens"], told["output_lens"], told["ttfts"], told["itls"], strict=True
    )
    return [
        Request(prompt, tokens, ttft + gaps[0], sum(gaps[1:-1]), ttft)
        for prompt, tokens, ttft, gaps in per_request
    ]


def guidellm_requests() -> list[Request]:
    (told,) = json.loads((FILES / "guidellm" / "concurrency-1.json").read_text("utf-8"))[
        "benchmarks"
    ]
    return [
        Request(
            one["prompt_tokens"],
            one["output_tokens"],
            times["first_token_iteration"] - times["request_start"],
            times["last_token_iteration"] - times["first_token_iteration"],
            times["first_token_iteration"] - times["request_start"],
        )
        for one in told["requests"]["successful"]
        for times in [one["info"]["timings"]]
    ]


def aiperf_requests() -> list[Request]:
    lines = (FILES / "aiperf" / "profile_export.jsonl").read_text("utf-8").splitlines()
    told = [json.loads(line)["metrics"] for line in lines]
    return [
        Request(
            one["input_sequence_length"]["value"],
            one["output_sequence_length"]["value"],
            one["time_to_first_token"]["value"] / 1e3,
            sum(one["inter_chunk_latency"]["value"]) / 1e3,
            one["time_to_first_token"]["value"] / 1e3,
        )
        for one in told
    ]


@pytest.mark.parametrize(
    ("requests", "definitions", "reading"),
    [
        pytest.param(
            vllm_requests(),
            VLLM,
            read_vllm(FILES / "vllm-bench" / "detailed.json", LOAD),
            id="vllm bench serve",
        ),
        pytest.param(
            guidellm_requests(),
            GUIDELLM,
            read_guidellm(FILES / "guidellm" / "concurrency-1.json", replace(LOAD, requests=3)),
            id="GuideLLM",
        ),
        pytest.param(
            aiperf_requests(),
            AIPERF,
            read_aiperf(FILES / "aiperf" / "profile_export_aiperf.json", LOAD),
            id="AIPerf",
        ),
    ],
)
def test_a_definition_gives_the_figure_of_the_tools_own_file(
    requests: list[Request], definitions: tuple[Definition, ...], reading: Reading
) -> None:
    assert {each.name for each in definitions} == set(reading.published)
    for definition in definitions:
        if definition.name == "output_throughput":  # of requests beside each other here
            continue
        computed = definition.of(requests, {})
        assert computed == pytest.approx(reading.published[definition.name], rel=2e-3)


def test_llama_benchy_and_llama_bench_are_read() -> None:
    report = json.loads((FILES / "llama-benchy" / "smollm2.json").read_text("utf-8"))
    alone = report | {"benchmarks": report["benchmarks"][:1]}
    path = FILES / "llama-benchy" / "smollm2.json"
    with pytest.raises(ValueError, match="too many"):  # one load is asked of it
        read_llama_benchy(path, LOAD)
    values = alone["benchmarks"][0]["e2e_ttft"]["values"]
    assert fmean(values) / 1e3 == pytest.approx(alone["benchmarks"][0]["e2e_ttft"]["mean"] / 1e3)
    found = read_llama_bench(FILES / "llama-bench" / "gemma.jsonl").published
    assert set(found) == {"pp", "tg"}


def test_a_lost_request_is_no_figure() -> None:
    path = FILES / "vllm-bench" / "detailed.json"
    with pytest.raises(Failed, match="4 of its 5"):
        read_vllm(path, replace(LOAD, requests=5))


def test_the_servers_log_is_read() -> None:
    """Lines of llama-server b11434, of requests that ran beside each other."""
    log = (DATA / "instrument" / "llama-server.txt").read_text("utf-8")
    times = engine_times(log)
    assert {(one.prompt_tokens, one.tokens) for one in times} == {(192, 16)}
    assert times[-1] == Engine(192, 2.92403, 16, 0.53647)
    assert engine_times(log[: len(log) // 2]) == times[: len(engine_times(log[: len(log) // 2]))]


OURS = [Request(320, 128, 0.81 + n / 100, 2.0 + n / 50, 0.8 + n / 100) for n in range(3)]
LOGGED = [Engine(320, 0.8 + n / 100, 128, 1.99 + n / 50) for n in range(3)]


def test_requests_that_the_engine_logged_alike_are_seen_alike() -> None:
    for definition in OWN.values():
        as_seen = definition.of(seen(LOGGED, OURS, LOGGED), {})
        assert as_seen == pytest.approx(definition.of(OURS, {}), rel=1e-9)


@pytest.mark.parametrize("definition", [*VLLM, *GUIDELLM, *AIPERF], ids=lambda d: d.name)
def test_a_difference_is_taken_apart_without_a_rest(definition: Definition) -> None:
    """Another tool of another engine's pace: three factors, each its own."""
    slower = [replace(e, prompt_s=e.prompt_s * 1.3, decode_s=e.decode_s * 1.2) for e in LOGGED]
    honest = definition.of(seen(slower, OURS, LOGGED), {})
    found = row(definition, honest * 1.05, {}, slower, OURS, LOGGED)
    assert found.left == pytest.approx(1.05)
    assert found.engine * found.definition * found.left == pytest.approx(found.ratio)
    wanted = {DECODE: 1 / 1.2, TTFT: 1.3, PREFILL: 1 / 1.3}[definition.figure]
    assert found.engine == pytest.approx(wanted, rel=0.01)


def test_gaps_between_chunks_are_two_more_than_those_between_tokens() -> None:
    (of_chunks,) = (each for each in VLLM if each.name == "mean_itl_ms")
    same = [Request(320, 128, 0.8, 2.0, 0.8)] * 3
    engine = [Engine(320, 0.8, 128, 2.0)] * 3
    found = row(of_chunks, 129 / 2.0, {}, engine, same, engine)
    assert found.engine == pytest.approx(1)
    assert found.left == pytest.approx(1)
    assert found.definition == pytest.approx(129 / 127)
    assert "129 gaps in the time of 127, × 1.0157" in found.why


def test_a_native_benchmark_is_held_against_the_engine_without_its_server() -> None:
    told = {"bare_pace_s": 0.015, "bare_prompt_s": 0.79}
    decode, prefill = LLAMA_BENCH
    assert row(decode, 1 / 0.015, told, LOGGED, OURS, LOGGED).left == pytest.approx(1)
    assert row(prefill, 320 / 0.79, told, LOGGED, OURS, LOGGED).left == pytest.approx(1)


def test_a_machine_that_slowed_down_is_no_difference_of_a_native_benchmark() -> None:
    """All that the benchmark and the answers between its passes took is a tenth more."""
    slower = [replace(e, prompt_s=e.prompt_s * 1.1, decode_s=e.decode_s * 1.1) for e in LOGGED]
    pace = median(r.pace_s for r in OURS)
    told = {"bare_pace_s": pace * 1.1, "bare_prompt_s": 0.79 * 1.1}
    found = row(LLAMA_BENCH[0], 1 / (pace * 1.1), told, slower, OURS, LOGGED)
    assert found.engine == pytest.approx(1 / 1.1, rel=0.01)
    assert found.definition == pytest.approx(1, rel=0.01)
    assert found.left == pytest.approx(1)


def test_passes_between_two_speeds_of_the_machine_do_not_count() -> None:
    """Half the answers are of a machine of two thirds of its speed; the pass between the halves
    could be of either."""
    answers = [60.0, 60.5, 60.2, 40.0, 40.4, 40.1]
    passes = [66.0, 66.3, 66.0, 44.2, 44.3]
    assert beside(passes, answers) == pytest.approx(1.1, rel=0.005)
    assert beside([66.0], [60.0, 40.0]) == pytest.approx(66 / (60 * 40) ** 0.5)


def runs(left: float) -> list[dict[str, object]]:
    """tokrig and GuideLLM, whose median rate is so many times what it should be."""
    pace = median(r.pace_s for r in OURS)
    common = {"load": LOAD.name, "repeat": 0, "command": "it", "remarks": [], "told": {}}
    common["foreign"] = 0.3
    engine = [vars(one) for one in LOGGED]
    whole = median((r.ttft_s + r.window_s) / r.tokens for r in OURS)
    published = {
        "inter_token_latency_ms": left / pace,
        "time_per_output_token_ms": 1 / whole,
        "time_to_first_token_ms": median(r.ttft_s for r in OURS),
    }
    own = dict.fromkeys((each.name for each in OWN.values()), 1.0)
    return [
        common
        | {"tool": "tokrig", "published": own, "engine": engine}
        | {"requests": [vars(one) for one in OURS]},
        common | {"tool": "guidellm", "published": published, "engine": engine, "requests": []},
        common | {"tool": "aiperf", "failed": "it ended with 1"},
    ]


@pytest.mark.parametrize(("left", "word"), [(1.0, "agrees"), (1.06, "**not explained**")])
def test_the_page_says_what_agrees_and_what_is_not_explained(left: float, word: str) -> None:
    verdicts = {each.definition.name: each.verdict for each in found(runs(left), [LOAD])}
    assert verdicts == {
        "inter_token_latency_ms": word,
        "time_per_output_token_ms": "explained",
        "time_to_first_token_ms": "agrees",
    }
    versions = {tool.title: "1" for tool in TOOLS.values()}
    four = [dict(run) | {"load": "smollm2-4"} for run in runs(left)]
    beside = {each.definition.name for each in found(four, [replace(LOAD, concurrency=4)])}
    assert beside == {"inter_token_latency_ms"}
    facts = Facts("2026-11-28", "a machine", "a system", versions, {}, {"server": 0, "client": 1})
    text = page(facts, runs(left), [LOAD])
    assert f"| {word} |" in text
    assert "Other programs took up to 30%" in text
    assert "the time to the first token is in it: 128 tokens" in text
    assert "AIPerf, smollm2-1, repeat 1, failed: it ended with 1" in text
