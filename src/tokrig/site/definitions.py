"""What the terms on the pages mean: taken from docs/methodology.md, so that both say the same.

Every table there whose first column is headed *term* defines terms; the *record field* beside
it is the key by which pages ask for a definition, and its anchor on the methodology page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = re.compile(r"^\| term \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Definition:
    """One term. ``text`` is plain; ``unit`` is empty for what has none."""

    key: str
    label: str
    text: str
    unit: str


@cache
def methodology() -> str:
    """The document, in Markdown: beside this file in a package, under docs/ in the repository."""
    packaged = Path(__file__).with_name("methodology.md")
    in_repository = Path(__file__).parents[3] / "docs" / "methodology.md"
    return (packaged if packaged.exists() else in_repository).read_text(encoding="utf-8")


@cache
def definitions() -> dict[str, Definition]:
    """All terms by key."""
    found = {}
    for table in _TABLE.finditer(methodology()):
        for line in table[1].splitlines():
            label, field, text, *unit = (cell.strip() for cell in line.strip("|").split(" | "))
            key = _CODE.findall(field)[0]
            found[key] = Definition(key, label, _plain(text), unit[0] if unit else "")
    return found


def _plain(markdown: str) -> str:
    """Prose without the marks for emphasis and code."""
    text = re.sub(r"[*`]", "", markdown)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
