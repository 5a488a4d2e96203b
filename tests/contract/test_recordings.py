"""Recorded answers of real servers, through a real socket and the real client.

What is expected was read off the recordings by hand; times are those of the recording.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.contract.loopback import END, Talk, chunk, serving
from tests.contract.recordings import FOLDER, Recording, names, recording
from tokrig.backends import Backend
from tokrig.backends.llamacpp import BACKEND as LLAMACPP
from tokrig.backends.openai import BACKEND as OPENAI
from tokrig.errors import RequestError
from tokrig.record import formulas
from tokrig.record.metrics import figures
from tokrig.record.samples import EngineTimings, Kind, Sample
from tokrig.run.answer import read_answer
from tokrig.run.client import Response, closed_loop
from tokrig.run.counting import observe

PLACE = Sample("chat", 1, 0, 0, 0, "measured", 0, "salt", 0)
FASTER = 50  # a replay takes this much less time than the recording


@dataclass(frozen=True)
class Expected:
    """What one recording says. ``tokens_of`` is the tokenizer: the texts it may be asked for, and
    ``shown_tokens`` what it says of all text."""

    backend: Backend
    reasoning_chunks: int
    content_chunks: int
    first: str
    last: str
    ttft_s: float
    t_last_s: float
    ttfa_s: float | None
    output: int | None
    prompt: int | None
    cached: int | None
    reasoning: int | None
    content: int | None
    first_tokens: int | None
    tpot_s: float | None
    source: str | None = "usage"
    done: bool = True
    tokens_of: Mapping[str, int] = field(default_factory=dict)
    shown_tokens: int | None = None
    counted_by: str | None = "one_a_chunk"
    timings: EngineTimings | None = None
    drafted: int | None = None
    accepted: int | None = None


LLAMACPP_REASONING = (
    "\nThe sea is a vast and mysterious realm, where the boundaries between the physical and the "
    "spiritual are constantly shifting."
)
VLLM_REASONING = " will give you a list of 12 items. You can repeat"

EXPECTED = {
    "llamacpp-reasoning": Expected(
        backend=LLAMACPP,
        reasoning_chunks=22,
        content_chunks=36,
        first="\nThe",
        last=" adds",
        ttft_s=0.064245,
        t_last_s=0.623445,
        ttfa_s=0.303008,
        output=64,
        prompt=21,
        cached=0,
        # 23 tokens of shown reasoning: the first chunk holds two, "\n" and "The".
        tokens_of={LLAMACPP_REASONING: 23, "\nThe": 2},
        # The five of the closing marker are not shown. The engine's clock has them in the window.
        shown_tokens=59,
        counted_by="engine_clock",
        reasoning=23,
        content=41,
        first_tokens=2,
        tpot_s=(0.623445 - 0.064245) / 62,
        timings=EngineTimings(21, 51.231, 64, 568.543),
    ),
    "llamacpp-spec-ngram": Expected(
        backend=LLAMACPP,
        reasoning_chunks=0,
        content_chunks=64,
        first="One",
        last=" nine",
        ttft_s=0.175426,
        t_last_s=0.598697,
        ttfa_s=0.175426,
        output=64,
        prompt=58,
        cached=0,
        reasoning=0,
        content=64,
        first_tokens=1,
        tpot_s=(0.598697 - 0.175426) / 63,
        timings=EngineTimings(58, 170.24, 64, 424.586),
        drafted=61,
        accepted=50,
    ),
    "llama-cpp-python": Expected(
        backend=OPENAI,
        reasoning_chunks=0,
        content_chunks=32,
        first="The",
        last=" beauty",
        ttft_s=0.13428,
        t_last_s=0.464796,
        ttfa_s=0.13428,
        output=None,  # no usage, and no tokenizer that could be asked
        prompt=None,
        cached=None,
        reasoning=0,
        content=None,
        first_tokens=None,
        tpot_s=None,
        source=None,
        counted_by=None,
    ),
    "vllm-reasoning-ngram": Expected(
        backend=OPENAI,
        reasoning_chunks=14,
        content_chunks=33,
        first=" will",
        last=" them",
        ttft_s=1.633267,
        t_last_s=3.44626,
        ttfa_s=2.319932,  # the first content is an empty line
        output=64,
        prompt=69,
        cached=None,
        # Usage says 0 reasoning tokens; the text has 14.
        tokens_of={VLLM_REASONING: 14, " will": 1},
        reasoning=14,
        content=50,
        # 47 chunks, 64 tokens, and no running counts: nobody tells what the first one held.
        counted_by=None,
        first_tokens=None,
        tpot_s=None,
    ),
    "vllm-continuous": Expected(
        backend=OPENAI,
        reasoning_chunks=17,
        content_chunks=0,
        first="'m",
        last=" product",
        ttft_s=0.100269,
        t_last_s=0.74981,
        ttfa_s=None,
        output=24,
        prompt=49,
        cached=None,
        reasoning=24,
        content=0,
        # Special tokens are not shown, so the text has few bytes a token: counted double, perhaps.
        counted_by=None,
        first_tokens=1,  # usage on that very chunk
        tpot_s=(0.74981 - 0.100269) / 23,
    ),
    "mlx-lm": Expected(
        backend=OPENAI,
        reasoning_chunks=0,
        content_chunks=24,
        first="The",
        last=" boundaries",
        ttft_s=2.178393,
        t_last_s=5.21478,
        ttfa_s=2.178393,
        output=24,
        prompt=38,
        cached=0,
        reasoning=0,
        content=24,
        first_tokens=1,
        tpot_s=(5.21478 - 2.178393) / 23,
    ),
    "transformers-serve": Expected(
        backend=OPENAI,
        reasoning_chunks=0,
        content_chunks=32,
        first="The",
        last=" and",
        ttft_s=0.159224,
        t_last_s=1.417514,
        ttfa_s=0.159224,
        output=32,
        prompt=38,
        cached=None,
        reasoning=0,
        content=32,
        first_tokens=1,
        tpot_s=(1.417514 - 0.159224) / 31,
        done=False,
    ),
}


def replayed(what: Recording) -> Response:
    """The response when a server repeats the recording line by line, FASTER than it was."""
    fields = {name.lower(): value for name, value in what.headers.items()}
    old = "transfer-encoding" not in fields
    head = b"HTTP/1.0 200 OK\r\n" if old else b"HTTP/1.1 200 OK\r\n"
    lines = (f"{name}: {value}\r\n" for name, value in what.headers.items())
    head += "".join(lines).encode("latin-1") + b"\r\n"

    def script(talk: Talk) -> None:
        began = time.monotonic()
        talk.send(head)
        for t_s, line in what.lines:
            time.sleep(max(0.0, began + t_s / FASTER - time.monotonic()))
            talk.send(line if old else chunk(line))
        talk.send(b"" if old else END)

    with serving(script) as server:
        body = json.dumps(what.request).encode()
        phase = closed_loop(server.endpoint, "/v1/chat/completions", [body], 1, silence_s=5)
        assert json.loads(server.talks[0].body) == what.request
    return phase.responses[0]


def recorded(what: Recording) -> Response:
    """The response with the recording's own times: each line a piece of its own."""
    pieces = [(round(t_s * 1e9), line) for t_s, line in what.lines]
    headers = {name.lower(): value for name, value in what.headers.items()}
    return Response(0, 0, 0, pieces[-1][0], what.status, headers, pieces)


