"""The loop of a campaign, with executors that only pretend; the stopwatch; the rig's lock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.planned import loaded, made, one
from tokrig.campaign.work import Began, Done, News, Note, Stopwatch, Tally, Work
from tokrig.errors import EngineError, InputError, Interrupted, ModelError, PutOff, StoreError
from tokrig.measure import Ended
from tokrig.plan import Planned, Run
from tokrig.record.model import BackendFacts, Model, Provenance, Record, Rig, Validity
from tokrig.run.journal import this_rig
from tokrig.run.progress import CellBegan, CellDone, Step
from tokrig.spec.run import RunSpec
from tokrig.store import Store


def record_of(run: Run) -> Record:
    return Record(
        id=f"run-{run.key}",
        status="complete",
        validity=Validity(verdict="valid"),
        provenance=Provenance(kind="measured", planned=run.key),
        model=Model(family="Made"),
        rig=Rig(id=run.rig),
        backend=BackendFacts(name="fake", engine="fake"),
    )


class Pretending:
    """Raises what ``outcomes`` holds for a key; measures all others at once."""

    def __init__(self, outcomes: dict[str, BaseException], rigs: Sequence[str]) -> None:
        self.outcomes, self.here = outcomes, rigs
        self.asked: list[str] = []
        self.busy: dict[str, int] = {}
        self.most_at_once = 0
        self.cancelled = threading.Event()
        self.meanwhile: Callable[[Run], None] = lambda run: None

    def rigs(self) -> Sequence[str]:
        return self.here

    def rig(self, name: str) -> Rig:
        return Rig(id=name)

    def measure(self, run: Run, spec: RunSpec, note: Note) -> Ended:
        assert spec.planned == run.key
        self.busy[run.rig] = self.busy.get(run.rig, 0) + 1
        assert self.busy[run.rig] == 1, "two runs at once on one rig"
        self.most_at_once = max(self.most_at_once, sum(self.busy.values()))
        self.asked.append(run.key)
        try:
            self.meanwhile(run)
            if run.key in self.outcomes:
                raise self.outcomes[run.key]
            return Ended(record_of(run), Path(f"{run.key}.yaml"))
        finally:
            self.busy[run.rig] -= 1

    def cancel(self) -> None:
        self.cancelled.set()


def runs(*keys: str, rig: str = "here", **changes: Any) -> list[Planned]:
    [planned] = made(loaded(one())).runs
    return [replace(planned, run=replace(planned.run, key=key, rig=rig, **changes)) for key in keys]


def work(
    wanted: Sequence[Planned],
    content: Path,
    outcomes: dict[str, BaseException] | None = None,
    rigs: Sequence[str] = ("here",),
) -> tuple[Work, Pretending, list[News]]:
    executor, heard = Pretending(outcomes or {}, rigs), list[News]()
    return Work(Tally(wanted), executor, content, heard.append), executor, heard


def test_every_run_has_its_turn_in_order(tmp_path: Path) -> None:
    doing, executor, heard = work(runs("a", "b", "c"), tmp_path)
    doing.all()
    tally = doing.tally
    assert executor.asked == ["a", "b", "c"]
    assert [type(news) for news in heard] == [Began, Done] * 3
    assert (len(tally.done), tally.left) == (3, 0)


def test_what_cannot_be_done_now_leaves_nothing(tmp_path: Path) -> None:
    doing, executor, _ = work(runs("a", "b"), tmp_path, {"a": PutOff("no network")})
    doing.all()
    tally = doing.tally
    assert executor.asked == ["a", "b"]
    assert [d.why.message for d in tally.delayed] == ["no network"]
    assert list(Store(tmp_path).iter_paths()) == []


def test_a_request_that_cannot_be_prepared_is_a_failed_record(tmp_path: Path) -> None:
    error = ModelError("/home/somebody/model.gguf: no such file", code="model_missing")
    doing, _, _ = work(runs("a", "b"), tmp_path, {"a": error})
    doing.all()
    tally = doing.tally
    [failed] = tally.failed
    assert failed.ended.record.status == "failed"
    assert failed.ended.record.provenance.planned == "a"
    assert failed.ended.record.failure is not None
    assert failed.ended.record.failure.message == "model.gguf: no such file"
    assert isinstance(failed.ended.error, EngineError)
    assert len(tally.done) == 1


def test_a_quant_that_cannot_be_made_is_a_failed_record(tmp_path: Path) -> None:
    error = EngineError("llama-quantize failed", code="quantize_failed", log_tail="its last words")
    doing, executor, _ = work(runs("a", "b"), tmp_path, {"a": error})
    doing.all()
    [failed] = doing.tally.failed
    assert executor.asked == ["a", "b"]
    assert failed.ended.record.failure is not None
    assert failed.ended.record.failure.code == "quantize_failed"
    assert failed.ended.record.failure.log_tail == "its last words"


def test_what_is_wrong_with_the_rig_says_nothing_of_the_run(tmp_path: Path) -> None:
    error = InputError("rig here has tokrig 9", code="version_mismatch")
    doing, _, _ = work(runs("a"), tmp_path, {"a": error})
    doing.all()
    assert len(doing.tally.delayed) == 1
    assert list(Store(tmp_path).iter_paths()) == []


def test_a_server_that_is_away_is_put_off_and_one_without_the_model_has_failed(
    tmp_path: Path,
) -> None:
    served = one(matrix={"model": "m", "backend": "openai"}, set={"url": "http://127.0.0.1:9"})
    [planned] = made(loaded(served)).runs
    wanted = [replace(planned, run=replace(planned.run, key=key, rig="here")) for key in "ab"]
    away = InputError("nobody answers at 127.0.0.1:9", code="no_answer")
    none = InputError("the server knows no model 'm'")
    doing, _, _ = work(wanted, tmp_path, {"a": away, "b": none})
    doing.all()
    tally = doing.tally
    assert [d.why for d in tally.delayed] == [away]
    assert [d.planned.run.key for d in tally.failed] == ["b"]


@pytest.mark.parametrize("error", [StoreError("full"), Interrupted("stopped")])
def test_a_full_disk_and_the_user_end_it(tmp_path: Path, error: BaseException) -> None:
    doing, executor, _ = work(runs("a", "b"), tmp_path, {"a": error})
    with pytest.raises(type(error)):
        doing.all()
    assert executor.asked == ["a"]
    assert doing.tally.left == 2


def test_a_run_that_is_put_off_holds_up_its_sequence_alone(tmp_path: Path) -> None:
    sequence = runs("a1", "b1", "b2", "a2", sequence="matrix/0", arm="A")
    other = runs("a3", sequence="matrix/1", arm="A")
    doing, executor, _ = work([*sequence, *other], tmp_path, {"b1": PutOff("another driver")})
    doing.all()
    tally = doing.tally
    assert executor.asked == ["a1", "b1", "a3"]
    assert [d.planned.run.key for d in tally.delayed] == ["b1", "b2", "a2"]


def test_rigs_measure_side_by_side_one_run_each(tmp_path: Path) -> None:
    wanted = [*runs("a", "b", rig="one"), *runs("c", "d", rig="two"), *runs("e", rig="away")]
    doing, executor, _ = work(wanted, tmp_path, rigs=("one", "two"))
    meeting = threading.Barrier(2, timeout=60)

    def meet(run: Run) -> None:
        meeting.wait()  # both rigs are measuring now

    executor.meanwhile = meet
    doing.all()
    tally = doing.tally
    assert executor.most_at_once == 2
    assert set(executor.asked) == {"a", "b", "c", "d"}
    assert [d.why.code for d in tally.delayed] == ["rig_away"]
    assert tally.left == 0


def test_a_full_disk_stops_all_rigs(tmp_path: Path) -> None:
    wanted = [*runs("a", "b", rig="one"), *runs("c", "d", rig="two")]
    doing, executor, _ = work(wanted, tmp_path, {"a": StoreError("full")}, rigs=("one", "two"))

    def wait(run: Run) -> None:
        if run.rig == "two":
            executor.cancelled.wait(60)

    executor.meanwhile = wait
    with pytest.raises(StoreError):
        doing.all()
    assert executor.cancelled.is_set()
    assert set(executor.asked) <= {"a", "c"}


def test_the_stopwatch_tells_phases_apart() -> None:
    times = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    watch = Stopwatch(clock=lambda: next(times))
    watch.hear(Step("starting", phase="start"))
    watch.hear(Step("warming up", phase="warm_up"))
    watch.hear(CellBegan.__new__(CellBegan))
    watch.hear(CellDone.__new__(CellDone))
    assert watch.spent_s == {"other": 1.0 + 5.0, "start": 2.0, "warm_up": 3.0, "measure": 4.0}


def test_overhead_is_what_is_not_engine_start_warm_up_and_measurement() -> None:
    times = iter([0.0, 1.0, 9.0, 10.0])
    watch = Stopwatch(clock=lambda: next(times))
    watch.begin("measure")
    watch.begin("store")
    assert watch.overhead == pytest.approx(0.2)


HOLD = """
import sys, time
from tokrig.run.journal import this_rig
with this_rig("a long run"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_measures_at_a_time_and_a_crash_releases_the_rig() -> None:
    with this_rig("one"), this_rig("the same process may"):
        pass
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="a long run") as caught, this_rig("another"):
            pass
        assert caught.value.code == "rig_in_use"
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with this_rig("the next"):
                return
        except InputError:
            time.sleep(0.05)
    pytest.fail("a killed process still holds the rig")
