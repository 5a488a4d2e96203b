"""What a page must never do, seen from outside."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response


class Watch:
    """Faults of all pages of a context: errors and warnings on the console, exceptions, requests
    that fail, and requests that leave the site, whose address begins with ``site``."""

    def __init__(self, context: BrowserContext, site: str) -> None:
        self.context = context
        self.site = site
        self.faults: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda problem: self._add("exception", problem.error.message))
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)
        context.on("page", self._page)

    def close(self) -> list[str]:
        """Close the context; all faults, the last ones included."""
        for page in self.context.pages:
            page.wait_for_load_state()
            page.evaluate("0")  # its answer comes after the events that are on their way
        self.context.close()
        return self.faults

    def _add(self, kind: str, detail: str) -> None:
        self.faults.append(f"{kind}: {detail}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._add(f"console {message.type}", message.text)

    def _request(self, request: Request) -> None:
        # What a page carries in itself or makes itself is fetched from nowhere.
        if not request.url.startswith((self.site, "data:", "blob:")):
            self._add("request beyond the site", request.url)

    def _failed(self, request: Request) -> None:
        # Aborted by the browser itself: the reader went elsewhere, or it became a download.
        if request.failure != "net::ERR_ABORTED":
            self._add("failed request", request.url)

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self._add(f"status {response.status}", response.url)

    def _page(self, page: Page) -> None:
        page.on("websocket", lambda socket: self._add("request beyond the site", socket.url))
