"""Reading what a stream said, in every dialect and in every way it can be wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokrig.backends.llamacpp import BACKEND as LLAMACPP
from tokrig.record.checks import Seen, judge
from tokrig.record.metrics import figures
from tokrig.record.model import WorkloadFacts
from tokrig.record.samples import EngineTimings, Kind, Sample
from tokrig.record.samples_file import from_parquet, to_parquet
from tokrig.run.answer import MOST_TOKENS, Answer, read_answer
from tokrig.run.client import Response
from tokrig.run.counting import observe
from tokrig.spec.reasoning import Marker, markers

PLACE = Sample("chat", 1, 0, 0, 0, "measured", 0, "salt", 0)
REASONING, CONTENT, TOOL_CALL = Kind.REASONING, Kind.CONTENT, Kind.TOOL_CALL
DONE = "[DONE]"
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
END = [FINISH, DONE]


def response(
    events: list[Any],
    *,
    status: int | None = 200,
    failure: str | None = None,
    timed_out: bool = False,
    headers: dict[str, str] | None = None,
) -> Response:
    """Each event in a piece of its own, stamped 1 ms, 2 ms… A str or bytes goes as it is."""
    pieces = []
    for number, event in enumerate(events, 1):
        if isinstance(event, bytes):
            data = event
        else:
            text = event if isinstance(event, str) else json.dumps(event)
            data = f"data: {text}\n\n".encode("utf-8", "surrogatepass")
        pieces.append((number * 1_000_000, data))
    return Response(0, 0, 0, 9, status, headers or {}, pieces, failure, timed_out)


def read(events: list[Any], **how: Any) -> Answer:
    return read_answer(response(events, **how), LLAMACPP.timings)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def content(*texts: str) -> list[dict[str, Any]]:
    return [delta(content=text) for text in texts]


def texts(answer: Answer) -> list[tuple[Kind, str]]:
    return [(chunk.kind, chunk.text) for chunk in answer.chunks]


def joined(answer: Answer, kind: Kind) -> str:
    return "".join(chunk.text for chunk in answer.chunks if chunk.kind is kind)


def usage(output: Any = None, prompt: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"completion_tokens": output, "prompt_tokens": prompt, **more}}


# Chunks and channels.


def test_an_ordinary_answer() -> None:
    answer = read([delta(role="assistant", content=""), *content("One", " two"), *END])
    assert texts(answer) == [(CONTENT, "One"), (CONTENT, " two")]
    assert [c.t_ns for c in answer.chunks] == [2_000_000, 3_000_000]
    assert (answer.done, answer.finish_reason, answer.error) == (True, "length", None)


@pytest.mark.parametrize(
    "empty",
    [
        delta(role="assistant"),
        delta(role="assistant", content=None),
        delta(role="assistant", content=""),
        delta(reasoning_content=""),
        delta(reasoning=""),
        delta(tool_calls=[]),
        delta(tool_calls=[{"index": 0, "function": {"name": "", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0}]),
        delta(),
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0}]},
        {"choices": []},
        {"choices": None},
        {"choices": "none"},
        {"choices": [None, 3, "x", []]},
        {},
        "",
        b": keepalive 37/38\n\n",
        b"event: ping\n\n",
    ],
)
def test_what_carries_no_token(empty: Any) -> None:
    answer = read([empty, *content("x"), empty, *END])
    assert texts(answer) == [(CONTENT, "x")]
    assert answer.chunks[0].t_ns == 2_000_000
    assert answer.error is None


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_the_reasoning_channels(key: str) -> None:
    answer = read([delta(**{key: "Hm"}), delta(**{key: ", yes."}), *content("Yes"), *END])
    assert texts(answer) == [(REASONING, "Hm"), (REASONING, ", yes."), (CONTENT, "Yes")]


def test_the_same_reasoning_under_two_names_counts_once() -> None:
    answer = read([delta(reasoning_content="Hm", reasoning="Hm"), *content("Yes"), *END])
    assert texts(answer) == [(REASONING, "Hm"), (CONTENT, "Yes")]


def test_reasoning_and_content_in_one_delta() -> None:
    answer = read([delta(reasoning="Hm.", content="Yes"), *END])
    assert texts(answer) == [(REASONING, "Hm."), (CONTENT, "Yes")]


def test_tool_calls() -> None:
    calls: list[dict[str, Any]] = [
        {"index": 0, "id": "1", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"at":'}},
        {"index": 0, "function": {"name": None, "arguments": '"x"}'}},
    ]
    answer = read([*(delta(tool_calls=[call]) for call in calls), *END])
    assert texts(answer) == [(TOOL_CALL, "look"), (TOOL_CALL, '{"at":'), (TOOL_CALL, '"x"}')]
    assert answer.error is None


def test_text_completions_and_whole_messages() -> None:
    assert texts(read([{"choices": [{"text": "old"}]}, *END])) == [(CONTENT, "old")]
    message = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    assert texts(read([message])) == [(CONTENT, "whole")]


@pytest.mark.parametrize("odd", [5, [5, None], {"text": 5}, True, [[[[[[[["deep"]]]]]]]]])
def test_content_that_is_no_text(odd: Any) -> None:
    odd_chunk = delta(content=odd, reasoning=odd, tool_calls=odd)
    assert texts(read([odd_chunk, *content("x"), *END])) == [(CONTENT, "x")]


def test_halves_of_a_surrogate_pair_can_be_stored() -> None:
    lone = rb'data: {"choices":[{"delta":{"content":"\ud83d"}}]}' + b"\n\n"
    answer = read([lone, *content("é\N{GRINNING FACE}"), *END])
    assert texts(answer) == [(CONTENT, "?"), (CONTENT, "é\N{GRINNING FACE}")]


# Literal think tags.


THOUGHT = "<think>Hm, <b>1 < 2</b>.</think>\n\nYes, 1 < 2."


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize("opening", ["<think>", ""])
def test_think_tags_cut_anywhere(size: int, opening: str) -> None:
    whole = opening + THOUGHT.removeprefix("<think>")
    parts = [whole[i : i + size] for i in range(0, len(whole), size)]
    answer = read([*content(*parts), *END])
    assert joined(answer, REASONING) == whole[: whole.index("</think>") + len("</think>")]
    assert joined(answer, CONTENT) == "\n\nYes, 1 < 2."


@given(st.lists(st.integers(0, len(THOUGHT)), max_size=30))
def test_think_tags_cut_at_random(places: list[int]) -> None:
    borders = [0, *sorted(places), len(THOUGHT)]
    parts = [THOUGHT[a:b] for a, b in itertools.pairwise(borders)]
    answer = read([*content(*parts), *END])
    assert joined(answer, CONTENT) == "\n\nYes, 1 < 2."
    assert joined(answer, REASONING) + joined(answer, CONTENT) == THOUGHT
    stamps = [c.t_ns for c in answer.chunks]
    assert stamps == sorted(stamps)


def test_a_chunk_with_both_channels_is_both() -> None:
    answer = read([*content("<think>Hm.</think>Yes"), *END])
    assert texts(answer) == [(REASONING, "<think>Hm.</think>"), (CONTENT, "Yes")]
    assert answer.chunks[0].t_ns == answer.chunks[1].t_ns


def test_thinking_that_never_ends() -> None:
    assert texts(read([*content("\n<think>", "Hm, hm"), *END])) == [
        (REASONING, "\n<think>"),
        (REASONING, "Hm, hm"),
    ]


@pytest.mark.parametrize(
    "said", ["Write <think> first, then </think>.", "1 < 2", "a <think> b", "<thinker>"]
)
def test_tags_that_are_talked_about(said: str) -> None:
    assert texts(read([*content(said), *END])) == [(CONTENT, said)]


def test_a_closing_tag_beside_a_reasoning_channel_is_content() -> None:
    answer = read([delta(reasoning="Hm"), *content("The tag </think> ends it"), *END])
    assert texts(answer) == [(REASONING, "Hm"), (CONTENT, "The tag </think> ends it")]


@pytest.mark.parametrize("marker", markers(), ids=lambda marker: marker.family)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_every_spelling_of_a_thought(marker: Marker, size: int) -> None:
    whole = f"{marker.open}Hm, 1 < 2.{marker.close}Yes [it] is <so>."
    answer = read([*content(*(whole[i : i + size] for i in range(0, len(whole), size))), *END])
    assert joined(answer, REASONING) == f"{marker.open}Hm, 1 < 2.{marker.close}"
    assert joined(answer, CONTENT) == "Yes [it] is <so>."


@pytest.mark.parametrize("marker", markers(), ids=lambda marker: marker.family)
def test_a_thought_that_is_never_closed_or_was_opened_by_the_template(marker: Marker) -> None:
    open_, closed = (
        read([*content(f"{marker.open}Hm"), *END]),
        read([*content(f"Hm{marker.close}Yes"), *END]),
    )
    # Words that any answer may hold must stand in pairs.
    assert joined(open_, REASONING) == ("" if marker.prose else f"{marker.open}Hm")
    assert joined(closed, CONTENT) == (f"Hm{marker.close}Yes" if marker.prose else "Yes")


@pytest.mark.parametrize(
    "said", ["analysis of the data", "Use [THINK] or [/THINK].", "The <|channel> token", "◁"]
)
def test_words_like_markers_are_content(said: str) -> None:
    assert texts(read([*content(said), *END])) == [(CONTENT, said)]


def test_a_thought_that_mentions_another_spelling() -> None:
    said = "<think>Not [THINK] it is.</think>Yes, </thinking> and [/THINK] too."
    answer = read([*content(said), *END])
    assert joined(answer, CONTENT) == "Yes, </thinking> and [/THINK] too."


# Content in parts.


def test_content_in_parts_is_read_part_by_part() -> None:
    """Magistral behind Mistral's own server."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    said = {"type": "text", "text": "Yes"}
    answer = read([delta(content=[thought]), delta(content=[said]), *END])
    assert texts(answer) == [(REASONING, "Hm"), (CONTENT, "Yes")]
    both = read([delta(content=[thought, said]), *END])
    assert texts(both) == [(REASONING, "Hm"), (CONTENT, "Yes")]


