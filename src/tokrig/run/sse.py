"""Events out of the stamped pieces of a body: server-sent ones, or one JSON text a line. Runs
after the stream, never during it.

A piece is a part of the body with the stamp of its read; an event may begin in one piece and end
in another, a character may be cut in two, several events may share a piece. Everything is joined
first and each line is then given the stamp of the piece in which it *ended*: the moment it was
complete. Time and memory grow linearly with the body.

Framing as the WHATWG specifies it: lines end in LF, CR or CRLF, ``:`` begins a comment, several
``data`` lines of one event are joined by LF, a blank line ends the event. One deviation: an event
at the very end that lacks its blank line is still delivered, because cut streams are judged by
their content later and silently losing a token would falsify it. ``Event.whole`` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

Piece = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when its last data line was complete (ns), its type and its data.

    ``whole`` is false where the body ended inside the event's last line.
    """

    t_ns: int
    data: str
    type: str = ""
    whole: bool = True


def parse(pieces: Sequence[Piece]) -> list[Event]:
    """All events of a body, in order. Undecodable bytes become U+FFFD, never an exception."""
    events: list[Event] = []
    data: list[str] = []
    kind, stamp, whole = "", 0, True
    for t_ns, line, ended in _lines(pieces):
        if not line:
            if data:
                events.append(Event(stamp, "\n".join(data), kind))
            data, kind = [], ""
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
            stamp, whole = t_ns, ended
        elif name == "event":
            kind = value
    if data:
        events.append(Event(stamp, "\n".join(data), kind, whole))
    return events


def parse_ndjson(pieces: Sequence[Piece]) -> list[Event]:
    """The same for a body of one JSON text a line."""
    return [
        Event(t_ns, line.decode("utf-8", "replace"), "", ended)
        for t_ns, line, ended in _lines(pieces)
        if line.strip()
    ]


def _lines(pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes, bool]]:
    """Each line without its end, the stamp of the piece in which it was complete, and whether it
    had an end at all."""
    body = b"".join(data for _, data in pieces)
    ends = list(accumulate(len(data) for _, data in pieces))
    text = body.removeprefix(b"\xef\xbb\xbf")
    end, piece = len(body) - len(text), 0
    # For bytes, unlike for text, splitlines knows no other line ends than LF, CR and CRLF.
    for raw in text.splitlines(keepends=True):
        line = raw.rstrip(b"\r\n")
        # A line is complete with the first byte of its line end.
        complete_at = min(end + len(line) + 1, len(body))
        end += len(raw)
        while ends[piece] < complete_at:
            piece += 1
        yield pieces[piece][0], line, len(raw) > len(line)
