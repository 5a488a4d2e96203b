"""What a person sees while a run goes on: the board, its drawing, the plain lines, the show."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli import live, present, show
from tokrig.cli.board import Board, clip, clock, said
from tokrig.cli.present import print_findings, print_results
from tokrig.record.block import Summary
from tokrig.record.loads import Ladder
from tokrig.record.model import BackendFacts, Model, Result, Rig
from tokrig.record.samples import Cell
from tokrig.run.prepare import Prepared, prepare
from tokrig.run.progress import (
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    LadderEnded,
    Note,
    Progress,
    RunBegan,
    Step,
)
from tokrig.spec.run import LEVELS, RunSpec

CHAT, RAG = Cell("chat", 1), Cell("rag", 1)
RESULT = record_of([replace(sample(), iteration=n) for n in range(3)]).results[0]
READY = EngineReady(BackendFacts(name="embedded", engine="llama.cpp", api="cpu"), 1.5)


def prepared() -> Prepared:
    spec = RunSpec(backend="openai", url="http://127.0.0.1:9", workloads=["chat", "rag"])
    return prepare(spec, datetime(2026, 11, 22, tzinfo=UTC))


def began(repeats: int = 1, already_done: int = 0) -> RunBegan:
    model = Model(family="Tiny", quant="Q4_K_M")
    cells = (CHAT, RAG)
    return RunBegan("id", model, Rig(id="rig"), cells, repeats, already_done)


def board(*events: Progress, repeats: int = 1, already_done: int = 0) -> Board:
    """A board that heard ``events``, one a second from second 1 on."""
    made = Board(prepared().workloads, LEVELS["quick"], began_s=0)
    for second, event in enumerate((began(repeats, already_done), *events)):
        made.hear(event, second)
    return made


def texts(made: Board, now_s: float = 10, width: int = 100, height: int = 24) -> list[str]:
    return [line.text for line in made.frame(now_s, width, height)]


def test_the_board_walks_through_a_run() -> None:
    assert texts(board(Step("starting the engine")), now_s=42) == [
        "Tiny · Q4_K_M · rig rig",
        "· chat × 1  waiting",
        "· rag × 1   waiting",
        "  0:42 elapsed · starting the engine",
    ]
    events: list[Progress] = [READY, Step("warming up", CHAT)]
    assert texts(board(*events))[:2] == [
        "Tiny · Q4_K_M · llama.cpp (cpu) · rig rig",
        "▸ chat × 1  warming up",
    ]
    events += [CellBegan(CHAT, 0, 0, 2), CellTick(CHAT, 1, 3, 192, 4.0)]
    assert texts(board(*events))[1] == "▸ chat × 1  measuring 1 of 3  ████████░░░░░░░░ 0:04"
    events += [CellDone(CHAT, 0, RESULT, 12.0), CellSkipped(RAG, "too long")]
    assert texts(board(*events))[1:3] == [
        "✓ chat × 1    100.0 tok/s  TTFT  500 ms  prefill   256.0 tok/s  valid",
        "✗ rag × 1   left out: too long",
    ]


def test_the_bar_never_runs_ahead_of_the_requests() -> None:
    tick = CellTick(CHAT, 1, 3, 10**6, 4.0)
    made = board(Step("warming up", CHAT), CellBegan(CHAT, 0, 0, 2), tick)
    assert "  ███████████░░░░░ " in texts(made)[1], "two of three at most"


def test_steps_above_the_end_of_a_ladder_vanish_and_no_time_is_told_before() -> None:
    steps = tuple(Cell("chat", at) for at in (1, 2, 4, 8))
    ladder = Ladder(workload="chat", steps=[1, 2], most=8, ended_by="growth", knee=1)
    made = Board(prepared().workloads, LEVELS["quick"], began_s=0)
    made.hear(replace(began(), cells=steps, climbs=True), 0)
    for cell in steps[:2]:
        made.hear(CellDone(cell, 0, RESULT, 5.0), 5)
        assert made.remaining_s(5) is None
    made.hear(LadderEnded("chat", 2, ladder), 10)
    shown = [line.text for line in made.frame(10, 120, 40)]
    assert [line.split()[1:4] for line in shown[1:3]] == [["chat", "×", "1"], ["chat", "×", "2"]]
    assert "chat × 4" not in " ".join(shown)
    assert "the ladder of chat ends at 2: the system rate no longer grew by 5 %" in shown[3]
    assert made.remaining_s(10) is None or made.remaining_s(10) == 0
    assert "ends at 2" in said(LadderEnded("chat", 2, ladder))
    assert "no step" in said(LadderEnded("chat", 0, None))


def test_a_load_that_lasts_shows_its_time() -> None:
    made = board(Step("warming up", CHAT), CellBegan(CHAT, 0, 0, 2))
    made.hear(CellTick(CHAT, 12, 0, 900, 150.0, of_s=600.0), 150)
    assert "measuring 12 requests  ████░░░░░░░░░░░░ 2:30 of 10:00" in texts(made)[1]
    assert made.remaining_s(150) == 450
    told = said(CellTick(CHAT, 12, 0, 900, 150.0, of_s=600.0))
    assert told == "chat × 1: 12 requests, 2:30 of 10:00"
    told = said(CellTick(CHAT, 12, 0, 900, 601.0, of_s=600.0))
    assert told == "chat × 1: 12 requests, the last ones end"


def test_time_left_is_unknown_before_the_first_result() -> None:
    made = board(Step("warming up", CHAT))
    assert made.remaining_s(5) is None
    assert "left" not in texts(made)[-1]


def test_time_left_follows_from_the_pace() -> None:
    made = board(Step("warming up", CHAT), CellDone(CHAT, 0, RESULT, 10.0))
    # Prefill goes 2.56 times as fast as decoding: chat is 64/2.56 + 128, rag 4096/2.56 + 128.
    expected = 10.0 * (4096 / 2.56 + 128) / (64 / 2.56 + 128)
    assert made.remaining_s(3) == pytest.approx(expected)
    made.hear(Step("warming up", RAG), 100)
    assert made.remaining_s(130) == pytest.approx(expected - 30)
    assert made.remaining_s(100_000) == 0
    made.hear(CellBegan(RAG, 0, 1, 2), 150)
    made.hear(CellTick(RAG, 1, 3, 500, 20.0), 170)
    assert made.remaining_s(170) == pytest.approx(40), "its own requests tell better"
    made.hear(CellDone(RAG, 0, RESULT, 80.0), 180)
    assert made.remaining_s(180) == 0


def test_repeats_keep_the_figures_so_far() -> None:
    made = board(Step("warming up", CHAT), CellDone(CHAT, 0, RESULT, 10.0), repeats=6)
    line = texts(made)[1]
    assert line.startswith("· chat × 1")
    assert "100.0 tok/s" in line
    assert line.endswith("repeat 1 of 6")
    assert "repeat 1 of 6" in texts(made)[-1]
    left = made.remaining_s(10)
    assert left is not None
    assert left > 5 * 10.0


def test_a_resumed_run_shows_what_is_kept() -> None:
    made = board(already_done=1)
    assert texts(made)[1:3] == ["✓ chat × 1  kept from before", "· rag × 1   waiting"]


def test_a_small_terminal_shows_the_active_row() -> None:
    cells = tuple(Cell("chat", n) for n in range(1, 31))
    made = Board(prepared().workloads, LEVELS["quick"], began_s=0)
    made.hear(replace(began(), cells=cells), 0)
    made.hear(Step("warming up", cells[20]), 1)
    shown = texts(made, height=8)
    assert len(shown) == 8
    assert any(line.startswith("▸ chat × 21") for line in shown)


def test_notes_stay_in_sight() -> None:
    made = board(*(Note(f"note {n}") for n in range(5)))
    assert texts(made)[-3:-1] == ["  note: note 3", "  note: note 4"]


@given(st.text(), st.integers(1, 40))
def test_a_clipped_line_fits_and_moves_no_cursor(text: str, width: int) -> None:
    clipped = clip(text, width)
    assert clipped.isprintable()
    assert len(clipped) <= width
    if text.isascii() and text.isprintable():
        assert clipped == (text if len(text) <= width else clipped[:-1] + "…")


def test_wide_characters_count_twice() -> None:
    assert clip("通义千问", 8) == "通义千问"
    assert clip("通义千问", 6) == "通义…"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0:00"), (59.9, "0:59"), (605, "10:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


class Terminal:
    """A pseudo terminal and what was written to it."""

    def __init__(self) -> None:
        self.leader, follower = pty.openpty()
        self.stream: TextIO = os.fdopen(follower, "w")
        self.seen = b""
        self.reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        try:
            while data := os.read(self.leader, 65536):
                self.seen += data
        except OSError:
            pass

    def text(self) -> str:
        self.stream.close()
        self.reader.join(60)
        os.close(self.leader)
        return self.seen.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def interrupted_view(terminal: Terminal) -> str:
    """What a run that was interrupted at once leaves on the terminal."""
    terminal.reader.start()
    with contextlib.suppress(KeyboardInterrupt), live.view(terminal.stream, prepared()) as listen:
        listen(began())
        raise KeyboardInterrupt
    return terminal.text()


def test_on_a_terminal_the_frame_is_drawn_and_vanishes(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PERIOD_S", 0.01)
    terminal.reader.start()
    with live.view(terminal.stream, prepared()) as listen:
        listen(began())
        listen(Note("worth knowing"))
        listen(Step("warming up", CHAT))
        deadline = time.monotonic() + 60
        while b"warming up" not in terminal.seen and time.monotonic() < deadline:
            time.sleep(0.01)
    text = terminal.text()
    assert "▸ chat × 1  warming up" in text
    assert text.endswith("\x1b[J" + "note: worth knowing\r\n"), "only the note stays"
    assert not [t for t in threading.enumerate() if t.name == "live view"]


def test_after_a_failure_the_frame_stays(terminal: Terminal) -> None:
    text = interrupted_view(terminal)
    assert "· chat × 1  waiting" in text
    assert text.rstrip("\x1b[J").endswith("\n"), "what follows begins on a line of its own"


def test_a_stopped_terminal_never_delays_an_event(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads: the kernel's buffer fills up and the drawing thread hangs. Events do not."""
    monkeypatch.setattr(live, "PERIOD_S", 0.0)
    monkeypatch.setattr(live, "STALLED_S", 0.1)
    slowest_s = 0.0
    with live.view(terminal.stream, prepared()) as listen:
        listen(began())
        listen(Step("warming up", CHAT))
        for number in range(3000):
            before = time.perf_counter()
            listen(CellTick(CHAT, 1, 3, number, number))
            slowest_s = max(slowest_s, time.perf_counter() - before)
    assert slowest_s < 30
    terminal.reader.start()
    terminal.text()


