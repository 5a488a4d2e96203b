"""Runs on the rigs of a Ray cluster: each rig is a node with the custom resource ``rig:<id>``.

The head, this process, sends a run to its rig as one task that takes the whole resource, so a rig
measures one run at a time whoever asks. Record and samples come back in the task's answer and are
stored here. A rig that is lost is waited for; its journal and its outbox make sure that nothing
finished is measured twice.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tokrig.campaign import Ended, Note, ray_node
from tokrig.errors import (
    EngineError,
    InputError,
    Interrupted,
    PutOff,
    RecordError,
    TokrigError,
)
from tokrig.measure import switches
from tokrig.plan import Run
from tokrig.record.model import Rig, parse_record
from tokrig.record.samples import from_parquet
from tokrig.registry import get_extra
from tokrig.spec.run import RunSpec
from tokrig.store import Store

ANSWER_S = 10.0
CONNECT_S = 60.0

# Ray tries for minutes to reach what is not there, and talks meanwhile. A process of its own can
# be ended, and leaves nothing behind in this one.
_CONNECT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
except Exception as problem:
    print(problem)
    sys.exit(1)
"""

RESOURCE = "rig:"
AWAY_S = 600.0
# A lost rig costs what was in flight; one that is lost again and again is broken.
LOSSES = 3
POLL_S = 1.0
# An engine may take ten seconds to end in order.
STOP_S, STOP_TRIES = 30.0, 2


class RayExecutor:
    """Measures on the rigs of the cluster at ``address`` (``host:port``, or ``auto`` for the one
    this machine belongs to) and stores in ``content``. ``away_s`` is how long a rig may be away.

    Raises InputError when Ray is not installed, when no cluster answers at the address, or when
    its versions of Ray and Python are not those here.
    """

    def __init__(
        self, address: str, content: Path, *, away_s: float = AWAY_S, even_if_busy: bool = False
    ) -> None:
        self._ray = library()
        self._content, self._away_s = content, away_s
        self._even_if_busy = even_if_busy
        self._running: set[Any] = set()
        self._measuring = 0
        self._idle = threading.Condition()
        self._cancelled = threading.Event()
        join(self._ray, address)

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
        with self._counted():
            try:
                answer = self._until_back(run, spec, note)
                if answer.record is None:
                    assert answer.error is not None
                    raise ray_node.raised(answer.error, run.rig)
                ended = self._stored(run, answer)
                with contextlib.suppress(_AwayError, PutOff, Interrupted):
                    self._answer(run.rig, self._send(run.rig, ray_node.forget, run.key))
                return ended
            except TokrigError as problem:
                if self._cancelled.is_set() and not isinstance(problem, Interrupted):
                    raise Interrupted(f"interrupted; rig {run.rig}: {problem.message}") from None
                raise

    def cancel(self) -> None:
        """End what is being measured and leave the cluster, for good. Returns when engines have
        ended, or after a while."""
        if self._cancelled.is_set():
            return
        self._cancelled.set()
        # Ray aborts this process when a task ends while it is cancelled, so only those are that
        # take long, and a record that is finished then waits in the rig's outbox.
        tasks = list(self._running)
        for _ in range(STOP_TRIES):  # an interrupt may be lost on its way
            tasks = [task for task in tasks if not self._ray.wait([task], timeout=0)[0]]
            for task in tasks:
                self._ray.cancel(task)
            if tasks:
                self._ray.wait(tasks, num_returns=len(tasks), timeout=STOP_S / STOP_TRIES)
        with self._idle:
            self._idle.wait_for(lambda: not self._measuring, timeout=STOP_S)
        self._ray.shutdown()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Leaving the cluster waits for threads that still use the connection."""
        with self._idle:
            self._measuring += 1
        try:
            yield
        finally:
            with self._idle:
                self._measuring -= 1
                self._idle.notify_all()

    def _until_back(self, run: Run, spec: RunSpec, note: Note) -> ray_node.Answer:
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
                if losses >= LOSSES:
                    raise _put_off(run.rig, f"was lost {losses} times during this run") from None
                if time.monotonic() - missed > self._away_s:
                    raise _put_off(run.rig, str(away)) from None
            if self._cancelled.wait(POLL_S):
                raise Interrupted(f"interrupted while rig {run.rig} was away")

    def _asked(self, run: Run, spec: RunSpec) -> ray_node.Answer:
        """One attempt. The versions are looked at each time: a rig may come back with others."""
        _require_same(run.rig, self._answer(run.rig, self._send(run.rig, _versions())))
        table = switches(self._content)
        text = table.read_text("utf-8") if table else None
        asked = spec.model_dump_json(), text, self._even_if_busy
        task = self._send(run.rig, ray_node.run_planned, *asked)
        self._running.add(task)
        answer: ray_node.Answer = self._answer(run.rig, task)
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
            raise PutOff(
                f"rig {rig}: {_last_line(problem)}", hint="Ray's logs on that rig tell more"
            ) from None

    def _stored(self, run: Run, answer: ray_node.Answer) -> Ended:
        """Store what a rig sent, after the checks that any foreign file gets."""
        name = f"the record from rig {run.rig}"
        record = parse_record(answer.record or "", name)
        samples = from_parquet(answer.samples, name)
        found = (record.rig.id, record.provenance.planned)
        if found != (run.rig, run.key):
            raise RecordError(
                f"{name} is of rig {found[0]!r} and planned run {found[1]!r}, not of {run.key!r}",
                hint="remove it from the outbox in that rig's state folder",
            )
        path = Store(self._content).save(record, samples, overwrite=True)
        error = ray_node.raised(answer.error, run.rig) if answer.error else None
        return Ended(record, path, error if isinstance(error, EngineError) else None)


def library() -> ModuleType:
    """Ray. Raises InputError when it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError(
            "several rigs need Ray, which is not installed", hint=get_extra("ray")
        ) from None
    return ray


