"""The site on this machine alone, built again whenever a record, what belongs to the records, or a
campaign changes."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from watchfiles import Change, watch

from tokrig.errors import TokrigError, no_port
from tokrig.site.build import Report, build, campaigns_folder

HOST = "127.0.0.1"
# How often the wait for changes looks up, so that it can be ended.
_TICK_MS = 500


@dataclass(frozen=True)
class Event:
    """Something to tell: the address (``serving``), what a change did (``rebuilt``), why it
    could not be shown (``problem``), the end (``stopped``)."""

    kind: Literal["serving", "rebuilt", "problem", "stopped"]
    text: str


def serve(
    content: Path,
    out: Path,
    *,
    port: int,
    keep_going: bool = False,
    campaigns: Path | None = None,
    url: str | None = None,
    pictures: bool = False,
) -> Generator[Event, None, None]:
    """Serve ``out`` until closed, and keep it up to date with ``content``, the rest, which
    ``build`` takes; port 0 takes a free one.

    From ``serving`` on no change is missed. After a ``problem`` the site is what it was.
    Raises InputError when the port is unavailable.
    """
    folder = campaigns_folder(content, campaigns)
    changes = watch(
        *([content, folder] if folder else [content]),
        watch_filter=_matters,
        yield_on_timeout=True,
        rust_timeout=_TICK_MS,
    )
    asked = partial(build, content, out, keep_going=keep_going, campaigns=campaigns)
    rebuild = partial(asked, url=url, pictures=pictures)
    with _server(out, port) as address, contextlib.closing(changes):
        first = next(changes)  # now the folder is watched
        yield Event("serving", address)
        shown = True
        for changed in chain([first], changes):
            if changed:
                for event in _rebuilt(rebuild, told=shown):
                    shown = event.kind != "problem"
                    yield event


def _rebuilt(rebuild: Callable[[], Report], *, told: bool) -> Iterator[Event]:
    """One build, in words; nothing when there was nothing to do and no problem before."""
    try:
        report = rebuild()
    except TokrigError as problem:
        yield Event("problem", f"{problem.message}\n{problem.hint}".strip())
        return
    if report.written or report.removed or not told:
        made, removed = len(report.written), len(report.removed)
        left_out = f", {len(report.problems)} records left out" if report.problems else ""
        yield Event("rebuilt", f"{made} files made, {removed} removed{left_out}")


def _matters(change: Change, path: str) -> bool:
    """Not the files that editors and tokrig itself write before they rename them."""
    return not Path(path).name.startswith(".")


@contextlib.contextmanager
def _server(out: Path, port: int) -> Iterator[str]:
    """A server in a thread; its address. At the end the thread is over and the port free."""
    try:
        server = http.server.ThreadingHTTPServer(
            (HOST, port), partial(_Handler, directory=str(out))
        )
    except OSError as problem:
        raise no_port(HOST, port, problem) from None
    thread = threading.Thread(target=server.serve_forever, name="site", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site, and nothing else: no hidden files, no lists of folders."""

    # The same everywhere, whatever the system knows of types.
    extensions_map = {  # noqa: RUF012 (the base class declares it)
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".xml": "application/atom+xml; charset=utf-8",
        ".yaml": "text/plain; charset=utf-8",
        ".csv": "text/csv; charset=utf-8",
        ".json": "application/json",
        "": "application/octet-stream",
    }

    def send_head(self) -> Any:
        parts = unquote(urlsplit(self.path).path).split("/")
        if any(part.startswith(".") for part in parts):
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> Any:
        self.send_error(404)

    def end_headers(self) -> None:
        # A page may change within the second that times of files are told in.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Requests are no news."""
