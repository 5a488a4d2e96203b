"""Pages at addresses that were published once: each leads on to where its page is now."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tokrig.errors import InputError
from tokrig.site import Output
from tokrig.site.context import Site, key_of


def outputs(site: Site) -> Iterable[Output]:
    """A small page at every old address of content/redirects.yaml."""
    for old, new in follow(site.redirects).items():
        yield Output(
            old,
            key_of(old, new),
            lambda old=old, new=new: site.page(  # type: ignore[misc]
                old, "redirect.html", title="This page has moved", target=new
            ),
        )


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


PAGE = outputs
