"""Downloads: all rows as CSV, JSON and Parquet, the schema, the page that explains them, and every
record with its samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tokrig.record.model import schema_text
from tokrig.site import Output
from tokrig.site.context import Site, definitions, key_of
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
    yield Output("data.html", key, lambda: _page(site, rows()))
    for run in site.runs:
        record = site.store.runs / run.path
        yield Output(f"data/runs/{run.path}", run.digest, record.read_bytes)
        if run.samples_digest:
            samples = site.store.samples_path(run.id)
            yield Output(f"data/samples/{run.id}.parquet", run.samples_digest, samples.read_bytes)
        answers = site.store.answers_path(run.id)
        if run.record.quality is not None and answers.exists():
            yield Output(f"data/quality/{run.id}.parquet", run.digest, answers.read_bytes)


class Line(NamedTuple):
    """A column of the files as the page tells it. ``unit`` is its kind where it has none."""

    name: str
    unit: str
    text: str
    example: str


# Units by the ends of names, the longer ones first.
_UNITS = {
    "_tok_per_s": "tok/s", "_per_s": "per s", "_bytes": "bytes", "_share": "0 … 1", "_w": "W",
    "_j": "J", "_s": "s", "_tokens": "tokens", "_gb": "GB", "_nats": "nats",
}  # fmt: skip
_LONGEST_EXAMPLE = 40


def _page(site: Site, rows: Sequence[tuple[object, ...]]) -> bytes:
    files = [
        File("data/results.parquet", "typed columns; read it where you can"),
        File("data/results.csv", "for spreadsheets; an empty cell is null"),
        File("data/results.json", "names of columns, then one array a row"),
        File("data/record.schema.json", "JSON Schema of a record"),
    ]
    return site.page(
        "data.html", "data.html", title="Data", files=files, results=len(rows), all=table,
        groups=_groups(_examples(rows)),
    )  # fmt: skip


def _groups(examples: Mapping[str, str]) -> dict[str, list[Line]]:
    """The columns by what they are about; of a figure's six the median stands for all."""
    terms = definitions()

    def lines(columns: Iterable[table.Column]) -> list[Line]:
        return [Line(one.name, _unit(one), one.text, examples.get(one.name, "")) for one in columns]

    return {
        "Where to look": lines(table.ADDRESSES),
        "What was measured, on what": lines(table.OF_RUN + table.OF_SETTINGS + table.OF_GPUS),
        "Memory before and after the engine loaded": lines(table.OF_LOAD),
        "Figures, each with six endings": [
            Line(name, terms[name].unit, terms[name].text, examples.get(f"{name}_median", ""))
            for name in table.SUMMARIES
        ],
        "The six endings of a figure": [
            Line(f"_{one.name}", _unit(one), one.text, examples.get(f"ttft_s_{one.name}", ""))
            for one in table.SPREAD
        ],
        "How, and whether it counts": lines(table.OF_RESULT + table.CODES),
        "Where the engine and the probes tell": lines(table.OPTIONAL),
        "Of the model's answers": lines(table.OF_QUALITY),
    }


def _unit(column: table.Column) -> str:
    name = re.sub(r"_(?:median|min|max|n|p\d\d|ci95_low|ci95_high)$", "", column.name)
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), column.kind)


def _examples(rows: Iterable[tuple[object, ...]]) -> dict[str, str]:
    """By column, the first value in the files."""
    left, found = dict(enumerate(table.COLUMNS)), {}
    for row in rows:
        for at in [at for at in left if row[at] not in (None, "")]:
            text = str(row[at])
            long = len(text) > _LONGEST_EXAMPLE
            found[left.pop(at).name] = text[: _LONGEST_EXAMPLE - 1] + "…" if long else text
        if not left:
            break
    return found


PAGE = outputs
