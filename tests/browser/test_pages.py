"""Every kind of page: for everybody, on any screen, on paper, and no link leads nowhere."""

from __future__ import annotations

import os
import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.kinds import KINDS, NEW, OLD

WIDTHS = (360, 768, 1280)
NARROW = WIDTHS[0]
# Style sheets on a disk cannot be fetched to be read ahead; no rule that counts needs it.
VIOLATIONS: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
# Themes change colours alone: in the other theme, those are looked at again.
THEMES: dict[Literal["light", "dark"], dict[str, Any]] = {
    "light": VIOLATIONS,
    "dark": {**VIOLATIONS, "runOnly": ["color-contrast", "link-in-text-block"]},
}
NOT_ON_PAPER = "#filters, #tray, #theme, #tip, #pager, .skip, .pick, .top nav"


class OpenKind(Protocol):
    """Opens the page of a kind; its scripts have drawn it."""

    def __call__(self, kind: str, **options: Any) -> Page: ...


@pytest.fixture
def open_kind(folders: dict[str, Path], open_page: OpenPage) -> OpenKind:
    def open_kind(kind: str, **options: Any) -> Page:
        page = open_page(f"{folders[KINDS[kind].site].as_uri()}/{KINDS[kind].path}", **options)
        if kind == "compare" and options.get("java_script_enabled", True):
            page.wait_for_selector("#comparison .grade")
        return page

    return open_kind


def unfold(page: Page) -> None:
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")


# For everybody, on any screen

_BEYOND_THE_EDGE = """() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  return scrollWidth <= clientWidth ? [] : [...document.querySelectorAll('body *')]
    .filter(one => one.getBoundingClientRect().right > clientWidth)
    .map(one => one.outerHTML.slice(0, 120));
}"""


def check_looks(page: Page) -> None:
    """Nobody scrolls sideways at any width, and axe has nothing to say: of the narrowest and the
    widest layout, and of the colours of both themes.

    Drawings and colours are the same at every width: the widest does for them.
    """
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(_BEYOND_THE_EDGE) == [], f"wider than {width} px"
        if width == NARROW:
            check_by_axe(page, VIOLATIONS, {"exclude": [[".drawing svg"]]})
    for theme, options in THEMES.items():
        page.emulate_media(color_scheme=theme)
        check_by_axe(page, options)


def check_by_axe(page: Page, options: dict[str, Any], context: Any = None) -> None:
    found = Axe().run(page, context=context, options=options)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_for_everybody_on_any_screen(open_kind: OpenKind, kind: str) -> None:
    page = open_kind(kind)
    unfold(page)
    check_looks(page)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_without_scripts(open_kind: OpenKind, kind: str) -> None:
    page = open_kind(kind, java_script_enabled=False)
    for part in ("h1", *KINDS[kind].parts):
        expect(page.locator(part).first).to_be_visible()
    assert page.locator("h1").count() == 1
    assert not page.locator("main select, main button, main input").count()


_CHARTS = """all => all.map(svg => {
  const ids = svg.getAttribute('aria-labelledby').split(' ');
  const named = ids.map(id => document.getElementById(id));
  const figure = svg.closest('figure');
  return {
    role: svg.getAttribute('role'),
    named: named.map(one => svg.contains(one) && one.textContent.trim() ? one.localName : ''),
    rows: figure.querySelectorAll('table tbody tr').length,
    units: [...figure.querySelectorAll('thead th')].every(head => head.textContent.trim()),
  };
})"""


@pytest.mark.parametrize("kind", KINDS)
def test_charts_say_in_words_and_figures_what_they_draw(open_kind: OpenKind, kind: str) -> None:
    page = open_kind(kind)
    charts = page.eval_on_selector_all("main svg:not([aria-hidden])", _CHARTS)
    assert len(charts) >= sum(part.endswith(" svg") for part in KINDS[kind].parts)
    for chart in charts:
        assert (chart["role"], chart["named"]) == ("img", ["title", "desc"])
        assert chart["rows"] > 0
        assert chart["units"]


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_there_are_results_and_no_controls(open_kind: OpenKind, kind: str) -> None:
    page = open_kind(kind)
    boxes = page.locator("input[data-pick]")
    framed = KINDS[kind].is_framed
    if boxes.count() and not framed:
        boxes.first.check()
        expect(page.locator("#tray")).to_be_visible()
    page.emulate_media(media="print")
    for part in (*(() if framed else ("h1",)), *KINDS[kind].parts):
        expect(page.locator(part).first).to_be_visible()
    assert page.locator(NOT_ON_PAPER).locator("visible=true").count() == 0


