"""A metric is one entry: a made-up one is put into the table, and found wherever metrics are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# In a process of its own: the record's model is made from the table when it is loaded.
MADE_UP = """
from tokrig.record import metrics

metrics.METRICS["odd_chunks_s"] = metrics.Metric(
    "summary", "odd chunks", "time to the third chunk", "s",
    compute=lambda of: of.summary(lambda s: s.chunks[2].t_ns / 1e9 if len(s.chunks) > 2 else None),
    higher_is_better=False,
    shown=metrics.EVERYWHERE,
    later=True,
).named("odd_chunks_s")
"""

IN_THE_RECORD = (
    MADE_UP
    + """
import json
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record import consistency, text

samples = [sample(), sample(gap_s=0.012, sent_ns=800_000_000)]
record = record_of(samples)
found = record.results[0].odd_chunks_s
assert (found.median, found.n) == (0.522, 2), found

schema = json.loads(text.schema_text())["$defs"]["Result"]["properties"]["odd_chunks_s"]
assert schema["description"] == "time to the third chunk, s", schema

written = text.record_text(record)
assert "odd_chunks_s:" in written
again = text.parse_record(written, "made-up.yaml")
assert again == record

assert consistency.contradictions(again, samples) == []
wrong = written.replace("median: 0.522", "median: 0.622")
told = consistency.contradictions(text.parse_record(wrong, "made-up.yaml"), samples)
assert any("odd_chunks_s.median is 0.622, the samples give 0.522" in str(one) for one in told), told
"""
)


def passes(script: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_metric_is_in_model_schema_yaml_and_check() -> None:
    passes(IN_THE_RECORD)
