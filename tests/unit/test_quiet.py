"""A quiet start: what counts as load, by where the engine computes, and what is then said."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tokrig.cli.live import Status
from tokrig.cli.main import main
from tokrig.errors import PutOff
from tokrig.probes import Card, Reading
from tokrig.run import monitor
from tokrig.run.monitor import Load

CPU, GPU, ELSEWHERE = frozenset({"cpu"}), frozenset({"gpu"}), frozenset[str]()
BUILDING = Load(cores=1.9, cpus=2, programs=("cc1 99 %", "python 88 %"))
TRAINING = Load(cpus=16, cards=("NVIDIA Made Card is 99% busy (train)",), of_cards=1)


@pytest.mark.parametrize(
    ("load", "where", "matters"),
    [
        (Load(), CPU, False),
        # A desktop at rest, and a quarter of a core, on two cores and on many.
        (Load(cores=0.2, cpus=2), CPU, False),
        (Load(cores=0.25, cpus=2), CPU, True),
        (Load(cores=0.25, cpus=16), CPU, False),
        (Load(cores=0.9, cpus=16), CPU, True),
        # A few threads beside a card, or a client alone, find a core that is free.
        (Load(cores=4, cpus=16), GPU, False),
        (Load(cores=4, cpus=16), ELSEWHERE, False),
        (Load(cores=9, cpus=16), GPU, True),
        (Load(cores=9, cpus=16), ELSEWHERE, True),
        # A busy card is no matter to an engine that is not on it, nor while another is free.
        (TRAINING, CPU, False),
        (TRAINING, ELSEWHERE, False),
        (TRAINING, GPU, True),
        (Load(cards=("a card is 99% busy",), of_cards=2), GPU, False),
    ],
)
def test_what_matters(load: Load, where: frozenset[str], matters: bool) -> None:
    assert load.matters(where) is matters


def test_a_quiet_machine_is_begun_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "load", lambda engine: Load(cores=0.1, cpus=2))
    said: list[str] = []
    monitor.patiently(CPU, list, lambda text, left_s: said.append(text))
    assert said == []


def test_what_does_not_matter_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        monitor, "load", lambda engine: Load(cores=4, cpus=16, programs=("make 400 %",))
    )
    said: list[tuple[str, float]] = []
    monitor.patiently(GPU, list, lambda text, left_s: said.append((text, left_s)))
    assert said == [("4.0 of 16 cores are busy (make 400 %)", 0)]


def test_it_waits_until_the_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Iterator[Load] = iter([BUILDING, BUILDING, Load(cpus=2)])
    monkeypatch.setattr(monitor, "load", lambda engine: next(looks))
    left: list[float] = []
    monitor.patiently(CPU, list, lambda text, left_s: left.append(left_s))
    assert len(left) == 2
    assert 59 < left[0] <= 60


def refused(monkeypatch: pytest.MonkeyPatch, seen: Load) -> None:
    monkeypatch.setattr(monitor, "PATIENCE_S", 0.0)
    monkeypatch.setattr(monitor, "load", lambda engine: seen)


def test_then_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, BUILDING)
    with pytest.raises(PutOff) as caught:
        monitor.patiently(CPU)
    assert caught.value.code == "rig_busy"
    assert caught.value.exit_code == 3
    assert "1.9 of 2 cores are busy (cc1 99 %, python 88 %)" in caught.value.message
    assert "--even-if-busy" in caught.value.hint


@pytest.mark.parametrize("words", [("run", "--url", "http://127.0.0.1:9", "--workload", "chat")])
def test_the_command_line_refuses_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    refused(monkeypatch, BUILDING)
    monkeypatch.setattr("tokrig.measure.require_answer", lambda endpoint: None)
    env = {
        "TOKRIG_CONTENT": str(tmp_path / "content"),
        "TOKRIG_STATE": str(tmp_path / "state"),
        "TOKRIG_EVEN_IF_BUSY": None,
    }
    done = CliRunner(env=env).invoke(main, [*words, "--backend", "openai"])
    assert done.exit_code == 3, done.output
    assert "something else loads this machine: 1.9 of 2 cores" in done.output
    assert not list((tmp_path / "content").rglob("*.yaml"))


def test_a_busy_loop_is_seen_and_named() -> None:
    loop = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(loop) as burner:
        try:
            deadline = time.monotonic() + 60
            while (seen := monitor.load()).cores <= 0.2 and time.monotonic() < deadline:
                pass  # it takes a moment to start
        finally:
            burner.kill()
    assert seen.cores > 0.2
    assert any(Path(sys.executable).resolve().name[:6] in name for name in seen.programs)
    assert seen.cpus == len(os.sched_getaffinity(0))


@dataclass
class Spinning:
    """An engine's process that used a second of processor between two questions."""

    pid: int = 2**22 + 1
    user: float = 0.0
    system: float = 0.0
    rss: int = 0

    def cpu_times(self) -> Spinning:
        self.user += 1.0
        return replace(self)

    def memory_info(self) -> Spinning:
        return self

    def oneshot(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def test_an_engine_that_never_rests_is_no_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter([[10.0, 10.0], [11.0, 10.0]])
    monkeypatch.setattr(monitor, "_busy_s", lambda reader: next(busy))
    assert monitor.load([Spinning()], 0.01).cores == 0  # type: ignore[list-item]


class Window:
    """A probe of one card, another reading each time."""

    name = "made"

    def __init__(self, *cards: Card) -> None:
        self.cards = list(cards)

    def read(self) -> Reading:
        return Reading(cards=(self.cards.pop(0),))


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.0, 0.0), []),
        ((0.9, 0.0), []),  # a moment of a desktop
        ((0.5, 0.99), [f"Made Card is 99% busy (process {2**22 + 1})"]),
    ],
)
def test_a_card_is_busy_when_it_is_so_twice(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, float], words: list[str]
) -> None:
    cards = [
        Card("k", "Made Card", busy=share, compute_bytes={2**22 + 1: 5}, graphics_bytes={1: 9})
        for share in shares
    ]
    monkeypatch.setattr(monitor, "probes", lambda: [Window(*cards)])
    seen = monitor.load((), 0.01)
    assert (list(seen.cards), seen.of_cards) == (words, 1)


def test_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    waiting = Status(out)
    for left_s in (60.0, 58.9, 46.0, 44.0, 1.0):
        waiting.notice("2.0 of 2 cores are busy", left_s)
    waiting.notice("0.3 of 2 cores are busy", 0.0)
    waiting.end()
    assert out.getvalue().splitlines() == [
        "waiting for a quiet machine, 60 s at most: 2.0 of 2 cores are busy",
        "waiting for a quiet machine, 44 s at most: 2.0 of 2 cores are busy",
        "waiting for a quiet machine, 1 s at most: 2.0 of 2 cores are busy",
        "note: 0.3 of 2 cores are busy",
    ]
    Status(out, quiet=True).notice("nothing", 5)
    assert "nothing" not in out.getvalue()
