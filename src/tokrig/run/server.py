"""The life of a managed engine: asked what it is, started, ready, read, always stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from tokrig.backends import Backend, Command, asked_of
from tokrig.errors import EngineDied, InputError, StartError, StoreError
from tokrig.run import guard
from tokrig.run.http import Endpoint, get_status

POLL_S = 0.05
# Python programs import their whole engine to print their flags: half a minute on a busy machine.
ANSWER_S = 180.0
LOG_TAIL_LINES = 20


def asked(questions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What a program says to each command line: its version, devices, flags. Errors are included;
    an exit code says nothing here, for programs differ in what they think of ``--help``. A signal
    that ended it does, and stands in a last line. A campaign asks the same program before each of
    its runs: it is started again only when its file has changed.

    Raises InputError for a program that cannot be run or does not end.
    """
    return tuple(_answer(tuple(argv), _stamp(argv[0])) for argv in questions)


def _stamp(program: str) -> tuple[int, int] | None:
    """Tells one build of a program from the next at the same place."""
    try:
        found = os.stat(shutil.which(program) or program)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@cache
def _answer(argv: tuple[str, ...], stamp: tuple[int, int] | None) -> str:
    try:
        said, code = guard.said(argv, ANSWER_S)
    except OSError as error:
        hint = "give the path of the engine's program, with --server-bin (run) or --bin (raw)"
        if error.errno == errno.ENOEXEC:
            hint = "use a build for this processor; a script needs a first line such as #!/bin/sh"
        raise InputError(
            f"{asked_of(argv)} cannot be run: {error.strerror or error}", hint=hint
        ) from None
    if code is None:
        raise InputError(
            f"{asked_of(argv)} did not end within {ANSWER_S:g} s",
            hint="check that it is the engine's server program: run it by hand to see what it does",
        )
    name = guard.signal_of(code) if code > 128 else None
    return f"{said}\nended by {name}" if name else said


@dataclass
class Server:
    """A running engine process behind its guard, and its log."""

    process: subprocess.Popen[bytes]
    endpoint: Endpoint
    log_path: Path
    backend: Backend
    load_s: float = 0.0

    def log(self) -> str:
        """Everything the engine printed so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def log_tail(self) -> str:
        """The last lines of the log."""
        return tail(self.log())

    def require_alive(self) -> None:
        """Raises EngineDied with the log's own reason when the engine has ended."""
        code = self.process.poll()
        if code is not None:
            raise EngineDied(
                f"the engine ended while it was in use ({guard.describe_exit(code)})"
                + self.because(),
                hint=f"its log: {self.log_path}",
                log_tail=self.log_tail(),
            )

    def because(self) -> str:
        """The log's own reason for a failure, to stand behind a message."""
        reason = self.backend.failure(self.log())
        return f": {reason}" if reason else ""

    def processes(self) -> list[psutil.Process]:
        """The engine's own processes, the guard left out."""
        return below(self.process)

    def listens(self) -> bool:
        """Whether it is our engine that answers at the port, not a stranger."""
        if not sys.platform.startswith("linux"):
            return self.process.poll() is None
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                for found in process.net_connections(kind="tcp"):
                    listens = found.status == psutil.CONN_LISTEN
                    if listens and found.laddr.port == self.endpoint.port:
                        return True
        return False


def tail(log: str) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-LOG_TAIL_LINES:])


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A guarded program's processes, the guard left out."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def free_port() -> int:
    """A TCP port nobody listens on at loopback at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(
    backend: Backend,
    command_for: Callable[[int], Command],
    log_path: Path,
    patience_s: float,
    *,
    port: Callable[[], int] = free_port,
    ready_path: str | None = None,
) -> Iterator[Server]:
    """Start the engine, wait until it is ready, yield it, stop it on every way out. It is ready
    when ``ready_path``, without one the backend's own, answers 200.

    A port that someone else took in the meantime is tried again twice. Raises StartError with
    the log's own reason when the engine does not become ready within ``patience_s``.
    """
    for last in (False, False, True):
        with _started(backend, command_for, port(), log_path) as server:
            began = time.monotonic()
            try:
                _await_ready(server, ready_path or backend.ready_path, patience_s)
            except StartError as error:
                if error.code == "port_in_use" and not last:
                    continue
                raise
            server.load_s = time.monotonic() - began
            yield server
            return


@contextlib.contextmanager
def _started(
    backend: Backend, command_for: Callable[[int], Command], port: int, log_path: Path
) -> Iterator[Server]:
    command = command_for(port)
    with contextlib.ExitStack() as held:
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(log_path, "wb") as log:
                process = held.enter_context(
                    guard.guarded(command.argv, stdout=log, env=command.env)
                )
        except OSError as error:
            raise StoreError(
                f"cannot start the engine or write its log {log_path}: {error.strerror}",
                hint="check free space and permissions; TOKRIG_STATE chooses another folder",
            ) from None
        yield Server(process, Endpoint("127.0.0.1", port), log_path, backend)


def _await_ready(server: Server, path: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise _start_failure(server)
        answer = get_status(server.endpoint, path, timeout_s=2)
        if answer is not None and answer[0] == 200:
            if server.listens():
                return
            raise StartError(
                f"port {server.endpoint.port} is in use by another server", code="port_in_use"
            )
        time.sleep(POLL_S)
    raise StartError(
        f"the engine was not ready within {patience_s:g} s",
        hint=f"give it more time with --patience, or read its log: {server.log_path}",
        code="engine_not_ready",
        log_tail=server.log_tail(),
    )


def _start_failure(server: Server) -> StartError:
    log = server.log().lower()
    in_use = "address already in use" in log or "couldn't bind" in log
    how = guard.describe_exit(server.process.returncode)
    return StartError(
        f"the engine did not start ({how})" + server.because(),
        hint=f"its log: {server.log_path}",
        code="port_in_use" if in_use else "",
        log_tail=server.log_tail(),
    )
