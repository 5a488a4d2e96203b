"""Filtered to the published page's rig, the page shows that page: every figure of it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser import reading
from tests.browser.conftest import OpenPage
from tests.unit.seed_page import seed_page

SEED = seed_page()
SPEEDS = {shape.name: shape.speeds for shape in SEED.shapes}
BACKEND = "llama.cpp b9174 (cuda)"
CARD = "GeForce RTX 5070 · 12 GB"  # of 11.94 GiB, as the published page has it
QUERY = "?hardware=geforce-rtx-5070-12gb&sort=-gen"  # that page has the fastest first


@pytest.fixture
def page(base: str, open_page: OpenPage) -> Page:
    return open_page(f"{base}index.html{QUERY}")


def test_families_order_counts_and_ranges(page: Page) -> None:
    shown = reading.groups(page)
    assert [(group.name, group.count, group.released) for group in shown] == [
        (family.name, family.count, family.released) for family in SEED.families
    ]
    for group, family in zip(shown, SEED.families, strict=True):
        assert [
            (line.variant, line.quant, line.hardware, line.backend, line.concurrency, line.gen)
            for line in group.lines
        ] == [
            (
                *(row.variant, row.quant, CARD, row.backend, str(row.concurrency)),
                f"{row.low}–{row.high}",
            )
            for row in family.rows
        ]


@pytest.mark.parametrize("shape", SPEEDS)
def test_every_bar_of_each_shape(page: Page, shape: str) -> None:
    assert [(bar.model, bar.detail, bar.figure) for bar in reading.bars(page, shape)] == [
        (one.model, f"{one.quant} · {CARD} · {BACKEND}", f"{one.tok_per_s} tok/s")
        for one in SPEEDS[shape]
    ]


@pytest.mark.parametrize("shape", SPEEDS)
def test_a_chosen_shape_shows_its_own_figures(page: Page, shape: str) -> None:
    page.locator("select[name=shape]").select_option(shape)
    figures = {one.model: one.tok_per_s for one in SPEEDS[shape]}
    shown = {
        group.name
        if group.name.endswith(line.variant)
        else f"{group.name} {line.variant}": line.gen
        for group in reading.groups(page)
        for line in group.lines
    }
    assert shown == figures


def test_the_hardware_it_was_measured_on(page: Page) -> None:
    page.locator("table.hardware").get_by_role("link", name="GeForce RTX 5070").click()
    text = " ".join(page.locator(".facts").inner_text().split())
    for fact in ("AMD Ryzen 9 7900 12-Core Processor", "NVIDIA GeForce RTX 5070", "vram 12 GB"):
        assert fact in text
    for fact in ("250 W / 300 W max (83 %)", "CachyOS", "7.0.0-1-cachyos", "595.58.03"):
        assert fact in text


def test_what_is_wrong_with_it_is_said(page: Page) -> None:
    for line in page.locator("#results tbody tr:not(.family)").all():
        assert line.locator(".mark.erratum").count() == 1
        assert line.locator(".mark.transcribed").count() == 1
    errata = page.locator(".errata").inner_text()
    assert "vulkan" in errata.lower()
    assert "cuda" in errata.lower()
