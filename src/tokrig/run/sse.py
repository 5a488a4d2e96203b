"""Server-sent events out of stamped body pieces. Runs after the stream, never during it.

A piece is what one read returned; an event may begin in one piece and end in another, a
character may be cut in two, several events may share a piece. Everything is joined first and
each line is then given the stamp of the piece in which it *ended*: the moment it was complete.

Framing as the WHATWG specifies it: lines end in LF, CR or CRLF, ``:`` begins a comment, several
``data`` lines of one event are joined by LF, a blank line ends the event. One deviation: an event
at the very end that lacks its blank line is still delivered, because cut streams are judged by
their content later and silently losing a token would falsify it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Piece = tuple[int, bytes]

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when its last data line was complete (ns), its type and its data."""

    t_ns: int
    data: str
    type: str = ""


def parse(pieces: Sequence[Piece]) -> list[Event]:
    """All events of a body, in order. Undecodable bytes become U+FFFD, never an exception."""
    body = b"".join(data for _, data in pieces)
    ends = list(accumulate(len(data) for _, data in pieces))
    events: list[Event] = []
    data: list[str] = []
    kind, stamp, start = "", 0, 3 if body.startswith(b"\xef\xbb\xbf") else 0
    while start < len(body):
        match = _LINE_END.search(body, start)
        stop, following = match.span() if match else (len(body), len(body))
        line = body[start:stop].decode("utf-8", "replace")
        if not line:
            if data:
                events.append(Event(stamp, "\n".join(data), kind))
            data, kind = [], ""
        else:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
                # The piece that holds the line's last byte, its first line-end byte included.
                stamp = pieces[bisect_left(ends, min(stop + 1, len(body)))][0]
            elif name == "event":
                kind = value
        start = following
    if data:
        events.append(Event(stamp, "\n".join(data), kind))
    return events
