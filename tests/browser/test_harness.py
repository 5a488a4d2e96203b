"""The browser tests' own guards: a page that misbehaves cannot pass unseen."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OpenPage
from tests.browser.serve import SUB_PATH, serving
from tests.browser.watch import Watch

Faults = Callable[[str], list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fine.js").write_text("document.title = 'ran'")
    return tmp_path


@pytest.fixture(params=["file", "http"])
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"{folder.as_uri()}/"
        return
    with serving(folder) as url:
        yield url


@pytest.fixture
def faults_of(browser: Browser, folder: Path, site: str) -> Faults:
    """What the watch says of a page with this body."""

    def faults_of(body: str) -> list[str]:
        page_text = f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,>{body}"
        (folder / "index.html").write_text(page_text)
        context = browser.new_context()
        watch = Watch(context, site)
        context.new_page().goto(f"{site}index.html")
        return watch.close()

    return faults_of


def test_a_good_page_has_no_faults(faults_of: Faults) -> None:
    image = "<img alt='' src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>"
    assert faults_of(f"<script src=fine.js></script>{image}") == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<script>console.error('bad')</script>", "console error: bad"),
        ("<script>console.warn('odd')</script>", "console warning: odd"),
        ("<script>throw new Error('thrown')</script>", "exception: thrown"),
        ("<script>Promise.reject(new Error('lost'))</script>", "exception: lost"),
    ],
)
def test_errors_of_scripts_are_faults(faults_of: Faults, body: str, expected: str) -> None:
    assert expected in faults_of(body)


def test_a_late_error_is_a_fault(faults_of: Faults) -> None:
    found = faults_of("<script>addEventListener('load', () => console.error('late'))</script>")
    assert "console error: late" in found


def test_a_missing_file_is_a_fault(faults_of: Faults, site: str) -> None:
    found = faults_of("<script src=missing.js></script>")
    kind = "failed request" if site.startswith("file:") else "status 404"
    assert f"{kind}: {site}missing.js" in found


def test_a_request_to_another_port_is_a_fault(faults_of: Faults, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "fine.js").write_text("0")
    with serving(other) as foreign:
        found = faults_of(f"<script src={foreign}fine.js></script>")
    assert found == [f"request beyond the site: {foreign}fine.js"]


def test_a_request_beside_the_site_is_a_fault(faults_of: Faults, site: str) -> None:
    found = faults_of("<script src=../beside.js></script>")
    beside = site.removesuffix("/").rpartition("/")[0] + "/beside.js"
    assert f"request beyond the site: {beside}" in found


def test_a_socket_is_a_fault(faults_of: Faults) -> None:
    found = faults_of("<script>new WebSocket('ws://127.0.0.1:9/x')</script>")
    assert "request beyond the site: ws://127.0.0.1:9/x" in found


def test_a_page_that_is_opened_by_a_page_is_watched(
    browser: Browser, folder: Path, site: str
) -> None:
    (folder / "second.html").write_text("<script>console.error('second')</script>")
    (folder / "index.html").write_text("<script>open('second.html')</script>")
    context = browser.new_context()
    watch = Watch(context, site)
    # A page that is opened is of no page's loading: nothing else tells that it is there.
    with context.expect_console_message(lambda message: message.text == "second"):
        context.new_page().goto(f"{site}index.html")
    assert "console error: second" in watch.close()


def test_only_the_sub_path_is_served(folder: Path) -> None:
    with serving(folder) as url:
        with urllib.request.urlopen(f"{url}fine.js") as answer:
            assert answer.read() == (folder / "fine.js").read_bytes()
            assert answer.headers["Cache-Control"] == "no-store"
        root = url.removesuffix(SUB_PATH)
        for path in ("/fine.js", "/some/fine.js", SUB_PATH):
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                urllib.request.urlopen(root + path)
            caught.value.close()


def test_pages_are_opened_as_asked(open_page: OpenPage, sites: list[str], folder: Path) -> None:
    sites.append(f"{folder.as_uri()}/")
    (folder / "index.html").write_text("<title>written</title><script src=fine.js></script>")
    url = f"{folder.as_uri()}/index.html"
    assert open_page(url).title() == "ran"
    assert open_page(url, java_script_enabled=False).title() == "written"
    narrow = open_page(url, viewport={"width": 360, "height": 640}, color_scheme="dark")
    assert narrow.evaluate("innerWidth") == 360
    assert narrow.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
