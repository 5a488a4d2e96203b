"""AIPerf: profile_export.jsonl has each request's TTFT and all times between chunks.

Its fields: aiperf/metrics/types/ttft_metric.py and inter_chunk_latency_metric.py of 0.13.0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.instrument.peers import Job, Peer, Reading
from bench.processes import Failed

TO_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


class Aiperf(Peer):
    """Several processes that talk over sockets; here with one worker on one core."""

    def arguments(self, job: Job) -> list[str]:
        count = str(job.load.streams)
        return [
            *("profile", "--model", "bench", "--url", job.url, "--endpoint-type", "chat"),
            *("--streaming", "--tokenizer", str(job.tokenizer), "--use-server-token-count"),
            *("--concurrency", count, "--request-count", count, "--num-dataset-entries", count),
            *("--synthetic-input-tokens-mean", "16", "--synthetic-input-tokens-stddev", "0"),
            *("--output-tokens-mean", str(job.load.tokens), "--output-tokens-stddev", "0"),
            *("--workers-max", "1", "--record-processors", "1", "--ui", "none"),
            *("--no-gpu-telemetry", "--no-server-metrics", "--export-level", "records"),
            *("--output-artifact-dir", str(job.folder / "out")),
        ]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "out" / "profile_export.jsonl")


def read(path: Path) -> Reading:
    ttft, gaps = [], []
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record.get("error"):
            raise Failed(f"a request failed: {str(record['error'])[:200]}")
        ttft.append(_seconds(record["metrics"]["time_to_first_token"]))
        gaps.append(_seconds(record["metrics"]["inter_chunk_latency"]))
    return Reading(np.concatenate(ttft), np.concatenate(gaps))


def _seconds(metric: dict[str, object]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.atleast_1d(np.array(metric["value"], dtype=float)) * TO_SECONDS[str(metric["unit"])]


PEER = Aiperf(
    "aiperf",
    "AIPerf",
    ("aiperf==0.13.0",),
    "TTFT begins before connecting; events of one read share its stamp; made for many processes on"
    " many cores, it has one core here; its ITL is a mean a request, so its inter-chunk latency"
    " stands here",
    # Offline it takes every tokenizer for a name on the hub, a folder too.
    {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": ""},
)
