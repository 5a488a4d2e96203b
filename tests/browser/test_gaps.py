"""The gaps map and the queue on the first page: found, folded, copied, and never believed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.kinds import build_few, few_runs, write
from tests.browser.serve import serving
from tests.browser.test_hostile import TEXTS, check_harmless, tidy
from tokrig.documents import dump
from tokrig.site.build import build

COMMAND = "tokrig campaign run campaigns/missing.yaml --only vulkan"
CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    out = build_few(tmp_path_factory.mktemp("gaps"))
    sites.append(f"{out.as_uri()}/")
    return out


@pytest.fixture
def page(out: Path, open_page: OpenPage) -> Page:
    return open_page(f"{out.as_uri()}/gaps.html", permissions=CLIPBOARD)


def cells(page: Page) -> dict[tuple[str, str], str]:
    """The state of each model on each machine, by the names a reader sees."""
    found: list[list[str]] = page.eval_on_selector_all(
        ".gaps tbody td",
        """all => all.map(cell => [
          cell.parentElement.querySelector('th').textContent,
          cell.closest('table').querySelectorAll('thead th')[cell.cellIndex].textContent,
          cell.querySelector('.state').textContent,
        ])""",
    )
    return {(model, rig): state for model, rig, state in found}


def test_every_model_on_every_machine(page: Page) -> None:
    card = "GeForce RTX 5070 · 12 GB"
    assert cells(page) == {
        ("Gemma-4 E2B-it", card): "measured",
        ("Gemma-4 E2B-it", "Strix Halo"): "queued",
        ("huge", card): "does not fit",
        ("huge", "Strix Halo"): "never tried",
        ("small", card): "blocked",
        ("small", "Strix Halo"): "never tried",
    }
    page.locator(".gaps .state.measured").first.click()
    page.wait_for_url(re.compile(r"/runs/sweep-"))


def test_a_gap_opens_with_its_reason_and_command(page: Page) -> None:
    cell = page.locator(".gaps td", has=page.locator(".blocked"))
    expect(cell.locator("code")).to_have_count(0)
    cell.locator("summary").press("Enter")
    expect(cell).to_contain_text("the engine does not start; until a build that starts is out")
    expect(cell.locator("code")).to_have_text(COMMAND.replace("vulkan", "blocked"))


def test_a_command_is_copied_from_a_page_on_a_disk(page: Page) -> None:
    cell = page.locator(".gaps td", has=page.locator(".queued"))
    cell.locator("summary").click()
    button = cell.get_by_role("button", name=f"Copy {COMMAND}")
    button.click()
    expect(button).to_have_text("Copied")
    expect(page.locator("main > p[role=status]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == COMMAND
    cell.locator("summary").click()
    cell.locator("summary").click()
    expect(cell.locator("button")).to_have_count(1)
    expect(button).to_have_text("Copy")


def test_a_command_is_copied_where_there_is_no_clipboard(
    out: Path, open_page: OpenPage, sites: list[str]
) -> None:
    with serving(out) as url:
        sites.append(url)
        page = open_page(f"{url}gaps.html")
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        cell = page.locator(".gaps td", has=page.locator(".queued"))
        cell.locator("summary").click()
        cell.locator("button").click()
        expect(cell.locator("button")).to_have_text("Copied")
        assert page.evaluate("String(getSelection())") == COMMAND
        page.goto("about:blank")


def test_without_scripts_it_is_a_list_by_model(out: Path, open_page: OpenPage) -> None:
    page = open_page(f"{out.as_uri()}/gaps.html", java_script_enabled=False)
    row = page.locator(".by-model tr", has=page.locator(".queued"))
    expect(row.locator("code")).to_have_text(COMMAND)
    expect(row).to_contain_text("Strix Halo")
    expect(
        page.locator(".by-model tr", has=page.locator(".measured")).locator("td a")
    ).to_have_text("GeForce RTX 5070 · 12 GB")
    expect(page.locator("#filters")).to_be_hidden()


@pytest.mark.parametrize(
    ("query", "rows", "columns"),
    [
        ("family=gemma-4", ["Gemma-4 E2B-it"], 2),
        ("machine=geforce-rtx-5070-12gb", ["Gemma-4 E2B-it", "huge", "small"], 1),
        ("memory=12", ["Gemma-4 E2B-it", "huge", "small"], 1),
        ("state=does_not_fit", ["huge"], 1),
        ("state=never", ["huge", "small"], 1),
        ("model=HUG", ["huge"], 2),
        ("model=HUG&state=measured", [], 0),
        ("state=nonsense&family=constructor", ["Gemma-4 E2B-it", "huge", "small"], 2),
    ],
)
def test_it_is_filtered_by_the_address(
    out: Path, open_page: OpenPage, query: str, rows: list[str], columns: int
) -> None:
    page = open_page(f"{out.as_uri()}/gaps.html?{query}")
    assert page.locator(".gaps tbody th").all_inner_texts() == rows
    heads = page.locator(".gaps").first.locator("thead th") if rows else page.locator(".gaps")
    expect(heads).to_have_count(columns + 1 if rows else 0)
    if not rows:
        expect(page.locator("#status")).to_have_text("Nothing is so: choose less.")


def test_a_filter_stands_in_the_address(page: Page) -> None:
    page.locator("select[name=state]").select_option("queued")
    assert page.url.endswith("?state=queued")
    expect(page.locator(".gaps .state")).to_have_text(["queued"])
    page.locator("select[name=state]").select_option("")
    assert page.url.endswith("gaps.html")


# Sixty machines and a hundred and fifty models


def test_many_are_folded_and_quick(page: Page) -> None:
    page.add_init_script(
        """Object.defineProperty(window, 'tokrig', {writable: true, value: {
          set gaps(found) {
            const repeated = (of, n) => Array.from({length: n}, (_, at) => of[at % of.length]);
            this.many = {...found,
              machines: repeated(found.machines, 60),
              models: repeated(found.models, 150).map(([name, address, family], at) =>
                [`${name} ${at}`, address, family]),
              cells: repeated(found.cells, 150).map((row) => repeated(row, 60))};
          },
          get gaps() { return this.many; },
        }});"""
    )
    page.reload()
    assert page.locator("details.family").count() >= 2
    expect(page.locator(".gaps")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("150 models on 60 machines")
    page.locator("details.family > summary").first.click()
    expect(page.locator(".gaps")).to_have_count(1)
    took = page.evaluate(
        """() => {
          const select = document.querySelector('select[name=state]');
          const took = [];
          for (const value of ['queued', 'blocked', 'never', '', 'measured', 'does_not_fit', '']) {
            select.value = value;
            const begin = performance.now();
            select.dispatchEvent(new Event('input', {bubbles: true}));
            took.push(performance.now() - begin);
          }
          return took.sort((a, b) => a - b)[3];
        }"""
    )
    assert took < 200  # others use this machine, too


def test_headers_stay_in_sight(page: Page) -> None:
    page.set_viewport_size({"width": 900, "height": 500})
    page.add_style_tag(content=".map { max-height: 9rem !important; --rigs: 9 !important; }")
    page.locator(".map").evaluate("one => one.scrollTo(300, 60)")
    left, top = page.locator(".map").evaluate(
        "one => [one.getBoundingClientRect().left, one.getBoundingClientRect().top]"
    )
    row = page.locator(".gaps tbody th").first.bounding_box()
    head = page.locator(".gaps thead th").first.bounding_box()
    assert row and head
    assert abs(row["x"] - left) < 3
    assert abs(head["x"] - left) < 3
    assert abs(head["y"] - top) < 3


def test_on_a_phone_it_is_a_list_by_model(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    models = page.locator(".gaps tbody th")
    boxes = [models.nth(n).bounding_box() for n in range(models.count())]
    assert len({box["x"] for box in boxes if box}) == 1
    told = page.locator(".gaps td").first.evaluate(
        "one => getComputedStyle(one, '::before').content"
    )
    assert told == '"GeForce RTX 5070 · 12 GB"'
    expect(page.locator(".gaps thead").first).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_states_differ_in_word_colour_and_shape(page: Page) -> None:
    looks = page.eval_on_selector_all(
        ".legend .state",
        """all => all.map(one => {
          const {color} = getComputedStyle(one);
          const {clipPath, borderRadius, borderStyle, backgroundImage, transform} =
            getComputedStyle(one, '::before');
          return [one.textContent, color,
            [clipPath, borderRadius, borderStyle, backgroundImage, transform].join(' ')];
        })""",
    )
    assert len(looks) == 7
    for each in zip(*looks, strict=True):
        assert len(set(each)) == 7


def test_the_first_page_tells_what_is_coming(out: Path, open_page: OpenPage) -> None:
    page = open_page(f"{out.as_uri()}/index.html", permissions=CLIPBOARD)
    soon = page.locator("[aria-labelledby=soon]")
    expect(soon.locator("h3")).to_have_text(
        ["Vulkan on the other machine", "A model for a bigger card", "FP8"]
    )
    entry = soon.locator("li", has_text="Vulkan")
    expect(entry).to_contain_text("Strix Halo, 0 of 2 runs done, 2 left")
    expect(soon.locator("li", has_text="FP8")).to_contain_text(
        "blocked: the engine does not start; until a build that starts is out"
    )
    entry.get_by_role("button", name=f"Copy {COMMAND}").click()
    expect(entry.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == COMMAND
    soon.get_by_role("link", name="The gaps map").click()
    page.wait_for_url(re.compile(r"/gaps\.html$"))


# Hostile campaigns


def test_hostile_campaigns_stay_text(tmp_path: Path, open_page: OpenPage, sites: list[str]) -> None:
    texts = {name: text for name, text in TEXTS.items() if name != "controls"}
    (tmp_path / "campaigns").mkdir()
    for name, text in texts.items():
        entry = {
            "name": "one",
            "title": text,
            "about": text,
            "blocked": {"why": text, "until": text},
            "matrix": {"model": text, "backend": "llamacpp"},
        }
        data = {
            "title": text,
            "rig": name,
            "rigs": {name: {"title": text}},
            "models": {text: {"file": "f.gguf"}},
            "entries": [entry],
        }
        (tmp_path / "campaigns" / f"{name}.yaml").write_text(dump(data), encoding="utf-8")
    write(tmp_path / "content", few_runs())
    build(tmp_path / "content", tmp_path / "site", cache=tmp_path / "cache")
    site = (tmp_path / "site").as_uri()
    sites.append(f"{site}/")
    for path in ("gaps.html", "index.html"):
        page = open_page(f"{site}/{path}", viewport={"width": 360, "height": 800})
        check_harmless(page)
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        page.wait_for_function(
            "document.querySelectorAll('.gaps details[open] > :only-child').length === 0"
        )
        shown = tidy(page.locator("main").text_content() or "")
        for text in texts.values():
            assert shown.count(tidy(text)) >= 3  # a name, a reason and a machine
