"""tokrig: what a run does with its requests (tokrig_client.py), read from its samples file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bench.instrument.loads import HERE
from bench.instrument.peers import Job, Peer, Reading
from bench.processes import Failed
from tokrig import __version__
from tokrig.record.samples import Chunks
from tokrig.record.samples_file import from_parquet


class TokrigRun(Peer):
    """In the environment that this runs in."""

    def install(self, cache: Path) -> None:
        return None

    def program(self, cache: Path) -> list[str]:
        return [sys.executable, "-P", str(HERE / "tokrig_client.py")]

    def version(self) -> str:
        return __version__

    def arguments(self, job: Job) -> list[str]:
        return [*map(str, (job.port, job.load.streams, job.load.tokens)), str(job.folder)]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "samples.parquet")


def read(path: Path) -> Reading:
    """Every chunk is a token here."""
    samples = from_parquet(path.read_bytes(), path.name)
    if failed := [sample for sample in samples if sample.error]:
        raise Failed(f"{len(failed)} of its requests failed: {failed[0].error_detail}")
    stamps = [Chunks.of(sample.chunks).times_ns() / 1e9 for sample in samples]
    ttft = np.array([one[0] for one in stamps])
    return Reading(ttft, np.concatenate([np.diff(one) for one in stamps]))


PEER = TokrigRun(
    "tokrig",
    "tokrig",
    differs="TTFT begins with the first byte sent, after connecting; a token's stamp is when the"
    " kernel reported its socket readable. Measured are the requests of a run, decoded, counted,"
    " summed up and stored, not the preparation that only a run with an engine has",
)
