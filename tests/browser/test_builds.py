"""Builds one after the other: in the order of their numbers, judged as Compare judges two runs."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_pages import check_looks
from tests.unit.compared import cell, measured, with_value
from tokrig.compare import comparison, subject
from tokrig.record.model import Record

RIG = "geforce-rtx-5070-12gb"
MODEL = "gemma-4-e2b-it"
# API, build, decode rate, day. b1010 is slower, and b999 comes before b1000.
STEPS = (
    ("cuda", "b1000", 100.0, "2026-11-02"),
    ("cuda", "b999", 80.0, "2026-11-09"),
    ("cuda", "b1010", 90.0, "2026-11-05"),
    ("cuda", "b1020", 90.2, "2026-11-06"),
    ("vulkan", "b999", 70.0, "2026-11-03"),
    ("vulkan", "b1010", 105.0, "2026-11-04"),
)


def records() -> list[Record]:
    """One model with four builds on CUDA and two on Vulkan; another model with one build."""
    found = []
    for api, version, speed, day in STEPS:
        record = with_value(measured(), "id", f"{api}-{version}")
        record = with_value(record, "provenance.started_at", f"{day}T10:00:00Z")
        record = with_value(with_value(record, "backend.build", version), "backend.api", api)
        found.append(with_value(record, "results", [cell("chat", speed=speed), cell("rag", 4)]))
    lone = with_value(measured(), "model.family", "Lone")
    other = with_value(measured(), "rig.id", "other-rig")
    other = with_value(other, "rig.gpus", [])
    return [*found, with_value(lone, "id", "lone"), with_value(other, "id", "other")]


def shown(page: Page) -> list[list[str]]:
    """Build with its day, figure, step."""
    page.wait_for_selector(".builds tbody tr")
    rows: list[list[str]] = page.eval_on_selector_all(
        ".builds tbody tr:not(.group)",
        "all => all.map(row => [...row.cells].map(one => one.innerText))",
    )
    return [[" ".join(text.split()) for text in row] for row in rows]


def test_two_builds_on_one_card_are_two_interactions_away(at: Any) -> None:
    page = at("index.html")
    page.get_by_role("navigation").get_by_role("link", name="GPUs").click()
    page.get_by_role("link", name="Builds on GeForce RTX 5070").click()
    page.wait_for_url(f"**/builds.html?card={RIG}")
    assert [row[0] for row in shown(page)] == [
        "b999 2026-11-09",
        "b1000 2026-11-02",
        "b1010 2026-11-05",
        "b1020 2026-11-06",
        "b999 2026-11-03",
        "b1010 2026-11-04",
    ]
    answer = page.locator("#answer")
    expect(answer).to_contain_text("Fastest decode: b1010 llama.cpp (vulkan), 105.0 tok/s.")
    expect(answer).to_contain_text("Slower than the build before: b1010 (cuda).")


def test_steps_are_judged_as_python_compares_two_runs(at: Any) -> None:
    page = at(f"builds.html?rig={RIG}&model={MODEL}&quant=q4_k_m&shape=chat")
    rows = shown(page)
    by_id = {record.id: record for record in records()}
    order = ["cuda-b999", "cuda-b1000", "cuda-b1010", "cuda-b1020"]
    assert rows[0][2] == "first"
    verdicts = []
    for place, (before, after) in enumerate(itertools.pairwise(order), 1):
        a, b = (_chat(by_id[one]) for one in (before, after))
        found = comparison(subject(a, concurrency=1), subject(b, concurrency=1))
        ratio = found.pairs[0].figures[0].ratio
        assert ratio.value is not None
        assert ratio.low is not None
        assert rows[place][2] == (
            f"×{ratio.value:.2f} {ratio.low:.2f}–{ratio.high:.2f} · "
            f"{ratio.verdict.replace('_', ' ')}"
        )
        verdicts.append(ratio.verdict)
    assert verdicts == ["faster", "slower", "not_distinguishable"]


def _chat(record: Record) -> Record:
    return with_value(record, "results", record.results[:1])


def test_the_picture_has_a_line_an_api_and_a_point_a_build(at: Any) -> None:
    page = at(f"builds.html?card={RIG}")
    shown(page)
    assert page.locator(".steps circle").count() == len(STEPS)
    assert page.locator(".steps .path").count() == 2
    expect(page.locator(".keys")).to_have_text("llama.cpp (cuda)llama.cpp (vulkan)")
    page.locator("select[name=metric]").select_option("ttft_s")
    expect(page.locator("#answer")).to_contain_text("Shortest TTFT: b1010")
    page.locator("select[name=concurrency]").select_option("4")
    expect(page.locator("figcaption")).to_contain_text("rag × 4")
    assert "metric=ttft_s" in page.url
    check_looks(page)


def test_who_chooses_by_keyboard_stays_there(at: Any) -> None:
    page = at(f"builds.html?card={RIG}")
    shown(page)
    page.locator("select[name=metric]").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#answer")).to_contain_text("Fastest prefill")
    expect(page.locator("select[name=metric]")).to_be_focused()


def test_the_page_of_the_rig_has_them_without_scripts(at: Any) -> None:
    page = at(f"rigs/{RIG}.html", java_script_enabled=False)
    line = page.locator("[aria-labelledby=builds] tbody tr").first
    expect(line).to_contain_text("b999 80.0 → b1000 100.0 → b1010 90.0 → b1020 90.2")
    line.locator("th a").click()
    assert re.search(rf"builds\.html\?rig={RIG}&model={MODEL}&quant=q4_k_m$", page.url)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "Choose what to look at."),
        ("?rig=<img>", "No card or machine here is called “<img>”."),
        ("?rig=other-rig", "Here nothing was measured with two builds"),
        (f"?card={RIG}&model=lone", "Of lone there are no two builds here"),
        (f"?card={RIG}&shape=nonsense&metric=x", "Nothing was measured there"),
    ],
)
def test_addresses_without_a_history_are_answered(at: Any, query: str, words: str) -> None:
    page = at(f"builds.html{query}")
    expect(page.locator("main")).to_contain_text(words)
