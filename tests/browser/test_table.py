"""The main table in a real browser: sorting, filters, addresses, groups, keyboard, no script."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import reading
from tests.browser.conftest import OpenPage
from tests.browser.reading import choose

COLUMNS = ["variant", "quant", "hardware", "backend", "concurrency", "gen"]
FILTERS = {
    "shape": "rag",
    "concurrency": "4",
    "hardware": "intel-xeon-processor-2c-24gb",
    "family": "lfm2",
    "engine": "llama.cpp",
    "build": "b9174",
    "api": "cuda",
    "card": "geforce-rtx-5070",
    "level": "transcribed",
    "quant": "q4_k_m",
    "mode": "baseline",
    "settings": "the-engine-s-own",
    "validity": "all",
}


@pytest.fixture
def page(site_dir: Path, open_page: OpenPage) -> Page:
    """The page from a disk; what a host could make different is tried on both."""
    return open_page(f"{site_dir.as_uri()}/index.html")


@pytest.fixture
def many(many_dir: Path, open_page: OpenPage) -> Callable[[str], Page]:
    """Opens the index of many runs with a query."""

    def opened(query: str) -> Page:
        return open_page(f"{many_dir.as_uri()}/index.html{query}")

    return opened


def sort_by(page: Page, column: str) -> None:
    page.locator(f"th[data-sort={column}] button").click()


def natural(text: str) -> list[object]:
    """``b9`` before ``b10``, capitals like small letters: the order readers expect."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text.casefold())
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]


# Sorting


@pytest.mark.parametrize("column", COLUMNS)
def test_every_header_sorts_both_ways(page: Page, column: str) -> None:
    page.locator("select[name=order]").select_option(label="Largest model first")
    header = page.locator(f"th[data-sort={column}]")
    seen = {}
    for _ in range(2):
        sort_by(page, column)
        way = header.get_attribute("aria-sort")
        seen[way] = [getattr(line, column) for line in reading.lines(page)]
    if column == "gen":
        highest = {way: [top(text) for text in texts] for way, texts in seen.items()}
        assert highest["descending"] == sorted(highest["descending"], reverse=True)
        assert highest["ascending"] == sorted(highest["ascending"])
    else:
        # Two libraries order words a little differently: what they order alike is enough here.
        keys = [natural(text) for text in seen["ascending"]]
        assert [str(key[0]) for key in keys] == sorted(str(key[0]) for key in keys)
        first = [
            text for n, text in enumerate(seen["ascending"]) if text not in seen["ascending"][:n]
        ]
        last = [
            text for n, text in enumerate(seen["descending"]) if text not in seen["descending"][:n]
        ]
        assert first == list(reversed(last))
    assert page.locator("th[aria-sort]").count() == 1


def top(text: str) -> float:
    return float(text.rsplit("–", maxsplit=1)[-1].replace(",", ""))


def test_groups_stay_newest_first_when_sorted(page: Page) -> None:
    families = [group.name for group in reading.groups(page)]
    for _ in range(2):
        sort_by(page, "gen")
        assert [group.name for group in reading.groups(page)] == families
    lfm2 = next(group for group in reading.groups(page) if group.name == "LFM2")
    assert [top(line.gen) for line in lfm2.lines] == sorted(top(line.gen) for line in lfm2.lines)


# Filters and addresses


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_filters_and_stands_in_the_address(page: Page, name: str) -> None:
    before = reading.lines(page)
    choose(page, name, FILTERS[name])
    shown = reading.lines(page)
    assert f"?{name}={FILTERS[name]}" in page.url
    match name:
        case "hardware":
            assert {line.hardware for line in shown} == {"Xeon · 24 GB RAM"}
        case "family":
            assert [group.name for group in reading.groups(page)] == ["LFM2"]
        case "api":
            assert {line.backend for line in shown} == {"llama.cpp b9174 (cuda)"}
        case "card" | "level":
            assert {line.hardware for line in shown} == {"GeForce RTX 5070 · 12 GB"}
        case "engine" | "build":
            assert all(line.backend.startswith("llama.cpp") for line in shown)
        case "concurrency":
            assert {line.concurrency for line in shown} == {"4"}
        case "shape":
            assert all("–" not in line.gen for line in shown)
            assert len(shown) == len(before)
        case _:
            assert shown == before  # every record here passes these


