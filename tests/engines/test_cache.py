"""Caches as reckoned from headers, against what the engines allot for the same headers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.engines.headers import MODELS, Value, write_header
from tests.engines.llama_memory import logged
from tokrig.models.architecture import layout_of
from tokrig.units import MIB

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
