"""The body of an answer as it arrived, every piece with its stamp, in a tenth of its size.

A streaming server wraps each token in the same two or three hundred bytes. Those are a *frame*:
what stands in an event before its text and after it. As long as the pieces of a body are whole
events in one frame, only the text of each is kept, and the frame once. Nothing is read here and
nothing is lost: the pieces come back byte for byte. What that means for reading them is in
``tokrig.run.answer``.

A framed piece is always a whole event on its own: the frame was found in the piece before it,
which began with ``data:`` and ended with an empty line. Every run of pieces therefore begins where
an event begins.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, overload

Piece = tuple[int, bytes]
"""A part of a body and the stamp of its read, in ns."""

# An event of more bytes is no token in its wrapping.
FRAMED_BYTES = 4096
# One event on one line. Its text is what follows the first name of a text that has a string.
_EVENT = re.compile(
    rb'data: ?\{[^\r\n]*?"(?:content|text|reasoning_content|reasoning|thinking)": ?"'
    rb'((?:[^"\\\x00-\x1f]|\\.)*+)"[^\r\n]*+(?:\n\n|\r\n\r\n)'
)


class Run(NamedTuple):
    """Pieces in one frame, or in none (``head`` and ``tail`` are empty). Piece i is ``head`` +
    ``text[ends[i - 1]:ends[i]]`` + ``tail``."""

    stamps: array[int]
    head: bytes
    tail: bytes
    text: bytes
    ends: Sequence[int]

    @property
    def framed(self) -> bool:
        return bool(self.head)

    def pieces(self) -> Iterator[Piece]:
        """The pieces as they arrived."""
        begin = 0
        for stamp, end in zip(self.stamps, self.ends, strict=True):
            yield stamp, self.head + self.text[begin:end] + self.tail
            begin = end


class Body(Sequence[Piece]):
    """The pieces of a body, to be appended to and read like a list."""

    __slots__ = ("_ends", "_frames", "_head", "_in_frame", "_kept", "_least", "_stamps", "_tail")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._stamps, self._ends = array("q"), array("q")
        self._kept = bytearray()
        # The first piece of each run and its frame.
        self._frames: list[tuple[int, bytes, bytes]] = []
        # The frame of the piece before, and how long a piece in it is at least.
        self._head = self._tail = b""
        self._least = sys.maxsize
        self._in_frame = False
        for stamp, data in pieces:
            self.append(stamp, data)

    def append(self, stamp: int, data: bytes) -> None:
        """Keep one more piece. Takes less than a microsecond: streams are running."""
        head, tail, size = self._head, self._tail, len(data)
        if size > self._least and data.startswith(head) and data.endswith(tail):
            if not self._in_frame:
                self._frames.append((len(self._stamps), head, tail))
                self._in_frame = True
            self._kept += data[len(head) : size - len(tail)]
        else:
            self._odd(data)
        self._stamps.append(stamp)
        self._ends.append(len(self._kept))

    def _odd(self, data: bytes) -> None:
        """A piece in no frame, or in one of its own: the next may have the same."""
        if self._in_frame or not self._frames:
            self._frames.append((len(self._stamps), b"", b""))
            self._in_frame = False
        found = _EVENT.fullmatch(data) if len(data) <= FRAMED_BYTES else None
        if found:
            self._head, self._tail = data[: found.start(1)], data[found.end(1) :]
            self._least = len(self._head) + len(self._tail)
        else:
            self._least = sys.maxsize
        self._kept += data

    def runs(self) -> Iterator[Run]:
        """The body run by run."""
        borders = [*(first for first, _, _ in self._frames), len(self)]
        for (begin, end), (_, head, tail) in zip(pairwise(borders), self._frames, strict=True):
            yield self._run(begin, end, head, tail)

    def _run(self, begin: int, end: int, head: bytes, tail: bytes) -> Run:
        start = self._ends[begin - 1] if begin else 0
        ends = self._ends[begin:end]
        text = bytes(memoryview(self._kept)[start : ends[-1]]) if ends else b""
        counted = array("q", [at - start for at in ends]) if start else ends
        return Run(self._stamps[begin:end], head, tail, text, counted)

    def __len__(self) -> int:
        return len(self._stamps)

    def __iter__(self) -> Iterator[Piece]:
        for run in self.runs():
            yield from run.pieces()

    @overload
    def __getitem__(self, at: int) -> Piece: ...
    @overload
    def __getitem__(self, at: slice) -> list[Piece]: ...
    def __getitem__(self, at: int | slice) -> Piece | list[Piece]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        place = range(len(self))[at]
        run = bisect_right(self._frames, place, key=lambda frame: frame[0]) - 1
        _, head, tail = self._frames[run]
        return next(self._run(place, place + 1, head, tail).pieces())
