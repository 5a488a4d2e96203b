"""What was observed of one request: the raw material every published figure comes from.

Plain data without I/O; all times are nanoseconds of one monotonic clock of the measuring process.

As Parquet it is one row a request, its chunks as three lists side by side: ``chunk_t_ns`` (ns after
the request was sent), ``chunk_kind`` (1 reasoning, 2 content, 3 tool call) and ``chunk_text``. The
engine's own timings stand in columns named ``timings_*``, all null where it gave none. The file's
metadata carries ``tokrig_samples``, the version of this layout; older ones lack columns, which are
null then. The same samples give the same bytes. Pages carry checksums, so a flipped bit is found,
not read. pyarrow is imported only when a file is read or written.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, Literal, get_args, get_type_hints

from tokrig.errors import RecordError

Phase = Literal["warmup", "measured"]


class Kind(IntEnum):
    """The channel of a chunk."""

    REASONING = 1
    CONTENT = 2
    TOOL_CALL = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """One token-bearing chunk: when it was read (ns after the request was sent), and its text."""

    t_ns: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """The engine's own clock for one request. ``decode_tokens`` counts the first token too
    where ``counts_first`` is true (llama.cpp), though the clock starts at it."""

    prompt_tokens: int
    prompt_ms: float
    decode_tokens: int
    decode_ms: float
    counts_first: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    ``sent_ns`` counts from the start of its phase. Token counts are ``None`` where neither the
    server nor a tokenizer could tell. ``error`` is a code; the rest then holds what arrived.

    ``first_chunk_tokens`` and ``last_chunk_tokens`` came with the first and the last burst of
    chunks; ``hidden_tokens`` are counted in ``output_tokens``, but generated before the first
    stamp or after the last, and carried by no chunk. ``counted_by`` says who confirms all three:
    ``each_chunk`` (running counts), ``one_a_chunk`` (as many chunks as tokens), ``tokenizer``,
    ``engine_clock``; ``None`` where nobody does. Samples of methodology 1 have none of them.
    """

    workload: str
    concurrency: int
    repeat: int
    iteration: int
    worker: int
    phase: Phase
    variant: int
    salt: str
    sent_ns: int
    chunks: Sequence[Chunk] = field(default_factory=tuple)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    content_tokens: int | None = None
    first_chunk_tokens: int | None = None
    first_chunk_assumed: bool = False
    count_source: str | None = None
    count_disagreement: float | None = None
    finish_reason: str | None = None
    timings: EngineTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    error: str | None = None
    error_detail: str | None = None
    tool_call_tokens: int | None = None
    hidden_tokens: int | None = None
    last_chunk_tokens: int | None = None
    counted_by: str | None = None


# As Parquet

LAYOUT_VERSION = 2
# The columns that a version brought.
_ADDED = {2: ("tool_call_tokens", "hidden_tokens", "last_chunk_tokens", "counted_by")}
_VERSION_KEY = b"tokrig_samples"
_PREFIX = "timings_"

_SCALARS = tuple(f.name for f in fields(Sample) if f.name not in ("chunks", "timings"))
_TIMINGS = tuple(f.name for f in fields(EngineTimings))


