"""What a run leaves behind: its record, its samples, the figures and verdicts that follow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from tokrig.errors import RecordError

SCHEMA_VERSION = 2
METHODOLOGY_VERSION = 2

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {
    # Schema 2 only adds: the third verdict, and fields that an older record leaves out.
    1: lambda data: data,
}
"""Old records stay readable for ever: key ``n`` lifts a record of schema n to n + 1. The step need
not touch ``schema`` itself."""


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
