"""A manifest beside each model that tokrig put on its shelf: what it is, whose it is, who uses it.

``NAME.tokrig.json`` lies beside the file or folder ``NAME``. It is written before the model's
first byte and removed after its last, so that whatever tokrig put there can be found again, even
after it was killed. A manifest's time stamp is when its model was last used; a lock on it, which
the kernel drops when a process ends, however it ends, says that the model is in use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from tokrig.errors import StoreError
from tokrig.models._reader import shown
from tokrig.models._sha256 import cache_folder
from tokrig.record.model import QuantizedFrom

SUFFIX = ".tokrig.json"
PART = ".part"
"""Ends the name of a file that is not whole yet."""


class Stored(BaseModel):
    """Base of what is kept as JSON on the shelf."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Stored):
    """One file of a model. ``git`` is the SHA-1 that git knows a small file by."""

    name: str
    bytes: NonNegativeInt
    sha256: str | None = None
    git: str | None = None


class Manifest(Stored):
    """What a model on the shelf is made of and where it comes from.

    ``files`` lie in the model's folder, or beside each other where it is a (split) file.
    ``revision`` is the one that was asked for, ``commit`` the one that it was.
    """

    kind: Literal["fetched", "made"]
    files: tuple[File, ...]
    folder: bool = False
    repo: str | None = None
    revision: str | None = None
    commit: str | None = None
    quantized_from: QuantizedFrom | None = None

    def paths(self, model: Path) -> list[Path]:
        """Where the files of ``model`` belong. Never outside its folder."""
        folder = model if self.folder else model.parent
        return [folder / Path(file.name).name for file in self.files]

    def is_whole(self, model: Path) -> bool:
        """Whether all files are there under their final names, which they get when checked."""
        return all(
            size_of(path) == file.bytes
            for path, file in zip(self.paths(model), self.files, strict=True)
        )

    def bytes_here(self, model: Path) -> int:
        """Bytes that the model takes on the disk, unfinished files included."""
        return sum((size_of(p) or 0) + (size_of(part_of(p)) or 0) for p in self.paths(model))


def part_of(path: Path) -> Path:
    """Where the file grows before it gets its name."""
    return path.with_name(path.name + PART)


def size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def shelf_folder() -> Path:
    """The shelf. Raises StoreError for a user without a home."""
    cache = cache_folder()
    if cache is None:
        raise StoreError(
            "there is no folder for models: this user has no home",
            hint="set XDG_CACHE_HOME to a folder that can be written",
        )
    return cache / "models"


def manifest_of(model: Path) -> Path:
    """Where the manifest of a model lies."""
    return model.with_name(model.name + SUFFIX)


def read(model: Path) -> Manifest | None:
    """The manifest of a model; None for whatever tokrig did not put there."""
    try:
        return Manifest.model_validate_json(manifest_of(model).read_bytes())
    except (OSError, ValueError):
        return None


def models_in(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    """All models in ``folder`` that have a manifest."""
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        model = path.with_name(path.name.removesuffix(SUFFIX))
        if manifest := read(model):
            yield model, manifest


def last_used(model: Path) -> float:
    """When a model was last used, in seconds since the epoch; 0 for one that is gone."""
    try:
        return manifest_of(model).stat().st_mtime
    except OSError:
        return 0.0


def touch(model: Path) -> None:
    """The model is used now."""
    with contextlib.suppress(OSError):
        os.utime(manifest_of(model))


@contextlib.contextmanager
def owning(
    model: Path, manifest: Manifest, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Nobody else puts this model there, takes it away or uses it meanwhile. Its manifest is
    written unless it has one; ``waiting`` is called once if another process has to be waited for.
    """
    while True:
        _create(manifest_of(model), manifest)
        with _locked(model, fcntl.LOCK_EX, waiting) as mine:
            if mine:
                yield
                return


@contextlib.contextmanager
def sharing(model: Path) -> Iterator[bool]:
    """The model stays where it is meanwhile; False for one that is gone or never had a manifest."""
    with _locked(model, fcntl.LOCK_SH) as mine:
        yield mine


def is_free(model: Path) -> bool:
    """Whether no process uses the model or puts it there."""
    with _locked(model, fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
        return mine


def discard(model: Path, manifest: Manifest) -> bool:
    """Remove a model from the disk; False, with nothing changed, while it is in use."""
    with _locked(model, fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
        if mine:
            for path in manifest.paths(model):
                path.unlink(missing_ok=True)
                part_of(path).unlink(missing_ok=True)
            manifest_of(model).unlink()
            _prune(model if manifest.folder else model.parent)
        return mine


def _prune(folder: Path) -> None:
    """Remove folders that have become empty, up to the shelf."""
    shelf = shelf_folder()
    with contextlib.suppress(OSError):
        while folder != shelf and shelf in folder.parents:
            folder.rmdir()
            folder = folder.parent


@contextlib.contextmanager
def _locked(model: Path, how: int, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Whether the manifest of ``model`` is there and could be locked as asked."""
    try:
        file = open(manifest_of(model), "r+b")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if how & fcntl.LOCK_NB:
                yield False
                return
            waiting()
            fcntl.flock(file, how)
        yield _still_there(file, manifest_of(model))


def _still_there(file: BinaryIO, path: Path) -> bool:
    """Whether the locked file still has that name: it may have been removed while we waited."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _create(path: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all; one that is there already stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(exclude_none=True, indent=1))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def refused(what: Path, error: OSError) -> StoreError:
    """The system's refusal to write ``what`` to the shelf, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"{shown(what)}: no space left on the disk of the models",
            hint="free some, or set XDG_CACHE_HOME to a folder on a larger disk; "
            "what is there already is kept",
            code="disk_full",
        )
    return StoreError(
        f"{shown(what)}: cannot be put among tokrig's models: {error.strerror or error}",
        hint="make ~/.cache writable, or set XDG_CACHE_HOME to a folder that is",
    )
