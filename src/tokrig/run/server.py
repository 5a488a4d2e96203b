"""The life of a managed engine: start, readiness with patience, log, stop. Always stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tokrig.backends import Backend, Command
from tokrig.errors import EngineDied, StartError, StoreError
from tokrig.run import guard
from tokrig.run.http import Endpoint, get_status

POLL_S = 0.05
STOP_S = guard.GRACE_S + 3 * guard.LEFT_S + 5
LOG_TAIL_LINES = 20


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
        return "\n".join(self.log().splitlines()[-LOG_TAIL_LINES:])

    def require_alive(self) -> None:
        """Raises EngineDied with the log's own reason when the engine has ended."""
        code = self.process.poll()
        if code is not None:
            raise EngineDied(
                f"the engine ended while it was in use ({describe_exit(code)})"
                + _because(self.backend, self.log()),
                hint=f"its log: {self.log_path}",
                log_tail=self.log_tail(),
            )

    def processes(self) -> list[psutil.Process]:
        """The engine's own processes, the guard left out."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
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
    for attempt in (1, 2, 3):
        server = _start(backend, command_for, port(), log_path)
        try:
            started = time.monotonic()
            try:
                _await_ready(server, ready_path or backend.ready_path, patience_s)
            except StartError as error:
                if error.code == "port_in_use" and attempt < 3:
                    continue
                raise
            server.load_s = time.monotonic() - started
            yield server
            return
        finally:
            stop(server)


def _start(
    backend: Backend, command_for: Callable[[int], Command], port: int, log_path: Path
) -> Server:
    command = command_for(port)
    argv = [sys.executable, "-I", guard.__file__, "--", *command.argv]
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.env},
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(
            f"cannot start the engine or write its log {log_path}: {error.strerror}",
            hint="is there room on the disk? TOKRIG_STATE chooses another folder",
        ) from None
    return Server(process, Endpoint("127.0.0.1", port), log_path, backend)


def _await_ready(server: Server, path: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise _start_failure(server, describe_exit(server.process.returncode))
        answer = get_status(server.endpoint, path, timeout_s=2)
        if answer is not None and answer[0] == 200:
            if _listens(server):
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


def _listens(server: Server) -> bool:
    """Whether it is our engine that answered at the port, not a stranger."""
    if not sys.platform.startswith("linux"):
        return server.process.poll() is None
    for process in server.processes():
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if (
                    connection.status == psutil.CONN_LISTEN
                    and connection.laddr.port == server.endpoint.port
                ):
                    return True
    return False


def _start_failure(server: Server, how: str) -> StartError:
    log = server.log()
    in_use = "address already in use" in log.lower() or "couldn't bind" in log.lower()
    return StartError(
        f"the engine did not start ({how})" + _because(server.backend, log),
        hint=f"its log: {server.log_path}",
        code="port_in_use" if in_use else "",
        log_tail=server.log_tail(),
    )


def _because(backend: Backend, log: str) -> str:
    reason = backend.failure(log)
    return f": {reason}" if reason else ""


def describe_exit(code: int) -> str:
    """``exit 1`` or ``killed by SIGKILL``; the guard reports signals as 128 + n."""
    number = code - 128 if code > 128 else -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit {code}"
    if number == signal.SIGILL:
        return f"killed by {name}: built for another processor than this one"
    return f"killed by {name}"


def stop(server: Server) -> None:
    """Close the guard's pipe, which ends the engine; kill the whole group if that fails."""
    if server.process.stdin is not None:
        with contextlib.suppress(OSError):
            server.process.stdin.close()
    try:
        server.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
