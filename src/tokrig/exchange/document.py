"""A file of another tool, read into plain data: JSON, JSON lines, CSV, a Markdown table, SQL, text.

What it is tells its content, not its name. Sizes, rows and nesting have limits; everything else
that is wrong with a file is one message that names the file and, where there are any, the line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokrig.errors import ImportRefused
from tokrig.units import MIB

Kind = Literal["json", "csv", "markdown", "sql", "text"]

MAX_BYTES = 64 * MIB
MAX_ROWS = 100_000
_GZIP = b"\x1f\x8b"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what a redirection of older Windows shells writes
INSERT = re.compile(r"INSERT\s+INTO\s+\w+\s*\(([\w\s,]+)\)\s*VALUES\s*\((.*)\);?\s*$", re.I)
# ``eval rate:            61.32 tokens/s``: what programs print, commas or not.
PRINTED = re.compile(r"^\W*[a-z]+ (?:rate|count|duration): +\d", re.M)
RULE = re.compile(r"\|?(?:\s*:?-+:?\s*[|+])+(?:\s*:?-+:?\s*)?")


@dataclass(frozen=True)
class Item:
    """One object of a file, and where it stands in it: ``[2]``, or a line."""

    place: str
    data: Any


@dataclass(frozen=True)
class Document:
    """A file's content: its objects in their order, or its ``text`` where it has none. ``name``
    is the file's as its user gave it; ``sha256`` is of its bytes."""

    name: str
    kind: Kind
    items: tuple[Item, ...]
    text: str
    sha256: str


def read(path: Path) -> Document:
    """The content of a file. Raises ImportRefused with file and line for one that is too large,
    no text, or broken."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise ImportRefused(f"{name}: cannot be read: {reason}", hint="name a file") from None
    if len(data) > MAX_BYTES:
        raise _too_large(name)
    digest = hashlib.sha256(data).hexdigest()
    text = _decoded(_unpacked(data, name), name)
    if not text.strip():
        raise ImportRefused(f"{name}: is empty", hint="was the benchmark stopped before its end?")
    kind, items = _parsed(text, name)
    return Document(name, kind, tuple(items), text, digest)


def _too_large(name: str) -> ImportRefused:
    return ImportRefused(
        f"{name}: larger than {MAX_BYTES // MIB} MiB",
        hint="write it without the texts of prompts and answers, or without its requests",
    )


def _unpacked(data: bytes, name: str) -> bytes:
    if not data.startswith(_GZIP):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error:
        found = b""
    if len(found) > MAX_BYTES:
        raise _too_large(name)
    if not unpacker.eof:
        why = "a gzip file that is damaged or does not end"
        raise ImportRefused(f"{name}: {why}", hint="copy it once more")
    return found


def _decoded(data: bytes, name: str) -> str:
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        where = f"byte {problem.start:,}"
        raise ImportRefused(
            f"{name}: not UTF-8 text ({where})", hint="save it as UTF-8; is it a results file?"
        ) from None
    if "\0" in text:
        raise ImportRefused(f"{name}: no text file", hint="name a file of results")
    return text


def _parsed(text: str, name: str) -> tuple[Kind, list[Item]]:
    first = text.lstrip()[0]
    if first in "{[":
        return "json", _json(text, name)
    if re.search(r"^\s*INSERT\s+INTO\s", text, re.I | re.M):
        return "sql", _bounded(_sql(text, name), name)
    if PRINTED.search(text):
        return "text", []
    lines = text.splitlines()
    if any(RULE.fullmatch(line.strip()) for line in lines if "|" in line):
        return "markdown", _bounded(_tables(lines), name)
    if found := _csv(text, lines, name):
        return "csv", found
    return "text", []


def _bounded(items: Iterator[Item], name: str) -> list[Item]:
    found: list[Item] = []
    for item in items:
        if len(found) == MAX_ROWS:
            raise ImportRefused(f"{name}: more than {MAX_ROWS:,} rows", hint="split it")
        found.append(item)
    return found


# JSON, and JSON lines


def _json(text: str, name: str) -> list[Item]:
    """The objects of one JSON value, those of a list one by one, or of JSON values that follow one
    another, as tools append them."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins)
    values: list[tuple[int, Any]] = []
    at = _next(text, 0)
    try:
        while at < len(text):
            if len(values) == MAX_ROWS:
                raise ImportRefused(f"{name}: more than {MAX_ROWS:,} rows", hint="split it")
            value, end = decoder.raw_decode(text, at)
            values.append((at, value))
            at = _next(text, end)
    except json.JSONDecodeError as problem:
        half = not text[problem.pos :].strip() or "Unterminated" in problem.msg
        raise ImportRefused(
            f"{name}:{problem.lineno}: {'ends too early' if half else 'not JSON'}: {problem.msg}",
            hint="was the file cut off, or edited?",
        ) from None
    except _Twins as problem:
        line = text.count("\n", 0, at) + 1
        raise ImportRefused(
            f"{name}:{line}: the key {problem} stands there twice", hint="keep one of them"
        ) from None
    except RecursionError:
        raise ImportRefused(f"{name}: nested too deeply") from None
    except ValueError:  # a whole number of more digits than Python takes
        raise ImportRefused(f"{name}: holds a number of thousands of digits") from None
    if len(values) == 1 and isinstance(value := values[0][1], list):
        inside = (Item(f"[{number}]", one) for number, one in enumerate(value))
        return _bounded(inside, name)
    if len(values) == 1:
        return [Item("", values[0][1])]
    found, line, before = [], 1, 0
    for at, value in values:
        line, before = line + text.count("\n", before, at), at
        found.append(Item(f"line {line}", value))
    return found


