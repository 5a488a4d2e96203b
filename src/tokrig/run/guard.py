"""Stands between tokrig and every program that it starts: none outlives the run.

The first half starts a program behind a guard; the second half is the guard, this file run as a
script: ``python -I guard.py -- PROGRAM ARGS…`` with a pipe as its standard input. The pipe closes
when tokrig ends, however it ends, kill -9 included; the program and everything it started is then
stopped, and the temporary folder it was given is removed. Standard library only: it must start at
once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

# Engines with workers of their own take some seconds to end in order.
GRACE_S = 10.0
LEFT_S = 3.0
STOP_S = GRACE_S + 3 * LEFT_S + 5
# The guard's exit code where the program could not be started; its output then says why.
NOT_STARTED = 126
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@contextlib.contextmanager
def guarded(
    argv: Sequence[str],
    *,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The guard of a program, which is stopped on every way out with all that it started. ``env``
    comes on top of this process's own."""
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, "--", *argv],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            end_group(process)
        if process.stdout is not None:
            process.stdout.close()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a guard and its program, which are in one group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def said(
    argv: Sequence[str], limit_s: float, *, max_bytes: int = 1 << 20, errors: bool = True
) -> tuple[str, int | None]:
    """What a program prints, ``errors`` included or not, and its exit code, a signal as
    128 + n. None for one that did not end in time or talks on, which is killed.

    Raises OSError where it cannot be started.
    """
    until = time.monotonic() + limit_s
    text, ended = b"", False
    with guarded(argv, stderr=subprocess.STDOUT if errors else subprocess.DEVNULL) as process:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        while len(text) < max_bytes and not ended:
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                break
            part = os.read(pipe, 1 << 16)
            text, ended = text + part, not part
        try:
            process.wait(max(0.0, until - time.monotonic()) if ended else 0)
        except subprocess.TimeoutExpired:
            end_group(process)
            return text.decode("utf-8", "replace"), None
    found = text.decode("utf-8", "replace")
    why = re.match(r"\[Errno (\d+)\] ([^:\n]+)", found)
    if process.returncode == NOT_STARTED and why:
        raise OSError(int(why[1]), why[2])
    return found, process.returncode


def describe_exit(code: int) -> str:
    """``exit 1`` or ``killed by SIGKILL``; the guard tells signals as 128 + n."""
    name = signal_of(code)
    if name is None:
        return f"exit {code}"
    other = ": built for another processor than this one" if name == "SIGILL" else ""
    return f"killed by {name}{other}"


def signal_of(code: int) -> str | None:
    """The signal that ended a program, by its exit code."""
    try:
        return signal.Signals(code - 128 if code > 128 else -code).name
    except ValueError:
        return None


# The guard.


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the pipe alone has to do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_guard() -> None:
    """In the program, before exec: should even the guard be killed, the kernel ends it."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants() -> list[int]:
    """Everything below this process, orphaned workers included (Linux)."""
    parents: dict[int, int] = {}
    for entry in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = pathlib.Path(f"/proc/{entry}/stat").read_text("utf-8", "replace")
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found, frontier = [], {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += sorted(frontier)
    return found


def tracks_resources(pid: int) -> bool:
    """Whether this is Python's own process that removes shared memory and semaphores which the
    processes of an engine leave behind. It ends by itself when they have ended."""
    with contextlib.suppress(OSError):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"multiprocessing.resource_tracker" in words
    return False


def wait_for_none(seconds: float) -> None:
    """Until nothing is left below this process, at most so long."""
    deadline = time.monotonic() + seconds
    while (left := descendants()) and time.monotonic() < deadline:
        for pid in left:
            # Adopted children that have ended count as alive until somebody takes note of it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def sweep() -> None:
    """End what a program that has ended left behind: workers may end in order, the trackers of
    their resources come last."""
    wait_for_none(LEFT_S)
    for last in (False, True):
        for pid in descendants():
            if last or not tracks_resources(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        wait_for_none(LEFT_S)


def stop(program: subprocess.Popen[bytes]) -> None:
    """Ask politely, wait, then end it. What it leaves behind is swept up when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        program.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE_S)
        return
    program.kill()


def main(argv: list[str]) -> int:
    """Run ``argv`` until it ends or the parent does; its exit code."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="tokrig-", ignore_cleanup_errors=True) as folder:
        try:
            # No thread runs yet in this small process, so running code before exec is safe.
            program = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": folder},
                preexec_fn=die_with_guard,  # noqa: PLW1509
            )
        except OSError as problem:
            sys.stderr.write(f"{problem}\n")
            return NOT_STARTED

        def watch_parent() -> None:
            while os.read(0, 1):
                pass
            stop(program)

        def on_signal(*_: object) -> None:
            threading.Thread(target=stop, args=(program,), daemon=True).start()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=watch_parent, daemon=True).start()
        code = program.wait()
        sweep()
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
