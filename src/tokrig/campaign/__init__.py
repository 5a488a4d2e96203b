"""Campaigns: what a plan wants is measured, run after run, until nothing is left.

The records in the store are the progress. An executor measures one run somewhere, on this machine
(``local``) or on a rig of a Ray cluster (``ray``), and has its record in the store when it
returns; ``work`` hands it one run after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tokrig.measure import Ended
from tokrig.plan import Run
from tokrig.record.model import Rig
from tokrig.spec.run import RunSpec

__all__ = ["Ended", "Executor", "Note"]

Note = Callable[[str], None]
"""Told what is going on, in a few words, while a run is measured elsewhere."""


class Executor(Protocol):
    """Where runs are measured."""

    def rigs(self) -> Sequence[str]:
        """The rigs that can measure now, by id."""
        ...

    def rig(self, name: str) -> Rig:
        """What is known of one of them without asking it."""
        ...

    def measure(self, run: Run, spec: RunSpec, note: Note) -> Ended:
        """Measure one run on its rig and store its record in the head's content folder.

        Called once at a time for each rig, in a thread of its own where there are several rigs.
        Raises PutOff when it cannot be done now, StoreError when the record cannot be stored,
        Interrupted after ``cancel``.
        """
        ...

    def cancel(self) -> None:
        """End what is being measured, soon and cleanly; results that are done stay in journals."""
        ...