def test_filters_that_nothing_passes_say_so(page: Page) -> None:
    choose(page, "family", "qwen2.5-coder")
    choose(page, "concurrency", "4")
    expect(page.locator("#results")).to_contain_text("No result passes these filters")
    expect(page.locator("#status")).to_have_text("0 results of 0 runs")
    page.get_by_role("button", name="Reset").click()
    assert len(reading.lines(page)) == 12
    assert page.url.endswith("index.html")


def test_validity_hides_and_shows_invalid_results(many: Callable[[str], Page]) -> None:
    page = many("?group=none")
    assert page.locator(".mark.invalid").count() == 0
    choose(page, "validity", "invalid")
    lines = page.locator("#results tbody tr")
    assert lines.count() > 0
    assert page.locator("#results .mark.invalid").count() == lines.count()


def test_bars_name_their_backend_and_carry_their_marks(page: Page) -> None:
    bars = page.locator("#bars li")
    assert bars.count() > 0
    for text in bars.all_text_contents():
        assert "llama.cpp" in text
        assert "unverified" in text or "quick" in text


def test_each_of_the_three_words_is_a_filter(page: Page) -> None:
    everything = len(reading.lines(page))
    counts = {}
    for word in ("valid", "unverified", "invalid"):
        choose(page, "validity", word)
        counts[word] = 0 if page.locator("#results .empty").count() else len(reading.lines(page))
    assert counts == {"valid": 2, "unverified": everything - 2, "invalid": 0}


def test_back_and_forward_walk_through_what_was_chosen(base: str, open_page: OpenPage) -> None:
    page = open_page(f"{base}index.html")
    choose(page, "shape", "rag")
    choose(page, "hardware", "geforce-rtx-5070-12gb")
    sort_by(page, "quant")
    at_the_end = reading.lines(page)
    page.go_back()
    page.go_back()
    assert page.locator(".chip").count() == 0
    assert page.locator("select[name=shape]").input_value() == "rag"
    assert len(reading.lines(page)) == 12
    page.go_forward()
    page.go_forward()
    assert reading.lines(page) == at_the_end
    assert page.locator("th[data-sort=quant]").get_attribute("aria-sort") == "ascending"


def test_an_address_brings_the_same_view_back(base: str, open_page: OpenPage) -> None:
    query = "?shape=agent&concurrency=4&sort=gen&group=none"
    page = open_page(f"{base}index.html{query}")
    assert [(line.variant, line.concurrency) for line in reading.lines(page)] == [
        ("Gemma-3 270M", "4"),
        ("Gemma-3 270M", "4"),
    ]
    choose(page, "concurrency", "1")
    assert page.url.endswith("?shape=agent&sort=gen&group=none")
    again = open_page(page.url)
    assert reading.lines(again) == reading.lines(page)


def test_a_word_in_the_address_that_nobody_knows_is_shown(base: str, open_page: OpenPage) -> None:
    page = open_page(f"{base}index.html?quant=q9&sort=nonsense&page=-3")
    assert page.locator(".chip").inner_text() == "Quant q9 (unknown) ×"
    assert reading.lines(page)[0].variant == ""
    page.locator(".chip").click()
    assert len(reading.lines(page)) == 12


# Groups and pages


def test_a_family_folds_and_stays_folded(page: Page) -> None:
    button = page.get_by_role("button", name="LFM2", exact=True)
    button.click()
    assert "closed=lfm2" in page.url
    folded = next(group for group in reading.groups(page) if group.name == "LFM2")
    assert folded.lines == ()
    assert folded.count == 16
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(button).to_be_focused()
    page.reload()
    button.click()
    assert "closed" not in page.url


