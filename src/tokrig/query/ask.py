"""One question in SQL, asked where it can do no harm.

The records are read-only tables (``query.tables``); files and the network are closed to SQL, the
configuration is locked, and only statements that ask are let through. That is DuckDB's own doing
and holds for what is hidden inside a SELECT, too. Time and memory are not: a query can hold more
than its memory limit and may not listen to an interrupt. So it runs in a process of its own, which
has a limit from the system and is killed when its time is over.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import pickle
import re
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokrig.errors import InputError, TokrigError
from tokrig.query.tables import import_duckdb, opened
from tokrig.store import Store
from tokrig.store.index import Problem, Progress

MAX_SQL = 100_000
# Beside what DuckDB may take (tables.MEMORY), what a query may take of the system.
EXTRA_BYTES = 3 * 1024**3
CHUNK_ROWS = 2048
# More rows than this are no answer.
MAX_ROWS = 10_000_000
ASKS = ("SELECT", "EXPLAIN", "MULTI")  # a PIVOT is several statements in one
_HEAD = struct.Struct("<Q")


@dataclass
class Answer:
    """Columns with their SQL types, and chunks of rows as they come; ``problems`` are records
    that could not be read. With ``as_arrow`` a chunk is the bytes of an Arrow stream."""

    columns: list[str]
    types: list[str]
    problems: list[Problem]
    chunks: Iterator[Any]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Row after row."""
        for chunk in self.chunks:
            yield from chunk


@contextlib.contextmanager
def asked(
    store: Store,
    sql: str,
    *,
    timeout_s: float,
    as_arrow: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda done, of: None,
) -> Iterator[Answer]:
    """The answer to a statement; leaving the block ends the query.

    Raises InputError for what is no question, what is wrong with it, and one that takes too long
    or too much memory: also while rows are read.
    """
    if len(sql) > MAX_SQL:
        raise InputError(
            f"the statement is longer than {MAX_SQL:,} characters", hint="ask for less at once"
        )
    import_duckdb()  # says what is missing before anything starts
    with _child(lambda send: _work(send, store, sql, as_arrow, cache, timeout_s)) as receive:
        problems: list[Problem] = []
        while True:
            kind, *rest = receive(None)
            if kind == "progress":
                progress(*rest)
            elif kind == "ready":
                problems = rest[0]
                break
        deadline = time.monotonic() + timeout_s

        def message() -> tuple[Any, ...]:
            try:
                return receive(deadline - time.monotonic())
            except TimeoutError:
                raise InputError(
                    f"the query took longer than {timeout_s:g} s and was stopped",
                    hint="narrow it with WHERE, or give it more with --timeout",
                ) from None

        def chunks() -> Iterator[Any]:
            while True:
                kind, *rest = message()
                if kind == "end":
                    return
                yield rest[0]

        _, columns, types = message()
        yield Answer(columns, types, problems, chunks())


# The process that asks

Send = Callable[..., None]


