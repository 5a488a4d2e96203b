"""A run before somebody's eyes, on stderr: a small frame on a terminal, plain lines elsewhere.

The load loop only hands events over; a thread of its own draws twice a second, so that neither
drawing nor a terminal that has stopped (Ctrl-S, a hanging ssh) ever delays a time stamp. Frames
are drawn without rich: one costs a tenth of a millisecond, and the processor belongs to the
engine that is being measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

import click

from tokrig.cli.present import count, rate, verdict
from tokrig.models.shelf import Tell
from tokrig.naming import backend_name, ladder_end, model_label
from tokrig.record.model import Result
from tokrig.record.samples import Cell
from tokrig.run.monitor import Engine, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import (
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    LadderEnded,
    Listener,
    Note,
    Progress,
    RunBegan,
    Step,
)
from tokrig.spec.run import Level
from tokrig.units import human_seconds
from tokrig.workloads import Workload

HASHING = "reading the model's file; its checksum is made once"
PERIOD_S = 0.5
PLAIN_TICK_S = 15.0
STALLED_S = 2.0
BAR = 16
# Before anything was measured, a prompt token counts as a tenth of an answer's.
PROMPT_WEIGHT = 0.1
# Lines of the frame: the mark before a cell in that state, and the terminal's code for its looks.
LOOKS = {
    "title": ("", "1"),
    "done": ("✓", "32"),
    "active": ("▸", "1"),
    "bad": ("✗", "33"),
    "waiting": ("·", "2"),
    "quiet": ("", "2"),
}


# What is known of a run


class Line(NamedTuple):
    """A line of the frame and how it looks, a key of ``LOOKS``."""

    style: str
    text: str


@dataclass
class _Row:
    """A cell. ``begun_s`` and ``took_s`` are of its latest repeat, ``tick`` of one that goes on."""

    state: str = "waiting"
    text: str = "waiting"
    figures: str = ""
    tick: CellTick | None = None
    begun_s: float | None = None
    took_s: float | None = None


@dataclass
class Board:
    """Hears the events of a run; ``frame`` is what a person should see now. Time is handed in."""

    shapes: Mapping[str, Workload]
    level: Level
    began_s: float
    title: str = ""
    rig: str = ""
    engine: str = ""
    doing: str = "preparing"
    repeat: int = 0
    repeats: int = 1
    rows: dict[Cell, _Row] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left: list[Cell] = field(default_factory=list)
    active: Cell | None = None
    prompt_weight: float = PROMPT_WEIGHT
    climbing: set[str] = field(default_factory=set)

    def hear(self, event: Progress, now_s: float) -> None:
        """Take one event in."""
        cell = getattr(event, "cell", None)
        if isinstance(cell, Cell) and cell.is_open:
            # Which rates a search tries is known only on its way.
            self.rows.setdefault(cell, _Row())
        match event:
            case CellTick(cell=cell):
                self.rows[cell].tick = event
            case RunBegan():
                self._begin(event)
            case Step(text=text, cell=None):
                self.doing, self.active = text, None
            case Step(text=text, cell=Cell() as cell):
                self.doing, self.active, row = "", cell, self.rows[cell]
                row.state, row.text, row.tick = "active", text, None
                row.begun_s = now_s if row.begun_s is None else row.begun_s
            case EngineReady(backend=backend):
                self.engine, self.doing = backend_name(backend), ""
            case CellBegan(cell=cell):
                row, self.repeat = self.rows[cell], event.repeat
                row.state, row.text, row.tick = "active", "measuring", None
            case CellDone():
                self._done(event)
            case CellSkipped(cell=cell):
                self.active, row = None, self.rows[cell]
                self.left = [other for other in self.left if other != cell]
                row.state, row.text = "bad", f"left out: {event.message}"
            case LadderEnded():
                self.climbing.discard(event.workload)
                self.rows = {c: row for c, row in self.rows.items() if not event.above(c)}
                self.left = [cell for cell in self.left if not event.above(cell)]
                self.notes.append(ladder_text(event))
            case Note(text=text):
                self.notes.append(text)

    def _begin(self, event: RunBegan) -> None:
        self.title, self.rig = model_label(event.model), event.rig.id
        self.repeats = event.repeats
        self.climbing = {cell.workload for cell in event.cells if event.climbs}
        self.rows = {cell: _Row() for cell in event.cells}
        order = list(event.cells) * event.repeats
        self.left = order[event.already_done :]
        for cell in order[: event.already_done]:
            self.rows[cell].figures = "kept from before"
            if cell not in self.left:
                self.rows[cell].state = "done"

    def _done(self, event: CellDone) -> None:
        row, result = self.rows[event.cell], event.result
        self.active, row.begun_s, row.took_s = None, None, event.elapsed_s
        if event.cell in self.left:
            self.left.remove(event.cell)
        row.figures = figures(result)
        row.state = "waiting" if event.cell in self.left else "done"
        row.text = f"repeat {event.repeat + 1} of {self.repeats}" if self.repeats > 1 else ""
        if result.output_tok_per_s and result.prefill_tok_per_s:
            self.prompt_weight = result.output_tok_per_s.median / result.prefill_tok_per_s.median

    def remaining_s(self, now_s: float) -> float | None:
        """Estimated seconds until the end; None before the first result, and on a ladder.

        A cell that was measured takes as long again; another one its tokens at the same pace. What
        is left of the active cell is told by its own requests once some have ended.
        """
        if self.active and (tick := self.rows[self.active].tick) and tick.of_s:
            return max(0.0, tick.of_s - tick.elapsed_s)
        if self.climbing:
            return None  # where that ends nobody knows
        took_s = {cell: row.took_s for cell, row in self.rows.items() if row.took_s is not None}
        work = sum(map(self._work, took_s))
        if not work:
            return None
        pace = sum(took_s.values()) / work
        whole = {cell: took_s.get(cell, pace * self._work(cell)) for cell in self.left}
        total = sum(whole[cell] for cell in self.left)
        if self.active in whole:
            row, begun = self.rows[self.active], whole[self.active]
            total -= begun
            if row.tick and row.tick.requests and row.tick.ended:
                total += row.tick.elapsed_s * (row.tick.requests / row.tick.ended - 1)
            else:
                total += max(0.0, begun - (now_s - (now_s if row.begun_s is None else row.begun_s)))
        return max(0.0, total)

    def _work(self, cell: Cell) -> float:
        """Tokens of one repeat of a cell, prompt tokens weighed by how much faster they go."""
        shape = self.shapes[cell.workload]
        if shape.turns:  # what is in the cache takes no time
            answers = sum(turn.answer_tokens for turn in shape.turns)
            return cell.concurrency * (shape.prompt_tokens * self.prompt_weight + answers)
        sets = (self.level.iterations + self.level.warmups) * cell.concurrency
        prompt = shape.prompt_tokens + cell.depth_tokens
        return sets * (prompt * self.prompt_weight + shape.answer_tokens)

    def frame(self, now_s: float, width: int, height: int) -> list[Line]:
        """Title, a line a cell, notes, and the time; at most ``height`` lines."""
        parts = (self.title, self.engine, self.rig and f"rig {self.rig}")
        lines = [Line("title", " · ".join(filter(None, parts)))]
        cells = list(self.rows)
        room = max(1, height - 2 - len(self.notes[-2:]))
        if len(cells) > room:
            active = cells.index(self.active) if self.active else 0
            first = min(max(0, active - room // 2), len(cells) - room)
            cells = cells[first : first + room]
        labels = max((len(cell.label) for cell in self.rows), default=0)
        for cell in cells:
            row = self.rows[cell]
            text = self._measuring(row.tick) if row.tick and row.state == "active" else row.text
            words = "  ".join(filter(None, (row.figures, "" if row.state == "done" else text)))
            lines.append(Line(row.state, f"{LOOKS[row.state][0]} {cell.label:<{labels}}  {words}"))
        lines += [Line("quiet", f"  note: {note}") for note in self.notes[-2:]]
        left = self.remaining_s(now_s)
        footer = (
            f"{clock(now_s - self.began_s)} elapsed",
            f"about {clock(left)} left" if left is not None and self.left else "",
            f"repeat {self.repeat + 1} of {self.repeats}" if self.repeats > 1 else "",
            self.doing,
        )
        lines.append(Line("quiet", "  " + " · ".join(filter(None, footer))))
        return [Line(style, clip(text, width)) for style, text in lines]

    def _measuring(self, tick: CellTick) -> str:
        """A bar of ended requests, and within those in flight what was read of the answers."""
        if tick.of_s:
            full = round(min(tick.elapsed_s / tick.of_s, 1) * BAR)
            bar = "█" * full + "░" * (BAR - full)
            return f"measuring {tick.ended} requests  {bar} {_lasted(tick.elapsed_s, tick.of_s)}"
        if tick.in_flight is not None:
            full = round(tick.ended / tick.requests * BAR) if tick.requests else 0
            bar = "█" * full + "░" * (BAR - full)
            done = f"{tick.ended} of {tick.requests}, {tick.in_flight} in flight"
            return f"measuring {done}  {bar} {clock(tick.elapsed_s)}"
        answer = self.shapes[tick.cell.workload].answer_tokens
        in_flight = min(tick.requests, tick.ended + tick.cell.concurrency)
        read = min(tick.reads / answer, in_flight) if answer else 0
        full = round(max(tick.ended, read) / tick.requests * BAR)
        bar = "█" * full + "░" * (BAR - full)
        return f"measuring {tick.ended} of {tick.requests}  {bar} {clock(tick.elapsed_s)}"


def figures(result: Result) -> str:
    """``148.3 tok/s  TTFT 412 ms  prefill 1,234 tok/s  valid``; of requests that arrive by
    themselves, what becomes of them."""
    if (found := result.open_loop) is not None:
        ttft, lag = (one.p50 if one else None for one in (found.ttft_s, found.lag_s))
        met = found.goodput_share
        slo = "" if met is None else f"  SLO met {100 * met:.0f} %"
        return (
            f"{rate(found.completed_per_s):>5}/s answered  TTFT {human_seconds(ttft):>7}{slo}  lag"
            f" {human_seconds(lag)}{'  overloaded' * found.overloaded}  {verdict(result.validity)}"
        )
    gen, prefill, ttft = (
        metric.median if metric else None
        for metric in (result.output_tok_per_s, result.prefill_tok_per_s, result.ttft_s)
    )
    return (
        f"{rate(gen):>7} tok/s  TTFT {human_seconds(ttft):>7}  "
        f"prefill {rate(prefill):>7} tok/s  {verdict(result.validity)}"
    )


def ladder_text(event: LadderEnded) -> str:
    """``the ladder of chat ends at 16 …``."""
    if event.ladder is None:
        return f"the ladder of {event.workload} has no step that can be measured"
    return f"the ladder of {event.workload} {ladder_end(event.ladder)}"


def _lasted(elapsed_s: float, of_s: float) -> str:
    """``2:30 of 10:00``; when that is over, what is waited for."""
    return f"{clock(elapsed_s)} of {clock(of_s)}" if elapsed_s < of_s else "the last ones end"


def clock(seconds: float) -> str:
    """``0:42``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def clip(text: str, width: int) -> str:
    """``text`` cut to ``width`` terminal cells, control characters taken out."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) <= width // 2 or (text.isascii() and len(text) <= width):
        return text
    cells = 0
    for place, character in enumerate(text):
        cells += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if cells > width:
            return text[: max(0, place - 1)] + "…"
    return text


# A run on a terminal, in a log


@contextlib.contextmanager
def view(
    stream: TextIO,
    prepared: Prepared,
    *,
    quiet: bool = False,
    head: Callable[[], str] = lambda: "",
) -> Iterator[Listener]:
    """A listener that shows what it hears on ``stream``. The frame vanishes after a run that
    went through, for its table follows; after anything else it stays. ``head`` gives a line that
    stands above it."""
    if quiet:
        yield lambda event: None
        return
    now_s = time.monotonic()
    if not _is_terminal(stream):
        yield Lines(stream, now_s).hear
        return
    painter = Painter(stream, Board(prepared.workloads, prepared.level, now_s), head)
    painter.start()
    try:
        yield painter.hear
    except BaseException:
        painter.stop(erase=False)
        raise
    painter.stop(erase=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Painter(threading.Thread):
    """Draws a board in place, again and again, until it is stopped."""

    def __init__(self, stream: TextIO, board: Board, head: Callable[[], str]) -> None:
        super().__init__(name="live view", daemon=True)
        self.stream, self.board, self.head = stream, board, head
        self.plain = bool(os.environ.get("NO_COLOR"))
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.shown: list[Line] = []

    def hear(self, event: Progress) -> None:
        """Take an event in; drawing is for the thread."""
        with self.lock:
            self.board.hear(event, time.monotonic())

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone: nobody looks
            while not self.ended.wait(PERIOD_S):
                self.paint()

    def paint(self) -> None:
        """Draw what has changed since the last time."""
        try:
            columns, height = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, height = 0, 0
        # A terminal that does not know its size says 0.
        columns, height = (columns or 80) - 1, (height or 24) - 1
        head = self.head()
        lines = [Line("quiet", clip(head, columns))] if head else []
        with self.lock:
            lines += self.board.frame(time.monotonic(), columns, height - len(lines))
        if lines == self.shown:
            return
        text = f"\x1b[{len(self.shown)}F" if self.shown else ""
        for number, line in enumerate(lines):
            same = number < len(self.shown) and self.shown[number] == line
            shown = line.text if self.plain else f"\x1b[{LOOKS[line.style][1]}m{line.text}\x1b[0m"
            text += "\x1b[E" if same else f"\x1b[2K{shown}\n"
        self._write(text + "\x1b[J")
        self.shown = lines

    def _write(self, text: str) -> None:
        """Past the stream's own buffer, whose lock a stopped terminal would hold for ever."""
        data = text.encode(self.stream.encoding or "utf-8", "replace")
        while data:
            data = data[os.write(self.stream.fileno(), data) :]

    def stop(self, *, erase: bool) -> None:
        """End the thread; leave the last frame, or only the notes."""
        self.ended.set()
        self.join(STALLED_S)
        if self.is_alive():
            return
        with contextlib.suppress(OSError, ValueError):
            if not erase:
                self.paint()
                return
            up = f"\x1b[{len(self.shown)}F" if self.shown else ""
            notes = "".join(f"note: {note}\n" for note in self.board.notes)
            self._write(f"{up}\x1b[J{notes}")


