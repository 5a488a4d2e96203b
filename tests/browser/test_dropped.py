"""Files of one's own on the page: dropped, beside the others, compared, and as a pull request; all
of it as Python has it, files of other tools included. What is none is refused in words.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, expect

from tests.browser.conftest import ROOT, OpenPage
from tests.browser.kinds import few_runs
from tests.browser.test_hostile import TEXTS, hostile
from tests.unit.test_import import READ as OTHERS_FILES
from tests.unit.test_import import said
from tests.unit.test_import_mutations import damaged
from tokrig import documents
from tokrig.compare import contribution, subject
from tokrig.errors import ImportRefused
from tokrig.exchange import imports
from tokrig.record import privacy
from tokrig.record.model import Record, parse_record, record_text
from tokrig.site import curves, table
from tokrig.store import Store
from tokrig.store.load import Run
from tokrig.submission import nearest

OWN = sorted((ROOT / "content" / "benchmarks" / "runs").glob("*/*.yaml"))
FIRST = next(path for path in OWN if path.name.startswith("20261128-010707"))
AGAIN = "20261128-010707-again"
OTHERS = ("run shape from to").split()


@pytest.fixture
def page(site_dir: Path, open_page: OpenPage) -> Page:
    return open_page(f"{site_dir.as_uri()}/add.html")


def drop(page: Page, *files: tuple[str, bytes]) -> str:
    """Choose files; what the page says of them."""
    chosen: list[Any] = [
        {"name": name, "mimeType": "text/yaml", "buffer": data} for name, data in files
    ]
    page.set_input_files("#drop input[type=file]", chosen)
    page.wait_for_function(
        "() => !['', 'Reading…'].includes(document.getElementById('drop-said').textContent)"
    )
    return page.locator("#drop-said").inner_text()


def texts() -> list[str]:
    """Records of all kinds: this repository's, few made ones, and those of hostile names."""
    named = [hostile(*one, dated=dated) for one in TEXTS.items() for dated in (False, True)]
    made = [record_text(one) for one in (*few_runs(), *named)]
    return [path.read_text("utf-8") for path in OWN] + made


# As Python has it


READ = """async (texts) => {
  const found = [];
  for (const text of texts) {
    const record = await tokrig.records.recordOf(text, "it");
    await tokrig.records.load("assets/record-words.js");
    const words = tokrig.recordWords;
    const held = words.looksPrivate(record).map(([place]) => place);
    const run = words.runOf(record);
    const curves = words.curvesOf(record);
    found.push([words.subject(record), words.contribution(record), run, held, curves]);
  }
  return found;
}"""


def test_a_record_is_called_and_compared_as_python_does(page: Page) -> None:
    given = texts()
    read = page.evaluate(READ, given)
    for text, (beside, pull, run, private, drawn) in zip(given, read, strict=True):
        record = parse_record(text, "it")
        ordered = table.in_order(Run(record, "", "")).record
        assert beside == {**subject(ordered).as_dict(), "keys": beside["keys"]}
        assert beside["keys"] == subject(record).keys
        assert pull["title"] == contribution.title([record])
        assert pull["branch"] == contribution.branch([record.id])
        assert pull["place"] == contribution.place(record)
        places = [pull["place"], f"benchmarks/samples/{record.id}.parquet"]
        whole = contribution.text([(record, None, places)])
        assert "\n".join([*pull["before"], pull["first"], *pull["after"]]) == whole
        plain = record.model_dump(mode="json", exclude_none=True)
        shown = [
            place for place, one in privacy.texts(plain) if privacy.without_private(one) != one
        ]
        assert private == shown
        assert columns_of(run) == expected(ordered)
        assert drawn == curves_of(ordered)


SAID_BY_PYTHON = {"end", "cache"}  # sentences beside a curve


