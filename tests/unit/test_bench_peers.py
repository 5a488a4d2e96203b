"""What bench/instrument reads of each tool: files that the pinned versions wrote, of two requests
of six tokens, one every 20 ms, whose first tokens the server sent after the times below."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.instrument.peers import aiperf, guidellm, llama_benchy, vllm_bench
from bench.processes import Failed

DATA = Path(__file__).parent.parent / "data" / "instrument"
FIRST_TOKENS_S = {
    "vllm.json": (0.0670, 0.0769),
    "aiperf.jsonl": (0.0622, 0.0717),
    "guidellm.json": (0.0622, 0.0686),
    "llama-benchy.json": (0.0697, 0.0795),
}
READ = {
    "vllm.json": vllm_bench.read,
    "aiperf.jsonl": aiperf.read,
    "guidellm.json": guidellm.read,
    "llama-benchy.json": llama_benchy.read,
}


@pytest.mark.parametrize("name", READ)
def test_a_tools_own_file_is_read_in_seconds(name: str) -> None:
    reading = READ[name](DATA / name)
    late = np.sort(reading.ttft_s) - FIRST_TOKENS_S[name]
    assert ((late > 0) & (late < 0.015)).all()
    assert reading.gaps_s.mean() == pytest.approx(0.020, rel=0.03)
    assert reading.means == (name == "guidellm.json")
    assert len(reading.gaps_s) == (2 if reading.means else 10)


def test_requests_that_failed_are_no_figures(tmp_path: Path) -> None:
    changed = tmp_path / "file"
    vllm = json.loads((DATA / "vllm.json").read_text("utf-8"))
    changed.write_text(json.dumps(vllm | {"failed": 1, "errors": ["", "no route"]}), "utf-8")
    with pytest.raises(Failed, match="no route"):
        vllm_bench.read(changed)
    line = json.loads((DATA / "aiperf.jsonl").read_text("utf-8").splitlines()[0])
    changed.write_text(json.dumps(line | {"error": {"message": "refused"}}), "utf-8")
    with pytest.raises(Failed, match="refused"):
        aiperf.read(changed)
    report = json.loads((DATA / "guidellm.json").read_text("utf-8"))
    requests = report["benchmarks"][0]["requests"]
    requests["errored"].append(requests["successful"].pop())
    changed.write_text(json.dumps(report), "utf-8")
    with pytest.raises(Failed, match="1 of its requests"):
        guidellm.read(changed)
