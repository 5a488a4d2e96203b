"""Builds of an engine in their order. Pure.

Builds are ordered by their numbers: ``b999`` comes before ``b9174``, ``0.9.10`` before ``0.11.2``.
What is no number, such as a commit, has its place by the day it was first measured on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokrig.store.load import Run

_VERSION = re.compile(r"(\D*)(\d[\w.\-+ ]*)", re.ASCII)
_LONGEST = 18  # digits: more are no number that a person counts up
_COMMIT = re.compile(r"(?=.*[a-f])(?=.*\d)[0-9a-f]{7,40}", re.IGNORECASE)
_PRE = ("dev", "a", "alpha", "b", "beta", "rc", "pre")


def version(build: str) -> tuple[str, tuple[tuple[int, int, str], ...]] | None:
    """The word before a build's numbers, and its parts in an order; None where it has no numbers
    that could order it."""
    found = _VERSION.fullmatch(build.strip())
    is_commit = _COMMIT.fullmatch(build.strip()) and not re.fullmatch(r"[bv]\d+", build.strip())
    if found is None or is_commit:
        return None
    parts = re.findall(r"\d+|[a-z]+", found[2].casefold(), re.ASCII)
    if any(len(part) > _LONGEST for part in parts):
        return None
    ranked = [
        (1, int(part), "") if part.isdigit() else (-1 if part in _PRE else 2, 0, part)
        for part in parts
    ]
    # Nothing stands between a pre-release and a part that follows: 1.0rc1 < 1.0 < 1.0.1.
    return found[1].casefold(), (*ranked, (0, 0, ""))


def order(runs: Iterable[Run]) -> dict[tuple[str, str | None], int]:
    """By engine and build, its place among the builds of that engine, from 0."""
    first: dict[tuple[str, str | None], str] = {}
    for run in runs:
        backend, day = run.record.backend, run.record.provenance.started_at or ""
        key = backend.engine, backend.build
        first[key] = min(filter(None, (first.get(key), day)), default="")
    found: dict[tuple[str, str | None], int] = {}
    for engine in sorted({engine for engine, _ in first}):
        builds = [build for one, build in first if one == engine]
        found |= {(engine, build): n for n, build in enumerate(_ordered(builds, engine, first))}
    return found


def _ordered(
    builds: Sequence[str | None], engine: str, first: dict[tuple[str, str | None], str]
) -> list[str | None]:
    """Builds of one kind of number by their numbers, kinds and the others by their first day."""
    groups: dict[str, list[str | None]] = {}
    for build in builds:
        told = version(build) if build else None
        groups.setdefault(told[0] if told else f"= {build}", []).append(build)

    def numbers(build: str | None) -> tuple[object, ...]:
        told = version(build) if build else None
        return (told[1] if told else (), build or "")

    ranked = [sorted(group, key=numbers) for group in groups.values()]
    ranked.sort(key=lambda group: (min(first[engine, b] for b in group), str(group[0])))
    return [build for group in ranked for build in group]