class Lines:
    """One line an event, each with the time since the start: for logs and pipes."""

    def __init__(self, stream: TextIO, began_s: float) -> None:
        self.stream, self.began_s = stream, began_s
        self.last_s = began_s

    def hear(self, event: Progress) -> None:
        """Print an event, if it is worth a line."""
        now_s = time.monotonic()
        if isinstance(event, CellTick) and now_s - self.last_s < PLAIN_TICK_S:
            return
        self.last_s = now_s
        with contextlib.suppress(OSError, ValueError):
            text = f"[{clock(now_s - self.began_s):>5}] {said(event)}"
            print(text, file=self.stream, flush=True)


def said(event: Progress) -> str:
    """The words for an event."""
    match event:
        case RunBegan(model=model, rig=rig, already_done=done):
            results = count(len(event.cells) * event.repeats, "result")
            kept = f", {done} of them kept" if done else ""
            many = f"up to {results}" if event.climbs else results
            return f"run {event.run_id}: {model_label(model)} on {rig.id}, {many}{kept}"
        case Step(text=text, cell=cell):
            return f"{cell.label}: {text}" if cell else text
        case EngineReady(backend=backend, load_s=load_s):
            after = f" after {human_seconds(load_s)}" if load_s else ""
            return f"engine ready{after}: {backend_name(backend)}"
        case CellBegan(index=index, of=of):
            text = f"measuring ({index + 1} of {of})" if of else "measuring"
        case CellTick(ended=ended, of_s=float() as of_s, elapsed_s=elapsed_s):
            text = f"{ended} requests, {_lasted(elapsed_s, of_s)}"
        case CellTick(ended=ended, requests=requests, in_flight=in_flight):
            text = f"{ended} of {requests} requests"
            text += "" if in_flight is None else f", {in_flight} in flight"
        case CellDone(result=result, elapsed_s=elapsed_s):
            text = f"{' '.join(figures(result).split())}, took {human_seconds(elapsed_s)}"
        case CellSkipped(message=message):
            text = f"left out: {message}"
        case LadderEnded():
            return ladder_text(event)
        case Note(text=text):
            return f"note: {text}"
    return f"{event.cell.label}: {text}"


