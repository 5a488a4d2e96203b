"""What stands on a page can be read: no two rows alike, no word broken, nothing hidden from who
copies or captures it, nothing of the machinery in it, shapes in one order, and fingers
hit what they aim at.

One visit to each kind of page looks at all of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.kinds import KINDS, RIG
from tests.unit.alike import others, plain
from tokrig.naming import SHAPES

WIDTHS = (360, 768, 1280)
NARROW = 52 * 16  # up to which a row of the tables is a card
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}

# What may be hidden, because it opens when it is asked for, or because something else says it.
CLOSED = {
    "details:not([open]) > :not(summary)": "opens by its summary",
    ".share .entries": "a menu",
    "[popover]": "a tip or a list to choose from",
    "#more": "further filters, behind a button that tells how many are set",
    "#tray": "rows that were picked; none was",
    ".view": "the curves page shows one view at a time",
    "#pager": "there is one page alone",
    "#drop, .scripted, .pair, #theme, #versus, #others": "needs a script, without which it stays",
    ".without-script": "leads to the same answers without a script",
    ".steps .command": "the command of another engine than the chosen one",
    "[data-size]": "one recipe at a time, by the size that was chosen",
    "form label": "a field that the choice before it makes needless",
    ".left-out": "nothing was left out",
    "table.fits :is(.file, .memory, .ttft, .same)": "a column of which no line knows anything",
    ".skip": "seen by keyboard",
}
# Narrow: what is in other words elsewhere in the same card, or said by the page it leads to.
CLOSED_WHEN_NARROW = {
    "thead": "figures in cards carry their labels",
    ".badges": "driver and power limit, on the machine's page",
    ".none": "a dash for what nobody knows",
    ".common": "filters, behind a button",
    "#filters > button, .tools .muted": "names of buttons",
    ".intro .long": "a sentence on what this is",
    ".machine > span": "the list of machines tells what it is",
}
MACHINERY = re.compile(
    r"<<<<|>>>>|\{\{|\{%|\[object|\bundefined\b|\bNaN\b|\bNone\b(?! of)|&(?:amp|lt|gt|#)", re.ASCII
)

AROUND_A_FRAMED_PART = {"[data-embed] :not([data-embedded])": "what the part was taken out of"}

LOOK = (Path(__file__).parent / "look.js").read_text("utf-8")


def faults(page: Page, *closed: dict[str, str]) -> dict[str, Any]:
    """All that is wrong with the texts of a page; folded parts are opened once the hidden ones
    have been looked for."""
    allowed = ", ".join(selector for one in closed for selector in one)
    hidden = page.evaluate(f"{LOOK}; look.hidden({allowed!r})")
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    found = {"hidden": hidden, **page.evaluate(f"{LOOK}; look.all()")}
    found["jumbled"] = page.evaluate(f"{LOOK}; look.jumbled({[*SHAPES]})")
    text = page.locator("body").inner_text()
    places = MACHINERY.finditer(text)
    found["machinery"] = [text[max(0, m.start() - 40) : m.end() + 40] for m in places]
    return {name: each for name, each in found.items() if each}


def opened(page: Page, path: str) -> Page:
    """Once its scripts have drawn it."""
    if "rows=" in path and page.evaluate("'tokrig' in window"):
        page.wait_for_selector("#comparison .grade")
    return page


@pytest.mark.parametrize("scripted", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_reads(folders: dict[str, Path], open_page: OpenPage, kind: str, scripted: bool) -> None:
    at = KINDS[kind]
    url = f"{folders[at.site].as_uri()}/{at.path}"
    page = opened(open_page(url, java_script_enabled=scripted), at.path if scripted else "")
    for width in reversed(WIDTHS if scripted else (WIDTHS[0], WIDTHS[-1])):
        page.set_viewport_size({"width": width, "height": 800})
        closed = [CLOSED] if width > NARROW else [CLOSED, CLOSED_WHEN_NARROW]
        if at.is_framed:
            closed.append(AROUND_A_FRAMED_PART)
        assert faults(page, *closed) == {}, f"at {width} px"


@pytest.mark.parametrize("kind", KINDS)
def test_fingers_hit_it(folders: dict[str, Path], open_page: OpenPage, kind: str) -> None:
    at = KINDS[kind]
    page = opened(open_page(f"{folders[at.site].as_uri()}/{at.path}", **PHONE), at.path)
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
    assert page.evaluate(f"{LOOK}; look.small()") == []
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    assert page.evaluate(f"{LOOK}; look.small()") == []


# Runs that differ in one thing each

IDS = [plain().id, *(other.record.id for other in others())]
SIX = [",".join(f"{one}~1" for one in IDS[at : at + 6]) for at in range(0, len(IDS), 6)]
LISTS = (
    *("index.html", "index.html?group=none&shape=chat&sort=date", "latency.html", "curves.html"),
    *("models/gemma-4-e2b-it.html", f"rigs/{RIG}.html", f"builds.html?card={RIG}", "gpus.html"),
    *(f"compare.html?rows={rows}" for rows in SIX),
)


@pytest.mark.parametrize("scripted", [True, False], ids=["scripts", "no scripts"])
def test_no_two_runs_read_alike(alike_dir: Path, open_page: OpenPage, scripted: bool) -> None:
    page = open_page(f"{alike_dir.as_uri()}/index.html", java_script_enabled=scripted)
    found = {}
    for path in LISTS:
        page.goto(f"{alike_dir.as_uri()}/{path}")
        opened(page, path if scripted else "")
        found[path] = faults(page, CLOSED).get("alike", [])
    assert {path: alike for path, alike in found.items() if alike} == {}
