"""Loads, and the server that gives them: its own send stamps are the truth.

The server is a small program in C (server.c), since what judges has to be far more exact than what
is judged; how late it was stands in the report.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import Failed

HERE = Path(__file__).parent
Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Stamps = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Load:
    """``streams`` requests at once of ``tokens`` tokens each, one every ``interval_s`` (0: as fast
    as the client takes them, for ``limit_s``); every ``stall_every``-th gap takes ``stall_s``. The
    first token comes between one and two ``ttft_s`` after the request."""

    name: str
    title: str
    streams: int
    tokens: int
    interval_s: float
    stall_every: int = 0
    stall_s: float = 0.0
    limit_s: float = 0.0
    ttft_s: float = 0.05

    def quick(self) -> Load:
        """The same for a trial: a fifth as long."""
        return replace(self, tokens=max(self.tokens // 5, 25), limit_s=self.limit_s / 5)


FAST, WIDE, STALLS, CEILING, START = "fast", "wide", "stalls", "ceiling", "start"
LOADS = {
    load.name: load
    for load in (
        Load(FAST, "64 streams, one token a ms", 64, 3125, 0.001),
        Load(WIDE, "256 streams, one token every 10 ms", 256, 300, 0.010),
        Load(STALLS, "64 streams, one token a ms, each 50th gap 20 ms", 64, 1000, 0.001, 50, 0.020),
        Load(CEILING, "64 streams, as fast as the client takes them", 64, 50_000, 0, limit_s=2.0),
        Load(START, "64 streams, 25 tokens each", 64, 25, 0.001),
    )
}


@dataclass(frozen=True)
class Truth:
    """What the server did, a row a stream that was asked for; times in ns of CLOCK_MONOTONIC.
    ``closed`` is when the client had closed its side, 0 where it had not; ``blocked`` how often
    its socket took no more."""

    received: Stamps
    closed: Stamps
    blocked: int
    sent: list[Stamps]
    due: list[Stamps]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sent))

    @property
    def ttft_s(self) -> Values:
        """First token sent − request received, of each stream."""
        return (np.array([sent[0] for sent in self.sent]) - self.received) / 1e9

    @property
    def gaps_s(self) -> Values:
        """The times between tokens, of all streams."""
        return np.concatenate([np.diff(sent) for sent in self.sent]) / 1e9

    @property
    def late_s(self) -> Values:
        """How late the server sent each token."""
        return np.concatenate([s - d for s, d in zip(self.sent, self.due, strict=True)]) / 1e9

    @property
    def taken_per_s(self) -> float:
        """Tokens over the time from the first send to when the last client had read its stream."""
        ends = [closed or sent[-1] for closed, sent in zip(self.closed, self.sent, strict=True)]
        return self.tokens / (float(max(ends) - min(sent[0] for sent in self.sent)) / 1e9)


def read_log(path: Path) -> Truth:
    """The server's log; streams of one token are tries of a tool before it measures."""
    data, at = np.fromfile(path, dtype=np.int64), 0
    heads: list[Any] = []
    sent: list[Stamps] = []
    due: list[Stamps] = []
    while at < data.size:
        head, at = data[at : at + 4], at + 4
        count = int(head[2])
        if count > 1:
            heads.append(head)
            sent.append(data[at : at + count])
            due.append(data[at + count : at + 2 * count])
        at += 2 * count
    if not heads:
        raise Failed("the server was asked for nothing")
    table = np.array(heads)
    return Truth(table[:, 0], table[:, 1], int(table[:, 3].sum()), sent, due)


def compiled(name: str, folder: Path) -> Path:
    """The program ``name``.c, compiled by cc or by zig's compiler where there is none."""
    program = folder / name
    compiler = [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*compiler, "-O2", "-o", program, HERE / f"{name}.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{name}.c was not compiled (a C compiler is needed): {done.stderr.strip()}")
    return program


@contextmanager
def serving(program: Path, load: Load, log: Path, core: int) -> Iterator[int]:
    """The server on ``core``; its port. It writes ``log`` when it is left."""
    times = (load.ttft_s, load.interval_s, load.stall_s, load.limit_s)
    ttft, interval, stall, limit = (str(round(seconds * 1e9)) for seconds in times)
    words = (ttft, interval, str(load.stall_every), stall, str(load.streams), limit, str(log))
    with subprocess.Popen(
        [program, *words],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port.isdigit():
                raise Failed("the server did not start")
            yield int(port)
        finally:
            process.send_signal(signal.SIGTERM)
