"""An engine's own benchmark program, run as it is: started behind the guard, watched, read.

Its warm-up is its own. The engine is not asked anything and no request is sent: all that tokrig
adds is what the machine did meanwhile, and which API really computed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import psutil

from tokrig import __version__
from tokrig.errors import EngineDied, EngineError, InputError, RequestError, StoreError
from tokrig.native_bench import BenchFound, BenchLaunch, BenchTool
from tokrig.record import machine
from tokrig.record.model import BackendFacts, Failure, Model, Provenance, Record, Rig
from tokrig.record.raw import RawSeen, judge_raw
from tokrig.record.versions import METHODOLOGY_VERSION
from tokrig.run import assemble, guard
from tokrig.run.binary import asked
from tokrig.run.journal import Observed
from tokrig.run.monitor import Monitor, probes
from tokrig.run.privacy import ENVIRONMENT, scrub, scrub_argv
from tokrig.run.progress import Listener, Step
from tokrig.run.provenance import source_commit
from tokrig.run.server import LOG_TAIL_LINES, STOP_S, describe_exit

POLL_S = 0.1
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class RawRun:
    """What is to be run and on what; ``limit_s`` is how long the program may take."""

    run_id: str
    tool: BenchTool
    launch: BenchLaunch
    model: Model
    rig: Rig
    started: datetime
    limit_s: float
    notes: str | None = None


@dataclass(frozen=True)
class RawOutcome:
    """What came of it. ``error`` is set when it failed; ``log`` is all the program said."""

    record: Record
    log: str
    error: EngineError | None = None


def find_binary(tool: BenchTool, given: str | None) -> str:
    """The program: ``given`` itself, or beside it where that is a folder or another program of the
    same build (llama-server); without it on the PATH.

    Raises InputError when there is none that can be run.
    """
    if given is None:
        found = shutil.which(tool.binary)
        where = "on the PATH"
    else:
        path = Path(given)
        itself = shutil.which(given) if tool.binary in path.name else None
        folder = path if path.is_dir() else Path(shutil.which(given) or given).parent
        found = itself or shutil.which(folder / tool.binary)
        where = f"at or beside {given!r}"
    if found is None:
        raise InputError(
            f"no runnable {tool.binary} {where}",
            hint=f"give the path of {tool.binary}, or of a llama-server beside it, with --bin",
        )
    return str(Path(found).absolute())


def vetted(tool: BenchTool, launch: BenchLaunch) -> BenchLaunch:
    """``launch`` with the answers of its binary, which can do what is asked.

    Raises InputError where it cannot.
    """
    launch = replace(launch, answers=asked(tool.questions(launch)))
    tool.vet(launch)
    tool.command(launch)
    return launch


def execute_raw(run: RawRun, listen: Listener) -> RawOutcome:
    """Run the program to its end and make the record of what it printed.

    Failures of the program become a failed record, with the tests it had finished by then;
    KeyboardInterrupt passes through when the program is stopped.
    """
    commit = source_commit()
    error: EngineError | None = None
    # Files without a name vanish with the process, however it ends.
    watch = probes()
    alone = Monitor(watch, list)
    alone.look_before()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _started(run, out, err) as process:
            monitor = Monitor(watch, lambda: _below(process.pid), alone.idle, alone.before, True)
            listen(Step(f"starting {run.tool.title}"))
            try:
                with monitor.watching():
                    _await_end(run, process, (_Tail(out), _Tail(err)), listen)
            except EngineError as caught:
                error = caught
        stdout, log = _whole(out), _whole(err)
    if error is not None:
        error = _explained(run, error, log)
    found: BenchFound | None = None
    try:
        found = run.tool.read(stdout, log, run.launch)
    except RequestError as caught:
        caught.log_tail = _tail(log)
        error = error or caught
    api, devices = (found.api, found.resolved.devices) if found else (None, [])
    seen = monitor.observed(0.0, 0.0, api, devices)
    return RawOutcome(_record(run, found, seen, error, commit), log, error)


@contextlib.contextmanager
def _started(run: RawRun, out: BinaryIO, err: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """The program behind its guard, stopped on every way out."""
    argv = [sys.executable, "-I", guard.__file__, "--", *run.tool.command(run.launch)]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
        )
    except OSError as problem:
        raise StoreError(f"cannot start {run.tool.binary}: {problem.strerror}") from None
    try:
        yield process
    finally:
        # The guard's pipe closes, which ends the program; the whole group if that fails.
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _below(pid: int) -> list[psutil.Process]:
    """The program's own processes, the guard left out."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


