"""Downloads: all rows as CSV, JSON and Parquet, the schema, the page that explains them, and every
record with its samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from tokrig.record.model import schema_text
from tokrig.site import Output
from tokrig.site.context import Site, key_of
from tokrig.store import table


@dataclass(frozen=True)
class File:
    """A file to download: its address, and what is in it."""

    path: str
    text: str


def outputs(site: Site) -> Iterable[Output]:
    """``data.html``, ``data/results.*``, ``data/record.schema.json``; ``data/runs``,
    ``data/samples`` and ``data/quality``, byte by byte as they lie in the content folder."""
    rows = cache(lambda: list(table.flat_rows(site.runs)))
    key = key_of([(run.path, run.digest, bool(run.samples_digest)) for run in site.runs])
    yield Output("data/results.csv", key, lambda: table.to_csv(rows()))
    yield Output("data/results.json", key, lambda: table.to_json(rows()))
    yield Output("data/results.parquet", key, lambda: table.to_parquet(rows()))
    schema = schema_text()
    yield Output("data/record.schema.json", key_of(schema), schema.encode)
    yield Output("data.html", key, lambda: _page(site))
    for run in site.runs:
        record = site.store.runs / run.path
        yield Output(f"data/runs/{run.path}", run.digest, record.read_bytes)
        if run.samples_digest:
            samples = site.store.samples_path(run.id)
            yield Output(f"data/samples/{run.id}.parquet", run.samples_digest, samples.read_bytes)
        answers = site.store.answers_path(run.id)
        if run.record.quality is not None and answers.exists():
            yield Output(f"data/quality/{run.id}.parquet", run.digest, answers.read_bytes)


def _page(site: Site) -> bytes:
    files = [
        File("data/results.parquet", "typed columns; read it where you can"),
        File("data/results.csv", "for spreadsheets; an empty cell is null"),
        File("data/results.json", "names of columns, then one array a row"),
        File("data/record.schema.json", "JSON Schema of a record"),
    ]
    results = sum(len(run.record.results) for run in site.runs)
    return site.page(
        "data.html", "data.html", title="Data", files=files, results=results, all=table
    )


PAGE = outputs
