"""What is known of a run while it goes on, as lines of text. Pure: time is handed in.

Nothing here uses rich: a frame costs a tenth of a millisecond, and the processor belongs to the
engine that is being measured.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokrig.cli.present import rate, verdict
from tokrig.naming import backend_name, model_label
from tokrig.record.model import Result
from tokrig.run.progress import (
    Cell,
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    Note,
    Progress,
    RunBegan,
    Step,
)
from tokrig.spec.run import Level
from tokrig.units import human_seconds
from tokrig.workloads import Workload

BAR = 16
# Before anything was measured, a prompt token counts as a tenth of an answer's.
PROMPT_WEIGHT = 0.1


class Line(NamedTuple):
    """A line of the frame and how it looks: ``title``, ``done``, ``active``, ``quiet``, ``bad``."""

    style: str
    text: str


@dataclass
class _Row:
    cell: Cell
    state: str = "waiting"
    text: str = "waiting"
    figures: str = ""
    ended: int = 0
    requests: int = 0
    reads: int = 0
    elapsed_s: float = 0.0


@dataclass
class Board:
    """Hears the events of a run; ``frame`` is what a person should see now."""

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
    begun_s: dict[Cell, float] = field(default_factory=dict)
    took_s: dict[Cell, float] = field(default_factory=dict)
    left: list[Cell] = field(default_factory=list)
    active: Cell | None = None
    prompt_weight: float = PROMPT_WEIGHT

    def hear(self, event: Progress, now_s: float) -> None:
        """Take one event in."""
        match event:
            case CellTick():
                self._tick(event)
            case RunBegan():
                self._run_began(event)
            case Step():
                self._step(event, now_s)
            case EngineReady():
                self.engine, self.doing = backend_name(event.backend), ""
            case CellBegan():
                row = self.rows[event.cell]
                row.state, row.requests, row.ended, row.reads = "active", 0, 0, 0
                row.text, row.elapsed_s = "measuring", 0.0
                self.repeat = event.repeat
            case CellDone():
                self._done(event)
            case CellSkipped():
                self._forget(event.cell, every_repeat=True)
                row = self.rows[event.cell]
                row.state, row.text = "bad", f"left out: {event.message}"
            case Note():
                self.notes.append(event.text)

    def _run_began(self, event: RunBegan) -> None:
        self.title, self.rig = model_label(event.model), event.rig.id
        self.repeats = event.repeats
        self.rows = {cell: _Row(cell) for cell in event.cells}
        order = list(event.cells) * event.repeats
        self.left = order[event.already_done :]
        for cell in order[: event.already_done]:
            self.rows[cell].figures = "kept from before"
            if cell not in self.left:
                self.rows[cell].state = "done"

    def _step(self, event: Step, now_s: float) -> None:
        if event.cell is None:
            self.doing, self.active = event.text, None
            return
        self.doing, self.active = "", event.cell
        self.begun_s.setdefault(event.cell, now_s)
        row = self.rows[event.cell]
        row.state, row.text, row.requests = "active", event.text, 0

    def _tick(self, event: CellTick) -> None:
        row = self.rows[event.cell]
        row.ended, row.requests = event.ended, event.requests
        row.reads, row.elapsed_s = event.reads, event.elapsed_s

    def _done(self, event: CellDone) -> None:
        self.took_s[event.cell] = event.elapsed_s
        self._forget(event.cell)
        row, result = self.rows[event.cell], event.result
        row.figures = figures(result)
        row.state = "waiting" if event.cell in self.left else "done"
        row.text = f"repeat {event.repeat + 1} of {self.repeats}" if self.repeats > 1 else ""
        if result.output_tok_per_s and result.prefill_tok_per_s:
            self.prompt_weight = result.output_tok_per_s.median / result.prefill_tok_per_s.median

    def _forget(self, cell: Cell, every_repeat: bool = False) -> None:
        self.active = None
        self.begun_s.pop(cell, None)
        if every_repeat:
            self.left = [other for other in self.left if other != cell]
        elif cell in self.left:
            self.left.remove(cell)

    def remaining_s(self, now_s: float) -> float | None:
        """Estimated seconds until the end; None before the first result.

        A cell that was measured takes as long again; another one its tokens at the same pace.
        """
        done = [cell for cell in self.took_s if self._work(cell)]
        work = sum(self._work(cell) for cell in done)
        if not work:
            return None
        pace = sum(self.took_s[cell] for cell in done) / work
        whole = {cell: self.took_s.get(cell, pace * self._work(cell)) for cell in self.left}
        total = sum(whole[cell] for cell in self.left)
        if self.active in whole:
            total -= whole[self.active]
            total += self._rest_s(self.active, whole[self.active], now_s)
        return max(0.0, total)

    def _rest_s(self, cell: Cell, whole_s: float, now_s: float) -> float:
        """What is left of the active cell: by its own requests once some have ended."""
        row = self.rows[cell]
        if row.requests and row.ended:
            return row.elapsed_s * (row.requests / row.ended - 1)
        return max(0.0, whole_s - (now_s - self.begun_s.get(cell, now_s)))

    def _work(self, cell: Cell) -> float:
        """Tokens of one repeat of a cell, prompt tokens weighed by how much faster they go."""
        shape = self.shapes[cell.workload]
        sets = (self.level.iterations + self.level.warmups) * cell.concurrency
        return sets * (shape.prompt_tokens * self.prompt_weight + shape.answer_tokens)

    def frame(self, now_s: float, width: int, height: int) -> list[Line]:
        """Title, a line a cell, notes, and the time; at most ``height`` lines."""
        parts = (self.title, self.engine, self.rig and f"rig {self.rig}")
        lines = [Line("title", " · ".join(filter(None, parts)))]
        rows = list(self.rows.values())
        room = max(1, height - 2 - len(self.notes[-2:]))
        if len(rows) > room:
            active = next((i for i, row in enumerate(rows) if row.cell == self.active), 0)
            first = min(max(0, active - room // 2), len(rows) - room)
            rows = rows[first : first + room]
        labels = max((len(row.cell.label) for row in self.rows.values()), default=0)
        lines += [self._line(row, labels) for row in rows]
        lines += [Line("quiet", f"  note: {note}") for note in self.notes[-2:]]
        lines.append(Line("quiet", self._footer(now_s)))
        return [Line(style, clip(text, width)) for style, text in lines]

    def _line(self, row: _Row, labels: int) -> Line:
        marks = {"done": "✓", "active": "▸", "bad": "✗", "waiting": "·"}
        text = row.text
        if row.state == "active" and row.requests:
            text = (
                f"measuring {row.ended} of {row.requests}  {self._bar(row)} {clock(row.elapsed_s)}"
            )
        words = filter(None, (row.figures, "" if row.state == "done" else text))
        style = {"waiting": "quiet"}.get(row.state, row.state)
        return Line(style, f"{marks[row.state]} {row.cell.label:<{labels}}  {'  '.join(words)}")

    def _bar(self, row: _Row) -> str:
        """Ended requests, and within those in flight what was read of the answers' lengths."""
        answer = self.shapes[row.cell.workload].answer_tokens
        in_flight = min(row.requests, row.ended + row.cell.concurrency)
        read = min(row.reads / answer, in_flight) if answer else 0
        share = max(row.ended, read) / row.requests
        full = round(share * BAR)
        return "█" * full + "░" * (BAR - full)

    def _footer(self, now_s: float) -> str:
        left = self.remaining_s(now_s)
        parts = [f"{clock(now_s - self.began_s)} elapsed"]
        if left is not None and self.left:
            parts.append(f"about {clock(left)} left")
        if self.repeats > 1:
            parts.append(f"repeat {self.repeat + 1} of {self.repeats}")
        return "  " + " · ".join(filter(None, (*parts, self.doing)))


def figures(result: Result) -> str:
    """``148.3 tok/s  TTFT 412 ms  prefill 1,234 tok/s  valid``."""
    gen = result.output_tok_per_s.median if result.output_tok_per_s else None
    prefill = result.prefill_tok_per_s.median if result.prefill_tok_per_s else None
    ttft = result.ttft_s.median if result.ttft_s else None
    return (
        f"{rate(gen):>7} tok/s  TTFT {human_seconds(ttft):>7}  "
        f"prefill {rate(prefill):>7} tok/s  {verdict(result.validity)}"
    )


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
    kept: list[str] = []
    cells = 0
    for character in text:
        cells += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if cells > width:
            return "".join(kept[:-1]) + "…"
        kept.append(character)
    return text
