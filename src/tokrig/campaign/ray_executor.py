"""Runs on the rigs of a Ray cluster: each rig is a node with the custom resource ``rig:<id>``.

The head, this process, sends a run to its rig as one task that takes the whole resource, so a rig
measures one run at a time whoever asks. The record and its samples come back in the task's answer
and are stored here. A rig that is lost is waited for; its journal and its outbox, a content folder
in its state folder, make sure that nothing finished is measured twice: a record waits there until
a head has it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tokrig import cluster
from tokrig.campaign.work import Note
from tokrig.errors import EngineError, Interrupted, PutOff, RecordError, TokrigError
from tokrig.files import state_dir
from tokrig.measure import Ended, measure_spec, switches
from tokrig.plan import Run
from tokrig.plan.expand import key_before
from tokrig.record.model import Rig, parse_record
from tokrig.record.quality_file import from_parquet as answers_from_parquet
from tokrig.record.samples_file import from_parquet
from tokrig.run.monitor import at_once, patiently
from tokrig.spec.run import RunSpec
from tokrig.store import Store

RESOURCE = "rig:"
AWAY_S = 600.0
# A lost rig costs what was in flight; one that is lost again and again is broken.
LOSSES = 3
POLL_S = 1.0
# An engine may take ten seconds to end in order.
STOP_S = 30.0


# On the rig


@dataclass(frozen=True)
class Answer:
    """What came of a request to measure: a record as YAML with its samples and the model's answers
    as Parquet, an error, or both for a failed run. Returned, not raised: Ray would wrap its
    traceback around it."""

    record: str | None = None
    samples: bytes = b""
    error: TokrigError | None = None
    answers: bytes | None = None


def run_planned(spec: RunSpec, before: str, table: str | None, even_if_busy: bool) -> Answer:
    """Measure the run of a spec that has a ``planned`` key, or hand over what waits of it.

    ``before`` is the key that older versions gave the run, ``table`` the text of the head's own
    table of reasoning switches; the rig is looked at before it starts unless ``even_if_busy``. A
    KeyboardInterrupt, Ray's way to cancel, leaves the journal for the next time.
    """
    # Where Ray was started by a script in the background, its workers ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    own = outbox() / "reasoning.yaml"
    try:
        with _threads_as_owner_set():
            if (found := next(_waiting(spec.planned), None)) is None:
                own.parent.mkdir(parents=True, exist_ok=True)
                own.unlink(missing_ok=True)
                if table is not None:
                    own.write_text(table, encoding="utf-8")
                start = at_once if even_if_busy else patiently
                ended = measure_spec(spec, outbox(), before, start=start)
                found = ended.path, ended.error
        path, error = found
        samples = Store(outbox()).samples_path(path.stem).read_bytes()
        answers = Store(outbox()).answers_path(path.stem)
        file = answers.read_bytes() if answers.exists() else None
        return Answer(path.read_text("utf-8"), samples, error, file)
    except TokrigError as problem:
        return Answer(error=problem)


def forget(planned: str) -> None:
    """The head has stored the record: remove it here, the record before its samples."""
    for path, _ in _waiting(planned):
        path.unlink(missing_ok=True)
        Store(outbox()).samples_path(path.stem).unlink(missing_ok=True)
        Store(outbox()).answers_path(path.stem).unlink(missing_ok=True)


def outbox() -> Path:
    """The content folder of records that no head has stored yet."""
    return state_dir() / "outbox"


def _waiting(planned: str | None) -> Iterator[tuple[Path, EngineError | None]]:
    """Records of a planned run in the outbox, with the error of a failed one. A record that cannot
    be read is nobody's answer."""
    store = Store(outbox())
    for path in store.iter_paths():
        with contextlib.suppress(RecordError):
            record = store.read(path)
            if record.provenance.planned == planned:
                error = None
                if why := record.failure:
                    error = EngineError(why.message, code=why.code, log_tail=why.log_tail)
                yield path, error


