"""The shelf: tokrig's own folder of models, fetched from a hub or made here.

``models`` in the cache folder, with what was fetched under ``hub`` and what was made under
``made``. Room is made by removing what was used least recently, of the models that tokrig put
there and that nobody uses: never a file of the user's, never one elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokrig.errors import InputError, ModelError, StoreError, TokrigError, did_you_mean
from tokrig.models import _fetch, _manifest, catalog, gguf, hub, needs
from tokrig.models._folder import weight_files
from tokrig.models._manifest import File, Manifest, shelf_folder
from tokrig.models._reader import shown
from tokrig.models._sha256 import read_sha256, remember
from tokrig.record.model import QuantizedFrom
from tokrig.units import human_bytes

RESERVE_BYTES = 64 * 1024 * 1024
"""Left free on the disk, for records and journals."""

Tell = _fetch.Tell
"""Takes what is being done, in words, and how much of it is done (0 to 1, None where unknown)."""


def quiet(text: str, share: float | None) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file on the shelf comes from. ``revision`` is a commit."""

    repo: str | None = None
    revision: str | None = None
    quantized_from: QuantizedFrom | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a model without any network: bytes of its files, bytes that an f16 cache
    grows by with each token, whether nothing has to be fetched."""

    bytes: int | None = None
    kv_bytes_per_token: int | None = None
    here: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that tokrig put on the shelf.

    ``name`` is what ``remove`` takes, ``quant`` that of a file made here. ``bytes`` are those on
    the disk, all of them when ``whole``. ``last_used`` is seconds since the epoch. What is not
    ``in_use`` may be evicted.
    """

    name: str
    path: Path
    kind: Literal["fetched", "made"]
    bytes: int
    whole: bool
    last_used: float
    in_use: bool
    origin: Origin
    quant: str | None = None


def resolve(
    reference: str, tell: Tell = quiet, *, budget_bytes: int | None = None
) -> catalog.ModelSource:
    """The file or folder of a catalog name, a path, or ``hf:owner/name[@revision][/file.gguf]``.

    A model of a hub is fetched unless it is here: on the shelf, or in the user's own cache of the
    hub, where it is checked and stays. ``budget_bytes`` bounds what tokrig keeps on the shelf.
    What is here is used even when the hub cannot be asked or has it no more.

    Raises ModelError for a model that there is not or that differs from its checksum, PutOff
    where the hub cannot be reached, StoreError where there is no room.
    """
    if not reference.startswith(hub.SCHEME):
        return catalog.resolve(reference)
    asked = hub.parse(reference)
    try:
        listing = hub.listing_of(asked)
    except TokrigError as problem:
        known, path = _here(asked)
        if known is None or path is None or not _fetch.is_sound(known, path):
            raise
        listing = known
        tell(f"{problem.message}; taking what is here", None)
    else:
        path = _fetch.present(asked, listing) or _fetch.fetched(
            asked, listing, tell, lambda needed: make_room(needed, budget_bytes)
        )
    _manifest.touch(path)
    return catalog.ModelSource(path, f"{asked} at commit {listing.commit}", "")


def _here(asked: hub.Reference) -> tuple[hub.Listing | None, Path | None]:
    """What is known of a model of a hub without asking it: its files, and where they lie."""
    known = None
    for listing in (hub.kept(asked), hub.in_cache(asked)):
        if listing is not None:
            with suppress(ModelError):
                known = asked.wanted(listing)
                if path := _fetch.lying(asked, known):
                    return known, path
    return known, None


def origin(path: Path) -> Origin | None:
    """Where a model comes from that tokrig put on the shelf; None for any other."""
    manifest = _manifest.read(path)
    return _origin(manifest) if manifest else None


def _origin(manifest: Manifest) -> Origin:
    return Origin(manifest.repo, manifest.commit, manifest.quantized_from)


def known_size(reference: str) -> Size:
    """What is known of a model without any network; an empty Size for one that is unknown."""
    with suppress(TokrigError):
        if not reference.startswith(hub.SCHEME):
            return _size_of(catalog.resolve(reference).path)
        listing, path = _here(hub.parse(reference))
        if path is not None:
            return _size_of(path)
        if listing is not None:
            return Size(listing.bytes)
    return Size()


def _size_of(path: Path) -> Size:
    files = weight_files(path) if path.is_dir() else gguf.parts(path)
    return Size(sum(f.stat().st_size for f in files), needs.kv_bytes_per_token(path), here=True)


