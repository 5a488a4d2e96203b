"""What a run tells while it works. Plain facts; the command line decides how they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tokrig.record.loads import Ladder
from tokrig.record.model import BackendFacts, Model, Result, Rig
from tokrig.record.samples import Cell

Phase = Literal[
    "prepare", "start", "fit", "warm_up", "measure", "greedy", "quality", "stop", "store", "other"
]
"""What a moment of a run is spent on. Probe requests belong to the start; fetching a model and
making a quant to the preparation."""


@dataclass(frozen=True)
class RunBegan:
    """The plan is known; ``already_done`` are cells that a resumed run has, ``climbs`` says that
    some of them may lie above the end of a ladder."""

    run_id: str
    model: Model
    rig: Rig
    cells: tuple[Cell, ...]
    repeats: int
    already_done: int = 0
    climbs: bool = False


@dataclass(frozen=True)
class Step:
    """Something that takes a moment: starting the engine, fitting prompts, warming up."""

    text: str
    cell: Cell | None = None
    phase: Phase = "other"


@dataclass(frozen=True)
class EngineReady:
    """The engine answered; what it says it is."""

    backend: BackendFacts
    load_s: float | None


@dataclass(frozen=True)
class Note:
    """Something a person should know that does not stop the run."""

    text: str


@dataclass(frozen=True)
class CellBegan:
    """The measured phase of a cell begins."""

    cell: Cell
    repeat: int
    index: int
    of: int


@dataclass(frozen=True)
class CellTick:
    """About twice a second while measuring. ``reads`` are no tokens, they show movement. A load
    that lasts ``of_s`` seconds has no number of ``requests``; ``in_flight`` is told of requests
    that arrive by themselves."""

    cell: Cell
    ended: int
    requests: int
    reads: int
    elapsed_s: float
    of_s: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True)
class CellDone:
    """The figures of a cell over all repeats so far."""

    cell: Cell
    repeat: int
    result: Result
    elapsed_s: float


@dataclass(frozen=True)
class CellSkipped:
    """A shape that cannot be measured here, and why."""

    cell: Cell
    message: str


@dataclass(frozen=True)
class LadderEnded:
    """The steps of a workload above ``highest`` are not measured; ``ladder`` tells why, None where
    not even the first one could be."""

    workload: str
    highest: int
    ladder: Ladder | None

    def above(self, cell: Cell) -> bool:
        """Whether a cell is such a step."""
        return cell.workload == self.workload and cell.concurrency > self.highest


Progress = (
    RunBegan
    | Step
    | EngineReady
    | Note
    | CellBegan
    | CellTick
    | CellDone
    | CellSkipped
    | LadderEnded
)
Listener = Callable[[Progress], None]
