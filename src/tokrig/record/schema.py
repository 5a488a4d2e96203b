"""Writes the record's JSON Schema: ``python -m tokrig.record.schema [FILE]``.

The file is committed as ``docs/record.schema.json``; run this from the repository root after a
change of ``record/model.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokrig.record.model import json_schema

DEFAULT = Path("docs/record.schema.json")


def schema_text() -> str:
    """The JSON Schema as the committed file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the schema to the file named, or to ``docs/record.schema.json``."""
    path = Path(arguments[0]) if arguments else DEFAULT
    path.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
