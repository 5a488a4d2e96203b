"""Records in the formats of other tools: one file a format, found by listing this folder.

A format is told the runs and how to read their samples, and gives the bytes of one file with what
it had to leave out. Verdicts go along wherever the format has a place for them; results that are
invalid do not, where it has none. Pure, but for the samples that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokrig import registry
from tokrig.record.samples import Sample
from tokrig.store.load import Run

PACKAGE = "exchange.exports"
Samples = Callable[[Run], Sequence[Sample]]
"""The samples of a run; none where it has none."""


@dataclass(frozen=True)
class Exported:
    """The bytes of a file, and what a reader should be told of what is not in it."""

    data: bytes
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Export:
    """A format: what it is for, what its files end with, and how they are made. ``text`` tells
    that it may be printed."""

    title: str
    suffixes: tuple[str, ...]
    make: Callable[[Sequence[Run], Samples], Exported]
    text: bool = True


def names() -> list[str]:
    """All formats."""
    return registry.names(PACKAGE)


def named(name: str) -> Export:
    """The format of that name. Raises InputError, with the nearest one."""
    found: Export = registry.load(PACKAGE, name, "EXPORT")
    return found


def by_suffix(suffix: str) -> str | None:
    """The format whose files end with ``suffix``, where only one does."""
    found = [name for name in names() if suffix in named(name).suffixes]
    return found[0] if len(found) == 1 else None
