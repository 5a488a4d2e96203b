"""What a load of hours receives, on the disk until it is over: memory stays free for the engine."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokrig.errors import StoreError

if TYPE_CHECKING:
    from tokrig.run.client import Response


class Spool:
    """Responses in the order in which they ended, in a nameless file of ``folder``, which is gone
    when this process is. Keeping one takes about a tenth of a millisecond: it is a copy into the
    kernel's cache."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives with the load)
        except OSError as error:
            raise self._full(error) from None

    def append(self, response: Response) -> None:
        """Keep one more. Raises StoreError where the disk does not take it."""
        try:
            pickle.dump(response, self._file, pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise self._full(error) from None
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Response]:
        """All of them, one after the other in memory, as often as asked."""
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Let them go."""
        self._file.close()

    def _full(self, error: OSError) -> StoreError:
        return StoreError(
            f"answers cannot be kept in {self._folder}: {error.strerror or error}",
            hint="free some space, sustain the load for less time, or choose another folder with"
            " TOKRIG_STATE",
        )
