"""PNG files of a few kilobytes: pictures of flat colours with a palette instead of full colours.

Read is what vl-convert writes, rows of 8-bit RGBA without interlace whose filters are None, Sub
and Up; any other picture stays as it came. Formats: W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGBA, _PALETTE = 6, 3
_NONE, _SUB, _UP = 0, 1, 2
# Colours are told apart by so many bits of each channel: shades of a letter's edge fall together.
BITS = 4


def with_palette(png: bytes) -> bytes:
    """The same picture with at most 256 colours; ``png`` itself where it has more or cannot be
    read. What is transparent becomes opaque."""
    chunks = list(_chunks(png))
    if not chunks or chunks[0][0] != b"IHDR":
        return png
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[0][1])
    if kind != [8, _RGBA, 0, 0, 0]:
        return png
    raw = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    pixels = _unfiltered(np.frombuffer(raw, np.uint8).reshape(height, 1 + 4 * width))
    return png if pixels is None else _indexed(pixels) or png


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place + 12 <= len(png):
        length, name = struct.unpack_from(">I4s", png, place)
        yield name, png[place + 8 : place + 8 + length]
        place += 12 + length


def _unfiltered(rows: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Pixels (height × width × RGBA) of rows that begin with the number of their filter; None for
    others than None, Sub and Up. Sums wrap at 256, as the format has it."""
    filters, pixels = rows[:, 0], rows[:, 1:].reshape(len(rows), -1, 4)
    if filters.max(initial=0) > _UP:
        return None
    by_left = filters == _SUB
    if by_left.all():
        return np.cumsum(pixels, axis=1, dtype=np.uint8)
    pixels = pixels.copy()
    pixels[by_left] = np.cumsum(pixels[by_left], axis=1, dtype=np.uint8)
    for row in np.flatnonzero(filters == _UP):
        if row:
            pixels[row] += pixels[row - 1]
    return pixels


def _indexed(pixels: NDArray[np.uint8]) -> bytes | None:
    """A file of pixels; None where there are too many colours. Of the shades that fall together
    the last one stands for all."""
    height, width, _ = pixels.shape
    whole = np.ascontiguousarray(pixels).view("<u4").reshape(-1)
    low = (1 << BITS) - 1
    boxes = ((whole >> 4) & low) | ((whole >> 8) & (low << 4)) | ((whole >> 12) & (low << 8))
    boxes = boxes.astype(np.uint16)
    shades = np.zeros(1 << 3 * BITS, "<u4")
    shades[boxes] = whole  # opaque, so none is 0
    used = np.flatnonzero(shades)
    if len(used) > 256:
        return None
    index = np.zeros(len(shades), np.uint8)
    index[used] = np.arange(len(used))
    palette = shades[used].view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    rows = np.zeros((height, 1 + width), np.uint8)
    rows[:, 1:] = index[boxes].reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
