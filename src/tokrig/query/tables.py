"""All records as tables on disk, so that a question over ten thousand runs takes no second.

A DuckDB file beside the index of records (``store.index``), which stays the one place where records
are read: the file is made of all that ``load_marked`` gives, and counts while its key does. The key
is of every record's name, size and time, of what is written about rigs and models, and of the
code; it stands in a line beside the file, with the file's digest. What is wrong with either costs
time and nothing else: they are made anew, or done without.

Why a second file: entries of one record each cannot be scanned by column, and the verdict of a
result depends on all other records (``compare.kin``), so it stands in no entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokrig.errors import InputError, StoreError
from tokrig.files import atomic_write, replacing
from tokrig.registry import get_extra
from tokrig.store import Store
from tokrig.store.index import TICK_NS, Problem, Progress, index_path, reader_digest

log = logging.getLogger(__name__)
# Files that could not be read, in a schema that questions need not see.
_ABOUT = "about"
MEMORY = "2GB"
# What DuckDB offers against statements that do more than ask (its page on securing it).
_LOCKED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": MEMORY,
}


def opened(
    store: Store,
    *,
    cache: Path | None = None,
    progress: Progress = lambda done, of: None,
) -> tuple[Any, list[Problem]]:
    """A connection that can read the views but ``samples``, and what could not be read of records.

    Raises InputError where DuckDB is missing, or for facts that cannot be read.
    """
    duckdb = import_duckdb()
    key, settled = _key(store, duckdb.__version__)
    path = _path(store, cache)
    if path is not None and _is_current(path, key):
        with contextlib.suppress(duckdb.Error):
            return _read(duckdb, path)
    made, problems = _made(store, cache, progress)
    if path is not None and settled:
        try:
            with replacing(path, sync=False) as temporary:
                _write(duckdb, temporary, made, problems)
                line = f"{key} {_digest(temporary)}"
            atomic_write(_beside(path), line, sync=False)
            return _read(duckdb, path)
        except (OSError, duckdb.Error) as problem:
            log.warning("no tables are kept, so they are made each time: %s", problem)
    connection = duckdb.connect(":memory:", config=_LOCKED)
    for name, rows in made.items():
        connection.register(name, rows)
    return connection, problems


def import_duckdb() -> Any:
    """DuckDB. Raises InputError, with the command that installs it, where it is missing."""
    try:
        return importlib.import_module("duckdb")
    except ModuleNotFoundError:
        raise InputError("SQL needs the package 'duckdb'", hint=get_extra("query")) from None


def _beside(path: Path) -> Path:
    return path.with_suffix(".duckdb.key")


def _is_current(path: Path, key: str) -> bool:
    """Whether the file is that of the key, to the bit: a damaged one might crash whoever reads."""
    try:
        return _beside(path).read_bytes() == f"{key} {_digest(path)}".encode()
    except OSError:
        return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _path(store: Store, cache: Path | None) -> Path | None:
    try:
        return index_path(store.runs, cache, ".duckdb")
    except (OSError, StoreError) as problem:
        log.warning("no tables are kept, so they are made each time: %s", problem)
        return None


def _key(store: Store, version: str) -> tuple[str, bool]:
    """A digest of all that the tables are made of; whether all of it is old enough for its time
    to tell the next change."""
    together = hashlib.sha256(f"{version} {reader_digest()}".encode())
    package = Path(__file__).parents[1]
    for source in sorted([*(package / "compare").glob("*.py"), *(package / "query").glob("*.py")]):
        together.update(source.read_bytes())
    newest = 0
    folders = [store.content / "models", store.content / "rigs", *_rigs(store.runs)]
    for folder in folders:
        for name, size, at in sorted(_files(folder)):
            newest = max(newest, at)
            together.update(
                f"{folder.name}/{name} {size} {at}\n".encode("utf-8", "surrogateescape")
            )
    for name, _, _ in sorted(_files(store.samples, stamps=False)):
        together.update(f"{name}\n".encode("utf-8", "surrogateescape"))
    return together.hexdigest(), not 0 <= time.time_ns() - newest < TICK_NS


def _rigs(runs: Path) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(runs) as found:
        return sorted(Path(entry.path) for entry in found if entry.is_dir())
    return []


def _files(folder: Path, *, stamps: bool = True) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file; a glob and a stat of each would take twice as long."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if stamps:
                stat = entry.stat()
                yield entry.name, stat.st_size, stat.st_mtime_ns
            else:
                yield entry.name, 0, 0


def _made(
    store: Store, cache: Path | None, progress: Progress
) -> tuple[Mapping[str, Any], list[Problem]]:
    # What makes tables takes a while to load, and those that are kept do without.
    from tokrig.compare.marked import load_marked
    from tokrig.query import views
    from tokrig.store import table
    from tokrig.store.facts import load_families, load_rigs

    loaded = load_marked(store, keep_going=True, cache=cache, progress=progress)
    runs = list(views.of_runs(loaded.runs))
    rows = {
        views.ROWS: table.flat_rows(loaded.runs),
        views.RUNS: runs,
        views.RIGS: views.of_rigs(runs, load_rigs(store.content)),
        views.MODELS: views.of_models(runs, load_families(store.content)),
    }
    made = {view.name: table.arrow(found, view.columns) for view, found in rows.items()}
    return made, list(loaded.problems)


def _write(duckdb: Any, path: Path, made: Mapping[str, Any], problems: list[Problem]) -> None:
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        for name, rows in made.items():
            connection.register("made", rows)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM made")
            connection.unregister("made")
        connection.execute(f"CREATE SCHEMA {_ABOUT}")
        connection.execute(f"CREATE TABLE {_ABOUT}.problems (path TEXT, message TEXT)")
        for one in problems:
            connection.execute(
                f"INSERT INTO {_ABOUT}.problems VALUES (?, ?)", [one.path, one.message]
            )


def _read(duckdb: Any, path: Path) -> tuple[Any, list[Problem]]:
    connection = duckdb.connect(str(path), read_only=True, config=_LOCKED)
    found = connection.execute(f"SELECT path, message FROM {_ABOUT}.problems").fetchall()
    return connection, [Problem(*one) for one in found]