def to_parquet(samples: Sequence[Sample]) -> bytes:
    """The bytes of a samples file. A lone surrogate in a text, which UTF-8 cannot hold, becomes
    U+FFFD; everything else comes back exactly (``chunks`` as a tuple)."""
    pa = _import("pyarrow")
    columns: dict[str, list[Any]] = {
        name: [_storable(getattr(s, name)) for s in samples] for name in _SCALARS
    }
    columns["chunk_t_ns"] = [[c.t_ns for c in s.chunks] for s in samples]
    columns["chunk_kind"] = [[int(c.kind) for c in s.chunks] for s in samples]
    columns["chunk_text"] = [[_storable(c.text) for c in s.chunks] for s in samples]
    for name in _TIMINGS:
        columns[_PREFIX + name] = [s.timings and getattr(s.timings, name) for s in samples]
    schema = _schema(pa, LAYOUT_VERSION)
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    sink = pa.BufferOutputStream()
    parquet = _import("pyarrow.parquet")
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def from_parquet(data: bytes, name: str) -> list[Sample]:
    """The samples in the bytes of a file; ``name`` (a path) stands in front of every message.

    Raises RecordError for a truncated, altered or foreign file and for a newer layout.
    """
    pa = _import("pyarrow")
    try:
        table = _import("pyarrow.parquet").read_table(
            pa.BufferReader(data), use_threads=False, page_checksum_verification=True
        )
        _check_layout(pa, table.schema, name)
        columns = {column: table.column(column).to_pylist() for column in table.column_names}
        return [_sample(columns, row) for row in range(table.num_rows)]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise RecordError(
            f"{name}: not a readable samples file: {reason}",
            hint="restore it from git (git checkout -- FILE), or measure the run again",
        ) from None


def _import(module: str) -> Any:
    """pyarrow ships no types; and it takes a third of a second, which ``list`` need not pay."""
    return importlib.import_module(module)


def _schema(pa: Any, version: int) -> Any:
    """The schema: scalars in the order of ``Sample``, then chunks, then timings."""
    later = {name for since, names in _ADDED.items() if since > version for name in names}
    scalars = [name for name in _SCALARS if name not in later]
    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    lists = {"chunk_t_ns": pa.int64(), "chunk_kind": pa.int8(), "chunk_text": pa.string()}
    columns = [
        *((name, kinds[kind], nullable) for name, kind, nullable in _typed(Sample, scalars)),
        *(
            (name, pa.list_(pa.field("element", kind, nullable=False)), False)
            for name, kind in lists.items()
        ),
        *((_PREFIX + name, kinds[kind], True) for name, kind, _ in _typed(EngineTimings, _TIMINGS)),
    ]
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in columns],
        metadata={_VERSION_KEY: str(version).encode()},
    )


def _typed(owner: type, names: Sequence[str]) -> Iterator[tuple[str, type, bool]]:
    """Name, plain type and whether it may be None, of fields like ``int | None``."""
    hints = get_type_hints(owner)
    for name in names:
        options = get_args(hints[name]) or (hints[name],)
        # The options of a Literal are values; all of ours are text.
        plain = [one if isinstance(one, type) else str for one in options]
        yield name, plain[0], plain[-1] is type(None)


def _check_layout(pa: Any, found: Any, name: str) -> None:
    version = (found.metadata or {}).get(_VERSION_KEY, b"").decode("ascii", "replace")
    if not version.isdigit():
        raise ValueError("it was not written by tokrig")
    if int(version) > LAYOUT_VERSION:
        raise RecordError(
            f"{name}: layout {version} is newer than this tokrig reads ({LAYOUT_VERSION})",
            hint="upgrade tokrig: a newer one wrote this file",
        )
    expected = _schema(pa, int(version))
    if not found.equals(expected, check_metadata=False):
        differing = set(map(str, found)) ^ set(map(str, expected))
        raise ValueError(f"its columns are not those of layout {version}: {sorted(differing)[0]}")


def _storable(value: Any) -> Any:
    """Text without lone surrogates (an engine may stream half of a pair); all else as it is."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _sample(columns: dict[str, list[Any]], row: int) -> Sample:
    values = {name: columns[name][row] for name in _SCALARS if name in columns}
    if values["phase"] not in get_args(Phase):
        raise ValueError(f"row {row}: unknown phase {values['phase']!r}")
    lists = (columns[name][row] for name in ("chunk_t_ns", "chunk_kind", "chunk_text"))
    chunks = tuple(Chunk(t_ns, Kind(kind), text) for t_ns, kind, text in zip(*lists, strict=True))
    timings = {name: columns[_PREFIX + name][row] for name in _TIMINGS}
    present = any(value is not None for value in timings.values())
    return Sample(**values, chunks=chunks, timings=EngineTimings(**timings) if present else None)
