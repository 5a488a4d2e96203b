"""Answers that came compressed although they were asked for as they are."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from tokrig.run.sse import Piece

_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


def decoded(headers: Mapping[str, str], pieces: Sequence[Piece]) -> tuple[list[Piece], str | None]:
    """The pieces as they were before somebody compressed them, each with its own stamp; and in
    words why that cannot be had."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity") or not pieces:
        return list(pieces), None
    if coding not in ("gzip", "x-gzip", "deflate"):
        return [], f"the answer is compressed ({coding}) although it was asked for as it is"
    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
    found: list[Piece] = []
    try:
        for stamp, data in pieces:
            if text := inflate.decompress(data):
                found.append((stamp, text))
    except zlib.error as error:
        return found, f"the answer says that it is compressed ({coding}), and is not: {error}"
    return found, None
