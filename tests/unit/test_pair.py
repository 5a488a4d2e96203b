"""Two specs measured interleaved: the order, what ends it, and that the same command goes on.
Starts are pretended: each stores a simulated record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.unit.compared import with_value
from tests.unit.simulated import record
from tokrig.campaign import pair
from tokrig.compare.judge import Limits
from tokrig.errors import EngineError, InputError, Interrupted
from tokrig.measure import Ended
from tokrig.record.model import Record, Validity
from tokrig.spec.run import RunSpec
from tokrig.store import Store

A = RunSpec(model="m.gguf", backend="llamacpp", server_bin="before", level="standard")
B = RunSpec(model="m.gguf", backend="llamacpp", server_bin="after", notes="the new one")
SPEEDS = {"before": 1.0, "after": 0.85}


class Machine:
    """Stores a record for each start; ``before_each`` may raise, or change what comes out."""

    def __init__(self, content: Path) -> None:
        self.store, self.chance, self.order = Store(content), Random(3), ""
        self.notes: list[str] = []
        self.before_each: Callable[[int], None] = lambda number: None
        self.changed: Callable[[int, Record], Record] = lambda number, made: made

    def measure_spec(self, spec: RunSpec, content: Path, **ways: Any) -> Ended:
        number = len(self.order) + 1
        self.before_each(number)
        assert spec.campaign is not None and spec.level == "quick"
        self.order += spec.campaign[-1].upper()
        side = spec.server_bin or ""
        made = record(self.chance, "quick", 0.01, faster=SPEEDS[side])
        for path, value in (
            ("id", f"run-{number:03}"),
            ("backend.build", side),
            ("provenance.planned", spec.planned),
            ("provenance.campaign", spec.campaign),
            ("provenance.started_at", f"2026-11-28T10:{number // 60:02}:{number % 60:02}Z"),
        ):
            made = with_value(made, path, value)
        made = self.changed(number, made)
        stored = self.store.save(made, [])
        failed = EngineError("it fell over", hint="see its log") if made.failure else None
        return Ended(made, stored, failed)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "content")
    monkeypatch.setattr(pair, "measure_spec", made.measure_spec)
    monkeypatch.setattr(pair, "prepare", lambda *asked: None)
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path / "state"))
    return made


def measured(machine: Machine, starts: int = 6, *, control: bool = True) -> pair.Measured:
    content = machine.store.content
    planned = pair.begun(A, B, starts, content, control=control)
    arms = pair.measure(planned, content, machine.notes.append)
    return pair.judged(arms, Limits(own={"output_tok_per_s": 0.05}))


def test_arms_take_turns_and_the_control_is_judged_beside_them(machine: Machine) -> None:
    found = measured(machine, 7)
    assert machine.order == "ABCCBA" * 3 + "ABC"
    assert {arm: len(records) for arm, records in found.arms.items()} == dict.fromkeys("ABC", 7)
    assert found.judgement.verdict == "FAIL"
    assert {one.verdict for one in found.judgement.verdicts} == {"FAIL"}
    assert {one.starts for one in found.judgement.verdicts} == {(7, 7)}
    assert found.control is not None and found.control.verdict != "FAIL"
    noise = {one.noise for one in found.judgement.verdicts}
    assert noise == {max(v.ratio or 0, 1 / (v.ratio or 1)) - 1 for v in found.control.verdicts}


def test_without_a_control(machine: Machine) -> None:
    found = measured(machine, control=False)
    assert machine.order == "ABBA" * 3
    assert found.control is None and found.judgement.verdict == "FAIL"


def test_it_goes_on_where_it_was_interrupted(machine: Machine) -> None:
    def interrupt(number: int) -> None:
        if number == 8:
            raise KeyboardInterrupt

    machine.before_each = interrupt
    with pytest.raises(Interrupted, match="7 of 18 starts have their records"):
        measured(machine)
    machine.before_each = lambda number: None
    assert len(measured(machine).arms["B"]) == 6
    assert machine.order == "ABCCBA" * 3
    assert "7 of 18 starts are measured already" in machine.notes


def test_a_complete_comparison_is_not_measured_into_again(machine: Machine) -> None:
    first = measured(machine)
    again = measured(machine)
    assert machine.order == "ABCCBA" * 6
    ids = [{one.id for one in found.arms["A"]} for found in (first, again)]
    assert not ids[0] & ids[1]


def test_another_number_of_starts_is_another_comparison(machine: Machine) -> None:
    measured(machine)
    measured(machine, 8)
    assert len(machine.order) == 18 + 24


def test_a_failed_start_ends_it_and_is_tried_again(machine: Machine) -> None:
    from tokrig.record.model import Failure

    def fail(number: int, made: Record) -> Record:
        if number != 5:
            return made
        failure = Failure(code="engine_died", message="it fell over")
        return with_value(with_value(made, "failure", failure), "status", "failed")

    machine.changed = fail
    with pytest.raises(EngineError, match="B failed: it fell over") as told:
        measured(machine)
    assert "4 of 18 starts are measured: the same command goes on" in told.value.hint
    assert measured(machine).judgement.verdict == "FAIL"
    assert machine.order == "ABCC" + "B" + "BA" + "ABCCBA" * 2


def test_a_start_that_came_out_invalid_is_measured_once_more(machine: Machine) -> None:
    def spoil(number: int, made: Record) -> Record:
        if number not in (3, 4):
            return made
        bad = Validity(verdict="invalid", reasons=["foreign_cpu_load"])
        results = [one.model_copy(update={"validity": bad}) for one in made.results]
        return with_value(with_value(made, "results", results), "validity", bad)

    machine.changed = spoil
    found = measured(machine)
    assert machine.order == "ABCCBA" * 3 + "CC"
    assert found.control is not None
    assert {one.starts for one in found.control.verdicts} == {(6, 6)}


def test_where_most_are_invalid_nothing_is_measured_again(machine: Machine) -> None:
    bad = Validity(verdict="invalid", reasons=["foreign_cpu_load"])

    def spoil(number: int, made: Record) -> Record:
        results = [one.model_copy(update={"validity": bad}) for one in made.results]
        return with_value(with_value(made, "results", results), "validity", bad)

    machine.changed = spoil
    found = measured(machine)
    assert len(machine.order) == 18
    assert not found.judgement.rated
    assert "chat × 1: A INVALID (foreign_cpu_load)" in found.judgement.pairs[0].missing[1]


def test_an_engine_that_was_rebuilt_meanwhile_is_no_one_arm(machine: Machine) -> None:
    machine.changed = lambda number, made: (
        with_value(made, "backend.build", "rebuilt") if number > 9 else made
    )
    with pytest.raises(InputError, match="A is not one configuration: build changed"):
        measured(machine)


def test_a_binary_that_was_rebuilt_is_another_comparison(tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    keys = []
    for text in ("one", "two", "one"):
        binary.write_text(text)
        spec = A.model_copy(update={"server_bin": str(binary)})
        found = pair.sequence(spec, B, 6, control=True, turn=0)
        keys.append([one.key for one in found])
        assert len({*keys[-1]}) == len(found) == 18
    assert keys[0] == keys[2] and not {*keys[0]} & {*keys[1]}


def test_remarks_are_no_other_comparison() -> None:
    noted = A.model_copy(update={"notes": "again", "level": "publish"})
    first, second = (pair.sequence(one, B, 6, control=True, turn=0) for one in (A, noted))
    assert [one.key for one in first] == [one.key for one in second]


def test_a_server_that_runs_already_is_one_start(tmp_path: Path) -> None:
    attached = RunSpec(model="m", url="http://127.0.0.1:8000")
    with pytest.raises(InputError, match=r"b\.yaml: a server that is already running"):
        pair.refuse([("a.yaml", A), ("b.yaml", attached)])