X = (CONTENT, "x")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, (REASONING, "Hm")),
        ({"reasoning_details": [{"summary": "Hm"}, {"data": "x=="}]}, (REASONING, "Hm")),
        (
            {"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
            (REASONING, "Hm"),
        ),
        ({"reasoning": {"content": "Hm"}}, (REASONING, "Hm")),
        ({"content": [{"type": "reasoning", "text": "Hm"}]}, (REASONING, "Hm")),
        ({"content": ["Yes", {"type": "text", "text": ", so"}]}, (CONTENT, "Yes, so")),
        ({"content": {"type": "output_text", "text": "Yes"}}, (CONTENT, "Yes")),
        ({"refusal": "No"}, (CONTENT, "No")),
        ({"function_call": {"name": "f", "arguments": "{}"}}, (TOOL_CALL, "f{}")),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            (TOOL_CALL, 'f{"a": 1}'),
        ),
        ({"tool_calls": [{"custom": {"name": "f", "input": "x"}}]}, (TOOL_CALL, "fx")),
        (
            {"tool_calls": [{"function": {"name": 7, "arguments": 9}}], "content": "x"},
            (CONTENT, "x"),
        ),
    ],
)
def test_the_shapes_of_a_delta(fields: dict[str, Any], found: tuple[Kind, str]) -> None:
    assert texts(read([delta(**fields), *END])) == [found]


