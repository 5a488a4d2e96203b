"""Server-sent events: every legal framing, cut anywhere, with the right stamps."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.recordings import names, recording
from tokrig.run.answer import Event, parse
from tokrig.run.body import Piece

EVERYTHING = (
    b"\xef\xbb\xbf: a comment\r\n"
    b"data: one\r\n\r\n"
    b"event: error\rdata:two\r\r"
    b"id: 7\nretry: 10\ndata: three\ndata:  \xf0\x9f\x8c\x8d \xc3\xa9\n\n"
    b"data\n\n"
    b"data: a:b: c\n\n\n\n"
    b"unknown: field\n\n"
    b"event: lost\n\n"
    b"data: [DONE]\n\n"
)
MEANT = [
    ("one", ""),
    ("two", "error"),
    ("three\n \N{EARTH GLOBE EUROPE-AFRICA} é", ""),
    ("", ""),
    ("a:b: c", ""),
    ("[DONE]", ""),
]


def said(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.data, event.type) for event in events]


def cut(body: bytes, places: list[int]) -> list[Piece]:
    """``body`` in pieces; the stamp of a piece is the offset of its end."""
    borders = [0, *sorted(places), len(body)]
    return [(end, body[start:end]) for start, end in itertools.pairwise(borders)]


def stamps_by_hand(body: bytes, pieces: list[Piece]) -> list[int]:
    """Stamps of the events, byte by byte: that of the piece with the first line-end byte of the
    event's last data line."""
    owners = [stamp for stamp, data in pieces for _ in data]
    stamps: list[int] = []
    pending, begin = None, 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for place, byte in enumerate(body):
        if byte not in b"\r\n" or (byte == 10 and place and body[place - 1] == 13):
            if byte == 10:
                begin = place + 1
            continue
        line, begin = body[begin:place], place + 1
        if line == b"data" or line.startswith(b"data:"):
            pending = owners[place]
        elif not line and pending is not None:
            stamps.append(pending)
            pending = None
    return stamps


def test_every_framing_at_once() -> None:
    assert said(parse([(5, EVERYTHING)])) == MEANT


def test_split_at_every_byte() -> None:
    for place in range(len(EVERYTHING) + 1):
        pieces = cut(EVERYTHING, [place])
        events = parse(pieces)
        assert said(events) == MEANT
        assert [e.t_ns for e in events] == stamps_by_hand(EVERYTHING, pieces)


def test_one_byte_a_piece() -> None:
    pieces = cut(EVERYTHING, list(range(len(EVERYTHING))))
    assert said(parse(pieces)) == MEANT
    assert [e.t_ns for e in parse(pieces)] == stamps_by_hand(EVERYTHING, pieces)


@pytest.mark.parametrize("name", names())
def test_recordings_split_at_every_byte(name: str) -> None:
    # The beginning, the borders of the channels and the end say all there is to say.
    body = recording(name).body
    body = body[:700] + body[-900:]
    whole = said(parse([(0, body)]))
    for place in range(len(body) + 1):
        pieces = cut(body, [place])
        events = parse(pieces)
        assert said(events) == whole
        assert [e.t_ns for e in events] == stamps_by_hand(body, pieces)


@settings(max_examples=60)
@given(st.sampled_from(names()), st.data())
def test_recordings_split_at_random(name: str, data: st.DataObject) -> None:
    body = recording(name).body
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    body = body.replace(b"\n", line_end)
    pieces = cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    events = parse(pieces)
    assert said(events) == said(parse([(0, recording(name).body)]))
    assert [e.t_ns for e in events] == stamps_by_hand(body, pieces)


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_raise(parts: list[bytes]) -> None:
    pieces = list(enumerate(parts))
    assert said(parse(pieces)) == said(parse([(0, b"".join(parts))]))


def test_the_stamp_is_of_the_piece_in_which_the_line_ended() -> None:
    pieces = [
        (10, b"data: on"),
        (20, b"e"),
        (30, b"\n"),
        (40, b"\ndata: two\n\nda"),
        (50, b"ta: 3"),
    ]
    assert parse(pieces) == [
        Event(30, "one"),
        Event(40, "two"),
        Event(50, "3", whole=False),
    ]


def test_crlf_cut_in_two_ends_with_its_first_byte() -> None:
    assert parse([(1, b"data: x\r"), (2, b"\n\r"), (3, b"\n")]) == [Event(1, "x")]


def test_several_data_lines_take_the_last_ones_stamp() -> None:
    assert parse([(1, b"data: a\n"), (2, b"data: b\n"), (3, b"\n")]) == [Event(2, "a\nb")]


def test_empty_pieces_own_nothing() -> None:
    assert parse([(1, b""), (2, b"data: x\n"), (3, b""), (4, b"\n")]) == [Event(2, "x")]
    assert parse([]) == []
    assert parse([(1, b"")]) == []


def test_several_events_in_one_piece_share_its_stamp() -> None:
    assert [e.t_ns for e in parse([(9, b"data: a\n\ndata: b\n\ndata: c\n\n")])] == [9, 9, 9]


@pytest.mark.parametrize(
    ("end", "whole"), [(b"", False), (b"\n", True), (b"\r", True), (b"\n\n", True)]
)
def test_an_event_without_its_blank_line_is_still_delivered(end: bytes, whole: bool) -> None:
    assert parse([(1, b"data: a\n\n"), (2, b"data: last" + end)]) == [
        Event(1, "a"),
        Event(2, "last", whole=whole),
    ]


def test_a_bom_counts_at_the_very_start_only() -> None:
    bom = b"\xef\xbb\xbf"
    assert said(parse([(1, bom[:1]), (2, bom[1:] + b"data: x\n\n")])) == [("x", "")]
    assert said(parse([(1, b"data: x\n\n" + bom + b"data: y\n\n")])) == [("x", "")]


def test_broken_utf8_becomes_replacement_characters() -> None:
    assert said(parse([(1, b"data: \xff\xc3\n\n")])) == [("\ufffd\ufffd", "")]


def test_line_ends_of_unicode_end_no_line() -> None:
    text = "a\u2028b\x0bc\x85d\x1ce"
    assert said(parse([(1, f"data: {text}\n\n".encode())])) == [(text, "")]


def test_parsing_time_is_linear() -> None:
    def seconds(events: int) -> float:
        pieces = [(i, b"data: " + b"x" * 250 + b"\n\n") for i in range(events)]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            assert len(parse(pieces)) == events
            best = min(best, time.process_time() - began)
        return best

    # 16 times the events: quadratic would take 256 times as long.
    assert seconds(16_000) < 80 * seconds(1_000)
