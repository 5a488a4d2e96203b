"""All rows as CSV, JSON and Parquet, the schema of records, and the page that explains them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tokrig.query import export
from tokrig.record.schema import schema_text
from tokrig.site import Output
from tokrig.site.context import Site, key_of


@dataclass(frozen=True)
class File:
    """A file to download: its address, its size in bytes, what is in it."""

    path: str
    size: int
    text: str


class _Table:
    """All rows and what they are as files, each made once, when somebody asks."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @cached_property
    def rows(self) -> list[tuple[export.Value, ...]]:
        return list(export.flat_rows(self._site.runs))

    @cached_property
    def csv(self) -> bytes:
        return export.to_csv(self.rows)

    @cached_property
    def json(self) -> bytes:
        return export.to_json(self.rows)

    @cached_property
    def parquet(self) -> bytes:
        return export.to_parquet(self.rows)


class Data:
    """``data.html``, ``data/results.*`` and ``data/record.schema.json``."""

    name = "data"

    def outputs(self, site: Site) -> Iterable[Output]:
        """The three files of one table, the schema, and the page."""
        table = _Table(site)
        key = key_of([(run.path, run.digest, bool(run.samples_digest)) for run in site.runs])
        yield Output("data/results.csv", key, lambda: table.csv)
        yield Output("data/results.json", key, lambda: table.json)
        yield Output("data/results.parquet", key, lambda: table.parquet)
        schema = schema_text()
        yield Output("data/record.schema.json", key_of(schema), schema.encode)
        yield Output("data.html", key, lambda: _page(site, table))


def _page(site: Site, table: _Table) -> bytes:
    files = [
        File("data/results.parquet", len(table.parquet), "typed columns; read it where you can"),
        File("data/results.csv", len(table.csv), "for spreadsheets; an empty cell is null"),
        File("data/results.json", len(table.json), "names of columns, then one array a row"),
        File("data/record.schema.json", len(schema_text().encode()), "JSON Schema of a record"),
    ]
    return site.page(
        "data.html", "data.html", title="Data", files=files, rows=table.rows, export=export
    )


PAGE = Data()
