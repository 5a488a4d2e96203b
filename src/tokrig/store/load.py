"""All records of a content folder, read once and kept: only new and changed files are parsed.

What was parsed and validated is kept as JSON in a database in the user's cache folder, which is
only a shortcut: an entry counts while the file's size and modification time are those it was
made from and the code that reads records is the same. A database that is broken or cannot be
written costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokrig.record
from tokrig import documents, parallel
from tokrig.errors import RecordError, TokrigError
from tokrig.files import cache_dir
from tokrig.record.model import Record, Result, Validity
from tokrig.record.recompute import own_contradictions
from tokrig.record.text import parse_record
from tokrig.store import Store
from tokrig.store.index import TICK_NS, Problem

CONTRADICTORY = "contradictory"

Progress = Callable[[int, int], None]
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Run:
    """A record and the file it came from. ``path`` is relative to the folder of runs
    (``<rig>/<id>.yaml``); ``digest`` is the SHA-256 of the file, ``samples_digest`` a mark of its
    samples file that changes with it, None without samples."""

    record: Record
    path: str
    digest: str
    samples_digest: str | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id


@dataclass(frozen=True)
class Row:
    """One result of a run: one workload at one concurrency."""

    run: Run
    result: Result


@dataclass(frozen=True)
class Loaded:
    """All runs, newest first (those without a date last, by id), and the files left out."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


def rows(runs: tuple[Run, ...]) -> Iterator[Row]:
    """All results of ``runs``, in their order."""
    return (Row(run, result) for run in runs for result in run.record.results)


def load(
    store: Store,
    *,
    keep_going: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda done, of: None,
) -> Loaded:
    """Every record of ``store``. ``progress`` is told how many of the unread files are read.

    Raises RecordError naming file and line of what cannot be read, unless ``keep_going``: then
    those files are listed in ``problems``.
    """
    kept = _Kept((cache or cache_dir()) / f"records-{_digest(str(store.runs.resolve()))}.sqlite")
    with contextlib.closing(kept), _without_collections():
        found, problems = _read(store, kept, progress)
    problems += _misplaced(store, found)
    if problems and not keep_going:
        raise _refusal(problems)
    wrong = {problem.path for problem in problems}
    samples = _samples(store)
    runs = [
        Run(record, path, digest, samples.get(record.id))
        for path, (digest, record) in found.items()
        if path not in wrong
    ]
    runs.sort(key=lambda run: run.id)
    runs.sort(key=lambda run: run.record.provenance.started_at or "", reverse=True)
    return Loaded(tuple(runs), tuple(problems))


def _read(
    store: Store, kept: _Kept, progress: Progress
) -> tuple[dict[str, tuple[str, Record]], list[Problem]]:
    """Records with the digests of their files, by path; the unread ones by all processors."""
    found: dict[str, tuple[str, Record]] = {}
    problems: list[Problem] = []
    unread: dict[str, tuple[str, Stamp | None]] = {}
    known = kept.entries()
    for file in store.iter_paths():
        path = file.relative_to(store.runs).as_posix()
        try:
            stat = file.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            old = known.get(path)
            if old and old[0] == stamp:
                found[path] = (old[1], Record.model_validate_json(old[2]))
                continue
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as problem:
            problems.append(Problem(path, f"{file}: cannot be read: {problem}"))
            continue
        # A file changed twice within its clock's tick keeps its time: the youngest are not kept.
        settled = not 0 <= time.time_ns() - stat.st_mtime_ns < TICK_NS
        unread[path] = (text, stamp if settled else None)

    jobs = [(text, str(store.runs / path)) for path, (text, _) in unread.items()]
    new: list[tuple[str, int, int, str, bytes]] = []
    outcomes = zip(unread, parallel.map_forked(_as_json, jobs), strict=True)
    for number, (path, outcome) in enumerate(outcomes):
        progress(number + 1, len(jobs))
        if isinstance(outcome, str):
            problems.append(Problem(path, outcome))
            continue
        text, stamp_or_none = unread[path]
        found[path] = (_digest(text), Record.model_validate_json(outcome))
        if stamp_or_none:
            new.append((path, *stamp_or_none, found[path][0], outcome))
    kept.update(new, gone=known.keys() - found.keys())
    return found, problems


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Records stay, and there are millions of objects in them: looking through them for garbage
    again and again takes three quarters of the time to read them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _as_json(job: tuple[str, str]) -> bytes | str:
    """A record's text as JSON bytes, or what is wrong with it as text."""
    try:
        record = parse_record(*job)
        if own_contradictions(record):
            record = _refuted(record)
        elif record.provenance.kind != "measured":
            record = _unseen(record)
        return record.model_dump_json(by_alias=True, exclude_none=True).encode()
    except TokrigError as problem:
        return f"{problem.message}\n{problem.hint}".strip()


