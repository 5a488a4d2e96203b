"""The tools that are compared, one module a tool; what they have in common stands here.

A peer is installed in an environment of its own, is told to send one load, and leaves a file of
its own, of which its adapter reads the times of the first tokens and between tokens.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.instrument.loads import Load, Values
from bench.processes import Failed
from tests.engines import python_engines

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "OPENAI_API_KEY": "none",
}


@dataclass(frozen=True)
class Job:
    """One load to send to the server at ``port``; results belong into ``folder``."""

    load: Load
    port: int
    folder: Path
    tokenizer: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Reading:
    """What a tool says: times to the first token, a value a request; times between tokens, all of
    them or, where it keeps no more, a mean a request (``means``)."""

    ttft_s: Values
    gaps_s: Values
    means: bool = False


@dataclass(frozen=True)
class Peer:
    """A tool. ``packages`` are pinned, ``differs`` says what its figures mean where that is not
    what the others mean."""

    name: str
    title: str
    packages: tuple[str, ...] = ()
    differs: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def install(self, cache: Path) -> None:
        """Make what is missing. Raises Failed where that cannot be done."""
        environment = self.environment(cache)
        if python_engines.made(environment):
            return
        try:
            python_engines.install(environment, self.packages)
        except subprocess.CalledProcessError as why:
            raise Failed(f"pip could not install {self.packages[0]}: see above") from why
        python_engines.complete(environment)

    def environment(self, cache: Path) -> Path:
        return cache / self.packages[0].replace("==", "-")

    def program(self, cache: Path) -> list[str]:
        """What its command line begins with."""
        return [str(self.environment(cache) / "bin" / self.name)]

    def version(self) -> str:
        return self.packages[0].partition("==")[2]

    def arguments(self, job: Job) -> list[str]:
        raise NotImplementedError

    def read(self, job: Job) -> Reading:
        """Raises Failed, OSError, LookupError or ValueError where its file is not what it was."""
        raise NotImplementedError


def tokenizer(engines: Path) -> Path:
    """The folder of a small model whose tokenizer all can load: see tests/engines."""
    folder = python_engines.model(engines, python_engines.MODEL)
    if not folder.exists():
        python_engines.convert(engines)
    return folder
