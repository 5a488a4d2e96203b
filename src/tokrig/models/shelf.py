"""The shelf: tokrig's own folder of models, fetched from a hub or made here.

``models`` in the cache folder, with what was fetched under ``hub`` and what was made under
``made``. Room is made by removing what was used least recently, of the models that tokrig put
there and that nobody uses: never a file of the user's, never one elsewhere.

``NAME.tokrig.json``, a manifest, lies beside the file or folder ``NAME``. It is written before
the model's first byte and removed after its last, so that whatever tokrig put there can be found
again, even after it was killed. A manifest's time stamp is when its model was last used; a lock on
it, which the kernel drops when a process ends, however it ends, says that the model is in use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokrig.errors import InputError, ModelError, StoreError, TokrigError, did_you_mean
from tokrig.files import Locked, locked
from tokrig.models import catalog, hub
from tokrig.models.architecture import kv_bytes_per_token
from tokrig.models.files import files_of, read_sha256, refused, remember, sha256_of
from tokrig.models.gguf import shown
from tokrig.models.hub import File, Listing, Stored, shelf_folder
from tokrig.models.safetensors import weight_files
from tokrig.naming import Reference, of_hub
from tokrig.quants import Size
from tokrig.record.model import QuantizedFrom
from tokrig.units import MIB, human_bytes

RESERVE_BYTES = 64 * MIB
"""Left free on the disk, for records and journals."""

SUFFIX = ".tokrig.json"
PART = ".part"
"""Ends the name of a file that is not whole yet."""

Tell = Callable[[str, float | None], None]
"""Takes what is being done, in words, and how much of it is done (0 to 1, None where unknown)."""


def quiet(text: str, share: float | None) -> None:
    """Tells nobody."""


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

    def bytes_here(self, model: Path) -> int:
        """Bytes that the model takes on the disk, unfinished files included."""
        return sum((_size(p) or 0) + (_size(part_of(p)) or 0) for p in self.paths(model))


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that tokrig put on the shelf.

    ``name`` is what ``remove`` takes. ``bytes`` are those on the disk, all of them when ``whole``.
    ``last_used`` is seconds since the epoch. What is not ``in_use`` may be evicted.
    """

    name: str
    path: Path
    bytes: int
    whole: bool
    last_used: float
    in_use: bool
    manifest: Manifest

    @property
    def quant(self) -> str | None:
        """That of a file made here."""
        made = self.manifest.kind == "made"
        return self.path.parent.name.partition("-")[2] if made else None


# --- manifests and locks ------------------------------------------------------------------------


def part_of(path: Path) -> Path:
    """Where the file grows before it gets its name."""
    return path.with_name(path.name + PART)


def manifest_of(model: Path) -> Path:
    """Where the manifest of a model lies."""
    return model.with_name(model.name + SUFFIX)


def read_manifest(model: Path) -> Manifest | None:
    """The manifest of a model; None for whatever tokrig did not put there."""
    try:
        return Manifest.model_validate_json(manifest_of(model).read_bytes())
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None


def _touch(model: Path) -> None:
    """The model is used now."""
    with suppress(OSError):
        os.utime(manifest_of(model))


