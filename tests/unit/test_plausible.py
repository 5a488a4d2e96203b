"""Rates that a machine's memory or the nearest kin make implausible are told and unverified."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compared import cell, measured, transcribed, with_value
from tokrig.compare.kin import implausible, marked
from tokrig.record.model import Record
from tokrig.store.facts import Rate, RigFacts


def run(run_id: str, *speeds: float, **changes: Any) -> Record:
    """A run of chat, rag and agent at these speeds; the same model on the same card each time."""
    shapes = ("chat", "rag", "agent")
    results = [cell(shape, speed=speed) for shape, speed in zip(shapes, speeds, strict=False)]
    record = with_value(with_value(measured(), "id", run_id), "results", results)
    for path, value in changes.items():
        record = with_value(record, path.replace("__", "."), value)
    return record


def told(*records: Record, bandwidth: float | None = None) -> dict[str, set[int]]:
    width = Rate(theoretical=bandwidth) if bandwidth else None
    facts = {records[0].rig.id: RigFacts(memory_bandwidth_bytes_per_s=width)}
    return {run_id: set(found) for run_id, found in implausible(records, facts).items()}


def test_honest_runs_are_told_nothing() -> None:
    assert told(run("a", 100, 90, 80), run("b", 120, 70, 60), bandwidth=672e9) == {}
    assert told(run("a", 100)) == {}


def test_a_transcribed_slip_is_told() -> None:
    record = transcribed()
    [first, *others] = record.results
    assert first.output_tok_per_s is not None
    wrong = first.output_tok_per_s.model_copy(update={"median": 9211.9})
    edited = first.model_copy(update={"output_tok_per_s": wrong})
    assert told(record) == {}
    assert told(with_value(record, "results", [edited, *others])) == {record.id: {0}}


def test_the_same_shape_elsewhere_is_the_nearest_kin() -> None:
    # Its own other shapes are as fast: the record next to it tells.
    assert told(run("a", 900, 800, 700), run("b", 100, 90, 80)) == {"a": {0, 1, 2}}
    assert told(run("a", 299, 90, 80), run("b", 100, 90, 80)) == {}


def test_a_larger_model_bounds_a_smaller_one_and_not_the_other_way() -> None:
    small = {"model__family": "Small", "model__bytes": 10**9, "model__parameters": 2 * 10**9}
    small |= {"model__active_parameters": None}
    large = {"model__bytes": 10**10, "model__active_parameters": None}
    assert told(run("a", 3100, **small), run("b", 100, **large)) == {"a": {0}}
    assert told(run("a", 2900, **small), run("b", 100, **large)) == {}
    assert told(run("a", 300, **small), run("b", 280, **large)) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"backend__engine": "vLLM"},
        {"backend__api": "vulkan"},
        {"rig__gpus": []},
        {"backend__resolved__gpu_layers": 4},
        {"model__quant": "Q8_0"},
    ],
)
def test_other_settings_and_machines_are_no_kin(changes: dict[str, Any]) -> None:
    unknown = {"model__bytes": None}
    assert told(run("a", 900), run("b", 100, **changes, **unknown)) == {}


def test_memory_bounds_what_it_carries() -> None:
    # 3 GB of which 2 of 5 parts are active: 1.2 GB a token, 560 tok/s at 672 GB/s.
    assert told(run("a", 1121, 1000, 900), bandwidth=672e9) == {"a": {0}}
    assert told(run("a", 1119, 1000, 900), bandwidth=672e9) == {}
    assert told(run("a", 1121, 1000, 900)) == {}
    cached = {"model__bytes": 400 * 1024**2, "model__parameters": None}
    assert told(run("a", 9000, 8000, **cached), bandwidth=672e9) == {}
    speculating = {"mode__speculative": "ngram"}
    assert told(run("a", 9000, 8000, **speculating), bandwidth=672e9) == {}


def test_what_is_told_is_unverified_and_does_not_stand() -> None:
    record = marked(run("a", 900, 100, 90), {0: "why"})
    assert record.results[0].validity.verdict == record.validity.verdict == "unverified"
    assert record.results[0].validity.unverified == ["implausible"]
    assert [result.validity.stands for result in record.results] == [False, True, True]
    refuted = with_value(record, "results", [cell("chat", valid=False)])
    assert marked(refuted, {0: "why"}).results[0].validity.verdict == "invalid"
