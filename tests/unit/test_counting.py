"""Which tokens came between the first stamp and the last, and who says so: one case a rule.

The streams here are written out; ``test_streams`` draws thousands at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from tests.unit.test_answer import DONE, FINISH, content, delta, usage
from tokrig.backends.llamacpp import BACKEND
from tokrig.record import formulas
from tokrig.record.metrics import figures
from tokrig.record.samples import Sample
from tokrig.run.client import Response
from tokrig.run.counting import observe

MS = 1_000_000
# One of these a token, about as long as a token is.
WORDS = [f" w{i:03}" for i in range(1024)]


def by_words(text: str) -> int:
    return len(text.split())


def nobody(text: str) -> int | None:
    return None


def seen(
    timed: list[tuple[float, Any]],
    by: Callable[[str], int | None] = nobody,
    asked: int | None = None,
) -> Sample:
    """The sample of events at these times in ms; those of one time come in one read."""
    pieces = []
    for at_ms, group in groupby(timed, key=lambda one: one[0]):
        body = b""
        for _, event in group:
            text = event if isinstance(event, str) else json.dumps(event)
            body += f"data: {text}\n\n".encode()
        pieces.append((round(at_ms * MS), body))
    place = Sample("chat", 1, 0, 0, 0, "measured", 0, "salt", 0)
    response = Response(0, 0, 0, pieces[-1][0], 200, {}, pieces)
    return observe(response, place, BACKEND, by, asked=asked)


def tokens(count: int, begin_ms: float = 500, each_ms: float = 10) -> list[tuple[float, Any]]:
    """One token a chunk."""
    return [(begin_ms + each_ms * i, content(WORDS[i])[0]) for i in range(count)]


def end(at_ms: float, total: int | None, **details: int) -> list[tuple[float, Any]]:
    told = {"completion_tokens_details": details} if details else {}
    counted = [] if total is None else [(at_ms, usage(total, 64, **told))]
    return [(at_ms, FINISH), *counted, (at_ms, DONE)]


def rate(sample: Sample) -> float | None:
    return formulas.told_tok_per_s(sample)


def test_one_token_a_chunk() -> None:
    sample = seen([*tokens(128), *end(1771, 128)])
    assert (sample.first_chunk_tokens, sample.hidden_tokens) == (1, 0)
    assert (sample.counted_by, sample.first_chunk_assumed) == ("one_a_chunk", False)
    assert rate(sample) == pytest.approx(100)


def test_several_events_of_the_first_read_share_its_stamp() -> None:
    held_back = [(t if t > 700 else 700, e) for t, e in tokens(128)]
    sample = seen([*held_back, *end(1771, 128)])
    assert (sample.first_chunk_tokens, sample.counted_by) == (21, "one_a_chunk")
    assert rate(sample) == pytest.approx(100)


def test_several_reads_of_one_write_are_one_burst() -> None:
    held_back = [(t if t > 700 else 700 + i / 50, e) for i, (t, e) in enumerate(tokens(128))]
    sample = seen([*held_back, *end(1771, 128)])
    assert sample.first_chunk_tokens == 21
    assert rate(sample) == pytest.approx(100, rel=1e-3)


def test_hidden_reasoning_that_is_told_leaves_the_count() -> None:
    """BerriAI/litellm-docs#559: usage counts reasoning that is never streamed."""
    sample = seen([*tokens(32), *end(811, 128, reasoning_tokens=96)])
    assert (sample.hidden_tokens, sample.counted_by) == (96, "one_a_chunk")
    assert (sample.reasoning_tokens, sample.content_tokens) == (96, 32)
    assert rate(sample) == pytest.approx(100)


def test_hidden_tokens_that_nobody_tells_are_not_confirmed() -> None:
    sample = seen([*tokens(32), *end(811, 128)])
    assert (sample.counted_by, sample.hidden_tokens) == (None, None)


def test_a_tokenizer_tells_tokens_without_text() -> None:
    """Twenty tokens, of 10 ms each, before the first that shows."""
    sample = seen([*tokens(108), *end(1571, 128)], by_words)
    assert (sample.hidden_tokens, sample.counted_by) == (20, "tokenizer")
    assert rate(sample) == pytest.approx(100)
    assert sample.count_disagreement is None


