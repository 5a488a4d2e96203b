"""Where a ladder ends, why, and where its knee is: from requests whose times are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.planned import MATRIX, loaded, made, one
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig import measure
from tokrig.errors import InputError, SpecError
from tokrig.plan import run_spec
from tokrig.quants import OVERHEAD_BYTES
from tokrig.record.checks import judge_run
from tokrig.record.consistency import contradictions
from tokrig.record.ladder import Step, end_of, knee_of, ladder_of, step
from tokrig.record.loads import Ladder
from tokrig.record.model import Record, Rig, Skipped, Validity
from tokrig.record.samples import Sample
from tokrig.run import memory
from tokrig.run.prepare import prepare
from tokrig.site.charts.load import ladder_chart
from tokrig.spec.run import RunSpec, merge

TOKENS = 101
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def flight(at: int, rate: float, *, slots: int = 99, repeat: int = 0) -> list[Sample]:
    """Three rounds of ``at`` requests that together make ``rate`` tok/s; with fewer slots those
    beyond wait until the others have ended."""
    served = min(at, slots)
    turns = -(-at // served)
    whole_s = at * TOKENS / rate / turns
    gap_s = (whole_s - 0.01) / (TOKENS - 1)
    found = []
    for iteration in range(3):
        for worker in range(at):
            waits_s = (worker // served) * whole_s
            answer = sample(ttft_s=0.01 + waits_s, gap_s=gap_s, tokens=TOKENS)
            sent_ns = round(iteration * turns * whole_s * 1e9)
            found.append(
                replace(
                    answer,
                    concurrency=at,
                    sent_ns=sent_ns,
                    worker=worker,
                    iteration=iteration,
                    repeat=repeat,
                )
            )
    return found


def climbed(*rates: float, slots: int | None = None, most: int = 64) -> Record:
    """A record of 1, 2, 4 … requests in flight."""
    samples = [s for n, rate in enumerate(rates) for s in flight(2**n, rate, slots=slots or 99)]
    return recorded(samples, most=most, slots=slots)


def recorded(samples: list[Sample], *, most: int = 64, slots: int | None = None) -> Record:
    steps = list(dict.fromkeys(s.concurrency for s in samples))
    each = [record_of([s for s in samples if s.concurrency == at]) for at in steps]
    results = [record.results[0] for record in each]
    found = ladder_of(results, samples, [], most=most, slots=slots)
    ladders = [found] if found else []
    resolved = each[0].backend.resolved.model_copy(update={"slots": slots})
    backend = each[0].backend.model_copy(update={"resolved": resolved})
    return each[0].model_copy(update={"results": results, "ladders": ladders, "backend": backend})


@pytest.mark.parametrize(
    ("rates", "slots", "most", "ended_by", "knee"),
    [
        ((100, 190, 300, 310), None, 64, "growth", 4),
        ((100, 190, 300, 280), None, 64, "growth", 4),
        ((100, 104), None, 64, "growth", 1),
        # The knee is where 95 % are reached, which may be below the last step that grew by 5 %.
        ((100, 190, 280, 295, 297), None, 64, "growth", 8),
        ((100, 190, 300), None, 4, "most", None),
        ((100, 190, 300), 4, 64, "slots", 4),
        ((100, 190, 300), 7, 64, "slots", 4),
        ((100,), 1, 64, "slots", 1),
        ((100, 190), None, 64, None, None),
    ],
)
def test_a_ladder_ends_where_it_no_longer_pays(
    rates: tuple[float, ...], slots: int | None, most: int, ended_by: str | None, knee: int | None
) -> None:
    [found] = climbed(*rates, slots=slots, most=most).ladders
    assert (found.ended_by, found.knee) == (ended_by, knee)
    assert found.steps == [2**n for n in range(len(rates))]


def test_requests_that_wait_end_it_where_no_server_tells_its_slots() -> None:
    samples = [
        *flight(1, 100), *flight(2, 190), *flight(4, 300), *flight(8, 400, slots=4)
    ]  # fmt: skip
    [found] = recorded(samples).ladders
    # Eight in flight would be the fastest, and were never served at once.
    assert (found.steps, found.ended_by, found.knee) == ([1, 2, 4, 8], "slots", 4)


def test_a_step_that_fails_or_has_no_rate_ends_it() -> None:
    steps = [Step(1, 100.0, False), Step(2, 190.0, False)]
    assert end_of(steps, 64, None) is None
    assert end_of(steps, 64, None, failed=True) == "failed"
    assert end_of([], 64, None, failed=True) == "failed"
    assert end_of([*steps, Step(4, None, False)], 64, None) == "failed"
    record = climbed(100, 190)
    skipped = Skipped(workload="chat", concurrency=4, code="http_500", message="no")
    samples = [*flight(1, 100), *flight(2, 190)]
    found = ladder_of(record.results, samples, [skipped], most=64, slots=None)
    assert found and (found.ended_by, found.knee) == ("failed", None)


def test_the_first_repeat_decides_and_all_of_them_tell_the_knee() -> None:
    """Later repeats measure the same steps, whatever they would have decided."""
    samples = [*flight(1, 100), *flight(2, 190), *flight(4, 195)]
    again = [*flight(1, 100, repeat=1), *flight(2, 190, repeat=1), *flight(4, 280, repeat=1)]
    assert step(4, [*samples[-12:], *again[-12:]], None).tok_per_s == pytest.approx(195, rel=0.01)
    [found] = recorded([*samples, *again]).ladders
    assert (found.steps, found.ended_by, found.knee) == ([1, 2, 4], "growth", 4)


def test_a_ladder_without_any_rate_has_no_knee() -> None:
    assert knee_of([]) is None
    assert ladder_of([], [], [], most=64, slots=None) is None


def test_the_step_at_which_requests_waited_is_invalid_and_the_run_is_not() -> None:
    waited = Validity(verdict="invalid", reasons=["concurrency_not_reached"])
    record = climbed(100, 190, 300, slots=2)
    valid = Validity(verdict="valid")
    results = [
        r.model_copy(update={"validity": waited if r.concurrency == 4 else valid})
        for r in record.results
    ]
    [ladder] = record.ladders
    assert (ladder.ended_by, ladder.steps[-1]) == ("slots", 4)
    assert judge_run(results, complete=True).reasons == ["concurrency_not_reached"]
    assert judge_run(results, complete=True, ladders=[ladder]).verdict == "valid"
    # Anything else that is wrong with it, or with another step, counts as ever.
    worse = waited.model_copy(update={"reasons": ["concurrency_not_reached", "client_bound"]})
    results[-1] = results[-1].model_copy(update={"validity": worse})
    assert judge_run(results, complete=True, ladders=[ladder]).reasons == ["client_bound"]
    results[1] = results[1].model_copy(update={"validity": waited})
    told = judge_run(results, complete=True, ladders=[ladder]).reasons
    assert told == ["concurrency_not_reached", "client_bound"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ended_by": "most"}, "ended_by is most, the results give growth"),
        ({"knee": 8}, "knee"),
        ({"steps": [1, 2, 4]}, "ladders.0.steps is [1, 2, 4]"),
    ],
)
def test_check_finds_a_ladder_that_does_not_follow(change: dict[str, object], says: str) -> None:
    record = climbed(100, 190, 300, 310)
    samples = [s for n, rate in enumerate((100, 190, 300, 310)) for s in flight(2**n, rate)]
    assert not [c for c in contradictions(record, samples) if c.rule.startswith("ladder")]
    slip = Ladder.model_validate({**record.ladders[0].model_dump(), **change})
    found = contradictions(record.model_copy(update={"ladders": [slip]}), samples)
    assert any(says in str(one) for one in found if one.rule.startswith("ladder"))


def test_a_ladder_at_a_depth_is_made_of_results_there() -> None:
    at_depth = [replace(s, depth_tokens=4096) for s in flight(1, 100)]
    results = climbed(100).results
    deep = results[0].model_copy(update={"depth_tokens": 4096})
    found = ladder_of([deep], at_depth, [], most=1, slots=None)
    assert found and (found.depth_tokens, found.ended_by) == (4096, "most")
    assert found.has(deep.cell)
    assert not found.has(results[0].cell)


# What is shown


def test_its_chart_marks_the_knee_and_its_table_has_every_step() -> None:
    record = climbed(100, 190, 300, 310)
    chart = ladder_chart(record, record.ladders[0])
    assert chart is not None
    assert [row[0] for row in chart.rows] == ["1", "2", "4, knee", "8"]
    assert "4, knee" in chart.drawing.parts
    assert "its knee is at 4" in chart.text
    bare = [r.model_copy(update={"system_tok_per_s": None}) for r in record.results]
    without = record.model_copy(update={"results": bare})
    assert ladder_chart(without, record.ladders[0]) is None


# Before it begins


def test_its_highest_step_is_one_whose_slots_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 270M: 18 layers of one key/value head of 256 numbers in two bytes each."""
    per_slot = 18 * 2 * 256 * 2 * 512
    weights = prepare(RunSpec(), NOW).model.bytes
    assert weights is not None
    for slots, highest in ((64, 64), (63, 32), (9, 8), (1, 1), (0, 1)):
        free = weights + OVERHEAD_BYTES + slots * per_slot
        monkeypatch.setattr(memory, "free_bytes", lambda free=free, **_: free)
        prepared = prepare(RunSpec(concurrency="ladder"), NOW)
        assert prepared.cells[-1].concurrency == highest
        assert prepared.launch and prepared.launch.slots == highest
        told = " ".join(prepared.remarks)
        assert (f"the ladder ends at {highest} of 64" in told) == (highest < 64)
    monkeypatch.setattr(memory, "free_bytes", lambda **_: None)
    prepared = prepare(RunSpec(concurrency="ladder"), NOW)
    assert "not known" in prepared.remarks[0]