class _Twins(Exception):
    pass


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twin, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _Twins(repr(twin[:60]))
    return found


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


# Tables


def _sql(text: str, name: str) -> Iterator[Item]:
    """The rows of ``INSERT INTO … (columns) VALUES (…)``, a line each."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := INSERT.match(line.strip()):
            columns = [column.strip() for column in match[1].split(",")]
            [values] = csv.reader([match[2]], quotechar="'", skipinitialspace=True)
            if len(values) != len(columns):
                raise ImportRefused(
                    f"{name}:{number}: {len(values)} values for {len(columns)} columns"
                )
            yield Item(f"line {number}", dict(zip(columns, values, strict=True)))


def _tables(lines: Sequence[str]) -> Iterator[Item]:
    """The rows of all Markdown tables, whatever stands between them."""
    columns: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if "|" not in line:
            columns = None
        elif RULE.fullmatch(line.strip()):
            columns = _cells(lines[number - 2]) if number > 1 else None
        elif columns is not None and len(cells := _cells(line)) == len(columns):
            yield Item(f"line {number}", dict(zip(columns, cells, strict=True)))


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`*") for cell in line.strip().strip("|").split("|")]


def _csv(text: str, lines: Sequence[str], name: str) -> list[Item]:
    """The rows under a header with at least two names, by what stands between these; empty where
    the first line is none. A blank line ends a table, as where a file holds several."""
    header = next(line for line in lines if line.strip())
    between = max(",;\t", key=header.count)
    if not header.count(between) or len(header) > 100_000:
        return []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    columns: list[str] | None = None
    found: list[Item] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                columns = None
            elif columns is None:
                columns = [cell.strip() for cell in row]
                _refuse_twins(columns, name, reader.line_num)
            elif len(row) != len(columns):
                if not found:
                    return []  # prose with commas in it
                raise ImportRefused(
                    f"{name}:{reader.line_num}: {len(row)} values under {len(columns)} columns",
                    hint="put values that hold the separator in quotes",
                )
            else:
                if len(found) == MAX_ROWS:
                    raise ImportRefused(f"{name}: more than {MAX_ROWS:,} rows", hint="split it")
                cells = dict(zip(columns, map(str.strip, row), strict=True))
                found.append(Item(f"line {reader.line_num}", cells))
    except csv.Error as problem:
        if not found:
            return []
        raise ImportRefused(f"{name}:{reader.line_num}: {problem}") from None
    return found


def _refuse_twins(columns: Sequence[str], name: str, line: int) -> None:
    for number, column in enumerate(columns):
        if column and column in columns[:number]:
            raise ImportRefused(
                f"{name}:{line}: the column {column[:60]!r} stands there twice",
                hint="keep one of them",
            )
