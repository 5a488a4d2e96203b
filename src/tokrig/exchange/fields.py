"""One object of a file, read field by field: what is there is of its type, or the file is refused.

A field that is missing or null is not known. One that holds something else than it should (text
for a number, a negative time, infinity) says that the file is not what it looks like, and nothing
of it is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokrig.errors import ImportRefused

# No tool measures more tokens, bytes or nanoseconds than this; counts have 63 bits in a record.
MOST = 1e18
MAX_TEXT = 200
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
OTHER_DECIMALS = re.compile(r"[+-]?\d[\d.,'’\s\u00a0\u202f]*")
PATH = re.compile(r"(?:~|\.{0,2}/|[A-Za-z]:[\\/]|\\\\).*|.*\\.*")
ADDRESS = re.compile(r"\w+://.*|\S+@\S+\.\S+")


@dataclass(frozen=True)
class Fields:
    """An object of the file ``name`` at ``place``. In tables numbers are written as text.
    ``report`` is the object that it is part of, ``key`` its name there, ``around`` the text that a
    table stands in."""

    data: Any
    name: str
    place: str = ""
    is_table: bool = False
    report: Fields | None = None
    key: str = ""
    around: str = ""

    def at(self, path: str) -> tuple[Fields, str]:
        """Whose field a path is of: ``^`` begins one of the report."""
        return (self.report or self, path[1:]) if path.startswith("^") else (self, path)

    def refuse(self, path: str, why: str, hint: str = "") -> ImportRefused:
        """The error about one of its fields."""
        at = f"{self.name}:{self.place.removeprefix('line ')}" if self.is_table else self.name
        inside = "" if self.is_table else self.place
        where = f"{inside}.{path}".strip(".") if path else inside
        return ImportRefused(": ".join(filter(None, (at, where, why))), hint=hint)

    def get(self, path: str) -> Any:
        """What stands at a dotted path, ``metrics.0.name``; None where nothing does."""
        if self.is_table:
            return self.data.get(path)
        found = self.data
        for part in path.split("."):
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list) and part.isdecimal():
                found = found[int(part)] if int(part) < len(found) else None
            elif isinstance(found, list) and part == "-1":
                found = found[-1] if found else None
            else:
                return None
        return found

    def has(self, path: str) -> bool:
        """Whether there is such a field, null included."""
        parent, _, last = path.rpartition(".") if not self.is_table else ("", "", path)
        holder = self.get(parent) if parent else self.data
        return isinstance(holder, Mapping) and last in holder

    def number(self, path: str) -> float | None:
        """A number that is not negative."""
        value = self._as_number(self.get(path), path)
        return None if value is None else self._in_range(value, path)

    def positive(self, path: str) -> float | None:
        """The same where nothing takes no time: tools write zero for what they do not know."""
        return self.number(path) or None

    def count(self, path: str) -> int | None:
        """A whole number."""
        value = self.number(path)
        if value is not None and value != int(value):
            raise self.refuse(path, f"should be a whole number, not {_shown(value)}")
        return None if value is None else int(value)

    def numbers(self, path: str) -> list[float] | None:
        """A list of numbers that are not negative."""
        found = self.get(path)
        if found is None:
            return None
        if not isinstance(found, list):
            raise self.refuse(path, f"should be a list, not {_shown(found)}")
        values = []
        for index, one in enumerate(found):
            place = f"{path}.{index}"
            value = self._as_number(one, place)
            if value is None:
                raise self.refuse(place, "should be a number, not null")
            values.append(self._in_range(value, place))
        return values

    def text(self, path: str) -> str | None:
        """A short text of printable characters. Of a path only its last part is kept, and nothing
        of an address: records say nothing of users and hosts."""
        value = self.get(path)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.refuse(path, f"should be text, not {_shown(value)}")
        return name_of(value)

    def flag(self, path: str) -> bool | None:
        """A truth value."""
        value = self.get(path)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(path, f"should be true or false, not {_shown(value)}")
        return value

    def inside(self, path: str) -> Fields | None:
        """The object at a path."""
        value = self.get(path)
        if value is not None and not isinstance(value, Mapping):
            raise self.refuse(path, f"should be an object, not {_shown(value)}")
        return None if value is None else self._at(value, path)

    def each(self, path: str) -> list[Fields]:
        """The objects of a list."""
        found = self.get(path)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self.refuse(path, f"should be a list, not {_shown(found)}")
        for index, one in enumerate(found):
            if not isinstance(one, Mapping):
                raise self.refuse(f"{path}.{index}", f"should be an object, not {_shown(one)}")
        return [self._at(one, f"{path}.{index}") for index, one in enumerate(found)]

    def _at(self, data: Any, path: str) -> Fields:
        return Fields(data, self.name, f"{self.place}.{path}".strip("."), report=self.report)

    def _as_number(self, value: Any, path: str) -> float | None:
        if self.is_table:
            return None if value in (None, "") else self._written(str(value), path)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(path, f"should be a number, not {_shown(value)}")
        return value

    def _written(self, text: str, path: str) -> float:
        if NUMBER.fullmatch(text):
            return float(text)
        hint = ""
        if OTHER_DECIMALS.fullmatch(text):
            hint = "write numbers as 1234.5: a point for decimals, nothing between thousands"
        raise self.refuse(path, f"should be a number, not {_shown(text)}", hint)

    def _in_range(self, value: float, path: str) -> float:
        # Whole numbers may be larger than any float, so these come first.
        if value < 0:
            raise self.refuse(path, "is negative")
        if value > MOST:
            raise self.refuse(path, "is larger than anything that was ever measured")
        if math.isnan(value):
            raise self.refuse(path, "is no number")
        return float(value)


def name_of(text: str) -> str | None:
    """A name without its folders where it is a path, one line of printable characters; None for
    what is an address, or nothing."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if ADDRESS.fullmatch(line):
        return None
    is_file = line.lower().endswith(".gguf") and line.count("/") != 2
    if PATH.fullmatch(line) or is_file or line.count("/") > 2:
        line = re.split(r"[\\/]", line.rstrip("\\/"))[-1]
    return line[:MAX_TEXT] or None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
