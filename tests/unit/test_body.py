"""Pieces in frames are kept as they are, and read as they would be one by one."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streams import recipe, stream
from tokrig.backends.llamacpp import BACKEND
from tokrig.record.samples import Kind
from tokrig.run.answer import read_answer
from tokrig.run.body import FRAMED_BYTES, Body, Piece
from tokrig.run.client import Response

CHUNK = b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"'
END = b'"},"finish_reason":null}]}\n\n'
# Frames that servers have, and some that nobody should.
HEADS = [
    CHUNK,
    CHUNK.replace(b"content", b"reasoning_content"),
    CHUNK.replace(b"content", b"reasoning"),
    CHUNK.replace(b'"m"', b'"other"'),
    CHUNK.replace(b"data: ", b"data:").replace(b":", b": ", 3),
    CHUNK.replace(b'"content":', b'"role":"assistant","content":'),
    CHUNK.replace(b'"content":', b'"reasoning":"of course","content":'),
    CHUNK.replace(b'{"content":', b'{"tool_calls":[{"function":{"name":"f"}}],"content":'),
    b'data: {"choices":[{"text":"',
    b'data: {"choices":[{"delta":{"content":"a \\"content\\":"',
    b'data: {"content":"',
    b'data: {"text":"',
    b'data: {"error":{"text":"',
    b'event: error\ndata: {"choices":[{"delta":{"content":"',
    b'\xef\xbb\xbfdata: {"choices":[{"delta":{"content":"',
    b'id: 1\ndata: {"choices":[{"delta":{"content":"',
    b'data: ["content":"',
    b"data: {",
    b"",
]
TAILS = [
    END,
    END.replace(b"\n", b"\r\n"),
    END.replace(b"null", b'"length"'),
    END.replace(b"}]}", b'}],"usage":{"completion_tokens":7}}'),
    END.replace(b"}]}", b'}],"timings":{"prompt_n":1,"prompt_ms":2,"predicted_n":3}}'),
    END.replace(b"}]}", b'}],"error":"no"}'),
    END.replace(b"}]}", b',"logprobs":{"content":[{"token":"a"}]}}]}'),
    END.replace(b'"},', b'","content":"twice"},'),
    END.replace(b'"},', b'","refusal":"never"},'),
    b'"}]}\n\n',
    b'"}\n\n',
    END[:-1],
    END + b": ping\n\n",
    b'"}}]}\r\r',
    b'"',
    b"",
]
TEXTS = st.sampled_from(
    [
        *(b"a", b" the", b"", b" ", b"\\n", b'\\"', b"\\", b'"', b'","content":"b', b"\\u00e9"),
        *(b"\\ud83d\\ude00", b"\\ud83d", b"\\x", b"\n", b"\r\n\r\n", b"\x00", b"\x7f", b"\xff"),
        *("é".encode(), "界🙂".encode(), b"\xe2\x82", b"<think>", b"</think>", b"x" * FRAMED_BYTES),
        *(b"tokrig", b"0", b"[DONE]", b'"},"finish_reason":"stop"},{"delta":{"content":"z'),
        b'"}}]}\n\ndata: {"choices":[{"delta":{"content":"y',
    ]
)
FRAMES = st.tuples(
    st.sampled_from([*HEADS, CHUNK, CHUNK, CHUNK]), st.sampled_from([*TAILS, END, END, END])
)
RUNS = st.tuples(FRAMES, st.lists(TEXTS | st.binary(max_size=6), min_size=1, max_size=5))
OTHERS = st.sampled_from([b"data: [DONE]\n\n", b": ping\n\n", b"\n", b"\r", b"data: ", b"{}\n"])


@st.composite
def bodies(draw: st.DrawFn) -> list[Piece]:
    """Events in frames, some of them cut up or joined, with what else may stand between them."""
    parts: list[bytes] = []
    for found in draw(st.lists(RUNS | OTHERS, max_size=6)):
        if isinstance(found, bytes):
            parts.append(found)
            continue
        (head, tail), texts = found
        parts += [head + text + tail for text in texts]
    pieces: list[bytes] = []
    for part in parts:
        how = draw(st.integers(0, 9))
        at = draw(st.integers(0, len(part))) if how == 0 else 0
        if how == 1 and pieces:
            pieces[-1] += part
        else:
            pieces += [p for p in (part[:at], part[at:]) if p]
    return [(i * 1000, data) for i, data in enumerate(pieces)]


def response(pieces: list[Piece], kind: str = "text/event-stream") -> Response:
    return Response(0, 0, 0, 9, 200, {"content-type": kind}, pieces)


@settings(max_examples=150)
@given(bodies(), st.sampled_from(["text/event-stream", "application/x-ndjson", ""]))
def test_framed_or_not_an_answer_is_the_same(pieces: list[Piece], kind: str) -> None:
    body = Body(pieces)
    assert list(body) == pieces
    assert [body[i] for i in range(len(pieces))] == pieces
    assert body[1:3] == pieces[1:3]
    one_by_one = response(pieces, kind)
    found = read_answer(replace(one_by_one, pieces=body), BACKEND.timings)
    assert found == read_answer(one_by_one, BACKEND.timings)


def test_every_frame_between_usual_ones_is_read_as_what_it_is() -> None:
    usual = [CHUNK + text + END for text in (b"a", b" b", b" c")]
    for head, tail in product(HEADS, TAILS):
        odd = [head + text + tail for text in (b"tokrig", b"0", b"1", b"\\n")]
        one_by_one = response(list(enumerate([*usual, *odd, *usual, b"data: [DONE]\n\n"])))
        framed = replace(one_by_one, pieces=Body(one_by_one.pieces))
        found = read_answer(framed, BACKEND.timings)
        assert found == read_answer(one_by_one, BACKEND.timings), (head, tail)


def test_streams_of_all_kinds_are_the_same() -> None:
    for seed in range(200):
        made = stream(recipe(seed)).response
        framed = replace(made, pieces=Body(made.pieces))
        assert read_answer(framed, BACKEND.timings) == read_answer(made, BACKEND.timings), seed


def test_a_usual_stream_is_read_by_its_frames() -> None:
    """Otherwise the tests above would compare one way of reading with itself."""
    texts = [" a", ' "b"', " ü", "\n"]
    events = [CHUNK + json.dumps(text).encode()[1:-1] + END for text in texts]
    body = Body([(i, event) for i, event in enumerate([b": hello\n\n", *events])])
    first, second = body.runs()
    assert (first.framed, len(first.ends), second.framed, len(second.ends)) == (False, 2, True, 3)
    answer = read_answer(replace(response([]), pieces=body), BACKEND.timings)
    assert [(c.t_ns, c.kind, c.text) for c in answer.chunks] == [
        (i, Kind.CONTENT, text) for i, text in enumerate(texts, 1)
    ]
    assert answer.model == "m"


def test_a_token_takes_a_tenth_of_its_event() -> None:
    event = CHUNK + b" token" + END
    tracemalloc.start()
    body = Body((i, event) for i in range(20_000))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / len(body) < 30 < len(event) / 3
