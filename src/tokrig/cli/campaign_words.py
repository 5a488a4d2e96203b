"""What planned runs are called on a terminal, and how such lines look.

Campaign files and records are strangers' text: every string goes through ``line``, and into rich
as ``Text``, where no markup is read.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokrig import naming
from tokrig.cli import present
from tokrig.cli.present import line
from tokrig.plan import Run, State
from tokrig.spec.settings import said

WORDS: dict[State, str] = {
    "todo": "to do",
    "unfinished": "unfinished",
    "done": "done",
    "invalid": "INVALID",
    "failed": "failed",
    "does_not_fit": "does not fit",
    "blocked": "blocked",
}
STYLES: dict[State, str] = {
    "done": "green",
    "invalid": "bold red",
    "failed": "bold red",
    "does_not_fit": "yellow",
    "blocked": "yellow",
}


def run_name(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · llamacpp b9174 (cuda) · MTP``; the baseline is not named."""
    called = mode(run)
    called = "" if called == naming.BASELINE else called
    return " · ".join(filter(None, (model(run), backend(run), called)))


def model(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · ggml-org``."""
    return line(" · ".join(filter(None, (run.weights.name, run.quant, run.creator))))


def backend(run: Run) -> str:
    """``llamacpp b9174 (cuda)``."""
    built = " ".join(filter(None, (run.backend, run.build)))
    api = run.setting("api")
    return line(f"{built} ({api})" if api else built)


def mode(run: Run) -> str:
    """All that is switched on or set, and which repeat it is where there are several."""
    told = said({**run.settings, "api": None})
    told += [f"driver {run.driver}"] if run.driver else []
    told = told or [naming.BASELINE]
    told += [f"arm {run.arm}"] if run.arm else []
    told += [f"repeat {run.repeat}"] if run.arm or run.repeat > 1 else []
    return line(", ".join(told))


def shapes(run: Run) -> str:
    """``chat, codegen × 1, 4``; what a run leaves to the shapes is not named."""
    names = ", ".join(run.workloads) if run.workloads else "all shapes"
    levels = ", ".join(map(str, run.concurrency)) if run.concurrency else ""
    return line(f"{names} × {levels}" if levels else names)


def labelled(out: Console, label: Text, text: str) -> None:
    """A word and a sentence, which is wrapped beside it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=max(map(len, WORDS.values())))
    grid.add_column(overflow="fold")
    grid.add_row(label, Text(text))
    present.put(out, grid)


def quiet(out: Console, text: str) -> None:
    """A remark."""
    out.print(Text(line(text)), style="dim")