def _refuted(record: Record) -> Record:
    """A record that contradicts itself: which of its figures is wrong cannot be told, so all of
    them are shown as invalid. It is not left out, and builds go on: one file of a thousand is no
    reason for no page, and ``tokrig check`` refuses it."""

    def invalid(validity: Validity) -> Validity:
        reasons = list(dict.fromkeys([*validity.reasons, CONTRADICTORY]))
        return validity.model_copy(update={"verdict": "invalid", "reasons": reasons})

    results = [r.model_copy(update={"validity": invalid(r.validity)}) for r in record.results]
    return record.model_copy(update={"results": results, "validity": invalid(record.validity)})


def _unseen(record: Record) -> Record:
    """Figures without samples are unverified; version 1 only listed that nobody had looked."""

    def doubted(validity: Validity) -> Validity:
        if validity.verdict != "valid":
            return validity
        unverified = list(dict.fromkeys([*validity.unverified, "samples"]))
        return validity.model_copy(update={"verdict": "unverified", "unverified": unverified})

    results = [r.model_copy(update={"validity": doubted(r.validity)}) for r in record.results]
    return record.model_copy(update={"results": results, "validity": doubted(record.validity)})


def refuted(loaded: Loaded, store: Store) -> list[Problem]:
    """What contradicts itself in each record that is shown as invalid for it, file and line."""
    problems = []
    for run in loaded.runs:
        if CONTRADICTORY not in run.record.validity.reasons:
            continue
        path = store.runs / run.path
        text = path.read_text(encoding="utf-8-sig")
        found = own_contradictions(parse_record(text, str(path)))
        for line, one in zip(
            documents.lines_of(text, [c.place for c in found]), found, strict=True
        ):
            problems.append(Problem(run.path, f"{path}:{line}: {one}"))
    return problems


def _misplaced(store: Store, found: dict[str, tuple[str, Record]]) -> list[Problem]:
    """Files whose place contradicts what is in them: pages and samples go by the id alone."""
    problems = []
    owners: dict[str, str] = {}
    for path, (_, record) in sorted(found.items()):
        try:
            place = store.record_path(record).relative_to(store.runs).as_posix()
        except RecordError as problem:
            problems.append(Problem(path, f"{path}: {problem.message}; {problem.hint}"))
            continue
        if path != place:
            problems.append(Problem(path, f"{path}: its rig and id belong to {place}"))
        elif record.id in owners:
            problems.append(Problem(path, f"{path}: {owners[record.id]} has the same id"))
        else:
            owners[record.id] = path
    return problems


def _refusal(problems: list[Problem]) -> RecordError:
    listed = [problem.message for problem in problems[: documents.MAX_LISTED]]
    if len(problems) > len(listed):
        listed.append(f"… and {len(problems) - len(listed)} more files")
    return RecordError(
        "\n".join(listed), hint="tokrig check names all that is wrong; --keep-going leaves them out"
    )


def _samples(store: Store) -> dict[str, str]:
    """Marks of all samples files by run id."""
    marks = {}
    with contextlib.suppress(FileNotFoundError):
        for file in store.samples.iterdir():
            if file.suffix == ".parquet" and not file.name.startswith("."):
                stat = file.stat()
                marks[file.stem] = f"{stat.st_size}-{stat.st_mtime_ns}"
    return marks


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _reader_digest() -> str:
    """Changes with every change of the code that reads records."""
    sources = [Path(documents.__file__), *Path(next(iter(tokrig.record.__path__))).glob("*.py")]
    together = hashlib.sha256()
    for source in sorted(sources):
        together.update(source.read_bytes())
    return together.hexdigest()


class _Kept:
    """What was read before: path → (stamp, digest, JSON). In memory where the disk refuses."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._opened(str(path))
        except (OSError, sqlite3.Error):
            with contextlib.suppress(OSError):
                path.unlink()
            self._database = self._opened(":memory:")

    def _opened(self, name: str) -> sqlite3.Connection:
        database = sqlite3.connect(name)
        try:
            reader = _reader_digest()
            database.execute("CREATE TABLE IF NOT EXISTS reader (digest TEXT)")
            if database.execute("SELECT digest FROM reader").fetchall() != [(reader,)]:
                database.executescript("DROP TABLE IF EXISTS records; DELETE FROM reader;")
                database.execute("INSERT INTO reader VALUES (?)", (reader,))
            database.execute(
                "CREATE TABLE IF NOT EXISTS records (path TEXT PRIMARY KEY, size INTEGER,"
                " mtime_ns INTEGER, digest TEXT, json BLOB)"
            )
            database.commit()
        except sqlite3.Error:
            database.close()
            raise
        return database

    def entries(self) -> dict[str, tuple[Stamp, str, bytes]]:
        try:
            found = self._database.execute("SELECT path, size, mtime_ns, digest, json FROM records")
            return {path: ((size, time), digest, data) for path, size, time, digest, data in found}
        except sqlite3.Error:
            return {}

    def update(self, new: list[tuple[str, int, int, str, bytes]], *, gone: set[str]) -> None:
        with contextlib.suppress(sqlite3.Error), self._database:
            self._database.executemany("DELETE FROM records WHERE path = ?", [(p,) for p in gone])
            self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", new)

    def close(self) -> None:
        self._database.close()
