"""What stands in a field of a record, said as data: ``["first", ["text", "model"], "unknown"]``.

A value is a constant, or a list of an operator's name and what it is of: paths of fields, or other
values. Paths that begin with ``^`` are of the object that the row is part of. The page of files of
one's own reads the same lists (``site/static/other-tools.js``), so an operator is written there,
too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tokrig.exchange.fields import Fields
from tokrig.units import slug

Value = Any


class _Operators:
    """``V.text("model")`` is ``["text", "model"]``."""

    def __getattr__(self, word: str) -> Callable[..., Value]:
        name = word.removesuffix("_") if word not in OPERATORS else word  # if_, not_
        if name not in OPERATORS:
            raise AttributeError(word)
        return lambda *of: [name, *of]


V = _Operators()


def value(of: Value, row: Fields) -> Any:
    """What a value is in a row; None where it is not known. Raises ImportRefused for a field that
    cannot be what it is read as."""
    if not isinstance(of, list):
        return of
    name, *more = of
    return OPERATORS[name](row, *more)


# Fields: of several paths the first that is there


def _reader(read: Callable[[Fields, str], Any]) -> Callable[..., Any]:
    def found(row: Fields, *paths: str) -> Any:
        told = (read(*row.at(path)) for path in paths)
        return next((one for one in told if one is not None), None)

    return found


def _setting(row: Fields, path: str) -> int | None:
    """A count that is the program's own choice where it is negative."""
    return None if str(row.get(path)).startswith("-") else row.count(path)


def _column(row: Fields, path: str) -> list[float]:
    """The numbers of one field in a list of objects, ``runs.*.tps``."""
    rows, name = path.split(".*.")
    return [found for one in row.each(rows) if (found := one.positive(name))]


def _texts(row: Fields, path: str) -> list[str]:
    row, path = row.at(path)
    told = row.get(path)
    number = min(len(told), 64) if isinstance(told, list) else 0
    return [found for at in range(number) if (found := row.text(f"{path}.{at}"))]


def _split(row: Fields, path: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in (row.text(path) or "").split(", ") if name.strip()]


def _before(row: Fields, path: str, end: str) -> float | None:
    """The number before a sign in a text: ``182.31 ± 2.11``."""
    written = str(row.get(path)).split(end)[0].strip()
    return Fields({path: written}, row.name, row.place, is_table=True).positive(path)


def _part(row: Fields, path: str, pattern: str, group: int, of: str) -> int:
    """A number in a text, 0 where it leaves it out."""
    text = row.text(path) or ""
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None or not text:
        raise row.refuse(path, f"{str(row.get(path))[:40]!r} is no {of}")
    return int((found[group] or "0")[:12])


def _one_of(row: Fields, path: str, *words: str) -> str | None:
    text = row.text(path)
    if text is not None and text not in words:
        raise row.refuse(path, f"should be {' or '.join(words)}")
    return text


def _around(row: Fields, pattern: str) -> str | None:
    """What stands around the table that the row is of."""
    found = re.search(pattern, row.around, re.ASCII | re.M)
    return found[1] if found else None


# Of other values


def _first(row: Fields, *of: Value) -> Any:
    """The first that is something, else what the last one is."""
    found = None
    for one in of:
        if found := value(one, row):
            break
    return found


def _all(row: Fields, *of: Value) -> bool:
    return all(value(one, row) for one in of)


def _if(row: Fields, when: Value, then: Value, other: Value = None) -> Any:
    return value(then if value(when, row) else other, row)


def _times(row: Fields, one: Value, by: float) -> float | None:
    found = value(one, row)
    return None if found is None else found * by


def _over(row: Fields, one: Value, by: Value) -> float | None:
    above, below = value(one, row), value(by, row)
    return above / below if above and below else None


def _sum(row: Fields, one: Value, *more: Value) -> int | None:
    """A count and others that are added where they are known."""
    found = value(one, row)
    return None if found is None else found + sum(value(each, row) or 0 for each in more)


def _less(row: Fields, one: Value, other: Value) -> int | None:
    """The difference of two counts, where it is one."""
    more, fewer = value(one, row), value(other, row)
    return None if more is None or fewer is None or more < fewer else more - fewer


def _in(row: Fields, one: Value, words: dict[str, Any], other: Any = None) -> Any:
    """What a word, or a whole number, stands for."""
    found = value(one, row)
    return other if found is None else words.get(str(found), other)


def _words(row: Fields, text: str, *of: Value) -> str | None:
    """A text with values in its gaps; None where one is not known."""
    found = [value(one, row) for one in of]
    return None if None in found else text.format(*found)


def _required(row: Fields, one: Value, path: str, why: str) -> Any:
    if found := value(one, row):
        return found
    raise row.refuse(path, why)


def _nearest(row: Fields, one: Value) -> int | None:
    """The nearest whole number, at least 1."""
    found = value(one, row)
    return max(1, round(found)) if found else None


def _moment(row: Fields, one: Value) -> str | None:
    """Seconds since 1970 as a time; None for what is none of this century's first."""
    seconds = value(one, row)
    if seconds is None or not 1e9 < seconds < 1e10:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


OPERATORS: dict[str, Callable[..., Any]] = {
    "text": _reader(Fields.text),
    "count": _reader(Fields.count),
    "number": _reader(Fields.number),
    "positive": _reader(Fields.positive),
    "numbers": _reader(Fields.numbers),
    "flag": _reader(Fields.flag),
    "setting": _reader(_setting),
    "column": _column,
    "texts": _texts,
    "split": _split,
    "before": _before,
    "part": _part,
    "one_of": _one_of,
    "around": _around,
    "key": lambda row: row.key,
    "has": lambda row, path: Fields.has(*row.at(path)),
    "object": lambda row, path: row.inside(path) is not None,
    # An infinite rate is written as a word, or left out.
    "endless": lambda row, path: row.get(path) in (None, "inf", math.inf),
    "equals": lambda row, path, word: row.get(path) == word,
    "has_any": lambda row, path: bool(Fields.get(*row.at(path))),
    "column_length": lambda row, path: len(_column(row, path)),
    "list": lambda row, one: [found] if (found := value(one, row)) else [],
    "begins": lambda row, one, begin: str(value(one, row)).startswith(begin),
    "slug": lambda row, one: slug(value(one, row)),
    "length": lambda row, path: len(row.each(path)),
    "first": _first,
    "all": _all,
    "any": lambda row, *of: any(value(one, row) for one in of),
    "not": lambda row, one: not value(one, row),
    "is": lambda row, one, *words: value(one, row) in words,
    "if": _if,
    "times": _times,
    "over": _over,
    "sum": _sum,
    "less": _less,
    "in": _in,
    "words": _words,
    "required": _required,
    "nearest": _nearest,
    "moment": _moment,
}
