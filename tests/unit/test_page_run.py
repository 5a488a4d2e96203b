"""The page of a run: all figures, all fields, every mark explained, nothing injected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record.block import Summary
from tokrig.record.checks import HINTS
from tokrig.record.model import (
    ColdStart,
    Energy,
    Erratum,
    Failure,
    Gpu,
    Interference,
    PeakMemory,
    Record,
    Skipped,
    Speculative,
    Validity,
)
from tokrig.record.samples import Sample
from tokrig.site.context import Site
from tokrig.site.pages.run import PAGE, blocks, findings
from tokrig.store import Store
from tokrig.store.load import Run

HOSTILE = {
    "tags": "</pre></dd><script>alert(1)</script>",
    "quotes": '"\' onload="alert(1)" x=\'',
    "templates": "{{ record }}{% raw %}",
    "directions": "\u202eevil\u2066",
    "long": "W" * 10_000,
}
VOID = {"meta", "link", "br", "hr", "input", "img", "wbr"}


class Html(HTMLParser):
    """Tags in order with their attributes, the text between them, and whether all were closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [str(attrs["href"]) for tag, attrs in self.tags if tag == "a"]


def a_record(**changes: Any) -> Record:
    return record_of([sample()]).model_copy(update=changes)


def page_of(folder: Path, record: Record, samples: list[Sample] | None = None) -> Html:
    store = Store(folder)
    if samples is not None:
        store.samples.mkdir(parents=True)
        store.save(record, samples)
    run = Run(record, f"{record.rig.id}/{record.id}.yaml", "d", None if samples is None else "s")
    site = Site(store, (run,), families={}, rigs={}, redirects={})
    (output,) = PAGE(site)
    assert output.path == f"runs/{record.id}.html"
    page = Html(output.render())
    assert page.open == []
    return page


def full_record() -> Record:
    """A record in which every optional block is filled."""
    record = a_record(
        cold_start=ColdStart(load_s=1.75, first_ttft_s=0.19),
        skipped=[Skipped(workload="rag", concurrency=1, code="context", message="too long")],
        failure=Failure(code="engine_died", message="it died", log_tail="last\nwords"),
        errata=[Erratum(date="2026-11-22", field="backend.api", text="It was Vulkan.")],
        notes="a note",
        status="failed",
    )
    gpu = Gpu(name="Card", vendor="amd", vram_bytes=12 * 1024**3)
    (result,) = record.results
    result = result.model_copy(
        update={
            "speculative": Speculative(drafted_tokens=8, accepted_tokens=6, acceptance_rate=0.75),
            "memory": PeakMemory(engine_rss_bytes=1024**3, engine_vram_bytes=2 * 1024**3),
            "energy": Energy(scope="gpu", total_j=500, j_per_output_token=1.25),
            "ceiling_share": 0.8,
            "client_cpu_share": 0.03,
            "ttft_s": Summary(median=0.5, min=0.4, max=0.7, n=3),
            "interference": Interference(load_average_max=1.5),
            "output_tok_per_s": Summary(median=99.5, min=90, max=110, n=60, ci95=(98.4, 101)),
        }
    )
    return record.model_copy(
        update={"results": [result], "rig": record.rig.model_copy(update={"gpus": [gpu]})}
    )


def test_figures_stand_in_a_table_with_interval_and_range(tmp_path: Path) -> None:
    text = page_of(tmp_path, full_record()).text
    for expected in (
        "gen tok/s99.595 % interval 98.4–101.0",
        "TTFT500 msrange 400–700 ms",
        "TPOT10 ms",
        "cached prompt tokens0",
        "finish reasonslength 1",
        "drafts accepted75 %",
        "drafted tokens8",
        "accepted tokens6",
        "client against engine0 %",
        "client CPU, of one core3 %",
        "GPU memory2.1 GB",
        "main memory1.1 GB",
        "energy per token1.25 J/token",
        "energy500 J",
        "energy ofgpu",
        "ready after 1.75 s, first token of the first request after 190 ms",
    ):
        assert expected in text


def test_errata_failure_and_skipped_shapes_are_told(tmp_path: Path) -> None:
    text = page_of(tmp_path, full_record()).text
    for expected in ("It was Vulkan.", "This run failed", "last\nwords", "rag × 1context too long"):
        assert expected in text


def test_links_lead_to_model_rig_and_raw_files(tmp_path: Path) -> None:
    record = a_record()
    links = page_of(tmp_path, record, [sample()]).links()
    assert {
        "../models/tiny.html",
        "../rigs/test-rig.html",
        f"../data/runs/test-rig/{record.id}.yaml",
        f"../data/samples/{record.id}.parquet",
    } <= set(links)
    without = page_of(tmp_path / "other", record).links()
    assert not any("samples" in link for link in without)


