"""Caches as reckoned from headers, against what the engines allot for the same headers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.engines import python_engines
from tests.engines.conftest import PATIENT
from tests.engines.headers import MODELS, Value, write_header
from tests.engines.llama_memory import logged
from tokrig.models.architecture import layout_of
from tokrig.units import GIB, MIB

SIZE = re.compile(r"size = +([\d.]+) MiB \( *\d+ cells")
SETTINGS = {"n_ctx": 8192, "n_seq_max": 2, "n_ubatch": 512, "flash_attn": 1, "swa_full": 0}
RECORDED = Path(__file__).parents[1] / "data/cache/llama-11434.json"
# What ggml calls the types of a cache.
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}
DEVIATION = 0.005  # the engine rounds to a hundredth of a MiB


def allotted_mib(build: Path, header: Path, settings: dict[str, int]) -> float:
    return sum(
        float(found[1]) for line in logged(build, header, settings) if (found := SIZE.search(line))
    )


def test_recorded_sizes_are_those_of_this_build(cpu_build: Path, tmp_path: Path) -> None:
    found = {
        name: round(allotted_mib(cpu_build, write_header(tmp_path / "m.gguf", *of), SETTINGS), 2)
        for name, of in MODELS.items()
    }
    assert found == json.loads(RECORDED.read_text(encoding="utf-8"))


def varied(chance: Random, figures: dict[str, Value]) -> dict[str, Value]:
    """The figures of an architecture with widths and windows of chance."""
    found = dict(figures)
    heads, kv = found["attention.head_count"], found["attention.head_count_kv"]
    fixed = "attention.kv_lora_rank" in found  # as many as there are heads
    if isinstance(heads, int) and isinstance(kv, int) and 1 < kv <= heads and not fixed:
        found["attention.head_count_kv"] = chance.choice(
            [n for n in (1, 2, 4, 8) if heads % n == 0]
        )
    if "attention.sliding_window" in found:
        found["attention.sliding_window"] = chance.choice([128, 500, 1024, 4096])
    for key in ("ssm.state_size", "kda.head_dim"):
        if key in found and found[key] != 16:
            found[key] = chance.choice([64, 128])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_headers_of_chance_take_what_the_engine_allots(
    cpu_build: Path, tmp_path: Path, seed: int
) -> None:
    chance, compared = Random(seed), 0
    for name, (kind, figures) in MODELS.items():
        header = write_header(tmp_path / "m.gguf", kind, varied(chance, figures))
        slots, context = chance.choice([1, 2, 3, 5]), chance.choice([700, 2048, 6000])
        unified, full = chance.random() < 0.5, chance.random() < 0.2
        flash, ubatch = chance.random() < 0.7, chance.choice([64, 512])
        type_k, type_v = chance.choice(
            [("f16", "f16"), ("q8_0", "q8_0"), ("f32", "f16"), ("q8_0", "q4_0")]
        )
        if not flash or "attention.key_length_mla" in figures:  # the engine refuses others
            type_k = type_v = "f16" if not flash else type_k
        layout = layout_of(header)
        assert layout is not None, name
        settings = {
            "n_ctx": context * slots,
            "n_seq_max": slots,
            "n_ubatch": ubatch,
            "kv_unified": unified,
            "swa_full": full,
            "flash_attn": int(flash),
            "type_k": TYPES[type_k],
            "type_v": TYPES[type_v],
        }
        if not layout.fits_type(type_k, type_v):
            continue
        found = allotted_mib(cpu_build, header, settings)
        asked: dict[str, Any] = {"unified": unified, "swa_full": full, "ubatch": ubatch}
        asked |= {"type_k": type_k, "type_v": type_v, "flash_attention": flash}
        mine = layout.allotted_bytes(context, slots, **asked) / MIB
        assert mine == pytest.approx(found, rel=DEVIATION, abs=0.03), (name, settings)
        compared += 1
    assert compared > 30


# vLLM: random weights of a small width, heads and windows of published models.
START = """
import sys
from vllm import LLM
if __name__ == "__main__":
    LLM(sys.argv[1], load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16",
        enforce_eager=True, max_model_len=4096, max_num_seqs=4, max_num_batched_tokens=2048)
"""
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "vocab_size": 512,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 16384,
    "rope_theta": 1e6,
    "torch_dtype": "bfloat16",
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CONFIGS = {
    "Qwen3 8B": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 128,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "Gemma 3 4B": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "head_dim": 256,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 1e4,
        "hidden_activation": "gelu_pytorch_tanh",
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_requests_take_what_vllm_reckons(engines: Path, tmp_path: Path, name: str) -> None:
    config = SMALL | CONFIGS[name]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "start.py").write_text(START, encoding="utf-8")
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    run = subprocess.run(
        [python_engines.vllm(engines) / "bin" / "python", tmp_path / "start.py", tmp_path],
        env={**os.environ, **quiet, **PATIENT, "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = re.search(r"KV cache size: ([\d,]+) tokens", run.stdout + run.stderr)
    assert said, (run.stdout + run.stderr)[-2000:]
    layout = layout_of(config)
    assert layout is not None
    taken = layout.vllm_bytes(4096, block=128)
    assert taken is not None
    held = int(said[1].replace(",", ""))
    assert GIB / taken * 4096 == pytest.approx(held, rel=0.03)