def test_many_lines_come_page_by_page(many: Callable[[str], Page]) -> None:
    page = many("?group=none&sort=-gen")
    first = reading.lines(page)
    assert len(first) == 50
    page.get_by_role("button", name="Next", exact=True).click()
    second = reading.lines(page)
    assert "page=2" in page.url
    assert top(first[-1].gen) >= top(second[0].gen)
    page.go_back()
    assert reading.lines(page) == first


def test_of_many_lines_a_family_shows_its_largest_models_and_the_way_to_all(
    many: Callable[[str], Page],
) -> None:
    page = many("")
    for group in reading.groups(page):
        assert len({line.variant for line in group.lines}) == len(group.lines)
    more = page.locator("tr.more button").first
    count = int(re.findall(r"All (\d+) lines", more.inner_text())[0])
    more.click()
    assert "family=" in page.url
    (group,) = reading.groups(page)
    assert len(group.lines) == (count if count <= 100 else 50)


def test_many_families_come_page_by_page(many: Callable[[str], Page]) -> None:
    page = many("")
    seen: list[str] = []
    following = page.get_by_role("button", name="Next", exact=True)
    while True:
        seen += [group.name for group in reading.groups(page)]
        if following.is_disabled():
            break
        following.click()
    page.locator("[name=more]").click()
    page.locator("button[name=family]").click()
    families = page.locator("#pick-family .choices label span:first-of-type").all_inner_texts()
    assert sorted(seen) == sorted(families)


# Ties and picks


def test_ties_are_shown_as_ties(page: Page) -> None:
    # Beside a valid result those that nobody could check have no rank.
    ranks = {bar.model: bar.rank for bar in reading.bars(page, "chat")}
    assert ranks.pop("Gemma-3 270M") == "2"  # of two machines the slower
    assert set(ranks.values()) == {""}
    choose(page, "hardware", "geforce-rtx-5070-12gb")
    ranks = {bar.model: bar.rank for bar in reading.bars(page, "chat")}
    assert ranks["LFM2 1.2B"] == ranks["LFM2 1.2B-Tool"] == "2="  # 508.7 and 499.9: 1.8 % apart
    assert ranks["LFM2 8B-A1B"] == "4"
    choose(page, "shape", "chat")
    assert page.locator("#results .tie").count() == 0  # they stand in no order of speed
    sort_by(page, "gen")
    assert page.locator("#results .tie").count() == 2


def test_picked_rows_lead_to_their_comparison(page: Page) -> None:
    boxes = page.locator("#results input[data-pick]")
    boxes.nth(0).check()
    expect(page.locator("#tray")).to_contain_text("pick one more")
    choose(page, "shape", "rag")
    boxes.nth(1).check()
    page.locator("#tray").get_by_role("link", name="Compare").click()
    page.wait_for_url(re.compile("compare.html"))
    assert "seed-gemma-4-e4b-it-q4_k_m~1,seed-gemma-4-e2b-it-q4_k_m~1~rag" in page.url.replace(
        "%7E", "~"
    )


# Definitions


def test_definitions_come_by_mouse_and_keyboard_and_touch(base: str, open_page: OpenPage) -> None:
    page = open_page(f"{base}index.html", has_touch=True)
    tip = page.get_by_role("tooltip", include_hidden=True)
    label = page.locator("p a.term", has_text="95 % interval")
    label.hover()
    expect(tip).to_contain_text("Bootstrap interval of the median")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.locator("th[data-sort=quant] button").focus()
    expect(tip).to_contain_text("How the weights are stored")
    label.tap()
    expect(tip).to_contain_text("Bootstrap interval of the median")
    assert page.url.endswith("index.html")  # the first tap explains, the second follows the link


# Keyboard, no script


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    reached = []
    for _ in range(70):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.name || document.activeElement.innerText")
        reached.append(name)
        if name == "LFM2":
            break
    wanted = {"q", "shape", "card", "order", "more", "columns", "CSV", "Variant", "Gen tok/s"}
    assert {*wanted, "Gemma-4", "E2B-it"} <= set(reached)
    page.keyboard.press("Enter")
    assert "closed=lfm2" in page.url


