"""A real browser on a real site: built from this repository's records, and from many made ones.

Everything lives as long as the tests of this folder: Playwright keeps an event loop running in
the main thread, and other tests want none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.kinds import build_few, write
from tests.browser.serve import serving
from tests.browser.watch import Watch
from tests.unit.alike import others, plain
from tokrig.site.build import build

ROOT = Path(__file__).parents[2]
MANY_RUNS = 150  # more lines than a view shows; each run costs half a second of drawing
TIMEOUT_MS = 60_000  # nothing here takes a second, but other programs may want the processors
expect.set_options(timeout=TIMEOUT_MS)

# Read here because no test sees the user's settings (tests/conftest.py).
CHROMIUM = os.environ.get("TOKRIG_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class OpenPage(Protocol):
    """Opens an address in a context of its own, made with Playwright's options."""

    def __call__(self, url: str, **options: Any) -> Page: ...


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail(
            "no Chromium found: install Debian's chromium or Google Chrome, "
            "or name its executable in TOKRIG_CHROMIUM"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


# The begin of the names of the records that were there first.
FIRST = ("seed-", "20261122-183111", "20261128-010707")


@pytest.fixture(scope="package")
def sites() -> list[str]:
    """Where the sites under test begin; pages of no other may be opened."""
    return []


@pytest.fixture(scope="package")
def site_dir(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    """The site of this repository's first records: whoever adds one must not have to change what
    these tests count."""
    content = tmp_path_factory.mktemp("first") / "content"

    def later(folder: str, names: list[str]) -> set[str]:
        runs = {name for name in names if name.endswith((".yaml", ".parquet"))}
        models = Path(folder).name == "models"
        return set() if models else {name for name in runs if not name.startswith(FIRST)}

    def make(out: Path) -> None:
        shutil.copytree(ROOT / "content", content, ignore=later)
        (content / "urls.txt").unlink()
        _run("-m", "tokrig", "site", "build", "--content", str(content), "--out", str(out))

    return _site(tmp_path_factory, sites, "own", make)


@pytest.fixture(scope="package")
def many_dir(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    """The site of many made records."""

    def make(out: Path) -> None:
        made = tmp_path_factory.mktemp("made")
        _run(str(ROOT / "bench/make_content.py"), "--runs", str(MANY_RUNS), "--out", str(made))
        _run("-m", "tokrig", "site", "build", "--content", str(made / "content"), "--out", str(out))

    return _site(tmp_path_factory, sites, "many", make)


@pytest.fixture(scope="package")
def few_dir(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    """The site of few made records, which has a bit of everything."""

    def make(out: Path) -> None:
        build_few(tmp_path_factory.mktemp("few")).rename(out)

    return _site(tmp_path_factory, sites, "few", make)


@pytest.fixture(scope="package")
def alike_dir(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    """The site of runs that differ in one thing each, and in no figure."""

    def make(out: Path) -> None:
        content = tmp_path_factory.mktemp("alike") / "content"
        write(content, [plain(), *(other.record for other in others())])
        build(content, out, cache=content.parent / "cache")

    return _site(tmp_path_factory, sites, "alike", make)


@pytest.fixture(scope="package")
def folders(site_dir: Path, few_dir: Path, many_dir: Path) -> dict[str, Path]:
    """The sites of ``KINDS``."""
    return {"own": site_dir, "few": few_dir, "many": many_dir}


def _site(
    factory: pytest.TempPathFactory, sites: list[str], name: str, make: Callable[[Path], None]
) -> Path:
    """A site that all processes of a test run share: whoever needs it first builds it."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    base = factory.getbasetemp() if alone else factory.getbasetemp().parent
    out = base / f"site-{name}"
    with FileLock(base / f"site-{name}.lock"):
        if not out.exists():
            half = base / f"site-{name}.half"
            make(half)
            half.rename(out)
    sites.append(f"{out.as_uri()}/")
    return out


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")


@pytest.fixture(scope="package")
def served(site_dir: Path, sites: list[str]) -> Iterator[str]:
    """The same site on a static host, in a folder of it."""
    with serving(site_dir) as url:
        sites.append(url)
        yield url


@pytest.fixture(scope="module")
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sites: list[str]
) -> Path:
    """The site of the records that the tests' module makes."""
    root = tmp_path_factory.mktemp("records")
    write(root / "content", request.module.records())
    build(root / "content", root / "site", cache=root / "cache")
    sites.append(f"{(root / 'site').as_uri()}/")
    return root / "site"


@pytest.fixture(params=["file", "http"])
def base(request: pytest.FixtureRequest, site_dir: Path) -> str:
    """The address of the site, with a slash at the end: on a disk, and on a host."""
    if request.param == "file":
        return f"{site_dir.as_uri()}/"
    served: str = request.getfixturevalue("served")
    return served


@pytest.fixture
def open_page(browser: Browser, sites: list[str]) -> Iterator[OpenPage]:
    """Opens pages, and fails the test when one of them misbehaved (see ``Watch``)."""
    watches: list[Watch] = []

    def open_page(url: str, **options: Any) -> Page:
        under = [site for site in sites if url.startswith(site)]
        assert under, f"{url} is on none of the sites under test: {sites}"
        context = browser.new_context(**options)
        context.set_default_timeout(TIMEOUT_MS)
        watches.append(Watch(context, under[0]))
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    faults = [fault for watch in watches for fault in watch.close()]
    assert not faults, "\n".join(faults)


@pytest.fixture
def at(folder: Path, open_page: OpenPage) -> Any:
    """Opens a page of that site; any fault of it fails the test."""
    return lambda address, **options: open_page(f"{folder.as_uri()}/{address}", **options)
