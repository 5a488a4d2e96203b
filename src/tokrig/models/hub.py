"""Models in the repositories of a Hugging Face hub: which files they are, and fetching one.

``HF_ENDPOINT`` names the hub and ``HF_TOKEN`` who asks, as for other tools; the token is neither
printed nor stored. Listings are kept on the shelf, so that a plan needs no network.

Files come over plain HTTP, which every hub speaks. ``hf_hub_download`` begins anew each time; here
a file is taken up where it ends.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from tokrig import __version__
from tokrig.errors import InputError, ModelError, PutOff, TokrigError, did_you_mean
from tokrig.files import atomic_write, cache_dir
from tokrig.models.files import refused
from tokrig.naming import Reference, stays_inside
from tokrig.registry import get_extra
from tokrig.units import GIB

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

TIMEOUT_S = 20.0
FRESH_S = 86_400.0
"""A branch is looked up again after a day; a commit never changes."""
WINDOW_BYTES = 32 * GIB
"""Hubs hand out at most 50 GB in one answer: larger files are asked for in pieces of this."""
BLOCK_BYTES = 1024 * 1024
MAX_STALLS = 5
"""So often in a row a connection may bring nothing."""

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 1000
# Weights, configuration, tokenizer, chat template: what an engine or a record reads.
_FOLDER_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")

# The library reads its settings when it is imported; it must not tell what else is installed.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


class Stored(BaseModel):
    """Base of what is kept as JSON on the shelf."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Stored):
    """One file of a model. ``git`` is the SHA-1 that git knows a small file by."""

    name: str
    bytes: NonNegativeInt
    sha256: str | None = None
    git: str | None = None


class Listing(Stored):
    """Files of a repository at the commit that ``revision`` was when it was asked for."""

    repo: str
    revision: str
    commit: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)


# --- which files --------------------------------------------------------------------------------


def listed(reference: str) -> int:
    """Bytes of a model of a hub, from its repository's listing.

    Raises ModelError where there is no such model, PutOff where the hub cannot be asked.
    """
    return listing_of(Reference.parse(reference)).bytes


def listing_of(asked: Reference) -> Listing:
    """The files that ``asked`` consists of. The hub is asked about a branch once a day.

    Raises as ``listed`` does.
    """
    known = kept(asked)
    if known and (COMMIT.fullmatch(asked.revision) or _age_s(asked) < FRESH_S):
        with suppress(ModelError):  # the repository may have it by now
            return wanted(asked, known)
    listing = _listing(asked)
    for revision in {asked.revision, listing.commit}:
        with suppress(OSError):  # only a saving
            path = _kept_at(Reference(asked.repo, revision))
            atomic_write(path, listing.model_dump_json(exclude_none=True), sync=False)
    return wanted(asked, listing)


def kept(asked: Reference) -> Listing | None:
    """All files of the repository as they were listed last, however long ago; None where the hub
    was never asked."""
    try:
        return Listing.model_validate_json(_kept_at(asked).read_bytes())
    except (OSError, ValueError):
        return None


def _age_s(asked: Reference) -> float:
    try:
        return abs(time.time() - _kept_at(asked).stat().st_mtime)
    except OSError:
        return FRESH_S


def _kept_at(asked: Reference) -> Path:
    return repository_folder(asked.repo) / "listings" / f"{quote(asked.revision, safe='')}.json"


def wanted(asked: Reference, listing: Listing) -> Listing:
    """The same listing with the files that the model consists of, the first part first.

    Raises ModelError where the repository does not hold it.
    """
    files = _folder(asked, listing) if asked.file is None else _parts(asked, asked.file, listing)
    return listing.model_copy(update={"files": tuple(files)})


