"""Raw engine figures: an engine's own benchmark program, run as it is.

One file a program exposing ``RAW``. It describes a command line and reads the output;
``run.native_bench`` starts it. Raw figures know no server, no chat template and no client: they
stand in a class of their own (``record.raw``), beside the served ones and never among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tokrig.record.model import Raw, Resolved
from tokrig.spec.settings import Api


@dataclass(frozen=True)
class BenchLaunch:
    """What to run. Lengths in tokens; ``concurrency`` is parallel sequences; ``repetitions`` of
    each test, None for the program's own number. ``answers`` are what the binary said to
    ``questions``, in their order."""

    binary: str
    model: Path
    prompt_tokens: Sequence[int] = (512,)
    output_tokens: Sequence[int] = (128,)
    concurrency: Sequence[int] = (1,)
    repetitions: int | None = None
    threads: int | None = None
    api: Api | None = None
    devices: tuple[str, ...] = ()
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchFound:
    """What the program measured and what its log shows: ``api`` is what computed, confirmed where
    nothing else took part. ``spilled``: fewer layers on the GPU than asked; None where the log
    does not tell."""

    raw: tuple[Raw, ...]
    engine: str
    build: str | None
    api: str | None
    api_confirmed: bool | None
    spilled: bool | None = None
    resolved: Resolved = field(default_factory=Resolved)


class BenchTool(Protocol):
    """An engine's own benchmark. ``binary`` is its usual name on the PATH, ``engine`` what it
    benchmarks."""

    name: str
    title: str
    binary: str
    engine: str

    def questions(self, launch: BenchLaunch) -> tuple[tuple[str, ...], ...]:
        """Command lines that make the binary tell what it is; each ends by itself in seconds."""
        ...

    def vet(self, launch: BenchLaunch) -> None:
        """Refuse what ``launch.answers`` show to be impossible: another program, one too old for
        a flag (which), built without the API, without the device. Raises InputError."""
        ...

    def command(self, launch: BenchLaunch) -> tuple[str, ...]:
        """The command line. Raises InputError for an option the program does not know."""
        ...

    def progress(self, line: str) -> str | None:
        """How far it is, where a line of its output tells."""
        ...

    def read(self, stdout: str, log: str, launch: BenchLaunch) -> BenchFound:
        """Its figures. Raises RequestError when the output is not the program's."""
        ...

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        ...
