"""Where a campaign's time goes: engine start, warm-up, measurement, and all else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tokrig.run.progress import CellBegan, CellDone, Phase, Progress, Step

INSIDE: tuple[Phase, ...] = ("start", "warm_up", "measure")
"""What a run cannot do without; the rest is what a campaign costs on top."""


class Stopwatch:
    """Seconds by phase, from the events of runs. Runs of several rigs each need one of their own;
    ``spent_s`` may be read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: Phase = "other"
        self._since = clock()
        self._spent: dict[str, float] = {}

    def hear(self, event: Progress) -> None:
        """A listener of ``execute``."""
        if isinstance(event, Step):
            self.begin(event.phase)
        elif isinstance(event, CellBegan):
            self.begin("measure")
        elif isinstance(event, CellDone):
            self.begin("other")

    def begin(self, phase: Phase) -> None:
        """From now on time is spent on ``phase``."""
        with self._lock:
            now = self._clock()
            spent = self._spent.get(self._phase, 0.0) + now - self._since
            self._spent[self._phase] = spent
            self._phase, self._since = phase, now

    @property
    def spent_s(self) -> dict[str, float]:
        """Seconds by phase until now."""
        self.begin(self._phase)
        return dict(self._spent)

    @property
    def overhead(self) -> float | None:
        """The share of time outside of engine start, warm-up and measurement; None at first."""
        spent = self.spent_s
        total = sum(spent.values())
        return 1 - sum(spent.get(phase, 0.0) for phase in INSIDE) / total if total else None