def _parts(asked: Reference, file: str, listing: Listing) -> list[File]:
    known = {one.name: one for one in listing.files}
    names, split = [file], _SPLIT.fullmatch(file)
    if split:
        count = min(int(split[3]), _MAX_PARTS)
        names = [f"{split[1]}-{n:05d}-of-{split[3]}.gguf" for n in range(1, count + 1)]
    missing = [name for name in names if name not in known]
    if missing:
        ggufs = _choices(known)
        raise ModelError(
            f"{asked}: there is no file {missing[0]!r} in {asked.repo} at {asked.revision}",
            hint=did_you_mean(file, ggufs) if ggufs else "the repository holds no GGUF file",
            code="model_not_found",
        )
    return [known[name] for name in names]


def _folder(asked: Reference, listing: Listing) -> list[File]:
    files = [
        file
        for file in listing.files
        if file.name == "README.md"
        or ("/" not in file.name and file.name.endswith(_FOLDER_SUFFIXES))
    ]
    weights = [file.name for file in files if file.name.endswith(".safetensors")]
    if not weights:
        ggufs = ", ".join(_choices(file.name for file in listing.files))
        raise ModelError(
            f"{asked}: the repository holds no safetensors weights",
            hint=f"name one of its files as {asked}/FILE: {ggufs}"
            if ggufs
            else "name a repository of safetensors or GGUF files",
            code="model_not_found",
        )
    # Mistral's own format lies beside the ordinary one and holds the same weights once more.
    if not all(name.startswith("consolidated") for name in weights):
        files = [file for file in files if not file.name.startswith("consolidated")]
    return files


def _choices(names: Iterable[str]) -> list[str]:
    """The GGUF files of models among ``names``, of split ones the first part."""
    return sorted(
        name
        for name in names
        if name.endswith(".gguf")
        and not any(word in name.lower() for word in ("mmproj", "imatrix"))
        and ((split := _SPLIT.fullmatch(name)) is None or split[2] == "00001")
    )


# --- where they lie -----------------------------------------------------------------------------


def shelf_folder() -> Path:
    """Where tokrig keeps models. Raises StoreError for a user without a home."""
    return cache_dir() / "models"


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
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
        files = [_linked(name, path) for name, path in paths.items() if path.is_file()]
        if files and COMMIT.fullmatch(commit):
            return Listing(
                repo=asked.repo, revision=asked.revision, commit=commit, files=tuple(files)
            )
    return None


def _linked(name: str, path: Path) -> File:
    blob = path.resolve().name
    kind = {64: "sha256", 40: "git"}.get(len(blob))
    return File(name=name, bytes=path.stat().st_size, **({kind: blob} if kind else {}))


# --- asking the hub -----------------------------------------------------------------------------


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(
            "models of a hub need the package huggingface-hub", hint=get_extra("hub")
        ) from None
    # What it warns of is told here, as errors.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    return HfApi(endpoint=endpoint, library_name="tokrig", library_version=__version__)


