"""What a run has measured so far, on disk while it runs: nothing finished is ever lost.

One folder a run under the state folder (``TOKRIG_STATE``, else ``$XDG_STATE_HOME/tokrig``):
``run.json`` (what is being measured), ``cells.jsonl`` (one line a finished cell, flushed to the
disk before the next begins), ``engine.json``, ``skipped.json`` (cells that could not be measured),
``quality.parquet`` (the model's answers), ``engine.log``. The folder is removed once the record is
in the store.

Locks are the kernel's, so they are gone when their process ends, however it ends: a run's tells a
running one from an abandoned one, the rig's keeps two runs from measuring each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from tokrig.errors import InputError, StoreError, did_you_mean
from tokrig.files import Locked, atomic_write, locked, state_dir
from tokrig.record.block import Block
from tokrig.record.loads import LoadNodes, OverTime
from tokrig.record.model import Interference, PeakMemory
from tokrig.record.samples import Cell, Chunks, EngineTimings, Sample

SWEEP_AFTER_S = 60
_HINTS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the folder may not be written",
}


class Observed(Block):
    """What was seen beside the samples during one cell's measured phase. None = not looked at.
    ``window_s`` is the time over which energy was counted, ``sustained_s`` for how long a load was
    kept up without a pause."""

    wall_s: float = 0.0
    window_s: float = 0.0
    client_cpu_share: float | None = None
    memory: PeakMemory = PeakMemory()
    interference: Interference = Interference()
    energy_j: dict[str, float] = Field(default_factory=dict)
    idle_w: dict[str, float] = Field(default_factory=dict)
    counters: dict[str, float] = Field(default_factory=dict)
    load_nodes: LoadNodes | None = None
    sustained_s: float | None = None
    over_time: OverTime | None = None


@dataclass(frozen=True)
class CellRecord:
    """One finished cell of one repeat: the unit a resumed run does not repeat."""

    cell: Cell
    repeat: int
    samples: list[Sample]
    observed: Observed

    def to_json(self) -> str:
        """One line."""
        return "".join(self.parts())

    def parts(self) -> Iterator[str]:
        """The line in parts, of which one is a sample. Chunks are columns, for there are many."""
        encode = json.JSONEncoder(separators=(",", ":")).encode
        yield encode({**vars(self.cell), "repeat": self.repeat})[:-1] + ',"samples":['
        for number, sample in enumerate(self.samples):
            row = {
                **{name: getattr(sample, name) for name in _FIELDS},
                "chunks": _columns(sample.stream),
                "timings": sample.timings and dataclasses.asdict(sample.timings),
            }
            yield ("," if number else "") + encode(row)
        yield f'],"observed":{encode(self.observed.model_dump(mode="json"))}}}'

    @classmethod
    def from_json(cls, line: str) -> CellRecord:
        """Raises ValueError, KeyError or TypeError for what ``to_json`` did not write."""
        data = json.loads(line)
        rows, observed = data.pop("samples"), Observed.model_validate(data.pop("observed"))
        for row in rows:
            row["chunks"] = _chunks(row["chunks"])
            row["timings"] = EngineTimings(**row["timings"]) if row["timings"] else None
        repeat = data.pop("repeat")
        return cls(Cell(**data), repeat, [Sample(**row) for row in rows], observed)


_FIELDS = [f.name for f in dataclasses.fields(Sample) if f.name not in ("chunks", "timings")]


def _columns(chunks: Chunks) -> list[Any]:
    """The kinds as digits, the stamps, where each text ends in all of them, all texts."""
    kinds = "".join(map(str, chunks.kinds))
    return [kinds, chunks.stamps_ns.tolist(), chunks.ends.tolist(), chunks.text]


def _chunks(columns: list[Any]) -> Chunks:
    kinds, stamps_ns, ends, text = columns
    found = Chunks(array("q", stamps_ns), bytes(map(int, kinds)), text, array("I", ends))
    if not len(kinds) == len(stamps_ns) == len(ends):
        raise ValueError("columns of different lengths")
    return found


class Journal:
    """The folder of one run, locked while this process works on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_id = folder, folder.name
        self.log_path = folder / "engine.log"
        self._cells = folder / "cells.jsonl"
        self._answers = folder / "quality.parquet"

    def describe(self, facts: dict[str, Any]) -> None:
        """Write ``run.json``, whole or not at all."""
        _write_whole(self.folder / "run.json", facts)

    def facts(self) -> dict[str, Any]:
        """What ``describe`` wrote."""
        found = _read_json(self.folder / "run.json")
        if not found:
            raise damaged(self.run_id, "no readable run.json")
        return found

    def note_engine(self, facts: dict[str, Any]) -> None:
        """Keep what the engine said about itself, for a process that may have to go on."""
        _write_whole(self.folder / "engine.json", facts)

    def engine_facts(self) -> dict[str, Any]:
        """What ``note_engine`` wrote last; empty before the engine was ever ready."""
        return _read_json(self.folder / "engine.json")

    def add(self, cell: CellRecord) -> None:
        """Append a finished cell and wait until it is on the disk. Raises StoreError."""
        try:
            with open(self._cells, "ab") as file:
                for part in cell.parts():
                    file.write(part.encode())
                file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _disk_error(self._cells, error) from None

    def cells(self) -> list[CellRecord]:
        """All finished cells. A line cut short by a crash ends the list: its cell was not done."""
        cells: list[CellRecord] = []
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError),
            open(self._cells, encoding="utf-8") as file,
        ):
            for line in file:
                cells.append(CellRecord.from_json(line))
        return cells

    def note_skipped(self, facts: Mapping[str, Any]) -> None:
        """Keep that a cell could not be measured, and why: who goes on need not try it again."""
        _write_whole(self.folder / "skipped.json", {"skipped": [*self.skipped(), dict(facts)]})

    def skipped(self) -> list[dict[str, Any]]:
        """What ``note_skipped`` kept."""
        return list(_read_json(self.folder / "skipped.json").get("skipped", []))

    def note_answers(self, file: bytes) -> None:
        """Keep the file of the model's answers: who goes on need not ask again."""
        try:
            atomic_write(self._answers, file)
        except OSError as error:
            raise _disk_error(self._answers, error) from None

    def answers(self) -> bytes | None:
        """What ``note_answers`` kept."""
        try:
            return self._answers.read_bytes()
        except OSError:
            return None

    def mend(self) -> None:
        """Cut a half-written last line off, so that what is added next stands on its own."""
        with contextlib.suppress(FileNotFoundError):
            text = self._cells.read_bytes()
            os.truncate(self._cells, text.rfind(b"\n") + 1)

    def discard(self) -> None:
        """Remove the folder: its record is in the store, or nobody wants it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def damaged(run_id: str, why: str) -> InputError:
    """What is to be said of a run that cannot go on."""
    return InputError(
        f"the unfinished run {run_id} is damaged: {why}",
        hint=f"discard it with: tokrig run --discard {run_id}",
        code="run_damaged",
    )


@contextlib.contextmanager
def begin(run_id: str) -> Iterator[Journal]:
    """A new journal. Raises StoreError when the state folder cannot be written."""
    folder = _runs() / run_id
    _sweep(folder.parent)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _disk_error(folder, error) from None
    with _only_here(folder):
        yield Journal(folder)


@contextlib.contextmanager
def reopen(run_id: str) -> Iterator[Journal]:
    """The journal of an unfinished run. Raises InputError if there is none or it still runs."""
    known = unfinished()
    if run_id not in known:
        hint = did_you_mean(run_id, known) if known else "there is no unfinished run"
        raise InputError(f"no unfinished run {run_id!r}", hint=hint)
    with _only_here(_runs() / run_id):
        journal = Journal(_runs() / run_id)
        journal.mend()
        yield journal


@contextlib.contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / "lock"))
        except Locked:
            raise InputError(
                f"the run {folder.name} is still going on in another process",
                hint="wait for it, or stop that process",
            ) from None
        except OSError as error:
            raise _disk_error(folder, error) from None
        yield


def unfinished() -> list[str]:
    """Ids of runs that were begun, not finished, and that no living process works on."""
    return sorted(p.parent.name for p in _runs().glob("*/run.json") if _is_free(p.parent))


def described(run_id: str) -> dict[str, Any]:
    """What an unfinished run was begun as; empty where that cannot be read."""
    return _read_json(_runs() / run_id / "run.json")


def finished_cells(run_id: str) -> int:
    """How many cells an unfinished run holds."""
    try:
        return (_runs() / run_id / "cells.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


_held = 0


@contextlib.contextmanager
def this_rig(doing: str) -> Iterator[None]:
    """Hold this machine for ``doing``, a few words that a second process shows its user. A process
    that holds it already may take it again.

    Raises InputError (``rig_in_use``) when another process measures, StoreError when the state
    folder cannot be written.
    """
    global _held  # noqa: PLW0603 (a lock belongs to the process)
    with contextlib.ExitStack() as lock:
        if not _held:
            path = state_dir() / "rig.lock"
            try:
                file = lock.enter_context(locked(path))
            except Locked:
                other = path.read_text(encoding="utf-8")[:200].strip() or "another process"
                raise InputError(
                    f"this machine is measuring already: {other}",
                    hint="two runs at once would measure each other: wait for it, or stop it",
                    code="rig_in_use",
                ) from None
            except OSError as error:
                raise _disk_error(path, error) from None
            file.truncate(0)
            file.write(f"{doing} (process {os.getpid()})".encode())
            file.flush()
        _held += 1
        try:
            yield
        finally:
            _held -= 1


def _write_whole(path: Path, data: Mapping[str, Any]) -> None:
    try:
        atomic_write(path, json.dumps(data, indent=1))
    except OSError as error:
        raise _disk_error(path, error) from None


def _disk_error(path: Path, error: OSError) -> StoreError:
    hint = _HINTS.get(error.errno or 0, "check the folder")
    return StoreError(
        f"cannot write {path}: {error.strerror or error}",
        hint=f"{hint}, or choose another folder with TOKRIG_STATE",
    )


def _runs() -> Path:
    return state_dir() / "runs"


def _is_free(folder: Path) -> bool:
    try:
        with locked(folder / "lock", create=False):
            return True
    except FileNotFoundError:
        return True
    except (Locked, OSError):
        return False


def _sweep(runs: Path) -> None:
    """Remove what a process left that was killed before it could say what it measures.

    Young folders may belong to a process that is just about to lock its own.
    """
    for folder in runs.iterdir() if runs.is_dir() else ():
        nameless = folder.is_dir() and not (folder / "run.json").exists()
        if nameless and time.time() - folder.stat().st_mtime > SWEEP_AFTER_S and _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
