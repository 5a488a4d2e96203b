"""Progress on stderr: a small frame on a terminal, plain lines elsewhere.

The load loop only hands events over; a thread of its own draws twice a second, so that neither
drawing nor a terminal that has stopped (Ctrl-S, a hanging ssh) ever delays a time stamp.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tokrig.cli.board import Board, Line, clip, clock, figures
from tokrig.cli.present import model_name
from tokrig.naming import backend_name
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
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
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


class Steps:
    """What goes on before a run: a line in place on a terminal, elsewhere one for each tenth."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self.in_place = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.shown: tuple[str, int] | None = None

    def tell(self, doing: str, share: float | None) -> None:
        """Show a step, and how far it is (0 to 1)."""
        step = doing, int((share or 0) * (100 if self.in_place else 10))
        if self.quiet or step == self.shown:
            return
        self.shown = step
        text = doing if share is None else f"{doing}: {share:.0%}"
        with contextlib.suppress(OSError, ValueError):
            line = f"\r\x1b[2K{text}" if self.in_place else f"{text}\n"
            print(line, end="", file=self.stream, flush=True)

    def end(self) -> None:
        """Make room for what comes next."""
        if self.in_place and self.shown:
            with contextlib.suppress(OSError, ValueError):
                print("\r\x1b[2K", end="", file=self.stream, flush=True)
        self.shown = None


class Waiting:
    """What loads the machine before a run: a countdown in place on a terminal, elsewhere a line
    now and then."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self.in_place = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.counting = False
        self.last_s: float | None = None

    def notice(self, text: str, left_s: float) -> None:
        """Show it; ``left_s`` is how much longer it is waited for, 0 where it is not."""
        if self.quiet:
            return
        if left_s <= 0:
            self._print(f"note: {text}", "\n")
        elif self.in_place:
            columns = os.get_terminal_size(self.stream.fileno()).columns
            left = f"waiting for a quiet machine, {left_s:.0f} s: "
            self._print(clip(left + text, columns - 1), "")
            self.counting = True
        elif self.last_s is None or self.last_s - left_s >= PLAIN_TICK_S:
            self.last_s = left_s
            self._print(f"waiting for a quiet machine, {left_s:.0f} s at most: {text}", "\n")

    def _print(self, text: str, end: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            begin = "\r\x1b[2K" if self.in_place else ""
            print(f"{begin}{text}", end=end, file=self.stream, flush=True)
            self.counting = False

    def end(self) -> None:
        """Make room for what comes next."""
        if self.counting:
            self._print("", "")


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
                    f"run {event.run_id}: {model_name(event.model)} on {event.rig.id}, "
                    f"{results} result{'s' * (results != 1)}{kept}"
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
