"""Reading a GGUF header piece by piece through a small window.

A window and not a memory map: a map of a file that somebody else truncates, or of a failing
disk, kills the process with SIGBUS; a read raises an error that can be told to the user.
Nothing is allocated by a number from the file before it was held against the file's size.
"""

from __future__ import annotations

import struct
from operator import length_hint
from typing import BinaryIO

from tokrig.errors import ModelError
from tokrig.units import human_bytes

WINDOW_BYTES = 4 * 1024 * 1024
MAX_STRING_BYTES = 1024 * 1024
"""Longer strings (a tokenizer's JSON) are passed over and kept as a length."""
MAX_SKIPPED_STRINGS = 2 * 1024 * 1024
"""Array strings in one header. The largest vocabularies with their merges hold 0.8 million;
the limit keeps a forged count from costing more than half a second."""

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""All kept strings of one header together; what comes after is passed over."""

_U64 = struct.Struct("<Q")


def damaged(name: str, why: str) -> ModelError:
    """The error of a header that cannot be right."""
    return ModelError(
        f"{name}: not a usable GGUF file: {why}",
        hint="the file is damaged; download it again and compare its SHA-256 with the publisher's",
    )


def truncated(name: str, size: int, missing: int | None) -> ModelError:
    """The error of a file that ends too early: in its header (``missing`` None) or its tensors."""
    where = "in the header" if missing is None else f"in the tensors, {missing} bytes are missing"
    return ModelError(
        f"{name}: truncated {where} (the file has {size} bytes, {human_bytes(size)})",
        hint="the download or the copy did not finish; fetch the file again",
    )


class Cursor:
    """A position in a file of ``size`` bytes, and the window around it.

    Every method raises ModelError when the file ends before what is asked for.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._base = 0
        self._window = b""
        self._at = 0
        self._strings_left = MAX_SKIPPED_STRINGS
        self._text_left = MAX_TEXT_BYTES

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self.position

    def _need(self, count: int) -> None:
        """Makes the next ``count`` bytes lie in the window."""
        if self._at + count <= len(self._window):
            return
        if count > self.remaining:
            raise truncated(self._name, self._size, None)
        self._base = self.position
        self._at = 0
        self._file.seek(self._base)
        self._window = self._file.read(max(count, WINDOW_BYTES))
        if len(self._window) < count:  # the file shrank since its size was taken
            raise truncated(self._name, self._base + len(self._window), None)

    def number(self, form: struct.Struct) -> int | float | bool:
        """The next number of ``form``, which holds one field."""
        self._need(form.size)
        value: int | float | bool = form.unpack_from(self._window, self._at)[0]
        self._at += form.size
        return value

    def length(self) -> int:
        """The next 64-bit length or count."""
        return int(self.number(_U64))

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes; callers bound ``count`` first."""
        self._need(count)
        start = self._at
        self._at += count
        return self._window[start : self._at]

    def text(self, limit: int = MAX_STRING_BYTES) -> str | int:
        """The next string; its length in bytes, the string passed over, when above ``limit``."""
        count = self.length()
        if count > min(limit, self._text_left):
            self.skip(count)
            return count
        self._text_left -= count
        return self.take(count).decode("utf-8", errors="replace")

    def name(self, what: str, limit: int = 65_535) -> str:
        """The next string, which the specification keeps below 64 KiB."""
        text = self.text(limit)
        if isinstance(text, int):
            raise damaged(self._name, f"the name of {what} has {text} bytes")
        return text

    def rewind(self, position: int) -> None:
        """Goes back to ``position`` in what was read first."""
        self._at = position - self._base

    def skip(self, count: int) -> None:
        """Passes over ``count`` bytes without reading them."""
        if count > self.remaining:
            raise truncated(self._name, self._size, None)
        self._at += count

    def skip_strings(self, count: int) -> None:
        """Passes over ``count`` strings. A vocabulary holds 262,144: one addition each."""
        if count > self.remaining // _U64.size:
            raise truncated(self._name, self._size, None)
        if count > self._strings_left:
            raise damaged(self._name, f"it claims an array of {count} strings")
        self._strings_left -= count
        length_at = _U64.unpack_from
        while count:
            self._need(_U64.size)
            window, at = self._window, self._at
            ahead = iter(range(count))
            try:
                for _ in ahead:
                    at += 8 + length_at(window, at)[0]
                count = 0
            except (struct.error, OverflowError):
                # This string starts beyond the window, perhaps beyond the file.
                count = length_hint(ahead) + 1
            self._at = at
            if self.remaining < 0:
                raise truncated(self._name, self._size, None)
