"""vLLM, transformers serve and mlx-lm on the CPU, through the whole command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines import python_engines
from tests.engines.conftest import PATIENT
from tests.integration.cli import LOAD, Home, is_sound
from tokrig.bandwidth import measure_memory_bandwidth

# A quarter of a GB of KV cache: without a limit vLLM takes nearly all memory.
SMALL = ("--option", "enforce-eager=true", "--option", "kv-cache-memory-bytes=256M")
THINKS = (
    *("--option", "reasoning-parser=deepseek_r1"),
    *(
        "--option",
        "reasoning-config="
        + json.dumps({"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}),
    ),
)
SWITCH = """\
families:
  - family: SmolLM2 with a thinking template
    match: smollm2-135m-think
    disable: {template: {enable_thinking: false}}
    enable: {}
    source: https://github.com/huggingface/smollm
"""


@pytest.fixture(scope="session")
def vllm(engines: Path) -> Path:
    """vLLM's program. Where the disk was too small for it, its tests fail by that name."""
    assert not python_engines.left_out(engines).exists(), "vLLM was left out: no room on the disk"
    return python_engines.vllm(engines) / "bin" / "vllm"


# mlx-lm gives seven tokens a second here, and counts a prompt by answering it.
PATIENCE_S = 600


def run(home: Home, backend: str, program: Path, model: Path, *words: str) -> dict[str, Any]:
    """The record of a quick run of the chat shape."""
    done = home.tokrig(
        *("run", "--backend", backend, "--server-bin", str(program), "--model", str(model)),
        *("--workload", "chat", *words),
        env=PATIENT,
        within_s=PATIENCE_S,
    )
    assert done.code == 0, done.err
    [record] = home.records()
    assert home.tokrig("check").code == 0
    return record


def test_vllm(home: Home, vllm: Path, engines: Path) -> None:
    model = python_engines.model(engines, python_engines.MODEL)
    record = run(home, "vllm", vllm, model, "--concurrency", "1,4", "--api", "cpu", *SMALL)
    backend = record["backend"]
    assert (backend["engine"], backend["api"], backend["api_confirmed"]) == ("vLLM", "cpu", True)
    assert backend["build"].startswith(python_engines.VLLM)
    assert backend["resolved"]["prefix_caching"] is False
    assert record["model"]["parameters"] == 134_515_008
    for result in record["results"]:
        assert is_sound(result["validity"]), result["validity"]
        assert abs(result["server"]["difference"]) <= 0.03


def test_vllm_speculates(home: Home, vllm: Path, engines: Path) -> None:
    model = python_engines.model(engines, python_engines.MODEL)
    record = run(home, "vllm", vllm, model, "--speculative", "ngram", "--draft-tokens", "4", *SMALL)
    [result] = record["results"]
    assert record["mode"]["name"] == "ngram"
    assert result["speculative"]["drafted_tokens"] > 0
    assert result["greedy"]["compared_characters"] > 0
    assert is_sound(result["validity"]), result["validity"]


def test_vllm_reasons(home: Home, vllm: Path, engines: Path) -> None:
    """vLLM reports no reasoning tokens for streams: the text is counted."""
    model = python_engines.model(engines, python_engines.THINKING)
    record = run(home, "vllm", vllm, model, *SMALL, *THINKS)
    [result] = record["results"]
    assert record["model"]["reasoning"] is True
    assert result["reasoning_tokens_median"] > 0
    assert is_sound(result["validity"]), result["validity"]


def test_vllm_with_reasoning_off(home: Home, vllm: Path, engines: Path) -> None:
    home.content.mkdir()
    (home.content / "reasoning.yaml").write_text(SWITCH, "utf-8")
    model = python_engines.model(engines, python_engines.THINKING)
    record = run(home, "vllm", vllm, model, "--reasoning", "off", *SMALL, *THINKS)
    [result] = record["results"]
    mode = record["mode"]
    assert (mode["reasoning_asked"], mode["reasoning_observed"]) == ("off", False)
    assert "enable_thinking=false" in mode["reasoning_switch"]
    assert record["model"]["reasoning"] is True
    assert result["reasoning_tokens_median"] == 0
    assert is_sound(result["validity"]), result["validity"]


def test_transformers_serve(home: Home, vllm: Path, engines: Path) -> None:
    model = python_engines.model(engines, python_engines.MODEL)
    record = run(home, "transformers", vllm.with_name("transformers"), model)
    [result] = record["results"]
    assert record["backend"]["engine"] == "transformers"
    assert is_sound(result["validity"]), result["validity"]
    assert result["output_tokens"]["median"] == 128


def test_mlx_lm(home: Home, engines: Path) -> None:
    """It cannot be made to go on to the full length: what ended early is marked, and only that."""
    model = python_engines.model(engines, python_engines.MODEL)
    program = python_engines.mlx(engines) / "bin" / "mlx_lm.server"
    record = run(home, "mlx", program, model)
    [result] = record["results"]
    assert record["backend"]["engine"] == "mlx-lm"
    assert record["backend"]["api"] == "cpu"
    assert result["output_tok_per_s"]["median"] > 0
    assert result["cached_tokens"] == 0
    assert set(result["validity"].get("reasons", [])) <= {"output_length", *LOAD}


@pytest.mark.parametrize("backend", ["vllm", "transformers", "mlx"])
def test_a_model_none_of_them_can_load(home: Home, vllm: Path, engines: Path, backend: str) -> None:
    """The engine's own reason is shown and kept."""
    real = python_engines.model(engines, python_engines.MODEL)
    strange = home.root / "strange"
    strange.mkdir()
    for file in real.iterdir():
        (strange / file.name).symlink_to(file)
    config = json.loads((real / "config.json").read_text("utf-8"))
    (strange / "config.json").unlink()
    config |= {"model_type": "zeppelin", "architectures": ["ZeppelinForCausalLM"]}
    (strange / "config.json").write_text(json.dumps(config), "utf-8")
    programs = {
        "vllm": vllm,
        "transformers": vllm.with_name("transformers"),
        "mlx": python_engines.mlx(engines) / "bin" / "mlx_lm.server",
    }
    done = home.tokrig(
        *("run", "--backend", backend, "--server-bin", str(programs[backend])),
        *("--model", str(strange), "--workload", "chat"),
        env=PATIENT,
    )
    assert done.code == 3, done.err
    assert "zeppelin" in done.err.lower()
    [record] = home.records()
    assert record["status"] == "failed"
    assert "zeppelin" in (record["failure"]["message"] + record["failure"]["log_tail"]).lower()


MEASURE = """
import torch
from tokrig import bandwidth
bandwidth.LARGEST_CARD_BYTES = 256 * 2**20
found = bandwidth.measure_card(bandwidth.TorchCard(torch, "cpu"), matrix=256)
print(found.bytes_per_s, found.matrix_flop_per_s)
"""


def test_torch_reads_as_fast_as_numpy(vllm: Path) -> None:
    """The way in which cards are measured, on the processor, which can be measured otherwise."""
    there = os.pathsep.join(path for path in sys.path if path)
    told = subprocess.run(
        [vllm.parent / "python", "-c", f"import sys; sys.path += {there.split(os.pathsep)!r}"
         + MEASURE],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    bytes_per_s, flop_per_s = map(float, told.stdout.split())
    by_numpy = measure_memory_bandwidth().gb_per_s * 1e9
    assert 0.4 < bytes_per_s / by_numpy < 2.5
    assert flop_per_s > 1e6