def curves_of(record: Record) -> dict[str, Any]:
    """The curves of a record by view, as the page of curves has them."""
    found: dict[str, Any] = {}
    for view in ("depth", "load", "session", "cost"):
        column, least = curves.NEEDED[view]
        told = [
            {name: value for name, value in curve.items() if name not in SAID_BY_PYTHON}
            for curve in curves.VIEWS[view](record)
        ]
        found[view] = [one for one in told if sum(v is not None for v in one[column]) >= least]
    return found


def expected(record: Record) -> dict[str, Any]:
    """The words and figures of the only run in the data of all rows."""
    data = table.columns([Run(record, "", "")], {})
    runs, rows = data["runs"], data["rows"]
    pairs = {"quant": "quants", "backend": "backends", "engine": "engines", "build": "builds"}
    pairs |= {"api": "apis", "mode": "modes", "settings": "settings", "rig": "rigs"}
    words = {name: data[many][runs[name][0]] for name, many in pairs.items()}
    words["model"] = data["models"][0][3:]
    figures = [
        {"shape": data["shapes"][rows["shape"][at]]}
        | {name: values[at] for name, values in rows.items() if name not in OTHERS}
        for at in range(len(rows["run"]))
    ]
    found: dict[str, Any] = json.loads(json.dumps(words))
    return found | {"rows": figures, "date": runs["date"][0]}


def columns_of(run: dict[str, Any]) -> dict[str, Any]:
    names = "quant backend engine build api mode settings rig".split()
    found = {name: run[name] for name in names} | {"date": run["date"], "model": run["model"][2:]}
    rows = [{"shape": one["shape"], **one["values"]} for one in run["rows"]]
    return found | {"rows": rows}


# Files of other tools, as tokrig import reads them

IMPORT = """async (files) => {
  const found = [];
  for (const [name, bytes, model] of files) {
    const file = new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], name);
    try {
      found.push(await tokrig.records.recordsOf(file, name, model));
    } catch (problem) {
      const isRefused = problem instanceof tokrig.records.Refused;
      found.push(isRefused ? problem.message : `BROKEN ${problem.stack}`);
    }
  }
  return found;
}"""
DAMAGED = 3


def as_python(path: Path, of: Path) -> Any:
    """The records of a file as plain data, or the refusal."""
    try:
        found = imports.read(path, said(of)).records
    except ImportRefused as problem:
        return problem.message
    return [one.model_dump(mode="json", by_alias=True) for one in found]


def near(data: Any) -> Any:
    """Plain data in which whole numbers are as exact as a script's."""
    if isinstance(data, dict):
        return {key: near(one) for key, one in data.items()}
    if isinstance(data, list):
        return [near(one) for one in data]
    return float(data) if isinstance(data, int) and abs(data) > 2**53 else data


def head(refusal: str) -> str:
    """A refusal without how its value is written, and without the byte, which browsers keep."""
    cut = refusal.partition(", not ")[0].partition(" (byte ")[0]
    return cut.replace('"', "'").replace("\\'", "'")


def test_files_of_other_tools_are_read_as_import_reads_them(page: Page, tmp_path: Path) -> None:
    given, expected = [], []
    for path in OTHERS_FILES:
        chance = random.Random(path.name)
        text = path.read_text("utf-8")
        for number in range(DAMAGED + 1):
            data = damaged(text, chance) if number else path.read_bytes()
            other = tmp_path / f"{path.parent.name}-{number}-{path.name}"
            other.write_bytes(data)
            model = said(path).model and "gemma-3-270m-it-Q4_K_M.gguf"
            given.append([str(other), base64.b64encode(data).decode(), model])
            expected.append(as_python(other, path))
    outcomes = []
    for (name, *_), ours, theirs in zip(given, expected, page.evaluate(IMPORT, given), strict=True):
        if isinstance(ours, str) and "contradict each other" in ours:
            continue  # tokrig check tells that; the page computes nothing again
        if isinstance(ours, str):
            assert isinstance(theirs, str), (name, ours)
            assert head(theirs) == head(ours)
        else:
            assert near(theirs) == near(ours), name
        outcomes.append(type(ours))
    assert outcomes.count(str) > 10 and outcomes.count(list) > 50


