"""What a model needs: its cache, what is read for each token, what would fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.model_folder import DENSE, Tensors, model_folder
from tests.unit.test_gguf import Meta, TensorSpec, gguf
from tokrig.errors import InputError
from tokrig.models.catalog import resolve
from tokrig.models.gguf import read_gguf
from tokrig.models.needs import kv_bytes_per_token, read_bytes_per_token
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


# --- the cache ----------------------------------------------------------------------------------


def test_the_cache_of_the_real_model() -> None:
    path = resolve("smollm2-135m")
    # 30 layers × 3 heads × 64 numbers × (K and V) × 2 bytes
    assert kv_bytes_per_token(path) == 30 * 3 * 64 * 2 * 2
    assert kv_bytes_per_token(read_gguf(path)) == 23040
    assert kv_bytes_per_token(path, "q8_0", "q8_0") == 23040 * 34 // 64
    assert kv_bytes_per_token(path, "f16", "q4_0") == 23040 // 2 + 23040 // 2 * 18 // 64
    assert kv_bytes_per_token(path, "BF16", "f32") == 23040 // 2 * 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 4 * 2 * 64 * 2 * 2),
        ({"attention.key_length": 128}, 4 * 2 * (128 + 64) * 2),
        ({"attention.key_length": 192, "attention.value_length": 128}, 4 * 2 * 320 * 2),
        ({"attention.head_count_kv": [0, 2, 0, 1]}, 3 * 64 * 2 * 2),
        ({"attention.head_count_kv": [0, 2, 0, 1], "ssm.state_size": 16}, 3 * 64 * 2 * 2),
        ({"nextn_predict_layers": 1}, 3 * 2 * 64 * 2 * 2),
        ({"attention.head_count_kv": [1, 2]}, None),
        ({"attention.sliding_window": 512}, None),
        ({"attention.kv_lora_rank": 512}, None),
        ({"ssm.state_size": 16}, None),
        ({"full_attention_interval": 4}, None),
        ({"block_count": 0}, None),
        ({"embedding_length": 0}, None),
        ({"attention.head_count": 0}, None),
    ],
)
def test_the_cache_by_the_header(
    tmp_path: Path, changes: dict[str, Meta], expected: int | None
) -> None:
    assert kv_bytes_per_token(made(tmp_path / "m.gguf", changes)) == expected


@pytest.mark.parametrize(
    ("kind", "window", "expected"),
    [("toy", 0, 2048), ("phi3", 2048, 2048), ("gemma3", 512, None), ("gemma2", 0, None)],
)
def test_windows_as_llama_cpp_takes_them(
    tmp_path: Path, kind: str, window: int, expected: int | None
) -> None:
    keys = HEADER | {"attention.sliding_window": window}
    meta: dict[str, Meta] = {f"{kind}.{key}": value for key, value in keys.items()}
    (tmp_path / "m.gguf").write_bytes(gguf({"general.architecture": kind, **meta}))
    assert kv_bytes_per_token(tmp_path / "m.gguf") == expected


def test_a_hundred_layers_of_their_own_are_summed(tmp_path: Path) -> None:
    path = made(tmp_path / "m.gguf", {"block_count": 100, "attention.head_count_kv": [1, 0] * 50})
    assert kv_bytes_per_token(path) == 50 * 64 * 2 * 2


def test_a_type_that_does_not_fit_or_is_none(tmp_path: Path) -> None:
    odd = made(tmp_path / "m.gguf", {"attention.key_length": 40, "attention.head_count_kv": 1})
    assert kv_bytes_per_token(odd) == 4 * (40 + 64) * 2
    assert kv_bytes_per_token(odd, "q8_0", "q8_0") is None
    with pytest.raises(InputError, match="unknown cache type 'q9_0'") as caught:
        kv_bytes_per_token(odd, "q9_0")
    assert "did you mean 'q" in caught.value.hint
    assert kv_bytes_per_token(model_folder(tmp_path / "folder")) is None


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