def sample_of(response: Response, expected: Expected) -> Sample:
    shown = "".join(c.text for c in read_answer(response, expected.backend.timings).chunks)
    told = {**expected.tokens_of, shown: expected.shown_tokens}
    return observe(response, PLACE, expected.backend, told.get)


def test_every_recording_is_expected() -> None:
    assert set(EXPECTED) == set(names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("way", [replayed, recorded])
def test_what_was_said(name: str, way: Any) -> None:
    expected = EXPECTED[name]
    response = way(recording(name))
    assert (response.status, response.failure) == (200, None)
    assert b"".join(data for _, data in response.pieces) == recording(name).body
    sample = sample_of(response, expected)
    kinds = [c.kind for c in sample.chunks]
    assert kinds == [Kind.REASONING] * expected.reasoning_chunks + (
        [Kind.CONTENT] * expected.content_chunks
    )
    assert (sample.chunks[0].text, sample.chunks[-1].text) == (expected.first, expected.last)
    assert (sample.output_tokens, sample.prompt_tokens) == (expected.output, expected.prompt)
    assert sample.cached_tokens == expected.cached
    assert sample.count_source == expected.source
    assert (sample.reasoning_tokens, sample.content_tokens) == (
        expected.reasoning,
        expected.content,
    )
    if way is recorded:  # a fast replay may put several chunks into one read
        assert sample.first_chunk_tokens == expected.first_tokens
        assert sample.counted_by == expected.counted_by
        assert sample.first_chunk_assumed is False
    assert sample.timings == expected.timings
    assert (sample.drafted_tokens, sample.accepted_tokens) == (expected.drafted, expected.accepted)
    assert (sample.finish_reason, sample.error) == ("length", None)
    assert sample.count_disagreement in (None, 0)
    assert read_answer(response, expected.backend.timings).done is expected.done


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_when_it_was_said(name: str) -> None:
    expected = EXPECTED[name]
    sample = sample_of(recorded(recording(name)), expected)
    assert formulas.ttft_s(sample) == pytest.approx(expected.ttft_s)
    assert formulas.ttfa_s(sample) == (
        None if expected.ttfa_s is None else pytest.approx(expected.ttfa_s)
    )
    assert sample.chunks[-1].t_ns / 1e9 == pytest.approx(expected.t_last_s)
    assert formulas.tpot_s(sample) == (
        None if expected.tpot_s is None else pytest.approx(expected.tpot_s)
    )
    if expected.output is not None and expected.content is not None:
        assert formulas.end_to_end_tok_per_s(sample) == pytest.approx(
            expected.output / expected.t_last_s
        )
        assert formulas.useful_tok_per_s(sample) == pytest.approx(
            expected.content / expected.t_last_s
        )


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_replay_keeps_the_distances(name: str) -> None:
    """Every chunk is stamped when it was sent again or later, and none before its predecessor."""
    expected = EXPECTED[name]
    again = sample_of(replayed(recording(name)), expected).chunks
    then = sample_of(recorded(recording(name)), expected).chunks
    stamps = [c.t_ns for c in again]
    assert stamps == sorted(stamps)
    for one, other in zip(again, then, strict=True):
        assert one.t_ns >= other.t_ns / FASTER
    # Distances of some length survive: not everything is stamped when it is over.
    assert stamps[-1] - stamps[0] > 0


def test_llamacpp_clocks_agree() -> None:
    expected = EXPECTED["llamacpp-reasoning"]
    sample = sample_of(recorded(recording("llamacpp-reasoning")), expected)
    found = figures([sample])
    assert found["server"] is not None
    assert found["server"].output_tok_per_s is not None
    # The engine's clock starts at the first token but counts it: 63 tokens in 568.543 ms.
    assert found["server"].output_tok_per_s.median == pytest.approx(63 / 0.568543, rel=1e-5)
    assert found["prefill_source"] == "server"
    assert found["prefill_tok_per_s"] is not None
    assert found["prefill_tok_per_s"].median == pytest.approx(21 / 0.051231, rel=1e-5)
    assert found["server"].difference == pytest.approx(0.0006, abs=1e-4)


def test_without_timings_prefill_is_derived() -> None:
    found = figures([sample_of(recorded(recording("mlx-lm")), EXPECTED["mlx-lm"])])
    assert found["prefill_source"] == "ttft_derived"
    assert found["prefill_tok_per_s"] is not None
    assert found["prefill_tok_per_s"].median == pytest.approx(38 / 2.178393, rel=1e-5)
    assert found["server"] is None


def test_llama_cpp_python_can_be_counted_by_a_tokenizer() -> None:
    response = recorded(recording("llama-cpp-python"))
    sample = observe(response, PLACE, OPENAI, lambda text: 32)
    assert (sample.output_tokens, sample.count_source) == (32, "tokenizer")
    assert (sample.first_chunk_tokens, sample.content_tokens) == (1, 32)
    assert formulas.tpot_s(sample) == pytest.approx((0.464796 - 0.13428) / 31)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recording_cut_anywhere_is_an_error(name: str) -> None:
    what, expected = recording(name), EXPECTED[name]
    finish = next(i for i, (_, line) in enumerate(what.lines) if b'"length"' in line)
    for kept in range(1, finish, 5):
        cut = Recording(name, what.request, 200, what.headers, what.lines[:kept])
        sample = sample_of(recorded(cut), expected)
        assert sample.error == "stream_cut"


# The servers' own counters say what was read from their streams.


def counters(name: str) -> dict[str, float]:
    """The plain counters of a ``/metrics`` text; labels are dropped, their values added up."""
    found: dict[str, float] = {}
    for line in (FOLDER / f"{name}.txt").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"([a-z_:]+)(?:\{.*\})? (\S+)", line):
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


