"""llama-benchy: its JSON has each request's TTFT, and with the series of each request the time of
each token after the first (llama_benchy/results.py of 0.4.0)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from bench.instrument.peers import Job, Peer, Reading

BOOK = "https://bench.invalid/book.txt"  # found in its cache, never fetched
TEXT = "The river was low that summer, and the boats lay on the mud below the mill. " * 200


class LlamaBenchy(Peer):
    """Its prompts are cut from a book, which it looks for under the home folder."""

    def arguments(self, job: Job) -> list[str]:
        book = job.folder / ".cache" / "llama-benchy"
        book.mkdir(parents=True)
        name = hashlib.md5(BOOK.encode(), usedforsecurity=False).hexdigest()
        (book / f"{name}.txt").write_text(TEXT, "utf-8")
        return [
            *("--base-url", f"{job.url}/v1", "--model", "bench"),
            *("--tokenizer", str(job.tokenizer), "--book-url", BOOK),
            *("--pp", "16", "--tg", str(job.load.tokens), "--runs", "1"),
            *("--concurrency", str(job.load.streams), "--no-warmup", "--no-adapt-prompt"),
            *("--skip-coherence", "--latency-mode", "none", "--exit-on-first-fail"),
            *("--save-all-throughput-timeseries", "--format", "json"),
            *("--save-result", str(job.folder / "out.json")),
        ]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "out.json")


def read(path: Path) -> Reading:
    (found,) = json.loads(path.read_text("utf-8"))["benchmarks"]
    (series,) = found["requests_throughput_over_time"]
    gaps = [np.diff(np.array([t for t, _ in one])) for one in series]
    return Reading(np.array(found["e2e_ttft"]["values"]) / 1e3, np.concatenate(gaps))


PEER = LlamaBenchy(
    "llama-benchy",
    "llama-benchy",
    ("llama-benchy==0.4.0",),
    "TTFT (e2e_ttft) begins before connecting; events of one read share its stamp; it publishes"
    " rates and no ITL: here it is made of the token times in its series",
)
