"""What is asked of a hub through the library ``huggingface_hub``, and its refusals in our words.

Files come over plain HTTP, which every hub speaks. The library's own download begins anew each
time; the function below it takes up a file where it ends, and that is what is used here.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tokrig import __version__
from tokrig.errors import InputError, ModelError, PutOff
from tokrig.models._manifest import File, refused
from tokrig.models._reference import COMMIT, Listing, Reference, stays_inside
from tokrig.units import GIB

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

TIMEOUT_S = 20.0
WINDOW_BYTES = 32 * GIB
"""Hubs hand out at most 50 GB in one answer: larger files are asked for in pieces of this."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

# The library reads its settings when it is imported; it must not tell what else is installed.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(
            "models of a hub need the package huggingface-hub", hint="pip install 'tokrig[hub]'"
        ) from None
    # What it warns of is told here, as errors.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    return HfApi(endpoint=endpoint, library_name="tokrig", library_version=__version__)


def listing(asked: Reference) -> Listing:
    """All files of the repository at the revision asked for.

    Raises ModelError for an unknown one, PutOff where the hub cannot be asked.
    """
    api = _api()
    with _translated(asked, api.endpoint):
        try:
            info = api.model_info(
                asked.repo, revision=asked.revision, files_metadata=True, timeout=TIMEOUT_S
            )
            files = [_file(one) for one in info.siblings or () if stays_inside(one.rfilename)]
            return Listing(
                repo=asked.repo, revision=asked.revision, commit=_commit(info.sha), files=(*files,)
            )
        except (ValueError, KeyError, TypeError, AttributeError) as nonsense:
            if isinstance(nonsense, OSError):  # a refusal that is a ValueError, too
                raise
            raise PutOff(
                f"{api.endpoint} answers, but not as a hub does", hint="HF_ENDPOINT names the hub"
            ) from nonsense


def _commit(stated: str | None) -> str:
    if stated is None or not COMMIT.fullmatch(stated):
        raise ValueError("no commit")
    return stated


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
    from httpx2 import TransportError
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import silent_tqdm

    url = hf_hub_url(asked.repo, file.name, revision=commit, endpoint=api.endpoint)
    headers = build_hf_headers(library_name="tokrig", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # a piece of a compressed answer could not be used
    with _writing(part, heard) as out, _translated(asked, api.endpoint):
        if out.tell() > file.bytes:
            out.truncate(0)
            out.seek(0)
        while (begun := out.tell()) < file.bytes:
            end = min(file.bytes, (begun // WINDOW_BYTES + 1) * WINDOW_BYTES)
            if end < file.bytes or begun // WINDOW_BYTES:
                headers["Range"] = f"bytes=0-{end - 1}"  # the library puts in where to begin
            try:
                http_get(
                    url,
                    out,
                    resume_size=begun,
                    expected_size=end,
                    headers=headers,
                    tqdm_class=silent_tqdm,
                )
            except TransportError:
                if out.tell() <= begun:
                    raise


class _Told(io.BufferedWriter):
    """A file that tells how large it has become."""

    heard: Callable[[int], None]

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        count = super().write(data)
        self.heard(self.tell())
        return count


@contextmanager
def _writing(part: Path, heard: Callable[[int], None]) -> Iterator[_Told]:
    try:
        with _Told(io.FileIO(part, "ab")) as out:
            out.heard = heard
            yield out
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise refused(part, error) from error


@contextmanager
def _translated(asked: Reference, endpoint: str) -> Iterator[None]:
    """The library's errors as ours. The order counts: they are kinds of each other."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"{asked}: {asked.repo} is gated: its owners want to know who uses it",
            hint=f"accept its terms at {endpoint}/{asked.repo}, then set HF_TOKEN to your token",
            code="model_gated",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{asked}: {endpoint} has no repository {asked.repo}",
            hint="see to the spelling; a private one shows itself only to its HF_TOKEN",
            code="model_not_found",
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(
            f"{asked}: {asked.repo} has no revision {asked.revision!r}",
            hint="name a branch, a tag or a whole commit, or leave @… out for main",
            code="model_not_found",
        ) from None
    except errors.EntryNotFoundError:
        raise ModelError(
            f"{asked}: the file is gone from {asked.repo}",
            hint="see what the repository holds now",
            code="model_not_found",
        ) from None
    except errors.HfHubHTTPError as error:
        raise _status(asked, endpoint, error.response.status_code) from None
    except errors.HFValidationError:
        raise ModelError(
            f"{asked}: no name that a hub could know", hint="write hf:owner/name/FILE.gguf"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise PutOff(
            f"{asked}: not here, and HF_HUB_OFFLINE forbids to fetch it", hint="unset it"
        ) from None
    except HTTPError as error:
        raise PutOff(
            f"{asked}: {endpoint} cannot be reached: {str(error) or type(error).__name__}",
            hint="see to the network; HF_ENDPOINT names the hub. What has come is kept",
        ) from None
    except OSError as error:
        if error.errno is not None:  # the disk's, not the library's own
            raise
        raise PutOff(
            f"{asked}: {endpoint} sent another number of bytes than it announced",
            hint="try again; what has come is kept",
        ) from None


def _status(asked: Reference, endpoint: str, status: int) -> ModelError | PutOff:
    if status in (401, 403):
        return ModelError(
            f"{asked}: {endpoint} does not let you have it ({status})",
            hint="set HF_TOKEN to a valid token that may read this repository",
            code="model_gated",
        )
    return PutOff(
        f"{asked}: {endpoint} answers {status}", hint="try again later; what has come is kept"
    )
