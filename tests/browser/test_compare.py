"""The compare page in a browser: the same answers as Python's, from a disk, with any text."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import OpenPage
from tests.unit.compared import cell, measured, transcribed, with_value
from tokrig.compare import Subject, comparison, subject
from tokrig.record.checks import judge_run
from tokrig.record.model import Record, Result, Validity

HOSTILE = "<img src=x onerror=alert(1)></script>\u202e\"'&"
A, B, C, BAD = "run-a", "run-b", "run-c", "run-hostile"
D, E = "run-d", "run-e"


def records() -> list[Record]:
    """A reference; the same with a faster quant; another machine; hostile texts, one invalid."""
    quant = with_value(with_value(measured(), "model.quant", "Q8_0"), "model.sha256", "b" * 64)
    results = [cell("chat", speed=150.0), cell("rag", speed=100.5), cell("agent", valid=False)]
    hostile = with_value(with_value(measured(), "model.family", HOSTILE), "rig.os", HOSTILE)
    found = {
        A: measured(),
        B: with_value(
            with_value(quant, "results", results), "validity", judge_run(results, complete=True)
        ),
        C: with_value(with_value(measured(), "rig.id", "another"), "rig.cpu.governor", None),
        BAD: hostile,
        D: with_value(measured(), "results", _of_classes()),
        E: with_value(quant, "results", _of_classes()),
    }
    return [with_value(record, "id", run_id) for run_id, record in found.items()]


def _of_classes() -> list[Result]:
    """A chat as it is, behind a context, and without a pause."""
    plain = cell("chat", speed=100.0)
    return [
        plain,
        plain.model_copy(update={"depth_tokens": 4096}),
        plain.model_copy(update={"load": "sustained"}),
    ]


@pytest.fixture
def page(folder: Path, open_page: OpenPage) -> Page:
    """A page of that site; any fault of it fails the test."""
    return open_page(f"{folder.as_uri()}/compare.html")


def open_rows(page: Page, folder: Path, *picks: str) -> None:
    rows = ",".join(quote(pick, safe="~") for pick in picks)
    page.goto(f"{(folder / 'compare.html').as_uri()}?rows={rows}")
    page.wait_for_function("document.getElementById('compare-status').textContent.length > 20")


def query(page: Page) -> str:
    return page.url.partition("?")[2]


# The same answers as Python's

FIELDS: dict[str, list[Any]] = {
    "model.variant": ["E4B-it", None],
    "model.quant": ["Q8_0", None],
    "model.sha256": ["b" * 64, None],
    "backend.engine": ["vLLM"],
    "backend.build": ["b9999", None],
    "backend.api": ["vulkan", "cpu", None],
    "backend.api_confirmed": [False],
    "backend.resolved.threads": [4, None],
    "backend.managed": [False, None],
    "backend.env": [{"GGML_X": "1"}],
    "rig.memory.speed_mt_per_s": [None],
    "rig.cpu.model": [None, "Another CPU"],
    "model.quant_creator": [None, "somebody"],
    "provenance.server_starts": [1, 10, None],
    "backend.argv": [None, ["llama-server", "--no-mmap"]],
    "mode.name": ["mtp"],
    "rig.id": ["another"],
    "rig.gpus": [[]],
    "rig.kernel": ["7.1", None],
    "provenance.methodology": [1, None],
    "provenance.level": ["quick"],
    "provenance.source": ["another page"],
}


def anyone(chance: random.Random, record: Record, keep: int) -> Record:
    """A record with some fields changed and other results."""
    if chance.random() < 0.2:
        record = with_value(record, "backend.api", "cpu")
    for path in chance.sample(sorted(FIELDS), chance.choice((0, 1, 1, 2, 3)[:keep])):
        record = with_value(record, path, chance.choice(FIELDS[path]))
    results = [
        any_result(chance, shape, level)
        for shape in ("chat", "rag", "agent")
        for level in (1, 4)
        if chance.random() > 0.2
    ]
    stays = record.provenance.kind == "transcribed" and chance.random() < 0.5
    return record if stays else with_value(record, "results", results)


def any_result(chance: random.Random, shape: str, level: int) -> Result:
    made = cell(
        shape,
        level,
        100 * chance.choice((1, 1.015, 1.019, 1.03, 1.06, 1.5)),
        hash=chance.choice(("abcd",) * 8 + ("ffff", None)),
        valid=chance.random() > 0.1,
        spread=chance.choice((None, 0.0, 0.01, 0.03, 0.2)),
        starts=chance.random() > 0.2,
        prompt_tokens=chance.choice((64.0,) * 8 + (68.0, 69.0, None)),
        prefill_source=chance.choice(("server",) * 4 + ("ttft_derived",)),
    )
    figure, validity = made.output_tok_per_s, made.validity
    if figure and chance.random() < 0.3:
        # Starts of any spread and number; a quick run; one value alone.
        starts = [chance.gauss(figure.median, 2) for _ in range(chance.choice((1, 5, 6, 8, 10)))]
        figure = figure.model_copy(update={"ci95": None, "n": len(starts), "starts": starts})
    if validity.verdict == "valid" and chance.random() < 0.1:
        validity = Validity(verdict="unverified", unverified=["api_unverified"])
    return made.model_copy(update={"output_tok_per_s": figure, "validity": validity})


def sides(chance: random.Random) -> tuple[Subject, Subject]:
    levels = chance.choice(((None, None), (1, 1), (1, 4)))
    shape = chance.choice((None, None, "rag"))
    # Half of the pairs are nearly alike, so that the better classes are among them.
    keep = chance.choice((2, 5))
    kinds = chance.choice(
        ((measured(),) * 2,) * 6 + ((transcribed(),) * 2, (measured(), transcribed()))
    )
    first, second = (
        subject(
            anyone(chance, record, keep),
            concurrency=level,
            noise=chance.choice(({}, {}, {"output_tok_per_s": 0.04})),
        )
        for record, level in zip(kinds, levels, strict=True)
    )
    return of_shape(first, shape), of_shape(second, shape)


def of_shape(side: Subject, shape: str | None) -> Subject:
    return replace(side, cells=tuple(one for one in side.cells if shape in (None, one.shape)))


def rounded(value: Any) -> Any:
    """Logarithms may differ in the last digit between two libraries."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def test_the_browser_answers_as_python_does(page: Page) -> None:
    chance = random.Random(20261122)
    pairs = [sides(chance) for _ in range(600)]
    expected = [comparison(a, b).as_dict() for a, b in pairs]
    assert {answer["class"] for answer in expected} == set("ABCD")
    verdicts = {f["ratio"]["verdict"] for e in expected for p in e["pairs"] for f in p["figures"]}
    assert verdicts == {"faster", "slower", "not_distinguishable", "inconclusive", "none"}
    bases = {f["ratio"]["basis"] for e in expected for p in e["pairs"] for f in p["figures"]}
    assert bases == {"starts", "intervals", "none"}
    assert not any(
        f["ratio"]["value"]
        for answer in expected
        if answer["class"] == "D"
        for pair in answer["pairs"]
        for f in pair["figures"]
    )
    found = page.evaluate(
        "text => JSON.stringify(JSON.parse(text).map(([a, b]) => tokrig.compare(a, b)))",
        json.dumps([[a.as_dict(), b.as_dict()] for a, b in pairs]),
    )
    for mine, theirs in zip(json.loads(found), expected, strict=True):
        assert rounded(mine) == rounded(theirs)


