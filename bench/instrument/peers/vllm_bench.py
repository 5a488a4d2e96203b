"""vllm bench serve: --save-detailed keeps TTFTs and ITLs of each request.

Its fields: vllm/benchmarks/serve.py and lib/endpoint_request_func.py of vLLM 0.32.0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.instrument.peers import Job, Peer, Reading
from bench.processes import Failed
from tests.engines import python_engines


class VllmBench(Peer):
    """In the environment that the tests of real engines make."""

    def install(self, cache: Path) -> None:
        engines = self.environment(cache).parent
        engines.mkdir(parents=True, exist_ok=True)
        python_engines.install_vllm(engines)
        if python_engines.left_out(engines).exists():
            raise Failed(python_engines.left_out(engines).read_text().strip())

    def environment(self, cache: Path) -> Path:
        return python_engines.vllm(cache.parent / "engines")

    def program(self, cache: Path) -> list[str]:
        return [str(self.environment(cache) / "bin" / "vllm"), "bench", "serve"]

    def version(self) -> str:
        return python_engines.VLLM

    def arguments(self, job: Job) -> list[str]:
        count = str(job.load.streams)
        return [
            *("--backend", "openai-chat", "--base-url", job.url),
            *("--endpoint", "/v1/chat/completions", "--model", "bench"),
            *("--tokenizer", str(job.tokenizer), "--dataset-name", "random"),
            *("--random-input-len", "16", "--random-output-len", str(job.load.tokens)),
            *("--num-prompts", count, "--max-concurrency", count, "--request-rate", "inf"),
            *("--ready-check-timeout-sec", "0", "--disable-tqdm"),
            *("--save-result", "--save-detailed", "--result-dir", str(job.folder)),
            *("--result-filename", "out.json"),
        ]

    def read(self, job: Job) -> Reading:
        return read(job.folder / "out.json")


def read(path: Path) -> Reading:
    found = json.loads(path.read_text("utf-8"))
    if found["failed"]:
        raise Failed(f"{found['failed']} of its requests failed: {max(found['errors'])[-200:]}")
    return Reading(
        np.array(found["ttfts"]), np.concatenate([np.array(one) for one in found["itls"]])
    )


PEER = VllmBench(
    "vllm",
    "vllm bench serve",
    differs="TTFT begins before connecting; a token's stamp is taken when its event has been parsed"
    " in turn, after those before it",
    settings={"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
)
