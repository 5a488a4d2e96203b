"""What runs are called in charts: as short as tells them apart, and safe to draw."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tokrig.query import labels
from tokrig.query.load import Run
from tokrig.record import names
from tokrig.record.model import Record

MAX_PART = 28
MAX_LABEL = 48


@dataclass(frozen=True)
class Label:
    """``short`` is drawn and unique in its chart, ``full`` stands in the table."""

    short: str
    full: str


def plain(text: str) -> str:
    """``text`` on one line, without control, direction and other characters that draw nothing
    or that XML cannot hold."""
    if text.isprintable():
        return " ".join(text.split())
    visible = (c if unicodedata.category(c)[0] != "C" else " " * c.isspace() for c in text)
    return " ".join("".join(visible).split())


def short(text: str, length: int = MAX_PART) -> str:
    """``plain`` text of at most ``length`` characters, cut with an ellipsis."""
    one_line = plain(text)
    return one_line if len(one_line) <= length else one_line[: length - 1].rstrip() + "…"


def subject(record: Record) -> str:
    """``Gemma-4 E2B-it · Q4_K_M · GeForce RTX 5070 · 11.94 GiB · llama.cpp b9174 (cuda)``."""
    return " · ".join(filter(None, _parts(record)))


def of_runs(runs: Sequence[Run]) -> list[Label]:
    """A label a run: those of its names that differ among ``runs``, else model and quant.

    Runs that share all names get their day, and those of one day a number.
    """
    parts = [_parts(run.record) for run in runs]
    differing = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(differing):
        differing[:2] = True, True
    chosen = [
        [part for part, differs in zip(row, differing, strict=True) if differs and part]
        for row in parts
    ]
    full = [" · ".join(row) for row in chosen]
    alike = Counter(full)
    for run, row, name in zip(runs, chosen, full, strict=True):
        day = (run.record.provenance.started_at or "")[:10]
        if alike[name] > 1 and day:
            row.append(day)
    return [
        Label(drawn, " · ".join(row))
        for drawn, row in zip(_unique([_drawn(row) for row in chosen]), chosen, strict=True)
    ]


def _parts(record: Record) -> list[str]:
    """From what is looked for first to what is looked for last."""
    return [
        names.model_name(record.model),
        record.model.quant or "",
        names.hardware_name(record.rig),
        labels.backend(record.backend),
        labels.mode_besides(record.mode.name),
    ]


def _drawn(parts: Sequence[str]) -> str:
    return short(" · ".join(short(part) for part in parts), MAX_LABEL)


def _unique(texts: Sequence[str]) -> list[str]:
    """Equal texts numbered from the second on, so that no two share a row."""
    seen: Counter[str] = Counter()
    taken: dict[str, None] = {}
    for text in texts:
        name = text
        while name in taken:
            seen[text] += 1
            name = f"{text} ({seen[text] + 1})"
        taken[name] = None
    return list(taken)
