"""bench/agreement on a real engine: what another tool says of it is what its definition makes of
the server's own log, however busy the machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.agreement.__main__ import LOADS
from bench.agreement.report import LIMIT, found

ROOT = Path(__file__).parents[2]


def test_vllm_bench_and_tokrig_agree_on_the_engine(engines: Path, tmp_path: Path) -> None:
    """Its answers are timed by two clients and the engine. Times to the first token, which a busy
    machine delays for each client otherwise, are left to quiet ones."""
    (tmp_path / "engines").symlink_to(engines)
    asked = ["--quick", "--only", "tokrig,vllm", "--loads", "smollm2-1", "--even-if-busy", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.agreement", *asked, "--cache", tmp_path / "bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run for run in runs if "failed" in run] == []
    (own,) = (run for run in runs if run["tool"] == "tokrig")
    assert {request["prompt_tokens"] for request in own["requests"]} == {320}
    rates = [
        each for each in found(runs, [LOADS["smollm2-1"]]) if each.definition.name != "mean_ttft_ms"
    ]
    assert {each.definition.name for each in rates} == {
        "mean_tpot_ms",
        "mean_itl_ms",
        "output_throughput",
    }
    for each in rates:
        assert each.middle("left") == pytest.approx(1, abs=LIMIT)
    assert max(abs(each.middle("ratio") - 1) for each in rates) > LIMIT
