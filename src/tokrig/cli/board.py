"""What is known of a run while it goes on, and the words for it: the lines of the frame on a
terminal, the text of an event, the figures of a result."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokrig.cli.present import count, rate, verdict
from tokrig.naming import backend_name, ladder_end, model_label
from tokrig.record.model import Result
from tokrig.record.samples import Cell
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
from tokrig.spec.run import Level
from tokrig.units import human_seconds
from tokrig.workloads import Workload

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
