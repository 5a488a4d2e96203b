"""What can be taken away from a page: files of charts, code and text to copy, a part in a frame."""

from __future__ import annotations

import csv
import io
import re
import struct
from collections.abc import Callable
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.conftest import OpenPage
from tests.browser.kinds import KINDS, NEW, RIG, few_runs, write
from tests.browser.test_hostile import TEXTS, hostile, tidy
from tokrig.naming import address
from tokrig.site import sharing
from tokrig.site.build import build

SITE = "https://example.org/bench/"
CLIPBOARD = ["clipboard-read", "clipboard-write"]
MODEL = f"models/{NEW.removeprefix('models/')}"
META = re.compile(r'<meta (?:name|property)="([^"]+)" content="([^"]*)">')
RUN = "sweep-q4_k_m"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    """A site that says where it is published, with few runs and hostile ones."""
    root = tmp_path_factory.mktemp("published")
    write(root / "content", few_runs())
    write(root / "content", (hostile(*one, dated=False) for one in TEXTS.items()))
    (root / "content" / "site.yaml").write_text(f"url: {SITE}\n", encoding="utf-8")
    build(root / "content", root / "site", cache=root / "cache", pictures=True)
    sites.append(f"{(root / 'site').as_uri()}/")
    return root / "site"


@pytest.fixture
def page_of(published: Path, open_page: OpenPage) -> Callable[[str], Page]:
    return lambda path: open_page(f"{published.as_uri()}/{path}", permissions=CLIPBOARD)


def menu(place: Locator) -> Locator:
    place.locator("summary", has_text="Share").click()
    return place.locator(".share .entries")


def copied(page: Page, place: Locator, name: str) -> str:
    place.get_by_role("button", name=name).click()
    place.get_by_text("Copied").wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def saved(page: Page, place: Locator, name: str) -> tuple[str, bytes]:
    with page.expect_download() as began:
        place.get_by_role("button", name=name).click()
    return began.value.suggested_filename, Path(began.value.path()).read_bytes()


def test_a_chart_as_files_and_as_text(page_of: Callable[[str], Page]) -> None:
    page = page_of(MODEL)
    figure = page.locator("#decode")
    there = menu(figure)
    name, drawn = saved(page, there, "Save as SVG")
    assert name == "models-gemma-4-e2b-it-decode.svg"
    text = drawn.decode()
    assert "var(" not in text  # colours stand for themselves
    told = " ".join(one.strip() for one in ElementTree.fromstring(text).itertext())
    assert SITE + MODEL in told
    assert figure.locator("figcaption").inner_text() in told
    name, picture = saved(page, there, "Save as PNG")
    assert (name[-4:], picture[:8]) == (".png", b"\x89PNG\r\n\x1a\n")
    root = ElementTree.fromstring(text)
    size = struct.unpack(">II", picture[16:24])
    assert size == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))
    assert len(picture) > 10_000  # something is drawn
    head, *rows = csv.reader(io.StringIO(saved(page, there, "Save its table as CSV")[1].decode()))
    shown = figure.locator("details tbody tr")
    assert head == [tidy(one) for one in figure.locator("thead th").all_text_contents()]
    assert len(rows) == shown.count() > 1
    lines = copied(page, there, "Copy its table as Markdown").splitlines()
    assert len(lines) == len(rows) + 2
    assert {line.count("|") for line in lines} == {len(head) + 1}


def test_a_chart_in_a_frame(page_of: Callable[[str], Page], published: Path) -> None:
    page = page_of(MODEL)
    code = copied(page, menu(page.locator("#decode")), "Copy code to embed it")
    asked = code.partition(SITE)[2].partition('"')[0]
    assert code.startswith("<iframe ")
    assert asked == f"{MODEL}?embed=decode"
    framed = page_of(asked.replace("&amp;", "&"))
    assert framed.locator("#decode svg").is_visible()
    for gone in ("header", "h1", "#ttft", ".share", "footer"):
        assert not framed.locator(gone).first.is_visible(), gone
    source = framed.locator(".embed-source a")
    assert source.get_attribute("target") == "_blank"
    assert (source.get_attribute("href") or "").endswith(f"{MODEL}#decode")


@pytest.mark.parametrize("asked", ["nothing", "main", "theme", "<b>x</b>"])
def test_a_frame_of_what_is_not_there_says_so(page_of: Callable[[str], Page], asked: str) -> None:
    page = page_of(f"{MODEL}?embed={asked}")
    assert f"This page has no part “{asked}”" in page.locator("main").inner_text()
    assert page.locator(".embed-source a").is_visible()


