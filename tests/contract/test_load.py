"""The measuring client without a session: what it is given, it measures."""

from __future__ import annotations

import json
import subprocess
import sys

from tokrig.backends.openai import BACKEND
from tokrig.run.client import Closed
from tokrig.run.http import Endpoint
from tokrig.run.load import load
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

BODY = json.dumps(
    {
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()
SERVER = Simulation(ttft_s=0.01, itl_s=0.002)


def test_a_load_gives_samples_and_figures() -> None:
    with simulated(SERVER) as server:
        done = load(Endpoint(server.host, server.port), [BODY] * 3, 3, asked=40)
    assert [(s.worker, s.iteration, s.error, len(s.chunks)) for s in done.samples] == [
        (0, 0, None, 40),
        (1, 0, None, 40),
        (2, 0, None, 40),
    ]
    assert all(0 < (s.connect_ns or 0) < 10**9 for s in done.samples)
    assert done.figures["requests"] == 3
    assert 20 < done.figures["icl_s"].n <= 3 * 39
    assert done.loop.wall_s > 0.07
    assert done.loop.responses == []


def test_a_source_may_be_given_instead_of_bodies() -> None:
    with simulated(SERVER) as server:
        done = load(Endpoint(server.host, server.port), Closed([BODY] * 2, 2), 2)
    assert [s.output_tokens for s in done.samples] == [40, 40]


def test_nothing_that_takes_long_is_imported_before_the_first_request() -> None:
    """What answers are read with takes longer to import than a client may take to start."""
    program = """
import sys
from tokrig.run.http import Endpoint
from tokrig.run.load import load

def by(endpoint, path, source, **more):
    sys.exit(f"{path} {sorted({'numpy', 'pydantic', 'yaml', 'pyarrow'} & set(sys.modules))}")

load(Endpoint("127.0.0.1", 1), [b"{}"], by=by)
"""
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stderr == f"{BACKEND.chat_path} []\n"