# Counts.


def test_usage_on_a_chunk_of_its_own() -> None:
    details = {
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    answer = read([*content("a", "b"), FINISH, usage(5, 7, **details), DONE])
    found = (
        answer.output_tokens,
        answer.prompt_tokens,
        answer.cached_tokens,
        answer.reasoning_tokens,
    )
    assert found == (5, 7, 3, 1)
    assert answer.running == {"usage": [(4_000_000, 5)]}


def test_usage_on_the_finish_chunk_without_done() -> None:
    answer = read([*content("a", "b"), {**FINISH, **usage(2, 7), "choices": FINISH["choices"]}])
    assert (answer.output_tokens, answer.finish_reason, answer.done) == (2, "length", False)
    assert answer.error is None


def test_usage_on_every_chunk() -> None:
    events = [
        {**delta(role="assistant", content=""), "usage": {"completion_tokens": 0}},
        {**delta(content="a b c"), "usage": {"completion_tokens": 3}},
        {**delta(content=" d"), "usage": {"completion_tokens": 4, "prompt_tokens": 9}},
    ]
    answer = read([*events, *END])
    assert (answer.output_tokens, answer.prompt_tokens) == (4, 9)
    assert answer.running["usage"] == [(1_000_000, 0), (2_000_000, 3), (3_000_000, 4)]


def test_usage_nowhere() -> None:
    answer = read([*content("a"), {**FINISH, "usage": None}, DONE])
    assert (answer.output_tokens, answer.prompt_tokens, answer.timings) == (None, None, None)


def test_counts_by_other_names() -> None:
    """SGLang tells reasoning beside the details, DeepSeek cached tokens."""
    told = read([*content("a"), usage(4, 7, reasoning_tokens=2, prompt_cache_hit_tokens=3), *END])
    assert (told.reasoning_tokens, told.cached_tokens) == (2, 3)


def test_no_prompt_is_empty() -> None:
    assert read([*content("a"), usage(4, 0), *END]).prompt_tokens is None
    assert read([*content("a"), usage(4, 7), usage(4, 0), *END]).prompt_tokens == 7


@pytest.mark.parametrize(
    "nonsense", [-1, 2.5, "7", None, True, [], {}, MOST_TOKENS + 1, 10**30, float("nan")]
)
def test_counts_that_are_none(nonsense: Any) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": nonsense}}
    answer = read([*content("a"), usage(nonsense, nonsense, **details), *END])
    found = (answer.output_tokens, answer.prompt_tokens, answer.cached_tokens)
    assert found == (None, None, None)
    answer = read([*content("a"), usage(4, 4), usage(nonsense, nonsense), *END])
    assert (answer.output_tokens, answer.prompt_tokens) == (4, 4)


def timings(**changes: Any) -> dict[str, Any]:
    good = {"prompt_n": 5, "prompt_ms": 10.0, "predicted_n": 4, "predicted_ms": 30.0, "cache_n": 2}
    return {"choices": [], "timings": {**good, **changes}}


def test_timings_and_drafts() -> None:
    answer = read([*content("a"), timings(draft_n=9, draft_n_accepted=6), *END])
    assert answer.timings == EngineTimings(5, 10.0, 4, 30.0)
    assert (answer.cached_tokens, answer.drafted_tokens, answer.accepted_tokens) == (2, 9, 6)


@pytest.mark.parametrize("key", ["prompt_n", "prompt_ms", "predicted_n", "predicted_ms"])
@pytest.mark.parametrize("value", [-1, None, "x", [], 1e300, float("inf"), float("nan"), 10**40])
def test_timings_that_cannot_be(key: str, value: Any) -> None:
    """What is no figure at all is dropped; a negative time is kept for the checks to find out."""
    answer = read([*content("a"), timings(**{key: value}), *END])
    kept = value == -1 and key.endswith("_ms")
    assert (answer.timings is not None) is kept
    assert (answer.cached_tokens, answer.error) == (2, None)


# Failures.


def test_an_error_event_keeps_what_came_before() -> None:
    answer = read([*content("a"), {"error": {"message": "out of memory", "code": 500}}])
    assert (answer.error, answer.error_detail) == ("error_event", "out of memory")
    assert texts(answer) == [(CONTENT, "a")]


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"error": "plain words"}, "plain words"),
        ({"error": {"type": "x"}}, "{'type': 'x'}"),
        ({"error": []}, "[]"),
        (b'event: error\ndata: {"message": "typed"}\n\n', "typed"),
    ],
)
def test_shapes_of_error_events(event: Any, detail: str) -> None:
    answer = read([*content("a"), event, *content("b"), *END])
    assert (answer.error, answer.error_detail) == ("error_event", detail)
    assert joined(answer, CONTENT) == "ab"