@pytest.mark.parametrize(
    ("name", "metrics_name"),
    [
        ("llamacpp-reasoning", "llamacpp-metrics"),
        ("llamacpp-spec-ngram", "llamacpp-spec-metrics"),
    ],
)
def test_llamacpp_counters(name: str, metrics_name: str) -> None:
    said, sample = counters(metrics_name), sample_of(recorded(recording(name)), EXPECTED[name])
    assert said["llamacpp:tokens_predicted_total"] == sample.output_tokens
    assert said["llamacpp:prompt_tokens_total"] == sample.prompt_tokens
    assert said["llamacpp:prompt_tokens_cached_total"] == sample.cached_tokens
    assert said["llamacpp:spec_decode_num_draft_tokens_total"] == (sample.drafted_tokens or 0)
    assert said["llamacpp:spec_decode_num_accepted_tokens_total"] == (sample.accepted_tokens or 0)
    assert sample.timings is not None
    assert said["llamacpp:tokens_predicted_seconds_total"] == pytest.approx(
        sample.timings.decode_ms / 1e3
    )


def test_vllm_counters() -> None:
    said = counters("vllm-metrics")
    both = [
        sample_of(recorded(recording(name)), EXPECTED[name])
        for name in ("vllm-reasoning-ngram", "vllm-continuous")
    ]
    assert said["vllm:generation_tokens_total"] == sum(s.output_tokens or 0 for s in both)
    assert said["vllm:prompt_tokens_total"] == sum(s.prompt_tokens or 0 for s in both)


