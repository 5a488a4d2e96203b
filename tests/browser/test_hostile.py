"""Every text of a record, of a family and of a rig is hostile, and stays a text."""

from __future__ import annotations

import csv
import io
import json
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page
from pydantic import BaseModel

from tests.browser.conftest import OpenPage
from tests.browser.kinds import write
from tests.browser.reading import choose
from tests.unit.compared import measured, with_value
from tokrig.documents import dump
from tokrig.errors import InputError, RecordError
from tokrig.naming import address
from tokrig.record.model import Record, record_text
from tokrig.site.build import build
from tokrig.store.facts import Family, RigFigures

TEXTS = {
    "script": '"><script>pwned = 1</script><img src=x onerror="pwned = 1">',
    "end-of-script": "</script></style></title></textarea><script>pwned = 1</script><!--",
    "attribute": '" onmouseover="pwned = 1" autofocus onfocus=\'pwned = 1\' x=<>&amp;',
    "path": "../../etc/passwd",
    "right-to-left": "\u202eevil\u2066 \u200fname",
    "long": "W" * 10_000,
    "long-words": "word " * 2_000 + "end",
    "template": "{{ 7 * 7 }}{% include 'base.html' %}{# gone #}${7 * 7}",
    "address": "javascript:pwned=1",
    "controls": "a\0b\x1b[31mc\x7fd\x85e",
    "lines": "a\u2028b\u2029c\nd\re",
    "quote": "'",
    "quotes": "'\"`\\",
    "formula": '=HYPERLINK("https://example.org")',
    "format": "%s %(x)d {0} {x}",
}
PROSE = """\
<script>pwned = 1</script><img src=x onerror="pwned = 1">

![picture](https://example.org/x.png)

[run me](javascript:pwned=1) <javascript:pwned=1> [me too](data:text/html,<script>pwned=1</script>)

{text}
"""
DATE = "2026-11-22T18:31:11Z"


# A record in which every text is the same


def filled(annotation: Any, text: str) -> Any:
    """A value of that type, as YAML holds it, with ``text`` wherever a text may stand."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return filled(inside[0], text)
    if origin is Literal:
        return inside[0]
    if origin is dict:
        return {filled(inside[0], text): filled(inside[1], text)}
    if origin in (list, tuple):
        return [filled(one, text) for one in inside]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {one.alias or name: filled(one.annotation, text) for name, one in fields}
    return {str: text, int: 1, float: 1.5, bool: True}[annotation]


def hostile(name: str, text: str, *, dated: bool) -> Record:
    """Only what the store and the engine of comparison hold on to is real: ids, and, where the
    feed is to have it, dates. The dated one has an invalid result and did not finish."""
    data = filled(Record, text)
    data["id"] = f"{name}-dated" if dated else name
    data["rig"]["id"] = name
    data["results"][0]["depth_tokens"] = 0  # else no list had it
    if dated:
        data["provenance"]["started_at"] = data["errata"][0]["date"] = DATE
        data["results"][0]["validity"]["verdict"] = "invalid"
        data["status"] = "failed"
    return Record.model_validate(data)


def texts_of(value: Any) -> list[str]:
    """All texts in plain data, keys of maps left out."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in texts_of(one)]
    return [value] if isinstance(value, str) else []


def test_every_text_of_a_record_is_filled() -> None:
    data = hostile("run", "x", dated=False).model_dump(by_alias=True, mode="json")
    real = [text for text in texts_of(data) if text != "x"]
    chosen = [
        "complete",
        "valid",
        "measured",
        "quick",
        "metadata",
        "nvidia",
        "server",
        "request",
        "gpu",
        "probes",
        *("closed", "closed", "closed", "heat", "growth"),
        *("cpu", "measured", "measured", "model"),
    ]
    assert sorted(real) == sorted(["run", "run", "valid", *chosen])
    assert texts_of(data).count("x") >= 60