def test_a_null_error_is_none() -> None:
    assert read([{**delta(content="a"), "error": None}, *END]).error is None


@pytest.mark.parametrize(
    "broken", ["{", "nonsense", "[1]", "3", '"text"', "null", "[" * 50_000, "9" * 5_000 + "x"]
)
def test_chunks_that_are_no_json_objects(broken: str) -> None:
    answer = read([*content("a"), broken, *content("b"), *END])
    assert answer.error == "invalid_json"
    assert joined(answer, CONTENT) == "ab"


def test_the_first_error_is_the_one_that_is_told() -> None:
    answer = read([{"error": "first"}, "{", {"error": "second"}], failure="cut")
    assert (answer.error, answer.error_detail) == ("error_event", "first")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"failure": "the server closed the connection"}, "stream_cut"),
        ({"failure": "silent", "timed_out": True}, "timeout"),
        ({}, "stream_cut"),
    ],
)
def test_a_stream_cut_inside_an_event(how: dict[str, Any], error: str) -> None:
    half = b'data: {"choices":[{"delta":{"cont'
    answer = read([*content("a"), half], **how)
    assert (answer.error, texts(answer)) == (error, [(CONTENT, "a")])
    # Also where a finish reason had come already: what was cut may have been the usage.
    assert read([*content("a"), FINISH, b'data: {"usage":{"comp'], **how).error == error


