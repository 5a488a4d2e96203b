"""An engine's own benchmark program, run as it is: started behind the guard, watched, read.

Its warm-up is its own. The engine is not asked anything and no request is sent: all that tokrig
adds is what the machine did meanwhile, and which API really computed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from tokrig import engines
from tokrig.errors import EngineDied, EngineError, InputError, RequestError, StoreError
from tokrig.files import state_dir
from tokrig.native_bench import ENGINE, BenchFound, BenchLaunch, BenchTool
from tokrig.record import conditions
from tokrig.record.checks import judge_raw
from tokrig.record.model import BackendFacts, Model, Record, Rig
from tokrig.run import assemble, guard
from tokrig.run.execute import Outcome
from tokrig.run.monitor import Monitor, probes
from tokrig.run.progress import Listener, Step
from tokrig.run.server import asked, below, tail

POLL_S = 0.1


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


def find_binary(tool: BenchTool, given: str | None) -> str:
    """The program: ``given`` itself, or beside it where that is a folder or another program of the
    same build (llama-server); without it on the PATH.

    Raises InputError when there is none that can be run.
    """
    if given is None:
        found = engines.program(tool.name)
        where = "on the PATH"
    else:
        path = Path(given)
        itself = shutil.which(given) if tool.name in path.name else None
        folder = path if path.is_dir() else Path(shutil.which(given) or given).parent
        found = itself or shutil.which(folder / tool.name)
        where = f"at or beside {given!r}"
    if found is None:
        raise InputError(
            f"no runnable {tool.name} {where}",
            hint=f"give the path of {tool.name}, or of a llama-server beside it, with --bin",
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


def execute_raw(run: RawRun, listen: Listener) -> Outcome:
    """Run the program to its end and make the record of what it printed.

    Failures of the program become a failed record, with the tests it had finished by then, and its
    log is kept; KeyboardInterrupt passes through when the program is stopped.
    """
    commit = assemble.source_commit()
    error: EngineError | None = None
    watch = probes()
    idle = Monitor(watch, list)
    idle.look_before()
    # Files without a name vanish with the process, however it ends.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with contextlib.ExitStack() as held:
            try:
                command = run.tool.command(run.launch)
                process = held.enter_context(guard.guarded(command, stdout=out, stderr=err))
            except OSError as problem:
                raise StoreError(f"cannot start {run.tool.name}: {problem.strerror}") from None
            monitor = Monitor(watch, lambda: below(process), idle.idle, idle.before, True)
            listen(Step(f"starting {ENGINE} {run.tool.name}"))
            try:
                with monitor.watching():
                    _await_end(run, process, [_Lines(out), _Lines(err)], listen)
            except EngineError as caught:
                error = caught
        stdout, log = _whole(out), _whole(err)
    found = BenchFound()
    try:
        found = run.tool.read(stdout, log, run.launch)
    except RequestError as caught:
        error = error or caught
    if isinstance(error, EngineDied) and (reason := run.tool.failure(log)):
        error.message += f": {reason}"
    if error is not None:
        error.log_tail = tail(log)
        _keep_log(log, error)
    seen = monitor.observed(0.0, 0.0, found.api, found.resolved.devices)
    backend = BackendFacts(
        name=run.tool.name,
        engine=ENGINE,
        build=found.build,
        api=found.api,
        api_confirmed=found.api_confirmed,
        api_asked=run.launch.api,
        managed=True,
        argv=assemble.scrub_argv(command),
        env=assemble.environment(),
        resolved=found.resolved,
    )
    interference = assemble.interference([seen])
    foreign = interference.foreign_gpu_processes
    on_card = bool(run.rig.gpus) and conditions.computed_on(backend) != {"cpu"}
    beside = {
        "throttled": conditions.throttled(interference),
        "foreign_gpu_load": None if foreign is None and on_card else bool(foreign),
        "foreign_cpu_load": conditions.foreign_cpu_load(interference, backend),
        "cpu_spill": found.spilled,
    }
    record = Record(
        id=run.run_id,
        status="failed" if error else "complete",
        validity=judge_raw(len(found.raw), backend, beside, complete=error is None),
        provenance=assemble.provenance(run.started, tokrig_commit=commit),
        model=run.model,
        rig=run.rig,
        backend=backend,
        raw=list(found.raw),
        failure=assemble.failure(error) if error else None,
        notes=run.notes,
    )
    return Outcome(record, [], error)


def _keep_log(log: str, error: EngineError) -> None:
    """All that the program said, where the log of every failed engine is."""
    last = state_dir() / "failed-engine.log"
    with contextlib.suppress(OSError):
        last.parent.mkdir(parents=True, exist_ok=True)
        last.write_text(log, encoding="utf-8")
        error.hint = "\n".join(filter(None, (error.hint, f"its log: {last}")))


class _Lines:
    """Whole new lines of a file that another process is writing, whose position is left alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd, self._at, self._rest = file.fileno(), 0, b""

    def new(self) -> list[str]:
        while block := os.pread(self._fd, 1 << 16, self._at):
            self._at += len(block)
            self._rest += block
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def _await_end(
    run: RawRun, process: subprocess.Popen[bytes], outputs: list[_Lines], listen: Listener
) -> None:
    """Tell how far it is until it ends. Raises EngineDied, or EngineError after ``limit_s``."""
    deadline = time.monotonic() + run.limit_s
    ended = False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
        ended = process.returncode is not None
        for lines in outputs:
            for text in filter(None, map(run.tool.progress, lines.new())):
                listen(Step(text))
        if not ended and time.monotonic() > deadline:
            raise EngineError(
                f"{run.tool.name} did not finish within {run.limit_s:g} s",
                hint="ask for shorter or fewer tests, or give it more time with --time-limit",
                code="timeout",
            )
    if process.returncode:
        how = guard.describe_exit(process.returncode)
        raise EngineDied(f"{run.tool.name} failed ({how})")


def _whole(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
