"""The public page: records in, a folder of static files out.

A page is one file in ``pages/`` exposing ``PAGE``; it says which files it writes and, for each,
a key of everything the file is made of. A file whose key is known is not made again. The files
work from a disk and from any folder of any host: links are relative, nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokrig.site.context import Site


@dataclass(frozen=True)
class Output:
    """One file of the site.

    ``path`` is relative to the site's folder, with forward slashes. ``key`` is a digest of all
    that the file shows (the code that draws it is added by the build). ``render`` makes the
    bytes: the same bytes whenever the key is the same.
    """

    path: str
    key: str
    render: Callable[[], bytes]


Page = Callable[["Site"], Iterable[Output]]
"""One kind of page: the files of this kind that the records call for."""