@contextmanager
def owning(
    model: Path, manifest: Manifest, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Nobody else puts this model there, takes it away or uses it meanwhile. Its manifest is
    written unless it has one; ``waiting`` is called once if another process has to be waited for.
    """
    path = manifest_of(model)
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(locked(path))
        except Locked:
            waiting()
            file = held.enter_context(locked(path, timeout_s=None))
        if read_manifest(model) is None:
            file.truncate(0)
            file.write(manifest.model_dump_json(exclude_none=True, indent=1).encode())
            file.flush()
        yield


@contextmanager
def _holding(model: Path, *, shared: bool) -> Iterator[bool]:
    """Whether the model is tokrig's and could be locked: while it is shared it stays where it
    is, and nobody uses one that is not."""
    wait_s = None if shared else 0.0
    with contextlib.ExitStack() as held:
        mine = False
        with suppress(Locked, FileNotFoundError):
            lock = locked(manifest_of(model), timeout_s=wait_s, shared=shared, create=False)
            held.enter_context(lock)
            mine = True
        yield mine


def _discard(model: Path, manifest: Manifest) -> bool:
    """Remove a model from the disk; False, with nothing changed, while it is in use."""
    with _holding(model, shared=False) as free:
        if free:
            for path in manifest.paths(model):
                path.unlink(missing_ok=True)
                part_of(path).unlink(missing_ok=True)
            manifest_of(model).unlink()
            folder, shelf = model if manifest.folder else model.parent, shelf_folder()
            with suppress(OSError):  # folders that have become empty, up to the shelf
                while folder != shelf and shelf in folder.parents:
                    folder.rmdir()
                    folder = folder.parent
        return free


@contextmanager
def using(path: Path) -> Iterator[None]:
    """While ``path`` is used it is not removed, and afterwards it was used last.

    Any path may be given; those that tokrig did not put on its shelf are left alone.
    Raises StoreError for one that has been removed from the shelf meanwhile.
    """
    with _holding(path, shared=True) as mine:
        if not mine and not path.exists() and shelf_folder() in path.parents:
            raise StoreError(
                f"{shown(path)}: was removed to make room for another model",
                hint="run it again, or raise the disk budget",
            )
        _touch(path)
        yield
        _touch(path)


# --- getting a model ----------------------------------------------------------------------------


def resolve(reference: str, tell: Tell = quiet, *, budget_bytes: int | None = None) -> Path:
    """The file or folder of a catalog name, a path, or ``hf:owner/name[@revision][/file.gguf]``.

    A model of a hub is fetched unless it is here: on the shelf, or in the user's own cache of the
    hub, where it is checked and stays. ``budget_bytes`` bounds what tokrig keeps on the shelf.
    What is here is used even when the hub cannot be asked or has it no more.

    Raises ModelError for a model that there is not or that differs from its checksum, PutOff
    where the hub cannot be reached, StoreError where there is no room.
    """
    if not of_hub(reference):
        return catalog.resolve(reference)
    asked = Reference.parse(reference)
    try:
        listing = hub.listing_of(asked)
    except TokrigError as problem:
        known, path = _here(asked)
        if known is None or path is None or not _is_sound(known, path):
            raise
        tell(f"{problem.message}; using what is here", None)
    else:
        path = _lying(listing)
        if path is None or not _is_sound(listing, path):
            path = _fetched(listing, tell, budget_bytes)
    _touch(path)
    return path


def _here(asked: Reference) -> tuple[Listing | None, Path | None]:
    """What is known of a model of a hub without asking it: its files, and where they lie."""
    known = None
    for listing in filter(None, (hub.kept(asked), hub.in_cache(asked))):
        with suppress(ModelError):
            known = hub.wanted(asked, listing)
            if path := _lying(known):
                return known, path
    return known, None


def _lying(listing: Listing) -> Path | None:
    """Where the model's files lie, all of them and of the right sizes: on the shelf, or in the
    user's own cache of the hub. None where something is missing."""
    for find in (hub.repository_folder, hub.cached_folder):
        if repository := find(listing.repo):
            folder = listing.inside(repository)
            if all(_size(folder / file.name) == file.bytes for file in listing.files):
                return listing.model(repository)
    return None


def _is_sound(listing: Listing, model: Path) -> bool:
    """Whether the files are those of the listing. What tokrig fetched was checked then."""
    if read_manifest(model):
        return True
    folder = next(f for f in (model, *model.parents) if f.name == listing.commit)
    return all(_matches(file, folder / file.name, sha256_of) for file in listing.files)


def _matches(file: File, path: Path, sha256: Callable[[Sequence[Path]], str]) -> bool:
    """Whether ``path`` holds what the hub announced: by SHA-256 for a large file, by the SHA-1
    over ``blob SIZE NUL content`` that git names a small one by."""
    if file.sha256:
        return sha256([path]) == file.sha256
    if file.git:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == file.git
    return _size(path) == file.bytes


def _fetched(listing: Listing, tell: Tell, budget_bytes: int | None) -> Path:
    """The model on the shelf, fetched and checked; what is there of it is not fetched again.

    Raises as ``resolve`` does; what has come stays for the next time, except of a file that is
    not what it should be.
    """
    model = listing.model(hub.repository_folder(listing.repo))
    manifest = Manifest(
        kind="fetched",
        files=tuple(f.model_copy(update={"name": Path(f.name).name}) for f in listing.files),
        folder=listing.file is None,
        repo=listing.repo,
        revision=listing.revision,
        commit=listing.commit,
    )
    for path in manifest.paths(model):
        if path.exists() and read_manifest(model) is None:
            raise _in_the_way(path)
    waiting = "waiting for another process that downloads it"
    try:
        with owning(model, manifest, lambda: tell(waiting, None)):
            _bring(listing, tell, budget_bytes)
    except OSError as error:
        raise refused(model, error) from error
    finally:
        if not manifest.bytes_here(model):
            _discard(model, manifest)
    return model


def _bring(listing: Listing, tell: Tell, budget_bytes: int | None) -> None:
    """Fetch the files that are not there, one after the other; each gets its name if it is what
    the hub announced."""
    folder = listing.inside(hub.repository_folder(listing.repo))
    missing = [file for file in listing.files if _size(folder / file.name) != file.bytes]
    total = sum(file.bytes for file in missing)
    begun = sum(_size(part_of(folder / file.name)) or 0 for file in missing)
    make_room(max(total - begun, 0), budget_bytes)
    before, doing = 0, f"downloading {human_bytes(total)} of {listing}"
    for file in missing:
        path = folder / file.name
        part = part_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)

        def heard(count: int, before: int = before) -> None:
            tell(doing, (before + count) / total)

        hub.download(listing, file, part, heard)
        tell(f"checking {path.name}", None)
        if not _matches(file, part, read_sha256):
            part.unlink()
            raise ModelError(
                f"{listing}: the checksum of {shown(path)} differs from the one the hub states",
                hint="the file was removed; download it again. If it differs again, a proxy in "
                "between changes files",
                code="checksum_differs",
            )
        part.replace(path)
        if file.sha256:
            remember(path, file.sha256)
        before += file.bytes


