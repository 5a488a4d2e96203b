"""What a run of tokrig does with its requests, without an engine to start and to look at.

    tokrig_client.py PORT STREAMS TOKENS OUT

Sends STREAMS requests at once, decodes and counts the answers, computes all figures of the result
(they go to OUT/figures.json) and writes the samples (OUT/samples.parquet).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokrig.backends import openai
from tokrig.record.samples import Sample
from tokrig.run.client import closed_loop
from tokrig.run.counting import observe
from tokrig.run.http import Endpoint


def main() -> None:
    port, streams, tokens = map(int, sys.argv[1:4])
    backend, out = openai.BACKEND, Path(sys.argv[4])
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    bodies = [json.dumps(body).encode()] * streams
    endpoint = Endpoint("127.0.0.1", port)
    loop = closed_loop(endpoint, backend.chat_path, bodies, streams, silence_s=10)
    from tokrig.record.metrics import figures
    from tokrig.record.samples_file import to_parquet

    samples = [
        observe(
            response,
            Sample("bench", streams, 0, 0, response.worker, "measured", 0, "", response.sent_ns),
            backend,
            lambda text: None,
            asked=tokens,
        )
        for response in loop.taken()
    ]
    found = figures(samples)
    out.joinpath("figures.json").write_text(json.dumps(found, default=vars), "utf-8")
    out.joinpath("samples.parquet").write_bytes(to_parquet(samples))


if __name__ == "__main__":
    main()
