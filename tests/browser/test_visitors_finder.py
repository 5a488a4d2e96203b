"""Somebody who wants to know what runs on the own machine: the form, its answers, the pages without
scripts; and that Python and the script give the same answer."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tokrig.site import answer, finder

ANSWER = "#answer > table.fits > tbody > tr"
SIZE = re.compile(r"([\d.]+) (B|M)$")


@pytest.fixture
def index(many_dir: Path, open_page: OpenPage) -> Page:
    return open_page(f"{many_dir.as_uri()}/index.html")


def models(page: Page, rows: str = ANSWER) -> list[str]:
    return page.locator(f"{rows} .model a").all_inner_texts()


def sizes(page: Page, rows: str = ANSWER) -> list[float]:
    """Parameters of the models, in millions."""
    texts = page.locator(f"{rows} .model > .muted").all_inner_texts()
    found = [SIZE.match(text) for text in texts]
    return [float(one[1]) * (1000 if one[2] == "B" else 1) for one in found if one]


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_twelve_gigabytes_and_coding_are_two_choices(index: Page) -> None:
    expect(index.locator("#answer")).to_be_hidden()
    index.locator("#finder").get_by_label("Machine", exact=True).select_option("12gb")
    index.locator("#finder").get_by_label("Use", exact=True).select_option("coding")
    index.locator(ANSWER).first.wait_for()
    assert len(models(index)) >= 10
    found = sizes(index)
    assert len(found) == len(models(index))
    assert all(larger >= smaller for larger, smaller in pairwise(found))
    assert query(index) == {"machine": ["12gb"], "use": ["coding"]}
    assert {"expected"} <= set(
        index.locator(f"{ANSWER} .how").evaluate_all("all => all.map(one => one.firstChild.data)")
    )


def test_a_card_with_records_is_measured_here_and_its_rows_lead_to_runs(index: Page) -> None:
    options = index.locator("#finder optgroup[label='GPUs with records'] option")
    words = options.evaluate_all("all => all.map(one => one.value)")
    assert len(words) >= 10
    seen = 0
    for word in words[:12]:
        index.locator("#finder").get_by_label("Machine", exact=True).select_option(word)
        index.locator("#finder").get_by_label("Fast enough", exact=True).select_option("7")
        index.locator("#answer .status").wait_for()
        here = index.locator(f"{ANSWER}:has(.how.here)")
        seen += here.count()
        for link in here.locator(".gen a").all():
            assert re.search(r"runs/[^/]+\.html$", link.get_attribute("href") or "")
    assert seen >= 5


def test_what_is_too_slow_or_too_large_is_folded_with_its_number(index: Page) -> None:
    index.goto(f"{index.url}?machine=8gb&use=documents&fast=50")
    folded = index.locator("#answer details")
    texts = folded.locator("summary").all_inner_texts()
    assert [text.split(":")[0] for text in texts][:1] == ["Run, but slower"]
    large = folded.filter(has_text="Do not fit")
    assert large.locator("tr").count() == 0
    large.locator("summary").click()
    expect(large.locator("tbody tr .how").first).to_contain_text(
        re.compile(r"does not fit[\d.]+ [GM]B")
    )


def test_the_other_quants_of_a_model_come_on_request(index: Page) -> None:
    index.goto(f"{index.url}?machine=24gb")
    button = index.locator(f"{ANSWER} .more").first
    number = int(re.findall(r"\d+", button.inner_text())[0])
    before = index.locator(ANSWER).count()
    button.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    assert index.locator(ANSWER).count() == before + number
    button.press("Enter")
    assert index.locator(ANSWER).count() == before


def test_the_address_is_the_state_and_back_returns(index: Page) -> None:
    index.goto(f"{index.url}?machine=16gb&use=agent&fast=33.5")
    expect(index.locator("#finder").get_by_label("Machine", exact=True)).to_have_value("16gb")
    expect(index.locator("#finder").get_by_label("tok/s", exact=True)).to_have_value("33.5")
    expect(index.locator("#answer .status")).to_contain_text("33.5 tok/s or more")
    index.locator("#finder").get_by_label("Fast enough", exact=True).select_option("7")
    expect(index.locator("#answer .status")).to_contain_text("7.00 tok/s or more")
    index.go_back()
    expect(index.locator("#answer .status")).to_contain_text("33.5 tok/s or more")
    index.locator("#finder").get_by_label("Machine", exact=True).select_option("")
    expect(index.locator("#answer")).to_be_hidden()
    assert query(index) == {}


UNKNOWN = {
    "machine=voodoo-2": "Nobody has measured “voodoo-2”. Known are",
    "machine=rtx-3090-25gb": "GeForce RTX 3090",
    "machine=%3Cimg%20src=x%3E": "Nobody has measured “<img src=x>”",
    "machine=12gb&use=poetry": "“poetry” is no use known here",
    "machine=12gb&fast=abc": "“abc” is no number of tok/s",
    "machine=12gb&fast=-3": "“-3” is no number of tok/s",
    "machine=12gb&fast=1e300": "“1e300” is no number of tok/s",
    "machine=12gb&fast=900000": "No model is known to reach 900,000 tok/s here",
    "machine=12gb&fast=reading": "at 7.00 tok/s or more",
}


def test_what_is_not_known_is_told(index: Page) -> None:
    for asked, told in UNKNOWN.items():
        index.goto(f"{index.url.partition('?')[0]}?{asked}")
        expect(index.locator("#answer")).to_contain_text(told)


def test_every_size_and_use_has_a_page_that_says_the_same_without_scripts(
    many_dir: Path, open_page: OpenPage, index: Page
) -> None:
    plain = open_page(f"{many_dir.as_uri()}/index.html", java_script_enabled=False)
    links = plain.locator(".without-script a")
    assert links.all_inner_texts()[:3] == ["No GPU · 32 GB RAM", "8 GB", "12 GB"]
    links.nth(2).click()
    plain.get_by_role("link", name="Coding").click()
    expect(plain.locator("h1")).to_have_text("Which models run on a 12 GB card for coding?")
    index.goto(f"{index.url}?machine=12gb&use=coding")
    every = index.get_by_role("button", name=re.compile(r"All \d+ models"))
    if every.count():
        every.click()
    for kind in (
        ".model a",
        ".quant",
        ".file",
        ".memory",
        ".gen",
        ".ttft",
        ".whole",
        ".engine",
        ".how",
    ):
        there = plain.locator(f"[aria-labelledby=fast] tbody {kind}").all_text_contents()
        assert [" ".join(text.split()) for text in there] == index.locator(
            f"{ANSWER} {kind}"
        ).all_text_contents()


# The same rules twice


def store(chance: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data of a table and what fit says of it, any of it unknown or the same as another."""
    of_rigs, number, runs = chance.randint(1, 6), chance.randint(0, 12), chance.randint(0, 30)

    def some(value: Any, share: float = 0.8) -> Any:
        return value if chance.random() < share else None

    def size() -> float:
        return chance.choice([1e9, 4e9, 8e9, 8e9, round(chance.uniform(1e8, 40e9))])

    names = [
        [0, f"m{n}", f"m{n}", f"m{n}", some(chance.choice([3e8, 7e9, 7e9])), None] for n in range(4)
    ]
    rows = [
        [
            run,
            shape,
            chance.choice([1, 1, 4]),
            chance.choice([0, 1, 1, 2]),
            some(chance.choice([8.0, 20.0, 61.3]), 0.9),
        ]
        for run in range(runs if number else 0)
        for shape in chance.sample(range(4), chance.randint(0, 4))
    ]
    data = {
        "models": names,
        "modes": [["baseline", "baseline"], ["drafts", "ngram"]],
        "shapes": ["chat", "rag", "codegen", "agent"],
        "rigs": [["", "", [], "", some(chance.choice([0, 8, 12])), False] for _ in range(of_rigs)],
        "runs": {
            "rig": [chance.randrange(of_rigs) for _ in range(runs)],
            "mode": [chance.choice([0, 0, 1]) for _ in range(runs)],
            "engine": [chance.randrange(2) for _ in range(runs)],
            "api": [chance.randrange(2) for _ in range(runs)],
        },
        "rows": {
            **{
                name: [row[place] for row in rows]
                for place, name in enumerate(("run", "shape", "concurrency", "valid", "gen"))
            },
            "low": [some(7.5) for _ in rows],
            "high": [some(70.1) for _ in rows],
            "memory.engine_vram_bytes": [some(size()) for _ in rows],
            "memory.engine_rss_bytes": [some(size()) for _ in rows],
        },
    }  # fmt: skip
    machines = []
    for kind in finder.KINDS:
        mine = chance.sample(range(of_rigs), chance.randint(0, of_rigs))
        widths = sorted(chance.uniform(1e10, 1e12) for _ in range(3))
        machines.append(
            {"kind": kind, "bytes": some(12e9, 0.9), "rigs": mine, "widths": some(widths)}
        )
    fit = {
        "uses": [list(use) for use in finder.USES],
        "machines": machines,
        "of": [chance.randrange(number) if number else 0 for _ in range(runs)],
        "models": {
            "model": [chance.randrange(4) for _ in range(number)],
            "quant": [0] * number,
            "bytes": [some(size()) for _ in range(number)],
            "step": [some(size()) for _ in range(number)],
            "cache": [[some(5e8) for _ in range(number)] for _ in finder.USES],
        },
        "overhead": {"gpu": 6e8, "cpu": 5e8},
        "within": {"elsewhere": some(1.3), "like": some(1.5)},
        "shares": {
            place: [[some(0.7, 0.5) for _ in range(number)], [1] * number]
            for place in ("gpu", "cpu")
        },
        "here": [
            {n: [33.3, some(30.0), some(40.0)] for n in range(number) if chance.random() < 0.2}
            for _ in machines
        ],
        "like": [
            [chance.choice([0, 0.61]) for _ in range(chance.randint(0, number))] for _ in machines
        ],
    }
    return data, fit


def test_python_and_the_script_give_the_same_answer(index: Page) -> None:
    chance = Random(11)
    asked, wanted = [], []
    for _ in range(250):
        data, fit = store(chance)
        machine, use = chance.randrange(len(fit["machines"])), chance.randrange(len(finder.USES))
        fast = chance.choice([7, 20, 50, 61.3, 1e6])
        asked.append([data, fit, machine, use, fast])
        wanted.append(answer.answer(data, fit, machine, use, fast))
    found = index.evaluate("all => all.map(one => tokrig.answer(...one))", asked)
    sections: set[str] = set()
    for of_script, of_python in zip(found, wanted, strict=True):
        assert of_script == json.loads(json.dumps(of_python))
        sections |= {name for name, models in of_python.items() if models}
    assert sections == set(answer.SECTIONS)