# Before a run


class Status:
    """What goes on before a run: a line in place on a terminal, elsewhere a line now and then."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self.in_place = _is_terminal(stream)
        self.standing = False
        self.step: tuple[str, int] | None = None
        self.last_s: float | None = None

    def tell(self, doing: str, share: float | None) -> None:
        """Show a step, and how far it is (0 to 1); elsewhere each tenth of it."""
        step = doing, int((share or 0) * (100 if self.in_place else 10))
        if step != self.step:
            self.step = step
            self._show(doing if share is None else f"{doing}: {share:.0%}", stays=False)

    def notice(self, text: str, left_s: float) -> None:
        """Show what loads the machine; ``left_s`` is how much longer it is waited for, 0 where it
        is not."""
        if left_s <= 0:
            self._show(f"note: {text}", stays=True)
        elif self.in_place:
            columns = os.get_terminal_size(self.stream.fileno()).columns
            left = f"waiting for a quiet machine, {left_s:.0f} s: "
            self._show(clip(left + text, columns - 1), stays=False)
        elif self.last_s is None or self.last_s - left_s >= PLAIN_TICK_S:
            self.last_s = left_s
            self._show(f"waiting for a quiet machine, {left_s:.0f} s at most: {text}", stays=True)

    def start(self, computes_on: frozenset[str], engine: Engine = list) -> None:
        """Let a run begin when the machine is quiet."""
        self.end()
        try:
            patiently(computes_on, engine, self.notice)
        finally:
            self.end()

    def end(self) -> None:
        """Make room for what comes next."""
        if self.standing:
            self._show("", stays=False)
        self.standing, self.step, self.last_s = False, None, None

    def _show(self, text: str, *, stays: bool) -> None:
        if self.quiet:
            return
        begin = "\r\x1b[2K" if self.in_place else ""
        self.standing = self.in_place and not stays
        with contextlib.suppress(OSError, ValueError):
            end = "" if self.standing else "\n"
            print(f"{begin}{text}", end=end, file=self.stream, flush=True)


@dataclass
class Watch:
    """A run before somebody's eyes: what is said while it is prepared, waited for, measured."""

    quiet: bool = False
    even_if_busy: bool = False
    _before: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet:
            click.echo(f"note: {text}", err=True)

    @contextlib.contextmanager
    def preparing(self) -> Iterator[Tell]:
        """Tells what is done before a run can begin: fetching, quantizing, and hashing if that
        takes longer than a second."""
        status = Status(sys.stderr, quiet=self.quiet)
        timer = threading.Timer(1.0, self.note, [f"{HASHING} …"])
        timer.daemon = True
        timer.start()
        with self._before:
            self._before.callback(status.end)
            self._before.callback(timer.cancel)
            yield status.tell

    def start(self, computes_on: frozenset[str], engine: Engine = list) -> None:
        """Let a run begin, when the machine is quiet or that is not asked for."""
        self._before.close()
        if not self.even_if_busy:
            Status(sys.stderr, quiet=self.quiet).start(computes_on, engine)

    def view(self, prepared: Prepared) -> AbstractContextManager[Listener]:
        """The run itself, once it is prepared."""
        self._before.close()
        return view(sys.stderr, prepared, quiet=self.quiet)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, unless they are ignored (nohup)."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {
        number: signal.signal(number, interrupt)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
