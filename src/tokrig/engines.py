"""The engine that ``tokrig engine add`` took: its programs are found before those on the PATH."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from tokrig.errors import StoreError
from tokrig.files import atomic_write, cache_dir


@dataclass(frozen=True)
class Added:
    """An engine's program and what it computes with: ``device`` as its own list has it, None where
    that is the processor."""

    backend: str
    program: str
    api: str
    build: str | None = None
    device: str | None = None


def folder() -> Path:
    """Where added engines are noted and built ones lie."""
    return cache_dir() / "engines"


def added() -> Added | None:
    """The engine that runs take where none is named; None where none was added, or its program is
    gone."""
    try:
        found = Added(**json.loads(_note().read_text("utf-8")))
    except (OSError, ValueError, TypeError, StoreError):
        return None
    return found if shutil.which(found.program) else None


def note(one: Added) -> None:
    """Take an engine from now on. Raises StoreError."""
    try:
        atomic_write(_note(), json.dumps(asdict(one), indent=1) + "\n")
    except OSError as problem:
        raise StoreError(
            f"cannot write {_note()}: {problem.strerror or problem}",
            hint="check free space and permissions",
        ) from None


def forget() -> Added | None:
    """Take it no longer; the one that it was. A build stays."""
    was = added()
    _note().unlink(missing_ok=True)
    return was


def program(name: str) -> str | None:
    """The path of an engine's program: of the added engine or beside it, else on the PATH."""
    if os.sep not in name and (one := added()):
        beside = shutil.which(str(Path(one.program).with_name(name)))
        if beside is not None:
            return beside
    return shutil.which(name)


def _note() -> Path:
    return folder() / "added.json"