def test_a_ranking_in_a_frame_keeps_its_filters(page_of: Callable[[str], Page]) -> None:
    page = page_of("index.html?embed=bars")
    page.locator("#bars .figure").first.wait_for()
    assert not page.locator("#results").is_visible()


def test_what_a_run_offers(page_of: Callable[[str], Page]) -> None:
    page = page_of(f"runs/{RUN}.html")
    there = menu(page.locator(".page-share"))
    short = SITE + sharing.short_address(RUN)
    assert copied(page, there, "Copy its permanent address") == short
    line = copied(page, there, "Copy a line for a forum")
    assert f"]({short})**: " in line
    assert "chat × 1, valid" in line
    assert copied(page, there, "Copy a line for each").count("\n") == 5
    badge = copied(page, there, "Copy a badge")
    assert badge.endswith(f"({SITE}badges/runs/{RUN}.svg)]({short})")
    page.keyboard.press("Escape")
    assert not there.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Share"


def row_menu(page: Page, row: Locator) -> Locator:
    row.get_by_role("button", name="Share").click()
    there = page.locator("#row-menu")
    there.get_by_role("button").first.wait_for()
    return there


ROWS = {
    "index.html?family=gemma-4": ("#results", 3),
    "latency.html": ("#results", 1),
    MODEL: (".by-run", 1),
    f"rigs/{RIG}.html": (".results", 3),
}


@pytest.mark.parametrize("path", ROWS)
def test_what_a_row_offers(page_of: Callable[[str], Page], published: Path, path: str) -> None:
    page = page_of(path)
    table_of, results = ROWS[path]
    link = page.locator(f"a[href$='runs/{RUN}.html']")
    row = page.locator(f"{table_of} tr:has(.row-share)", has=link).first
    there = row_menu(page, row)
    short = SITE + sharing.short_address(RUN)
    first, _, *table = copied(page, there, "Copy the row as Markdown").splitlines()
    assert first.startswith(f"**[Gemma-4 E2B-it · Q4_K_M]({short})** on llama.cpp b9174 (cuda) · ")
    assert len(table) == 3
    heads, _, cells = ([one.strip() for one in line.strip("|").split("|")] for line in table)
    assert len(heads) == len(cells) == row.locator("td, th").count() - 1
    assert "100.0" in cells[heads.index("Gen tok/s")]
    assert copied(page, there, "Copy its permanent address") == short
    line = copied(page, there, "Copy a line for a forum")
    assert f"]({short})**: 100.0 tok/s" in line
    badge = copied(page, there, "Copy a badge for a README")
    assert badge.endswith(f"({SITE}badges/runs/{RUN}.svg)]({short})")
    newest = copied(page, there, "Copy a badge of the newest run here")
    found = re.search(rf"\({SITE}(badges/models/[^)]+)\)", newest)
    assert found and (published / found[1]).is_file()
    assert newest.endswith(f"]({SITE}{MODEL})")
    every = there.get_by_role("button", name="Copy a line for each")
    assert every.count() == (results > 1)
    assert page.locator("[popover].row-menu").count() == 1
    page.keyboard.press("Escape")
    assert not there.is_visible()
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == row.get_by_role("button", name="Share").get_attribute("aria-label")


def test_a_row_s_menu_by_keys_and_by_finger(published: Path, open_page: OpenPage) -> None:
    page = open_page(f"{published.as_uri()}/index.html", has_touch=True, permissions=CLIPBOARD)
    first, second, *_ = page.locator("#results .row-share").all()
    first.focus()
    page.keyboard.press("Enter")
    there = page.locator("#row-menu")
    there.get_by_role("button").first.wait_for()
    page.keyboard.press("ArrowUp")
    last = "Copy a badge of the newest run here"
    assert page.evaluate("document.activeElement.textContent") == last
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    there.get_by_text("Copied").wait_for()
    named = there.get_attribute("aria-label")
    page.keyboard.press("Escape")
    second.tap()
    page.wait_for_function(
        "named => document.getElementById('row-menu').matches(':popover-open')"
        " && document.getElementById('row-menu').getAttribute('aria-label') !== named",
        arg=named,
    )
    page.locator("h1").tap()
    assert not there.is_visible()


