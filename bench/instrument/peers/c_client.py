"""The least that a client can be: client.c."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.instrument.loads import Stamps, compiled
from bench.instrument.peers import Job, Peer, Reading


class CClient(Peer):
    """Compiled here, not installed."""

    def install(self, cache: Path) -> None:
        compiled("client", cache)

    def program(self, cache: Path) -> list[str]:
        return [str(cache / "client")]

    def version(self) -> str:
        return "client.c"

    def arguments(self, job: Job) -> list[str]:
        return [*map(str, (job.port, job.load.streams, job.load.tokens)), str(job.folder / "out")]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "out")


def read(path: Path) -> Reading:
    """int64s, a request each: sent, count, stamp[count]."""
    data, at = np.fromfile(path, dtype=np.int64), 0
    ttft: list[int] = []
    gaps: list[Stamps] = []
    while at < data.size:
        sent, count = data[at : at + 2]
        stamps, at = data[at + 2 : at + 2 + count], at + 2 + count
        ttft.append(stamps[0] - sent)
        gaps.append(np.diff(stamps))
    return Reading(np.array(ttft) / 1e9, np.concatenate(gaps) / 1e9)


PEER = CClient(
    "c",
    "C client",
    differs="reads and stamps lines, decodes nothing: what is left of any client. TTFT begins with"
    " the first byte sent, after connecting",
)