# The page


def test_class_figures_and_keys(page: Page, folder: Path) -> None:
    open_rows(page, folder, f"{A}~1", f"{B}~1", f"{C}~1")
    assert page.inner_text("#compare-status") == "3 rows compared; row 2: class A, row 3: class B."
    assert page.locator(".grade").all_inner_texts() == ["Class A", "Class B"]
    assert "one changed variable: quant" in page.locator(".verdict").nth(0).inner_text()
    figures = page.locator("#comparison table").nth(1)
    assert figures.locator("th[scope=rowgroup]").first.inner_text() == "chat"
    chat = figures.locator("tbody tr").nth(1).inner_text()
    assert "×1.50 (1.48–1.52) faster" in chat and "not distinguishable" in chat
    assert "invalid" in figures.inner_text()
    keys = page.locator("#comparison table").nth(2)
    assert "Q8_0" in keys.inner_text() and "rig.id" in keys.inner_text()
    unknown = page.locator("#comparison details:not(.share)")
    assert unknown.get_attribute("open") is None
    unknown.locator("summary").click()
    assert "rig.cpu.governor not known of row 3" in unknown.inner_text()


def test_one_shape(page: Page, folder: Path) -> None:
    open_rows(page, folder, f"{A}~1~rag", f"{B}~1~rag")
    groups = page.locator("#comparison table").nth(1).locator("th[scope=rowgroup]")
    assert groups.all_inner_texts() == ["rag"]


