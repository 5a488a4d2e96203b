"""What a model needs: what is read for each token, what would fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.model_folder import DENSE, Tensors, model_folder
from tests.unit.test_gguf import Meta, TensorSpec, gguf
from tokrig.models.catalog import resolve
from tokrig.models.gguf import read_gguf
from tokrig.models.needs import read_bytes_per_token
from tokrig.quants import would_fit
from tokrig.record.model import Model

GB = 10**9
HEADER: dict[str, Meta] = {
    "block_count": 4,
    "embedding_length": 512,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
}


WEIGHT: TensorSpec = ("output.weight", (32, 2), 8, 68)


def made(
    path: Path, changes: dict[str, Meta] | None = None, tensors: Sequence[TensorSpec] = (WEIGHT,)
) -> Path:
    meta: dict[str, Meta] = {"general.architecture": "toy"}
    meta |= {f"toy.{key}": value for key, value in (HEADER | (changes or {})).items()}
    path.write_bytes(gguf(meta, tensors))
    return path


# --- weights read -------------------------------------------------------------------------------


def f32(name: str, count: int) -> TensorSpec:
    return (name, (count,), 0, 4 * count)


def test_what_a_gguf_reads_for_a_token(tmp_path: Path) -> None:
    def reads(*tensors: TensorSpec, **changes: Meta) -> int | None:
        return read_bytes_per_token(made(tmp_path / "m.gguf", changes, tensors))

    tied = [f32("token_embd.weight", 100), f32("blk.0.ffn_up.weight", 10)]
    assert reads(*tied) == 4 * 110
    own = [*tied, f32("output.weight", 100)]
    assert reads(*own) == 4 * 110
    assert reads(*own, f32("per_layer_token_embd.weight", 1000)) == 4 * 110
    drafting = f32("blk.3.ffn_up.weight", 1000)
    assert reads(*own, drafting) == 4 * 1110
    assert reads(*own, drafting, nextn_predict_layers=1) == 4 * 110
    experts = f32("blk.0.ffn_up_exps.weight", 800)
    assert reads(*tied, experts, expert_count=8, expert_used_count=2) == 4 * 310
    assert reads(*tied, experts) is None
    assert reads(*tied, ("blk.0.x.weight", (32,), 200, 0)) is None


def test_what_the_real_model_reads() -> None:
    path = resolve("smollm2-135m")  # its output is its embedding: everything is read
    assert read_bytes_per_token(path) == sum(t.bytes or 0 for t in read_gguf(path).tensors)


def test_what_a_folder_reads_for_a_token(tmp_path: Path) -> None:
    everything = 2 * (100 * 8 * 2 + 16 * 8) + 4 * 8
    assert read_bytes_per_token(model_folder(tmp_path / "own")) == everything - 1600
    tied = {name: spec for name, spec in DENSE.items() if name != "lm_head.weight"}
    assert read_bytes_per_token(model_folder(tmp_path / "tied", tied)) == everything - 1600
    more: Tensors = {
        **DENSE,
        "model.layers.1.mlp.up_proj.weight": ("BF16", (16, 8)),  # MTP: beyond the layers
        "vision_tower.patch.weight": ("BF16", (16, 8)),
        "model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (16, 8)),
        "model.layers.0.mlp.experts.1.up_proj.weight": ("BF16", (16, 8)),
    }
    config = {"num_local_experts": 2, "num_experts_per_tok": 1}
    folder = model_folder(tmp_path / "more", more, config)
    assert read_bytes_per_token(folder) == everything - 1600 + 2 * 128
    assert read_bytes_per_token(model_folder(tmp_path / "unknown", more)) is None


# --- what would fit -----------------------------------------------------------------------------

EIGHT = Model(
    family="Llama", format="gguf", bytes=int(8.5 * GB), parameters=8 * GB, bits_per_weight=8.5
)


def advice(free_gb: float, kv: int = 131072, model: Model = EIGHT) -> list[str]:
    room, gguf = int(free_gb * GB) - GB // 2, model.format == "gguf"
    return would_fit(room, model.bytes or 0, kv, 32768, bits=model.bits_per_weight, gguf=gguf)


def test_what_fits_needs_no_advice() -> None:
    assert advice(14) == []
    assert advice(9, kv=0) == []


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (
            12.0,
            [
                "a cache in q8_0 instead of f16",
                "a context of 22784 tokens instead of 32768",
                "a quant of at most 7.2 bits per weight, such as Q6_K",
            ],
        ),
        (
            10.5,
            [
                "a cache in q4_0 instead of f16",
                "a context of 11264 tokens instead of 32768",
                "a quant of at most 5.7 bits per weight, such as Q5_K_M",
            ],
        ),
        (8.0, ["a quant of at most 3.2 bits per weight, such as IQ2_M"]),
        (
            5.0,
            ["a quant of at most 4.5 bits per weight, such as IQ4_XS, together with a smaller"],
        ),
        (2.0, ["a smaller model: 1.40 GiB are free for its weights"]),
        (0.1, ["a smaller model: 0 B are free for its weights"]),
    ],
)
def test_suggestions_from_mild_to_hard(free: float, expected: list[str]) -> None:
    found = advice(free)
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start)


def test_what_is_suggested_does_fit() -> None:
    for free in range(3, 13):
        for text in advice(free):
            if text.startswith("a context of"):
                tokens = int(text.split()[3])
                assert tokens % 256 == 0
                assert 8.5 * GB + tokens * 131072 <= (free - 0.5) * GB


def test_without_a_known_cache_only_the_weights_count() -> None:
    assert advice(6, kv=0) == ["a quant of at most 5.5 bits per weight, such as Q4_K_M"]
    folder = EIGHT.model_copy(update={"format": "safetensors", "bits_per_weight": 16.0})
    folder = folder.model_copy(update={"bytes": 16 * GB})
    assert advice(9, 0, folder) == ["a quant of at most 8.5 bits per weight, such as FP8"]
    unknown = EIGHT.model_copy(update={"bits_per_weight": None})
    assert advice(6, 0, unknown) == ["a smaller model: 5.12 GiB are free for its weights"]
