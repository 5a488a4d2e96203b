"""What the Parquet files beside a record have in common. pyarrow is imported only when one is read
or written: it takes a third of a second, which ``list`` need not pay."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from tokrig.errors import RecordError

T = TypeVar("T")


def arrow(module: str = "pyarrow") -> Any:
    """pyarrow, which ships no types, or a module of it."""
    return importlib.import_module(module)


def read(data: bytes, name: str, kind: str, understood: Callable[[Any], T]) -> T:
    """What ``understood`` makes of the table in the bytes of a file; ``name`` (a path) and ``kind``
    (a samples file) stand in messages. ``understood`` may raise what reading raises.

    Raises RecordError for a truncated, altered or foreign file.
    """
    pa = arrow()
    try:
        table = arrow("pyarrow.parquet").read_table(
            pa.BufferReader(data), use_threads=False, page_checksum_verification=True
        )
        return understood(table)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise RecordError(
            f"{name}: not a readable {kind}: {reason}",
            hint="restore it from git (git checkout -- FILE), or measure the run again",
        ) from None


def require_layout(layout: int, newest: int, name: str) -> None:
    """Raises RecordError for a file of a later tokrig."""
    if layout > newest:
        raise RecordError(
            f"{name}: layout {layout} is newer than this tokrig reads ({newest})",
            hint="upgrade tokrig: a newer one wrote this file",
        )


def storable(value: Any) -> Any:
    """Text without lone surrogates, which UTF-8 cannot hold (an engine may stream half of a pair):
    they become U+FFFD. All else as it is."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value
