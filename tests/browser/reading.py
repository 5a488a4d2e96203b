"""What a reader sees in the tables and bars of a page, as plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page


@dataclass(frozen=True)
class Line:
    """One line of the main table, its cells as text."""

    variant: str
    quant: str
    hardware: str
    backend: str
    mode: str  # what is switched on, wherever it stands; nothing for the baseline
    concurrency: str
    gen: str


@dataclass(frozen=True)
class Group:
    """One family of the main table."""

    name: str
    count: int
    released: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bar:
    """One entry of a shape."""

    rank: str
    model: str
    detail: str
    figure: str


_GROUPS = """bodies => bodies.map(body => ({
  head: body.querySelector('tr.family')?.innerText ?? '',
  lines: [...body.querySelectorAll('tr:not(.family):not(.more)')].map(row => ({
    variant: row.querySelector('.variant a')?.innerText ?? '',
    quant: row.querySelector('.quant')?.innerText ?? '',
    hardware: row.querySelector('.hardware a')?.innerText ?? '',
    backend: row.querySelector('.backend')?.innerText ?? '',
    mode: row.querySelector('.variant .badge')?.innerText ?? '',
    concurrency: row.querySelector('.concurrency')?.innerText ?? '',
    gen: row.querySelector('.gen a')?.innerText ?? '',
  })),
}))"""
_HEAD = re.compile(r"(.+?)\s+(\d[\d,]*) results?\s*(?:·?\s*released (\d{4}-\d{2}))?", re.DOTALL)


def groups(page: Page) -> list[Group]:
    """The groups of ``#results`` as they are shown."""
    found = []
    for group in page.eval_on_selector_all("#results > tbody", _GROUPS):
        match = _HEAD.fullmatch(group["head"].strip())
        name, count, released = match.groups() if match else ("", "0", "")
        lines = tuple(Line(**{k: _tidy(v) for k, v in line.items()}) for line in group["lines"])
        found.append(Group(name.strip(), int(count.replace(",", "")), released or "", lines))
    return found


def lines(page: Page) -> list[Line]:
    """All lines of ``#results``, whatever group they stand in."""
    return [line for group in groups(page) for line in group.lines]


def choose(page: Page, name: str, *values: str) -> None:
    """Choose in the filters as a reader would: one value in a list, or several in one that opens;
    those that are less often asked stand behind a button."""
    control = page.locator(f"#filters [name='{name}']")
    if not control.is_visible():
        page.locator("#filters [name=more]").click()
    if control.evaluate("one => one.tagName") == "SELECT":
        control.select_option(values[0])
        return
    control.click()
    for value in values:
        page.locator(f"#pick-{name} input[value='{value}']").check()
    page.keyboard.press("Escape")


def bars(page: Page, shape: str) -> list[Bar]:
    """The entries of one shape. Their text stands there before they are scrolled into view."""
    found: list[dict[str, Any]] = page.eval_on_selector_all(
        f"[data-shape='{shape}'] li:not(.empty)",
        """items => items.map(item => ({
          rank: item.querySelector('.rank').textContent,
          model: item.querySelector('.what a').textContent,
          detail: item.querySelector('.what .muted').textContent,
          figure: item.querySelector('.figure').textContent,
        }))""",
    )
    return [Bar(**{key: _tidy(value) for key, value in item.items()}) for item in found]


def _tidy(text: str) -> str:
    return " ".join(text.split())
