"""Headers of models without their weights: the widths of published models, by architecture."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter

Value = int | float | bool | str | list[int]
TOKENS = 64

# What every architecture's header states, or may: figures that no cache depends on.
_COMMON: dict[str, Value] = {
    "context_length": 131072,
    "feed_forward_length": 256,
    "vocab_size": TOKENS,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
_EXPERTS: dict[str, Value] = {
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 64,
    "expert_gating_func": 2,
    "leading_dense_block_count": 1,
}


def _attention(layers: int, width: int, heads: int, kv: int, length: int = 0) -> dict[str, Value]:
    found: dict[str, Value] = {
        "block_count": layers,
        "embedding_length": width,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
    }
    if length:
        found |= {"attention.key_length": length, "attention.value_length": length}
    return found


def _mamba(inner: int, state: int, rank: int, groups: int = 0) -> dict[str, Value]:
    found: dict[str, Value] = {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    return found | ({"ssm.group_count": groups} if groups else {})


_MLA: dict[str, Value] = {
    "attention.q_lora_rank": 1536,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "rope.dimension_count": 64,
}
_INDEXER: dict[str, Value] = {
    "attention.indexer.head_count": 64,
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 2048,
}


def _window(tokens: int) -> dict[str, Value]:
    return {"attention.sliding_window": tokens}


# By a name of ours: architecture, then its figures. Widths as on the models' cards.
MODELS: dict[str, tuple[str, dict[str, Value]]] = {
    "Llama 3.1 8B": ("llama", _attention(32, 4096, 32, 8)),
    "Qwen2.5 7B": ("qwen2", _attention(28, 3584, 28, 4)),
    "Qwen3 30B-A3B": ("qwen3moe", _attention(48, 2048, 32, 4, 128) | _EXPERTS),
    "Gemma 2 9B": ("gemma2", _attention(42, 3584, 16, 8, 256) | _window(4096)),
    "Gemma 3 4B": ("gemma3", _attention(34, 2560, 8, 4, 256) | _window(1024)),
    "Gemma 3n E4B": (
        "gemma3n",
        _attention(35, 2048, 8, 2, 256) | _window(512) | {"embedding_length_per_layer_input": 256},
    ),
    "Gemma 4 E2B": (
        "gemma4",
        _attention(35, 1536, 8, 1, 512)
        | _window(512)
        | {
            "attention.sliding_window_pattern": ([1, 1, 1, 1, 0] * 7),
            "attention.shared_kv_layers": 20,
            "attention.key_length_swa": 256,
            "attention.value_length_swa": 256,
            "embedding_length_per_layer_input": 256,
            "rope.freq_base_swa": 10000.0,
        },
    ),
    "Llama 4 Scout": (
        "llama4",
        _attention(48, 5120, 40, 8, 128) | _EXPERTS | {"interleave_moe_layer_step": 1},
    ),
    "gpt-oss 20B": ("gpt-oss", _attention(24, 2880, 64, 8, 64) | _window(128) | _EXPERTS),
    "Phi-3 mini": ("phi3", _attention(32, 3072, 32, 32) | _window(2047)),
    "Command R7B": (
        "cohere2",
        _attention(32, 4096, 32, 8) | _window(4096) | {"logit_scale": 0.25},
    ),
    "EXAONE 4 32B": ("exaone4", _attention(64, 5120, 40, 8, 128) | _window(4096)),
    "EXAONE 4 1.2B": ("exaone4", _attention(30, 2048, 32, 8, 64)),
    "OLMo 3 7B": ("olmo2", _attention(32, 4096, 32, 32) | _window(4096)),
    "SmallThinker 21B": (
        "smallthinker",
        _attention(52, 2560, 28, 4, 128) | _window(4096) | _EXPERTS,
    ),
    "AFMoE": ("afmoe", _attention(32, 2048, 32, 4, 128) | _window(2048) | _EXPERTS),
    "PLaMo 3": ("plamo3", _attention(40, 4096, 32, 4, 128) | _window(2048)),
    "Laguna": (
        "laguna",
        _attention(40, 2048, 32, 8, 128) | _window(512) | _EXPERTS | {"rope.dimension_count": 64},
    ),
    "Step 3.5": (
        "step35",
        _attention(45, 4096, 64, 8, 128)
        | _window(512)
        | _EXPERTS
        | {"attention.sliding_window_pattern": [0, 1, 1, 1, 0] * 9},
    ),
    "MiMo v2": (
        "mimo2",
        _attention(48, 4096, 64, 4, 192)
        | _window(128)
        | _EXPERTS
        | {
            "attention.value_length": 128,
            "attention.sliding_window_pattern": [0, 1, 1, 1, 1, 1] * 8,
            "rope.freq_base_swa": 10000.0,
        },
    ),
    "GLM 4.5 Air": (
        "glm4moe",
        _attention(47, 4096, 96, 8, 128) | _EXPERTS | {"nextn_predict_layers": 1},
    ),
    "Nemotron 51B": (
        "deci",
        _attention(8, 8192, 64, 8)
        | {"attention.head_count_kv": [8, 8, 0, 4, 0, 2, 8, 1]}
        | {"attention.head_count": [64, 64, 0, 64, 0, 64, 64, 64]}
        | {"feed_forward_length": [256] * 8},
    ),
    "DeepSeek V3": ("deepseek2", _attention(61, 7168, 128, 1) | _MLA | _EXPERTS),
    "DeepSeek V2 Lite, before MLA": (
        "deepseek2",
        _attention(27, 2048, 16, 16, 192)
        | _EXPERTS
        | {
            "attention.value_length": 128,
            "attention.kv_lora_rank": 512,
            "rope.dimension_count": 64,
        },
    ),
    "DeepSeek V3.2": ("deepseek32", _attention(61, 7168, 128, 1) | _MLA | _INDEXER | _EXPERTS),
    "MiniCPM3 4B": (
        "minicpm3",
        _attention(62, 2560, 40, 40, 96)
        | {
            "attention.value_length": 64,
            "attention.q_lora_rank": 768,
            "attention.kv_lora_rank": 256,
            "rope.dimension_count": 32,
        },
    ),
    "Mamba 2.8B": ("mamba", _attention(64, 2560, 0, 0) | _mamba(5120, 16, 160)),
    "Mamba 2 2.7B": ("mamba2", _attention(64, 2560, 0, 0) | _mamba(5120, 128, 80, 1)),
    "RWKV 6": (
        "rwkv6",
        _attention(32, 4096, 0, 0)
        | {
            "wkv.head_size": 64,
            "time_mix_extra_dim": 32,
            "time_decay_extra_dim": 64,
            "rescale_every_n_layers": 6,
        },
    ),
    "RWKV 7": (
        "rwkv7",
        _attention(32, 2560, 0, 0)
        | {"wkv.head_size": 64}
        | {
            f"attention.{name}_lora_rank": 64
            for name in ("decay", "iclr", "value_residual_mix", "gate")
        },
    ),
    "Jamba mini": (
        "jamba",
        _attention(32, 4096, 32, 8)
        | {"attention.head_count_kv": [0, 0, 0, 0, 8, 0, 0, 0] * 4}
        | _mamba(8192, 16, 256)
        | _EXPERTS,
    ),
    "Granite 4 tiny": (
        "granitehybrid",
        _attention(40, 1536, 12, 4)
        | {"attention.head_count_kv": ([0] * 5 + [4] + [0] * 4) * 4}
        | _mamba(3072, 128, 48, 1),
    ),
    "Falcon H1 1.5B": (
        "falcon-h1",
        _attention(24, 2048, 8, 2, 128) | _mamba(3072, 256, 48, 1),
    ),
    "LFM2 1.2B": (
        "lfm2",
        _attention(16, 2048, 32, 8)
        | {"attention.head_count_kv": [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]}
        | {"shortconv.l_cache": 3},
    ),
    "Nemotron H 8B": (
        "nemotron_h",
        _attention(52, 4096, 32, 8, 128)
        | {"attention.head_count_kv": [0, 0, 0, 8] * 13, "feed_forward_length": [0, 256, 0, 0] * 13}
        | _mamba(8192, 128, 128, 8),
    ),
    "Qwen3 Next 80B": (
        "qwen3next",
        _attention(48, 2048, 16, 2, 256) | _mamba(4096, 128, 32, 16) | _EXPERTS,
    ),
    "Qwen3.5 9B": (
        "qwen35",
        _attention(32, 4096, 16, 4, 256)
        | _mamba(4096, 128, 32, 16)
        | {"full_attention_interval": 4, "rope.dimension_sections": [11, 11, 10, 0]},
    ),
    "Kimi Linear 48B": (
        "kimi-linear",
        _attention(27, 2304, 32, 1)
        | _MLA
        | _EXPERTS
        | {"attention.head_count_kv": ([0, 0, 0, 1] * 7)[:27]}
        | {"ssm.conv_kernel": 4, "kda.head_dim": 128},
    ),
    "MiniMax 01": (
        "minimax-01",
        _attention(80, 6144, 64, 8, 128)
        | _EXPERTS
        | {"residual_scale": 3.5, "rope.dimension_count": 64},
    ),
}


def write_header(path: Path, kind: str, figures: dict[str, Value]) -> Path:
    """A GGUF file of ``kind`` with these figures and no tensors."""
    writer = GGUFWriter(path, kind)
    for key, value in (_COMMON | figures).items():
        name = f"{kind}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    writer.add_tokenizer_model("test")
    writer.add_token_list([f"tok_{number}" for number in range(TOKENS)])
    writer.add_token_scores([0.0] * TOKENS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