@contextlib.contextmanager
def _child(work: Callable[[Send], None]) -> Iterator[Callable[[float | None], tuple[Any, ...]]]:
    """Runs ``work`` in a process of its own, which is gone when the block is left; what it sends
    is received in order. A TokrigError of it is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # Ctrl-C is for the parent alone
        os.close(reader)
        _run(work, writer)
    os.close(writer)
    try:
        yield lambda timeout_s: _received(reader, timeout_s)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # with those that it started
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _run(work: Callable[[Send], None], writer: int) -> None:
    """All that the child does; it never returns."""
    try:
        with open(writer, "wb") as pipe:

            def send(*message: Any) -> None:
                data = pickle.dumps(message)
                pipe.write(_HEAD.pack(len(data)) + data)
                pipe.flush()

            try:
                work(send)
                send("end")
            except TokrigError as problem:
                send("failed", problem)
            except MemoryError:
                send("failed", _too_much_memory())
    finally:
        os._exit(0)


def _received(reader: int, timeout_s: float | None) -> tuple[Any, ...]:
    give_up = math.inf if timeout_s is None else time.monotonic() + timeout_s
    (size,) = _HEAD.unpack(_bytes(reader, _HEAD.size, give_up))
    message: tuple[Any, ...] = pickle.loads(_bytes(reader, size, give_up))
    if message[0] == "failed":
        raise message[1]
    return message


def _bytes(reader: int, size: int, give_up: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        left = give_up - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], min(left, 3600))[0]:
            if left > 3600:
                continue
            raise TimeoutError
        if not (data := os.read(reader, min(size - len(found), 1 << 20))):
            raise _too_much_memory()  # it ended without a word: no allocation was left for one
        found += data
    return bytes(found)


def _too_much_memory() -> InputError:
    return InputError(
        "the query needed more memory than it may have", hint="narrow it with WHERE or LIMIT"
    )


def _work(
    send: Send, store: Store, sql: str, as_arrow: bool, cache: Path | None, timeout_s: float
) -> None:
    connection, problems = opened(
        store, cache=cache, progress=lambda done, of: send("progress", done, of)
    )
    duckdb = import_duckdb()
    statement = _statement(duckdb, connection, sql)
    if re.search(r"\bsamples\b", sql, re.IGNORECASE):
        connection.register("samples", _samples(store, connection))
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    _limit(timeout_s)
    send("ready", problems)
    try:
        # Made lazily: of a statement without an answer there is nothing.
        result = connection.sql(statement) if as_arrow else connection.execute(statement)
        if result is None or result.description is None:
            raise InputError("the statement has no answer", hint=_HINT)
        columns = _unique([str(column[0]) for column in result.description])
        send("columns", columns, [str(column[1]) for column in result.description])
        for chunk in _arrow(result, columns) if as_arrow else _rows(result):
            send("chunk", chunk)
    except duckdb.Error as problem:
        raise _told(duckdb, problem) from None
    except OSError as problem:  # of the samples, read by Arrow
        raise InputError(f"samples cannot be read: {problem}", hint=_CHECK) from None


_HINT = "ask with SELECT; tokrig query lists views and columns"
_CHECK = "tokrig check names broken samples files"


def _statement(duckdb: Any, connection: Any, sql: str) -> Any:
    """The one statement. Raises InputError for none, several, or one that does more than ask."""
    try:
        found = connection.extract_statements(sql)
        kinds = [one.type.name for one in found]
    except duckdb.Error as problem:
        raise _told(duckdb, problem) from None
    except ValueError:  # of a kind that its Python does not know
        kinds = ["OTHER"]
    if not kinds:
        raise InputError("there is no statement", hint=_HINT)
    if len(kinds) > 1:
        raise InputError(f"{len(kinds)} statements at once", hint="ask one after the other")
    if kinds[0] not in ASKS:
        what = "such a statement" if kinds[0] == "OTHER" else f"{kinds[0].replace('_', ' ')}"
        raise InputError(f"records are only read: {what} is not done", hint=_HINT)
    return found[0]


def _rows(result: Any) -> Iterator[list[tuple[Any, ...]]]:
    seen = 0
    while rows := result.fetchmany(CHUNK_ROWS):
        seen += len(rows)
        _refuse_flood(seen)
        yield rows


def _arrow(result: Any, columns: Sequence[str]) -> Iterator[bytes]:
    """Batches, each as the bytes of an Arrow stream; at least one, for the schema."""
    pa: Any = importlib.import_module("pyarrow")
    reader = result.to_arrow_reader(CHUNK_ROWS * 16)
    schema = pa.schema(
        [field.with_name(n) for field, n in zip(reader.schema, columns, strict=True)]
    )
    yield _stream(pa, schema, [])
    seen = 0
    for batch in reader:
        seen += len(batch)
        _refuse_flood(seen)
        yield _stream(pa, schema, [pa.RecordBatch.from_arrays(batch.columns, schema=schema)])


def _stream(pa: Any, schema: Any, batches: Sequence[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def _refuse_flood(rows: int) -> None:
    if rows > MAX_ROWS:
        raise InputError(
            f"more than {MAX_ROWS:,} rows are no answer", hint="narrow it with WHERE or LIMIT"
        )


def _unique(names: Sequence[str]) -> list[str]:
    """Names as they are, with _2 and so on behind those that stand there already."""
    found: dict[str, None] = {}
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name}_{number}"
        found[new] = None
    return list(found)


def _limit(timeout_s: float) -> None:
    """From here on so much memory more and no more, where the system can see to it; and an end of
    its own, should the parent be killed."""
    resource = importlib.import_module("resource")
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + timeout_s * (os.cpu_count() or 1) + 1)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
        most = (int(found[1]) if found else 0) * 1024 + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def _told(duckdb: Any, problem: Exception) -> InputError:
    """DuckDB's words, of which the first line says what, and the last where."""
    if isinstance(problem, duckdb.OutOfMemoryException):
        return _too_much_memory()
    text = str(problem).strip()
    kind, _, rest = text.partition(": ")
    text = rest if kind.endswith("Error") and rest else text
    if isinstance(problem, duckdb.PermissionException):
        return InputError(f"SQL reads no files here: {text.splitlines()[0]}", hint=_HINT)
    if "read-only" in text or "Cannot COPY" in text:
        return InputError("records are only read: nothing is written", hint=_HINT)
    if "samples" in text and "parquet" in text.lower():
        return InputError(f"samples cannot be read: {text.splitlines()[0]}", hint=_CHECK)
    return InputError(text, hint=_HINT)


# Samples


def _samples(store: Store, connection: Any) -> Any:
    """All samples files as one Arrow dataset. Each file says which run it is of, so that a question
    for some runs (``WHERE run_id = …``) opens only theirs."""
    from tokrig.record.samples_file import arrow_schema

    pa: Any = importlib.import_module("pyarrow")
    ds: Any = importlib.import_module("pyarrow.dataset")
    found = connection.execute("SELECT run_id FROM runs WHERE samples IS NOT NULL").fetchall()
    schema = arrow_schema()
    schema = pa.schema([pa.field("run_id", pa.string()), *schema])
    files = ds.ParquetFileFormat()
    local = importlib.import_module("pyarrow.fs").LocalFileSystem()
    fragments = [
        files.make_fragment(
            str(store.samples_path(run_id).absolute()),
            local,
            partition_expression=ds.field("run_id") == run_id,
        )
        for (run_id,) in found
    ]
    return ds.FileSystemDataset(fragments, schema, files, local)
