"""The rate up to which this machine's client is true, as ``tokrig instrument`` found it here.

It is of one processor, one Python and one version of tokrig: of any other nothing is assumed.
"""

from __future__ import annotations

import contextlib
import json
import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from tokrig import __version__
from tokrig.errors import StoreError
from tokrig.files import atomic_write, state_dir


@dataclass(frozen=True)
class Ceiling:
    """``tok_per_s`` is the highest rate, all streams together, at which one client was true;
    ``at_least`` says that the server it was measured with gave out before."""

    tok_per_s: float
    at_least: bool
    cpu: str | None
    tokrig: str = __version__
    python: str = field(default_factory=platform.python_version)
    measured_at: str = ""

    def keep(self) -> Ceiling:
        """Write it, with the time, where runs look for it. Raises StoreError."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path, kept = _path(), replace(self, measured_at=now)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(vars(kept), indent=1) + "\n")
        except OSError as problem:
            raise StoreError(
                f"{path}: cannot be written: {problem.strerror or problem}",
                hint="TOKRIG_STATE names a folder that can",
            ) from None
        return kept


def measured_here(cpu: str | None) -> Ceiling | None:
    """What was measured on this processor with this Python and this tokrig; None where nothing
    was."""
    with contextlib.suppress(OSError, ValueError, TypeError, StoreError):
        found = Ceiling(**json.loads(_path().read_text()))
        here = Ceiling(found.tok_per_s, found.at_least, cpu, measured_at=found.measured_at)
        return found if found == here and found.tok_per_s > 0 else None
    return None


def _path() -> Path:
    return state_dir() / "client.json"