def test_the_last_event_needs_no_line_end() -> None:
    assert read([*content("a"), b"data: [DONE]"]).error is None
    assert read([*content("a"), b"data: " + json.dumps(FINISH).encode()]).error is None


def test_no_finish_reason() -> None:
    assert read([*content("a"), DONE]).error is None
    assert read(content("a")).error == "stream_cut"


def test_no_tokens_at_all() -> None:
    answer = read([delta(role="assistant"), FINISH, usage(0, 7), DONE])
    assert (answer.error, answer.output_tokens, len(answer.chunks)) == ("no_tokens", 0, 0)


@pytest.mark.parametrize(
    ("body", "error", "detail"),
    [
        (b'{"error": {"message": "model is loading"}}', "error_event", "model is loading"),
        (b"<html>Sign in</html>", "invalid_json", "no event stream but: <html>Sign in</html>"),
        (b'{"choices":[{"message":{"content":"x"}}]}', "invalid_json", "no event stream but:"),
    ],
)
def test_answers_that_are_no_stream(body: bytes, error: str, detail: str) -> None:
    answer = read([body])
    assert answer.error == error
    assert (answer.error_detail or "").startswith(detail)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"error":{"message":"context is full","code":400}}', "context is full"),
        (b'{"error":"words"}', "words"),
        (b'{"detail":[{"msg":"field required"}]}', "{'detail': [{'msg': 'field required'}]}"),
        (b'"just text"', "just text"),
        (b"<h1>Bad Gateway</h1>", "<h1>Bad Gateway</h1>"),
        (b"", "no reason given"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 50_000, "[" * 400),
    ],
)
def test_bodies_of_refusals(body: bytes, detail: str) -> None:
    answer = read([body], status=502)
    assert (answer.error, answer.error_detail) == ("http_502", detail)


def test_retry_after() -> None:
    answer = read([b"slow down"], status=429, headers={"retry-after": "7"})
    assert answer.error_detail == "slow down (retry after 7 s)"


def test_nothing_came() -> None:
    answer = read([], status=None, failure="cannot connect")
    assert (answer.error, answer.error_detail) == ("no_answer", "cannot connect")


# Whatever comes, nothing raises and everything can be stored.


def _texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=()), max_size=12)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts(), inner, max_size=3),
    max_leaves=8,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "reasoning.text", "", 7])},
    optional={"text": JSON, "thinking": JSON, "summary": JSON},
)
ODD = (
    JSON
    | st.sampled_from([-1, 0, 3, True, 10**30, 1e308, float("nan"), "7", "\ud83d", "a", " \n"])
    | st.sampled_from([text for m in markers() for text in (m.open, m.close, m.open[:3])])
    | st.lists(PART, max_size=3)
)


def _mangled(keys: list[str], inner: st.SearchStrategy[Any] = ODD) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(keys), inner, max_size=4)


