"""All figures as Parquet, one row a result: the site's own file."""

from __future__ import annotations

from tokrig.exchange.exports import Export, Exported
from tokrig.store import table

EXPORT = Export(
    "one row a result, every column, typed, for programs",
    (".parquet",),
    lambda runs, samples: Exported(table.to_parquet(table.flat_rows(runs))),
    text=False,
)