@contextlib.contextmanager
def _threads_as_owner_set() -> Iterator[None]:
    """Ray tells its workers to compute with one thread, and engines would inherit that: the number
    of OpenMP threads is what the rig's owner set, or not set at all."""
    name = "OMP_NUM_THREADS"
    by_ray = os.environ.pop(name, None)
    owners = psutil.Process(os.getppid()).environ().get(name)
    if owners is not None:
        os.environ[name] = owners
    try:
        yield
    finally:
        if by_ray is not None:
            os.environ[name] = by_ray


# On the head


class _AwayError(Exception):
    """A rig does not answer; ``lost`` when that happened while it was asked."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class RayExecutor:
    """Measures on the rigs of the cluster at ``address`` (``host:port``, or ``auto`` for the one
    this machine belongs to) and stores in ``content``. A rig may be away for ``away_s``.

    Raises InputError when Ray is not installed, when no cluster answers at the address, or when
    its versions of Ray and Python are not those here.
    """

    def __init__(self, address: str, content: Path, *, even_if_busy: bool = False) -> None:
        self._content, self._even_if_busy = content, even_if_busy
        self.away_s = AWAY_S
        self._running: set[Any] = set()
        self._measuring = 0
        self._idle = threading.Condition()
        self._cancelled = threading.Event()
        self._ray = cluster.joined(address, "several rigs")

    def rigs(self) -> Sequence[str]:
        """The rigs whose nodes are alive, by id."""
        if self._cancelled.is_set():
            return []  # asked without a connection, Ray would start a cluster of its own
        return sorted(
            resource.removeprefix(RESOURCE)
            for node in self._ray.nodes()
            if node["Alive"]
            for resource in node["Resources"]
            if resource.startswith(RESOURCE)
        )

    def rig(self, name: str) -> Rig:
        """Its name: what it is, only its own records tell."""
        return Rig(id=name)

    def measure(self, run: Run, spec: RunSpec, note: Note) -> Ended:
        """As ``Executor.measure``. Raises also InputError for a rig of another version, and what
        measuring raised on the rig."""
        with self._idle:
            self._measuring += 1
        try:
            ended = self._stored(run, self._until_back(run, spec, note))
            with contextlib.suppress(_AwayError, PutOff, Interrupted):
                self._answer(run.rig, self._send(run.rig, forget, run.key))
            return ended
        except TokrigError as problem:
            if self._cancelled.is_set() and not isinstance(problem, Interrupted):
                raise Interrupted(f"interrupted; rig {run.rig}: {problem.message}") from None
            raise
        finally:
            with self._idle:
                self._measuring -= 1
                self._idle.notify_all()

    def cancel(self) -> None:
        """End what is being measured and leave the cluster, for good. Returns when engines have
        ended, or after a while."""
        if self._cancelled.is_set():
            return
        self._cancelled.set()
        # Ray aborts this process when a task ends while it is cancelled, so only those are that
        # take long, and a record that is finished then waits in the rig's outbox.
        tasks = [task for task in self._running if not self._ray.wait([task], timeout=0)[0]]
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=STOP_S)
        with self._idle:  # threads that still use the connection
            self._idle.wait_for(lambda: not self._measuring, timeout=STOP_S)
        self._ray.shutdown()

    def _until_back(self, run: Run, spec: RunSpec, note: Note) -> Answer:
        """Ask until the rig answers. It has ``away_s`` from the moment it was missed or lost."""
        missed: float | None = None
        losses = 0
        while True:
            try:
                return self._asked(run, spec)
            except _AwayError as away:
                losses += away.lost
                if missed is None or away.lost:
                    missed = time.monotonic()
                    note(f"rig {run.rig} {away}; waiting for it")
                too_often = losses >= LOSSES
                if too_often or time.monotonic() - missed > self.away_s:
                    why = f"was lost {losses} times during this run" if too_often else away
                    raise PutOff(
                        f"rig {run.rig} {why}",
                        hint="start Ray on it again (docs/rigs.md), then run the campaign again",
                        code="rig_away",
                    ) from None
            if self._cancelled.wait(POLL_S):
                raise Interrupted(f"interrupted while rig {run.rig} was away")

    def _asked(self, run: Run, spec: RunSpec) -> Answer:
        """One attempt. The versions are looked at each time: a rig may come back with others."""
        there = self._answer(run.rig, self._send(run.rig, cluster.versions()))
        cluster.require_same(f"rig {run.rig}", there)
        table = switches(self._content)
        text = table.read_text("utf-8") if table else None
        task = self._send(run.rig, run_planned, spec, key_before(run), text, self._even_if_busy)
        self._running.add(task)
        answer: Answer = self._answer(run.rig, task)
        self._running.discard(task)
        if answer.error and answer.error.code == "rig_in_use":
            # Its owner measures something, or what was lost is still ending there.
            raise _AwayError("is measuring already")
        return answer

    def _send(self, rig: str, function: Callable[..., Any], *words: object) -> Any:
        """Have a function called on the rig. Raises _AwayError, Interrupted after ``cancel``."""
        if self._cancelled.is_set():
            raise Interrupted("interrupted")
        if rig not in self.rigs():
            raise _AwayError("is away")
        options = {"resources": {RESOURCE + rig: 1}, "num_cpus": 0, "max_retries": 0}
        return self._ray.remote(function).options(**options).remote(*words)

    def _answer(self, rig: str, task: Any) -> Any:
        """What the function returned.

        Raises _AwayError when the rig is lost under way, PutOff when something else goes wrong
        there, Interrupted after ``cancel``.
        """
        gone = self._ray.exceptions
        try:
            # A task whose rig went before it began waits on. Should it be called one day, its
            # record is found in the outbox.
            while not self._ray.wait([task], timeout=POLL_S)[0]:
                if not self._cancelled.is_set() and rig not in self.rigs():
                    raise _AwayError("was lost", lost=True)
            return self._ray.get(task)
        except gone.TaskCancelledError:
            raise Interrupted(f"interrupted; rig {rig} keeps what it has measured") from None
        except (gone.WorkerCrashedError, gone.NodeDiedError, gone.ObjectLostError):
            raise _AwayError("was lost", lost=True) from None
        except gone.OutOfMemoryError:
            raise PutOff(
                f"rig {rig}: Ray ended the run because memory ran low",
                hint="start Ray there with RAY_memory_monitor_refresh_ms=0 (docs/rigs.md)",
            ) from None
        except gone.RayError as problem:
            # The error itself, at the end of the traceback that Ray makes its message.
            lines = str(problem).split("\n")
            why = next(filter(None, map(str.strip, reversed(lines))), type(problem).__name__)
            raise PutOff(f"rig {rig}: {why}", hint="see Ray's logs on that rig") from None

    def _stored(self, run: Run, answer: Answer) -> Ended:
        """Store what a rig sent, after the checks that any foreign file gets. Raises what was
        raised there, saying where it happened."""
        if answer.error:
            answer.error.message = f"rig {run.rig}: {answer.error.message}"
        if answer.record is None:
            assert answer.error is not None
            raise answer.error
        name = f"the record from rig {run.rig}"
        record = parse_record(answer.record, name)
        samples = from_parquet(answer.samples, name)
        found = (record.rig.id, record.provenance.planned)
        if found != (run.rig, run.key):
            raise RecordError(
                f"{name} is of rig {found[0]!r} and planned run {found[1]!r}, not of {run.key!r}",
                hint="remove it from the outbox in that rig's state folder",
            )
        if answer.answers is not None:
            answers_from_parquet(answer.answers, name)
        path = Store(self._content).save(record, samples, answers=answer.answers, overwrite=True)
        error = answer.error
        return Ended(record, path, error if isinstance(error, EngineError) else None)