def test_tokens_held_back_and_dropped_at_the_end() -> None:
    """sgl-project/sglang#36272: tokens that no chunk carried are counted."""
    sample = seen([*tokens(108), *end(1771, 128)], by_words)
    assert (sample.hidden_tokens, sample.counted_by) == (20, "tokenizer")
    assert rate(sample) == pytest.approx(100)


def test_tokens_for_which_there_was_no_time_are_counted_wrongly() -> None:
    sample = seen([*tokens(128, begin_ms=30), *end(1301, 256)], by_words)
    assert sample.count_disagreement == pytest.approx(0.5)
    assert rate(sample) == pytest.approx(100)


def test_as_many_hidden_as_shown_is_a_server_that_counts_double() -> None:
    sample = seen([*tokens(64, begin_ms=900), *end(1531, 128)], by_words)
    assert (sample.counted_by, rate(sample)) == (None, None)


def test_hidden_tokens_may_lie_in_a_gap() -> None:
    """Six tokens between a thought and its answer that no chunk carries: no telling."""
    gap = [(t + (60 if t > 900 else 0), e) for t, e in tokens(100)]
    sample = seen([*gap, *end(1560, 106)], by_words)
    assert (sample.counted_by, rate(sample)) == (None, None)
    clock = {"prompt_n": 64, "prompt_ms": 490, "predicted_n": 106, "predicted_ms": 1050.0}
    sample = seen([*gap, *end(1560, 106), (1560, {"timings": clock})], by_words)
    assert (sample.counted_by, sample.hidden_tokens) == ("engine_clock", 0)
    assert rate(sample) == pytest.approx(100)


def test_usage_on_every_chunk_tells_all() -> None:
    """Twenty hidden tokens, four a chunk, and six dropped at the end."""
    chunks = [
        (
            700 + 40.0 * i,
            {
                **content("".join(WORDS[4 * i : 4 * i + 4]))[0],
                "usage": {"completion_tokens": 24 + 4 * i, "prompt_tokens": 64},
            },
        )
        for i in range(120)
    ]
    sample = seen([*chunks, *end(5530, 506)], by_words)
    assert (sample.first_chunk_tokens, sample.last_chunk_tokens) == (24, 4)
    assert (sample.hidden_tokens, sample.counted_by) == (6, "each_chunk")
    assert rate(sample) == pytest.approx(100)


@pytest.mark.parametrize("running", [lambda i: 0, lambda i: 128, lambda i: 500 - i, lambda i: "7"])
def test_running_counts_that_cannot_be(running: Callable[[int], Any]) -> None:
    chunks = [
        (t, {**e, "usage": {"completion_tokens": running(i)}})
        for i, (t, e) in enumerate(tokens(128))
    ]
    sample = seen([*chunks, *end(1771, 128)])
    assert sample.counted_by == "one_a_chunk"
    assert rate(sample) == pytest.approx(100)


@pytest.mark.parametrize("by", [nobody, by_words])
def test_running_counts_of_a_server_that_counts_double(by: Callable[[str], int | None]) -> None:
    chunks = [
        (t, {**e, "usage": {"completion_tokens": 2 * i + 2}})
        for i, (t, e) in enumerate(tokens(128))
    ]
    short = [(t, {**e, **content(" w")[0]}) for t, e in chunks] if by is nobody else chunks
    sample = seen([*short, *end(1771, 256)], by)
    assert sample.counted_by is None or (sample.count_disagreement or 0) > 0.4


def test_all_reasoning_in_one_chunk_at_its_end() -> None:
    """SGLang's stream_reasoning: false."""
    thought = (500.0, delta(reasoning_content="".join(WORDS[:96])))
    events = [thought, *tokens(32, begin_ms=510), *end(821, 128, reasoning_tokens=96)]
    sample = seen(events)
    assert (sample.first_chunk_tokens, sample.counted_by) == (96, "one_a_chunk")
    assert rate(sample) == pytest.approx(100)
    counted = seen([thought, *tokens(32, begin_ms=510), *end(821, 128)], by_words)
    assert (counted.first_chunk_tokens, counted.counted_by) == (96, "tokenizer")


def test_a_first_chunk_that_moves_the_rate_gives_none() -> None:
    thought = (500.0, delta(reasoning_content="".join(WORDS[:96])))
    sample = seen([thought, *tokens(32, begin_ms=510), *end(821, 140)])
    assert (sample.first_chunk_tokens, sample.counted_by, rate(sample)) == (None, None, None)


