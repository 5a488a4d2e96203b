"""Old records are lifted step by step; newer ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tokrig.errors import RecordError
from tokrig.record import MIGRATIONS, SCHEMA_VERSION, upgrade


def to_2(data: dict[str, Any]) -> dict[str, Any]:
    data["results"] = data.pop("rows")
    return data


def to_3(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "results": [{**one, "n": 1} for one in data["results"]]}


def test_each_step_is_taken_in_order() -> None:
    old = {"schema": 1, "rows": [{"a": 1}]}
    new = upgrade(old, {1: to_2, 2: to_3}, version=3)
    assert new == {"schema": 3, "results": [{"a": 1, "n": 1}]}
    assert old == {"schema": 1, "rows": [{"a": 1}]}
    middle = upgrade({"schema": 2, "results": []}, {1: to_2, 2: to_3}, version=3)
    assert middle == {"schema": 3, "results": []}


def test_the_present_schema_is_left_alone() -> None:
    data = {"schema": SCHEMA_VERSION, "anything": 1}
    assert upgrade(data) is data


def test_a_newer_schema_is_refused_with_what_to_do() -> None:
    with pytest.raises(RecordError) as caught:
        upgrade({"schema": SCHEMA_VERSION + 2})
    assert caught.value.message == (
        f"the record's schema {SCHEMA_VERSION + 2} is newer than this tokrig reads "
        f"({SCHEMA_VERSION})"
    )
    assert caught.value.hint.startswith("upgrade tokrig")


@pytest.mark.parametrize(
    "data",
    [{}, {"schema": "1"}, {"schema": 1.0}, {"schema": True}, {"schema": 0}, {"schema": None}],
)
def test_what_is_no_schema(data: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="schema"):
        upgrade(data)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_mapping(data: Any) -> None:
    with pytest.raises(RecordError, match="a record is a mapping"):
        upgrade(data)


def test_a_gap_in_the_table_is_an_error() -> None:
    with pytest.raises(RecordError, match="no migration from schema 2 to 3"):
        upgrade({"schema": 1, "rows": []}, {1: to_2}, version=3)


def test_every_older_schema_has_its_step() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))
