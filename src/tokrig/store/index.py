"""One line a record, fast, and one index for whoever reads the records of a content folder.

The index is a SQLite file in the user's cache folder and only a shortcut. An entry counts while
the file's size and modification time are those it was made from, and the code that reads records
is the same. What is wrong with the index costs time and one line that says so, nothing else.

Summaries are read without the record's model, which costs ten times as much: they say what is in
the file, not that all of it is right (``tokrig check`` says so).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tokrig import parallel
from tokrig.documents import parse
from tokrig.errors import RecordError, StoreError, TokrigError
from tokrig.files import cache_dir
from tokrig.naming import backend_name, mode_label, model_name
from tokrig.record import upgrade
from tokrig.record.metrics import shown_in
from tokrig.spec.settings import SETTINGS, said_asked

# A file changed twice within its clock's tick keeps its time (FAT: 2 s), so the youngest wait.
TICK_NS = 2_000_000_000
# (t) As many times as fast as all other shapes of the same run: ``compare.kin`` looks at more.
KIN = 3.0
# How long another command may keep the index to itself before this one goes on without it.
BUSY_S = 0.5

Read = TypeVar("Read")
Progress = Callable[[int, int], None]
Stamp = tuple[int, int]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A record in one line. ``figures`` are the metrics of lists: the lowest and the highest of
    the valid results at ``concurrency``, the lowest one that has a valid result; without any there
    are none, and the concurrency is None. ``left_out`` names the shapes that are not in that range
    and why: ``agent INVALID, rag skipped``. ``asked`` are the settings that a user chose, as the
    record has them. ``planned`` and ``campaign`` are of a record that a campaign asked for;
    ``plain`` are how many of its results are; ``failure`` is why a run did not finish, ``part``
    tokrig's name of the backend."""

    id: str
    path: str
    status: str
    verdict: str
    kind: str
    level: str | None
    started_at: str | None
    rig: str
    family: str
    variant: str | None
    quant: str | None
    quant_creator: str | None
    engine: str
    build: str | None
    api: str | None
    mode: str
    workloads: list[str]
    results: int
    plain: int
    concurrency: int | None
    figures: dict[str, list[float]]
    asked: dict[str, Any]
    finished_at: str | None = None
    model_bytes: int | None = None
    planned: str | None = None
    campaign: str | None = None
    failure: str | None = None
    part: str | None = None
    left_out: str = ""

    @property
    def model(self) -> str:
        """``Gemma-3 270m``."""
        return model_name(self)

    @property
    def backend(self) -> str:
        """``llama.cpp b9174 (cuda)``."""
        return backend_name(self)

    @property
    def choices(self) -> str:
        """The mode and what else was asked for, ``n-gram speculation, KV q8_0``; "" for a
        baseline as the engine has it."""
        return ", ".join(filter(None, (mode_label(self.mode), *said_asked(self.asked))))


@dataclass(frozen=True)
class Problem:
    """A file that should be a record and cannot be read."""

    path: str
    message: str


@dataclass(frozen=True)
class Listing:
    """All records of a content folder, newest first, and the files that could not be read."""

    rows: list[Row]
    problems: list[Problem]


def listing(files: Iterable[Path], root: Path, cache: Path | None) -> Listing:
    """Summaries of ``files``, paths relative to ``root``; ``cache`` is the folder of indexes
    (None: the user's cache folder)."""
    with Index(root, cache) as index:
        found, problems = index.read("rows", files, _row_data, _kept_row)
    rows = [row for _, row in found.values()]
    rows.sort(key=lambda row: row.id)
    rows.sort(key=lambda row: row.started_at or "", reverse=True)
    return Listing(rows, problems)


# Rows

