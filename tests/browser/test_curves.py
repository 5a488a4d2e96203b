"""The curves page: each view under a real pointer and real keys, what is picked, what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage

VIEWS = ("depth", "load", "session", "sustained", "quality", "cost")


def opened(open_page: OpenPage, site: Path, query: str, **options: object) -> Page:
    page = open_page(f"{site.as_uri()}/curves.html?{query}", **options)
    page.locator("section.view:visible .panel canvas").first.wait_for()
    return page


def told(page: Page) -> str:
    return page.locator("section.view:visible .live > .status").inner_text()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_drawn_walked_by_keys_pointed_at_and_has_its_table(
    many_dir: Path, open_page: OpenPage, view: str
) -> None:
    page = opened(open_page, many_dir, f"view={view}")
    assert page.locator("section.view:visible").count() == 1
    assert page.locator(".tabs [aria-current]").get_attribute("data-view") == view
    section = page.locator(f"#{view}")
    plot = section.locator(".plot").first
    plot.focus()
    page.keyboard.press("ArrowRight")
    point = plot.locator(".point")
    first = point.inner_text()
    assert any(character.isdigit() for character in first)
    page.keyboard.press("ArrowRight")
    assert section.locator(".panel").first.locator("[role=status]").inner_text()
    # Where the ring was put by the keys, the pointer finds the same point.
    page.keyboard.press("ArrowLeft")
    expect(point).to_have_text(re.compile(re.escape(first.split("\n")[-1])))
    box = plot.locator(".ring").bounding_box()
    assert box
    page.keyboard.press("Escape")
    expect(point).to_be_hidden()
    place = plot.bounding_box()
    assert place
    plot.hover(position={"x": box["x"] - place["x"] + 9, "y": box["y"] - place["y"] + 9})
    expect(point).to_be_visible()
    if not section.locator(".figures").evaluate("one => one.open"):
        section.locator(".figures summary").click()
    drawn = section.locator(".drawn li").count()
    assert 1 <= drawn <= 6
    assert section.locator(".figures tr.of").count() == drawn
    assert section.locator(".figures td.num").count() >= drawn


def test_lines_are_picked_up_to_six_and_live_in_the_address(
    many_dir: Path, open_page: OpenPage
) -> None:
    page = opened(open_page, many_dir, "view=cost")
    section = page.locator("#cost")
    section.locator(".others summary").click()
    for count in (5, 6):
        section.locator(".others input").first.click()
        expect(section.locator(".drawn li")).to_have_count(count)
    expect(section.locator(".others input").first).to_be_disabled()
    keys = section.locator(".drawn li").evaluate_all("all => all.map((one) => one.dataset.key)")
    assert keys == page.evaluate("new URLSearchParams(location.search).get('draw').split(',')")
    page.go_back()
    expect(section.locator(".drawn li")).to_have_count(5)
    page.reload()
    expect(section.locator(".drawn li")).to_have_count(5)
    section.get_by_label("Search").fill("zzz nothing")
    assert "Nothing matches" in told(page)


def test_what_nobody_has_is_told_and_the_rest_is_drawn(many_dir: Path, open_page: OpenPage) -> None:
    query = "view=<b>nope</b>&model=no-model&card=%22%3E&draw=lost,%3Cscript%3E"
    page = open_page(f"{many_dir.as_uri()}/curves.html?{query}")
    page.locator("#depth .live > .status").wait_for()
    said = told(page)
    assert "No view is called “<b>nope</b>”" in said
    assert "No model “no-model”" in said and 'No card “">”' in said
    assert "“lost” has no such curve" in said and "“<script>”" in said
    assert page.locator("#depth .drawn li").count() >= 2


PRICES = {
    "0": "has to be above 0",
    "-1": "has to be above 0",
    "free": "“free” is no price of a kWh",
    "1.2.3": "is no price",
    "1e9": "is no price",
    "99999999": "is more than any",
}


def test_a_price_that_is_none_is_told_and_no_money_is_drawn(
    many_dir: Path, open_page: OpenPage
) -> None:
    page = opened(open_page, many_dir, "view=cost&price=-0,3")
    assert "has to be above 0" in told(page)
    for price, fault in PRICES.items():
        page.locator("#cost").get_by_label("Price of a kWh").fill(price)
        assert fault in told(page)
        assert page.locator("#cost .panel").count() == 1
        assert "J a token" in page.locator("#cost .panel figcaption").inner_text()


def test_money_follows_from_energy_and_price_and_is_remembered_here(
    many_dir: Path, open_page: OpenPage
) -> None:
    page = opened(open_page, many_dir, "view=cost")
    section = page.locator("#cost")
    section.get_by_label("Price of a kWh").fill("0,72")
    row = section.locator(".figures tbody tr:not(.of)").first.locator("td")
    joule, cost = row.nth(3).inner_text(), row.nth(5).inner_text()
    expected = float(joule) * 0.72 / 3.6
    assert float(cost.replace("€", "").replace("\u00a0", "")) == pytest.approx(expected, rel=0.01)
    assert "measured, gpu" in row.nth(4).inner_text()
    assert "price=0%2C72" in page.url or "price=0,72" in page.url
    page.goto(f"{many_dir.as_uri()}/curves.html?view=cost")
    expect(section.get_by_label("Price of a kWh")).to_have_value("0,72")


def test_without_a_counter_the_readers_own_watts_say_so(
    site_dir: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{site_dir.as_uri()}/curves.html?view=cost")
    page.locator("#cost .live > .status").wait_for()
    assert "give the watts" in told(page)
    section = page.locator("#cost")
    section.get_by_label("Watts").fill("65")
    row = section.locator(".figures tbody tr:not(.of)").first.locator("td")
    together, joule = row.nth(2).inner_text(), row.nth(3).inner_text()
    assert float(joule) == pytest.approx(65 / float(together), rel=0.01)
    assert "from your 65 W" in row.nth(4).inner_text()


def test_without_a_script_every_view_has_its_picture_and_figures(
    many_dir: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{many_dir.as_uri()}/curves.html", java_script_enabled=False)
    for view in VIEWS:
        assert page.locator(f"#{view} figure svg").is_visible()
        assert page.locator(f"#{view} figure tbody td").count() > 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_panel_as_a_picture_says_what_stands_around_it(
    many_dir: Path, open_page: OpenPage, scheme: str
) -> None:
    page = opened(open_page, many_dir, "view=load", color_scheme=scheme)
    # What is written into the picture, with its place: its pixels alone tell no words.
    page.evaluate(
        """() => {
            const write = CanvasRenderingContext2D.prototype.fillText;
            window.written = [];
            CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
                window.written.push(text);
                return write.apply(this, arguments);
            };
        }"""
    )
    panel = page.locator("#load .panel").first
    panel.locator(".share summary").click()
    with page.expect_download() as began:
        panel.get_by_role("button", name="Save as PNG").click()
    panel.locator(".share .status", has_text="Saved").wait_for()
    title = panel.locator("figcaption").inner_text()
    assert began.value.suggested_filename.startswith("curves-all-together")
    written = page.evaluate("window.written")
    view = page.locator("#load h2").inner_text()
    across = panel.locator(".axis").inner_text()
    for said in (title, view, across, "tok/s"):
        assert said in written, said
    today = page.evaluate("new Date().toISOString().slice(0, 10)")
    assert written[-1].startswith("tokrig") and written[-1].endswith(today)
    for line in page.locator("#load .drawn strong").all_text_contents():
        assert any(line in one and "·" in one for one in written), line
    picture = Path(began.value.path()).read_bytes()
    found = page.evaluate(PIXELS, list(picture))
    assert found["width"] >= 1600 and found["height"] >= 700
    ground = (253, 253, 252) if scheme == "light" else (20, 21, 23)
    assert all(abs(one - other) < 16 for one, other in zip(found["ground"], ground, strict=True))
    for part in ("title", "legend", "plot", "source"):
        assert found[part] > 200, part
    assert found["colours"] > 20


# How many pixels of each part of a picture are not of its ground, and how many colours there are.
PIXELS = """async (bytes) => {
    const picture = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
    const { width, height } = picture;
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    const ground = [...pen.getImageData(1, 1, 1, 1).data.slice(0, 3)];
    const drawn = (x, y, w, h) => {
        const { data } = pen.getImageData(x, y, w, h);
        let count = 0;
        for (let n = 0; n < data.length; n += 4) {
            if (ground.some((one, place) => Math.abs(data[n + place] - one) > 40)) count += 1;
        }
        return count;
    };
    const { data } = pen.getImageData(0, 0, width, height);
    const colours = new Set();
    for (let n = 0; n < data.length; n += 4) {
        colours.add((data[n] << 16) | (data[n + 1] << 8) | data[n + 2]);
    }
    return {
        width, height, ground, colours: colours.size,
        title: drawn(0, 30, 600, 40), legend: drawn(0, 120, width, 40),
        plot: drawn(0, height - 712, width, 600), source: drawn(0, height - 44, width, 40),
    };
}"""
