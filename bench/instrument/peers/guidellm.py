"""GuideLLM: its JSON has each request's TTFT and the mean time between its tokens, no more.

Its fields: guidellm/schemas/base/request_stats.py of 0.8.1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.instrument.peers import Job, Peer, Reading
from bench.processes import Failed


class Guidellm(Peer):
    """Told by a file what to do; one worker process on one core."""

    def arguments(self, job: Job) -> list[str]:
        count = job.load.streams
        spec = {
            "backend": {"kind": "openai_http", "target": job.url, "model": "bench"},
            "profile": {"kind": "concurrent", "streams": [count]},
            "constraints": [{"kind": "max_requests", "count": count}],
            "tokenizer": {"kind": "huggingface_auto", "model": str(job.tokenizer)},
            "data": [
                {
                    "kind": "synthetic_text",
                    "prompt_tokens": 16,
                    "output_tokens": job.load.tokens,
                }
            ],
            "outputs": [{"kind": "json", "path": str(job.folder / "out.json")}],
        }
        scenario = job.folder / "scenario.json"
        scenario.write_text(json.dumps({"spec": spec}), "utf-8")
        return ["run", "--config", str(scenario), "--disable-console"]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "out.json")


def read(path: Path) -> Reading:
    (found,) = json.loads(path.read_text("utf-8"))["benchmarks"]
    requests = found["requests"]
    if lost := len(requests["errored"]) + len(requests["incomplete"]):
        raise Failed(f"{lost} of its requests failed or did not end")
    good = requests["successful"]
    ttft = np.array([one["time_to_first_token_ms"] for one in good]) / 1e3
    means = np.array([one["inter_token_latency_ms"] for one in good]) / 1e3
    return Reading(ttft, means, means=True)


PEER = Guidellm(
    "guidellm",
    "GuideLLM",
    ("guidellm==0.8.1", "torch==2.13.0"),
    "TTFT begins with the first byte sent, after connecting; its clock is time.time(); it keeps a"
    " mean time between tokens for each request, so its p99 is one of means and shows no stall",
    {"GUIDELLM__MAX_WORKER_PROCESSES": "1"},
)