_WANTED = (
    "id|status|verdict|validity|kind|level|started_at|finished_at|campaign|planned|family|variant|"
    "quant|quant_creator|bytes|engine|build|api|asked|name|workload|concurrency|depth_tokens|load|median|message"
)
_FIGURES = shown_in("list")
_CHOSEN = [name for setting in SETTINGS.values() for name in setting.asked]
_WANTED = "|".join((_WANTED, *_CHOSEN, *(word for m in _FIGURES for word in m.name.split("."))))
# At six or more columns only parts of such a figure are wanted, whatever else is called alike.
_PARTS = "|".join(m.name.partition(".")[2] for m in _FIGURES if "." in m.name) or "(?!)"
# One key with all of its value, in the simple forms tokrig writes. A deeper line after it would
# belong to the value, so there must be none.
_QUOTED = r'"[^"\\\n]*"'
_FLAT = r"""[^{}\[\]"'#]"""
_UNUSED = re.compile(
    rf"^( {{2,}})(?:(?<= {{6}})(?!(?:{_PARTS}):)|(?!(?:{_WANTED}):))[a-z_0-9]+: "
    rf"(?:[\w.+-]+|{_QUOTED}|\[(?:{_FLAT}|{_QUOTED})*+\]"
    rf"|\{{(?:{_FLAT}|{_QUOTED}|\[(?:{_FLAT}|{_QUOTED})*+\])*+\}})\n"
    r"(?!(?: *\n)*+\1 )",
    re.MULTILINE,
)


def summarise(text: str, name: str) -> Row:
    """The summary of a record's YAML text; ``name``, the path of its file, goes into messages.

    Raises RecordError for what is no readable record.
    """
    try:
        return _row(parse(_skimmed(text), name, RecordError), name)
    except RecordError:
        # The full text tells the right line, or that leaving lines out was the trouble.
        return _row(parse(text, name, RecordError), name)


def _skimmed(text: str) -> str:
    """The text without one-line values that no summary needs: three quarters of a record, and
    of the time to parse it. Dropping such a line drops one key, or a line of some prose."""
    return _UNUSED.sub("", text)


def _row_data(text: str, name: str) -> str:
    return json.dumps(vars(summarise(text, name)), separators=(",", ":"))


def _kept_row(data: str) -> Row:
    return Row(**json.loads(data))


def _row(data: Any, name: str) -> Row:
    try:
        row = _unchecked_row(upgrade(data), name)
        _ = row.choices  # a value that no setting has shows here
        for field in fields(Row):
            if not _fits(value := getattr(row, field.name), str(field.type)):
                raise ValueError(f"{field.name} is {value!r}")
        if row.id != Path(name).stem:
            raise ValueError(f"the id {row.id!r} does not match the file name")
    except RecordError as problem:
        raise RecordError(f"{name}: {problem.message}", hint=problem.hint) from None
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise RecordError(
            f"{name}: a key is missing or misplaced: {problem}",
            hint=f"tokrig check {name} names the line",
        ) from None
    return row


def _unchecked_row(data: dict[str, Any], name: str) -> Row:
    provenance, model, backend = data["provenance"], data["model"], data["backend"]
    results = data.get("results") or []
    mode = (data.get("mode") or {}).get("name", "baseline")
    ours = [one for one in results if _is_plain(one)]
    headline, doubtful = _headline(ours, plain=mode == "baseline")
    concurrency = headline[0]["concurrency"] if headline else None
    return Row(
        id=data["id"],
        path="/".join(Path(name).parts[-2:]),
        status=data["status"],
        verdict=_word(data["validity"], doubtful or provenance["kind"] != "measured"),
        kind=provenance["kind"],
        level=provenance.get("level"),
        started_at=provenance.get("started_at"),
        rig=data["rig"]["id"],
        family=model["family"],
        variant=model.get("variant"),
        quant=model.get("quant"),
        quant_creator=model.get("quant_creator"),
        engine=backend["engine"],
        build=backend.get("build"),
        api=backend.get("api"),
        mode=mode,
        workloads=list(dict.fromkeys(result["workload"]["name"] for result in results)),
        results=len(results),
        plain=len(ours),
        concurrency=concurrency,
        figures=_ranges(headline),
        asked=backend.get("asked") or {},
        finished_at=provenance.get("finished_at"),
        model_bytes=model.get("bytes"),
        planned=provenance.get("planned"),
        campaign=provenance.get("campaign"),
        failure=(data.get("failure") or {}).get("message"),
        part=backend.get("name"),
        left_out=_left_out(ours, filter(_is_plain, data.get("skipped") or []), concurrency),
    )


def _word(validity: dict[str, Any], doubtful: bool) -> str:
    """``Validity.word``, without the model, which takes a while to load."""
    verdict: str = validity["verdict"]
    return (
        "unverified" if verdict == "valid" and (doubtful or validity.get("unverified")) else verdict
    )


def _is_plain(cell: dict[str, Any]) -> bool:
    """``Cell.plain``, of a result's or a skipped cell's plain data."""
    return cell.get("load", "closed") == "closed" and not cell.get("depth_tokens")


