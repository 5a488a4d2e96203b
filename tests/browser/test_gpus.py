"""The index of hardware and two cards side by side: sorted, chosen, and divided as Python does."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_pages import check_looks
from tests.unit.compared import cell, measured, transcribed, with_value
from tokrig.compare.statistics import Side, ratio
from tokrig.record.model import Gpu, Record, Result

GIB = 2**30
SPEEDS = {"chat": (150.0, 100.0), "rag": (99.0, 100.0), "agent": (120.0, 100.0)}


def on(record: Record, name: str, rig: str, gib: float | None, **more: Any) -> Record:
    """A record of another card."""
    size = None if gib is None else int(gib * GIB)
    card = Gpu(name=name, vendor="nvidia", vram_bytes=size, power_limit_w=300.0, power_max_w=300.0)
    record = with_value(record, "rig.id", rig)
    return with_value(record, "rig.gpus", [card.model_copy(update=more)])


def named(record: Record, run_id: str, day: str = "2026-11-20") -> Record:
    record = with_value(record, "id", run_id)
    return with_value(record, "provenance.started_at", f"{day}T12:00:00Z")


def with_cells(record: Record, cells: list[Result]) -> Record:
    return with_value(record, "results", cells)


def records() -> list[Record]:
    """Two cards that share three cells; beside them capped, older, other settings, another build,
    a file that only the larger can hold; cards of one name, slices, none, of unknown memory."""
    plain = measured()
    fast = with_cells(plain, [cell(shape, speed=both[0]) for shape, both in SPEEDS.items()])
    slow = with_cells(plain, [cell(shape, speed=both[1]) for shape, both in SPEEDS.items()])
    big, small = ("GeForce RTX 4090", "rig-4090", 24), ("GeForce RTX 3080", "rig-3080", 10)
    capped = on(with_cells(plain, [cell("chat", speed=50.0)]), big[0], "rig-4090-c", 24)
    capped = with_value(
        capped, "rig.gpus", [capped.rig.gpus[0].model_copy(update={"power_limit_w": 200.0})]
    )
    # On a machine of its own: how far two runs of one machine lie apart is noise.
    older = on(with_cells(plain, [cell("chat", speed=60.0)]), big[0], "rig-4090-c", 24)
    b999 = with_value(
        on(with_cells(plain, [cell("chat", speed=90.0)]), *small), "backend.build", "b999"
    )
    other_texts = [cell("codegen", speed=70.0, hash="ffff")]
    large = on(with_cells(plain, [cell("chat", speed=30.0)]), *big)
    size = {"bytes": 17 * 10**9, "parameters": 30 * 10**9, "bits_per_weight": 4.533}
    large = with_value(large, "model", large.model.model_copy(update=size))
    large = with_value(with_value(large, "model.quant", "Q8_0"), "model.sha256", "b" * 64)
    asked = with_value(
        on(with_cells(plain, [cell("chat", speed=40.0)]), small[0], "rig-3080-b", 10),
        "backend.asked",
        {"cache_type_k": "q8_0"},
    )
    return [
        named(on(fast, *big), "big", "2026-11-10"),
        named(on(fast, "GeForce RTX 4090", "rig-4090-b", 23.99), "big-2", "2026-11-09"),
        named(capped, "big-capped", "2026-11-20"),
        named(older, "big-older", "2026-11-01"),
        named(large, "big-large"),
        named(with_cells(on(plain, *big), [cell("codegen", speed=80.0)]), "big-codegen"),
        named(on(slow, *small), "small", "2026-11-10"),
        named(b999, "small-b999", "2026-11-05"),
        named(asked, "small-kv", "2026-11-21"),
        named(with_cells(on(plain, *small), other_texts), "small-codegen"),
        named(on(plain, "GeForce RTX 3080", "rig-3080-12", 12), "twelve"),
        named(on(plain, "NVIDIA H100", "rig-mig", 10, mig_profile="1g.10gb"), "slice"),
        named(on(plain, "Mystery", "rig-mystery", None), "mystery"),
        named(with_value(with_value(plain, "rig.gpus", []), "rig.id", "rig-cpu"), "cpu"),
        with_value(with_value(transcribed(), "rig.id", "rig-page"), "id", "page"),
    ]  # fmt: skip


def names(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "#gpus tbody tr:not([hidden]) th bdi", "all => all.map(one => one.textContent.trim())"
    )
    return found


def shown(page: Page) -> dict[str, list[str]]:
    """The cells of both cards by shape: figures with what was taken, ratio."""
    rows: list[list[str]] = page.eval_on_selector_all(
        ".cells tbody tr", "all => all.map(row => [...row.cells].map(one => one.innerText))"
    )
    return {row[1]: [" ".join(text.split()) for text in row[2:5]] for row in rows}


def test_each_card_is_a_line_and_memory_tells_two_of_one_name_apart(at: Any) -> None:
    page = at("gpus.html")
    cards = page.eval_on_selector_all("#gpus tbody tr", "all => all.map(one => one.dataset.label)")
    assert sorted(cards) == [
        "GeForce RTX 3080 · 10 GB",
        "GeForce RTX 3080 · 12 GB",
        "GeForce RTX 4090 · 24 GB",
        "GeForce RTX 5070",
        "H100 MIG 1g.10gb · 10 GB",
        "Mystery",
        "Ryzen 9 7900 · 12 cores · 32 GB RAM",
    ]
    line = page.locator("#gpus tr", has_text="RTX 4090")
    expect(line.locator("details summary")).to_have_text("3 machines")
    expect(line).to_contain_text("200–300 of 300 W")


def test_the_index_sorts_filters_and_searches_by_its_address(at: Any) -> None:
    page = at("gpus.html?sort=-gb&memory=12")
    assert names(page) == ["GeForce RTX 4090", "GeForce RTX 3080"]
    page.get_by_role("button", name="Memory").click()
    assert names(page) == ["GeForce RTX 3080", "GeForce RTX 4090"]
    page.locator("input[name=q]").fill("mystery")
    assert names(page) == []
    page.locator("select[name=memory]").select_option("")
    assert names(page) == ["Mystery"]
    assert "q=mystery" in page.url
    page.goto(page.url.replace("q=mystery", "kind=cpu"))
    assert names(page) == ["Ryzen 9 7900 · 12 cores"]
    page.goto(re.sub(r"\?.*", "?kind=<b>&sort=nonsense", page.url))
    assert names(page) == []


def test_every_card_beside_any_other(at: Any) -> None:
    page = at("gpus.html")
    page.locator("select[name=beside]").select_option("geforce-rtx-3080-10gb")
    expected = math.prod(a / b for a, b in SPEEDS.values()) ** (1 / 3)
    fast = page.locator("#gpus tr", has_text="RTX 4090").locator(".beside")
    expect(fast).to_have_text(f"×{expected:.2f} (3)")
    page.locator("select[name=beside]").select_option("geforce-rtx-4090-24gb")
    slow = page.locator("#gpus tr[data-address=geforce-rtx-3080-10gb] .beside")
    expect(slow).to_have_text(f"×{1 / expected:.2f} (3)")


@pytest.mark.parametrize("start", ["index.html", "gpus.html"])
def test_two_cards_chosen_from_the_index_stand_side_by_side(at: Any, start: str) -> None:
    page = at(start)
    page.get_by_label("Compare", exact=True).fill("4090")
    page.get_by_label("with", exact=True).fill("3080 · 10")
    page.keyboard.press("Enter")
    address = re.compile(r"/versus\.html\?a=geforce-rtx-4090-24gb&b=geforce-rtx-3080-10gb$")
    expect(page).to_have_url(address)
    expect(page.locator(".answer")).to_contain_text("GeForce RTX 4090 · 24 GB decodes 1.21 times")


def test_a_name_that_is_not_enough_is_answered(at: Any) -> None:
    page = at("index.html")
    page.get_by_label("Compare", exact=True).fill("3080")
    page.get_by_label("with", exact=True).fill("nothing like this")
    page.keyboard.press("Enter")
    status = page.locator(".pair .status")
    expect(status).to_contain_text("“3080” is 2 cards")
    expect(status).to_contain_text("No card here is called “nothing like this”")


def test_ratios_and_intervals_are_those_of_python(at: Any) -> None:
    page = at("versus.html?a=rtx-4090&b=rtx-3080-10gb")
    found = shown(page)
    assert set(found) == {"chat × 1", "rag × 1", "agent × 1", "codegen × 1"}
    for shape, (a, b) in SPEEDS.items():
        figures = [cell(shape, speed=speed).output_tok_per_s for speed in (a, b)]
        sides = [Side(figure, 6) for figure in figures if figure]
        expected = ratio(*sides, higher_is_better=True, tests=3)
        assert expected.low is not None
        interval = f"{expected.low:.2f}–{expected.high:.2f}"
        assert found[f"{shape} × 1"][2] == (
            f"×{expected.value:.2f} {interval} {expected.verdict.replace('_', ' ')}"
        )
    assert found["codegen × 1"][2] == "texts not known to be the same"
    mean = math.prod(a / b for a, b in SPEEDS.values()) ** (1 / 3)
    expect(page.locator(".answer strong")).to_have_text(f"{mean:.2f} times")
    expect(page.locator(".answer")).to_contain_text("over 3 identical cells")


@pytest.mark.parametrize("metric", ["prefill_tok_per_s", "ttft_s"])
def test_waits_and_prefill_have_intervals_too(at: Any, metric: str) -> None:
    page = at(f"versus.html?a=rtx-4090&b=rtx-3080-10gb&metric={metric}")
    page.locator(".forest.faster").first.wait_for()
    a, b = (getattr(cell("chat", speed=speed), metric) for speed in SPEEDS["chat"])
    expected = ratio(Side(a, 6), Side(b, 6), higher_is_better=metric != "ttft_s", tests=3)
    assert expected.low is not None
    told = re.fullmatch(r"×(\S+) (\S+)–(\S+) (.+)", shown(page)["chat × 1"][2])
    assert told
    exact = (expected.value, expected.low, expected.high)
    assert [float(one) for one in told.groups()[:3]] == pytest.approx(exact, abs=0.0051)
    assert told[4] == expected.verdict


def test_settings_limits_and_older_runs_are_never_mixed(at: Any) -> None:
    chat = shown(at("versus.html?a=rtx-4090&b=rtx-3080-10gb"))["chat × 1"]
    assert chat[0].startswith("150.0 ")  # neither the capped one, newer, nor an older one
    assert chat[1] == "100.0 llama.cpp b9174 (cuda) · 2026-11-10"
    only = at("versus.html?a=rig-4090-b&b=rtx-3080-10gb")
    assert "2026-11-09" in shown(only)["chat × 1"][0]


def test_one_build_on_both_sides(at: Any) -> None:
    page = at("versus.html?a=rtx-4090&b=rtx-3080-10gb")
    page.locator("select[name=build]").select_option("same")
    assert "b9174" in shown(page)["chat × 1"][1]
    page.locator("select[name=metric]").select_option("ttft_s")
    assert shown(page)["chat × 1"][2].startswith("×0.67")
    assert "build=same" in page.url
    page.get_by_role("button", name="Swap").click()
    assert shown(page)["chat × 1"][2].startswith("×1.50")


def test_who_sorts_and_swaps_by_keyboard_stays_there(at: Any) -> None:
    page = at("versus.html?a=rtx-4090&b=rtx-3080-10gb")
    for name in ("sort-ratio", "swap"):
        button = page.locator(f"button[name={name}]")
        button.focus()
        page.keyboard.press("Enter")
        expect(button).to_be_focused()
    assert re.search(r"a=geforce-rtx-3080-10gb|a=rtx-3080-10gb", page.url)
    assert "sort=-ratio" in page.url


def test_what_only_one_can_hold(at: Any) -> None:
    page = at("versus.html?a=rtx-4090&b=rtx-3080-10gb")
    only = page.locator("#lonely")
    expect(only).to_contain_text("needs 17.", use_inner_text=True)
    expect(only).to_contain_text("1 of which is too large for GeForce RTX 3080 · 10 GB")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "Choose two of 7 cards."),
        ("?a=rtx-4090", "Choose the other card for GeForce RTX 4090"),
        ("?a=rtx-4090&b=<script>", "No card or machine here is called “<script>”"),
        ("?a=rtx-4090&b=rtx-3080", "“rtx-3080” is 2 cards here"),
        ("?a=rtx-4090&b=rtx-4090", "Both are the same"),
        ("?a=rtx-4090&b=mystery&metric=nonsense&sort=x&concurrency=y", "passes these filters"),
        ("?a=rtx-4090&b=rtx-5070", "Nothing that both have measured is shown here."),
    ],
)
def test_addresses_that_lead_to_no_pair_are_answered(at: Any, query: str, words: str) -> None:
    page = at(f"versus.html{query}")
    expect(page.locator("main")).to_contain_text(words)
    check_looks(page)
