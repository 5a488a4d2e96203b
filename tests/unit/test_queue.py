"""The public queue: what waits, for what, at what price; what is done leaves it by itself."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.unit.queued import RIG, campaign, plan, planned, record
from tokrig.campaign.docs import escaped, text
from tokrig.plan import STATES, Planned, Weights
from tokrig.plan.queue import QueueEntry, because, machines, queue, roughly

GIB = 2**30


def only(*runs: Planned) -> QueueEntry:
    [entry] = queue(plan(*runs), [])
    return entry


# Counting


def test_an_entry_tells_its_runs_by_state() -> None:
    entry = only(*(planned("sweep", state) for state in ("done", *STATES)))
    assert entry.progress == (
        "2 of 8 runs done, 1 invalid, 1 failed, 1 not fitting, 1 blocked, 2 left"
    )
    assert (entry.total, entry.left, entry.is_done) == (8, 2, False)


def test_one_run_is_not_runs() -> None:
    assert only(planned("sweep")).progress == "0 of 1 run done, 1 left"


def test_the_command_fills_the_entry() -> None:
    assert only(planned("sweep")).command == (
        "tokrig campaign run campaigns/first.yaml --only sweep"
    )


def test_reasons_stand_once_the_most_frequent_first() -> None:
    entry = only(
        planned("sweep", "blocked", why="no driver", until="it comes"),
        *[planned("sweep", "failed", why="out of memory")] * 2,
        planned("sweep", "todo", why="not known whether it fits"),
    )
    assert [(one.word, one.why, one.until, one.runs) for one in entry.reasons] == [
        ("failed", "out of memory", "", 2),
        ("blocked", "no driver", "it comes", 1),
    ]


def test_two_sentences_become_one() -> None:
    assert because("It is late.", "The morning comes.") == "It is late; until The morning comes"
    assert because("it went", "") == "it went"


# Price


def test_a_file_is_downloaded_once_and_not_for_what_is_done() -> None:
    big, small = Weights("big", repo="o/big", file="f"), Weights("small", repo="o/small", file="f")
    runs = [
        planned("a", weights=big, download_bytes=5 * GIB, time_s=3600.0),
        planned("a", weights=big, download_bytes=0, time_s=7200.0),
        planned("a", "done", weights=small, download_bytes=3 * GIB),
        planned("b", weights=big, download_bytes=0),  # the same file, counted above
    ]
    first, second = queue(plan(*runs), [])
    assert (first.download_bytes, first.time_s) == (5 * GIB, 10_800.0)
    assert first.cost == "about 3 h, 5.00 GiB to download"
    assert (second.download_bytes, second.time_s) == (5 * GIB, None)


def test_what_is_not_known_has_no_price() -> None:
    entry = only(planned("a", download_bytes=None), planned("a", word="b", download_bytes=7))
    assert (entry.download_bytes, entry.time_s, entry.cost) == (None, None, "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "about 1 min"),
        (2400, "about 40 min"),
        (5399, "about 90 min"),
        (5400, "about 2 h"),
        (6 * 3600, "about 6 h"),
        (3 * 86_400, "about 3 days"),
    ],
)
def test_estimates_are_rough(seconds: float, said: str) -> None:
    assert roughly(seconds) == said


# Order, and leaving


def test_entries_go_by_priority_then_as_they_are_written() -> None:
    files = (
        campaign("first", {"name": "a"}, {"name": "b", "priority": 5}, {"name": "unplanned"}),
        campaign("second", {"name": "c", "priority": 5}, {"name": "d", "priority": -1}),
    )
    runs = [planned(one, campaign="second") for one in "dc"] + [planned(one) for one in "ab"]
    assert [entry.name for entry in queue(plan(*runs, files=files), [])] == ["b", "c", "a", "d"]


def test_what_is_done_stands_at_the_end_with_its_results() -> None:
    records = [
        record("newest", provenance__started_at="2026-11-22T10:00:00Z"),
        record("middle", provenance__started_at="2026-11-21T10:00:00Z"),
        record("oldest", provenance__started_at="2026-11-20T10:00:00Z"),
    ]
    entries = queue(
        plan(
            planned("old", "done", record="oldest"),
            planned("new", "done", record="middle"),
            planned("new", "done", record="newest"),
            planned("new", "does_not_fit", why="too big"),
            planned("open", "done", record="gone"),
            planned("open"),
            planned("hopeless", "does_not_fit", why="far too big"),
        ),
        records,
    )
    assert [(one.name, one.is_done) for one in entries] == [
        ("open", False),
        ("hopeless", False),
        ("new", True),
        ("old", True),
    ]
    assert [[run.id for run in one.results] for one in entries] == [
        [],
        [],
        ["newest", "middle"],
        ["oldest"],
    ]


# Machines


def test_machines_are_called_as_records_then_as_campaigns_call_them() -> None:
    files = (campaign("first", {"name": "a"}, rigs={"strix": {"title": "A Strix"}, RIG: {}}),)
    runs = [planned("a", rig=rig) for rig in (RIG, "strix", "nameless")]
    found = machines(plan(*runs, files=files), [record("one")])
    assert {one.id: (one.title, one.has_page) for one in found.values()} == {
        RIG: ("GeForce RTX 5070 · 12 GB", True),
        "strix": ("A Strix", False),
        "nameless": ("nameless", False),
    }


def test_two_machines_of_one_name_are_told_apart() -> None:
    found = machines(plan(), [record("one"), record("two", rig__id="its-twin")])
    assert {one.title for one in found.values()} == {
        f"GeForce RTX 5070 · 12 GB ({RIG})",
        "GeForce RTX 5070 · 12 GB (its-twin)",
    }


# The document


def rendered(markdown: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


def test_the_document_says_all_of_it() -> None:
    entries = queue(
        plan(
            planned("a", "blocked", why="no driver", until="it comes", rig="strix"),
            planned("a", "done", record="one", rig="strix"),
            planned("b", "done", record="one"),
        ),
        [record("one")],
    )
    written = text(entries)
    first = written.splitlines()[0]
    assert "Generated by `tokrig campaign docs`" in first
    assert first.startswith("<!--")
    assert "## The a\n" in written
    assert "- On strix\n- 1 of 2 runs done, 1 blocked\n" in written
    assert "- Blocked (1 run): no driver; until it comes\n" in written
    link = f"(../content/benchmarks/runs/{RIG}/one.yaml)"
    assert (
        f"- Results so far: [Gemma-4 E2B-it · Q4\\_K\\_M · llama.cpp b9174 (cuda)]{link}" in written
    )
    assert "```sh\ntokrig campaign run campaigns/first.yaml --only a\n```" in written
    done = written.partition("## Recently done\n")[2]
    assert "The b" in done and link in done and "--only" not in done
    assert text(entries) == written


def test_without_campaigns_the_document_says_so() -> None:
    assert "Nothing is queued." in text([])


TRICKS = [
    "<script>x</script>",
    "[a](javascript:x)",
    "![a](https://example.org/x.png)",
    "a\n\n# heading",
    "a\n```\nb",
    "- item",
    "12. item",
    "12) item",
    "| a | b |",
    "*a* _b_ `c` ~~d~~ &amp; \\",
    "https://example.org www.example.org a@example.org",
    "=====",
    "a\u202eb\x1b[31m\u2028c",
]


def plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@pytest.mark.parametrize("trick", TRICKS)
def test_a_hostile_text_stays_a_text_in_markdown(trick: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(escaped(trick))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    inside = tokens[1].children or []
    assert {token.type for token in inside} <= {"text", "text_special"}
    assert "".join(token.content for token in inside) == plain(trick)
    assert not re.search(r"(?i)(?<!\\)://|www\.|(?<!\\)@", escaped(trick))


@given(st.text())
def test_any_text_stays_itself_in_markdown(anything: str) -> None:
    inside = MarkdownIt("commonmark").parseInline(escaped(anything))[0].children or []
    assert {token.type for token in inside} <= {"text", "text_special"}
    assert "".join(token.content for token in inside) == plain(anything)


def test_hostile_entries_make_no_markup() -> None:
    for trick in TRICKS:
        files = (campaign("first", {"name": "a", "title": trick, "about": trick}),)
        run = planned("a", "blocked", why=trick, until=trick, rig="strix")
        shown = rendered(text(queue(plan(run, files=files), [])))
        tags = set(re.findall(r"<(\w+)", shown.partition("-->")[2]))
        assert tags <= {"h1", "h2", "p", "ul", "li", "pre", "code"}, trick