CALL = _mangled(["index", "function"], ODD | _mangled(["name", "arguments"]))
DELTA = _mangled(
    [
        *("role", "content", "refusal", "tool_calls", "function_call"),
        *("reasoning_content", "reasoning", "thinking", "reasoning_details"),
    ],
    ODD | st.lists(CALL, max_size=2),
)
CHOICE = _mangled(
    ["index", "delta", "message", "text", "finish_reason", "token_ids", "logprobs"], ODD | DELTA
)
USAGE = _mangled(
    [
        "prompt_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    ],
    ODD | _mangled(["cached_tokens", "reasoning_tokens"]),
)
TIMINGS = _mangled(
    ["prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "cache_n", "draft_n"],
    ODD | st.floats(0, 1e4),
)
CHUNK = _mangled(
    ["choices", "usage", "timings", "error", "model"],
    ODD | st.lists(CHOICE, max_size=2) | USAGE | TIMINGS,
)
EVENT = CHUNK | st.sampled_from([DONE, FINISH, "", b"event: error\n", b"data", b"\xff"]) | ODD


@settings(max_examples=120)
@given(
    st.lists(EVENT | st.binary(max_size=30), max_size=8),
    st.sampled_from([None, 200, 400, 500]),
    st.sampled_from([None, "broke"]),
    st.booleans(),
)
def test_nothing_raises(
    events: list[Any], status: int | None, failure: str | None, timed_out: bool
) -> None:
    got = response(events, status=status, failure=failure, timed_out=timed_out)
    sample = observe(got, PLACE, LLAMACPP, lambda text: len(text.split()) or None)
    assert (sample.error is None) == (sample.error_detail is None)
    assert all(chunk.text for chunk in sample.chunks)
    for value in (sample.output_tokens, sample.prompt_tokens, sample.content_tokens):
        assert value is None or 0 <= value <= 2 * MOST_TOKENS
    assert from_parquet(to_parquet([sample]), "x") == [sample]
    found = judge([sample], Seen(WorkloadFacts(name="chat", prompt_tokens=64, answer_tokens=9)))
    assert found.verdict != "valid"
    assert figures([sample])["requests"] == 1


def test_a_megabyte_in_one_event() -> None:
    huge = read([*content("x" * 2**20, "y"), usage(2, 7), *END])
    assert [len(chunk.text) for chunk in huge.chunks] == [2**20, 1]
    assert huge.error is None


def test_thousands_of_nested_objects() -> None:
    nested: Any = "x"
    for _ in range(400):
        nested = [{"type": "text", "text": nested}]
    answer = read([delta(content=nested), *content("a"), *END])
    assert texts(answer) == [(CONTENT, "a")]
    deep = '{"choices":' + "[" * 5_000 + "]" * 5_000 + "}"
    assert read([*content("a"), deep, *END]).error == "invalid_json"


def test_bytes_that_are_no_text() -> None:
    broken = b'data: {"choices":[{"delta":{"content":"a\xff\xfe"}}]}\n\n'
    assert texts(read([broken, *END])) == [(CONTENT, "a\ufffd\ufffd")]


# From an answer to a sample.


def counter(counted: list[str], by: Callable[[str], int | None]) -> Callable[[str], int | None]:
    def count(text: str) -> int | None:
        counted.append(text)
        return by(text)

    return count


def seen(
    events: list[Any], by: Callable[[str], int | None] = lambda _: None, **how: Any
) -> tuple[Sample, list[str]]:
    counted: list[str] = []
    return observe(response(events, **how), PLACE, LLAMACPP, counter(counted, by)), counted


def words(text: str) -> int:
    return len(text.split())


def test_usage_comes_first() -> None:
    both = [*content("a", "b", "c", "d"), usage(4, 7), timings(predicted_n=5), *END]
    sample, counted = seen(both, words)
    assert (sample.output_tokens, sample.count_source, counted) == (4, "usage", [])
    assert sample.count_disagreement == pytest.approx(0.2)


def test_timings_come_second() -> None:
    sample, counted = seen([*content("a", "b", "c", "d"), timings(), *END], words)
    assert (sample.output_tokens, sample.count_source, counted) == (4, "timings", [])
    # Uncached and cached tokens together are the prompt.
    assert (sample.prompt_tokens, sample.cached_tokens) == (7, 2)
    assert sample.count_disagreement is None


def test_the_tokenizer_comes_third() -> None:
    sample, counted = seen([*content("a b", " c"), *END], words)
    assert (sample.output_tokens, sample.count_source) == (3, "tokenizer")
    assert counted == ["a b c", "a b c", "a b", " c"]
    assert (sample.first_chunk_tokens, sample.first_chunk_assumed) == (2, False)


def test_chunks_are_never_counted_as_tokens() -> None:
    sample, _ = seen([*content("a", "b", "c"), *END])
    assert (sample.output_tokens, sample.count_source) == (None, None)
    assert (sample.first_chunk_tokens, sample.content_tokens) == (None, None)


@pytest.mark.parametrize("zero", [usage(0, 7), timings(predicted_n=0)])
def test_zero_tokens_of_a_text_are_not_believed(zero: dict[str, Any]) -> None:
    sample, _ = seen([*content("a b", " c"), zero, *END], words)
    assert (sample.output_tokens, sample.count_source) == (3, "tokenizer")


def test_an_unbelieved_usage_leaves_it_to_the_timings() -> None:
    sample, _ = seen([*content("a b", " c"), usage(0), timings(), *END])
    assert (sample.output_tokens, sample.count_source) == (4, "timings")


def test_reasoning_counted_by_the_server() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 6}}
    sample, counted = seen(
        [delta(reasoning="a b c"), *content("d"), usage(9, 7, **details), *END], words
    )
    assert (sample.reasoning_tokens, sample.content_tokens) == (6, 3)
    assert counted[0] == "a b cd"  # for the first chunk only


