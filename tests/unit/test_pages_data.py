"""Data, raw files, feed, methodology: what they hold is what the records say, safely."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from tests.unit.compared import speculating, with_value
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record.block import Summary
from tokrig.record.metrics import METRICS
from tokrig.record.model import (
    BackendFacts,
    Erratum,
    Gpu,
    Greedy,
    LoadMemory,
    Mode,
    Record,
    Resolved,
    Result,
    Speculative,
    Validity,
)
from tokrig.site import Output
from tokrig.site.context import Site, definitions, methodology
from tokrig.site.pages import downloads, feed
from tokrig.site.pages import methodology as methodology_page
from tokrig.store import Store, table
from tokrig.store.load import Run, load

ROOT = Path(__file__).parents[2]
ATOM = "{http://www.w3.org/2005/Atom}"
HOSTILE = "</title><script>alert(1)</script> & \"'\x00\x1b\ufffe\u202e"


def a_run(run_id: str = "20261122-120000-tiny-aaaa", **changes: Any) -> Run:
    record = record_of([sample()], run_id).model_copy(update=changes)
    return Run(record, f"{record.rig.id}/{record.id}.yaml", f"digest of {record.id}")


def site_of(runs: Sequence[Run], folder: Path = Path("nowhere")) -> Site:
    return Site(Store(folder), tuple(runs), families={}, rigs={}, redirects={})


def outputs(page: Any, site: Site) -> dict[str, Output]:
    return {output.path: output for output in page.PAGE(site)}


def of_model(record: Record, **changes: Any) -> dict[str, Any]:
    return {"model": record.model.model_copy(update=changes)}


# The table


def as_objects(runs: Sequence[Run]) -> list[dict[str, Any]]:
    found = json.loads(table.to_json(table.flat_rows(runs)))
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def as_parquet(rows: Sequence[Sequence[table.Value]]) -> list[dict[str, Any]]:
    import importlib

    read = importlib.import_module("pyarrow.parquet").read_table(
        io.BytesIO(table.to_parquet(rows)), use_threads=False
    )
    found: list[dict[str, Any]] = read.to_pylist()
    return found


def as_csv(runs: Sequence[Run]) -> list[dict[str, str]]:
    text = table.to_csv(table.flat_rows(runs)).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_real_records_come_out_as_they_went_in(tmp_path: Path) -> None:
    runs = load(Store(ROOT / "content"), cache=tmp_path).runs
    results = [(run, result) for run in runs for result in run.record.results]
    rows = list(table.flat_rows(runs))
    objects = as_objects(runs)
    assert len(objects) == len(results) > 40
    assert as_parquet(rows) == objects
    for (run, result), row in zip(results, objects, strict=True):
        assert (row["run_id"], row["family"]) == (run.id, run.record.model.family)
        assert row["workload"] == result.workload.name
        assert row["concurrency"] == result.concurrency
        speed = result.output_tok_per_s
        assert speed is not None
        assert row["output_tok_per_s_median"] == speed.median
        assert row["output_tok_per_s_min"] == speed.min
        assert row["output_tok_per_s_ci95_low"] is None
        assert row["verdict"] == result.validity.word
        assert row["unchecked"] == " ".join(result.validity.unchecked)
        assert row["errata"] == len(run.record.errata)


def test_every_file_has_the_same_figures(tmp_path: Path) -> None:
    runs = load(Store(ROOT / "content"), cache=tmp_path).runs
    for cells, row in zip(as_csv(runs), as_objects(runs), strict=True):
        for column in table.COLUMNS:
            value, cell = row[column.name], cells[column.name]
            if value is None or value == "":
                assert cell == ""
            elif column.kind == "boolean":
                assert cell == str(value).lower()
            elif column.kind == "text":
                assert cell == value
            else:
                assert float(cell) == value


def test_no_metric_of_a_result_is_left_out() -> None:
    fields = Result.model_fields.items()
    metrics = {name for name, field in fields if Summary in get_args(field.annotation)}
    assert set(table.SUMMARIES) == metrics


def test_names_of_columns_are_words_and_each_is_there_once() -> None:
    names = [column.name for column in table.COLUMNS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert all(column.text for column in table.COLUMNS)


def test_an_interval_and_a_card() -> None:
    run = a_run()
    (result,) = run.record.results
    metric = Summary(median=10.5, min=9.0, max=12.0, n=18, ci95=(10.0, 11.0))
    gpu = Gpu(name="NVIDIA GeForce RTX 5070", vendor="nvidia", power_limit_w=250.0)
    changed = run.record.model_copy(
        update={
            "results": [result.model_copy(update={"output_tok_per_s": metric})],
            "rig": run.record.rig.model_copy(update={"gpus": [gpu, gpu]}),
        }
    )
    (row,) = as_objects([Run(changed, run.path, "d")])
    endings = ("median", "min", "max", "n", "ci95_low", "ci95_high")
    found = [row[f"output_tok_per_s_{ending}"] for ending in endings]
    assert found == [10.5, 9.0, 12.0, 18, 10.0, 11.0]
    assert (row["gpus"], row["gpu"], row["gpu_power_limit_w"]) == (2, "GeForce RTX 5070", 250.0)


def test_what_was_asked_and_what_came_of_it_are_columns_of_their_own() -> None:
    record = speculating(40, 50, 60, draft_tokens=5, reasoning_asked="off")
    changes = {
        "backend.api_asked": "vulkan",
        "backend.wrapper": "lemonade 11.7.0",
        "backend.resolved.dtype": "bfloat16",
        "backend.resolved.prefix_caching": False,
        "model.base_model": "owner/base",
        "load_memory": LoadMemory(gpu_before_bytes=1, gpu_after_bytes=9),
    }
    for path, value in changes.items():
        record = with_value(record, path, value)
    greedy = Greedy(compared_characters=400, same=False, first_divergence_tokens=31)
    results = [one.model_copy(update={"greedy": greedy}) for one in record.results]
    rows = as_objects([Run(with_value(record, "results", results), "a/b.yaml", "d")])
    assert [row["accepted_tokens"] for row in rows] == [40, 50, 60]
    told: dict[str, Any] = {
        "api": "cuda",
        "api_asked": "vulkan",
        "wrapper": "lemonade 11.7.0",
        "dtype": "bfloat16",
        "prefix_caching": False,
        "base_model": "owner/base",
        "mode": "ngram",
        "speculative": "ngram",
        "draft_model": None,
        "draft_tokens": 5,
        "reasoning_asked": "off",
        "drafted_tokens": 100,
        "acceptance_length": None,
        "greedy_same": False,
        "greedy_first_divergence_tokens": 31,
        "greedy_first_divergence_characters": None,
        "load_gpu_before_bytes": 1,
        "load_gpu_after_bytes": 9,
        "load_vram_bytes": None,
    }
    assert rows[0] == rows[0] | told
    (bare,) = as_objects([a_run()])
    absent = ("greedy_same", "load_gpu_after_bytes", "draft_tokens", "accepted_tokens", "wrapper")
    assert {bare[name] for name in absent} == {None}


@pytest.mark.parametrize("block", [Mode, Speculative, Greedy, LoadMemory, BackendFacts, Resolved])
def test_no_field_of_these_blocks_is_forgotten(block: type[BaseModel]) -> None:
    """What has keys of its own, or one value a device or a flag, stays in the record."""
    kept = {"argv", "env", "resolved", "managed", "device_bytes", "cpu_features"}
    kept |= {"looked_up_bytes", "spilled", "doubt", "asked", "prompting"}
    kept |= {"chat_template", "threads_batch", "layers"}
    groups = (*table.OF_RUN, *table.OF_SETTINGS, *table.OF_LOAD, *table.OF_RESULT, *table.OPTIONAL)
    exported = {column.source.rpartition(".")[2] for column in groups}
    assert set(block.model_fields) - exported == set(block.model_fields) & kept


def test_reasons_stand_beside_the_verdict() -> None:
    run = a_run()
    (result,) = run.record.results
    validity = Validity(verdict="invalid", reasons=["throttled", "cached_tokens"])
    changed = [result.model_copy(update={"validity": validity})]
    (row,) = as_objects([a_run(results=changed)])
    assert (row["verdict"], row["invalid_because"]) == ("invalid", "throttled cached_tokens")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_spreadsheet_finds_no_formula_in_a_text(begin: str) -> None:
    text = f'{begin}HYPERLINK("https://example.org","x"),\r\n"'
    run = a_run(**of_model(a_run().record, quant=text))
    (cells,) = as_csv([run])
    assert cells["quant"] == f"'{text}"
    (row,) = as_objects([run])
    assert row["quant"] == text
    assert as_parquet(list(table.flat_rows([run])))[0]["quant"] == text


def test_negative_numbers_stay_numbers() -> None:
    run = a_run()
    (result,) = run.record.results
    server = result.server
    assert server
    slower = result.model_copy(update={"server": server.model_copy(update={"difference": -0.25})})
    (cells,) = as_csv([a_run(results=[slower])])
    assert cells["server_difference"] == "-0.25"


def test_what_a_format_cannot_hold_does_not_stop_it() -> None:
    run = a_run(**of_model(a_run().record, quant="\ud800", parameters=10**30))
    (row,) = as_parquet(list(table.flat_rows([run])))
    assert (row["quant"], row["parameters"]) == ("?", None)
    assert as_objects([run])[0]["parameters"] == 10**30
    assert as_csv([run])[0]["quant"] == "?"


def test_no_runs_are_an_empty_table() -> None:
    assert as_objects([]) == []
    assert as_csv([]) == []
    assert as_parquet([]) == []
    header = table.to_csv([]).decode()
    assert header.startswith("run_id,page,yaml,samples,")
    assert header.endswith("\r\n")


def test_the_same_rows_are_the_same_bytes() -> None:
    rows = list(table.flat_rows([a_run(), a_run("20261122-130000-tiny-bbbb")]))
    for made in (table.to_csv, table.to_json, table.to_parquet):
        assert made(rows) == made(rows)


# The page of the data, and the raw files


def test_the_data_page_explains_every_column_and_leads_to_every_file() -> None:
    site = site_of([a_run()])
    made = outputs(downloads, site)
    page = made["data.html"].render().decode()
    groups = (
        table.ADDRESSES,
        table.OF_RUN,
        table.OF_SETTINGS,
        table.OF_LOAD,
        table.OF_RESULT,
        table.OPTIONAL,
        table.OF_QUALITY,
    )
    for column in (column for group in groups for column in group):
        assert f"<code>{column.name}</code>" in page
    for metric in table.SUMMARIES:
        assert f"<code>{metric}</code>" in page
    for path in made:
        own = path == "data.html" or path.startswith(("data/runs/", "data/samples/"))
        assert own or f'href="{path}"' in page
    schema = (ROOT / "docs" / "record.schema.json").read_bytes()
    assert made["data/record.schema.json"].render() == schema


def test_data_is_made_again_when_a_record_or_its_samples_come_and_go() -> None:
    run = a_run()
    with_samples = Run(run.record, run.path, run.digest, "1-1")
    changed = Run(run.record, run.path, "another digest")
    keys = {
        outputs(downloads, site_of(runs))["data/results.csv"].key
        for runs in ([], [run], [with_samples], [changed], [run, a_run("other")])
    }
    assert len(keys) == 5


def test_raw_files_are_the_very_bytes(tmp_path: Path) -> None:
    content = ROOT / "content"
    loaded = load(Store(content), cache=tmp_path)
    made = {
        path: output
        for path, output in outputs(downloads, site_of(loaded.runs, content)).items()
        if path.startswith(("data/runs/", "data/samples/"))
    }
    rows = as_objects(loaded.runs)
    assert {row["yaml"] for row in rows} | {row["samples"] for row in rows} - {None} == set(made)
    for path, output in made.items():
        file = content / "benchmarks" / path.removeprefix("data/")
        assert output.render() == file.read_bytes()


# The feed


def entries(*runs: Run) -> list[ET.Element]:
    (output,) = feed.PAGE(site_of(runs))
    root = ET.fromstring(output.render())
    for needed in ("id", "title", "updated", f"author/{ATOM}name"):
        assert root.find(f"{ATOM}{needed}") is not None
    found = root.findall(f"{ATOM}entry")
    newest = root.findtext(f"{ATOM}updated")
    assert newest == (found[0].findtext(f"{ATOM}updated") if found else feed.NEVER)
    return found


def dated(number: int, started_at: str | None, **changes: Any) -> Run:
    run = a_run(f"run-{number:03}", **changes)
    provenance = run.record.provenance.model_copy(update={"started_at": started_at})
    return a_run(run.id, provenance=provenance, **changes)


def test_the_feed_has_the_newest_runs_first() -> None:
    runs = [dated(n, f"2026-11-{1 + n % 28:02}T12:{n:02}:00+02:00") for n in range(60)]
    found = entries(*runs)
    assert len(found) == feed.MOST_ENTRIES
    times = [entry.findtext(f"{ATOM}updated") or "" for entry in found]
    assert times == sorted(times, reverse=True)
    assert times[0] == "2026-11-28T10:55:00Z"
    assert len({entry.findtext(f"{ATOM}id") for entry in found}) == len(found)


def test_an_entry_says_what_was_measured_and_leads_there() -> None:
    (entry,) = entries(dated(1, "2026-11-22T18:31:11Z"))
    assert entry.findtext(f"{ATOM}id") == "urn:tokrig:run:run-001"
    assert entry.findtext(f"{ATOM}published") == "2026-11-22T18:31:11Z"
    link = entry.find(f"{ATOM}link")
    assert link is not None
    assert link.get("href") == "runs/run-001.html"
    summary = entry.findtext(f"{ATOM}summary") or ""
    assert "tok/s at concurrency 1 (chat)" in summary
    assert "llama.cpp (cpu)" in summary


def test_no_date_is_invented() -> None:
    erratum = Erratum(date="2026-11-23", field="backend.api", text="It was Vulkan.")
    undated = [dated(1, None), dated(2, "yesterday"), dated(3, "0001-01-01T00:00:00+14:00")]
    (entry,) = entries(*undated, dated(4, None, errata=[erratum]))
    assert entry.findtext(f"{ATOM}updated") == "2026-11-23T00:00:00Z"
    assert entry.find(f"{ATOM}published") is None
    assert entries(*undated) == []


def test_a_hostile_name_is_text_in_the_feed() -> None:
    model = of_model(a_run().record, family=HOSTILE, variant=None)
    (entry,) = entries(dated(1, "2026-11-22", **model))
    title = entry.findtext(f"{ATOM}title") or ""
    assert "</title><script>alert(1)</script> & \"'\ufffd\ufffd\ufffd\u202e" in title


def test_a_run_without_a_valid_result_says_so() -> None:
    (entry,) = entries(dated(1, "2026-11-22", results=[], status="failed"))
    assert "no valid result; failed" in (entry.findtext(f"{ATOM}summary") or "")


# The methodology


@pytest.fixture(scope="module")
def page() -> str:
    (output,) = methodology_page.PAGE(site_of([]))
    return output.render().decode()


def test_every_term_has_an_anchor(page: str) -> None:
    for key, definition in definitions().items():
        assert re.search(rf'<tr id="{key}">\s*<th scope="row">{re.escape(definition.label)}<', page)


def test_every_id_is_there_once_and_every_link_inside_leads_to_one(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    inside = re.findall(r'href="#([^"]+)"', page)
    assert len(inside) > 10
    assert set(inside) <= set(ids)


def test_the_contents_are_the_sections_of_the_document(page: str) -> None:
    sections = re.findall(r"^## (.+)$", methodology(), re.MULTILINE)
    listed = page.partition('class="contents"')[2].partition("</ul>")[0]
    assert re.findall(r">([^<]+)</a>", listed) == sections
    assert page.count("<h1") == 1


def test_nothing_of_the_repository_is_linked_and_no_comment_is_shown(page: str) -> None:
    assert "CHANGELOG.md" not in page
    assert "section of the changelog," in page
    assert "&lt;!--" not in page
    assert "<code>&lt;think&gt;…&lt;/think&gt;</code>" in page


def test_tables_scroll_by_themselves_and_say_what_heads_what(page: str) -> None:
    body = page.partition("<main")[2].partition("</main>")[0]
    tables = body.count("<table>")
    assert tables == body.count('role="region"') >= 6
    labels = re.findall(r'role="region" aria-label="([^"]+)"', body)
    assert len(set(labels)) == len(labels)
    heads = re.findall(r"<th\b[^>]*>", body)
    assert all("scope=" in head for head in heads)
    for first, second in pairwise(re.findall(r"<tr[^>]*>|<t[hd][^>]*>", body)):
        assert not first.startswith("<tr") or second.startswith("<th")


def test_figures_are_told_in_plain_words_first() -> None:
    """Every figure that a table of the pages shows; the words lead to a term there is."""
    plain = {key for key, term in definitions().items() if term.plain}
    shown = {name for name, metric in METRICS.items() if "table" in metric.shown}
    assert shown and shown <= plain
    for key in plain:
        term = definitions()[key]
        assert term.tip.startswith(f"{term.plain}\nExactly: {term.text}")
        assert term.plain[:1].isupper() and term.plain.endswith(".")
