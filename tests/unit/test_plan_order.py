"""In which order runs are done, and what holds for every plan there is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.planned import MATRIX, SHAPES, loaded, made, one, past
from tokrig.plan import STATES, TO_DO, Plan, PlanInputs, Planned, RigMemory, Run
from tokrig.quants import Size


def column(plan: Plan, of: Callable[[Run], object]) -> list[object]:
    return [of(planned.run) for planned in plan.runs]


def blocks(values: list[object]) -> list[object]:
    return [value for value, _ in groupby(values)]


def test_priority_comes_first_then_what_was_begun() -> None:
    entries = [
        one("last", priority=-1),
        one("todo", matrix={**MATRIX, "api": "cpu"}),
        one("begun", matrix={**MATRIX, "api": "cuda"}),
        one("first", priority=5, matrix={**MATRIX, "api": "rocm"}),
    ]
    file = loaded(*entries)
    begun = next(p.run.key for p in made(file).runs if p.run.entry == "begun")
    plan = made(file, known=PlanInputs(unfinished=frozenset({begun})))
    assert column(plan, lambda run: run.entry) == ["first", "begun", "todo", "last"]


def test_what_is_not_to_be_done_comes_last() -> None:
    entries = [one("done", priority=9), one("todo", matrix={**MATRIX, "api": "cpu"})]
    file = loaded(*entries)
    done = next(p.run for p in made(file).runs if p.run.entry == "done")
    plan = made(file, known=PlanInputs(past=[past(done)]))
    assert column(plan, lambda run: run.entry) == ["todo", "done"]


def test_drivers_files_quants_and_caps_change_as_rarely_as_possible() -> None:
    matrix = {
        **MATRIX,
        "model": ["m", "n"],
        "quant": ["Q4_0", "Q8_0"],
        "driver": ["2.0", None, "1.0"],
        "power_cap_w": [None, 200, 300],
    }
    models = {name: {"file": f"{name}.gguf", "quantize": True} for name in "mn"}
    file = loaded(one(matrix=matrix), models=models)
    rigs = {"desktop": RigMemory(driver="1.0")}
    made_already = frozenset({("n.gguf", "Q8_0"), ("m.gguf", "Q8_0")})
    plan = made(file, known=PlanInputs(rigs=rigs, made=made_already))
    # Runs that take any driver are done with the one that is installed, which comes first.
    assert blocks(column(plan, lambda run: run.driver or "1.0")) == ["1.0", "2.0"]
    assert blocks(column(plan, lambda run: run.weights.name)) == ["m", "n", "m"]
    # A quant that was made before comes first, but the one in use goes on.
    assert blocks(column(plan, lambda run: (run.weights.name, run.quant))) == [
        *[("m", "Q8_0"), ("m", "Q4_0"), ("n", "Q8_0"), ("n", "Q4_0")],
        *[("n", "Q8_0"), ("m", "Q8_0"), ("m", "Q4_0")],
    ]
    caps = blocks(column(plan, lambda run: run.setting("power_cap_w")))
    assert len(caps) == 8 * 2 + 1  # two changes for each quant of each model and driver


def test_what_is_here_comes_first_then_small_downloads() -> None:
    names = ["big", "unknown", "here", "small"]
    matrix = {**MATRIX, "model": [f"hf:o/{name}" for name in names], "api": ["cpu", "cuda"]}
    sizes = {
        "hf:o/big": Size(2000),
        "hf:o/small": Size(1000),
        "hf:o/here": Size(9000, here=True),
    }
    plan = made(loaded(one(matrix=matrix)), known=PlanInputs(sizes=sizes))
    repos = blocks(column(plan, lambda run: run.weights.repo))
    assert repos == ["o/here", "o/small", "o/big", "o/unknown"]


@pytest.mark.parametrize("axis", ["api", "power_cap_w", "driver", "kv_type"])
@pytest.mark.parametrize("repeats", [2, 4, 6])
def test_an_ab_entry_is_interleaved_for_each_combination(axis: str, repeats: int) -> None:
    choices: dict[str, list[Any]] = {"api": ["cpu", "cuda"], "power_cap_w": [200, 300]}
    values = choices.get(axis, ["x", "y"])
    matrix = {**MATRIX, "context": [512, 1024, 2048], "model": ["a.gguf", "b.gguf"], axis: values}
    file = loaded(
        one("ab", ab=axis, repeats=repeats, matrix=matrix),
        one("other", matrix={**MATRIX, "backend": "llamacpp"}),
    )
    plan = made(file)
    size = 2 * repeats
    runs = [p.run for p in plan.runs if p.run.entry == "ab"]
    assert len(runs) == 6 * size
    entries = "".join("x" if run.entry == "ab" else "-" for run in column_of_runs(plan))
    assert all(len(part) % size == 0 for part in entries.split("-"))
    for start in range(0, len(runs), size):
        sequence = runs[start : start + size]
        assert "".join(run.arm or "" for run in sequence) == "ABBA" * (repeats // 2)
        assert [run.position for run in sequence] == list(range(1, size + 1))
        assert len({(run.setting("context"), run.weights) for run in sequence}) == 1
        for arm, value in zip("AB", values, strict=True):
            its = [run for run in sequence if run.arm == arm]
            assert {run.setting(axis) or getattr(run, axis, None) for run in its} == {value}
            assert [run.repeat for run in its] == list(range(1, repeats + 1))


def column_of_runs(plan: Plan) -> list[Run]:
    return [planned.run for planned in plan.runs]


def test_a_sequence_that_was_begun_goes_on_first() -> None:
    matrix = {**MATRIX, "api": ["cpu", "cuda"], "context": [512, 1024]}
    file = loaded(one(ab="api", repeats=2, matrix=matrix))
    second = [run for run in column_of_runs(made(file)) if run.setting("context") == 1024]
    plan = made(file, known=PlanInputs(past=[past(second[0])]))
    assert column(plan, lambda run: run.setting("context")) == [1024] * 4 + [512] * 4
    assert [p.run.position for p in plan.of("todo")[:3]] == [2, 3, 4]


# What holds for every plan.

AXES: dict[str, list[Any]] = {
    "rig": ["desktop", "laptop"],
    "model": ["a.gguf", "b.gguf", "hf:o/n/c.gguf", "hf:o/n/d.gguf"],
    "backend": ["embedded", "llamacpp"],
    "api": [None, "cpu", "cuda"],
    "mode": ["baseline", "ngram", "mtp"],
    "reasoning": [None, "on", "off"],
    "kv_type": [None, "q8_0"],
    "context": [None, 512, 4096],
    "power_cap_w": [None, 200, 200.5],
    "driver": [None, "1", "2"],
}


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, list[Any]]:
    chosen = draw(st.sets(st.sampled_from(sorted(AXES)), max_size=4)) | {"model", "backend"}
    return {
        axis: draw(st.lists(st.sampled_from(AXES[axis]), min_size=1, max_size=3, unique=True))
        for axis in sorted(chosen)
    }


@st.composite
def entries(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """An entry that means other runs than those of other numbers."""
    matrix = draw(matrices())
    excludes = []
    if draw(st.booleans()):
        axes = draw(st.sets(st.sampled_from(sorted(matrix)), min_size=1, max_size=2))
        excludes = [{axis: draw(st.sampled_from(matrix[axis])) for axis in sorted(axes)}]
    entry = one(
        f"e{number}",
        matrix=matrix,
        exclude=excludes,
        priority=draw(st.integers(-2, 2)),
        repeats=draw(st.integers(1, 3)),
        set={"seed": number + 1},
    )
    pairs = [axis for axis in sorted(matrix) if len(matrix[axis]) == 2 and axis != "rig"]
    if pairs and not excludes and draw(st.booleans()):
        entry |= {"ab": draw(st.sampled_from(pairs)), "repeats": draw(st.sampled_from([2, 4]))}
    if draw(st.booleans()):
        entry["when"] = ["fits_vram"]
    if draw(st.integers(0, 4)) == 0:
        entry["blocked"] = {"why": "w", "until": "u"}
    return entry


@st.composite
def campaigns(draw: st.DrawFn) -> tuple[list[dict[str, Any]], PlanInputs]:
    """Entries, and things that are known of some of their runs."""
    wanted = [draw(entries(number)) for number in range(draw(st.integers(1, 3)))]
    runs = column_of_runs(made(loaded(*wanted, rigs={"laptop": {}})))
    some = st.sampled_from(runs) if runs else st.nothing()
    results = [("complete", "valid"), ("complete", "invalid"), ("failed", "invalid")]
    records = [
        past(run, f"r{n}", status=status, verdict=verdict)
        for n, (run, (status, verdict)) in enumerate(
            draw(st.lists(st.tuples(some, st.sampled_from(results)), max_size=5 * bool(runs)))
        )
    ]
    begun = frozenset(run.key for run in draw(st.lists(some, max_size=3 * bool(runs))))
    rigs = {"desktop": RigMemory(draw(st.sampled_from([None, 0, 10**9])), driver="1")}
    sizes = {"a.gguf": Size(10**9), "hf:o/n/c.gguf": Size(10, here=True)}
    return wanted, PlanInputs(past=records, rigs=rigs, sizes=sizes, unfinished=begun, shapes=SHAPES)


def count(entry: dict[str, Any]) -> int:
    """Combinations, less those that the only exclude names, as often as they are wanted."""
    matrix = entry["matrix"]
    out = [
        math.prod(1 if axis in exclude else len(values) for axis, values in matrix.items())
        for exclude in entry["exclude"]
    ] if "exclude" in entry else []  # fmt: skip
    return int((math.prod(map(len, matrix.values())) - sum(out)) * entry["repeats"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(campaigns())
def test_every_plan(case: tuple[list[dict[str, Any]], PlanInputs]) -> None:
    wanted, known = case
    file = loaded(*wanted, rigs={"laptop": {}})
    plan = made(file, known=known)
    assert plan.runs == made(file, known=known).runs
    # Each run that is meant is there once.
    by_entry = Counter(p.run.entry for p in plan.runs)
    assert all(by_entry[entry["name"]] == count(entry) for entry in wanted)
    assert len({p.run.key for p in plan.runs}) == len(plan.runs)
    assert {p.run.key for p in plan.runs} == {p.run.key for p in made(file).runs}
    # States share the runs out among them.
    assert sum(plan.counts.values()) == len(plan.runs)
    assert sorted(map(id, plan.of(*STATES))) == sorted(map(id, plan.runs))
    for planned in plan.runs:
        assert (planned.download_bytes is None) or planned.state in TO_DO
        assert bool(planned.record) == (planned.state in ("done", "invalid", "failed"))
        assert planned.why or planned.state in ("done", "unfinished", "todo")
    _turns(plan)


def _turns(plan: Plan) -> None:
    """Whole sequences, and among single runs first what is to be done, then by priority."""
    runs: list[Planned] = []
    for before, after in zip([None, *plan.runs], plan.runs, strict=False):
        position = after.run.position
        if position > 1:
            assert before is not None and before.run.position == position - 1
            assert before.run.entry == after.run.entry
        elif position == 0:
            runs.append(after)
    todo = [p for p in runs if p.state in TO_DO]
    assert runs[: len(todo)] == todo
    ranks = [(-p.run.priority, p.state != "unfinished") for p in todo]
    assert ranks == sorted(ranks)