def test_what_other_tools_measured_is_marked_wherever_it_stands(
    site_dir: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{site_dir.as_uri()}/index.html")
    files = {path.parent.name: path for path in OTHERS_FILES}
    chosen = [str(files[name]) for name in ("vllm-bench", "llama-bench", "llmfit")]
    page.set_input_files("#drop input[type=file]", chosen)
    lines = page.locator("#results tbody tr", has_text="your file")
    lines.first.wait_for()
    for text in lines.all_inner_texts():
        assert "imported" in text and "unverified" in text
    items = page.locator("#dropped li")
    assert "engine's own benchmark" in items.filter(has_text="llama-bench").first.inner_text()
    assert all("imported" in one for one in items.all_inner_texts())


def test_the_model_of_a_file_that_names_none_is_asked_for(page: Page) -> None:
    path = next(path for path in OTHERS_FILES if path.parent.name == "llama-batched-bench")
    assert "does not say which model it is of" in drop(page, (path.name, path.read_bytes()))
    page.get_by_label("Model", exact=True).fill("SmolLM2-135M-Instruct-Q4_K_M.gguf")
    page.get_by_role("button", name="Read it").click()
    page.locator("#dropped li").wait_for()
    assert "SmolLM2 135M-Instruct · Q4_K_M" in page.locator("#dropped").inner_text()


# Dropped and pasted by hand

DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  const of = { bubbles: true, cancelable: true, dataTransfer: data };
  const over = !document.body.dispatchEvent(new DragEvent("dragover", of));
  document.body.dispatchEvent(new DragEvent("drop", of));
  return over;
}"""
PASTE = """(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const of = { bubbles: true, cancelable: true, clipboardData: data };
  document.body.dispatchEvent(new ClipboardEvent("paste", of));
}"""


def test_files_are_dropped_and_texts_are_pasted(page: Page) -> None:
    items = page.locator("#dropped li")
    assert page.evaluate(DROP, ["mine.yaml", record_text(again())])
    items.first.wait_for()
    assert items.count() == 1
    table_of_tests = next(path for path in OTHERS_FILES if path.name == "gemma.md")
    page.evaluate(PASTE, table_of_tests.read_text("utf-8"))
    items.nth(1).wait_for()
    assert "what was pasted" in str(items.nth(1).get_by_role("button").get_attribute("aria-label"))
    page.evaluate(PASTE, "a word that somebody had in the clipboard")
    page.evaluate(PASTE, "{half")
    page.wait_for_function("document.getElementById('drop-said').textContent.includes('pasted:1')")
    assert items.count() == 2


# From any page to a pull request


@pytest.mark.parametrize("name", ["index", "latency", "gaps", "curves", f"runs/{FIRST.stem}"])
def test_on_a_phone_every_page_shows_the_way_at_once(
    name: str, site_dir: Path, open_page: OpenPage
) -> None:
    phone = {"width": 360, "height": 780}
    page = open_page(f"{site_dir.as_uri()}/{name}.html", viewport=phone)
    links = page.get_by_role("link", name="Add your machine", exact=True)
    expect(links.first).to_be_in_viewport()
    assert links.last.locator("xpath=ancestor::footer").count() == 1, "and at its end"


def again() -> Record:
    """The repository's record once more, as if somebody had measured it again."""
    record = parse_record(FIRST.read_text("utf-8"), str(FIRST))
    return record.model_copy(update={"id": AGAIN})


