"""Raw engine figures on pages: beside the served ones, never among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record.block import Summary
from tokrig.record.model import BackendFacts, Model, Raw, Record, Validity
from tokrig.site import Page, plain
from tokrig.site.context import Site
from tokrig.site.pages import feed, index, latency, model, rig, run
from tokrig.store import Store, table
from tokrig.store.load import Run

HOSTILE = "<script>alert(1)</script>"
SERVED = record_of([sample()])
RAW = SERVED.model_copy(
    update={
        "id": "20261122-130000-tiny-llama-bench-bbbb",
        "validity": Validity(verdict="valid", unchecked=["throttle"]),
        "provenance": SERVED.provenance.model_copy(update={"level": None}),
        "backend": BackendFacts(name="llama-bench", engine="llama.cpp", build="b7", api="cpu"),
        "results": [],
        "raw": [
            Raw(
                test="pp512",
                prompt_tokens=512,
                tok_per_s=Summary(median=98765.0, min=98001.0, max=98999.0, n=5),
            ),
            Raw(
                test="tg128 @ d512",
                output_tokens=128,
                depth_tokens=512,
                concurrency=4,
                tok_per_s=Summary(median=54321.0, min=54321.0, max=54321.0, n=1),
            ),
        ],
    }
)
FIGURES = ("98,765", "54,321")


def site_of(*records: Record) -> Site:
    runs = tuple(Run(one, f"{one.rig.id}/{one.id}.yaml", one.id) for one in records)
    return Site(Store(Path("nowhere")), runs, families={}, rigs={}, redirects={})


def pages(kind: Page, *records: Record) -> dict[str, str]:
    found = kind(site_of(*records))
    return {one.path: one.render().decode() for one in found if not one.path.endswith(".json")}


def section(html: str) -> str:
    found = re.search(r'<section aria-labelledby="raw">.*?</section>', html, re.DOTALL)
    return found.group() if found else ""


def test_a_models_page_has_them_in_a_section_of_their_own() -> None:
    (html,) = pages(model.PAGE, SERVED, RAW).values()
    raw = section(html)
    assert "no server, no client, no chat template" in raw
    assert all(figure in raw for figure in FIGURES)
    assert "98,001–98,999" in raw
    assert "tg128 @ d512" in raw
    assert "llama-bench" in raw
    rest = html.replace(raw, "")
    assert not any(figure in rest for figure in FIGURES)


def test_a_model_without_them_has_no_such_section() -> None:
    (html,) = pages(model.PAGE, SERVED).values()
    assert section(html) == ""


def test_a_model_with_nothing_else_has_a_page() -> None:
    (html,) = pages(model.PAGE, RAW).values()
    assert all(figure in section(html) for figure in FIGURES)
    assert "No valid result yet." in html


def test_invalid_ones_are_marked_and_come_last() -> None:
    invalid = RAW.model_copy(
        update={
            "id": "20261122-140000-tiny-llama-bench-cccc",
            "validity": Validity(verdict="invalid", reasons=["api_not_confirmed"]),
        }
    )
    (html,) = pages(model.PAGE, invalid, RAW).values()
    raw = section(html)
    assert raw.index(RAW.id) < raw.index(invalid.id)
    assert plain.CODES["api_not_confirmed"] in raw[raw.index(invalid.id) :]


def test_more_runs_than_fit_are_named() -> None:
    many = [
        RAW.model_copy(update={"id": f"20261122-13000{n}-tiny-llama-bench-bbbb"}) for n in range(9)
    ]
    (html,) = pages(model.PAGE, *many).values()
    assert "3 further runs with raw figures" in section(html)
    assert all(one.id in section(html) for one in many)


def test_the_page_of_a_run_shows_them() -> None:
    (html,) = pages(run.PAGE, RAW).values()
    raw = section(html)
    assert all(figure in raw for figure in FIGURES)
    assert "range 98,001–98,999" in raw
    assert "range 54,321" not in raw
    assert 'aria-labelledby="results"' not in html
    assert "throttling was not read" in html


def test_a_served_run_has_none() -> None:
    (html,) = pages(run.PAGE, SERVED).values()
    assert section(html) == ""


@pytest.mark.parametrize("kind", [model.PAGE, run.PAGE])
def test_names_of_tests_are_text(kind: Page) -> None:
    hostile = RAW.model_copy(
        update={
            "raw": [RAW.raw[0].model_copy(update={"test": HOSTILE})],
            "model": Model(family="T"),
        }
    )
    for html in pages(kind, hostile).values():
        assert HOSTILE not in html
        assert "&lt;script&gt;alert(1)" in html


def test_no_row_of_results_comes_from_them() -> None:
    assert list(table.flat_rows(site_of(RAW).runs)) == []


@pytest.mark.parametrize("kind", [index.PAGE, latency.PAGE, rig.PAGE, feed.PAGE])
def test_no_other_page_shows_them(kind: Page) -> None:
    for html in pages(kind, SERVED, RAW).values():
        assert not any(figure in html for figure in FIGURES)