def _headline(results: list[dict[str, Any]], plain: bool) -> tuple[list[dict[str, Any]], bool]:
    """The results at the lowest concurrency that have a rate which stands, the slowest first, and
    whether one was left out for being several times as fast as all others. In a ``plain`` run
    tokens come one by one."""

    def rate(result: dict[str, Any]) -> float:
        return float(result["output_tok_per_s"]["median"])

    found = [
        result
        for result in results
        if result.get("output_tok_per_s") and result["validity"]["verdict"] != "invalid"
    ]
    lowest = min((result["concurrency"] for result in found), default=None)
    found = sorted((result for result in found if result["concurrency"] == lowest), key=rate)
    doubtful = plain and len(found) > 2 and rate(found[-1]) > KIN * rate(found[-2])
    return found[:-1] if doubtful else found, doubtful


def _ranges(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The lowest and the highest value of each metric of lists."""
    found = {}
    for metric in _FIGURES:
        block, _, part = metric.name.partition(".")
        each = [
            (result.get(block) or {}).get(part) if part else result.get(block) for result in results
        ]
        values = [
            one["median"] if isinstance(one, dict) else one for one in each if one is not None
        ]
        if not all(_fits(value, "float") for value in values):
            raise ValueError(f"{metric.name} is {values!r}")
        if values:
            found[metric.name] = [min(values), max(values)]
    return found


def _left_out(
    results: list[dict[str, Any]], skipped: Iterable[dict[str, Any]], concurrency: int | None
) -> str:
    """The shapes that have no figure in the range at ``concurrency``."""
    at = [result for result in results if result["concurrency"] == concurrency]
    invalid = [r["workload"]["name"] for r in at if r["validity"]["verdict"] == "invalid"]
    named = [f"{name} INVALID" for name in invalid]
    named += [
        f"{result['workload']['name']} without a rate"
        for result in at
        if not result.get("output_tok_per_s") and result["workload"]["name"] not in invalid
    ]
    named += [f"{one['workload']} skipped" for one in skipped if one["concurrency"] == concurrency]
    return ", ".join(named)


def _fits(value: Any, kind: str) -> bool:
    """Whether ``value`` is what a field of ``Row`` says; annotations are text in this module."""
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("dict"):
        return isinstance(value, dict)
    if kind.startswith("list"):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind.startswith("float"):
        return isinstance(value, float | int) and not isinstance(value, bool)
    wanted = int if kind.startswith("int") else str
    return isinstance(value, wanted) and not isinstance(value, bool)


# The index


def index_path(root: Path, cache: Path | None, suffix: str = ".sqlite") -> Path:
    """Where the index of the records under ``root`` lies; its folder is made. Raises OSError, and
    StoreError for a user without a home."""
    folder = cache or cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape"))
    return folder / f"records-{digest.hexdigest()[:16]}{suffix}"


class Index:
    """What was read of the records under ``root``, by kind: ``rows`` for lists, ``records`` for
    whoever needs all of them. In memory where the disk refuses."""

    def __init__(self, root: Path, cache: Path | None) -> None:
        self._root = root
        try:
            path = index_path(root, cache)
        except (OSError, StoreError) as problem:
            self._go_without(getattr(problem, "strerror", None) or str(problem))
            return
        try:
            self._database = _opened(str(path))
        except sqlite3.OperationalError as problem:  # locked, read-only, no such folder
            self._go_without(str(problem))
        except sqlite3.DatabaseError as problem:
            _say(f"the index of records was damaged ({problem}) and is made anew: {path}")
            try:
                path.unlink()
                self._database = _opened(str(path))
            except (OSError, sqlite3.Error) as second:
                self._go_without(str(second))

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def read(
        self,
        kind: str,
        files: Iterable[Path],
        make: Callable[[str, str], str],
        use: Callable[[str], Read],
        progress: Progress = lambda done, of: None,
    ) -> tuple[dict[str, tuple[str, Read]], list[Problem]]:
        """What ``use`` makes of each file's data, with the digest of its text, by its path under
        the root. The data are those kept as ``kind``, or ``make``'s of a text and its file, which
        raises a TokrigError for what is no record; many are made by all processors. ``progress``
        is told how many of the unread files are read.
        """
        found: dict[str, tuple[str, Read]] = {}
        problems: list[Problem] = []
        unread: dict[str, tuple[str, Stamp | None]] = {}
        known = self._known(kind)
        for file in files:
            path = f"{file.parent.name}/{file.name}"
            try:
                stat = file.stat()
                stamp = (stat.st_size, stat.st_mtime_ns)
                digest, data = known.get(path, {}).get(stamp, ("", ""))
                if digest:
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        found[path] = (digest, use(data))
                        continue
                began = time.time_ns()
                text = file.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as problem:
                problems.append(Problem(path, f"{file}: cannot be read: {problem}"))
                continue
            settled = not 0 <= began - stat.st_mtime_ns < TICK_NS
            unread[path] = (text, stamp if settled else None)
        jobs = [(text, str(self._root / path)) for path, (text, _) in unread.items()]
        made = parallel.map_forked(functools.partial(_made, make), jobs)
        new: list[tuple[str, int, int, str, str]] = []
        for number, ((path, (text, settled_as)), outcome) in enumerate(
            zip(unread.items(), made, strict=True)
        ):
            progress(number + 1, len(jobs))
            if isinstance(outcome, TokrigError):
                message = f"{outcome.message}\n{outcome.hint}".strip()
                problems.append(Problem(path, message))
                continue
            digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            found[path] = (digest, use(outcome))
            if settled_as:
                new.append((path, *settled_as, digest, outcome))
        self._keep(kind, new, gone=known.keys() - found.keys())
        return found, problems

    def _known(self, kind: str) -> Mapping[str, Mapping[Stamp, tuple[str, str]]]:
        try:
            kept = self._database.execute(f"SELECT {_COLUMNS} FROM {kind}")
            return {path: {(size, at): (digest, data)} for path, size, at, digest, data in kept}
        except sqlite3.Error as problem:
            self._go_without(str(problem))
            return {}

    def _keep(
        self, kind: str, new: list[tuple[str, int, int, str, str]], *, gone: set[str]
    ) -> None:
        if not (new or gone):
            return
        try:
            with self._database:
                for table in _KINDS:
                    forgotten = [(path,) for path in gone]
                    self._database.executemany(f"DELETE FROM {table} WHERE path = ?", forgotten)
                self._database.executemany(
                    f"INSERT OR REPLACE INTO {kind} VALUES (?, ?, ?, ?, ?)", new
                )
        except sqlite3.Error as problem:
            _say_without(str(problem))

    def _go_without(self, why: str) -> None:
        _say_without(why)
        self._database = _opened(":memory:")


_KINDS = ("rows", "records")
_COLUMNS = "path, size, mtime_ns, digest, data"


def _opened(name: str) -> sqlite3.Connection:
    """The database, its tables made anew where other code has made them."""
    database = sqlite3.connect(name, timeout=BUSY_S)
    try:
        if not _is_current(database):
            with database:
                database.execute("BEGIN IMMEDIATE")
                for table in ("reader", *_KINDS):
                    database.execute(f"DROP TABLE IF EXISTS {table}")
                database.execute("CREATE TABLE reader (digest TEXT)")
                database.execute("INSERT INTO reader VALUES (?)", (reader_digest(),))
                for kind in _KINDS:
                    database.execute(f"CREATE TABLE {kind} ({_COLUMNS}, PRIMARY KEY (path))")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _is_current(database: sqlite3.Connection) -> bool:
    """Whether the tables are there, and of this code."""
    try:
        for kind in _KINDS:
            database.execute(f"SELECT {_COLUMNS} FROM {kind} LIMIT 0")
        reader = database.execute("SELECT digest FROM reader").fetchall()
    except sqlite3.OperationalError:
        return False
    return reader == [(reader_digest(),)]


def _made(make: Callable[[str, str], str], job: tuple[str, str]) -> str | TokrigError:
    try:
        return make(*job)
    except TokrigError as problem:
        return problem


@functools.cache
def reader_digest() -> str:
    """Changes with every change of the code that reads records."""
    package = Path(__file__).parent.parent
    folders = (package / "record", package / "spec", package / "store")
    sources = sorted(source for folder in folders for source in folder.glob("*.py"))
    together = hashlib.sha256()
    for source in (*sources, package / "documents.py", package / "naming.py"):
        together.update(source.read_bytes())
    return together.hexdigest()


def _say_without(why: str) -> None:
    _say(f"no index of records, so all of them are read again each time: {why}")


@functools.cache
def _say(line: str) -> None:
    """One line on stderr, once: without any handler, Python's logging prints the bare message."""
    log.warning(line)
