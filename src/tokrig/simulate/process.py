"""A simulated server in a process of its own, for as long as somebody needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tokrig.errors import EngineDied
from tokrig.simulate.simulation import Simulation

PROGRAM = (sys.executable, "-P", "-m", "tokrig.simulate")
PATIENCE_S = 10.0


@dataclass
class Simulated:
    """Where it listens; what it did (see ``server.Report``), once it has ended."""

    port: int
    report: dict[str, Any] = field(default_factory=dict)
    host: str = "127.0.0.1"


@contextmanager
def simulated(made: Simulation) -> Iterator[Simulated]:
    """The server, gone afterwards whatever happens: it ends too when this process does.

    Raises EngineDied when it does not start, or ends on its own.
    """
    with subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(made.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass  # it says nothing then, and that is told below
            port = process.stdout.readline().strip()
            if not port.isdigit():
                raise EngineDied(
                    "the server to measure against did not start",
                    hint="check that this user may open a port on 127.0.0.1",
                )
            found = Simulated(int(port))
            yield found
            said, _ = process.communicate(timeout=PATIENCE_S)
            if not said:
                raise EngineDied("the server to measure against ended on its own")
            found.report = json.loads(said)
        finally:
            process.kill()
