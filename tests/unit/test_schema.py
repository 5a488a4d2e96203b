"""The committed JSON Schema is the one the code gives."""

from __future__ import annotations

import json
from pathlib import Path

from tokrig.record.model import main, schema_text

COMMITTED = Path(__file__).parents[2] / "docs" / "record.schema.json"


def test_the_committed_schema_is_up_to_date() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == schema_text(), (
        "docs/record.schema.json is stale: run python -m tokrig.record.model"
    )


def test_the_schema_names_keys_as_files_do(tmp_path: Path) -> None:
    main([str(tmp_path / "schema.json")])
    schema = json.loads((tmp_path / "schema.json").read_text(encoding="utf-8"))
    assert "schema" in schema["properties"]
    assert "schema_" not in schema["properties"]
    assert schema["additionalProperties"] is False
