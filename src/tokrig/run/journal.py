"""What a run has measured so far, on disk while it runs: nothing finished is ever lost.

One folder a run under the state folder (``TOKRIG_STATE``, else ``$XDG_STATE_HOME/tokrig``):
``run.json`` (what is being measured), ``cells.jsonl`` (one line a finished cell, flushed to the
disk before the next begins), ``skipped.json`` (cells that could not be measured), ``engine.log``.
A lock that the kernel drops when the process ends, however it ends, tells a running run from an
abandoned one. The folder is removed once the record is in the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tokrig.errors import InputError, StoreError, did_you_mean
from tokrig.record.samples import Chunk, EngineTimings, Kind, Sample

SWEEP_AFTER_S = 60


def state_folder() -> Path:
    """Where unfinished runs live."""
    if chosen := os.environ.get("TOKRIG_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tokrig"


@dataclass(frozen=True)
class Observed:
    """What was seen beside the samples during one cell's measured phase. None = not looked at.

    Most fields are those of the record's ``Interference``. ``window_s`` is the time over which
    energy was counted.
    """

    wall_s: float = 0.0
    window_s: float = 0.0
    client_cpu_share: float | None = None
    engine_rss_bytes: int | None = None
    engine_vram_bytes: int | None = None
    load_average_max: float | None = None
    engine_wait_share: float | None = None
    foreign_wait_share: float | None = None
    thread_wait_share: float | None = None
    engine_cpus: int | None = None
    other_cores_mean: float | None = None
    other_cpu_share_max: float | None = None
    steal_share: float | None = None
    client_wait_share: float | None = None
    client_late_share: float | None = None
    throttle_reasons: list[str] | None = None
    throttled_share: float | None = None
    power_limited_share: float | None = None
    gpu_temperature_max_c: float | None = None
    gpu_power_mean_w: float | None = None
    gpu_enforced_limit_w: float | None = None
    gpu_power_over_limit: float | None = None
    gpu_busy_before: float | None = None
    foreign_gpu_processes: int | None = None
    graphics_processes: int | None = None
    graphics_busy_share: float | None = None
    energy_j: dict[str, float] = field(default_factory=dict)
    idle_w: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRecord:
    """One finished cell of one repeat: the unit a resumed run does not repeat."""

    workload: str
    concurrency: int
    repeat: int
    samples: list[Sample]
    observed: Observed


class Journal:
    """The folder of one run, locked while this process works on it."""

    def __init__(self, folder: Path, lock: BinaryIO) -> None:
        self.folder = folder
        self._lock = lock

    @property
    def log_path(self) -> Path:
        """The engine's log."""
        return self.folder / "engine.log"

    @property
    def run_id(self) -> str:
        return self.folder.name

    def describe(self, facts: dict[str, Any]) -> None:
        """Write ``run.json``, whole or not at all."""
        _write_whole(self.folder / "run.json", json.dumps(facts, indent=1))

    def facts(self) -> dict[str, Any]:
        """What ``describe`` wrote."""
        found = _read_json(self.folder / "run.json")
        if found is None:
            raise InputError(
                f"the unfinished run {self.run_id} is damaged: no readable run.json",
                hint=f"discard it with: tokrig run --discard {self.run_id}",
                code="run_damaged",
            )
        return found

    def note_engine(self, facts: dict[str, Any]) -> None:
        """Keep what the engine said about itself, for a process that may have to go on."""
        _write_whole(self.folder / "engine.json", json.dumps(facts, indent=1))

    def engine_facts(self) -> dict[str, Any]:
        """What ``note_engine`` wrote last; empty before the engine was ever ready."""
        return _read_json(self.folder / "engine.json") or {}

    def add(self, cell: CellRecord) -> None:
        """Append a finished cell and wait until it is on the disk. Raises StoreError."""
        line = json.dumps(_to_json(cell), separators=(",", ":")) + "\n"
        path = self.folder / "cells.jsonl"
        try:
            with open(path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _disk_error(path, error) from None

    def cells(self) -> list[CellRecord]:
        """All finished cells. A line cut short by a crash ends the list: its cell was not done."""
        cells: list[CellRecord] = []
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.folder / "cells.jsonl", encoding="utf-8") as file,
        ):
            for line in file:
                try:
                    cells.append(_from_json(json.loads(line)))
                except (ValueError, KeyError, TypeError):
                    break
        return cells

    def note_skipped(self, facts: Mapping[str, Any]) -> None:
        """Keep that a cell could not be measured, and why: who goes on need not try it again."""
        known = [*self.skipped(), dict(facts)]
        _write_whole(self.folder / "skipped.json", json.dumps({"skipped": known}, indent=1))

    def skipped(self) -> list[dict[str, Any]]:
        """What ``note_skipped`` kept."""
        return list((_read_json(self.folder / "skipped.json") or {}).get("skipped", []))

    def mend(self) -> None:
        """Cut a half-written last line off, so that what is added next stands on its own."""
        path = self.folder / "cells.jsonl"
        with contextlib.suppress(FileNotFoundError):
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                os.truncate(path, len(whole))

    def discard(self) -> None:
        """Remove the folder: its record is in the store, or nobody wants it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


@contextlib.contextmanager
def begin(run_id: str) -> Iterator[Journal]:
    """A new journal. Raises StoreError when the state folder cannot be written."""
    folder = state_folder() / "runs" / run_id
    _sweep(folder.parent)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _disk_error(folder, error) from None
    journal = _open(folder)
    try:
        yield journal
    finally:
        journal.close()


@contextlib.contextmanager
def reopen(run_id: str) -> Iterator[Journal]:
    """The journal of an unfinished run. Raises InputError if there is none or it still runs."""
    known = unfinished()
    if run_id not in known:
        hint = did_you_mean(run_id, known) if known else "there is no unfinished run"
        raise InputError(f"no unfinished run {run_id!r}", hint=hint)
    journal = _open(state_folder() / "runs" / run_id)
    try:
        journal.mend()
        yield journal
    finally:
        journal.close()


def unfinished() -> list[str]:
    """Ids of runs that were begun, not finished, and that no living process works on."""
    folder = state_folder() / "runs"
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if (p / "run.json").exists() and _is_free(p))


def described(run_id: str) -> dict[str, Any]:
    """What an unfinished run was begun as; empty where that cannot be read."""
    return _read_json(state_folder() / "runs" / run_id / "run.json") or {}


def finished_cells(run_id: str) -> int:
    """How many cells an unfinished run holds."""
    path = state_folder() / "runs" / run_id / "cells.jsonl"
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _open(folder: Path) -> Journal:
    try:
        lock = open(folder / "lock", "ab")  # noqa: SIM115 (held as long as the journal)
    except OSError as error:
        raise _disk_error(folder, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InputError(
            f"the run {folder.name} is still going on in another process",
            hint="wait for it, or stop that process",
        ) from None
    return Journal(folder, lock)


def _sweep(runs: Path) -> None:
    """Remove what a process left that was killed before it could say what it measures.

    Young folders may belong to a process that is just about to lock its own.
    """
    for folder in runs.iterdir() if runs.is_dir() else ():
        nameless = folder.is_dir() and not (folder / "run.json").exists()
        if nameless and time.time() - folder.stat().st_mtime > SWEEP_AFTER_S and _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_free(folder: Path) -> bool:
    try:
        with open(folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def _to_json(cell: CellRecord) -> dict[str, Any]:
    data = dataclasses.asdict(cell)
    for sample, row in zip(cell.samples, data["samples"], strict=True):
        row["chunks"] = [[c.t_ns, int(c.kind), c.text] for c in sample.chunks]
    return data


def _from_json(data: dict[str, Any]) -> CellRecord:
    samples = []
    for row in data["samples"]:
        chunks = tuple(Chunk(t, Kind(kind), text) for t, kind, text in row["chunks"])
        timings = EngineTimings(**row["timings"]) if row["timings"] else None
        samples.append(Sample(**{**row, "chunks": chunks, "timings": timings}))
    return CellRecord(
        data["workload"],
        data["concurrency"],
        data["repeat"],
        samples,
        Observed(**data["observed"]),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _disk_error(path, error) from None


def _disk_error(path: Path, error: OSError) -> StoreError:
    hints = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "the folder may not be written",
    }
    hint = hints.get(error.errno or 0, "check the folder")
    return StoreError(
        f"cannot write {path}: {error.strerror or error}",
        hint=f"{hint}, or choose another folder with TOKRIG_STATE",
    )
