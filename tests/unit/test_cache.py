"""The cache of a model: what its layers keep, read from headers, against what engines allotted."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.engines.headers import MODELS, write_header
from tests.unit.model_folder import model_folder
from tests.unit.test_gguf import Meta, gguf
from tests.unit.test_needs import HEADER, made
from tokrig.errors import InputError
from tokrig.models import architecture
from tokrig.models.architecture import kv_bytes_per_token, layout_of
from tokrig.models.cache import CacheGroup, CacheLayout, Layers
from tokrig.models.catalog import resolve
from tokrig.models.gguf import read_gguf
from tokrig.units import MIB

# What llama.cpp 11434 logged as "size = … MiB" for 2 × 4,096 tokens, f16, micro-batches of 512,
# flash attention on, by the headers of tests/engines/headers.py (made by tests/engines/test_cache).
LOGGED_MIB = json.loads((Path(__file__).parents[1] / "data/cache/llama-11434.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_each_architecture_takes_what_llama_cpp_allotted(tmp_path: Path, name: str) -> None:
    layout = layout_of(write_header(tmp_path / "m.gguf", *MODELS[name]))
    assert layout is not None
    assert layout.allotted_bytes(4096, 2) / MIB == pytest.approx(LOGGED_MIB[name], abs=0.03)


# By the token


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
        ({"attention.head_count_kv": [0, 2, 0, 1], "ssm.state_size": 16}, None),
        (
            {
                "attention.head_count_kv": [0, 2, 0, 1],
                "ssm.state_size": 16,
                "ssm.inner_size": 512,
                "ssm.conv_kernel": 4,
            },
            3 * 64 * 2 * 2,
        ),
        ({"nextn_predict_layers": 1}, 3 * 2 * 64 * 2 * 2),
        ({"attention.head_count_kv": [1, 2]}, None),
        ({"attention.sliding_window": 512}, None),
        ({"attention.kv_lora_rank": 512}, 4 * 2 * 64 * 2 * 2),
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


# By the step

WINDOWED = CacheLayout((Layers(2, 64, 64, (64, 64)), Layers(10, 64, 64, (64, 64), window=1024)))


def test_a_step_reads_no_more_than_the_window() -> None:
    each = 2 * 64 * 2  # key and value, 64 numbers of 2 bytes
    assert WINDOWED.read_bytes(0) == 0
    assert WINDOWED.read_bytes(1000) == 12 * each * 1000
    assert WINDOWED.read_bytes(1024) == 12 * each * 1024
    assert WINDOWED.read_bytes(100_000) == each * (2 * 100_000 + 10 * 1024)
    assert WINDOWED.read_bytes(2048, "q8_0", "q8_0") == WINDOWED.read_bytes(2048) * 34 // 64
    assert WINDOWED.groups() == [CacheGroup(2 * each, None), CacheGroup(10 * each, 1024)]


def test_a_chunk_begins_anew_and_sparse_attention_reads_what_it_chose() -> None:
    chunked = CacheLayout((Layers(1, 1, 0, window=100, chunked=True),))
    assert [chunked.read_bytes(tokens) // 2 for tokens in (1, 100, 101, 250)] == [1, 100, 1, 50]
    sparse = CacheLayout((Layers(1, 1, 0, most_read=2048),))
    assert [sparse.read_bytes(tokens) // 2 for tokens in (100, 5000)] == [100, 2048]
    assert CacheLayout((), state_bytes=77).read_bytes(10**6) == 77


# What is allotted


def test_windows_of_all_slots_and_a_batch_have_cells() -> None:
    each = 2 * 64 * 2
    cells = {
        (1, False): 2 * 8192 + 10 * 1536,
        (4, False): 4 * (2 * 8192 + 10 * 1536),
        (4, True): 2 * 32768 + 10 * (4 * 1024 + 512),
    }
    for (slots, unified), count in cells.items():
        assert WINDOWED.allotted_bytes(8192, slots, unified=unified) == each * count
    assert WINDOWED.allotted_bytes(8192, swa_full=True) == each * 12 * 8192
    assert WINDOWED.allotted_bytes(8192, ubatch=2048) == each * (2 * 8192 + 10 * 3072)


def test_what_fits_is_the_most_that_is_allotted() -> None:
    chance = Random(7)
    for _ in range(200):
        parts = tuple(
            Layers(chance.randint(1, 40), 64, 64, (64, 64), chance.choice([None, 512, 4096]))
            for _ in range(chance.randint(1, 3))
        )
        layout, room = CacheLayout(parts, chance.choice([0, 10_000])), chance.randint(0, 2**34)
        slots = chance.randint(1, 9)
        most = layout.largest_context(room, slots)
        assert most == 0 or layout.allotted_bytes(most, slots) <= room
        if any(part.window is None for part in parts):
            assert layout.allotted_bytes(most + 256, slots) > room
        fit = layout.most_slots(room, 4096)
        assert fit == 0 or layout.allotted_bytes(4096, fit) <= room
        assert layout.allotted_bytes(4096, fit + 1) > room


def test_without_flash_attention_all_values_are_as_long_as_the_longest() -> None:
    layout = CacheLayout((Layers(1, 64, 64), Layers(1, 64, 128)), widest_value=128)
    assert layout.allotted_bytes(256) == 256 * 2 * (2 * 64 + 64 + 128)
    assert layout.allotted_bytes(256, flash_attention=False) == 256 * 2 * (2 * 64 + 2 * 128)


# Headers of all kinds


def test_no_header_is_a_traceback_and_none_is_negative(tmp_path: Path) -> None:
    """Figures of every architecture left out, doubled, zero, huge, of another kind."""
    chance = Random(11)
    for number in range(600):
        kind, figures = MODELS[chance.choice(list(MODELS))]
        changed: dict[str, Any] = dict(figures)
        for key in chance.sample(list(changed), k=min(2, len(changed))):
            worst = [0, 1, 2**31, 3, 3.5, True, "8", [1, 2], [0] * 16]
            changed[key] = chance.choice(worst)
            if chance.random() < 0.4:
                del changed[key]
        meta: dict[str, Meta] = {"general.architecture": kind}
        meta |= {f"{kind}.{key}": value for key, value in changed.items()}
        path = tmp_path / f"{number % 4}.gguf"
        path.write_bytes(gguf(meta))
        layout = layout_of(path)
        if layout is not None:
            assert all(
                part.layers > 0 and part.key >= 0 and part.value >= 0 for part in layout.layers
            )
            assert layout.allotted_bytes(4096) >= 0
            assert layout.read_bytes(100) <= layout.allotted_bytes(256)


def test_every_architecture_that_has_states_is_settled_or_told_unsettled(tmp_path: Path) -> None:
    for kind in architecture.UNSETTLED:
        path = write_header(tmp_path / "m.gguf", kind, MODELS["Llama 3.1 8B"][1])
        assert layout_of(path) is None
    path = write_header(tmp_path / "m.gguf", "bert", MODELS["Llama 3.1 8B"][1])
    assert layout_of(path) == CacheLayout(())


# Configurations


@pytest.mark.parametrize(
    ("config", "groups"),
    [
        # Qwen3-8B, Gemma 3 4B, gpt-oss-20b, Mistral 7B v0.1, DeepSeek-V3, Qwen2.5-7B: their
        # config.json on the hub, shortened.
        (
            {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
             "head_dim": 128, "hidden_size": 4096},
            [(36 * 2 * 8 * 128 * 2, None)],
        ),
        (
            {"text_config": {"model_type": "gemma3_text", "num_hidden_layers": 34, "head_dim": 256,
             "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 2560,
             "sliding_window": 1024}},
            [(5 * 2 * 4 * 256 * 2, None), (29 * 2 * 4 * 256 * 2, 1024)],
        ),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 12, "num_hidden_layers": 24,
             "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8,
             "sliding_window": 128, "hidden_size": 2880},
            [(12 * 2 * 8 * 64 * 2, None), (12 * 2 * 8 * 64 * 2, 128)],
        ),
        (
            {"model_type": "mistral", "num_hidden_layers": 32, "hidden_size": 4096,
             "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096},
            [(32 * 2 * 8 * 128 * 2, 4096)],
        ),
        (
            {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
             "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168},
            [(61 * 576 * 2, None)],
        ),
        (
            {"num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28,
             "num_key_value_heads": 4, "use_sliding_window": False, "sliding_window": 131072,
             "max_window_layers": 28},
            [(28 * 2 * 4 * 128 * 2, None)],
        ),
    ],
)  # fmt: skip
def test_the_cache_by_the_configuration(
    config: dict[str, Any], groups: list[tuple[int, int | None]]
) -> None:
    layout = layout_of(config)
    assert layout is not None and layout.groups("auto", "auto") == groups


@pytest.mark.parametrize(
    "changes",
    [{"mamba_d_state": 16}, {"index_topk": 2048}, {"layer_types": ["odd"]},
     {"num_hidden_layers": 0}, {"attention_chunk_size": 8192}, {"hidden_size": 0, "head_dim": 0}],
)  # fmt: skip
def test_a_configuration_that_does_not_settle_it(changes: dict[str, Any]) -> None:
    base = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1}
    assert layout_of(base) is not None
    assert layout_of(base | changes) is None


def test_vllm_takes_blocks_of_groups_of_layers() -> None:
    # gpt-oss: 12 full, 12 windowed: one group of each; 8 heads × 64 numbers × (K, V) × 2 bytes.
    full, short = Layers(12, 512, 512, (64, 64)), Layers(12, 512, 512, (64, 64), window=128)
    block = 12 * 1024 * 2 * 16
    assert CacheLayout((full,)).vllm_bytes(8192) == 512 * block
    blocks = 512 + -(-(127 + 2048) // 16) + 1
    assert CacheLayout((full, short)).vllm_bytes(8192) == blocks * block
    assert CacheLayout((full, short)).vllm_bytes(8192, slots=3) == 3 * blocks * block
    # Gemma 3: 5 full layers, 29 with windows: six groups of 5, the last padded.
    gemma = CacheLayout((Layers(5, 1024, 1024), Layers(29, 1024, 1024, window=1024)))
    blocks = 512 + 6 * (-(-(1023 + 2048) // 16) + 1)
    assert gemma.vllm_bytes(8192) == blocks * 5 * 2048 * 2 * 16
    assert CacheLayout((full,), state_bytes=1).vllm_bytes(8192) is None


def test_vllm_logged_what_is_reckoned() -> None:
    """vLLM 0.32.0 on a CPU, 1 GiB for its cache, blocks of 128 tokens, 2,048 in flight: "CPU KV
    cache size: 15,656 tokens, Maximum concurrency for 8,192 tokens per request: 1.91x" for Gemma 3
    4B's attention, and for Qwen3 8B's "(1.12 GiB KV cache is needed …)"."""
    gemma = CacheLayout((Layers(5, 1024, 1024), Layers(29, 1024, 1024, window=1024)))
    taken, block = gemma.vllm_bytes(8192, block=128) or 0, 5 * 128 * 2048 * 2
    assert int(2**30 // block / (taken / block) * 8192) == 15_656
    qwen = CacheLayout((Layers(36, 1024, 1024),))
    assert (qwen.vllm_bytes(8192, block=128) or 0) / 2**30 == pytest.approx(1.12, abs=0.006)
