"""Files and folders of tokrig's own: written whole or not at all, locked, and where they lie.

What a killed process leaves behind is a file named ``.NAME.PID.N.tmp``, which the next write to
that folder removes. Locks are the kernel's: they are gone when their process ends, however.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tokrig.errors import StoreError

_STRAY = re.compile(r"\..+\.(\d+)\.\d+\.tmp")
_COUNTER = itertools.count()
_POLL_S = 0.05


class Locked(Exception):
    """Another process, or another part of this one, holds the lock."""


def cache_dir() -> Path:
    """Where models and indexes are kept: ``$XDG_CACHE_HOME/tokrig``, or the system's own place.

    Raises StoreError for a user without a home.
    """
    import platformdirs

    return _own(platformdirs.user_cache_path, ".cache", "XDG_CACHE_HOME")


def state_dir() -> Path:
    """Where unfinished runs are kept: ``$TOKRIG_STATE``, ``$XDG_STATE_HOME/tokrig``, or the
    system's own place. Raises StoreError for a user without a home."""
    if chosen := os.environ.get("TOKRIG_STATE"):
        return Path(chosen)
    import platformdirs

    return _own(platformdirs.user_state_path, ".local/state", "TOKRIG_STATE")


def _own(system: Callable[..., Path], earlier: str, variable: str) -> Path:
    # Until platformdirs named these folders, they lay in Linux's places on every system.
    old = Path(os.path.expanduser("~"), earlier, "tokrig")
    chosen = os.environ.get(variable.replace("TOKRIG_STATE", "XDG_STATE_HOME"))
    try:
        folder = old if not chosen and old.is_dir() else system("tokrig", appauthor=False)
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():
        raise StoreError(
            "tokrig has no place for its own files: this user has no home folder",
            hint=f"set {variable} to a writable folder",
        )
    return folder


def atomic_write(path: Path, data: bytes | str, *, sync: bool = True) -> None:
    """Write a file whole or not at all; a reader sees the old one or the new one.

    ``sync`` waits until it is on the disk; what can be made again does without. Raises OSError.
    """
    write_together({path: data.encode() if isinstance(data, str) else data}, sync=sync)


def write_together(files: dict[Path, bytes], *, sync: bool = True) -> None:
    """Write all files, then rename them in their order: a full disk shows while nothing is in
    place yet. Raises OSError."""
    with contextlib.ExitStack() as stack:
        for path, data in reversed(files.items()):
            temporary = stack.enter_context(replacing(path, sync=sync))
            with open(temporary, "xb") as file:
                file.write(data)
            if sync:
                _flush(temporary)


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A name beside ``path`` for a file that takes its place when the block ends well, and is
    gone when it does not. Folders are made. Raises OSError."""
    _make_folder(path.parent)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_COUNTER)}.tmp")
    try:
        yield temporary
        if sync:
            _flush(temporary)
        os.replace(temporary, path)
        if sync:
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def locked(
    path: Path, *, timeout_s: float | None = 0.0, shared: bool = False, create: bool = True
) -> Iterator[BinaryIO]:
    """Hold the lock on the file at ``path``, and that file open; ``timeout_s`` None waits.

    A process that inherits the open file holds the lock, too. With ``create`` the file is made
    where there is none, otherwise FileNotFoundError. Raises Locked, and OSError where the file
    cannot be opened.
    """
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a+b" if create else "r+b") as file:
            while not _take(file.fileno(), shared):
                if give_up is not None and time.monotonic() >= give_up:
                    raise Locked(str(path))
                time.sleep(_POLL_S)
            if _is_still_at(file, path):
                yield file
                return


def _take(descriptor: int, shared: bool) -> bool:
    if not shared:
        from filelock import lock_descriptor

        return lock_descriptor(descriptor, blocking=False)
    import fcntl  # filelock has no shared locks on open files

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(file: BinaryIO, path: Path) -> bool:
    """Whether the locked file still has that name: it may have been removed while we waited."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _make_folder(folder: Path) -> None:
    """Make a folder that survives a power cut: each new name is flushed in its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    """Bring a file's bytes, or a folder's names where the system can, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*.tmp"):
        match = _STRAY.fullmatch(path.name)
        if match and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 would end the process instead of asking for it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