# What servers say about themselves.


def asker(answers: Mapping[str, str]) -> Any:
    """``ask`` out of recorded files; everything else is a 404."""

    def ask(path: str, body: Any = None, *, text: bool = False) -> Any:
        if path not in answers:
            raise RequestError(f"{path} answered 404", code="http_404")
        return json.loads((FOLDER / answers[path]).read_text("utf-8"))

    return ask


LLAMACPP_SAYS = {"/props": "llamacpp-props.json", "/v1/models": "llamacpp-models.json"}


def test_llamacpp_about_itself() -> None:
    engine = LLAMACPP.inspect(asker(LLAMACPP_SAYS), "")
    assert (engine.engine, engine.served_models) == ("llama.cpp", ("m",))
    assert (engine.resolved.context_per_slot, engine.resolved.slots) == (4096, 2)


def test_vllm_about_itself() -> None:
    engine = OPENAI.inspect(asker({"/v1/models": "vllm-models.json"}), "")
    assert (engine.engine, engine.served_models) == ("vllm", ("smollm2-think",))


# lemonade over llama-server: excerpts of two streams, the second with a warm prompt cache.

LEMONADE = (FOLDER / "lemonade-11.7.0.txt").read_text("utf-8").splitlines()


def lemonade_stream(lines: list[str]) -> Response:
    pieces = [(i, f"{line}\n\n".encode()) for i, line in enumerate(lines)]
    return Response(0, 0, 0, 9, 200, {}, pieces)


def test_lemonade_streams() -> None:
    data = [line for line in LEMONADE if line.startswith("data: ")]
    end = data.index("data: [DONE]")
    cold = observe(lemonade_stream(data[: end + 1]), PLACE, LLAMACPP, lambda _: None)
    assert (cold.output_tokens, cold.prompt_tokens, cold.cached_tokens) == (48, 38, 0)
    assert (cold.finish_reason, cold.error) == ("length", None)
    assert cold.timings == EngineTimings(38, 55.834, 48, 369.962)
    warm = read_answer(lemonade_stream(data[end + 1 :]), LLAMACPP.timings)
    assert (warm.prompt_tokens, warm.cached_tokens) == (38, 37)
    # Uncached tokens only: the engine's prompt time is of one token.
    assert warm.timings == EngineTimings(1, 7.757, 48, 367.157)


def test_lemonade_errors() -> None:
    body = next(line for line in LEMONADE if line.startswith('{"error"'))
    refused = Response(0, 0, 0, 9, 404, {}, [(1, body.encode())])
    answer = read_answer(refused, LLAMACPP.timings)
    assert answer.error == "http_404"
    assert (answer.error_detail or "").startswith("Model 'nope' was not found.")


# No recording holds anything private.


@pytest.mark.parametrize(
    "path", sorted(p for p in FOLDER.rglob("*") if p.is_file()), ids=lambda path: path.name
)
def test_recordings_hold_nothing_private(path: Any) -> None:
    text = path.read_text("utf-8")
    addresses = set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text))
    assert addresses <= {"127.0.0.1"}
    assert not re.search(r"/(?:home|root|Users|tmp|mnt|work)/|\bBearer |\bsk-|\bhf_", text)