def test_an_owner_comes_from_any_page_to_a_pull_request(
    site_dir: Path, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(f"{site_dir.as_uri()}/runs/{FIRST.stem}.html")
    page.get_by_role("link", name="Add your machine").first.click()
    page.get_by_label("Your card").select_option("cuda")
    assert page.locator("[data-api]:visible code").all_inner_texts() == [
        "tokrig engine add llamacpp --api cuda"
    ]
    record = again()
    assert "1 record read" in drop(page, (f"{AGAIN}.yaml", record_text(record).encode()))
    shown = page.locator(".request pre code").text_content()
    places = [contribution.place(record), f"benchmarks/samples/{AGAIN}.parquet"]
    runs = site_dir / "data" / "runs"
    content = tmp_path / "content"
    (content / "benchmarks").mkdir(parents=True)
    (content / "benchmarks" / "runs").symlink_to(runs)
    pair = nearest(record, Store(content, cache=tmp_path / "cache"))
    assert pair is not None
    assert shown == contribution.text([(record, pair, places)])
    assert f"add-{AGAIN}" in page.locator(".request").inner_text()
    assert page.locator(".request .warning").count() == 0


def test_what_is_private_or_published_is_pointed_out(page: Page) -> None:
    record = again().model_copy(update={"notes": "measured in /home/ada/models"})
    drop(page, ("mine.yaml", record_text(record).encode()))
    assert "notes looks private" in page.locator(".request .warning").inner_text()
    drop(page, (FIRST.name, FIRST.read_bytes()))
    page.wait_for_function("document.querySelectorAll('.request').length === 2")
    assert "published already" in page.locator(".request .warning").last.inner_text()


# Beside the others


def test_a_file_stands_among_the_rows_until_it_is_removed(
    site_dir: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{site_dir.as_uri()}/index.html")
    lines = page.locator("#results tbody tr", has_text="your file")
    bars = page.locator(".bars li").count()
    assert lines.count() == 0
    mine = record_text(again()).encode()
    page.set_input_files(
        "#drop input[type=file]", {"name": "mine.yaml", "mimeType": "", "buffer": mine}
    )
    lines.first.wait_for()
    assert lines.count() == 1
    assert page.locator(".bars li").count() == bars
    assert page.locator(".bars a[href*='add.html']").count() == 0
    assert "others with this hardware" in page.locator("#dropped").inner_text()
    lines.locator("input").check()
    page.locator(f"input[data-pick^='{FIRST.stem}']").check()
    page.get_by_role("link", name="Compare", exact=True).last.click()
    page.wait_for_selector("#comparison .grade")
    assert "Class A" in page.locator("#comparison").inner_text()
    page.goto(f"{site_dir.as_uri()}/index.html")
    page.get_by_role("button", name="Remove mine.yaml").click()
    lines.first.wait_for(state="detached")


@pytest.mark.parametrize("view", ["depth", "load", "session"])
def test_a_dropped_record_is_a_line_of_its_own_among_the_curves(
    view: str, many_dir: Path, open_page: OpenPage
) -> None:
    found = ((path, curves_of(parse_record(path.read_text("utf-8"), "it"))[view]) for path in OWN)
    path, mine = next(one for one in found if one[1])
    page = open_page(f"{many_dir.as_uri()}/add.html")
    drop(page, (path.name, path.read_bytes()))
    page.goto(f"{many_dir.as_uri()}/curves.html?view={view}")
    drawn = page.locator(f"#{view} .drawn li")
    drawn.first.wait_for()
    assert "your file" in drawn.first.inner_text()
    assert drawn.filter(has_text="your file").count() == len(mine) < drawn.count()
    assert "your file" in page.locator(f"#{view} .figures").inner_text()


# What is no record


def wrongs() -> Iterator[tuple[str, bytes, str]]:
    """A name, a file, and what the page says of it."""
    text = record_text(again())
    yield "half", text[: len(text) // 2].encode(), ":"
    yield "empty", b"", "is empty"
    yield "other", b'{"benchmarks": []}', "of no tool that tokrig knows"
    yield "columns.csv", b"model,speed,place\nx,1,2\n", "of no tool that tokrig knows"
    yield "half.json", b'[{"n_prompt": 1, ', "ends too early"
    yield "names", b'{"__proto__": {"polluted": 1}, "<img src=x onerror=pwned=1>": 1}', "of no tool"
    yield "bell", b"model,t/s\x07\n\xff", "not UTF-8"
    yield "samples", b"PAR1\x15\x04", "samples"
    yield "list", b"- 1\n- 2\n", "holds no record"
    yield "latin", b"schema: 2\nid: \xff\xfe", "not UTF-8"
    yield "wide", "schema: 2".encode("utf-16"), "of no tool"
    yield "null", b"schema: 2\0", "no text"
    yield "alias", b"a: &a [1, 2]\nb: [*a, *a]\n", "alias"
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    yield "bomb", bomb.encode(), "alias"
    yield "deep", b"a: " + b"[" * 100_000, "nesting"
    yield "deep.json", b'{"a":' * 100_000, "nested too deeply"
    yield "twice", f"{text}\nid: other\n".encode(), "duplicated"
    yield "newer", text.replace("schema: 2", "schema: 99", 1).encode(), "newer tokrig"
    yield "proto", f"{text}\n__proto__: {{polluted: true}}\n".encode(), "is no key of a record"
    yield (
        "markup",
        text.replace(f"id: {AGAIN}", "id: <img src=x onerror=pwned=1>", 1).encode(),
        "id",
    )
    yield "huge", b" " * (4 * 1024 * 1024 + 1), "more than a record has"
    yield "nan", text.replace("concurrency: 1", "concurrency: .nan", 1).encode(), "concurrency"
    yield "negative", text.replace("concurrency: 1", "concurrency: -1", 1).encode(), "out of range"


def test_what_is_no_record_is_refused_in_words(page: Page) -> None:
    for name, data, says in wrongs():
        told = drop(page, (name if "." in name else f"{name}.yaml", data))
        assert says in told, (name, told)
        assert page.locator("#drop-said .spread").inner_text(), name
        page.evaluate("document.getElementById('drop-said').replaceChildren()")
    assert page.locator("#dropped li").count() == 0
    huge = "new File([new Uint8Array(1e8)], 'huge.json')"
    with pytest.raises(Error, match="more than a file of results has"):
        page.evaluate(f"tokrig.dropped.add({huge})")
    assert page.evaluate("typeof pwned + typeof ({}).polluted") == "undefinedundefined"


def changed(data: Any, chance: random.Random) -> Any:
    """Plain data with one thing gone, renamed, doubled or of another type, anywhere."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(data)
    holder, key = chance.choice(places)
    other: list[Any] = [None, -1, 1e308, "<b>x</b>", [], {}, True, [[1]], "x" * 5000, 10**400, 0.5]
    what: list[Callable[[], None]] = [
        lambda: holder.pop(key),
        lambda: holder.__setitem__(key, chance.choice(other)),
    ]
    chance.choice(what)()
    return data


TRY = """async (texts) => {
  const found = [];
  for (const text of texts) {
    try {
      const [entry] = await tokrig.dropped.add(text);
      tokrig.dropped.remove(entry.id);
      found.push("taken");
    } catch (problem) {
      const isRefused = problem instanceof tokrig.records.Refused;
      found.push(isRefused ? problem.message : `BROKEN ${problem.stack}`);
    }
  }
  return found;
}"""


def test_changed_records_are_taken_or_refused_and_nothing_breaks(page: Page) -> None:
    chance = random.Random(14)
    whole, given = texts(), []
    for _ in range(100):
        data = documents.parse(chance.choice(whole), "it")
        given.append(documents.dump(changed(data, chance)))
    found = page.evaluate(TRY, given)
    assert [one for one in found if one.startswith("BROKEN")] == []
    assert 10 < found.count("taken") < 90
