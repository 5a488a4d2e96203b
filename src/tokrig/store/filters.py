"""Which records are meant, by words of their model, rig, engine and mode, and by their verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokrig.store.index import Row


@dataclass(frozen=True)
class Filters:
    """Each is met by records that have all of its words; None by all. ``status`` is a run's status
    or its verdict."""

    model: str | None = None
    rig: str | None = None
    backend: str | None = None
    mode: str | None = None
    status: str | None = None

    def of(self, rows: Iterable[Row]) -> list[Row]:
        """The records meant, in their order."""
        return [
            row
            for row in rows
            if holds(self.model, f"{row.model} {row.quant or ''}")
            and holds(self.rig, row.rig)
            and holds(self.backend, row.backend)
            and holds(self.mode, f"{row.mode} {row.choices}")
            and (self.status is None or self.status in (row.status, row.verdict))
        ]


def holds(wanted: str | None, text: str) -> bool:
    """Whether all words of ``wanted`` occur in ``text``; "gemma-3-270m" finds "Gemma-3 270m"."""
    if wanted is None:
        return True
    plain = text.lower().replace("-", " ")
    return all(word in plain for word in wanted.lower().replace("-", " ").split())
