"""Builds in the order of their numbers."""

from __future__ import annotations

import random

import pytest

from tests.unit.compared import measured, with_value
from tokrig.site.versions import order, version
from tokrig.store.load import Run

# As engines name theirs: llama.cpp's releases, PEP 440 versions of vLLM, SGLang and MLX, Ollama.
ORDERED = (
    ["b999", "b1000", "b9174"],
    ["0.9.10", "0.11.2.dev3", "0.11.2rc1", "0.11.2", "0.11.2.post1", "0.12"],
    ["v0.6.4", "v0.6.4.post1", "v0.10.0"],
    ["xllamacpp 2026.9.1", "xllamacpp 2026.10.11549"],
)


@pytest.mark.parametrize("builds", ORDERED)
def test_numbers_order_builds(builds: list[str]) -> None:
    shuffled = builds[:]
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=lambda one: version(one) or ("", ())) == builds


@pytest.mark.parametrize("build", ["", "main", "a1b2c3d", "b1a2c3d", "b" + "9" * 5000])
def test_what_is_no_number_is_none(build: str) -> None:
    assert version(build) is None


def test_builds_without_numbers_go_by_their_first_day() -> None:
    days = {
        "c0ffee1": "2026-11-03",
        "b2": "2026-11-04",
        "b10": "2026-11-01",
        "abc1234": "2026-11-02",
    }
    runs = []
    for name, day in days.items():
        record = with_value(measured(), "backend.build", name)
        record = with_value(record, "provenance.started_at", f"{day}T10:00:00Z")
        runs.append(Run(record, f"x/{name}.yaml", name))
    place = order(runs)
    assert sorted(days, key=lambda one: place["llama.cpp", one]) == [
        "b2",
        "b10",
        "abc1234",
        "c0ffee1",
    ]
