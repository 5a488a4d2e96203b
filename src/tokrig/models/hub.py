"""Models in the repositories of a Hugging Face hub: which files they are, and fetching one.

``HF_ENDPOINT`` names the hub and ``HF_TOKEN``, or a login, who asks, as for other tools; the token
is neither printed nor stored. Listings are kept on the shelf, so that a plan needs no network.

Files come over plain HTTP, which every hub speaks. ``hf_hub_download`` begins anew each time; here
a file is taken up where it ends.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints

from tokrig import __version__
from tokrig.errors import InputError, ModelError, PutOff, TokrigError, did_you_mean
from tokrig.files import atomic_write, cache_dir
from tokrig.models.gguf import part_names
from tokrig.naming import Reference, stays_inside
from tokrig.registry import get_extra
from tokrig.units import GIB

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT_S = 20.0
FRESH_S = 86_400.0
"""A branch is looked up again after a day; a commit never changes."""
WINDOW_BYTES = 32 * GIB
"""Hubs hand out at most 50 GB in one answer: larger files are asked for in pieces of this."""
BLOCK_BYTES = 1024 * 1024
MAX_STALLS = 5
"""So often in a row a connection may bring nothing."""

COMMIT = re.compile(r"[0-9a-f]{40}")
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
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    git: str | None = None


class Listing(Stored):
    """Files of a repository at the commit that ``revision`` was when it was asked for: all of
    them, or those of one model, which ``file`` is the first of or which are a folder."""

    repo: str
    revision: str
    commit: Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
    files: tuple[File, ...]
    file: str | None = None

    def __str__(self) -> str:
        return str(Reference(self.repo, self.revision, self.file))

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def inside(self, repository: Path) -> Path:
        """Where the files lie in a folder of the repository: in that of their commit."""
        return repository / "snapshots" / self.commit

    def model(self, repository: Path) -> Path:
        """What an engine is given: the folder, or the first file in it."""
        folder = self.inside(repository)
        return folder if self.file is None else folder / self.files[0].name


# --- which files --------------------------------------------------------------------------------


def listing_of(asked: Reference) -> Listing:
    """The files that ``asked`` consists of. The hub is asked about a branch once a day.

    Raises ModelError where there is no such model, PutOff where the hub cannot be asked.
    """
    max_age_s = math.inf if COMMIT.fullmatch(asked.revision) else FRESH_S
    if listing := kept(asked, max_age_s):
        with suppress(ModelError):  # the repository may have it by now
            return wanted(asked, listing)
    listing = _listing(asked)
    for revision in {asked.revision, listing.commit}:
        with suppress(OSError):  # only a saving
            path = _kept_at(asked.repo, revision)
            atomic_write(path, listing.model_dump_json(exclude_none=True), sync=False)
    return wanted(asked, listing)


def kept(asked: Reference, max_age_s: float = math.inf) -> Listing | None:
    """All files of the repository as they were listed last; None where the hub was not asked for
    so long."""
    path = _kept_at(asked.repo, asked.revision)
    try:
        if abs(time.time() - path.stat().st_mtime) < max_age_s:
            return Listing.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        pass
    return None


def _kept_at(repo: str, revision: str) -> Path:
    return repository_folder(repo) / "listings" / f"{quote(revision, safe='')}.json"


def wanted(asked: Reference, listing: Listing) -> Listing:
    """The same listing with the files that the model consists of, the first part first.

    Raises ModelError where the repository does not hold it.
    """
    by_name, missing = {file.name: file for file in listing.files}, ""
    if asked.file is not None:
        names = part_names(asked.file)
        if gone := [name for name in names if name not in by_name]:
            missing = f"there is no file {gone[0]!r} in {asked.repo} at {asked.revision}"
    else:
        plain = [name for name in by_name if "/" not in name and name.endswith(_FOLDER_SUFFIXES)]
        weights = [name for name in plain if name.endswith(".safetensors")]
        # Mistral's own format lies beside the ordinary one and holds the same weights once more.
        only = all(name.startswith("consolidated") for name in weights)
        names = [name for name in plain if only or not name.startswith("consolidated")]
        names += [name for name in by_name if name == "README.md"]
        missing = "" if weights else "the repository holds no safetensors weights"
    if missing:
        raise ModelError(
            f"{asked}: {missing}", hint=_choices(asked, by_name), code="model_not_found"
        )
    found = {"files": tuple(by_name[name] for name in names), "file": asked.file}
    return listing.model_copy(update={**found, "revision": asked.revision})


def _choices(asked: Reference, names: Iterable[str]) -> str:
    """A hint that names the repository's GGUF files of models, of split ones the first part."""
    ggufs = sorted(
        name
        for name in names
        if name.endswith(".gguf")
        and not any(word in name.lower() for word in ("mmproj", "imatrix"))
        and name == part_names(name)[0]
    )
    if not ggufs:
        return "it holds no GGUF file; name a repository of safetensors or GGUF files"
    if asked.file is not None:
        return did_you_mean(asked.file, ggufs)
    return f"name one of its files as {asked}/FILE: {', '.join(ggufs)}"


# --- where they lie -----------------------------------------------------------------------------


def shelf_folder() -> Path:
    """Where tokrig keeps models. Raises StoreError for a user without a home."""
    return cache_dir() / "models"


