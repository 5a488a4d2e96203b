"""A published figure that does not follow from its samples is found, and named."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record.block import Summary
from tokrig.record.consistency import Contradiction, differences
from tokrig.record.samples import Kind

SAMPLES = [sample(repeat=0), sample(repeat=0, gap_s=0.012), sample(repeat=0, tokens=12)]


def path_of(found: Contradiction) -> str:
    """Inside the result."""
    return ".".join(map(str, found.place[2:]))


def test_an_honest_record_follows_from_its_samples() -> None:
    assert differences(record_of(SAMPLES), SAMPLES) == []


@pytest.mark.parametrize("field", ["output_tok_per_s", "ttft_s", "prefill_tok_per_s", "tpot_s"])
def test_an_edited_median_is_named(field: str) -> None:
    record = record_of(SAMPLES)
    result = record.results[0]
    honest: Summary = getattr(result, field)
    edited = honest.model_copy(update={"median": honest.median * 1.01})
    forged = record.model_copy(update={"results": [result.model_copy(update={field: edited})]})
    found = differences(forged, SAMPLES)
    assert [path_of(d) for d in found] == [f"{field}.median"]
    assert "the samples give" in str(found[0])


def test_a_count_that_was_changed_is_named() -> None:
    record = record_of(SAMPLES)
    result = record.results[0].model_copy(update={"request_errors": 3, "cached_tokens": 5})
    forged = record.model_copy(update={"results": [result]})
    assert {path_of(d) for d in differences(forged, SAMPLES)} == {"request_errors", "cached_tokens"}


def test_a_measured_figure_without_its_range_is_named() -> None:
    record = record_of(SAMPLES)
    result = record.results[0]
    assert result.output_tok_per_s is not None
    bare = Summary(median=result.output_tok_per_s.median)
    forged = record.model_copy(
        update={"results": [result.model_copy(update={"output_tok_per_s": bare})]}
    )
    found = {path_of(d): str(d) for d in differences(forged, SAMPLES)}
    assert found.keys() == {f"output_tok_per_s.{name}" for name in ("min", "max", "n")}
    assert "output_tok_per_s.n is missing, the samples give 3" in found["output_tok_per_s.n"]


def test_samples_that_vanished_are_noticed() -> None:
    found = differences(record_of(SAMPLES), SAMPLES[:2])
    assert "requests" in {path_of(d) for d in found}


def test_samples_that_changed_are_noticed() -> None:
    changed = [dataclasses.replace(SAMPLES[0], output_tokens=500), *SAMPLES[1:]]
    assert differences(record_of(SAMPLES), changed)


def test_reasoning_is_recomputed_too() -> None:
    thinking = [sample(kinds=[Kind.REASONING] * 5 + [Kind.CONTENT] * 6)]
    assert differences(record_of(thinking), thinking) == []
