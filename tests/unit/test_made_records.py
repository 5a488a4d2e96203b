"""Made records (bench/many) hold together as measured ones have to, and have all kinds of loads."""

from __future__ import annotations

from bench.many.records import make_record
from tokrig import naming
from tokrig.record.consistency import own_contradictions


def test_made_records_contradict_nothing_and_have_every_kind_of_curve() -> None:
    records = [make_record(1, number) for number in range(100)]
    assert [str(one) for record in records for one in own_contradictions(record)] == []
    results = [result for record in records for result in record.results]
    assert {result.load for result in results} == {"closed", "session", "sustained"}
    assert any(naming.depth_curves(record) for record in records)
    assert any(ladder.knee for record in records for ladder in record.ladders)
    compared = [r.quality for r in records if r.quality and r.quality.top1_agreement]
    assert compared


def test_a_deep_context_is_slower_and_a_knee_comes_before_the_last_step() -> None:
    for record in (make_record(1, number) for number in range(100)):
        for curve in naming.depth_curves(record):
            rates = [one.output_tok_per_s.median for one in curve if one.output_tok_per_s]
            assert rates[-1] < rates[0], record.id
        for ladder in record.ladders:
            assert ladder.knee is None or ladder.knee <= ladder.steps[-1]
