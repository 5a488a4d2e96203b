"""Addresses that were published stay: the list of them, and redirects for pages that moved."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tokrig.errors import InputError, StoreError
from tokrig.query.facts import load_published

HEADER = """\
# Addresses of pages that were published; tokrig site build --record-urls adds new ones. Each
# stays: a build without one of them is refused, until redirects.yaml says where it leads now.
"""


def record(content: Path, new: Iterable[str]) -> None:
    """Add addresses to ``urls.txt``: sorted, one a line, written whole or not at all.

    Raises InputError for a list that cannot be read, StoreError when the disk refuses.
    """
    known = load_published(content)
    wanted = sorted({*known, *new})
    if wanted == known:
        return
    path = content / "urls.txt"
    temporary = content / f".urls.txt.{os.getpid()}.tmp"
    try:
        temporary.write_text(HEADER + "".join(f"{url}\n" for url in wanted), encoding="utf-8")
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written: {problem.strerror or problem}",
            hint="see to room and permissions, then build again with --record-urls",
        ) from None


def follow(redirects: Mapping[str, str]) -> dict[str, str]:
    """Where each old address leads in the end. ``redirects`` has no circles."""
    ends = {}
    for old, new in redirects.items():
        while new in redirects:
            new = redirects[new]
        ends[old] = new
    return ends


def refuse_dangling(content: Path, redirects: Mapping[str, str], there: Collection[str]) -> None:
    """``there`` are the addresses of the site, the redirects among them.

    Raises InputError with file and line for redirects that lead nowhere, and for old addresses
    of files other than pages: those cannot lead anywhere.
    """
    for old, new in redirects.items():
        where = f"{content / 'redirects.yaml'}:{_line(content, old)}"
        if not old.endswith(".html"):
            raise InputError(
                f"{where}: {old} is no page, and only a page can lead to another address",
                hint="keep that file where it is",
            )
        if new not in there:
            near = difflib.get_close_matches(new, [path for path in there if path != old], n=1)
            raise InputError(
                f"{where}: {old} would lead to {new}, which the site does not have",
                hint=f"did you mean {near[0]}?" if near else "name a page that exists",
            )


def _line(content: Path, old: str) -> int:
    """The line on which an old address stands in redirects.yaml."""
    lines = (content / "redirects.yaml").read_text(encoding="utf-8-sig").splitlines()
    keys = (line.partition(":")[0].strip(" {'\"?") for line in lines)
    return next((number for number, key in enumerate(keys, 1) if key == old), 1)
