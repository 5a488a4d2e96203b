"""A/A noise: what two records of the same configuration on one rig differ by."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compared import cell, measured, with_value
from tokrig.compare import comparison, subject
from tokrig.compare.kin import noise_of
from tokrig.record.model import Record


def record(day: int, speed: float, **changed: Any) -> Record:
    made = with_value(measured(), "results", [cell("chat", speed=speed)])
    made = with_value(made, "provenance.started_at", f"2026-11-{day:02d}T00:00:00Z")
    for path, value in changed.items():
        made = with_value(made, path.replace("__", "."), value)
    return made


def test_consecutive_records_of_one_configuration_tell_the_noise_of_their_rig() -> None:
    rig = measured().rig.id
    # In the order of time 100, 104, 101, whatever the order they are read in.
    found = noise_of([record(3, 101.0), record(1, 100.0), record(2, 104.0)])
    expected = (0.04 + (104 / 101 - 1)) / 2
    assert found[rig]["output_tok_per_s"] == pytest.approx(expected, abs=5e-5)
    assert found[rig]["ttft_s"] == pytest.approx(expected, abs=5e-5)


def test_one_record_alone_tells_nothing() -> None:
    assert noise_of([record(1, 100.0)]) == {}
    assert noise_of([]) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"backend__build": "b9999"},
        {"backend__resolved__threads": 4},
        {"rig__kernel": "7.1"},
        {"rig__id": "another"},
        {"provenance__methodology": 1},
        {"backend__managed": False},
        {"provenance__server_starts": 1},
        {"provenance__kind": "imported"},
        {"results": [cell("chat", speed=150.0, hash="ffff")]},
        {"results": [cell("chat", speed=150.0, valid=False)]},
        {"results": [cell("chat", 4, 150.0)]},
    ],
)
def test_what_is_not_the_same_is_no_noise(changed: dict[str, Any]) -> None:
    assert noise_of([record(1, 100.0), record(2, 150.0, **changed)]) == {}


def test_how_a_record_came_about_is_no_other_configuration() -> None:
    later = record(2, 103.0, provenance__level="publish", provenance__server_starts=10, id="x")
    found = noise_of([record(1, 100.0), later])
    assert found[measured().rig.id]["output_tok_per_s"] == pytest.approx(0.03)


def test_noise_is_the_smallest_effect_that_counts_where_something_was_changed() -> None:
    noise = noise_of([record(1, 100.0), record(2, 112.0)])[measured().rig.id]
    base = subject(record(1, 100.0), noise=noise)

    def verdict(speed: float, **changed: Any) -> str:
        other = subject(record(3, speed, **changed), noise=noise)
        return comparison(base, other).pairs[0].figures[0].ratio.verdict

    assert verdict(110.0, backend__build="b9999") == "not_distinguishable"
    assert verdict(115.0, backend__build="b9999") == "faster"
    # Two records of the same are what noise is known from.
    assert verdict(110.0) == "faster"
