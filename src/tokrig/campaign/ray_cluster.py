"""Joining a Ray cluster, or saying in one sentence why that cannot be."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

from tokrig.errors import InputError

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


def library() -> ModuleType:
    """Ray. Raises InputError when it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError(
            "several rigs need Ray, which is not installed", hint="pip install 'tokrig[ray]'"
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
