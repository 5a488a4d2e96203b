"""What records must not hold, by its form: paths, keys, addresses. Pure; the names of users and
machines are for those who know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# What must not leave the machine, and what stands in its place. Quoted paths may hold blanks,
# others end at the first one; of either the file's name stays.
PRIVATE = (
    (re.compile(r"\b(?:sk|hf|gsk|xai|key|ghp)[-_][A-Za-z0-9_-]{12,}|(?<=Bearer )\S+"), "[key]"),
    (re.compile(r"(['\"])(?:~|[A-Za-z]:)?[\\/][^'\"\n]*?([^'\"\n\\/]*)\1"), r"\1\2\1"),
    (
        re.compile(
            r"(?<![\w.])(?:~|[A-Za-z]:)?[\\/](?=\S)(?:[^\s\"'\\/,:;<>|]+[\\/])*([^\s\"'\\/,:;<>|]*)"
        ),
        r"\1",
    ),
    (re.compile(r"\b(?!127\.)\d{1,3}(?:\.\d{1,3}){3}\b"), "[address]"),
)
# Fields that are public by their nature: names of repositories and addresses of texts.
PUBLIC = ("repo", "source_url", "license", "base_model")


def without_private(text: str) -> str:
    """Paths become file names, keys and addresses vanish."""
    for private, instead in PRIVATE:
        text = private.sub(instead, text)
    return text


def texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The texts in plain data that may hold something private, each with its place:
    ``rig.gpus[0].name``."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in PUBLIC:
                yield from texts(one, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from texts(one, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value