def test_compared_rows_as_lines(page_of: Callable[[str], Page]) -> None:
    page = page_of("compare.html?rows=sweep-q4_k_m~1,sweep-q8_0~4~chat")
    lines = copied(page, menu(page.locator("#comparison")), "Copy a line for each row").splitlines()
    assert [line.count(SITE) for line in lines] == [1] * 4
    assert "chat × 4" in lines[-1]


def test_on_a_disk_nothing_is_offered_that_needs_an_address(
    site_dir: Path, open_page: OpenPage
) -> None:
    url = f"{site_dir.as_uri()}/runs/seed-lfm2-1.2b-q4_k_m.html"
    page = open_page(url, permissions=CLIPBOARD)
    there = menu(page.locator(".page-share"))
    assert "published page" in there.inner_text()
    assert there.get_by_role("button").count() == 2
    assert "](" not in copied(page, there, "Copy a line for a forum")
    page = open_page(f"{site_dir.as_uri()}/index.html", permissions=CLIPBOARD)
    there = row_menu(page, page.locator("#results tr", has=page.locator(".row-share")).first)
    assert "published page" in there.inner_text()
    assert "](" not in copied(page, there, "Copy the row as Markdown")


def previews(published: Path) -> dict[str, dict[str, str]]:
    """What crawlers read of every page, but those that only lead on from an old address."""
    pages = {
        path.relative_to(published).as_posix(): path.read_text(encoding="utf-8")
        for path in published.rglob("*.html")
    }
    return {
        path: {name: unescape(said) for name, said in META.findall(text)}
        for path, text in pages.items()
        if "This page has moved" not in text
    }


def test_every_page_has_a_preview_with_figures_and_a_picture_that_is_there(
    published: Path,
) -> None:
    found = previews(published)
    kinds = {kind.path.partition("?")[0] for kind in KINDS.values()}
    assert {path for path in kinds if "/" not in path} <= found.keys()
    folders = {path.partition("/")[0] for path in found if "/" in path}
    assert folders == {path.partition("/")[0] for path in kinds if "/" in path} | {"r"}
    for path, told in found.items():
        assert told["og:title"] == told["twitter:title"] != "", path
        assert told["og:description"] == told["description"] == told["og:image:alt"], path
        assert len(told["og:description"]) <= sharing.TEXT_LENGTH, path
        figures = re.search(r"\d", told["og:description"])
        assert figures or re.search("INVALID|no figure|no valid figure", told["og:description"]), (
            path
        )
        picture = published / told["og:image"].removeprefix(SITE)
        size = struct.unpack(">II", picture.read_bytes()[16:24])
        assert size == (int(told["og:image:width"]), int(told["og:image:height"])), path
        if not path.startswith("r/"):
            assert told["og:url"] == (SITE if path == "index.html" else SITE + path)
    assert "100.0 tok/s (95 % interval" in found[f"runs/{RUN}.html"]["description"]
    assert "open-weight models on" in found["compare.html"]["description"]


def test_without_an_address_previews_name_none(site_dir: Path) -> None:
    text = (site_dir / "index.html").read_text(encoding="utf-8")
    told = dict(META.findall(text))
    assert "og:description" in told
    assert not {"og:url", "og:image", "twitter:image"} & told.keys()
    assert not (site_dir / "pictures").exists()


def test_a_short_address_leads_to_its_run(page_of: Callable[[str], Page]) -> None:
    page = page_of(sharing.short_address(RUN))
    page.wait_for_url(f"**/runs/{RUN}.html")


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_names_are_shared_as_texts(page_of: Callable[[str], Page], name: str) -> None:
    page = page_of(f"models/{address(TEXTS[name])}.html")
    for figure in page.locator("figure.chart").all()[:1]:
        there = menu(figure)
        ElementTree.fromstring(saved(page, there, "Save as SVG")[1])
        assert "\n|:--|" in copied(page, there, "Copy its table as Markdown")
    page.keyboard.press("Escape")
    badge = copied(page, menu(page.locator(".page-share")), "Copy a badge")
    assert badge.count("](") == 2
    page.keyboard.press("Escape")
    for row in page.locator("tr", has=page.locator(".row-share")).all()[:1]:
        there = row_menu(page, row)
        table = copied(page, there, "Copy the row as Markdown").splitlines()[-3:]
        assert len({line.count("|") for line in table}) == 1
        assert "<" not in "".join(table)
    assert page.evaluate("typeof pwned") == "undefined"
