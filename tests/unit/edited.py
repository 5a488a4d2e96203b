"""Records with one figure changed, as a slip of the hand or of the mind changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokrig.record.model import Record

Place = tuple[str | int, ...]
FACTOR = 43.6  # 211.9 → 9211.9 is 43.5 times as much


def figures_of(data: Any, at: Place = ()) -> Iterator[tuple[Place, float]]:
    """Every number in a record's results, with the way to it."""
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            yield from figures_of(value, (*at, key))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield at, data


def slips(value: float) -> Iterator[tuple[str, float]]:
    """What may be written instead: another order of magnitude, two digits swapped."""
    for name, changed in (("×", value * FACTOR), ("÷", value / FACTOR)):
        if value:
            yield name, int(changed) if isinstance(value, int) else changed
    digits = repr(value)
    for index in range(len(digits) - 1):
        one, two = digits[index], digits[index + 1]
        if one != two and one.isdigit() and two.isdigit():
            swapped = digits[:index] + two + one + digits[index + 2 :]
            yield "swap", int(float(swapped)) if isinstance(value, int) else float(swapped)
            break


def with_field(record: Record, place: Place, value: Any) -> Record:
    """The record with one field changed, lists and blocks on the way included."""
    data = record.model_dump(by_alias=True)
    block: Any = data
    for part in place[:-1]:
        block = block[part]
    block[place[-1]] = value
    return Record.model_validate(data)


def edited(record: Record) -> Iterator[tuple[Place, str, Record]]:
    """The record with one figure of its results changed, for each figure and each slip."""
    data = record.model_dump(by_alias=True)
    for place, value in list(figures_of(data["results"], ("results",))):
        for slip, changed in slips(value):
            block: Any = data
            for part in place[:-1]:
                block = block[part]
            if isinstance(block, tuple):  # an interval
                continue
            block[place[-1]] = changed
            yield place, slip, Record.model_validate(data)
            block[place[-1]] = value
