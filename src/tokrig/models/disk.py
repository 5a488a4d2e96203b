"""Model files on the disk: their SHA-256, and what the disk refuses.

A large file takes minutes to hash, so its SHA-256 is remembered: in a JSON in the user's cache
folder, which holds hashes of paths, no paths, and is only a saving. Unreadable, unwritable or
missing, the file is hashed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokrig.errors import StoreError
from tokrig.files import atomic_write, cache_dir
from tokrig.models.gguf import bad, shown, unreadable

BLOCK_BYTES = 1024 * 1024
MAX_ENTRIES = 1000
FRESH_S = 2.0
"""A file changed less than this ago may change again within one tick of its time stamp."""


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
        digest = read_sha256(paths)
        after = _stamps(paths)
    except OSError as error:
        raise unreadable(paths[0], error) from error
    if after != before:
        hint = "wait until its download or copy has finished"
        raise bad(paths[0], "changed while it was read", hint)
    if abs(time.time_ns() - max(stamp[1] for stamp in after)) > FRESH_S * 1e9:
        _remember(key, {"stamps": after, "sha256": digest})
    return digest


def remember(path: Path, digest: str) -> None:
    """``digest`` is the file's, known from elsewhere: from before it got its name."""
    with contextlib.suppress(OSError):
        _remember(_key([path]), {"stamps": _stamps([path]), "sha256": digest})


def read_sha256(paths: Sequence[Path]) -> str:
    """The same by reading every byte now, whatever was known. Raises OSError."""
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
    try:
        known = json.loads((cache_dir() / "sha256.json").read_bytes())
    except (OSError, ValueError, RecursionError, StoreError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, entry: dict[str, Any]) -> None:
    known = _load()
    known.pop(key, None)  # the newest stands last, the oldest goes first
    known[key] = entry
    kept = dict(list(known.items())[-MAX_ENTRIES:])
    with contextlib.suppress(OSError, StoreError):
        atomic_write(cache_dir() / "sha256.json", json.dumps(kept), sync=False)


def refused(what: Path, error: OSError) -> StoreError:
    """The system's refusal to write ``what`` among tokrig's models, in words."""
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