def bars_of(page: Page) -> list[str]:
    """The words of each shape's bars, without the spaces that a style sheet makes needless."""
    return ["".join(text.split()) for text in page.locator(".workload ol").all_text_contents()]


def test_without_script_the_page_reads_the_same(base: str, open_page: OpenPage) -> None:
    with_script = open_page(f"{base}index.html")
    without = open_page(f"{base}index.html", java_script_enabled=False)
    rows = without.locator("#results tbody tr:not(.family)")
    texts = [" ".join(text.split()) for text in rows.all_inner_texts()]
    scripted = with_script.locator("#results tbody tr:not(.family)")
    assert texts == [" ".join(text.split()) for text in scripted.all_inner_texts()]
    assert bars_of(without) == bars_of(with_script)
    assert not without.locator("#filters").is_visible()
    assert not without.locator("#tools").is_visible()
    assert without.locator("th a.term").count() == len(COLUMNS)


# Search, several at once, sizes, columns, files


def test_search_takes_words_in_any_order_from_their_begin(page: Page) -> None:
    box = page.get_by_label("Search all rows")
    found = {}
    for words in ("rtx5070 lfm2", "LFM2 5070", "2b", "1.2b tool", "q4_k_m 12gb xeon", "zzz lfm2"):
        box.fill(words)
        found[words] = {line.variant for line in reading.lines(page) if line.variant}
    assert found["rtx5070 lfm2"] == found["LFM2 5070"] >= {"1.2B", "8B-A1B"}
    assert not any(variant.startswith("1.2B") for variant in found["2b"])  # no word ends in it
    assert found["1.2b tool"] == {"1.2B-Tool"}
    assert found["q4_k_m 12gb xeon"] == found["zzz lfm2"] == set()
    expect(page.locator("#results .empty")).to_contain_text("Nothing here is called “zzz”.")
    page.wait_for_function("location.search === '?q=zzz%20lfm2'")


def test_several_values_of_one_filter_let_each_of_them_through(many: Callable[[str], Page]) -> None:
    page = many("?group=none")
    page.locator("button[name=quant]").click()
    boxes = page.locator("#pick-quant .choices label")
    words = [boxes.nth(number).locator("input").get_attribute("value") for number in range(2)]
    counts = [int(boxes.nth(number).locator(".count").inner_text()) for number in range(2)]
    for number in range(2):
        boxes.nth(number).locator("input").check()
    page.keyboard.press("Escape")
    expect(page.locator("button[name=quant]")).to_be_focused()
    assert f"quant={words[0]},{words[1]}" in page.url
    expect(page.locator("button[name=quant]")).to_have_text("Quant (2)")
    runs = page.evaluate("new Set(tokrig.lines.lines().map((line) => line.run)).size")
    assert 0 < runs <= sum(counts)
    page.locator(".chip").first.click()
    assert page.locator(".chip").count() == 1


def test_a_card_is_found_without_its_brand_and_an_old_address_still_leads_there(
    site_dir: Path, open_page: OpenPage
) -> None:
    for query in ("card=rtx-5070", "backend=llama.cpp-b9174-cuda"):
        page = open_page(f"{site_dir.as_uri()}/index.html?{query}")
        assert {line.hardware for line in reading.lines(page)} == {"GeForce RTX 5070 · 12 GB"}
        assert page.locator(".chip").count() == 1


def test_sizes_are_limited_by_keyboard_in_words(many: Callable[[str], Page]) -> None:
    page = many("?group=none&vram=-12&columns=variant,hardware,parameters,gen")
    expect(page.locator(".chip")).to_have_text("VRAM of the card ≤ 12 GB ×")
    read = "([numbers, sizes]) => tokrig.lines.lines().map(({ run }) => sizes[numbers[run]])"
    sizes = page.evaluate(f"({read})(tokrig.view.sizes.vram)")
    assert sizes and max(sizes) <= 12
    page.locator("[name=more]").click()
    thumb = page.get_by_label("Parameters, at least")
    thumb.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    least = page.evaluate("tokrig.view.range('params')[0]")
    shown = page.evaluate(f"({read})(tokrig.view.sizes.params)")
    assert shown and min(shown) >= least > 0
    assert "≥" in page.locator(".range output").nth(1).inner_text()