def test_without_colour(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = interrupted_view(terminal)
    assert "chat × 1" in text
    assert "\x1b[1m" not in text
    assert "\x1b[2m" not in text


def test_a_dumb_terminal_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal.reader.start()
    with live.view(terminal.stream, prepared()) as listen:
        listen(began())
    assert "\x1b" not in terminal.text()


def test_elsewhere_there_is_a_line_an_event() -> None:
    stream = io.StringIO()
    with live.view(stream, prepared()) as listen:
        for event in (
            began(already_done=1),
            Step("starting the engine"),
            READY,
            Step("warming up", RAG),
            CellBegan(RAG, 0, 1, 2),
            CellTick(RAG, 0, 3, 1, 0.5),
            CellDone(RAG, 0, RESULT, 12.0),
            CellSkipped(CHAT, "too long"),
            Note("worth knowing"),
        ):
            listen(event)
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == [
        "run id: Tiny · Q4_K_M on rig, 2 results, 1 of them kept",
        "starting the engine",
        "engine ready after 1.50 s: llama.cpp (cpu)",
        "rag × 1: warming up",
        "rag × 1: measuring (2 of 2)",
        "rag × 1: 100.0 tok/s TTFT 500 ms prefill 256.0 tok/s valid, took 12.00 s",
        "chat × 1: left out: too long",
        "note: worth knowing",
    ]


def test_ticks_are_rare_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    stream = io.StringIO()
    lines = live.Lines(stream, 0.0)
    for half_seconds in range(200):
        now_s = half_seconds / 2
        lines.hear(CellTick(RAG, 1, 3, half_seconds, now_s))
    shown = stream.getvalue().splitlines()
    assert len(shown) == 6
    assert shown[0] == "[ 0:15] rag × 1: 1 of 3 requests"


def test_a_stream_that_is_gone_does_not_end_the_run() -> None:
    stream = io.StringIO()
    stream.close()
    live.Lines(stream, 0.0).hear(Note("nobody hears this"))


def test_quiet_writes_nothing() -> None:
    stream = io.StringIO()
    with live.view(stream, prepared(), quiet=True) as listen:
        listen(began())
    assert stream.getvalue() == ""


# Charts and tables


def test_a_sparkline_has_a_block_a_value() -> None:
    assert show.sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert show.sparkline([]) == ""
    assert show.sparkline([5, 5, 5]) == "▄▄▄"
    assert show.sparkline([100, 100.5]) == "▄▄", "noise is no shape"
    assert len(show.sparkline(list(range(1000)))) == show.MAX_BARS


@given(st.lists(st.floats(0, 1e6), max_size=200), st.integers(1, 50))
def test_bins_lose_nothing(values: list[float], number: int) -> None:
    counts, low, high, beyond = show.bins(values, number)
    assert sum(counts) + beyond == len(values)
    assert low <= high
    assert beyond <= len(values) * 0.01 + 1
    assert len(show.histogram(counts)) == len(counts)


def test_a_histogram_shows_a_lone_value() -> None:
    assert show.histogram([100, 0, 1]) == "█ ▂"


@pytest.mark.parametrize(
    ("per_s", "text"), [(None, "–"), (3.417, "3.42"), (148.31, "148.3"), (12345.6, "12,346")]
)
def test_rates(per_s: float | None, text: str) -> None:
    assert present.rate(per_s) == text


def test_the_interval_goes_before_the_range() -> None:
    plain = Summary(median=150, min=140, max=160, n=3)
    assert present.spread(plain) == "140–160"
    assert present.spread(plain.model_copy(update={"ci95": (148.2, 152.1)})) == "148–152"
    assert present.spread(Summary(median=15, min=14.04, max=15.96, n=3)) == "14.0–16.0"


@pytest.mark.parametrize("metric", [None, Summary(median=15), Summary(median=15, min=14)])
def test_a_bare_median_has_no_range(metric: Summary | None) -> None:
    assert present.spread(metric) == "–"


def typical(number: int) -> Result:
    """A row as wide as they usually get."""
    facts = RESULT.workload.model_copy(update={"name": "agent"})
    rate = Summary(median=148.31, min=141.2, max=152.9, n=12)
    fast = Summary(median=1234.5, min=1200, max=1300, n=12)
    changes = {"output_tok_per_s": rate, "system_tok_per_s": rate, "end_to_end_tok_per_s": rate}
    changes |= {"prefill_tok_per_s": fast}
    more = {"workload": facts, "concurrency": number, "client_cpu_share": 0.031}
    return RESULT.model_copy(update=changes | more)


@pytest.mark.parametrize(("width", "tables"), [(100, 1), (80, 2)])
def test_the_table_fits_a_terminal_of(width: int, tables: int) -> None:
    stream = io.StringIO()
    print_results(Console(file=stream, width=width), [typical(1), typical(4)])
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("agent × 4") for line in lines) == tables
    assert "141–153" in stream.getvalue()
    assert "…" not in stream.getvalue()


def test_findings_name_results_only_where_they_differ() -> None:
    record = record_of([sample()])
    other = record.results[0].model_copy(
        update={
            "workload": record.results[0].workload.model_copy(update={"name": "rag"}),
            "validity": record.validity.model_copy(
                update={"verdict": "invalid", "reasons": ["cached_tokens"]}
            ),
        }
    )
    both = record.model_copy(update={"results": [record.results[0], other]})
    stream = io.StringIO()
    print_findings(Console(file=stream, width=200), both)
    assert "INVALID  cached_tokens (rag × 1): the engine reused" in " ".join(
        stream.getvalue().split("\n")
    )
