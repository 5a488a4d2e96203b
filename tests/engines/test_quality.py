"""Real quants of a real model, by their answers: in the right order, and what is wrong is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.quality import as_reference, broken, quantized, tried, zeroed
from tests.engines.conftest import PATIENT

PROMPTS = 6


def test_answers_tell_quants_apart_and_what_is_broken(
    cpu_build: Path, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second quant of the table in docs/quality.md, on every fourth prompt."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path / "state"))
    best = quantized(smollm2, "F16", tmp_path, cpu_build)
    first = tried(best, cpu_build, None, prompts=PROMPTS)
    assert first.found.told
    assert first.block.not_compared == "no_reference"
    reference = as_reference(first.found, "F16")

    files = {"F16": best}
    files |= {quant: quantized(best, quant, tmp_path, cpu_build) for quant in ("Q8_0", "Q2_K")}
    files["broken"] = broken(files["Q8_0"], tmp_path, "blk.4.ffn_down.weight", zeroed)
    found = {
        name: tried(path, cpu_build, reference, prompts=PROMPTS).block
        for name, path in files.items()
    }
    wrong = tried(best, cpu_build, reference, {"chat-template": "gemma"}, PROMPTS).block
    positions = sum(len(answer.positions) for answer in first.found.answers)
    for block in (*found.values(), wrong):
        assert block.not_compared is None
        assert block.positions == positions
    same = {name: block.top1_agreement.value for name, block in found.items()}  # type: ignore[union-attr]
    apart = {name: block.kl_nats.value for name, block in found.items()}  # type: ignore[union-attr]
    assert same["F16"] >= 0.99
    assert apart["F16"] < apart["Q8_0"]
    assert same["Q8_0"] > same["Q2_K"]
    assert apart["Q8_0"] < apart["broken"]
    assert 5 * apart["Q8_0"] < apart["Q2_K"]
    assert wrong.other_prompts == PROMPTS
    assert wrong.kl_nats is not None
    assert wrong.kl_nats.value > apart["Q2_K"]
