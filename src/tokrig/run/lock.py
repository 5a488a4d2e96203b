"""One rig measures one run at a time: two at once would measure each other.

The lock is the kernel's, on a file in the state folder: it is gone when its process ends, however
that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from tokrig.errors import InputError, StoreError
from tokrig.run.journal import state_folder

_held = 0


@contextlib.contextmanager
def this_rig(doing: str) -> Iterator[None]:
    """Hold this machine for ``doing``, a few words that a second process shows its user. A process
    that holds it already may take it again.

    Raises InputError (``rig_in_use``) when another process measures, StoreError when the state
    folder cannot be written.
    """
    global _held  # noqa: PLW0603 (a lock belongs to the process)
    if _held:
        _held += 1
        try:
            yield
        finally:
            _held -= 1
        return
    path = state_folder() / "rig.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held as long as the lock)
    except OSError as problem:
        raise StoreError(
            f"cannot write {path}: {problem.strerror or problem}",
            hint="choose another folder with TOKRIG_STATE",
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            other = file.read(200).strip() or "another process"
            raise InputError(
                f"this machine is measuring already: {other}",
                hint="two runs at once would measure each other: wait for it, or stop it",
                code="rig_in_use",
            ) from None
        file.truncate(0)
        file.write(f"{doing} (process {os.getpid()})")
        file.flush()
        _held = 1
        try:
            yield
        finally:
            _held = 0
