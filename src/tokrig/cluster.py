"""Joining a Ray cluster, and whether another of its machines has what this one has."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

from tokrig.errors import InputError
from tokrig.registry import get_extra

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


def joined(address: str, what: str) -> ModuleType:
    """Ray, once this process is part of the cluster at ``address`` (``host:port``, or ``auto`` for
    the one this machine belongs to); ``what`` needs it.

    Raises InputError when Ray is not installed, when no cluster answers at the address, or when
    its versions of Ray and Python are not those here.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError(
            f"{what} need Ray, which is not installed", hint=get_extra("ray")
        ) from None
    _require_answer(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, namespace="tokrig", log_to_driver=False, configure_logging=False)
    finally:
        # Ray takes SIGTERM for itself; it is tokrig's, to stop in order.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return ray


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Ray prints what it has to say of lost machines to stdout, among results; what matters of it
    is said in tokrig's own lines."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


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


def versions() -> Callable[[], dict[str, str]]:
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


def require_same(machine: str, there: dict[str, str]) -> None:
    """Raises InputError when a machine would not measure as this one records."""
    here = versions()()
    names = ("tokrig", "methodology", "schema")
    other = [name for name in names if there.get(name) != here[name]]
    if there["python"].split(".")[:2] != here["python"].split(".")[:2]:
        other.append("python")
    if other:
        has = ", ".join(f"{name} {there.get(name, 'unknown')}" for name in other)
        wants = ", ".join(f"{name} {here[name]}" for name in other)
        raise InputError(
            f"{machine} has {has}; this machine has {wants}",
            hint="install the same version on both, then start Ray there again",
            code="version_mismatch",
        )
    if int(there["niceness"]) > 0:
        raise InputError(
            f"{machine} would measure at niceness {there['niceness']}: all else goes before it",
            hint="start Ray there with RAY_worker_niceness=0 (docs/rigs.md)",
            code="rig_is_nice",
        )