def test_reasoning_reported_as_zero_is_counted_by_the_tokenizer() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 0}}
    sample, _ = seen(
        [
            delta(reasoning="a b"),
            delta(reasoning=" c"),
            *content("d"),
            usage(9, 7, **details),
            *END,
        ],
        words,
    )
    assert (sample.reasoning_tokens, sample.content_tokens) == (3, 6)


def test_reasoning_that_nobody_counts_stays_unknown() -> None:
    sample, _ = seen([delta(reasoning="a b"), *content("d"), usage(9), *END])
    assert (sample.reasoning_tokens, sample.content_tokens) == (None, None)


def test_a_budget_that_ends_inside_the_reasoning_leaves_no_answer() -> None:
    # The text alone would count 3: special tokens are not shown but were paid for.
    sample, _ = seen([delta(reasoning="a b"), delta(reasoning=" c"), usage(9), *END], words)
    assert (sample.output_tokens, sample.reasoning_tokens, sample.content_tokens) == (9, 9, 0)


def test_reasoning_that_is_not_shown() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 6}}
    sample, _ = seen([*content("a", "b"), usage(9, 7, **details), *END], words)
    assert (sample.reasoning_tokens, sample.content_tokens) == (6, 3)


def test_no_reasoning_is_zero() -> None:
    sample, _ = seen([*content("a", "b"), usage(2), *END])
    assert (sample.reasoning_tokens, sample.content_tokens) == (0, 2)


def test_first_chunk_of_one_token_where_chunks_and_tokens_agree() -> None:
    sample, counted = seen([*content("a", "b"), usage(2), *END], words)
    assert (sample.first_chunk_tokens, sample.first_chunk_assumed, counted) == (1, False, [])


def test_first_chunk_by_continuous_usage() -> None:
    events = [
        {**delta(content="a b"), "usage": {"completion_tokens": 3}},
        {**delta(content=" c"), "usage": {"completion_tokens": 4}},
    ]
    sample, counted = seen([*events, *END], words)
    assert (sample.first_chunk_tokens, sample.first_chunk_assumed, counted) == (3, False, [])


def test_no_chunk_no_first_chunk() -> None:
    sample, counted = seen([FINISH, usage(0, 7), DONE], words)
    assert (sample.first_chunk_tokens, sample.output_tokens, counted) == (None, 0, [])
    assert (sample.error, sample.content_tokens) == ("no_tokens", 0)


def test_nobody_is_asked_about_a_failed_request() -> None:
    def gone(text: str) -> int | None:
        raise AssertionError("the server is gone")

    sample, _ = seen([delta(reasoning="a"), *content("b")], gone, failure="broke")
    assert (sample.error, len(sample.chunks), sample.output_tokens) == ("stream_cut", 2, None)


def test_the_place_and_the_times_are_kept() -> None:
    got = Response(5, 3, 77, 99, 200, {}, [(9, b"data: [DONE]\n\n")])
    place = Sample("rag", 4, 2, 1, 3, "warmup", 1, "s", 77)
    sample = observe(got, place, LLAMACPP, words)
    kept = (sample.workload, sample.concurrency, sample.repeat, sample.iteration, sample.variant)
    assert kept == ("rag", 4, 2, 1, 1)
    assert (sample.phase, sample.salt, sample.worker, sample.sent_ns) == ("warmup", "s", 3, 77)


def test_a_backend_that_cannot_read_its_timings_is_no_accident() -> None:
    def broken(event: Mapping[str, Any]) -> EngineTimings | None:
        raise OverflowError("inf")

    answer = read_answer(response([*content("a"), *END]), broken)
    assert (answer.timings, answer.error) == (None, None)
