"""Stands between tokrig and an engine so that no engine outlives the run.

Run as a script by ``server``: ``python -I guard.py -- ENGINE ARGS…`` with a pipe as its standard
input. The pipe closes when the parent ends, however it ends, kill -9 included; the engine and
everything it started is then stopped, and the temporary folder it was given is removed. Standard
library only: it must start at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Engines with workers of their own take some seconds to end in order.
GRACE_S = 10.0
LEFT_S = 3.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the pipe alone has to do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_guard() -> None:
    """In the engine, before exec: should even the guard be killed, the kernel ends the engine."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants() -> list[int]:
    """Everything below this process, engines' workers that were orphaned included (Linux)."""
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
        return (
            b"multiprocessing.resource_tracker" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    return False


def wait_for_none(seconds: float) -> None:
    """Until nothing is left below this process, at most so long."""
    deadline = time.monotonic() + seconds
    while descendants() and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)


def reap() -> None:
    """Take note of adopted children that have ended; until then they count as alive."""
    for pid in descendants():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def sweep() -> None:
    """End what an engine that has ended left behind: workers may end in order, the trackers of
    their resources come last."""
    wait_for_none(LEFT_S)
    for last in (False, True):
        for pid in descendants():
            if last or not tracks_resources(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        wait_for_none(LEFT_S)


def stop(engine: subprocess.Popen[bytes]) -> None:
    """Ask politely, wait, then end it. What it leaves behind is swept up when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        engine.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(GRACE_S)
        return
    engine.kill()


def main(argv: list[str]) -> int:
    """Run ``argv`` until it ends or the parent does; the engine's exit code."""
    with tempfile.TemporaryDirectory(prefix="tokrig-", ignore_cleanup_errors=True) as folder:
        return watch(argv, {**os.environ, "TMPDIR": folder})


def watch(argv: list[str], env: dict[str, str]) -> int:
    """The same, with ``env``."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # No thread runs yet in this small process, so running code before exec is safe.
    engine = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        env=env,
        preexec_fn=die_with_guard,  # noqa: PLW1509
    )

    def watch_parent() -> None:
        while os.read(0, 1):
            pass
        stop(engine)

    def on_signal(*_: object) -> None:
        threading.Thread(target=stop, args=(engine,), daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch_parent, daemon=True).start()
    code = engine.wait()
    sweep()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
