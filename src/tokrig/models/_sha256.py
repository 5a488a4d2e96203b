"""SHA-256 of model files, and a small memory of it, since a large file takes minutes to hash.

The memory is a JSON in the user's cache folder. It holds hashes of paths, no paths, and is only
a saving: unreadable, unwritable or missing, the file is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError

BLOCK_BYTES = 1024 * 1024
MAX_ENTRIES = 1000
FRESH_S = 2.0
"""A file changed less than this ago may change again within one tick of its time stamp."""


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/tokrig`` or ``~/.cache/tokrig``; None where there is no home."""
    stated = os.environ.get("XDG_CACHE_HOME")
    if stated and Path(stated).is_absolute():
        return Path(stated) / "tokrig"
    try:
        return Path.home() / ".cache" / "tokrig"
    except RuntimeError:
        return None


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256, in hex, of the files one after the other: what ``cat … | sha256sum`` prints.

    Raises ModelError when a file cannot be read, or changes meanwhile.
    """
    try:
        key, before = _key(paths), _stamps(paths)
        known = _load().get(key)
        if isinstance(known, dict) and known.get("stamps") == before:
            digest = known.get("sha256")
            if isinstance(digest, str) and len(digest) == 64:
                return digest
        digest = _hash(paths)
        after = _stamps(paths)
    except OSError as error:
        raise ModelError(
            f"{paths[0].name}: cannot be read: {error.strerror}", hint="check the file's rights"
        ) from error
    if after != before:
        raise ModelError(
            f"{paths[0].name}: changed while it was read",
            hint="wait until its download or copy has finished",
        )
    newest = max(stamp[1] for stamp in after)
    if abs(time.time_ns() - newest) > FRESH_S * 1e9:
        _remember(key, {"stamps": after, "sha256": digest})
    return digest


def remember(path: Path, digest: str) -> None:
    """``digest`` is the file's, known from elsewhere: from before it got its name."""
    with contextlib.suppress(OSError):
        _remember(_key([path]), {"stamps": _stamps([path]), "sha256": digest})


def read_sha256(path: Path) -> str:
    """The file's SHA-256 by reading every byte now, whatever was known of it."""
    return _hash([path])


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                digest.update(block[:count])
    return digest.hexdigest()


def _key(paths: Sequence[Path]) -> str:
    real = "\0".join(str(path.resolve()) for path in paths)
    return hashlib.sha256(real.encode("utf-8", errors="surrogateescape")).hexdigest()


def _stamps(paths: Sequence[Path]) -> list[list[int]]:
    states = [path.stat() for path in paths]
    return [[state.st_size, state.st_mtime_ns] for state in states]


def _load() -> dict[str, Any]:
    folder = cache_folder()
    if folder is None:
        return {}
    try:
        known = json.loads((folder / "sha256.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, entry: dict[str, Any]) -> None:
    folder = cache_folder()
    if folder is None:
        return
    known = _load()
    known.pop(key, None)  # the newest stands last, the oldest goes first
    known[key] = entry
    kept = dict(list(known.items())[-MAX_ENTRIES:])
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix="sha256.", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(temporary, folder / "sha256.json")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