# Keyboard

_FOLLOW_FOCUS = """() => {
  const all = [...document.querySelectorAll(
    'a[href], button:not(:disabled), select, input, summary, [tabindex="0"]'
  )].filter(one => one.checkVisibility({visibilityProperty: true}));
  window.reached = [];
  addEventListener('focusin', ({target}) => {
    const {outlineStyle, outlineWidth} = getComputedStyle(target);
    const seen = outlineStyle !== 'none' && parseFloat(outlineWidth) > 0;
    reached.push([all.indexOf(target), seen, target.outerHTML.slice(0, 120)]);
  });
  return all.length;
}"""


# The long index has the same parts as the short one, hundreds of times.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "long index"])
def test_the_keyboard_reaches_everything_in_order(open_kind: OpenKind, kind: str) -> None:
    page = open_kind(kind)
    unfold(page)
    count = page.evaluate(_FOLLOW_FOCUS)
    for _ in range(count):
        page.keyboard.press("Tab")
    reached = page.evaluate("reached")
    assert [place for place, _, _ in reached] == list(range(count))
    assert [html for _, seen, html in reached if not seen] == []
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("reached.at(-1)[0]") == count - 2


# Themes


def test_the_theme_is_chosen_once_for_all_pages(base: str, open_page: OpenPage) -> None:
    page = open_page(f"{base}index.html", color_scheme="light")
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Switch to the dark theme").click()
    dark = page.evaluate(paper)
    assert dark != light
    page.get_by_role("link", name="Latency").click()
    page.wait_for_url(f"{base}latency.html")
    assert page.evaluate(paper) == dark
    page.locator("#results .hardware a").first.click()
    page.wait_for_url(re.compile("/rigs/"))
    assert page.evaluate(paper) == dark
    page.get_by_role("button", name="Switch to the light theme").click()
    page.go_back()
    page.reload()
    assert page.evaluate(paper) == light


# Links


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r'\sid="([^"]+)"', path.read_text(encoding="utf-8")))


def is_dead(path: Path, href: str) -> bool:
    """Whether a link on the page at ``path`` leads nowhere; of other sites, only https is known."""
    url = urlsplit(href)
    if url.scheme not in ("", "file"):
        return url.scheme != "https"
    target = Path(os.path.normpath(path.parent / unquote(url.path))) if url.path else path
    return not target.is_file() or (url.fragment != "" and url.fragment not in anchors(target))


@pytest.mark.parametrize("kind", KINDS)
def test_no_link_that_scripts_make_is_dead(
    folders: dict[str, Path], open_kind: OpenKind, kind: str
) -> None:
    page = open_kind(kind)
    path = folders[KINDS[kind].site] / urlsplit(KINDS[kind].path).path
    found = page.eval_on_selector_all("[href]", "all => all.map(one => one.href)")
    assert len(found) > 10
    assert [href for href in found if is_dead(path, href)] == []


@pytest.mark.parametrize("site", ["own", "few", "many"])
def test_no_link_of_a_whole_site_is_dead(folders: dict[str, Path], site: str) -> None:
    pages = sorted(folders[site].rglob("*.html"))
    assert len(pages) > 10
    dead = {
        (page.relative_to(folders[site]).as_posix(), href)
        for page in pages
        for href in re.findall(r'\s(?:href|src)="([^"]*)"', page.read_text(encoding="utf-8"))
        if is_dead(page, unescape(href))
    }
    assert dead == set()


# Pages that have moved


@pytest.mark.parametrize("scripts", [True, False])
def test_a_page_that_moved_leads_on(few_dir: Path, open_page: OpenPage, scripts: bool) -> None:
    page = open_page(f"{few_dir.as_uri()}/{OLD}#facts", java_script_enabled=scripts)
    page.wait_for_url(re.compile(re.escape(NEW)))
    assert page.url.endswith("#facts") or not scripts
    expect(page.locator("#facts")).to_be_visible()


def test_a_page_that_moved_is_for_everybody(few_dir: Path, open_page: OpenPage) -> None:
    text = (few_dir / OLD).read_text(encoding="utf-8")
    page = open_page(f"{few_dir.as_uri()}/{NEW}")  # in the same folder
    page.set_content(re.sub(r"<(script|noscript)>.*?</\1>", "", text))
    expect(page.get_by_role("link", name=NEW)).to_be_visible()
    check_looks(page)
