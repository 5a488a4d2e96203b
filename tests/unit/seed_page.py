"""The published page that the seed records were transcribed from, read into plain data.

The fixture is the page's text as a browser copies it: cells of a row stand glued together.
Figures stay the text that was printed. What does not look as expected raises ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FIXTURE = Path(__file__).parents[1] / "fixtures" / "benchmarks-page.txt"

QUANT = r"(?P<quant>Q[2-8]_(?:K_(?:XL|[SML])|K|[01]))"
HARDWARE = r"(?P<hardware>.+? · [\d.]+ GiB)"
RATE = r"\d[\d,]*\.\d"  # one decimal, always: that is where one figure ends and the next begins
FAMILY = re.compile(r"(?P<name>.+)\((?P<count>\d+)\)released (?P<released>\d{4}-\d{2})")
CONFIGURATION = re.compile(
    rf"(?P<variant>.+?){QUANT}{HARDWARE}(?P<backend>.+? \(\w+\))(?P<concurrency>\d+)"
)
RANGE = re.compile(rf"(?P<low>{RATE})(?P<high>{RATE})")
SPEED_OF = re.compile(rf"(?P<model>.+?){QUANT} · {HARDWARE}")
SPEED = re.compile(rf"(?P<tok_per_s>{RATE}) tok/s")
FACT = re.compile(r"(cpu|gpu|arch|vram|power|os|kernel|driver|backends)(.+)")

COLUMNS = "VariantQuantHardwareBackendConc.Gen tok/s"
SHAPES = ("chat", "rag", "codegen", "agent")
BY_WORKLOAD, CAVEAT, TESTED, QUEUE = (
    *("Tok/s by workload (concurrency 1)", "Caveat: reasoning models"),
    *("Hardware tested", "Coming soon"),
)


@dataclass(frozen=True)
class Row:
    """One row of the main table: one configuration, its range over the shapes in tok/s."""

    variant: str
    quant: str
    hardware: str
    backend: str
    concurrency: int
    low: str
    high: str


@dataclass(frozen=True)
class Family:
    """One group of the main table. ``count`` is what its heading says."""

    name: str
    count: int
    released: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Speed:
    """One bar: a model's tok/s at one shape."""

    model: str
    quant: str
    hardware: str
    tok_per_s: str


@dataclass(frozen=True)
class Shape:
    """One group of bars, in order, and the sentence under it."""

    name: str
    speeds: tuple[Speed, ...]
    sentence: str


@dataclass(frozen=True)
class SeedPage:
    """All of the page that holds data."""

    families: tuple[Family, ...]
    shapes: tuple[Shape, ...]
    hardware: dict[str, str]
    coming_soon: tuple[str, ...]


def seed_page(path: Path = FIXTURE) -> SeedPage:
    """The page in the fixture."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    table, rest = _cut(lines, BY_WORKLOAD)
    speeds, rest = _cut(rest, CAVEAT)
    _, rest = _cut(rest, TESTED)
    hardware, queue = _cut(rest, QUEUE)
    return SeedPage(
        families=tuple(_families(table)),
        shapes=tuple(_shapes(speeds)),
        hardware=dict(map(_fact, hardware[1:])),
        coming_soon=tuple(line.removeprefix("• ") for line in queue if line.startswith("• ")),
    )


def _cut(lines: list[str], heading: str) -> tuple[list[str], list[str]]:
    at = lines.index(heading)
    return lines[:at], lines[at + 1 :]


def _families(lines: list[str]) -> Iterator[Family]:
    starts = [number for number, line in enumerate(lines) if FAMILY.fullmatch(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        heading = _match(FAMILY, lines[start])
        columns, *rows = lines[start + 1 : end]
        if columns != COLUMNS:
            raise ValueError(f"not the table's columns: {columns!r}")
        yield Family(
            name=heading["name"],
            count=int(heading["count"]),
            released=heading["released"],
            rows=tuple(_row(one, two) for one, two in zip(rows[::2], rows[1::2], strict=True)),
        )


def _row(configuration: str, figures: str) -> Row:
    cells, between = _match(CONFIGURATION, configuration), _match(RANGE, figures)
    return Row(
        variant=cells["variant"],
        quant=cells["quant"],
        hardware=cells["hardware"],
        backend=cells["backend"],
        concurrency=int(cells["concurrency"]),
        low=between["low"],
        high=between["high"],
    )


def _shapes(lines: list[str]) -> Iterator[Shape]:
    starts = [lines.index(name) for name in SHAPES]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        name, *bars, sentence = lines[start:end]
        yield Shape(
            name=name,
            speeds=tuple(
                Speed(**_match(SPEED_OF, one).groupdict(), **_match(SPEED, two).groupdict())
                for one, two in zip(bars[::2], bars[1::2], strict=True)
            ),
            sentence=sentence,
        )


def _fact(line: str) -> tuple[str, str]:
    found = FACT.fullmatch(line)
    if found is None:
        raise ValueError(f"no fact about a machine: {line!r}")
    return found[1], found[2]


def _match(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    found = pattern.fullmatch(line)
    if found is None:
        raise ValueError(f"{line!r} does not look like {pattern.pattern!r}")
    return found
