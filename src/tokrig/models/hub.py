"""Models in the repositories of a Hugging Face hub: which files they are, and of how many bytes.

``HF_ENDPOINT`` names the hub and ``HF_TOKEN`` who asks, as for other tools; the token is neither
printed nor stored. Listings are kept on the shelf, so that a plan needs no network.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import time
from urllib.parse import quote

from tokrig.errors import ModelError
from tokrig.models import _hub_client
from tokrig.models._manifest import File, shelf_folder
from tokrig.models._reference import COMMIT, SCHEME, Listing, Reference, parse

__all__ = ["SCHEME", "Listing", "Reference", "in_cache", "kept", "listed", "listing_of", "parse"]

FRESH_S = 86_400.0
"""A branch is looked up again after a day; a commit never changes."""


def listed(reference: str) -> int:
    """Bytes of a model of a hub, from its repository's listing.

    Raises ModelError where there is no such model, PutOff where the hub cannot be asked.
    """
    return listing_of(parse(reference)).bytes


def listing_of(asked: Reference) -> Listing:
    """The files that ``asked`` consists of. The hub is asked about a branch once a day.

    Raises as ``listed`` does.
    """
    known = kept(asked)
    if known and (COMMIT.fullmatch(asked.revision) or _age_s(asked) < FRESH_S):
        with suppress(ModelError):  # the repository may have it by now
            return asked.wanted(known)
    listing = _hub_client.listing(asked)
    _keep(asked, listing)
    return asked.wanted(listing)


def kept(asked: Reference) -> Listing | None:
    """All files of the repository as they were listed last, however long ago; None where the hub
    was never asked."""
    try:
        return Listing.model_validate_json(_path(asked).read_bytes())
    except (OSError, ValueError):
        return None


def _keep(asked: Reference, listing: Listing) -> None:
    """For the revision asked for and for the commit that it was."""
    for revision in {asked.revision, listing.commit}:
        path = _path(Reference(asked.repo, revision))
        whole = path.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):  # only a saving
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(listing.model_dump_json(exclude_none=True), encoding="utf-8")
            whole.replace(path)


def _age_s(asked: Reference) -> float:
    try:
        return abs(time() - _path(asked).stat().st_mtime)
    except OSError:
        return FRESH_S


def _path(asked: Reference) -> Path:
    return repository_folder(asked.repo) / "listings" / f"{quote(asked.revision, safe='')}.json"


def repository_folder(repo: str) -> Path:
    """Where a repository's files lie on the shelf, in folders named as in the hub's own cache."""
    return shelf_folder() / "hub" / _folder_name(repo)


def snapshot(repo: str, commit: str) -> Path:
    """Where the files of one commit lie on the shelf."""
    return repository_folder(repo) / "snapshots" / commit


def cached_snapshot(repo: str, commit: str) -> Path | None:
    """The same in the user's own cache of the hub; None without the library that has one."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE) / _folder_name(repo) / "snapshots" / commit


def _folder_name(repo: str) -> str:
    return f"models--{repo.replace('/', '--')}"


def in_cache(asked: Reference) -> Listing | None:
    """What the user's own cache holds of the repository at that revision; None for nothing.

    A file there is a link to one that is named by its SHA-256, a small one by git's SHA-1.
    """
    commit, folder = asked.revision, cached_snapshot(asked.repo, asked.revision)
    if folder is None:
        return None
    with suppress(OSError, ValueError):
        if not COMMIT.fullmatch(commit):
            commit = (folder.parents[1] / "refs" / commit).read_text(encoding="utf-8").strip()
            folder = folder.with_name(commit)
        files = [
            _linked(path, path.relative_to(folder).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        if files and COMMIT.fullmatch(commit):
            return Listing(
                repo=asked.repo, revision=asked.revision, commit=commit, files=tuple(files)
            )
    return None


def _linked(path: Path, name: str) -> File:
    blob = path.resolve().name
    return File(
        name=name,
        bytes=path.stat().st_size,
        sha256=blob if len(blob) == 64 else None,
        git=blob if len(blob) == 40 else None,
    )
