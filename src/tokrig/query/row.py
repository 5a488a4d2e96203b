"""``Row``, a named tuple with the columns of the flat files, and its types for type checkers.

``python -m tokrig.query.row`` writes them, from the repository root to
``src/tokrig/query/row.pyi``.
"""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

from tokrig.store.table import COLUMNS

STUB = Path("src/tokrig/query/row.pyi")
_TYPES = {"text": "str", "integer": "int", "number": "float", "boolean": "bool"}
# What every row has: all else may be missing.
_ALWAYS = ("run_id", "rig", "family", "engine", "workload", "concurrency", "verdict", "status")

Row = namedtuple("Row", [column.name for column in COLUMNS])  # type: ignore[misc]
Row.__doc__ = "One result, with the columns of the page's data files; None is not known."


def stub() -> str:
    """The text of row.pyi."""
    fields = [
        f"    {column.name}: {_TYPES[column.kind]}{'' if column.name in _ALWAYS else ' | None'}"
        for column in COLUMNS
    ]
    return "\n".join(
        [
            "# Made by python -m tokrig.query.row: one field a column of store/table.py.",
            "from pathlib import Path",
            "from typing import NamedTuple",
            "",
            "STUB: Path",
            "",
            "class Row(NamedTuple):",
            *fields,
            "",
            "def stub() -> str: ...",
            "",
        ]
    )


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