def _in_the_way(path: Path) -> StoreError:
    """A file on the shelf that tokrig did not put there, and will not write over."""
    return StoreError(
        f"{shown(path)}: a file that is not tokrig's lies where tokrig keeps this model",
        hint="it is left alone: move it elsewhere",
    )


def _in_use(path: Path) -> StoreError:
    return StoreError(
        f"{shown(path)}: is in use", hint="wait for the run or the download that uses it"
    )


# --- what is known of models --------------------------------------------------------------------


def known_size(reference: str) -> Size:
    """What is known of a model without any network; an empty Size for one that is unknown."""
    with suppress(TokrigError):
        path, listing = None, None
        if of_hub(reference):
            listing, path = _here(Reference.parse(reference))
        else:
            path = catalog.resolve(reference)
        if path is not None:
            files = weight_files(path) if path.is_dir() else files_of(path)
            size = sum(file.stat().st_size for file in files)
            return Size(size, kv_bytes_per_token(path), here=True, source="file")
        if listing is not None:
            return Size(listing.bytes, source="repository")
    return Size()


def entries() -> list[Entry]:
    """All models that tokrig put on the shelf, the least recently used first."""
    shelf = shelf_folder()
    found = []
    for path in shelf.rglob(f"*{SUFFIX}"):
        model = path.with_name(path.name.removesuffix(SUFFIX))
        if manifest := read_manifest(model):
            found.append(_entry(model, manifest, shelf))
    return sorted(found, key=lambda entry: (entry.last_used, entry.name))


