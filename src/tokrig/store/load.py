"""All records of a content folder, read once and kept: only new and changed files are parsed.

What was parsed and validated is kept as JSON in the index of records.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokrig import documents
from tokrig.errors import RecordError
from tokrig.record.consistency import own_contradictions
from tokrig.record.model import Record, Result, Validity, Verdict, parse_record
from tokrig.store import Store
from tokrig.store.index import Index, Problem, Progress

CONTRADICTORY = "contradictory"


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
    with Index(store.runs, cache) as index, _without_collections():
        found, problems = index.read(
            "records", store.iter_paths(), _as_json, Record.model_validate_json, progress
        )
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


def _as_json(text: str, name: str) -> str:
    """A record's text as JSON, with the verdicts that pages show. Raises RecordError.

    Of a record that contradicts itself nobody can tell which figure is wrong, so all are shown as
    invalid. It is not left out, and builds go on: one file of a thousand is no reason for no page,
    and ``tokrig check`` refuses it. Figures without samples are unverified; version 1 only listed
    that nobody had looked.
    """
    record = parse_record(text, name)
    if own_contradictions(record):
        record = _marked(record, "invalid", "reasons", CONTRADICTORY)
    elif record.provenance.kind != "measured":
        record = _marked(record, "unverified", "unverified", "samples")
    return record.model_dump_json(by_alias=True, exclude_none=True)


def _marked(record: Record, verdict: Verdict, codes: str, code: str) -> Record:
    def marked(validity: Validity) -> Validity:
        if verdict == "unverified" and validity.verdict != "valid":
            return validity
        found = list(dict.fromkeys([*getattr(validity, codes), code]))
        return validity.model_copy(update={"verdict": verdict, codes: found})

    results = [r.model_copy(update={"validity": marked(r.validity)}) for r in record.results]
    return record.model_copy(update={"results": results, "validity": marked(record.validity)})


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