def place_made(source_sha256: str, quant: str, name: str) -> Path:
    """The final path of the file ``name`` with ``quant``, made of a source of that SHA-256."""
    folder = f"{source_sha256[:16]}-{Path(quant).name}"
    return shelf_folder() / "made" / folder / Path(name).name


def keep_made(temporary: Path, final: Path, quantized_from: QuantizedFrom) -> None:
    """Put a finished file on the shelf: flushed to the disk, hashed, described, then renamed.

    An earlier one of that name is replaced. Raises StoreError where that is in use or is not
    tokrig's, or where the disk refuses.
    """
    before = _manifest.read(final)
    if before is None and final.exists():
        raise _fetch.in_the_way(final)
    if before is not None and not _manifest.discard(final, before):
        raise _in_use(final)
    try:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        digest = read_sha256(temporary)
        made = File(name=final.name, bytes=temporary.stat().st_size, sha256=digest)
        manifest = Manifest(kind="made", files=(made,), quantized_from=quantized_from)
        with _manifest.owning(final, manifest):
            os.replace(temporary, final)
    except OSError as error:
        raise _manifest.refused(final, error) from error
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
        raise _manifest.refused(shelf, error) from error
    held = entries()
    free = shutil.disk_usage(shelf).free - RESERVE_BYTES
    short = bytes_needed - free
    if budget_bytes is not None:
        short = max(short, bytes_needed - (budget_bytes - sum(entry.bytes for entry in held)))
    if short <= 0:
        return
    evictable = [entry for entry in held if not entry.in_use]
    if sum(entry.bytes for entry in evictable) >= short:
        for entry in evictable:
            if short > 0:
                short -= _evict(entry)
    if short > 0:
        raise _no_room(bytes_needed, short, free, budget_bytes, evictable)


def _evict(entry: Entry) -> int:
    """Bytes that are free now; 0 for a model that somebody has begun to use."""
    manifest = _manifest.read(entry.path)
    return entry.bytes if manifest and _manifest.discard(entry.path, manifest) else 0


def _no_room(
    needed: int, short: int, free: int, budget: int | None, evictable: list[Entry]
) -> StoreError:
    removable = human_bytes(sum(entry.bytes for entry in evictable))
    of_budget = "" if budget is None else f" The disk budget is {human_bytes(budget)}."
    return StoreError(
        f"no room for {human_bytes(needed)} of models: {human_bytes(max(free, 0))} are free on "
        f"their disk, and {removable} could be removed.{of_budget}",
        hint=f"{human_bytes(short)} more are needed: free some, raise the budget, or set "
        "XDG_CACHE_HOME to a folder on a larger disk",
        code="disk_full",
    )


@contextmanager
def using(path: Path) -> Iterator[None]:
    """While ``path`` is used it is not removed, and afterwards it was used last.

    Any path may be given; those that tokrig did not put on its shelf are left alone.
    Raises StoreError for one that has been removed from the shelf meanwhile.
    """
    with _manifest.sharing(path) as mine:
        if not mine and not path.exists() and shelf_folder() in path.parents:
            raise StoreError(
                f"{shown(path)}: was removed to make room for another model",
                hint="run it again, or raise the disk budget",
            )
        _manifest.touch(path)
        yield
        _manifest.touch(path)


def entries() -> list[Entry]:
    """All models that tokrig put on the shelf, the least recently used first."""
    shelf = shelf_folder()
    found = [_entry(path, manifest, shelf) for path, manifest in _manifest.models_in(shelf)]
    return sorted(found, key=lambda entry: (entry.last_used, entry.name))


def _entry(path: Path, manifest: Manifest, shelf: Path) -> Entry:
    name = path.relative_to(shelf).as_posix()
    if manifest.repo and manifest.commit:
        inside = path.relative_to(hub.snapshot(manifest.repo, manifest.commit)).as_posix()
        file = None if manifest.folder else inside
        name = str(hub.Reference(manifest.repo, manifest.revision or "main", file))
    return Entry(
        name=name,
        path=path,
        kind=manifest.kind,
        bytes=manifest.bytes_here(path),
        whole=manifest.is_whole(path),
        last_used=_manifest.last_used(path),
        in_use=not _manifest.is_free(path),
        origin=_origin(manifest),
        quant=path.parent.name.partition("-")[2] if manifest.kind == "made" else None,
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
        manifest = _manifest.read(entry.path)
        if manifest and not _manifest.discard(entry.path, manifest):
            raise _in_use(entry.path)
    return chosen


def _in_use(path: Path) -> StoreError:
    return StoreError(
        f"{shown(path)}: is in use", hint="wait for the run or the download that uses it"
    )