def join(ray: ModuleType, address: str) -> None:
    """Make this process part of the cluster at ``address``, ``host:port`` or ``auto``.

    Raises InputError when no cluster that this machine can use answers there.
    """
    _require_answer(address)
    with _signals_kept():
        ray.init(address=address, namespace="tokrig", log_to_driver=False, configure_logging=False)


def _require_answer(address: str) -> None:
    hint = "see that Ray runs there and here: ray status (docs/rigs.md)"
    host, _, port = address.rpartition(":")
    if address != "auto":
        if not host or not port.isdigit() or int(port) > 65535:
            raise InputError(
                f"{address!r} is no address of a Ray cluster",
                hint="give HOST:PORT, as in ray start --address, or auto",
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except OSError as problem:
            raise InputError(
                f"no Ray cluster answers at {address}: {problem.strerror or problem}", hint=hint
            ) from None
    try:
        argv = [sys.executable, "-c", _CONNECT, address]
        tried = subprocess.run(argv, capture_output=True, text=True, timeout=CONNECT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"what answers at {address} is no Ray cluster, or one that hangs", hint=hint
        ) from None
    if tried.returncode:
        why = " ".join(tried.stdout.split())[:400] or "it gave no reason"
        raise InputError(f"cannot join the Ray cluster at {address}: {why}", hint=hint)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; it is tokrig's, to stop in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _AwayError(Exception):
    """A rig does not answer; ``lost`` when that happened while it was asked."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


def _put_off(rig: str, why: str) -> PutOff:
    return PutOff(
        f"rig {rig} {why}",
        hint="start Ray on it again (docs/rigs.md), then: tokrig campaign run, as before",
        code="rig_away",
    )


def _versions() -> Callable[[], dict[str, str]]:
    """A function that tells what decides whether two machines measure alike.

    Made here, inside another function, so that Ray sends all of it: the other machine may have
    another tokrig, or none.
    """

    def ask() -> dict[str, str]:
        import os
        import platform

        told = {"python": platform.python_version(), "niceness": str(os.nice(0))}
        try:
            from tokrig import __version__
            from tokrig.record import METHODOLOGY_VERSION, SCHEMA_VERSION
        except ImportError:
            return {**told, "tokrig": "none"}
        numbers = {"methodology": str(METHODOLOGY_VERSION), "schema": str(SCHEMA_VERSION)}
        return {**told, "tokrig": __version__, **numbers}

    return ask


def _require_same(rig: str, there: dict[str, str]) -> None:
    """Raises InputError when a rig would not measure as this machine records."""
    here = _versions()()
    names = ("tokrig", "methodology", "schema")
    other = [name for name in names if there.get(name) != here[name]]
    if there["python"].split(".")[:2] != here["python"].split(".")[:2]:
        other.append("python")
    if other:
        has = ", ".join(f"{name} {there.get(name, 'unknown')}" for name in other)
        wants = ", ".join(f"{name} {here[name]}" for name in other)
        raise InputError(
            f"rig {rig} has {has}; this machine has {wants}",
            hint="install the same version on both, then start Ray on the rig again",
            code="version_mismatch",
        )
    if int(there["niceness"]) > 0:
        raise InputError(
            f"rig {rig} would measure at niceness {there['niceness']}: all else goes before it",
            hint="start Ray there with RAY_worker_niceness=0 (docs/rigs.md)",
            code="rig_is_nice",
        )


def _last_line(problem: Exception) -> str:
    """The error itself, at the end of the traceback that Ray makes its message."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1] if lines else type(problem).__name__