@pytest.mark.parametrize("shape", ["chat", "chat at depth 4k", "chat, sustained"])
def test_depths_and_loads_are_picked_and_compared_with_their_like(
    page: Page, folder: Path, shape: str
) -> None:
    page.goto((folder / f"runs/{D}.html").as_uri())
    picks = [cell.get_attribute("data-pick") or "" for cell in page.locator("td[data-pick]").all()]
    named = dict(zip(["chat", "chat at depth 4k", "chat, sustained"], picks, strict=True))
    open_rows(page, folder, named[shape], named[shape].replace(D, E))
    groups = page.locator("#comparison table").nth(1).locator("th[scope=rowgroup]")
    assert groups.all_inner_texts() == [shape]


def test_rows_are_swapped_and_removed_in_the_address(page: Page, folder: Path) -> None:
    open_rows(page, folder, f"{A}~1", f"{B}~1", f"{C}~1")
    page.get_by_role("button", name="Make row 2 the reference").press("Enter")
    page.wait_for_function(f"location.search.startsWith('?rows={B}~1,{A}~1')")
    assert page.locator("#comparison").evaluate("one => one === document.activeElement")
    page.get_by_role("button", name="Remove row 3").click()
    assert query(page) == f"rows={B}~1,{A}~1"
    page.get_by_role("button", name="Remove row 1").click()
    page.get_by_role("button", name="Remove row 1").click()
    assert "Add two to six rows" in page.inner_text("#compare-status")
    assert query(page) == ""


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        (f"{A}~8", f"Run “{A}” has no result at concurrency 8."),
        (f"{A}~1~poetry", f"Run “{A}” has no result of shape “poetry” at concurrency 1."),
        (A, "names no row"),
        (f"{A}~one", "names no row"),
        ("../assets/page~1", "names no row"),
        (HOSTILE, "names no row"),
    ],
)
def test_rows_that_are_not_there(page: Page, folder: Path, pick: str, words: str) -> None:
    open_rows(page, folder, f"{A}~1", pick, f"{B}~1")
    assert words in page.inner_text("#comparison .warning")
    assert page.locator(".grade").count() == 1
    page.locator("#comparison .warning button").first.click()
    assert query(page) == f"rows={A}~1,{B}~1"
    assert page.locator("#comparison .warning").count() == 0


def test_a_run_that_is_not_there(browser: Browser, folder: Path) -> None:
    page = browser.new_page()  # the browser reports the missing file, which is the point here
    open_rows(page, folder, f"{A}~1", "no-such-run~1", f"{B}~1")
    said = page.inner_text("#comparison .warning")
    page.close()
    assert "There is no run “no-such-run” on this site." in said


def test_texts_of_records_stay_texts(page: Page, folder: Path) -> None:
    open_rows(page, folder, f"{A}~1", f"{BAD}~1")
    assert page.locator("#comparison img").count() == 0
    assert "<img src=x onerror=alert(1)></script>" in page.inner_text("#comparison")


def test_six_rows_at_most(page: Page, folder: Path) -> None:
    open_rows(page, folder, *(f"{A}~1~{shape}" for shape in "abcdefgh"))
    assert page.locator("#comparison .warning li").count() == 6


