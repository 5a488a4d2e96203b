"""Works through a plan: one run after the other on each rig, whatever becomes of any of them.

A run that fails is a failed record and the rest goes on; one that cannot be done now is put off
and leaves nothing. What ends a campaign is a store that cannot be written, and its user.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokrig.campaign import Ended, Executor
from tokrig.errors import (
    EngineError,
    InputError,
    Interrupted,
    PutOff,
    StoreError,
    TokrigError,
    did_you_mean,
)
from tokrig.measure import store_failure
from tokrig.plan import TO_DO, Plan, Planned, Run, run_spec
from tokrig.record.model import Model
from tokrig.run.assemble import scrub

# Refusals that say something of the rig and nothing of the run.
_OF_THE_RIG = ("rig_in_use", "version_mismatch", "rig_is_nice")
# A server that was to be measured as it runs, and is away, locked or too busy.
_OF_THE_SERVER = ("no_answer", "no_tls", "locked", "http_401", "http_403", "http_429", "http_503")


@dataclass(frozen=True)
class Began:
    """A run begins: the ``number``-th of those on its rig."""

    planned: Planned
    number: int
    of: int


@dataclass(frozen=True)
class Done:
    """A run has its record; a failed one has ``error``."""

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
    """What became of the runs so far."""

    done: list[Done] = field(default_factory=list)
    failed: list[Done] = field(default_factory=list)
    delayed: list[Delayed] = field(default_factory=list)
    left: int = 0


def selected(
    plan: Plan, only: Sequence[str], retry: Collection[str], limit: int | None
) -> list[Planned]:
    """The runs to do, in order: of the entries ``only`` (all where it is empty), those that are
    left and those in the states ``retry``. Raises InputError for an entry that no campaign has."""
    states = {*TO_DO, *retry}
    return [p for p in only_entries(plan, only).runs if p.state in states][:limit]


def only_entries(plan: Plan, only: Sequence[str]) -> Plan:
    """The plan without all but some entries; ``only`` is empty for all of them. Raises InputError
    for an entry that no campaign has."""
    if not only:
        return plan
    names = {
        f"{file.name}/{entry.name}" for file in plan.campaigns for entry in file.campaign.entries
    }
    names |= {name.partition("/")[2] for name in names}
    for name in only:
        if name not in names:
            raise InputError(f"no entry {name!r}", hint=did_you_mean(name, names))
    return replace(
        plan,
        runs=[
            planned
            for planned in plan.runs
            if planned.run.entry in only or f"{planned.run.campaign}/{planned.run.entry}" in only
        ],
    )


class Work:
    """The runs of a plan, handed to an executor. ``hear`` is told what happens, one piece of news
    at a time."""

    def __init__(
        self,
        runs: Iterable[Planned],
        executor: Executor,
        content: Path,
        hear: Callable[[News], None],
    ) -> None:
        self.executor, self.content = executor, content
        self.tally = Tally()
        self._hear = hear
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._queues: dict[str, list[Planned]] = {}
        for planned in runs:
            self._queues.setdefault(planned.run.rig, []).append(planned)
        self.tally.left = sum(map(len, self._queues.values()))

    def all(self) -> Tally:
        """Do all of it. Raises StoreError, Interrupted."""
        here = {rig for rig in self.executor.rigs() if rig in self._queues}
        for rig in self._queues.keys() - here:
            self._delay_all(self._queues[rig], f"the rig {rig} is not here")
        queues = [self._queues[rig] for rig in self._queues if rig in here]
        if len(queues) == 1:
            self._one_rig(queues[0])
        elif queues:
            self._several_rigs(queues)
        return self.tally

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
        for number, planned in enumerate(queue, 1):
            if self._stopping.is_set():
                return
            run = planned.run
            if run.sequence is not None and (run.entry, run.sequence) in held:
                self._tell(Delayed(planned, PutOff("an earlier run of its A/B sequence is left")))
                continue
            self._tell(Began(planned, number, len(queue)))
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
        except (StoreError, Interrupted):
            raise
        except PutOff as problem:
            return Delayed(planned, problem)
        except (InputError, EngineError) as problem:
            # An engine's own tools may fail before a run begins: a quant that cannot be made.
            if problem.code in _OF_THE_RIG or (spec.url and problem.code in _OF_THE_SERVER):
                return Delayed(planned, problem)
            rig = self.executor.rig(run.rig)
            ended = store_failure(spec, _as_asked(run), rig, problem, self.content)
        return Done(planned, ended)

    def _delay_all(self, queue: Sequence[Planned], why: str) -> None:
        hint = "run the campaign on that machine, or bring it in: docs/rigs.md"
        for planned in queue:
            self._tell(Delayed(planned, PutOff(why, hint=hint, code="rig_away")))

    def _tell(self, news: News) -> None:
        with self._lock:
            if isinstance(news, Done):
                (self.tally.failed if news.ended.error else self.tally.done).append(news)
                self.tally.left -= 1
            elif isinstance(news, Delayed):
                self.tally.delayed.append(news)
                self.tally.left -= 1
            self._hear(news)


def _as_asked(run: Run) -> Model:
    """What is known of the model of a run that could not even be prepared."""
    return Model(
        family=scrub(run.weights.name),
        quant=run.quant,
        quant_creator=run.creator,
        repo=run.weights.repo,
    )
