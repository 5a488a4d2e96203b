"""What runs are called in charts: as short as tells them apart, and safe to draw."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tokrig.query.apart import apart, name
from tokrig.query.load import Run
from tokrig.record.checks import headline
from tokrig.record.model import Record

MAX_PART = 28
MAX_LABEL = 48
UNVERIFIED = "unverified"


@dataclass(frozen=True)
class Label:
    """``short`` is drawn and unique in its chart, ``full`` stands in the table."""

    short: str
    full: str


def is_unverified(record: Record) -> bool:
    """Whether a result that may be shown could not be confirmed."""
    return any(result.validity.word == "unverified" for result in headline(record))


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
    return " · ".join(filter(None, name(record)))


def of_runs(runs: Sequence[Run]) -> list[Label]:
    """A label a run: those parts of its name that differ among ``runs``, else model and quant;
    what tells it apart from others of its name; and its mark, where a figure is unverified."""
    parts = [name(run.record) for run in runs]
    differing = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(differing):
        differing[:2] = True, True
    told_apart = apart(runs)
    chosen = [
        [
            *(part for part, differs in zip(row, differing, strict=True) if differs and part),
            *filter(None, (told_apart.get(run.id),)),
        ]
        for run, row in zip(runs, parts, strict=True)
    ]
    ends = [f" · {UNVERIFIED}" if is_unverified(run.record) else "" for run in runs]
    drawn = _unique([_drawn(row, end) for row, end in zip(chosen, ends, strict=True)])
    return [
        Label(text, " · ".join(row) + end)
        for text, row, end in zip(drawn, chosen, ends, strict=True)
    ]


def _drawn(parts: Sequence[str], end: str) -> str:
    return short(" · ".join(short(part) for part in parts), MAX_LABEL - len(end)) + end


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