def test_samples_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    drawn = [attrs.get("id") for tag, attrs in page_of(tmp_path, a_record(), [sample()]).tags]
    assert {"chart-chunks-title", "chart-requests-title"} <= set(drawn)
    assert not any(tag == "figure" for tag, _ in page_of(tmp_path / "other", a_record()).tags)


@pytest.mark.parametrize("code", sorted(HINTS))
def test_every_code_is_explained(code: str, tmp_path: Path) -> None:
    marked = Validity(verdict="invalid", reasons=[code])
    assert HINTS[code] in page_of(tmp_path, a_record(validity=marked)).text


def test_codes_say_in_which_results_they_hold() -> None:
    record = a_record()
    (result,) = record.results
    bad = Validity(verdict="invalid", reasons=["throttled"], unchecked=["cache"])
    other = result.model_copy(update={"concurrency": 4, "validity": bad})
    union = record.model_copy(update={"results": [result, other], "validity": bad})
    assert [(f.kind, f.code, f.where) for f in findings(union)] == [
        ("invalid", "throttled", "chat × 4"),
        ("unchecked", "cache", "chat × 4"),
    ]
    everywhere = record.model_copy(
        update={"results": [result.model_copy(update={"validity": bad})], "validity": bad}
    )
    assert [f.where for f in findings(everywhere)] == ["", ""]


def test_an_unknown_code_is_shown_and_not_guessed() -> None:
    odd = Validity(verdict="invalid", reasons=["from_the_future"])
    (finding,) = findings(a_record(validity=odd, results=[]))
    assert finding.meaning == "not known to this tokrig"


def leaves(model: BaseModel) -> Iterator[str]:
    """The names of all fields that hold plain values, wherever they stand."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        many = value if isinstance(value, list) else [value]
        if many and all(isinstance(item, BaseModel) for item in many):
            for item in many:
                yield from leaves(item)
        else:
            yield field.alias or name


def test_every_field_is_listed_and_what_is_not_known_says_so() -> None:
    record = full_record()
    listed = [
        part
        for block in blocks(record)
        for field in block.fields
        for part in (*re.split(r"[. ]", field.name), *re.findall(r"\w+", field.text))
    ]
    assert [name for name in leaves(record) if name not in listed] == []
    model = {f.name: f for block in blocks(record) if block.title == "model" for f in block.fields}
    assert model["quant"].text == "Q4_K_M"
    assert (model["license"].text, model["license"].known) == ("not known", False)


def test_values_are_readable() -> None:
    fields = {f.name: f.text for block in blocks(full_record()) for f in block.fields}
    assert fields["gpus 1.vram_bytes"] == "12884901888 (12.9 GB)"
    assert fields["finish_reasons"] == "length: 1"
    figure = "median 99.5, min 90.0, max 110.0, n 60, ci95 98.4 – 101.0"
    assert fields["output_tok_per_s"].startswith(figure)
    assert fields["notes"] == "a note"
    assert {f.name: f.text for f in blocks(a_record())[0].fields}["failure"] == "none"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_texts_stay_texts(text: str, tmp_path: Path) -> None:
    record = full_record()
    fields = {"family": text, "variant": text, "quant": text, "file": text, "license": text}
    (result,) = record.results
    workload = result.workload.model_copy(update={"name": text, "content_hash": text})
    hostile = record.model_copy(
        update={
            "model": record.model.model_copy(update=fields),
            "backend": record.backend.model_copy(
                update={"engine": text, "argv": [text], "env": {text: text}}
            ),
            "mode": record.mode.model_copy(update={"name": text}),
            "results": [result.model_copy(update={"workload": workload})],
            "errata": [Erratum(date=text, field=text, text=text)],
            "failure": Failure(code=text, message=text, log_tail=text),
            "notes": text,
            "validity": Validity(verdict="invalid", reasons=[text]),
        }
    )
    page = page_of(tmp_path, hostile, [sample(workload=text)])
    assert text in page.text
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    scripts = [attrs.get("src") for tag, attrs in page.tags if tag == "script"]
    assert all(src and src.startswith("../assets/") for src in scripts)


def test_headings_descend_and_tables_have_captions_and_scopes(tmp_path: Path) -> None:
    tags = page_of(tmp_path, full_record(), [sample()]).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table") > 1
    assert all("scope" in attrs for tag, attrs in tags if tag == "th")
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_the_key_follows_record_and_samples(tmp_path: Path) -> None:
    def key(digest: str, samples_digest: str | None) -> str:
        run = Run(a_record(), "x/y.yaml", digest, samples_digest)
        site = Site(Store(tmp_path), (run,), families={}, rigs={}, redirects={})
        (output,) = PAGE(site)
        return output.key

    assert len({key("a", None), key("b", None), key("a", "s"), key("a", "t")}) == 4
