"""Every field of a record as name and text, block by block, whatever fields there are.

Names are those of the YAML; what is not known says so, because a gap is a fact, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from tokrig.record.model import Metric, Percentiles, Record, Result
from tokrig.units import human_bytes

UNKNOWN = "not known"
# Where nothing stands, there was nothing to say.
_ABSENT = {"failure": "none", "notes": "none"}
# From here on a text is shown as a block that wraps and scrolls.
LONG = 160


@dataclass(frozen=True)
class Field:
    """One field: its name inside its block, dots between levels, and its value as text."""

    name: str
    text: str
    known: bool = True

    @property
    def is_long(self) -> bool:
        """Whether the text has several lines or would fill several."""
        return len(self.text) > LONG or "\n" in self.text


@dataclass(frozen=True)
class Block:
    """A top-level block of the record, or one of its results."""

    title: str
    fields: tuple[Field, ...]
    is_result: bool = False


def blocks(record: Record) -> list[Block]:
    """All blocks in the order of the file: what stands alone first, results one by one."""
    alone: list[Field] = []
    found: list[Block] = []
    for name, value in _members(record):
        if isinstance(value, BaseModel):
            found.append(Block(name, tuple(_of_model(value))))
        elif name == "results":
            found += [Block(_title(r), tuple(_of_model(r)), is_result=True) for r in value]
        else:
            alone += _fields(name, _ABSENT.get(name, value) if value is None else value)
    return [Block("run", tuple(alone)), *found]


def _title(result: Result) -> str:
    return f"{result.workload.name} × {result.concurrency}"


def _members(model: BaseModel) -> Iterator[tuple[str, Any]]:
    for name, attribute in _names(type(model)):
        yield name, getattr(model, attribute)


@cache
def _names(block: type[BaseModel]) -> list[tuple[str, str]]:
    """The names in the file, and those of the attributes."""
    return [(field.alias or name, name) for name, field in block.model_fields.items()]


def _of_model(model: BaseModel, prefix: str = "") -> Iterator[Field]:
    for name, value in _members(model):
        yield from _fields(f"{prefix}{name}", value)


def _fields(name: str, value: Any) -> Iterator[Field]:
    """One field for a plain value; one for each member of a block or of a list of blocks."""
    if value is None or isinstance(value, str | int | float):
        yield Field(name, _text(name, value), known=value is not None)
    elif isinstance(value, Metric | Percentiles):
        yield Field(name, ", ".join(f"{key} {_text(key, v)}" for key, v in _members(value)))
    elif isinstance(value, BaseModel):
        yield from _of_model(value, f"{name}.")
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _of_model(item, f"{name} {number}.")
    else:
        yield Field(name, _text(name, value))


def _text(name: str, value: Any) -> str:
    """A plain value as it stands in the file; bytes also in the units people use."""
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case float():
            return str(value)
        case str():
            return value or "empty"
        case int() if name.endswith("bytes"):
            return f"{value} ({human_bytes(value)})"
        case Mapping():
            return ", ".join(f"{key}: {_text(name, item)}" for key, item in value.items()) or "none"
        case tuple():
            return " – ".join(str(item) for item in value)
        case Sequence():
            separator = "\n" if any(len(str(item)) > 60 for item in value) else ", "
            return separator.join(_text("", item) for item in value) or "none"
        case _:
            return str(value)
