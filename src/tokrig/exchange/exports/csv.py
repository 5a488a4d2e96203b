"""All figures as CSV, one row a result: the site's own file."""

from __future__ import annotations

from tokrig.exchange.exports import Export, Exported
from tokrig.store import table

EXPORT = Export(
    "one row a result, every column, for spreadsheets",
    (".csv",),
    lambda runs, samples: Exported(table.to_csv(table.flat_rows(runs))),
)