def _listing(asked: Reference) -> Listing:
    """All files of the repository at the revision asked for."""
    api = _api()
    with _translated(asked, api.endpoint):
        try:
            info = api.model_info(
                asked.repo, revision=asked.revision, files_metadata=True, timeout=TIMEOUT_S
            )
            files = tuple(_file(one) for one in info.siblings or () if stays_inside(one.rfilename))
            if info.sha is None or not COMMIT.fullmatch(info.sha):
                raise ValueError("no commit")
            return Listing(repo=asked.repo, revision=asked.revision, commit=info.sha, files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as nonsense:
            if "huggingface_hub" in type(nonsense).__module__:  # a refusal that is one of these
                raise
            raise PutOff(
                f"{api.endpoint} answers, but not as a hub does", hint="HF_ENDPOINT names the hub"
            ) from nonsense


def _file(stated: RepoSibling) -> File:
    if stated.lfs is None:
        return File.model_validate(
            {"name": stated.rfilename, "bytes": stated.size, "git": stated.blob_id}
        )
    if not _SHA256.fullmatch(stated.lfs.sha256):
        raise ValueError("no SHA-256")
    return File(name=stated.rfilename, bytes=stated.lfs.size, sha256=stated.lfs.sha256)


def download(
    asked: Reference, commit: str, file: File, part: Path, heard: Callable[[int], None]
) -> None:
    """Bring ``file`` to ``part``, going on where that ends. ``heard`` takes its bytes so far.

    A broken connection is taken up again as long as each one brings something.
    Raises PutOff where the hub is lost, StoreError where the disk is full, ModelError where the
    file may not be had; what has come stays in ``part``.
    """
    api = _api()
    from huggingface_hub import hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers, http_stream_backoff, httpx

    url = hf_hub_url(asked.repo, file.name, revision=commit, endpoint=api.endpoint)
    headers = build_hf_headers(library_name="tokrig", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # a piece of a compressed answer could not be used
    stalls = 0
    with _growing(part) as out, _translated(asked, api.endpoint):
        if out.tell() > file.bytes:
            out.truncate(0)
        while (begun := out.seek(0, os.SEEK_END)) < file.bytes:
            end = min(file.bytes, (begun // WINDOW_BYTES + 1) * WINDOW_BYTES)
            if begun or end < file.bytes:
                headers["Range"] = f"bytes={begun}-{end - 1}"
            try:
                with http_stream_backoff(
                    "GET",
                    url,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    retry_on_exceptions=(),
                    retry_on_status_codes=(408, 429),
                ) as answer:
                    hf_raise_for_status(answer)
                    if begun and answer.status_code == 200:  # the whole file, unasked
                        out.truncate(0)
                    for block in answer.iter_bytes(BLOCK_BYTES):
                        out.write(block)
                        heard(out.tell())
            except httpx.TransportError:
                stalls = 0 if out.tell() > begun else stalls + 1
                if stalls > MAX_STALLS:
                    raise
                time.sleep(1)


@contextmanager
def _growing(part: Path) -> Iterator[BinaryIO]:
    try:
        with part.open("ab") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise refused(part, error) from error


@contextmanager
def _translated(asked: Reference, endpoint: str) -> Iterator[None]:
    """The library's errors as ours."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except (httpx.HTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled) as error:
        raise _refusal(asked, endpoint, error) from None


def _refusal(asked: Reference, endpoint: str, error: Exception) -> TokrigError:
    from huggingface_hub import errors

    repo, revision = asked.repo, asked.revision
    # The order counts: some are kinds of others.
    for kind, code, why, hint in (
        (
            errors.GatedRepoError,
            "model_gated",
            f"{repo} is gated: its owners want to know who uses it",
            f"accept its terms at {endpoint}/{repo}, then set HF_TOKEN to your token",
        ),
        (
            errors.RepositoryNotFoundError,
            "model_not_found",
            f"{endpoint} has no repository {repo}",
            "check the spelling; a private one shows itself only to its HF_TOKEN",
        ),
        (
            errors.RevisionNotFoundError,
            "model_not_found",
            f"{repo} has no revision {revision!r}",
            "name a branch, a tag or a whole commit, or leave @… out for main",
        ),
        (
            errors.EntryNotFoundError,
            "model_not_found",
            f"the file is gone from {repo}",
            "see what the repository holds now",
        ),
        (
            errors.HFValidationError,
            "",
            "no name that a hub could know",
            "write hf:owner/name/FILE.gguf",
        ),
    ):
        if isinstance(error, kind):
            return ModelError(f"{asked}: {why}", hint=hint, code=code)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return PutOff(f"{asked}: not here, and HF_HUB_OFFLINE forbids to fetch it", hint="unset it")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return ModelError(
                f"{asked}: {endpoint} does not let you have it ({status})",
                hint="set HF_TOKEN to a valid token that may read this repository",
                code="model_gated",
            )
        hint = "try again later; what has come is kept"
        return PutOff(f"{asked}: {endpoint} answers {status}", hint=hint)
    return PutOff(
        f"{asked}: {endpoint} cannot be reached: {str(error) or type(error).__name__}",
        hint="check the network; HF_ENDPOINT names the hub. What has come is kept",
    )
