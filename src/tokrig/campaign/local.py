"""Runs on this machine, the default executor, and where their time goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokrig.campaign import Note
from tokrig.errors import PutOff
from tokrig.measure import Ended, View, measure_spec
from tokrig.models.shelf import Tell
from tokrig.plan import Run
from tokrig.record.model import Rig
from tokrig.run.monitor import Start, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import CellBegan, CellDone, Listener, Phase, Progress, Step
from tokrig.spec.run import RunSpec

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
            self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now - self._since
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


class Local:
    """Measures in this process, one run at a time. ``rig`` is this machine, ``view`` shows a run
    and ``tell`` what is done before it; ``start`` lets one begin; ``watch`` learns where the time
    goes."""

    def __init__(
        self,
        rig: Rig,
        content: Path,
        view: View,
        tell: Tell,
        watch: Stopwatch,
        *,
        budget_bytes: int | None = None,
        start: Start = patiently,
    ) -> None:
        self.here, self.content, self.view, self.tell, self.watch = rig, content, view, tell, watch
        self.budget_bytes, self.start = budget_bytes, start

    def rigs(self) -> Sequence[str]:
        """This one."""
        return (self.here.id,)

    def rig(self, name: str) -> Rig:
        """This machine as it is."""
        return self.here

    def measure(self, run: Run, spec: RunSpec, note: Note) -> Ended:
        """Raises what ``measure_spec`` raises, PutOff also where the run wants another driver."""
        require_driver(run, self.here)
        self.watch.begin("prepare")
        try:
            return measure_spec(
                spec,
                self.content,
                view=self._watched,
                tell=self.tell,
                budget_bytes=self.budget_bytes,
                start=self.start,
            )
        finally:
            self.watch.begin("other")

    def cancel(self) -> None:
        """Nothing to do: Ctrl-C has reached this process."""

    @contextlib.contextmanager
    def _watched(self, prepared: Prepared) -> Iterator[Listener]:
        with self.view(prepared) as listen:

            def hear(event: Progress) -> None:
                self.watch.hear(event)
                listen(event)

            yield hear
        self.watch.begin("store")


def require_driver(run: Run, rig: Rig) -> None:
    """Raises PutOff when a run is for another driver than the one that is installed. tokrig
    installs none: that is for the rig's owner."""
    found = {gpu.driver for gpu in rig.gpus if gpu.driver}
    if run.driver is not None and run.driver not in found:
        here = ", ".join(sorted(found)) or "none"
        raise PutOff(
            f"this run is for the driver {run.driver}; installed is {here}",
            hint=f"install the driver {run.driver}, then run the campaign again",
            code="other_driver",
        )