# A site of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    content, out = root / "content", root / "site"
    write(content, (hostile(*one, dated=dated) for one in TEXTS.items() for dated in (False, True)))
    for part in ("models", "rigs"):
        (content / part).mkdir()
    for name, text in TEXTS.items():
        prose = PROSE.format(text=text) if name != "controls" else PROSE
        facts = filled(Family, text) | {"released": "2026-04", "summary": prose}
        (content / "models" / f"{address(text)}.yaml").write_text(dump(facts), encoding="utf-8")
        front = dump(filled(RigFigures, text))
        (content / "rigs" / f"{name}.md").write_text(f"---\n{front}---\n{prose}", encoding="utf-8")
    build(content, out, cache=root / "cache")
    sites.append(f"{out.as_uri()}/")
    return out


def tidy(text: str) -> str:
    """Without the controls that HTML and XML drop or replace; white space as it may be."""
    return " ".join(re.sub(r"[\0-\x08\x0e-\x1f\x7f-\x9f\ufffd]", "", text).split())


def visible(text: str) -> str:
    """With a space for everything that draws nothing."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_INJECTED = """() => [...document.querySelectorAll('*')].filter(one =>
  ['img', 'iframe', 'object', 'embed', 'base', 'textarea'].includes(one.localName)
  || (one.localName === 'script' && one.type !== 'application/json' && !one.src.startsWith('file:'))
  || [...one.attributes].some(({name}) => name.startsWith('on') || name === 'autofocus')
  || /^(javascript|data):/i.test(one.getAttribute('href') ?? '')
).map(one => one.outerHTML.slice(0, 200))"""


def check_harmless(page: Page) -> None:
    """Nothing ran, nothing but texts came in, and nobody scrolls sideways on a phone."""
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.evaluate(_INJECTED) == []
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.fixture
def narrow(folder: Path, open_page: OpenPage) -> Callable[[str], Page]:
    """Opens a page on a phone. Faults of any kind fail the test."""
    viewport = {"width": 360, "height": 800}
    return lambda path: open_page(f"{folder.as_uri()}/{path}", viewport=viewport)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["model", "rig", "run", "failed run"])
def test_pages_of_a_hostile_run(narrow: Callable[[str], Page], name: str, kind: str) -> None:
    text = TEXTS[name]
    path = {
        "model": f"models/{address(text)}.html",
        "rig": f"rigs/{name}.html",
        "run": f"runs/{name}.html",
        "failed run": f"runs/{name}-dated.html",
    }[kind]
    page = narrow(path)
    check_harmless(page)
    assert tidy(text) in tidy(page.locator("main").text_content() or "")
    if kind == "run":
        values = page.locator("[aria-labelledby=fields] dd").all_text_contents()
        assert [tidy(value) for value in values].count(tidy(text)) > 30


def test_lists_of_hostile_runs(narrow: Callable[[str], Page]) -> None:
    page = narrow("index.html?validity=all")  # their figures contradict each other
    page.wait_for_selector("#filters option", state="attached")
    check_harmless(page)
    shown = {tidy(one) for one in page.locator("#results .variant a").all_text_contents()}
    assert shown == {tidy(text) for text in TEXTS.values()}
    page.locator("#filters [name=more]").click()
    page.get_by_label("Group by family").uncheck()
    order = page.locator("select[name=order]")
    for way in order.locator("option").all_inner_texts():
        order.select_option(label=way)
    check_harmless(page)
    page.locator("select[name=shape]").select_option(index=1)
    for opener in page.locator("#filters .opener:visible, #tools .opener").all():
        opener.click()
        check_harmless(page)
        page.keyboard.press("Escape")
    choose(page, "hardware", "script")
    check_harmless(page)


def test_curves_of_hostile_runs(tmp_path: Path, sites: list[str], open_page: OpenPage) -> None:
    """Only results that stand are drawn: their names are in lists, at points and in tables."""
    records = []
    for name, text in TEXTS.items():
        record = with_value(measured(), "id", name)
        for field in ("model.family", "model.quant", "backend.engine", "backend.build"):
            record = with_value(record, field, text)
        records.append(record)
    write(tmp_path / "content", records)
    build(tmp_path / "content", tmp_path / "site", cache=tmp_path / "cache")
    sites.append(f"{(tmp_path / 'site').as_uri()}/")
    address = f"{sites[-1]}curves.html?view=cost&watts=50"
    page = open_page(address, viewport={"width": 360, "height": 800})
    page.locator("#cost .drawn li").first.wait_for()
    page.locator("#cost .plot").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator("#cost .point").first.wait_for()
    check_harmless(page)
    shown = tidy(page.locator("#cost").text_content() or "")
    assert sum(tidy(text)[:20] in shown for text in TEXTS.values()) > 3


@pytest.mark.parametrize("path", ["latency.html", "data.html", "methodology.html"])
def test_other_pages_of_a_hostile_site(narrow: Callable[[str], Page], path: str) -> None:
    check_harmless(narrow(path))


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_run_compared(narrow: Callable[[str], Page], name: str) -> None:
    other = "quote" if name != "quote" else "path"
    page = narrow(f"compare.html?rows={name}~1,{other}~1")
    page.wait_for_selector("#comparison .grade")
    check_harmless(page)
    text = visible(page.locator("#comparison").text_content() or "")
    assert visible(TEXTS[name])[:40] in text  # long values are cut
    assert visible(TEXTS[other]) in text


# Files for machines


def test_the_feed_is_xml_and_tells_names(folder: Path) -> None:
    atom = "{http://www.w3.org/2005/Atom}"
    feed = ElementTree.fromstring((folder / "feed.xml").read_bytes())
    titles = [tidy(one.findtext(f"{atom}title") or "") for one in feed.iter(f"{atom}entry")]
    assert len(titles) == len(TEXTS)
    for text in TEXTS.values():
        assert any(title.startswith(tidy(text)) for title in titles), text[:60]


def test_rows_are_the_same_in_csv_and_json(folder: Path) -> None:
    data = json.loads((folder / "data" / "results.json").read_bytes())
    place = data["columns"].index("family")
    assert {row[place] for row in data["data"]} == set(TEXTS.values())
    text = (folder / "data" / "results.csv").read_bytes().decode()
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == data["columns"]
    assert len(rows) == len(data["data"]) == 2 * len(TEXTS)
    runs = [cell for row in rows for cell in row if cell[:1] in ("=", "@", "\t", "\r")]
    assert runs == []


def test_the_rows_of_the_table_are_a_script_without_surprises(folder: Path) -> None:
    text = (folder / "assets" / "rows.js").read_text(encoding="utf-8")
    assert "<" not in text
    assert re.findall("[\r\n\u2028\u2029]", text) == ["\n"]
    data = json.loads(text.partition(".data=")[2].rstrip().rstrip(";"))
    assert {family[0] for family in data["families"]} == set(TEXTS.values())


# What is refused


@pytest.mark.parametrize("which", ["id", "rig.id"])
@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", ".hidden", "a/b", "A", "a b", "", "x" * 121, *TEXTS.values()]
)
def test_ids_that_are_no_plain_file_names_are_refused(
    tmp_path: Path, which: str, name: str
) -> None:
    record = measured()
    rig = record.rig.model_copy(update={"id": name})
    changed = record.model_copy(update={"id": name} if which == "id" else {"rig": rig})
    file = tmp_path / "content" / "benchmarks" / "runs" / "rig" / "run.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(record_text(changed), encoding="utf-8")
    with pytest.raises(RecordError) as refused:
        build(tmp_path / "content", tmp_path / "site", cache=tmp_path / "cache")
    what = "run" if which == "id" else "rig"
    assert "rig/run.yaml: " in refused.value.message
    assert f"cannot be the id of a {what}" in refused.value.message
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "old", ["../up.html", "/etc/passwd", "javascript:alert(1)", *TEXTS.values()]
)
@pytest.mark.parametrize("turned", [False, True])
def test_redirects_out_of_the_site_are_refused(tmp_path: Path, old: str, turned: bool) -> None:
    write(tmp_path / "content", [measured()])
    pair = {"index.html": old} if turned else {old: "index.html"}
    (tmp_path / "content" / "redirects.yaml").write_text(dump(pair), encoding="utf-8")
    with pytest.raises(InputError, match=r"(?s)redirects\.yaml:\d+: .*no address inside the site"):
        build(tmp_path / "content", tmp_path / "site", cache=tmp_path / "cache")
