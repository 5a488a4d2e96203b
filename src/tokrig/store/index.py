"""One line a record, fast: summaries for lists, kept in an index in the user's cache folder.

The index is only a shortcut. An entry counts while the file's size and modification time are
those it was made from; a broken, foreign or unwritable index is passed over in silence and made
anew. Summaries are read without the record's model, which costs ten times as much: they say what
is in the file, not that all of it is right (``tokrig check`` says so).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokrig import parallel
from tokrig.documents import parse
from tokrig.errors import RecordError
from tokrig.files import atomic_write, cache_dir
from tokrig.naming import backend_name, model_name
from tokrig.record import SCHEMA_VERSION
from tokrig.record.text import upgrade

INDEX_VERSION = 3
# A file changed twice within its clock's tick keeps its time (FAT: 2 s), so the youngest wait.
TICK_NS = 2_000_000_000
# (t) As many times as fast as all other shapes of the same run: ``query.plausible`` looks at more.
KIN = 3.0


@dataclass(frozen=True)
class Row:
    """A record in one line. The rates are the lowest and highest median decode rate (tok/s)
    over the valid results at ``concurrency``, the lowest one that has a valid result; all three
    are None when no result is valid. ``left_out`` names the shapes that are not in that range and
    why: ``agent INVALID, rag skipped``. ``planned`` and ``campaign`` are of a record that a
    campaign asked for; ``failure`` is why a run did not finish, ``part`` tokrig's name of the
    backend."""

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
    workloads: tuple[str, ...]
    results: int
    concurrency: int | None
    output_tok_per_s_min: float | None
    output_tok_per_s_max: float | None
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


Entry = Row | Problem
_LAYOUT = [INDEX_VERSION, SCHEMA_VERSION, *(field.name for field in fields(Row))]
_WORKLOADS = [field.name for field in fields(Row)].index("workloads")
_WANTED = (
    "id|status|verdict|validity|kind|level|started_at|finished_at|campaign|planned|family|variant|"
    "quant|quant_creator|bytes|engine|build|api|name|workload|concurrency|output_tok_per_s|median|"
    "message"
)
# Nothing at six or more columns is wanted, whatever its name: those are the engine's own figures.
# One key with all of its value, in the simple forms tokrig writes. A deeper line after it would
# belong to the value, so there must be none.
_QUOTED = r'"[^"\\\n]*"'
_FLAT = r"""[^{}\[\]"'#]"""
_UNUSED = re.compile(
    rf"^( {{2,}})(?:(?<= {{6}})|(?!(?:{_WANTED}):))[a-z_0-9]+: "
    rf"(?:[\w.+-]+|{_QUOTED}|\[(?:{_FLAT}|{_QUOTED})*+\]"
    rf"|\{{(?:{_FLAT}|{_QUOTED}|\[(?:{_FLAT}|{_QUOTED})*+\])*+\}})\n"
    r"(?!(?: *\n)*+\1 )",
    re.MULTILINE,
)


def summarise(text: str, path: str) -> Row:
    """The summary of a record's YAML text; ``path`` goes into the row and into messages.

    Raises RecordError for what is no readable record.
    """
    try:
        return _row(parse(_skimmed(text), path, RecordError), path)
    except RecordError:
        # The full text tells the right line, or that leaving lines out was the trouble.
        return _row(parse(text, path, RecordError), path)


def _skimmed(text: str) -> str:
    """The text without one-line values that no summary needs: three quarters of a record, and
    of the time to parse it. Dropping such a line drops one key, or a line of some prose."""
    return _UNUSED.sub("", text)


def _row(data: Any, path: str) -> Row:
    try:
        row = _unchecked_row(upgrade(data), path)
        _check(row)
    except RecordError as problem:
        raise RecordError(f"{path}: {problem.message}", hint=problem.hint) from None
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise RecordError(
            f"{path}: a key is missing or misplaced: {problem}",
            hint=f"tokrig check {path} names the line",
        ) from None
    return row


def _unchecked_row(data: dict[str, Any], path: str) -> Row:
    provenance, model, backend = data["provenance"], data["model"], data["backend"]
    results = data.get("results") or []
    mode = (data.get("mode") or {}).get("name", "baseline")
    concurrency, rates, doubtful = _headline(results, plain=mode == "baseline")
    return Row(
        id=data["id"],
        path=path,
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
        workloads=tuple(dict.fromkeys(result["workload"]["name"] for result in results)),
        results=len(results),
        concurrency=concurrency,
        output_tok_per_s_min=min(rates, default=None),
        output_tok_per_s_max=max(rates, default=None),
        finished_at=provenance.get("finished_at"),
        model_bytes=model.get("bytes"),
        planned=provenance.get("planned"),
        campaign=provenance.get("campaign"),
        failure=(data.get("failure") or {}).get("message"),
        part=backend.get("name"),
        left_out=_left_out(results, data.get("skipped") or [], concurrency),
    )


def _word(validity: dict[str, Any], doubtful: bool) -> str:
    """``Validity.word``, without the model, which takes a while to load."""
    verdict: str = validity["verdict"]
    return (
        "unverified" if verdict == "valid" and (doubtful or validity.get("unverified")) else verdict
    )


def _headline(results: list[dict[str, Any]], plain: bool) -> tuple[int | None, list[float], bool]:
    """Lowest concurrency with a rate that stands, the medians there, and whether one was left out
    for being several times as fast as all others. In a ``plain`` run tokens come one by one."""
    rates: dict[int, list[float]] = {}
    for result in results:
        metric = result.get("output_tok_per_s")
        if metric and result["validity"]["verdict"] != "invalid":
            rates.setdefault(result["concurrency"], []).append(metric["median"])
    if not rates:
        return None, [], False
    lowest = min(rates)
    *others, fastest = sorted(rates[lowest])
    doubtful = plain and len(others) > 1 and fastest > KIN * others[-1]
    return lowest, others if doubtful else rates[lowest], doubtful


def _left_out(
    results: list[dict[str, Any]], skipped: list[dict[str, Any]], concurrency: int | None
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


def _check(row: Row) -> None:
    """Raises ValueError for a value of the wrong type, or an id that is not the file's name."""
    for field in fields(Row):
        value = getattr(row, field.name)
        if not _fits(value, str(field.type)):
            raise ValueError(f"{field.name} is {value!r}")
    if row.id != Path(row.path).stem:
        raise ValueError(f"the id {row.id!r} is not the file's name")


def _fits(value: Any, kind: str) -> bool:
    """Whether ``value`` is what a field of ``Row`` says; annotations are text in this module."""
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("tuple"):
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if kind.startswith("float"):
        return isinstance(value, float | int) and not isinstance(value, bool)
    wanted = int if kind.startswith("int") else str
    return isinstance(value, wanted) and not isinstance(value, bool)


def listing(files: Iterable[Path], root: Path, cache: Path | None) -> Listing:
    """Summaries of ``files``, paths relative to ``root``; ``cache`` is the folder of indexes
    (None: the user's cache folder)."""
    index_path = (cache or cache_dir()) / f"index-{_digest(root)}.json"
    known = _load(index_path)
    entries: dict[str, Entry] = {}
    stamps: dict[str, list[int]] = {}
    unread: dict[str, str] = {}
    for file in files:
        path = file.relative_to(root).as_posix()
        try:
            stat = file.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            old = known.pop(path, None)
            if old and old[0] == stamp:
                stamps[path], entries[path] = stamp, old[1]
                continue
            read_at = time.time_ns()
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as problem:
            entries[path] = Problem(path, f"{path}: cannot be read: {problem}")
            continue
        unread[path] = text
        if not 0 <= read_at - stat.st_mtime_ns < TICK_NS:
            stamps[path] = stamp
    jobs = [(text, path) for path, text in unread.items()]
    entries.update(zip(unread, parallel.map_forked(_summary_or_problem, jobs), strict=True))
    if unread or known:
        _save(index_path, {path: (stamps[path], entries[path]) for path in stamps})
    rows = [entry for entry in entries.values() if isinstance(entry, Row)]
    rows.sort(key=lambda row: row.id)
    rows.sort(key=lambda row: row.started_at or "", reverse=True)
    return Listing(rows, [entry for entry in entries.values() if isinstance(entry, Problem)])


def _summary_or_problem(job: tuple[str, str]) -> Entry:
    text, path = job
    try:
        return summarise(text, path)
    except RecordError as problem:
        return Problem(path, problem.message)


def _digest(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _load(path: Path) -> dict[str, tuple[list[int], Entry]]:
    """The index, or nothing at all when anything about it is wrong."""
    try:
        data = json.loads(path.read_bytes())
        if data["layout"] != _LAYOUT:
            return {}
        entries = {}
        for name, (stamp, values) in data["entries"].items():
            entries[name] = (stamp, _entry(name, values))
        return entries
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}


def _entry(path: str, values: list[Any] | str) -> Entry:
    if isinstance(values, str):
        return Problem(path, values)
    values[_WORKLOADS] = tuple(values[_WORKLOADS])
    row = Row(*values)
    _check(row)
    return row


def _save(path: Path, entries: dict[str, tuple[list[int], Entry]]) -> None:
    """Write the index in one step; a folder that cannot be written costs time, nothing else."""
    packed = {
        name: (stamp, entry.message if isinstance(entry, Problem) else list(vars(entry).values()))
        for name, (stamp, entry) in entries.items()
    }
    text = json.dumps({"layout": _LAYOUT, "entries": packed}, separators=(",", ":"))
    with contextlib.suppress(OSError):
        atomic_write(path, text, sync=False)
