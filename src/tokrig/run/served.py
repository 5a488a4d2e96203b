"""Which model a server with a store of its own serves: its file, where that is on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError
from tokrig.models import identity
from tokrig.record.model import Model
from tokrig.run.session import Session

# Ollama's store names a file by its checksum.
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")


def identified(model: Model, session: Session) -> Model:
    """The model as its own file tells it, where an engine on this machine says where that lies.

    Reading all of a large file takes its time, once. The path itself goes nowhere.
    """
    told = session.engine.model_file
    where = session.prepared.where
    here = session.endpoint.is_loopback and (where is None or where.here)
    if model.identity_from != "endpoint" or told is None or not here:
        return model
    path = Path(told)
    blob = _BLOB.fullmatch(path.name)
    # The name of a blob is its checksum, and tells nothing else.
    named: dict[str, Any] = {"sha256": blob.group(1), "file": None} if blob else {}
    # A relative path begins in a folder of the server's.
    there = where.found(path) if where and path.is_absolute() else path
    if there is None or not path.is_absolute() or not _is_file(there):
        return model.model_copy(update=named)
    try:
        found = identity.identify(there, sha256=blob is None)
    except ModelError:
        return model.model_copy(update=named)
    if blob and found.identity_from == "file_name":
        named |= {"family": model.family, "variant": None, "identity_from": "endpoint"}
    return found.model_copy(update=named)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