def test_without_javascript_the_command_is_named(folder: Path, open_page: OpenPage) -> None:
    page = open_page(f"{folder.as_uri()}/compare.html", java_script_enabled=False)
    assert "tokrig compare A B" in page.inner_text("main")


# From the first page


def picked_pair(open_page: OpenPage, base: str, first: str, second: str) -> Page:
    """The compare page of two lines that were picked on the first page."""
    page = open_page(f"{base}index.html?group=none")
    for name in (first, second):
        page.locator("#results tr", has_text=name).locator("input[data-pick]").check()
    page.locator("#tray").get_by_role("link", name="Compare").click()
    page.wait_for_url(re.compile(r"compare\.html\?rows="))
    expect(page.locator("#comparison .grade")).to_be_visible()
    return page


def test_two_picked_lines_compared_and_back(base: str, open_page: OpenPage) -> None:
    page = picked_pair(open_page, base, "8B-A1B", "1.2B-Tool")
    e, t = "seed-lfm2-8b-a1b-q4_k_m~1", "seed-lfm2-1.2b-tool-q4_k_m~1"
    assert query(page) == f"rows={e},{t}"
    # What a page does not tell of its settings is not taken for equal: no ratio of two models.
    assert page.inner_text(".grade") == "Class D"
    assert "×" not in page.locator("#comparison table").nth(1).inner_text()
    assert "model.variant" in page.locator("#comparison table").nth(2).inner_text()
    page.get_by_role("button", name="Make row 2 the reference").click()
    page.wait_for_function(f"location.search === '?rows={t},{e}'")
    again = open_page(page.url)
    expect(again.locator("#comparison .grade")).to_be_visible()
    assert again.inner_text("#comparison") == page.inner_text("#comparison")
    page.get_by_role("button", name="Remove row 2").click()
    assert query(page) == f"rows={t}"
    page.go_back()
    page.wait_for_url(f"{base}index.html?group=none")
    boxes = page.locator("#results input[data-pick]:checked")
    assert [box.get_attribute("data-pick") for box in boxes.all()] == [t]


def test_what_noise_hides_is_not_distinguishable(folder: Path, open_page: OpenPage) -> None:
    page = open_page(f"{folder.as_uri()}/index.html?group=none&shape=rag")
    for run_id in (A, B):
        page.locator(f"input[data-pick='{run_id}~1~rag']").check()
    page.locator("#tray").get_by_role("link", name="Compare").click()
    expect(page.locator(".grade")).to_have_text("Class A")
    figures = page.locator("#comparison table").nth(1)
    expect(figures).to_contain_text("not distinguishable")
    assert "faster" not in figures.inner_text() and "slower" not in figures.inner_text()


# Rows sought by words


def test_opened_from_the_menu_it_has_a_picker_for_the_keyboard(page: Page, folder: Path) -> None:
    page.goto(f"{(folder / 'index.html').as_uri()}")
    page.get_by_role("navigation").get_by_role("link", name="Compare").click()
    page.get_by_label("Add a row").focus()
    page.keyboard.type("gemma q4_k_m 5070")
    expect(page.locator(".picker .found li").first).to_contain_text("Gemma-4 E2B-it")
    page.keyboard.press("Enter")
    expect(page.locator("#compare-status")).to_have_text("One row: add another to compare them.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#comparison .grade")
    assert query(page).count(",") == 1
    expect(page.get_by_label("Add a row")).to_be_focused()


def test_the_picker_adds_six_rows_at_most(page: Page, folder: Path) -> None:
    open_rows(page, folder, *(f"{one}~1" for one in (A, B, C, D, E, BAD)))
    page.get_by_label("Add a row").fill("gemma")
    found = page.locator(".picker .status")
    expect(found).to_have_text("0 rows to add.")
    open_rows(
        page,
        folder,
        *(f"{A}~1~{shape}" for shape in ("chat", "rag", "agent")),
        *(f"{B}~1~{shape}" for shape in ("chat", "rag", "agent")),
    )
    page.get_by_label("Add a row").fill("gemma")
    page.locator(".picker .found button").first.click()
    expect(found).to_have_text("6 rows at most: remove one first.")
