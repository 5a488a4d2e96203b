"""A record as the YAML people read, and back; its JSON Schema; older schemas.

What is not known is left out; an empty list is left out where it says nothing. What stays
although it is empty is in ``_KEPT``: there, absence could be read as *not looked at*.

``python -m tokrig.record.text [FILE]`` writes the JSON Schema, from the repository root to
``docs/record.schema.json``.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokrig.documents import dump, parse, validate
from tokrig.errors import RecordError
from tokrig.record import SCHEMA_VERSION

# It takes a while to load, and lists of records do without it.
if TYPE_CHECKING:
    from tokrig.record.model import Record

HEADER = """\
# One run {origin}: a served model, its results by workload and concurrency.
# Units stand in the names; a key that is absent was not known. Verify it: tokrig check FILE
"""
ORIGINS = {
    "measured": "as tokrig measured it",
    "transcribed": "as others published it",
    "imported": "as another tool measured it",
}
# Block and field.
_KEPT = {
    *(("Record", "schema_"), ("Record", "results"), ("Record", "mode")),
    *(("Mode", "name"), ("Rig", "gpus")),
}

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {
    # Schema 2 only adds: the third verdict, and fields that an older record leaves out.
    1: lambda data: data,
}
"""Old records stay readable for ever: key ``n`` lifts a record of schema n to n + 1. The step need
not touch ``schema`` itself."""


def record_text(record: Record) -> str:
    """The YAML of a record, as a file under ``content/benchmarks/runs`` holds it."""
    header = HEADER.format(origin=ORIGINS[record.provenance.kind])
    return header + "\n" + dump(_plain(record))


def _plain(value: Any) -> Any:
    """Models as maps without the keys that equal their default; all else as it is."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    fields = getattr(type(value), "model_fields", None)
    if fields is None:
        return value
    plain = {}
    for name, field in fields.items():
        one = getattr(value, name)
        kept = (type(value).__name__, name) in _KEPT
        if kept or one != field.get_default(call_default_factory=True):
            plain[field.alias or name] = _plain(one)
    return plain


def parse_record(text: str, name: str) -> Record:
    """The record in a YAML text; ``name`` (a path) stands in front of every message.

    Raises RecordError with file and line; older schemas are lifted to the present one.
    """
    from tokrig.record.model import Record

    data = parse(text, name, RecordError)
    try:
        data = upgrade(data)
    except RecordError as problem:
        raise RecordError(f"{name}: {problem.message}", hint=problem.hint) from None
    return validate(Record, data, text, name, RecordError)


def upgrade(
    data: dict[str, Any],
    migrations: Mapping[int, Migration] = MIGRATIONS,
    version: int = SCHEMA_VERSION,
) -> dict[str, Any]:
    """``data`` as a record of schema ``version``. The data given are left as they are.

    Raises RecordError when the schema is missing, no whole number, or newer than ``version``.
    """
    if not isinstance(data, dict):
        raise RecordError("a record is a mapping of keys", hint="is this a tokrig record?")
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        shown = f"'schema: {schema!r}' is no schema version" if "schema" in data else "no 'schema'"
        raise RecordError(
            f"{shown} in the record", hint=f"a tokrig record has a line 'schema: {version}'"
        )
    if schema > version:
        raise RecordError(
            f"the record's schema {schema} is newer than this tokrig reads ({version})",
            hint="upgrade tokrig: a newer one wrote this record",
        )
    if schema == version:
        return data
    lifted = copy.deepcopy(data)
    for step in range(schema, version):
        if step not in migrations:
            raise RecordError(f"no migration from schema {step} to {step + 1}")
        lifted = {**migrations[step](lifted), "schema": step + 1}
    return lifted


def schema_text() -> str:
    """The JSON Schema of a record, as the committed file holds it."""
    from tokrig.record.model import Record

    schema = Record.model_json_schema(by_alias=True)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the schema to the file named, or to ``docs/record.schema.json``."""
    path = Path(arguments[0] if arguments else "docs/record.schema.json")
    path.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