class _Tail:
    """Whole lines of a file that another process is writing. Reads leave its position alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd, self._at, self._rest = file.fileno(), 0, b""

    def lines(self) -> Iterator[str]:
        """Those that are new."""
        while block := os.pread(self._fd, BLOCK_BYTES, self._at):
            self._at += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)


def _await_end(
    run: RawRun, process: subprocess.Popen[bytes], tails: Sequence[_Tail], listen: Listener
) -> None:
    """Tell how far it is until it ends. Raises EngineDied, or EngineError after ``limit_s``."""
    deadline = time.monotonic() + run.limit_s
    ended = False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
        ended = process.returncode is not None
        for tail in tails:
            for text in filter(None, map(run.tool.progress, tail.lines())):
                listen(Step(text))
        if not ended and time.monotonic() > deadline:
            raise EngineError(
                f"{run.tool.binary} was not done within {run.limit_s:g} s",
                hint="ask for shorter or fewer tests, or give it more time with --time-limit",
                code="timeout",
            )
    if process.returncode:
        raise EngineDied(f"{run.tool.binary} failed ({describe_exit(process.returncode)})")


def _explained(run: RawRun, error: EngineError, log: str) -> EngineError:
    """The error with the log's own reason and its last lines."""
    reason = run.tool.failure(log) if isinstance(error, EngineDied) else None
    message = f"{error.message}: {reason}" if reason else error.message
    return type(error)(message, hint=error.hint, code=error.code, log_tail=_tail(log))


def _record(
    run: RawRun,
    found: BenchFound | None,
    seen: Observed,
    error: EngineError | None,
    commit: str | None,
) -> Record:
    found = found or BenchFound((), run.tool.engine, None, None, None)
    backend = BackendFacts(
        name=run.tool.name,
        engine=found.engine,
        build=found.build,
        api=found.api,
        api_confirmed=found.api_confirmed,
        api_asked=run.launch.api,
        managed=True,
        argv=scrub_argv(run.tool.command(run.launch)),
        env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        resolved=found.resolved,
    )
    interference = assemble.interference([seen])
    foreign = interference.foreign_gpu_processes
    beside = RawSeen(
        throttled=machine.throttled(interference),
        foreign_gpu_load=None if foreign is None else foreign > 0,
        foreign_cpu_load=machine.foreign_cpu_load(interference, backend),
        has_gpu=bool(run.rig.gpus) and machine.computed_on(backend) != {"cpu"},
        spilled=found.spilled,
    )
    return Record(
        id=run.run_id,
        status="failed" if error else "complete",
        validity=judge_raw(len(found.raw), backend, beside, complete=error is None),
        provenance=Provenance(
            kind="measured",
            tokrig_version=__version__,
            tokrig_commit=commit,
            methodology=METHODOLOGY_VERSION,
            started_at=_iso(run.started),
            finished_at=_iso(datetime.now(UTC)),
        ),
        model=run.model,
        rig=run.rig,
        backend=backend,
        raw=list(found.raw),
        failure=_failure(error) if error else None,
        notes=run.notes,
    )


def _failure(error: EngineError) -> Failure:
    return Failure(code=error.code, message=scrub(error.message), log_tail=scrub(error.log_tail))


def _whole(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-LOG_TAIL_LINES:])


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
