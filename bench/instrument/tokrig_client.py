"""What a run of tokrig does with its requests, without an engine to start and to look at.

    tokrig_client.py PORT STREAMS TOKENS OUT

Sends STREAMS requests at once, decodes and counts the answers, computes all figures of the result
(they go to OUT/figures.json) and writes the samples (OUT/samples.parquet).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokrig.run.http import Endpoint
from tokrig.run.load import load


def main() -> None:
    port, streams, tokens = map(int, sys.argv[1:4])
    out = Path(sys.argv[4])
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    bodies = [json.dumps(body).encode()] * streams
    done = load(Endpoint("127.0.0.1", port), bodies, streams, asked=tokens)
    out.joinpath("figures.json").write_text(json.dumps(done.figures, default=vars), "utf-8")
    from tokrig.record.samples_file import to_parquet

    out.joinpath("samples.parquet").write_bytes(to_parquet(done.samples))


if __name__ == "__main__":
    main()