def repository_folder(repo: str) -> Path:
    """Where a repository's files lie on the shelf, in folders named as in the hub's own cache."""
    return shelf_folder() / "hub" / f"models--{repo.replace('/', '--')}"


def cached_folder(repo: str) -> Path | None:
    """The same in the user's own cache of the hub; None without the library that has one."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE) / repository_folder(repo).name


def in_cache(asked: Reference) -> Listing | None:
    """What the user's own cache holds of the repository at that revision; None for nothing.

    A file there is a link to one that is named by its SHA-256, a small one by git's SHA-1.
    """
    if (repository := cached_folder(asked.repo)) is None:
        return None
    commit = asked.revision
    with suppress(OSError, ValueError):
        if not COMMIT.fullmatch(commit):
            commit = (repository / "refs" / commit).read_text(encoding="utf-8").strip()
        listing = Listing(repo=asked.repo, revision=asked.revision, commit=commit, files=())
        folder, files = listing.inside(repository), []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name, blob = path.relative_to(folder).as_posix(), path.resolve().name
                digest = {64: "sha256", 40: "git"}.get(len(blob))
                known = {digest: blob} if digest else {}
                files.append(File(name=name, bytes=path.stat().st_size, **known))
        return listing.model_copy(update={"files": tuple(files)}) if files else None
    return None


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
            files = [
                {"name": one.rfilename, "bytes": one.size, "git": one.blob_id}
                if one.lfs is None
                else {"name": one.rfilename, "bytes": one.lfs.size, "sha256": one.lfs.sha256}
                for one in info.siblings or ()
                if stays_inside(one.rfilename)
            ]
            return Listing.model_validate(
                {"repo": asked.repo, "revision": asked.revision, "commit": info.sha, "files": files}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as nonsense:
            if "huggingface_hub" in type(nonsense).__module__:  # a refusal that is one of these
                raise
            raise PutOff(
                f"{api.endpoint} answers, but not as a hub does",
                hint="set HF_ENDPOINT to the address of a hub, or unset it",
            ) from nonsense


def download(listing: Listing, file: File, part: Path, heard: Callable[[int], None]) -> None:
    """Bring ``file`` to ``part``, going on where that ends. ``heard`` takes its bytes so far.

    A broken connection is taken up again as long as each one brings something.
    Raises PutOff where the hub is lost, OSError where the disk refuses, ModelError where the file
    may not be had; what has come stays in ``part``.
    """
    api = _api()
    from huggingface_hub import hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers, http_stream_backoff, httpx

    url = hf_hub_url(listing.repo, file.name, revision=listing.commit, endpoint=api.endpoint)
    headers = build_hf_headers(library_name="tokrig", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # a piece of a compressed answer could not be used
    stalls = 0
    with part.open("ab") as out, _translated(listing, api.endpoint):
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
        out.flush()
        os.fsync(out.fileno())


_LOG_IN = "hf auth login (or set HF_TOKEN)"
# By the library's errors: code, message, what to do. The order counts: some are kinds of others.
_REFUSALS: Mapping[str, tuple[str, str, str]] = {
    "GatedRepoError": (
        "model_gated",
        "{repo} is gated: its owners want to know who uses it",
        f"accept its terms at {{endpoint}}/{{repo}}, then log in: {_LOG_IN}",
    ),
    "RepositoryNotFoundError": (
        "model_not_found",
        "{endpoint} has no repository {repo}",
        f"check the spelling; if it is private, log in: {_LOG_IN}",
    ),
    "RevisionNotFoundError": (
        "model_not_found",
        "{repo} has no revision {revision!r}",
        "name a branch, a tag or a whole commit, or leave out @{revision} for main",
    ),
    "EntryNotFoundError": (
        "model_not_found",
        "the file is no longer in {repo}",
        "name one of the files at {endpoint}/{repo}/tree/{revision}",
    ),
    "HFValidationError": (
        "",
        "{repo} is not a valid name of a repository",
        "write hf:owner/name/FILE.gguf",
    ),
}


@contextmanager
def _translated(asked: Reference | Listing, endpoint: str) -> Iterator[None]:
    """The library's errors as ours."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except (httpx.HTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled) as error:
        raise _refusal(asked, endpoint, error) from None


def _refusal(asked: Reference | Listing, endpoint: str, error: Exception) -> TokrigError:
    from huggingface_hub import errors

    place = {"endpoint": endpoint, "repo": asked.repo, "revision": asked.revision}
    for name, (code, why, hint) in _REFUSALS.items():
        if isinstance(error, getattr(errors, name)):
            return ModelError(
                f"{asked}: {why.format(**place)}", hint=hint.format(**place), code=code
            )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return PutOff(
            f"{asked}: not on this machine, and HF_HUB_OFFLINE forbids downloading it",
            hint="unset HF_HUB_OFFLINE to download it",
        )
    if not isinstance(error, errors.HfHubHTTPError):
        return PutOff(
            f"{asked}: {endpoint} cannot be reached: {str(error) or type(error).__name__}",
            hint="check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use only models"
            " that are here; what was downloaded is kept",
        )
    status = error.response.status_code
    if status in (401, 403):
        return ModelError(
            f"{asked}: {endpoint} refuses access ({status})",
            hint=f"log in with an account that may read it: {_LOG_IN}",
            code="model_gated",
        )
    hint = "try again later; what was downloaded is kept"
    return PutOff(f"{asked}: {endpoint} answers {status}", hint=hint)
