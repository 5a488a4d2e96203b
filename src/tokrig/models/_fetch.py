"""Bringing a model of a hub to the shelf: where it may lie already, fetching it, checking it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tokrig.errors import ModelError, StoreError
from tokrig.models import _hub_client, _manifest, hub
from tokrig.models._manifest import File, Manifest, part_of, size_of
from tokrig.models._reader import shown
from tokrig.models._sha256 import read_sha256, remember, sha256_of
from tokrig.units import human_bytes

Tell = Callable[[str, float | None], None]
MakeRoom = Callable[[int], None]


def lying(asked: hub.Reference, listing: hub.Listing) -> Path | None:
    """Where the model's files lie, all of them and of the right sizes: on the shelf, or in the
    user's own cache of the hub. None where something is missing."""
    folders = (
        hub.snapshot(listing.repo, listing.commit),
        hub.cached_snapshot(listing.repo, listing.commit),
    )
    for folder in filter(None, folders):
        if all(size_of(folder / file.name) == file.bytes for file in listing.files):
            return _model(asked, listing, folder)
    return None


def _model(asked: hub.Reference, listing: hub.Listing, folder: Path) -> Path:
    return folder if asked.file is None else folder / listing.files[0].name


def is_sound(listing: hub.Listing, model: Path) -> bool:
    """Whether the files are those of the listing. What tokrig fetched was checked then."""
    if _manifest.read(model):
        return True
    folder = next(f for f in (model, *model.parents) if f.name == listing.commit)
    return all(_matches(file, folder / file.name, sha256_of_one) for file in listing.files)


def sha256_of_one(path: Path) -> str:
    """The file's SHA-256, remembered."""
    return sha256_of([path])


def present(asked: hub.Reference, listing: hub.Listing) -> Path | None:
    """The same as ``lying``, for files that are sound."""
    path = lying(asked, listing)
    return path if path and is_sound(listing, path) else None


def fetched(asked: hub.Reference, listing: hub.Listing, tell: Tell, make_room: MakeRoom) -> Path:
    """The model on the shelf, fetched and checked; what is there of it is not fetched again.

    ``make_room`` is told how many bytes will come. Raises as ``shelf.resolve`` does; what has
    come stays for the next time, except of a file that is not what it should be.
    """
    folder = hub.snapshot(listing.repo, listing.commit)
    model = _model(asked, listing, folder)
    manifest = Manifest(
        kind="fetched",
        files=tuple(f.model_copy(update={"name": Path(f.name).name}) for f in listing.files),
        folder=asked.file is None,
        repo=listing.repo,
        revision=listing.revision,
        commit=listing.commit,
    )
    for path in manifest.paths(model):
        if path.exists() and _manifest.read(model) is None:
            raise in_the_way(path)
    try:
        with _manifest.owning(
            model, manifest, lambda: tell("waiting for another process that fetches it", None)
        ):
            _bring(asked, listing, folder, tell, make_room)
    except OSError as error:
        raise _manifest.refused(model, error) from error
    finally:
        if not manifest.bytes_here(model):
            _manifest.discard(model, manifest)
    return model


def _bring(
    asked: hub.Reference, listing: hub.Listing, folder: Path, tell: Tell, make_room: MakeRoom
) -> None:
    """Fetch the files that are not there, one after the other."""
    missing = [file for file in listing.files if size_of(folder / file.name) != file.bytes]
    total = sum(file.bytes for file in missing)
    begun = sum(size_of(part_of(folder / file.name)) or 0 for file in missing)
    make_room(max(total - begun, 0))
    before, doing = 0, f"fetching {human_bytes(total)} of {asked}"
    for file in missing:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)

        def heard(count: int, before: int = before) -> None:
            tell(doing, (before + count) / total)

        _hub_client.download(asked, listing.commit, file, part_of(path), heard)
        _keep(asked, file, path, tell)
        before += file.bytes


def _keep(asked: hub.Reference, file: File, path: Path, tell: Tell) -> None:
    """Give a file that has come its name, if it is what the hub announced."""
    part = part_of(path)
    tell(f"checking {path.name}", None)
    if not _matches(file, part, read_sha256):
        part.unlink()
        raise ModelError(
            f"{asked}: {shown(path)} came with another checksum than the hub states",
            hint="it was removed; fetch it again. If it differs again, what lies between here and "
            "the hub changes files",
            code="checksum_differs",
        )
    os.replace(part, path)
    if file.sha256:
        remember(path, file.sha256)


def _matches(file: File, path: Path, sha256: Callable[[Path], str]) -> bool:
    """Whether ``path`` holds what the hub announced: by SHA-256 for a large file, by the SHA-1
    over ``blob SIZE NUL content`` that git names a small one by."""
    if file.sha256:
        return sha256(path) == file.sha256
    if file.git:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == file.git
    return size_of(path) == file.bytes


def in_the_way(path: Path) -> StoreError:
    """A file on the shelf that tokrig did not put there, and will not write over."""
    return StoreError(
        f"{shown(path)}: lies where tokrig keeps its models, but is not what belongs there",
        hint="it is not tokrig's, so it stays: move it elsewhere",
    )
