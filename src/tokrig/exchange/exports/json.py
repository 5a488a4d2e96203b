"""All figures as JSON, names of columns and one array a row: the site's own file."""

from __future__ import annotations

from tokrig.exchange.exports import Export, Exported
from tokrig.store import table

EXPORT = Export(
    "names of columns, then one array a result",
    (".json",),
    lambda runs, samples: Exported(table.to_json(table.flat_rows(runs))),
)
