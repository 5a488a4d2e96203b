"""Samples dropped on the page: their figures are Python's, beside what the record says; what is
damaged is refused in words.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page

from tests.browser.conftest import ROOT, OpenPage
from tests.browser.test_dropped import FIRST, OWN, drop
from tests.unit.samples import sample
from tokrig.record import samples_file
from tokrig.record.metrics import figures
from tokrig.record.model import Record, parse_record
from tokrig.record.samples import Cell, Chunk, EngineTimings, Kind, Sample
from tokrig.record.samples_file import from_parquet, to_parquet

SAMPLES = ROOT / "content" / "benchmarks" / "samples"
FIGURES = "ttft_s tpot_s output_tok_per_s end_to_end_tok_per_s requests request_errors".split()
SMALL = min(SAMPLES.glob("*.parquet"), key=lambda path: path.stat().st_size)


@pytest.fixture
def page(site_dir: Path, open_page: OpenPage) -> Page:
    return open_page(f"{site_dir.as_uri()}/add.html")


READ = """async (files) => {
  const found = [];
  for (const bytes of files) {
    const file = new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], "it.parquet");
    try {
      found.push(await tokrig.records.samplesOf(file, file.name));
    } catch (problem) {
      const isRefused = problem instanceof tokrig.records.Refused;
      found.push(isRefused ? problem.message : `BROKEN ${problem.stack}`);
    }
  }
  return found;
}"""
GIVEN = "(all) => all.map(([cell, said]) => tokrig.samples.given(cell, said))"


def read(page: Page, *files: bytes) -> Any:
    return page.evaluate(READ, [base64.b64encode(one).decode() for one in files])


def check(
    page: Page, samples: list[Sample], cells: Any, said: Callable[[Cell], tuple[int, Any]]
) -> int:
    """Every cell has Python's figures under the methodology and the counters that are said of it;
    how many decode rates there are."""
    of: dict[Cell, list[Sample]] = {}
    for one in samples:
        of.setdefault(one.cell, []).append(one)
    results = [dict(zip(("methodology", "counters"), said(cell), strict=True)) for cell in of]
    given = page.evaluate(GIVEN, list(map(list, zip(cells, results, strict=True))))
    rates = 0
    for (cell, mine), told, theirs in zip(of.items(), results, given, strict=True):
        again = figures(mine, told["counters"], methodology=told["methodology"])
        ours = [getattr(again[name], "median", again[name]) for name in FIGURES]
        assert [theirs[name] for name in FIGURES] == ours, (cell, told)
        assert theirs["label"] == cell.label
        assert theirs["warmup"] == sum(one.phase == "warmup" for one in mine)
        rates += again["output_tok_per_s"] is not None
    return rates


def test_the_figures_of_every_published_run_are_pythons(page: Page) -> None:
    paths = sorted(SAMPLES.glob("*.parquet"))
    for path, cells in zip(paths, read(page, *(one.read_bytes() for one in paths)), strict=True):
        record = parse_record(next(one for one in OWN if one.stem == path.stem).read_text(), "it")
        version = record.provenance.methodology or 1
        said = {result.cell: (version, result.counters or {}) for result in record.results}
        assert check(page, from_parquet(path.read_bytes(), "it"), cells, said.__getitem__) > 0


def stream(chance: random.Random, tokens: int) -> tuple[tuple[Chunk, ...], int, int, int]:
    """Chunks of an answer: one by one, in bursts, in steps of speculation, by a timer or with a
    stall; how many tokens came with the first and the last burst, and in how many bursts."""
    form = chance.choice(["each", "bursts", "steps", "timer", "timed steps", "stall"])
    sizes = [1] * tokens
    if form in ("bursts", "steps", "timed steps"):
        size = chance.randint(2, 5)
        sizes = [size if form == "bursts" else chance.randint(1, size) for _ in sizes]
    while sum(sizes) > tokens:
        sizes.pop()
    sizes += [1] * (tokens - sum(sizes))
    spread = chance.choice([0, 0.001, 0.02, 0.1, 0.3, 0.6])
    waits = [8e6 * chance.uniform(1, 1 + spread) for _ in sizes]
    if form.startswith("timed") or form == "timer":
        odd = chance.choice([0, 0.05, 0.2])
        waits = [wait + 8e6 * (chance.random() < odd) for wait in waits]
    if form == "stall":
        waits[len(waits) // 2] *= chance.uniform(2, tokens / 2 + 2)
    texts = iter([chance.choice(["x", "é🙂", " and", ""]) for _ in range(tokens)])
    chunks = []
    for end_ns, size in zip(accumulate(waits), sizes, strict=True):
        chunks += [Chunk(round(2e8 + end_ns) + at, Kind.CONTENT, next(texts)) for at in range(size)]
    if form == "stall":  # what was held back may come at once
        held = len(chunks) // 2
        text = "🙂" * chance.choice([1, tokens // 8, tokens // 3, tokens])
        chunks[held] = replace(chunks[held], text=text)
    return tuple(chunks), sizes[0], sizes[-1], len(sizes)


def request(chance: random.Random, **cell: Any) -> Sample:
    tokens = chance.choice([1, 2, 9, 20, 60, 150, 300])
    chunks, first, last, steps = stream(chance, tokens)
    decode_ms = (chunks[-1].t_ns - chunks[0].t_ns) / 1e6 * chance.choice([1, 1, 1.004, 1.1])
    counts_first = chance.random() < 0.5
    others = chance.choice([0, 0, 1, 3])
    timed = tokens - first + others
    decode_ms *= max(timed, 1) / max(tokens - first, 1)
    return replace(
        sample(),
        **cell,
        chunks=chance.choice([chunks] * 19 + [()]),
        phase="measured" if chance.random() < 0.8 else "warmup",
        output_tokens=chance.choice([tokens] * 19 + [None]),
        first_chunk_tokens=chance.choice([first] * 19 + [None]),
        last_chunk_tokens=last,
        hidden_tokens=chance.choice([0] * 5 + [2, None]),
        count_disagreement=chance.choice([None, 0.0, 0.0, 0.004, 0.3]),
        accepted_tokens=chance.choice([None, tokens - steps, tokens // 3]),
        counted_by=chance.choice(["each_chunk", "engine_clock"]),
        timings=chance.choice(
            [None, EngineTimings(9, 90.0, timed + counts_first, decode_ms, counts_first)]
        ),
        error=chance.choice([None] * 9 + ["timeout"]),
    )


def made(chance: random.Random) -> Iterator[Sample]:
    """Requests of every kind, a few of each cell."""
    for number in range(480):
        load = chance.choice(["closed", "closed", "session", "poisson"])
        for at in range(chance.choice([1, 1, 1, 6])):
            yield request(
                chance,
                workload=f"shape {number}",
                concurrency=1 + 3 * (number % 2),
                repeat=at % 3,
                load=load,
                depth_tokens=4096 * (number % 3),
                rate_per_s=0.25 if load == "poisson" else None,
                due_ns=5 if load == "poisson" else None,
            )


def test_the_figures_of_streams_of_every_kind_are_pythons(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_file, "GROUP_CHUNKS", 4096)
    samples = list(made(random.Random(14)))
    data = to_parquet(samples)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups > 2
    (cells,) = read(page, data)
    sums = {"requests": 2.0, "output_tokens": 60.0, "decode_s": 0.464}
    told = check(page, samples, cells, lambda _: (2, {}))
    confirmed = check(page, samples, cells, lambda _: (2, sums))
    first = check(page, samples, cells, lambda _: (1, {}))
    assert 20 < told <= confirmed < first, "some rates are left open"


def test_an_engines_sums_confirm_rates_as_in_python(page: Page) -> None:
    chunks = [Chunk(round(2e8 + at // 5 * 5e7), Kind.CONTENT, "x") for at in range(60)]
    one = replace(
        sample(), chunks=tuple(chunks), output_tokens=60, first_chunk_tokens=5, timings=None
    )
    samples = [replace(one, last_chunk_tokens=5, iteration=number) for number in range(3)]
    (cells,) = read(page, to_parquet(samples))
    sums = {"requests": 3.0, "output_tokens": 168.0, "decode_s": 1.65}
    assert check(page, samples, cells, lambda _: (2, {})) == 0
    assert check(page, samples, cells, lambda _: (2, sums)) == 1


# Damaged, and other files


def with_schema(data: bytes, **changes: Any) -> bytes:
    """The same table with other metadata, or without a column."""
    table, sink = pq.read_table(io.BytesIO(data)), pa.BufferOutputStream()
    if "without" in changes:
        table = table.drop_columns([changes["without"]])
    if "metadata" in changes:
        table = table.replace_schema_metadata(changes["metadata"])
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def test_what_is_damaged_is_refused_and_never_read_as_another_figure(page: Page) -> None:
    data, chance = SMALL.read_bytes(), random.Random(14)
    given = [data[: max(len(data) * part // 20, 4)] for part in range(20)]
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for number in range(160):
        at = chance.randrange(4, footer) if number % 2 else chance.randrange(footer, len(data))
        flipped = data[at] ^ (1 << chance.randrange(8))
        given.append(data[:at] + bytes([flipped]) + data[at + 1 :])
    whole, *found = read(page, data, *given)
    assert all(isinstance(one, str) for one in found[:20])
    for one in found:
        refused = isinstance(one, str) and one.startswith("it.parquet: ")
        assert refused or one == whole, one
    assert 40 < sum(one == whole for one in found) < 150, "of statistics that nobody reads"


def test_other_files_are_refused_in_words(page: Page, site_dir: Path) -> None:
    data = SMALL.read_bytes()
    results = (site_dir / "data" / "results.parquet").read_bytes()
    many = [replace(sample(), workload=str(number)) for number in range(501)]
    odd = replace(sample(), phase="cold")  # type: ignore[arg-type]
    cases = [
        (results, "no samples of tokrig"),
        (with_schema(data, metadata={"tokrig_samples": "99"}), "newer tokrig"),
        (with_schema(data, metadata={"tokrig_samples": "<b>"}), "no samples of tokrig"),
        (with_schema(data, without="output_tokens"), "output_tokens is missing"),
        (to_parquet([]), "samples of no request"),
        (to_parquet(many), "more shapes than a run has"),
        (to_parquet([odd]), "damaged or not whole"),
    ]
    for (_, says), told in zip(cases, read(page, *(one for one, _ in cases)), strict=True):
        assert says in told
    huge = "new File(['PAR1', new Uint8Array(7e7)], 'huge.parquet')"
    told = page.evaluate(f"tokrig.dropped.add({huge}).catch(({{ message }}) => message)")
    assert "more than a file of results has" in told
    assert page.locator("#dropped li").count() == 0


# Beside a record


def altered(record: Record) -> list[Sample]:
    """The record's samples, those of one shape a tenth later."""
    samples = from_parquet((SAMPLES / f"{record.id}.parquet").read_bytes(), "it")
    return [
        replace(one, chunks=[replace(c, t_ns=c.t_ns * 11 // 10) for c in one.chunks])
        if one.workload == "rag"
        else one
        for one in samples
    ]


def test_samples_stand_beside_what_the_record_says(site_dir: Path, open_page: OpenPage) -> None:
    page = open_page(f"{site_dir.as_uri()}/index.html")
    assert page.evaluate("typeof hyparquet + typeof fzstd") == "undefinedundefined"
    record = parse_record(FIRST.read_text("utf-8"), "it")
    own = (SAMPLES / f"{record.id}.parquet").read_bytes()
    items = page.locator("#dropped li")
    assert "1 file of samples read" in drop(page, (f"{record.id}.parquet", own))
    items.first.wait_for()
    marks = items.locator(".mark").all_inner_texts()
    assert marks == ["your file", "samples"]
    assert "every figure that it has follows" in items.inner_text()
    assert items.get_by_role("cell", name="agrees").count() == len(record.results)
    ttft = record.results[0].ttft_s
    assert ttft is not None
    assert f"{ttft.median:g}\nrecord" in items.locator("tbody tr").first.inner_text()

    drop(page, (f"{record.id}.parquet", to_parquet(altered(record))))
    page.wait_for_function("document.querySelector('#dropped').textContent.includes('differs')")
    assert items.count() == 1
    assert "1 row of 5 not as these samples give" in items.inner_text()
    differing = items.locator("tr", has=page.get_by_role("cell", name="differs", exact=True))
    assert differing.count() == 1 and "rag" in differing.inner_text()

    page.goto(f"{site_dir.as_uri()}/add.html")
    items.first.wait_for()
    drop(page, (FIRST.name, FIRST.read_bytes()), ("mine.parquet", SMALL.read_bytes()))
    page.wait_for_function("document.querySelectorAll('#dropped table').length === 2")
    beside, alone = items.filter(has=page.locator("table")).all()
    assert "Held against your record" in beside.inner_text()
    assert "never valid" in alone.inner_text()
    page.get_by_role("button", name="Remove mine.parquet").click()
    page.wait_for_function("document.querySelectorAll('#dropped table').length === 1")