def test_a_campaign_asks_for_one() -> None:
    includes = [{"concurrency": [1, 4]}, {"sustain": "600s", "concurrency": 4}]
    entry = one(matrix={**MATRIX, "concurrency": "ladder"}, include=includes)
    runs = [planned.run for planned in made(loaded(entry)).runs]
    asked = [(r.workloads, r.ladder, r.concurrency, r.sustain) for r in runs]
    assert asked == [
        (("chat",), 64, None, None),
        (None, None, (1, 4), None),
        (("chat",), None, (4,), "10m"),
    ]
    assert len({r.key for r in runs}) == 3
    specs = [run_spec(run) for run in runs]
    assert [(s.ladder, s.concurrency, s.sustain) for s in specs] == [
        (64, None, None),
        (None, [1, 4], None),
        (None, [4], "10m"),
    ]
    twice = one(matrix={**MATRIX, "sustain": "10m"}, include=[{"concurrency": [1, 4]}])
    with pytest.raises(SpecError, match="sustained at one concurrency"):
        loaded(twice)


def test_it_goes_on_with_the_steps_that_it_was_begun_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More memory adds none, less is told: results that are there would have no place."""
    begun = prepare(RunSpec(), NOW)
    assert begun.model.bytes is not None
    per_slot, least = 18 * 2 * 256 * 2 * 512, begun.model.bytes + OVERHEAD_BYTES

    def facts(slots: int, spec: RunSpec) -> dict[str, Any]:
        free = least + slots * per_slot
        monkeypatch.setattr(memory, "free_bytes", lambda **_: free)
        return measure._facts(prepare(spec, NOW), Rig(id="rig"), tmp_path)

    before = facts(16, RunSpec(concurrency="ladder"))
    spec = merge(RunSpec(), before["spec"])
    assert spec.ladder == 16
    measure._refuse_mixing(before, facts(64, spec), "run")
    with pytest.raises(InputError, match="how many slots fit into the memory") as caught:
        measure._refuse_mixing(before, facts(8, spec), "run")
    assert caught.value.code == "run_changed"
