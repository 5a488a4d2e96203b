"""A run before somebody's eyes, on stderr: a small frame on a terminal, plain lines elsewhere.

The load loop only hands events over; a thread of its own draws twice a second, so that neither
drawing nor a terminal that has stopped (Ctrl-S, a hanging ssh) ever delays a time stamp.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TextIO

import click

from tokrig.cli.board import Board, Line, clip, clock, figures
from tokrig.cli.present import count
from tokrig.models.shelf import Tell
from tokrig.naming import backend_name, model_label
from tokrig.run.monitor import Engine, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import (
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    Listener,
    Note,
    Progress,
    RunBegan,
    Step,
)
from tokrig.units import human_seconds

HASHING = "reading the model's file; its checksum is made once"
PERIOD_S = 0.5
PLAIN_TICK_S = 15.0
STALLED_S = 2.0
STYLES = {"title": "1", "done": "32", "active": "1", "quiet": "2", "bad": "33"}


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
    board = Board(prepared.workloads, prepared.level, now_s)
    painter = Painter(stream, board, head)
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

    def __init__(self, stream: TextIO, board: Board, head: Callable[[], str] = lambda: "") -> None:
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
        size = self._size()
        head = self.head()
        above = [Line("quiet", clip(head, size.columns - 1))] if head else []
        with self.lock:
            height = size.lines - 1 - len(above)
            lines = above + self.board.frame(time.monotonic(), size.columns - 1, height)
        if lines == self.shown:
            return
        text = f"\x1b[{len(self.shown)}F" if self.shown else ""
        for number, line in enumerate(lines):
            same = number < len(self.shown) and self.shown[number] == line
            text += "\x1b[E" if same else f"\x1b[2K{self._styled(line)}\n"
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

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((80, 24))
        # A terminal that does not know its size says 0.
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def _styled(self, line: Line) -> str:
        return line.text if self.plain else f"\x1b[{STYLES[line.style]}m{line.text}\x1b[0m"


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
    def patience(self, text: str) -> Iterator[None]:
        """A remark, if what follows takes longer than a second."""
        timer = threading.Timer(1.0, self.note, [f"{text} …"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[Tell]:
        """Tells what is done before a run can begin: hashing, fetching, quantizing."""
        status = Status(sys.stderr, quiet=self.quiet)
        with self._before:
            self._before.enter_context(self.patience(HASHING))
            self._before.callback(status.end)
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

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Lines:
    """One line an event, each with the time since the start: for logs and pipes."""

    def __init__(self, stream: TextIO, began_s: float) -> None:
        self.stream, self.began_s = stream, began_s
        self.last_s = began_s
        self.of = 0

    def hear(self, event: Progress) -> None:
        """Print an event, if it is worth a line."""
        now_s = time.monotonic()
        if isinstance(event, CellTick) and now_s - self.last_s < PLAIN_TICK_S:
            return
        text = self.text(event)
        if not text:
            return
        self.last_s = now_s
        with contextlib.suppress(OSError, ValueError):
            print(f"[{clock(now_s - self.began_s):>5}] {text}", file=self.stream, flush=True)

    def text(self, event: Progress) -> str:
        """The words for an event; "" for one that is passed over."""
        match event:
            case RunBegan():
                kept = f", {event.already_done} of them kept" if event.already_done else ""
                results = len(event.cells) * event.repeats
                return (
                    f"run {event.run_id}: {model_label(event.model)} on {event.rig.id}, "
                    f"{count(results, 'result')}{kept}"
                )
            case Step(text=text, cell=cell):
                return f"{cell.label}: {text}" if cell else text
            case EngineReady():
                after = f" after {human_seconds(event.load_s)}" if event.load_s else ""
                return f"engine ready{after}: {backend_name(event.backend)}"
            case CellBegan():
                return f"{event.cell.label}: measuring ({event.index + 1} of {event.of})"
            case CellTick():
                return f"{event.cell.label}: {event.ended} of {event.requests} requests"
            case CellDone():
                took = human_seconds(event.elapsed_s)
                words = " ".join(figures(event.result).split())
                return f"{event.cell.label}: {words}, took {took}"
            case CellSkipped():
                return f"{event.cell.label}: left out: {event.message}"
            case Note():
                return f"note: {event.text}"
