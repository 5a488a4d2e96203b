"""A record's chart as a file: what ``tokrig show --plot`` writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokrig.errors import InputError, StoreError, did_you_mean

if TYPE_CHECKING:
    from tokrig.record.model import Record
    from tokrig.record.samples import Sample
    from tokrig.site.charts import Figure

SUFFIXES = (".png", ".svg")


def plot(record: Record, samples: Sequence[Sample], file: Path, name: str | None) -> str:
    """Draw the chart called ``name`` (default: the most telling one) into ``file``; its name.

    Raises InputError for an unknown chart or file type, a record with nothing to draw, and
    missing packages; StoreError when the file cannot be written, which then is what it was.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"--plot: {file} is neither PNG nor SVG", hint="end the file's name in .png or .svg"
        )
    try:
        figure = _figure(record, samples, name)
        drawn = _drawn(figure, record, file)
    except ModuleNotFoundError as missing:
        raise InputError(
            f"charts need the package {missing.name!r}", hint="pip install 'tokrig[site]'"
        ) from None
    _write(file, drawn)
    return figure.slug


def _figure(record: Record, samples: Sequence[Sample], name: str | None) -> Figure:
    from tokrig.query.load import Run
    from tokrig.site.charts.speed import of_record

    figures = of_record(Run(record, path="", digest=""), samples)
    if not figures:
        raise InputError(
            f"{record.id} has nothing to draw",
            hint="a chart needs valid results or samples; tokrig show says what is wrong with them",
        )
    if name is None:
        return next(iter(figures.values()))
    if name not in figures:
        raise InputError(f"{record.id} has no chart {name!r}", hint=did_you_mean(name, figures))
    return figures[name]


def _drawn(figure: Figure, record: Record, file: Path) -> bytes:
    from tokrig.site.charts.draw import png, svg_file
    from tokrig.site.charts.points import subject

    if file.suffix.lower() == ".svg":
        return svg_file(figure, subject=subject(record)).encode()
    return png(figure, subject=subject(record))


def _write(file: Path, data: bytes) -> None:
    """Beside its place first: a reader sees the old file or the whole new one."""
    staged = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        staged.write_bytes(data)
        staged.replace(file)
    except OSError as problem:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise StoreError(
            f"{file}: cannot be written: {problem.strerror or problem}",
            hint="--plot takes a file in a folder that exists and that you may write to",
        ) from None
