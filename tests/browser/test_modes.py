"""Modes in the tables of a browser: the words Python says, a filter, no overflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser import reading
from tests.browser.conftest import OpenPage
from tests.unit.compared import measured, speculating, with_value
from tokrig.record.model import Record

BOTH = "n-gram speculation, reasoning off, 40–60 % accepted"


def records() -> list[Record]:
    """A run in the baseline and one in two modes at once."""
    both = speculating(40, 50, 60, name="ngram+reasoning-off", reasoning_asked="off")
    runs = {"plain": measured(), "both": both}
    return [with_value(record, "id", name) for name, record in runs.items()]


def modes(page: Page) -> list[str]:
    return sorted(line.mode for line in reading.lines(page))


def test_with_and_without_the_script_the_words_are_the_same(
    folder: Path, open_page: OpenPage
) -> None:
    url = f"{folder.as_uri()}/index.html"
    for scripted in (True, False):
        page = open_page(url, java_script_enabled=scripted)
        assert modes(page) == ["", BOTH]
        details = {bar.detail.partition(" (cuda)")[2] for bar in reading.bars(page, "rag")}
        assert details == {"", " · n-gram speculation, reasoning off, 50 % accepted"}


def test_the_filter_chooses_a_mode(folder: Path, open_page: OpenPage) -> None:
    page = open_page(f"{folder.as_uri()}/index.html")
    reading.choose(page, "mode", "ngram-reasoning-off")
    assert "?mode=ngram-reasoning-off" in page.url
    assert modes(page) == [BOTH]
    reading.choose(page, "mode", "baseline")
    assert modes(page) == ["", BOTH]
    page.get_by_role("button", name="Remove n-gram speculation").click()
    assert "?mode=baseline" in page.url
    assert modes(page) == [""]


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("name", ["index.html", "latency.html", "rigs/geforce-rtx-5070-12gb.html"])
def test_long_words_do_not_widen_a_page(
    folder: Path, open_page: OpenPage, name: str, scripted: bool
) -> None:
    for width in (360, 1280):
        size = {"width": width, "height": 800}
        url = f"{folder.as_uri()}/{name}"
        page = open_page(url, viewport=size, java_script_enabled=scripted)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        table = page.locator(".results").first
        assert table.get_by_text("n-gram speculation, reasoning off").first.is_visible()
