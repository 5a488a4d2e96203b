"""Samples as a file: Parquet, one row a request.

Its chunks are three lists side by side: ``chunk_t_ns`` (ns after the request was sent),
``chunk_kind`` (1 reasoning, 2 content, 3 tool call) and ``chunk_text``. Of a long run the texts are
not kept, which ``text_kept`` tells: every character but white space is an ``x`` then, so that
lengths and blanks, which figures are made from, are as they were. The engine's own timings stand in
columns named ``timings_*``, all null where it gave none. The file's metadata carries
``tokrig_samples``, the version of this layout; what older ones lack has its default then. The same
samples give the same bytes. Pages carry checksums, so a flipped bit is found, not read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from tokrig.record.parquet import arrow, read, require_layout, storable
from tokrig.record.samples import KINDS, LIMITS, Chunks, EngineTimings, Load, Phase, Sample

LAYOUT_VERSION = 3
# The columns that a version brought.
_ADDED = {
    2: ("tool_call_tokens", "hidden_tokens", "last_chunk_tokens", "counted_by"),
    3: (
        "depth_tokens",
        "load",
        "rate_per_s",
        "due_ns",
        "connect_ns",
        "text_kept",
        "prompt_tokens_asked",
        "output_tokens_asked",
    ),
}
# A row group ends with the answer that fills it.
GROUP_CHUNKS = 1 << 14
_LISTS = ("chunk_t_ns", "chunk_kind", "chunk_text")
_STAMP, _KIND = "chunk_t_ns.list.element", "chunk_kind.list.element"
_VERSION_KEY = b"tokrig_samples"
_PREFIX = "timings_"

_SCALARS = tuple(f.name for f in fields(Sample) if f.name not in ("chunks", "timings"))
_TIMINGS = tuple(f.name for f in fields(EngineTimings))


def to_parquet(samples: Sequence[Sample]) -> bytes:
    """The bytes of a samples file. A lone surrogate in a text, which UTF-8 cannot hold, becomes
    U+FFFD; everything else comes back exactly."""
    pa = arrow()
    # Its own allocator never gives back what one row group took.
    pa.set_memory_pool(pa.system_memory_pool())
    schema, sink = _schema(pa, LAYOUT_VERSION), pa.BufferOutputStream()
    options = {
        "compression": "zstd",
        "write_page_checksum": True,
        # Stamps and texts hardly repeat: a dictionary of them takes room and saves none.
        "use_dictionary": [name for name in schema.names if name not in _LISTS] + [_KIND],
        "column_encoding": {_STAMP: "DELTA_BINARY_PACKED"},
    }
    with arrow("pyarrow.parquet").ParquetWriter(sink, schema, **options) as writer:
        for group in _groups(samples):
            writer.write_table(pa.table(_columns(group), schema=schema))
    return bytes(sink.getvalue())


def _groups(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """The samples of each row group: written one after the other, they take no room together."""
    begin = chunks = 0
    for end, sample in enumerate(samples, 1):
        chunks += len(sample.chunks)
        if chunks > GROUP_CHUNKS or end == len(samples):
            yield samples[begin:end]
            begin, chunks = end, 0


def _columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [storable(getattr(s, name)) for s in samples] for name in _SCALARS
    }
    columns["chunk_t_ns"] = [s.stream.stamps_ns.tolist() for s in samples]
    columns["chunk_kind"] = [list(s.stream.kinds) for s in samples]
    columns["chunk_text"] = [list(map(storable, s.stream.texts())) for s in samples]
    for name in _TIMINGS:
        columns[_PREFIX + name] = [s.timings and getattr(s.timings, name) for s in samples]
    return columns


def from_parquet(data: bytes, name: str) -> list[Sample]:
    """The samples in the bytes of a file; ``name`` (a path) stands in front of every message.

    Raises RecordError for a truncated, altered or foreign file and for a newer layout.
    """

    def understood(table: Any) -> list[Sample]:
        _check_layout(table.schema, name)
        return _samples(table)

    return read(data, name, "samples file", understood)


def arrow_schema() -> Any:
    """The columns of a samples file of today; older files lack some, which are null there."""
    schema = _schema(arrow(), LAYOUT_VERSION)
    return [field.with_nullable(True) for field in schema]


def _schema(pa: Any, version: int) -> Any:
    """The schema: scalars in the order of ``Sample``, then chunks, then timings."""
    later = {name for since, names in _ADDED.items() if since > version for name in names}
    scalars = [name for name in _SCALARS if name not in later]
    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    columns = [
        *((name, kinds[kind], nullable) for name, kind, nullable in _typed(Sample, scalars)),
        *(
            (name, pa.list_(pa.field("element", kind, nullable=False)), False)
            for name, kind in zip(_LISTS, (pa.int64(), pa.int8(), pa.string()), strict=True)
        ),
        *((_PREFIX + name, kinds[kind], True) for name, kind, _ in _typed(EngineTimings, _TIMINGS)),
    ]
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in columns],
        metadata={_VERSION_KEY: str(version).encode()},
    )


def for_scripts() -> dict[str, Any]:
    """What a script needs to read a samples file: the newest layout; each column in its order with
    the words of its Parquet schema and the layout that brought it; the loads; the limits of the
    formulas."""
    kinds = {int: "INT64", float: "DOUBLE", bool: "BOOLEAN", str: "BYTE_ARRAY UTF8 STRING"}
    since = {name: version for version, names in _ADDED.items() for name in names}
    lists = zip(_LISTS, ("INT64", "INT32 INT_8 INTEGER", kinds[str]), strict=True)
    return {
        "layout": LAYOUT_VERSION,
        "columns": [
            *(
                [
                    name,
                    f"{kinds[kind]} {'OPTIONAL' if nullable else 'REQUIRED'}",
                    since.get(name, 1),
                ]
                for name, kind, nullable in _typed(Sample, _SCALARS)
            ),
            *([name, f"LIST LIST REQUIRED REPEATED {kind} REQUIRED", 1] for name, kind in lists),
            *(
                [_PREFIX + name, f"{kinds[kind]} OPTIONAL", 1]
                for name, kind, _ in _typed(EngineTimings, _TIMINGS)
            ),
        ],
        "phases": [*get_args(Phase)],
        "loads": [*get_args(Load)],
        "limits": LIMITS,
    }


def _typed(owner: type, names: Sequence[str]) -> Iterator[tuple[str, type, bool]]:
    """Name, plain type and whether it may be None, of fields like ``int | None``."""
    hints = get_type_hints(owner)
    for name in names:
        options = get_args(hints[name]) or (hints[name],)
        # The options of a Literal are values; all of ours are text.
        plain = [one if isinstance(one, type) else str for one in options]
        yield name, plain[0], plain[-1] is type(None)


def _check_layout(found: Any, name: str) -> None:
    version = (found.metadata or {}).get(_VERSION_KEY, b"").decode("ascii", "replace")
    if not version.isdigit():
        raise ValueError("it was not written by tokrig")
    require_layout(int(version), LAYOUT_VERSION, name)
    expected = _schema(arrow(), int(version))
    if not found.equals(expected, check_metadata=False):
        differing = set(map(str, found)) ^ set(map(str, expected))
        raise ValueError(f"its columns are not those of layout {version}: {sorted(differing)[0]}")


def _samples(table: Any) -> list[Sample]:
    lists = [table.column(name) for name in _LISTS]
    others = [name for name in table.column_names if name not in _LISTS]
    columns = {name: table.column(name).to_pylist() for name in others}
    return [
        _sample(columns, row, [column[row].values for column in lists]) for row in range(len(table))
    ]


def _sample(columns: dict[str, list[Any]], row: int, lists: Sequence[Any]) -> Sample:
    values = {name: columns[name][row] for name in _SCALARS if name in columns}
    if values["phase"] not in get_args(Phase):
        raise ValueError(f"row {row}: unknown phase {values['phase']!r}")
    if values.get("load", "closed") not in get_args(Load):
        raise ValueError(f"row {row}: unknown load {values['load']!r}")
    stamps, kinds, texts = (found.to_pylist() for found in lists)
    if not len(stamps) == len(kinds) == len(texts):
        raise ValueError(f"row {row}: chunks of different numbers")
    unknown = set(kinds) - KINDS.keys()
    if unknown:
        raise ValueError(f"row {row}: unknown kind {min(unknown)}")
    chunks = Chunks.joined(array("q", stamps), bytes(kinds), texts)
    timings = {name: columns[_PREFIX + name][row] for name in _TIMINGS}
    present = any(value is not None for value in timings.values())
    return Sample(**values, chunks=chunks, timings=EngineTimings(**timings) if present else None)
