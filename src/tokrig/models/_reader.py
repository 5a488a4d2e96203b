"""The GGUF header: metadata, tensors, and whether the file is all there.

Follows the GGUF specification (ggml, ``docs/gguf.md``), versions 2 and 3, little endian. The
input is hostile until proven otherwise: whatever the bytes are, the answer is a header or a
ModelError, within a second and without taking memory by a number from the file.
"""

from __future__ import annotations

import difflib
import os
import stat
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models._cursor import Cursor, damaged, truncated
from tokrig.models._ggml import TENSOR_TYPES

KEPT_STRINGS = 64
KEPT_NUMBERS = 512
"""Arrays of one number a layer are kept; llama.cpp knows up to 512 layers."""
MAX_WHOLE_STRINGS = 1_000_000
MAX_KEYS = 2_048
MAX_TENSORS = 16_384
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**63 - 1
MAX_ALIGNMENT = 1 << 20

LFS_POINTER = b"version https://git-lfs"
LFS_REMEDY = "run 'git lfs pull' where it was cloned"

_U32 = struct.Struct("<I")
_NUMBERS = {
    code: struct.Struct("<" + form)
    for code, form in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Omitted:
    """A long array or string that was passed over: elements, or bytes of a string."""

    length: int


Value = int | float | bool | str | Omitted | tuple[int | float | bool | str | Omitted, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. ``offset`` counts from ``GgufHeader.data_offset``; ``bytes`` is None where
    the type is unknown."""

    name: str
    dimensions: tuple[int, ...]
    type: str
    offset: int
    bytes: int | None

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.dimensions)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands before the tensors' data. ``expected_bytes`` is the file size that the
    tensors need, None where that could not be told: ``unchecked`` then says why."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int
    expected_bytes: int | None
    unchecked: str = ""

    def text(self, key: str) -> str | None:
        """The string under ``key``; None where there is none or it is something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None

    def integer(self, key: str) -> int | None:
        """The integer under ``key``; None where there is none or it is something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown(path: Path) -> str:
    """The file's name alone, safe to print and to write: folders may name a person."""
    return "".join(c if c.isprintable() else "?" for c in path.name[:255]) or "that path"


def check_file(path: Path) -> os.stat_result:
    """The state of the regular file ``path``.

    Raises ModelError when it is missing, unreadable, a folder, a device or empty.
    """
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{shown(path)}: no such file", hint=_near(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"{shown(path)}: cannot be read: {reason}", hint="check the path and its rights"
        ) from error
    if stat.S_ISDIR(state.st_mode):
        found = sorted(p.name for p in _ggufs(path))
        inside = f"it holds {', '.join(found[:5])}" if found else "it holds no .gguf file"
        raise ModelError(
            f"{shown(path)}: a folder, not a model file", hint=f"name one file; {inside}"
        )
    if not stat.S_ISREG(state.st_mode):
        raise ModelError(f"{shown(path)}: not a regular file", hint="give the path of a .gguf file")
    if state.st_size == 0:
        raise ModelError(f"{shown(path)}: empty file", hint="the download failed; fetch it again")
    return state


def read_gguf(path: Path | str, whole: str = "") -> GgufHeader:
    """The header of the GGUF file ``path``; the array under the key ``whole`` in full length.

    Raises ModelError when the file is missing, is something else, is damaged, or ends before
    its tensors do.
    """
    path = Path(path)
    size = check_file(path).st_size
    try:
        with path.open("rb") as file:
            return _header(Cursor(file, size, shown(path)), shown(path), size, whole)
    except OSError as error:
        raise ModelError(
            f"{shown(path)}: cannot be read: {error.strerror}", hint="check the file's rights"
        ) from error


def _header(cursor: Cursor, name: str, size: int, whole: str) -> GgufHeader:
    _check_magic(cursor.take(min(size, 512)), name, size)
    cursor.rewind(4)
    version = int(cursor.number(_U32))
    _check_version(version, name)
    tensor_count, key_count = cursor.length(), cursor.length()
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise damaged(name, f"it claims {tensor_count} tensors and {key_count} metadata keys")
    metadata: dict[str, Value] = {}
    for _ in range(key_count):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise damaged(name, f"metadata key {key[:80]!r} stands there twice")
        metadata[key] = _value(cursor, name, key, key == whole)
    tensors = tuple(_tensor(cursor, name) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment.bit_count() != 1:
        raise damaged(name, "general.alignment is not a power of two")
    if not 1 <= alignment <= MAX_ALIGNMENT:
        raise damaged(name, f"general.alignment is {alignment}")
    data_offset = -(-cursor.position // alignment) * alignment
    expected, unchecked = _expected(tensors, data_offset if tensors else cursor.position)
    if expected is not None and expected > size:
        raise truncated(name, size, expected - size)
    return GgufHeader(version, metadata, tensors, data_offset, size, expected, unchecked)


def _check_magic(head: bytes, name: str, size: int) -> None:
    if head[:4] == b"GGUF":
        return
    if b"GGUF".startswith(head):
        raise truncated(name, size, None)
    raise ModelError(f"{name}: not a GGUF file, {_looks_like(head)}", hint=_remedy(head))


def _looks_like(head: bytes) -> str:
    text = head.lstrip().lower()
    if head.startswith(LFS_POINTER):
        return "but a Git LFS pointer to one"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "but a web page"
    if head.startswith(b"PK"):
        return "but a zip archive (PyTorch checkpoints are such)"
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return "but a safetensors file"
    if head[:4] in (b"lmgg", b"fmgg", b"tjgg"):
        return "but its predecessor GGML"
    if head[:4] == b"algg":
        return "but a LoRA adapter in a format from before GGUF"
    if b"blk." in head:
        return "but an importance matrix (imatrix.dat)"
    if head.startswith(b"\x1f\x8b"):
        return "but a gzip archive"
    if text.startswith((b"{", b"[")):
        return "but JSON"
    if not head.strip(b"\0"):
        return "but zeros"
    return f"it begins with {head[:4]!r}"


def _remedy(head: bytes) -> str:
    if head.startswith(LFS_POINTER):
        return LFS_REMEDY
    if head.lstrip()[:1] in (b"<", b"{", b"["):
        return "the download returned a page or a message; use the direct link, log in if asked"
    if not head.strip(b"\0"):
        return "the download reserved its space and did not finish; fetch the file again"
    return "tokrig reads .gguf files; look for a GGUF conversion of this model"


def _check_version(version: int, name: str) -> None:
    if version in (2, 3):
        return
    if version == 1:
        why, hint = "GGUF version 1, of August 2023", "convert the model again with llama.cpp"
    elif version & 0xFFFF == 0 and version:
        why, hint = "a big-endian GGUF file", "use the little-endian file of this model"
    else:
        why = f"GGUF version {version}, which tokrig does not know (2 and 3 it does)"
        hint = "update tokrig, or fetch the file again if it should be an ordinary one"
    raise ModelError(f"{name}: {why}", hint=hint)


def _value(cursor: Cursor, name: str, key: str, whole: bool) -> Value:
    code = int(cursor.number(_U32))
    if code != _ARRAY:
        return _scalar(cursor, name, key, code)
    code, count = int(cursor.number(_U32)), cursor.length()
    if code == _STRING:
        if count > (MAX_WHOLE_STRINGS if whole else KEPT_STRINGS):
            cursor.skip_strings(count)
            return Omitted(count)
    elif code not in _NUMBERS:
        raise damaged(name, f"metadata key {key[:80]!r} is an array of unknown type {code}")
    elif count > KEPT_NUMBERS:
        cursor.skip(count * _NUMBERS[code].size)
        return Omitted(count)
    return tuple(_scalar(cursor, name, key, code) for _ in range(count))


def _scalar(cursor: Cursor, name: str, key: str, code: int) -> int | float | bool | str | Omitted:
    if code == _STRING:
        text = cursor.text()
        return Omitted(text) if isinstance(text, int) else text
    if code not in _NUMBERS:
        raise damaged(name, f"metadata key {key[:80]!r} has unknown type {code}")
    return cursor.number(_NUMBERS[code])


def _tensor(cursor: Cursor, file: str) -> Tensor:
    name = cursor.name("a tensor")
    rank = int(cursor.number(_U32))
    if rank > MAX_DIMENSIONS:
        raise damaged(file, f"tensor {name[:80]!r} claims {rank} dimensions")
    dimensions = tuple(cursor.length() for _ in range(rank))
    elements = prod(dimensions)
    code, offset = int(cursor.number(_U32)), cursor.length()
    if elements > MAX_ELEMENTS:
        raise damaged(file, f"tensor {name[:80]!r} claims {elements} elements")
    kind = TENSOR_TYPES.get(code)
    if kind is None:
        return Tensor(name, dimensions, f"type_{code}", offset, None)
    if (dimensions[0] if dimensions else 1) % kind.block:
        raise damaged(file, f"the rows of tensor {name[:80]!r} are no whole {kind.name} blocks")
    return Tensor(name, dimensions, kind.name, offset, elements // kind.block * kind.size)


def _expected(tensors: tuple[Tensor, ...], data_offset: int) -> tuple[int | None, str]:
    end = data_offset
    for tensor in tensors:
        if tensor.bytes is None:
            return None, f"size not checked: tensor type {tensor.type} is unknown to tokrig"
        end = max(end, data_offset + tensor.offset + tensor.bytes)
    return end, ""


def _ggufs(folder: Path) -> list[Path]:
    try:
        return list(folder.glob("*.gguf"))
    except OSError:
        return []


def _near(path: Path) -> str:
    by_folded = {p.name.casefold(): p.name for p in _ggufs(path.parent)}
    near = difflib.get_close_matches(path.name.casefold(), by_folded, n=1, cutoff=0.5)
    if near:
        return f"did you mean {by_folded[near[0]]!r}, in the same folder?"
    if not by_folded:
        return "there is no .gguf file in that folder"
    return "in that folder: " + ", ".join(sorted(by_folded.values())[:5])