def _entry(path: Path, manifest: Manifest, shelf: Path) -> Entry:
    name = path.relative_to(shelf).as_posix()
    if manifest.repo and manifest.commit:
        snapshot = hub.repository_folder(manifest.repo) / "snapshots" / manifest.commit
        file = None if manifest.folder else path.relative_to(snapshot).as_posix()
        name = str(Reference(manifest.repo, manifest.revision or "main", file))
    last_used = 0.0
    with suppress(OSError):
        last_used = manifest_of(path).stat().st_mtime
    with _holding(path, shared=False) as free:
        return Entry(
            name=name,
            path=path,
            bytes=manifest.bytes_here(path),
            # Files get their final names when they are checked.
            whole=[_size(p) for p in manifest.paths(path)] == [f.bytes for f in manifest.files],
            last_used=last_used,
            in_use=not free,
            manifest=manifest,
        )


# --- keeping and removing -----------------------------------------------------------------------


def place_made(source_sha256: str, quant: str, name: str) -> Path:
    """The final path of the file ``name`` with ``quant``, made of a source of that SHA-256."""
    folder = f"{source_sha256[:16]}-{Path(quant).name}"
    return shelf_folder() / "made" / folder / Path(name).name


def keep_made(temporary: Path, final: Path, quantized_from: QuantizedFrom) -> None:
    """Put a finished file on the shelf: flushed to the disk, hashed, described, then renamed.

    An earlier one of that name is replaced. Raises StoreError where that is in use or is not
    tokrig's, or where the disk refuses.
    """
    before = read_manifest(final)
    if before is None and final.exists():
        raise _in_the_way(final)
    if before is not None and not _discard(final, before):
        raise _in_use(final)
    try:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        digest = read_sha256([temporary])
        made = File(name=final.name, bytes=temporary.stat().st_size, sha256=digest)
        manifest = Manifest(kind="made", files=(made,), quantized_from=quantized_from)
        with owning(final, manifest):
            temporary.replace(final)
    except OSError as error:
        raise refused(final, error) from error
    remember(final, digest)


def make_room(bytes_needed: int, budget_bytes: int | None) -> None:
    """Remove models that were used least recently until ``bytes_needed`` more fit on the disk
    and, with all that tokrig keeps on the shelf, into the budget.

    Nothing is removed when that would not be enough: StoreError (``disk_full``) tells what would.
    """
    shelf = shelf_folder()
    try:
        shelf.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(shelf, error) from error
    held = entries()
    free = shutil.disk_usage(shelf).free - RESERVE_BYTES
    short, budget = bytes_needed - free, ""
    if budget_bytes is not None:
        short = max(short, bytes_needed - (budget_bytes - sum(entry.bytes for entry in held)))
        budget = f" The disk budget is {human_bytes(budget_bytes)}."
    evictable = [entry for entry in held if not entry.in_use]
    removable = sum(entry.bytes for entry in evictable)
    for entry in evictable if removable >= short else ():
        if short > 0:
            # Somebody may have begun to use it.
            short -= entry.bytes if _discard(entry.path, entry.manifest) else 0
    if short > 0:
        raise StoreError(
            f"no room for {human_bytes(bytes_needed)} of models: {human_bytes(max(free, 0))} are "
            f"free on their disk, and {human_bytes(removable)} could be removed.{budget}",
            hint=f"{human_bytes(short)} more are needed: free some, raise the budget, or set "
            "XDG_CACHE_HOME to a folder on a larger disk",
            code="disk_full",
        )


def remove(name: str) -> list[Entry]:
    """Remove what ``entries`` calls ``name``, at all its commits; returns what was removed.

    Raises InputError for an unknown name, StoreError for a model that is in use.
    """
    held = entries()
    chosen = [entry for entry in held if entry.name == name]
    if not chosen:
        known = [entry.name for entry in held]
        raise InputError(
            f"tokrig keeps no model {name!r}",
            hint=did_you_mean(name, known) if known else "it keeps none at all",
        )
    for entry in chosen:
        if not _discard(entry.path, entry.manifest):
            raise _in_use(entry.path)
    return chosen
