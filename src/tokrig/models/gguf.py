"""The GGUF header: metadata, tensors, and whether the file is all there.

Follows the GGUF specification (ggml, ``docs/gguf.md``), versions 2 and 3, little endian. The
input is hostile until proven otherwise: whatever the bytes are, the answer is a header or a
ModelError, within a second and without taking memory by a number from the file.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from operator import add, length_hint
from pathlib import Path
from typing import BinaryIO

from tokrig.errors import ModelError
from tokrig.quants import TENSOR_TYPES
from tokrig.units import human_bytes

WINDOW_BYTES = 4 * 1024 * 1024
MAX_STRING_BYTES = 1024 * 1024
"""Longer strings (a tokenizer's JSON) are passed over."""
MAX_TEXT_BYTES = 64 * 1024 * 1024
"""All kept strings of one header together; what comes after is passed over."""
MAX_SKIPPED_STRINGS = 2 * 1024 * 1024
"""Array strings in one header. The largest vocabularies with their merges hold 0.8 million;
the limit keeps a forged count from costing more than half a second."""
KEPT_STRINGS = 64
KEPT_NUMBERS = 512
"""Arrays of one number a layer are kept; llama.cpp knows up to 512 layers."""
MAX_WHOLE_STRINGS = 1_000_000
MAX_KEYS = 2_048
MAX_TENSORS = 16_384
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**63 - 1
MAX_ALIGNMENT = 1 << 20
MAX_NAME = 120
MAX_PARTS = 10_000

LFS_REMEDY = "run 'git lfs pull' in the clone it lies in"
PAGE_REMEDY = "the download returned a page or a message; use the direct link, log in if asked"
FETCH_AGAIN = "the download or the copy did not finish; download the file again"
_CONVERT = "tokrig reads .gguf files; look for a GGUF conversion of this model"

_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.(gguf|safetensors)")
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_NUMBERS = {
    code: struct.Struct("<" + form)
    for code, form in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_STRING, _ARRAY = 8, 9


Scalar = int | float | bool | str | None
Value = Scalar | tuple[Scalar, ...]
"""None for a long array or string that was passed over."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as it is stored, packed or not; ``bytes`` is None where the type is unknown."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int | None

    @property
    def elements(self) -> int:
        """How many stored elements the tensor has."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands before the tensors' data. ``expected_bytes`` is the file size that the
    tensors need, None where one is of an unknown type."""

    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    file_bytes: int
    expected_bytes: int | None

    def text(self, key: str) -> str | None:
        """The string under ``key``; None where there is none or it is something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None

    def integer(self, key: str) -> int | None:
        """The integer under ``key``; None where there is none or it is something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def kind(self) -> str:
        """The architecture, which keys of the model's own begin with; empty where none is."""
        return self.text("general.architecture") or ""

    def own(self, key: str) -> int | None:
        """The integer under the architecture's own ``key``: ``llama.block_count``."""
        return self.integer(f"{self.kind}.{key}")


def shown(path: Path) -> str:
    """The file's name alone, safe to print and to write: folders may name a person."""
    return "".join(c if c.isprintable() else "?" for c in path.name[:255]) or "that path"


def one_line(text: str | None, space: str = " ") -> str | None:
    """``text`` short, on one line, its last path component only, words joined by ``space``: safe
    in a record."""
    if text is None:
        return None
    text = re.split(r"[/\\]", text.strip().rstrip("/\\"))[-1]
    text = "".join(c if c.isprintable() else " " for c in text)
    return space.join(text.split())[:MAX_NAME] or None


def part_names(name: str) -> list[str]:
    """The names of all parts of the split file that one called ``name`` is a part of, first to
    last; its own alone where it is none."""
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    count = max(1, min(int(match[2]), MAX_PARTS))
    return [f"{match[1]}-{n:05d}-of-{match[2]}.{match[3]}" for n in range(1, count + 1)]


def bad(path: Path, why: str, hint: str) -> ModelError:
    """The error of a file or folder that cannot be used."""
    return ModelError(f"{shown(path)}: {why}", hint=hint)


def unreadable(path: Path, error: Exception) -> ModelError:
    """The error of a file that the system does not let us read."""
    reason = getattr(error, "strerror", None) or str(error)
    return bad(path, f"cannot be read: {reason}", "check the path and its permissions")


def check_file(path: Path) -> os.stat_result:
    """The state of the regular file ``path``.

    Raises ModelError when it is missing, unreadable, a folder, a device or empty.
    """
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise bad(path, "no such file", _near(path)) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(state.st_mode):
        found = sorted(_ggufs(path))
        inside = f"it holds {', '.join(found[:5])}" if found else "it holds no .gguf file"
        raise bad(path, "a folder, not a model file", f"name one file; {inside}")
    if not stat.S_ISREG(state.st_mode):
        raise bad(path, "not a regular file", "give the path of a .gguf file")
    if state.st_size == 0:
        raise bad(path, "empty file", "the download failed; download it again")
    return state


def _ggufs(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.glob("*.gguf")]
    except OSError:
        return []


def _near(path: Path) -> str:
    by_folded = {name.casefold(): name for name in _ggufs(path.parent)}
    if near := difflib.get_close_matches(path.name.casefold(), by_folded, n=1, cutoff=0.5):
        return f"did you mean {by_folded[near[0]]!r}, in the same folder?"
    if not by_folded:
        return "there is no .gguf file in that folder"
    return "in that folder: " + ", ".join(sorted(by_folded.values())[:5])


def sniff(head: bytes) -> tuple[str, str]:
    """What a file is that begins with ``head`` and is no GGUF file, and what to do about it."""
    text = head.lstrip().lower()
    for found, what, remedy in (
        (head.startswith(b"version https://git-lfs"), "a Git LFS pointer", LFS_REMEDY),
        (text.startswith((b"<!doctype", b"<html", b"<?xml")), "a web page", PAGE_REMEDY),
        (head.startswith(b"PK"), "a zip archive (PyTorch checkpoints are)", _CONVERT),
        (head.startswith((b"lmgg", b"fmgg", b"tjgg")), "its predecessor GGML", _CONVERT),
        (head.startswith(b"algg"), "a LoRA adapter in a format older than GGUF", _CONVERT),
        (head.startswith(b"\x1f\x8b"), "a gzip archive", _CONVERT),
        (head[4:9] == b"\0\0\0\0{", "a safetensors file", "name the folder it is in"),
        (b"blk." in head, "an importance matrix (imatrix.dat)", _CONVERT),
        (text.startswith((b"{", b"[")), "JSON", PAGE_REMEDY),
        (not head.strip(b"\0"), "zeros", FETCH_AGAIN),
    ):
        if found:
            return what, remedy
    return f"something that begins with {head[:4]!r}", _CONVERT


def read_gguf(path: Path | str, whole: str = "") -> GgufHeader:
    """The header of the GGUF file ``path``; the array under the key ``whole`` in full length.

    Raises ModelError when the file is missing, is something else, is damaged, or ends before
    its tensors do.
    """
    path = Path(path)
    stat = check_file(path)
    as_it_is = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _read_once(path, stat.st_size, whole, as_it_is)


@lru_cache(maxsize=16)
def _read_once(path: Path, size: int, whole: str, as_it_is: tuple[int, ...]) -> GgufHeader:
    """A run asks for a header several times, and walking a vocabulary takes a tenth of a second."""
    try:
        with path.open("rb") as file:
            return _Reader(file, size, path).header(whole)
    except OSError as error:
        raise unreadable(path, error) from error


class _Reader:
    """Reads a header of a file of ``size`` bytes piece by piece through a small window.

    A window and not a memory map: a map of a file that somebody else truncates, or of a failing
    disk, kills the process with SIGBUS; a read raises an error that can be told to the user.
    Nothing is allocated by a number from the file before it was held against the file's size.
    Every method raises ModelError when the file ends before what is asked for.
    """

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self._file, self._size, self._path = file, size, path
        self._base, self._at, self._window = 0, 0, b""
        self._strings_left, self._text_left = MAX_SKIPPED_STRINGS, MAX_TEXT_BYTES

    def _damaged(self, why: str) -> ModelError:
        hint = "download it again and compare its SHA-256 with the publisher's"
        return bad(self._path, f"not a usable GGUF file: {why}", hint)

    def _truncated(self, where: str = "in the header", size: int | None = None) -> ModelError:
        size = self._size if size is None else size
        there = f"the file has {size} bytes, {human_bytes(size)}"
        return bad(self._path, f"truncated {where} ({there})", FETCH_AGAIN)

    # --- bytes ---

    @property
    def _remaining(self) -> int:
        return self._size - self._base - self._at

    def _need(self, count: int) -> None:
        """Makes the next ``count`` bytes lie in the window."""
        if self._at + count <= len(self._window):
            return
        if count > self._remaining:
            raise self._truncated()
        self._base, self._at = self._base + self._at, 0
        self._file.seek(self._base)
        self._window = self._file.read(max(count, WINDOW_BYTES))
        if len(self._window) < count:  # the file shrank since its size was taken
            raise self._truncated(size=self._base + len(self._window))

    def _number(self, form: struct.Struct) -> int | float | bool:
        self._need(form.size)
        value: int | float | bool = form.unpack_from(self._window, self._at)[0]
        self._at += form.size
        return value

    def _u32(self) -> int:
        return int(self._number(_U32))

    def _length(self) -> int:
        return int(self._number(_U64))

    def _text(self, limit: int) -> str | None:
        """The next string; None, the string passed over, when it is above ``limit`` bytes."""
        count = self._length()
        if count > min(limit, self._text_left):
            self._skip(count)
            return None
        self._text_left -= count
        self._need(count)
        self._at += count
        return self._window[self._at - count : self._at].decode("utf-8", errors="replace")

    def _name_of(self, what: str) -> str:
        """The next string, which the specification keeps below 64 KiB."""
        text = self._text(65_535)
        if text is None:
            raise self._damaged(f"the name of {what} has more than 65,535 bytes")
        return text

    def _skip(self, count: int) -> None:
        if count > self._remaining:
            raise self._truncated()
        self._at += count

    def _skip_strings(self, count: int) -> None:
        """Passes over ``count`` strings. A vocabulary holds 262,144: one addition each."""
        if count > self._remaining // _U64.size:
            raise self._truncated()
        if count > self._strings_left:
            raise self._damaged(f"it claims an array of {count} strings")
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
            if self._remaining < 0:
                raise self._truncated()

    # --- the header ---

    def header(self, whole: str) -> GgufHeader:
        """All of it; the array under the key ``whole`` in full length."""
        self._need(min(self._size, 512))
        self._check_kind(self._window[:512])
        self._at = 8
        tensor_count, key_count = self._length(), self._length()
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise self._damaged(f"it claims {tensor_count} tensors and {key_count} metadata keys")
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key = self._name_of("a metadata key")
            if key in metadata:
                raise self._damaged(f"metadata key {key[:80]!r} is there twice")
            metadata[key] = self._value(key, key == whole)
        tensors, offsets = [], []
        for _ in range(tensor_count):
            tensors.append(self._tensor())
            offsets.append(self._length())
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment.bit_count() != 1:
            raise self._damaged("general.alignment is not a power of two")
        if not 1 <= alignment <= MAX_ALIGNMENT:
            raise self._damaged(f"general.alignment is {alignment}")
        end = self._base + self._at
        data = -(-end // alignment) * alignment if tensors else end
        sizes = [tensor.bytes for tensor in tensors if tensor.bytes is not None]
        expected = None
        if len(sizes) == len(tensors):
            expected = data + max(map(add, offsets, sizes), default=0)
            if (missing := expected - self._size) > 0:
                raise self._truncated(f"in the tensors, {missing} bytes are missing")
        return GgufHeader(metadata, tuple(tensors), self._size, expected)

    def _check_kind(self, head: bytes) -> None:
        version = int.from_bytes(head[4:8], "little")
        if head[:4] != b"GGUF":
            why, hint = sniff(head)
            why = f"not a GGUF file, but {why}"
        elif len(head) < 8 or version in (2, 3):
            return
        elif version == 1:
            why, hint = "GGUF version 1, of August 2023", "convert the model again with llama.cpp"
        elif version & 0xFFFF == 0 and version:
            why, hint = "a big-endian GGUF file", "use the little-endian file of this model"
        else:
            why = f"GGUF version {version}, but tokrig reads versions 2 and 3"
            hint = "update tokrig; if the file should be an ordinary one, download it again"
        raise self._truncated() if b"GGUF".startswith(head) else bad(self._path, why, hint)

    def _value(self, key: str, whole: bool) -> Value:
        code = self._u32()
        if code != _ARRAY:
            return self._scalar(key, code)
        code, count = self._u32(), self._length()
        if code == _STRING:
            if count > (MAX_WHOLE_STRINGS if whole else KEPT_STRINGS):
                self._skip_strings(count)
                return None
        elif code not in _NUMBERS:
            raise self._damaged(f"metadata key {key[:80]!r} is an array of unknown type {code}")
        elif count > KEPT_NUMBERS:
            self._skip(count * _NUMBERS[code].size)
            return None
        return tuple(self._scalar(key, code) for _ in range(count))

    def _scalar(self, key: str, code: int) -> Scalar:
        if code == _STRING:
            return self._text(MAX_STRING_BYTES)
        if code not in _NUMBERS:
            raise self._damaged(f"metadata key {key[:80]!r} has unknown type {code}")
        return self._number(_NUMBERS[code])

    def _tensor(self) -> Tensor:
        name = self._name_of("a tensor")
        rank = self._u32()
        if rank > MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name[:80]!r} claims {rank} dimensions")
        shape = tuple(self._length() for _ in range(rank))
        elements, code = prod(shape), self._u32()
        if elements > MAX_ELEMENTS:
            raise self._damaged(f"tensor {name[:80]!r} claims {elements} elements")
        kind = TENSOR_TYPES.get(code)
        if kind is None:
            return Tensor(name, shape, f"type_{code}", None)
        if (shape[0] if shape else 1) % kind.block:
            raise self._damaged(f"tensor {name[:80]!r} has rows of incomplete {kind.name} blocks")
        return Tensor(name, shape, kind.name, elements // kind.block * kind.size)
