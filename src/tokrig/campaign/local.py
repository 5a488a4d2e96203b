"""Runs on this machine: the default executor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokrig.campaign import Note
from tokrig.campaign.stopwatch import Stopwatch
from tokrig.errors import PutOff
from tokrig.measure import Ended, View, measure_spec
from tokrig.models.shelf import Tell
from tokrig.plan import Run
from tokrig.record.model import Rig
from tokrig.run.monitor import Start, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener, Progress
from tokrig.spec.run import RunSpec


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
