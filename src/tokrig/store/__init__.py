"""The content folder: where records and their samples lie, written whole or not at all.

    benchmarks/runs/<rig>/<run>.yaml         the record
    benchmarks/samples/<run>.parquet         what it was computed from
    benchmarks/quality/<run>.parquet         the model's answers, where they were looked at

Files are written beside their final place, flushed to the disk and renamed, the record last:
a reader sees the old file or the new one, and every record has its samples.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokrig.documents import read_text
from tokrig.errors import InputError, RecordError, StoreError, did_you_mean
from tokrig.files import write_together
from tokrig.record.samples import Sample
from tokrig.record.samples_file import from_parquet, to_parquet
from tokrig.store.index import Listing, Problem, Row, listing

# The record's model takes a while to load, and lists of records do without it.
if TYPE_CHECKING:
    from tokrig.record.model import Record
    from tokrig.record.quality import Answers

__all__ = ["Listing", "Problem", "Row", "Store", "unwritable"]

MAX_ID = 120
ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_HINTS = {
    errno.ENOSPC: "free some space on that disk and save again",
    errno.EDQUOT: "your quota on that disk is used up: free some space",
    errno.EFBIG: "a limit on file sizes is set for this process (ulimit -f)",
    errno.EROFS: "that disk is read-only: choose another folder with --content",
    errno.EACCES: "you may not write there: choose another folder with --content",
    errno.EPERM: "you may not write there: choose another folder with --content",
    errno.EEXIST: "a file stands where a folder should be",
    errno.ENOTDIR: "a file stands where a folder should be",
}


class Store:
    """Records and samples under one content folder. ``cache`` holds the index of ``listing``
    (default: the user's cache folder)."""

    def __init__(self, content: Path, *, cache: Path | None = None) -> None:
        self.content = content
        self.runs = content / "benchmarks" / "runs"
        self.samples = content / "benchmarks" / "samples"
        self.quality = content / "benchmarks" / "quality"
        self._cache = cache

    def record_path(self, record: Record) -> Path:
        """Where a record belongs. Raises RecordError for an id that is no plain file name."""
        return self.runs / _safe(record.rig.id, "rig") / f"{_safe(record.id, 'run')}.yaml"

    def samples_path(self, run_id: str) -> Path:
        """Where a run's samples belong. Raises RecordError for an id that is no file name."""
        return self.samples / f"{_safe(run_id, 'run')}.parquet"

    def answers_path(self, run_id: str) -> Path:
        """Where the answers of a run's model belong. Raises RecordError as ``samples_path``."""
        return self.quality / f"{_safe(run_id, 'run')}.parquet"

    def save(
        self,
        record: Record,
        samples: Sequence[Sample] | None,
        *,
        answers: bytes | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a record, its samples and the file of its model's answers; the path of the record.
        ``samples`` are None where nobody has any.

        Raises StoreError when the id is taken (unless ``overwrite``; by another rig's run
        always), or when the disk refuses; then nothing has changed.
        """
        path, samples_path = self.record_path(record), self.samples_path(record.id)
        for taken in self.runs.glob(f"*/{path.name}"):
            if taken != path or not overwrite:
                raise StoreError(
                    f"{taken} exists already", hint="a run has an id of its own: choose another"
                )
        from tokrig.record.model import record_text

        text = record_text(record).encode()
        try:
            files = {} if answers is None else {self.answers_path(record.id): answers}
            if samples is not None:
                files[samples_path] = to_parquet(samples)
            write_together({**files, path: text})
        except OSError as problem:
            raise _refused(problem, path) from None
        return path

    def read(self, path: Path) -> Record:
        """The record in a file. Raises RecordError with file and line."""
        from tokrig.record.model import parse_record

        text = read_text(path, RecordError, hint="tokrig list shows the records")
        return parse_record(text, str(path))

    def read_samples(self, run_id: str) -> list[Sample]:
        """The samples of a run. Raises RecordError when they are missing or unreadable."""
        path = self.samples_path(run_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RecordError(
                f"{path}: no samples of run {run_id!r}",
                hint="transcribed and imported records have none; others: restore it from git",
            ) from None
        except OSError as problem:
            raise StoreError(f"{path}: cannot be read: {problem.strerror or problem}") from None
        return from_parquet(data, str(path))

    def read_answers(self, run_id: str) -> tuple[Answers, str]:
        """The answers of a run's model, and the SHA-256 of their file. Raises RecordError when it
        is missing or unreadable."""
        from tokrig.record.quality_file import from_parquet

        path = self.answers_path(run_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RecordError(
                f"{path}: no answers of run {run_id!r}", hint="restore the file from git"
            ) from None
        except OSError as problem:
            raise StoreError(f"{path}: cannot be read: {problem.strerror or problem}") from None
        return from_parquet(data, str(path)), hashlib.sha256(data).hexdigest()

    def iter_paths(self) -> Iterator[Path]:
        """The paths of all records, by rig and id."""
        yield from sorted(
            path for path in self.runs.glob("*/*.yaml") if not path.name.startswith(".")
        )

    def find(self, wanted: str) -> Path:
        """The record meant by an id, the unique beginning of one, or a path.

        Raises InputError, with the nearest ids, when there is none or more than one.
        """
        as_path = Path(wanted)
        if as_path.suffix == ".yaml" or len(as_path.parts) > 1:
            if as_path.is_file():
                return as_path
            raise InputError(
                f"no such file: {wanted}", hint="give a path, an id, or the beginning of an id"
            )
        paths = {path.stem: path for path in self.iter_paths()}
        if wanted in paths:
            return paths[wanted]
        matching = [run_id for run_id in paths if wanted and run_id.startswith(wanted)]
        if len(matching) == 1:
            return paths[matching[0]]
        if matching:
            listed = ", ".join(matching[:10]) + (", …" if len(matching) > 10 else "")
            raise InputError(
                f"{wanted!r} could be any of {len(matching)} records", hint=f"they are: {listed}"
            )
        near = difflib.get_close_matches(wanted, paths, n=5, cutoff=0.5)
        hint = did_you_mean(wanted, near) if near else "tokrig list shows the records there are"
        raise InputError(f"no record {wanted!r} in {self.content}", hint=hint)

    def listing(self) -> Listing:
        """One row a record, newest first, and the files that cannot be read."""
        return listing(self.iter_paths(), self.runs, self._cache)

    def rows(self) -> list[Row]:
        """The rows of ``listing``."""
        return self.listing().rows


def unwritable(folder: Path) -> str:
    """Why nothing could be written to a folder that may not exist yet; "" when it could."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"


def _safe(name: str, what: str) -> str:
    if len(name) > MAX_ID or not ID.fullmatch(name):
        raise RecordError(
            f"{name[:MAX_ID]!r} cannot be the id of a {what}",
            hint=f"an id has a-z, 0-9, '.', '_', '-', starts with a letter or digit, and is at "
            f"most {MAX_ID} characters long",
        )
    return name


def _refused(problem: OSError, path: Path) -> StoreError:
    reason = problem.strerror or str(problem)
    hint = _HINTS.get(problem.errno or 0, "see whether that folder can be written")
    return StoreError(f"{path}: cannot be saved: {reason}", hint=hint)
