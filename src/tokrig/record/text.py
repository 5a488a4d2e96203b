"""A record as the YAML people read, and back.

What is not known is left out; an empty list is left out where it says nothing. What stays
although it is empty is in ``_KEPT``: there, absence could be read as *not looked at*.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tokrig.documents import dump, parse, validate
from tokrig.errors import RecordError
from tokrig.record.migrate import upgrade
from tokrig.record.model import Mode, Record, Rig

HEADER = """\
# One run {origin}: a served model, its results by workload and concurrency.
# Units stand in the names; a key that is absent was not known. Verify it: tokrig check FILE
"""
ORIGINS = {
    "measured": "as tokrig measured it",
    "transcribed": "as others published it",
    "imported": "as another tool measured it",
}

_KEPT = {
    (Record, "schema_"),
    (Record, "results"),
    (Record, "mode"),
    (Mode, "name"),
    (Rig, "gpus"),
}


def record_text(record: Record) -> str:
    """The YAML of a record, as a file under ``content/benchmarks/runs`` holds it."""
    header = HEADER.format(origin=ORIGINS[record.provenance.kind])
    return header + "\n" + dump(_plain(record), spaced=True)


def parse_record(text: str, name: str) -> Record:
    """The record in a YAML text; ``name`` (a path) stands in front of every message.

    Raises RecordError with file and line; older schemas are lifted to the present one.
    """
    data = parse(text, name, RecordError)
    try:
        data = upgrade(data)
    except RecordError as problem:
        raise RecordError(f"{name}: {problem.message}", hint=problem.hint) from None
    return validate(Record, data, text, name, RecordError)


def _plain(value: Any) -> Any:
    """Models as maps without the keys that equal their default; all else as it is."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if not isinstance(value, BaseModel):
        return value
    plain = {}
    for name, field in type(value).model_fields.items():
        one = getattr(value, name)
        if one != field.get_default(call_default_factory=True) or (type(value), name) in _KEPT:
            plain[field.alias or name] = _plain(one)
    return plain
