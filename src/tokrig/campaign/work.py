"""Works through a plan: one run after the other on each rig, whatever becomes of any of them.

The records in the store are the progress. An executor measures one run somewhere, on this machine
(``Local``) or on a rig of a Ray cluster, and has its record in the store when it returns. A run
that fails is a failed record and the rest goes on; one that cannot be done now is put off and
leaves nothing. What ends a campaign is a store that cannot be written, and its user.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Unpack

from tokrig.errors import EngineError, InputError, Interrupted, PutOff, TokrigError
from tokrig.measure import Ended, Ways, measure_spec, store_failure
from tokrig.plan import Planned, Run, run_spec
from tokrig.plan.expand import key_before
from tokrig.record.model import Model, Rig
from tokrig.run.assemble import scrub
from tokrig.run.prepare import Prepared
from tokrig.run.progress import CellBegan, CellDone, Listener, Phase, Progress, Step
from tokrig.spec.run import RunSpec

Note = Callable[[str], None]
"""Told what is going on, in a few words, while a run is measured elsewhere."""

INSIDE: tuple[Phase, ...] = ("start", "warm_up", "measure")
"""What a run cannot do without; the rest is what a campaign costs on top."""

# Refusals that say something of the rig and nothing of the run.
_OF_THE_RIG = ("rig_in_use", "version_mismatch", "rig_is_nice")
# A server that was to be measured as it runs, and is away, locked or too busy.
_OF_THE_SERVER = ("no_answer", "no_tls", "locked", "http_401", "http_403", "http_429", "http_503")


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


# This machine


class Stopwatch:
    """Seconds by phase, from the events of runs on one rig."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: Phase = "other"
        self._since = clock()
        self._spent: dict[str, float] = {}

    def hear(self, event: Progress) -> None:
        """A listener of ``execute``."""
        match event:
            case Step(phase=phase):
                self.begin(phase)
            case CellBegan():
                self.begin("measure")
            case CellDone():
                self.begin("other")

    def begin(self, phase: Phase) -> None:
        """From now on time is spent on ``phase``."""
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
    """Measures in this process, one run at a time. ``rig`` is this machine, ``watch`` learns where
    the time goes."""

    def __init__(self, rig: Rig, content: Path, watch: Stopwatch, **ways: Unpack[Ways]) -> None:
        self.here, self.content, self.watch, self.view = rig, content, watch, ways["view"]
        self.ways: Ways = {**ways, "view": self._watched}

    def rigs(self) -> Sequence[str]:
        """This one."""
        return (self.here.id,)

    def rig(self, name: str) -> Rig:
        """This machine as it is."""
        return self.here

    def measure(self, run: Run, spec: RunSpec, note: Note) -> Ended:
        """Raises what ``measure_spec`` raises, and PutOff where the run is for another driver than
        the one that is installed. tokrig installs none: that is for the rig's owner."""
        found = {gpu.driver for gpu in self.here.gpus if gpu.driver}
        if run.driver is not None and run.driver not in found:
            here = ", ".join(sorted(found)) or "none"
            raise PutOff(
                f"this run is for the driver {run.driver}; installed is {here}",
                hint=f"install the driver {run.driver}, then run the campaign again",
                code="other_driver",
            )
        self.watch.begin("prepare")
        try:
            return measure_spec(spec, self.content, key_before(run), **self.ways)
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


# The loop


@dataclass(frozen=True)
class Began:
    """A run begins."""

    planned: Planned


@dataclass(frozen=True)
class Done:
    """A run has its record; a failed one has ``ended.error``."""

    planned: Planned
    ended: Ended


@dataclass(frozen=True)
class Delayed:
    """A run cannot be done now."""

    planned: Planned
    why: TokrigError


@dataclass(frozen=True)
class Waiting:
    """A run is measured elsewhere; what is going on there."""

    planned: Planned
    text: str


News = Began | Done | Delayed | Waiting


@dataclass
class Tally:
    """What became of the ``wanted`` runs so far."""

    wanted: Sequence[Planned]
    done: list[Done] = field(default_factory=list)
    failed: list[Done] = field(default_factory=list)
    delayed: list[Delayed] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many runs have not had their turn."""
        return len(self.wanted) - len(self.done) - len(self.failed) - len(self.delayed)


class Work:
    """The runs of a tally, handed to an executor. ``hear`` is told what happens, one piece of news
    at a time, when the tally has it."""

    def __init__(
        self, tally: Tally, executor: Executor, content: Path, hear: Callable[[News], None]
    ) -> None:
        self.tally, self.executor, self.content, self._hear = tally, executor, content, hear
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def all(self) -> None:
        """Do all of it. Raises StoreError, Interrupted."""
        queues: dict[str, list[Planned]] = {}
        for planned in self.tally.wanted:
            queues.setdefault(planned.run.rig, []).append(planned)
        for rig in queues.keys() - {*self.executor.rigs()}:
            hint = "run the campaign on that machine, or bring it in: docs/rigs.md"
            for planned in queues.pop(rig):
                why = PutOff(f"the rig {rig} is not here", hint=hint, code="rig_away")
                self._tell(Delayed(planned, why))
        if len(queues) == 1:
            self._one_rig(*queues.values())
        elif queues:
            self._several_rigs([*queues.values()])

    def _several_rigs(self, queues: Sequence[list[Planned]]) -> None:
        with ThreadPoolExecutor(len(queues), thread_name_prefix="rig") as pool:
            futures: list[Future[None]] = [pool.submit(self._one_rig, q) for q in queues]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                self._stop()
                raise Interrupted("interrupted") from None
            if any(f.done() and f.exception() for f in futures):
                self._stop()
        for future in futures:
            future.result()

    def _stop(self) -> None:
        self._stopping.set()
        self.executor.cancel()

    def _one_rig(self, queue: Sequence[Planned]) -> None:
        held: set[tuple[str, str]] = set()
        for planned in queue:
            if self._stopping.is_set():
                return
            run = planned.run
            if run.sequence is not None and (run.entry, run.sequence) in held:
                why = PutOff("an earlier run of its A/B sequence was put off")
                self._tell(Delayed(planned, why))
                continue
            self._tell(Began(planned))
            news = self._one_run(planned)
            if isinstance(news, Delayed) and run.sequence is not None:
                # A B B A measured in another order would not cancel a drift.
                held.add((run.entry, run.sequence))
            self._tell(news)

    def _one_run(self, planned: Planned) -> Done | Delayed:
        run = planned.run
        spec = run_spec(run)
        try:
            ended = self.executor.measure(
                run, spec, lambda text: self._tell(Waiting(planned, text))
            )
        except PutOff as problem:
            return Delayed(planned, problem)
        except (InputError, EngineError) as problem:
            # An engine's own tools may fail before a run begins: a quant that cannot be made.
            if problem.code in _OF_THE_RIG or (spec.url and problem.code in _OF_THE_SERVER):
                return Delayed(planned, problem)
            named, weights = scrub(run.weights.name), run.weights
            model = Model(
                family=named, quant=run.quant, quant_creator=run.creator, repo=weights.repo
            )
            ended = store_failure(spec, model, self.executor.rig(run.rig), problem, self.content)
        return Done(planned, ended)

    def _tell(self, news: News) -> None:
        tally = self.tally
        with self._lock:
            match news:
                case Done(ended=ended):
                    (tally.failed if ended.error else tally.done).append(news)
                case Delayed():
                    tally.delayed.append(news)
            self._hear(news)