def test_columns_are_added_and_remembered_and_every_one_sorts(many: Callable[[str], Page]) -> None:
    page = many("?group=none")
    every = page.evaluate("tokrig.view.columnNames().join(',')")
    page = many(f"?group=none&columns={every}")
    assert page.locator("#results th[data-sort]").count() == len(every.split(","))
    for name in every.split(","):
        for _ in range(2):
            sort_by(page, name)
            assert page.locator(f"th[data-sort={name}]").get_attribute("aria-sort")
    for name in ("parameters", "file", "ttft", "date"):
        page.locator("select[name=order]").select_option(f"-{name}")
        keys = page.evaluate(
            "name => tokrig.lines.sorted(tokrig.lines.lines(), tokrig.columns.all[name].key, true)"
            ".map(tokrig.columns.all[name].key)",
            name,
        )
        known = [key for key in keys if key is not None]
        assert known == sorted(known, reverse=True)
        assert keys[: len(known)] == known


def test_what_is_shown_is_downloaded_with_the_names_and_values_of_the_data(
    site_dir: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{site_dir.as_uri()}/index.html?shape=rag")
    texts = {}
    for kind in ("CSV", "JSON"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download these rows as {kind}").click()
        texts[kind] = Path(waiting.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(texts["CSV"])))
    told = json.loads(texts["JSON"])
    assert list(rows[0]) == told["columns"] and len(rows) == len(told["data"]) == 12
    with (site_dir / "data/results.csv").open(encoding="utf-8", newline="") as file:
        published = {
            (r["run_id"], r["workload"], r["concurrency"]): r for r in csv.DictReader(file)
        }
    own = {"date", "model", "hardware"}
    for row in rows:
        there = published[row["run_id"], row["workload"], row["concurrency"]]
        for name in row.keys() - own:
            try:
                assert float(row[name]) == pytest.approx(float(there[name]), rel=1e-3)
            except ValueError:
                assert row[name] == there[name]


def test_a_text_that_a_spreadsheet_would_run_is_text(page: Page) -> None:
    text = page.evaluate(
        "() => { tokrig.data.models[0][3] = '=HYPERLINK(\"x\")'; return tokrig.download.csv([0]); }"
    )
    names, values = csv.reader(io.StringIO(text))
    assert len(names) == len(values)
    if page.evaluate("tokrig.data.runs.model[tokrig.data.rows.run[0]]") == 0:
        assert '\'=HYPERLINK("x")' in values


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 740)])
def test_rows_begin_above_the_fold(
    site_dir: Path, open_page: OpenPage, width: int, height: int
) -> None:
    size = {"width": width, "height": height}
    page = open_page(f"{site_dir.as_uri()}/index.html", viewport=size)
    at = page.locator("#results .gen a").first.bounding_box()
    assert at and at["y"] + at["height"] < height


def test_waits_are_ranked_among_their_like_alone(many_dir: Path, open_page: OpenPage) -> None:
    page = open_page(f"{many_dir.as_uri()}/latency.html")
    for shape in ("chat", "rag"):
        choose(page, "shape", shape)
        like = page.evaluate(
            "tokrig.lines.lines().map(({ rows: [row] }) => [tokrig.data.rows.shape[row],"
            " tokrig.data.rows.concurrency[row], tokrig.view.promptClass(row)].join())"
        )
        assert len(set(like)) == 1
        ranks = page.locator("#results .rank").all_inner_texts()
        numbers = [int(rank.rstrip("=")) for rank in ranks if rank.strip("Rank")]
        assert numbers[0] == 1 and numbers == sorted(numbers)
        assert page.locator("#results .latency .spread").count() > 0