def test_three_facts_make_a_count() -> None:
    sample = seen([*tokens(128), *end(1771, None)], asked=128)
    assert (sample.output_tokens, sample.count_source) == (128, "length")
    assert sample.counted_by == "one_a_chunk"
    assert seen([*tokens(127), *end(1771, None)], asked=128).output_tokens is None
    stopped = [*tokens(128), (1771, {"choices": [{"delta": {}, "finish_reason": "stop"}]})]
    assert seen(stopped, asked=128).output_tokens is None
    # The same tokenizer may cut a text otherwise than it was generated.
    glued = seen([*tokens(128), *end(1771, None)], lambda t: round(by_words(t) * 0.985), asked=128)
    assert (glued.output_tokens, glued.count_source) == (128, "length")


def test_returned_token_ids_count() -> None:
    chunks = [(t, {"choices": [{**e["choices"][0], "token_ids": [1, 2]}]}) for t, e in tokens(128)]
    sample = seen([*chunks, *end(1771, None)])
    assert (sample.output_tokens, sample.count_source) == (256, "token_ids")
    assert (sample.first_chunk_tokens, sample.last_chunk_tokens) == (2, 2)


def test_tool_calls_are_a_channel_of_their_own() -> None:
    called = [
        (1000 + 10.0 * i, delta(tool_calls=[{"function": {"arguments": WORDS[i]}}]))
        for i in range(14)
    ]
    sample = seen([*tokens(50), *called, *end(1131, 64)])
    assert (sample.tool_call_tokens, sample.content_tokens) == (14, 50)
    assert sample.reasoning_tokens == 0
    only = seen([*called, *end(1131, 20)], by_words)
    assert (only.tool_call_tokens, only.content_tokens) == (20, 0)


# Deliveries.


def through(timed: list[tuple[float, Any]], period_ms: float) -> list[tuple[float, Any]]:
    """Behind a proxy that passes on what it has at every tick."""
    return [(-(-t // period_ms) * period_ms, event) for t, event in timed]


def test_a_proxy_that_flushes_every_500_ms_hides_the_rate() -> None:
    sample = seen(through([*tokens(128, each_ms=20), *end(3041, 128)], 500))
    assert rate(sample) is None
    found = figures([sample])
    assert found["output_tok_per_s"] is None
    assert found["icl_s"] is not None
    assert found["icl_s"].p50 is None
    assert found["icl_s"].max == pytest.approx(0.5)


def test_many_deliveries_tell_it_again() -> None:
    sample = seen(through([*tokens(1024, each_ms=20), *end(20961, 1024)], 100))
    assert rate(sample) == pytest.approx(50, rel=0.01)


def speculated(steps: int, accepted: int) -> list[tuple[float, Any]]:
    """Steps of 30 ms whose tokens come in chunks of their own, at once."""
    chunks = tokens(1)
    for step in range(1, steps + 1):
        for _ in range(1 + (step * 7) % (accepted + 1)):
            chunks.append((500 + 30.0 * step, content(WORDS[len(chunks)])[0]))
    return chunks


def test_forty_steps_of_speculation_are_fine() -> None:
    chunks = speculated(40, 4)
    n = len(chunks)
    drafts = {"timings": {"draft_n": 160, "draft_n_accepted": n - 41}}
    sample = seen([*chunks, *end(1701, n), (1701, drafts)])
    assert rate(sample) == pytest.approx((n - 1) / 1.2)
    assert sample.counted_by == "one_a_chunk"
    # The same bursts of who knows what may have waited.
    assert rate(seen([*chunks, *end(1701, n)])) is None
    found = figures([sample])["speculative"]
    assert found is not None
    assert found.steps == 40
    assert found.acceptance_length == pytest.approx((n - 1) / 40, rel=1e-5)


def test_a_stall_counts_as_what_it_is() -> None:
    stalled = [(t + (400 if t > 1000 else 0), e) for t, e in tokens(128)]
    sample = seen([*stalled, *end(2171, 128)])
    assert rate(sample) == pytest.approx(127 / 1.67)
    icl = figures([sample])["icl_s"]
    assert icl is not None
    assert icl.p50 is None
    assert icl.max == pytest.approx(0.41)
