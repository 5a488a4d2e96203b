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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TextIO

import click

from tokrig.cli.board import LOOKS, Board, Line, clip, clock, said
from tokrig.models.shelf import Tell
from tokrig.run.monitor import Engine, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import CellTick, Listener, Progress

HASHING = "reading the model's file; its checksum is made once"
PERIOD_S = 0.5
PLAIN_TICK_S = 15.0
STALLED_S = 2.0


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
