"""What is identified is what is served: parts, pieces, folders, and files that hold no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.model_folder import DENSE, Tensors, model_folder, safetensors
from tests.unit.test_gguf import Meta, TensorSpec, gguf, put
from tokrig.errors import ModelError
from tokrig.models import needs
from tokrig.models.catalog import resolve
from tokrig.models.identity import identify
from tokrig.record.model import Model


def known(path: Path) -> Model:
    return identify(path, sha256=False)


def split(folder: Path, count: int) -> list[Path]:
    """The parts of a model as gguf-split names and marks them."""
    paths = [folder / f"m-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    for number, path in enumerate(paths):
        tensors = [(f"blk.{number}.ffn_up.weight", (32, 2), 8, 68)]
        path.write_bytes(gguf({"split.no": number, "split.count": count}, tensors))
    return paths


def test_a_folder_of_gguf_files_is_the_one_model_in_it(tmp_path: Path) -> None:
    """Repositories keep projector and importance matrix beside the model, some a config.json."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "mmproj-F16.gguf").write_bytes(gguf({"general.architecture": "clip"}))
    with pytest.raises(ModelError, match="a folder without a model: it holds mmproj-F16"):
        resolve(str(folder))
    (folder / "model.gguf").write_bytes(gguf())
    assert resolve(str(folder)) == folder / "model.gguf"
    assert identify(folder).file == "model.gguf"
    (folder / "other.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match="2 models: model.gguf, other.gguf"):
        resolve(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="a folder, not a model file"):
        resolve(str(tmp_path / "empty"))


def test_of_a_split_file_the_first_part_is_served(tmp_path: Path) -> None:
    """Engines refuse any other: lemonade-sdk/lemonade#499, ngxson/wllama#135."""
    parts = split(tmp_path, count=3)
    for part in parts:
        assert resolve(str(part)) == parts[0]
    assert resolve(str(tmp_path)) == parts[0]
    parts[2].unlink()
    with pytest.raises(ModelError, match="1 of 3 parts missing, first m-00003-of-00003.gguf"):
        resolve(str(parts[1]))


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["m.gguf.part2of2", "m.gguf.part1of2"], "cat m.gguf.part1of2 m.gguf.part2of2 > m.gguf"),
        (["m.gguf-split-b", "m.gguf-split-a"], "cat m.gguf-split-a m.gguf-split-b > m.gguf"),
        (["m.gguf.part-00002", "m.gguf.part-00001"], "cat m.gguf.part-00001 m.gguf.part-00002 >"),
        (["m.gguf.aa", "m.gguf.ab"], "cat m.gguf.aa m.gguf.ab > m.gguf"),
        (["m.gguf.002", "m.gguf.001"], "cat m.gguf.001 m.gguf.002 > m.gguf"),
        (["m.gguf.part10", "m.gguf.part2"], "cat m.gguf.part2 m.gguf.part10 > m.gguf"),
    ],
)
def test_a_file_cut_by_bytes_is_to_be_joined(tmp_path: Path, names: list[str], joined: str) -> None:
    """Not "truncated, fetch it again" (oobabooga/textgen#6187, Headroomov/GGUF-Merge#1)."""
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF\3\0\0\0")
    for asked in (*names, "m.gguf"):
        with pytest.raises(ModelError, match="which no engine opens") as caught:
            resolve(str(tmp_path / asked))
        assert joined in caught.value.hint
    with pytest.raises(ModelError, match="cut by bytes"):
        identify(tmp_path / names[0])
    (tmp_path / "m.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match="a piece of m.gguf, which lies beside it"):
        resolve(str(tmp_path / names[0]))
    assert resolve(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part1of3").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="missing: number 2, 3") as caught:
        resolve(str(tmp_path / "m.gguf.part1of3"))
    assert caught.value.hint.startswith("download the rest, then join them")


def test_parts_joined_by_cat_are_told(tmp_path: Path) -> None:
    """ggml-org/llama.cpp#9613: "invalid split file"."""
    first, second = split(tmp_path, count=2)
    whole = tmp_path / "llama.gguf"
    whole.write_bytes(first.read_bytes() + bytes(8192) + second.read_bytes())
    with pytest.raises(ModelError, match="put one after the other") as caught:
        identify(whole)
    assert "--merge" in caught.value.hint


# --- files that hold no model ---------------------------------------------------------------------

EMBEDS: TensorSpec = ("token_embd.weight", (32, 2), 8, 68)


@pytest.mark.parametrize(
    ("name", "meta", "word"),
    [
        ("x.gguf", {"general.architecture": "clip"}, "a multimodal projector"),
        ("mmproj-model-f16.gguf", {}, "a multimodal projector"),
        ("x.mmproj-Q8_0.gguf", {"general.architecture": "qwen2vl"}, "a multimodal projector"),
        ("x.gguf", {"general.type": "imatrix"}, "an importance matrix"),
        ("x.gguf", {"imatrix.chunk_count": 8}, "an importance matrix"),
        ("x.gguf", {"general.architecture": "controlvector"}, "a control vector"),
        ("x.gguf", {"adapter.type": "lora"}, "an adapter"),
        ("x.gguf", {"general.architecture": "bert"}, "an embedding model"),
        (
            "x.gguf",
            {"general.architecture": "qwen3", "qwen3.pooling_type": 3},
            "an embedding model",
        ),
        ("x.gguf", {"general.architecture": "qwen3", "qwen3.pooling_type": 4}, "a reranking model"),
        ("Qwen3-Reranker-4B-Q4_K_M.gguf", {"general.architecture": "qwen3"}, "a reranking model"),
        ("x.gguf", {"general.architecture": "dream"}, "a diffusion language model"),
        ("x.gguf", {"general.architecture": "t5"}, "an encoder-decoder model"),
        ("x.gguf", {"general.architecture": "flux"}, "a model of pictures or video"),
        ("x.gguf", {"general.architecture": "wavtokenizer-dec"}, "a model of speech"),
    ],
)
def test_what_holds_no_model_says_what_it_is(
    tmp_path: Path, name: str, meta: dict[str, Meta], word: str
) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        known(put(tmp_path, name, gguf(meta)))
    assert caught.value.hint


def test_a_model_that_hears_or_sees_is_a_model(tmp_path: Path) -> None:
    """A chat model may have a word of the others in its name; its embedding tells."""
    path = put(tmp_path, "m-with-mmproj-Q8_0.gguf", gguf({"qwen3.pooling_type": 0}, [EMBEDS]))
    assert known(path).quant == "Q8_0"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x02\0\0\0\x16\0\0\0blk.0.attn_q.weight" + bytes(64), "importance matrix"),
        (b"algg" + bytes(64), "LoRA adapter"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\0\0\0\x03" + bytes(64), "big-endian"),
    ],
)
def test_what_is_no_gguf_says_what_it_is(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        known(put(tmp_path, "m.gguf", content))


@pytest.mark.parametrize(
    ("config", "file", "word"),
    [
        ({"model_type": "t5"}, None, "an encoder-decoder model"),
        ({"model_type": "whisper"}, None, "a model of speech"),
        ({"model_type": "Dream"}, None, "a diffusion language model"),
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, None, "a reranking"),
        ({"model_type": "nomic_bert"}, None, "an embedding model"),
        ({"model_type": "qwen3"}, "modules.json", "an embedding model"),
        ({}, "model_index.json", "a model of pictures"),
    ],
)
def test_a_folder_without_a_chat_model_says_what_it_is(
    tmp_path: Path, config: dict[str, Any], file: str | None, word: str
) -> None:
    folder = model_folder(tmp_path / "m", config=config, files={file: "[]"} if file else None)
    with pytest.raises(ModelError, match=word):
        known(folder)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html><body>404</body></html>", "a web page"),
    ],
)
def test_weights_that_were_not_fetched(tmp_path: Path, content: bytes, word: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=word):
        known(folder)


# --- quants ---------------------------------------------------------------------------------------

MXFP4, Q4_K, Q8_0, F16, BF16, TQ1_0, IQ4_NL = 39, 12, 8, 1, 30, 34, 20
BLOCKS = {MXFP4: (32, 17), Q4_K: (256, 144), Q8_0: (32, 34), F16: (1, 2), BF16: (1, 2)}
BLOCKS |= {TQ1_0: (256, 54), IQ4_NL: (32, 18)}


@pytest.mark.parametrize(
    ("name", "file_type", "code", "quant", "stated"),
    [
        # gpt-oss: every quant of it that is published keeps its experts in MXFP4.
        ("gpt-oss-20b-F16.gguf", 1, MXFP4, "MXFP4_MOE", "F16"),
        ("gpt-oss-20b-Q8_0.gguf", 7, MXFP4, "MXFP4_MOE", "Q8_0"),
        ("gpt-oss-20b-UD-Q8_K_XL.gguf", 7, MXFP4, "MXFP4_MOE", "Q8_0 / UD-Q8_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", 38, MXFP4, "MXFP4_MOE", None),
        ("Big-Q6_K.gguf", 15, Q4_K, "Q4_K_M", "Q6_K"),
        ("Big-Q4_K_M.gguf", 1, Q4_K, "Q4_K_M", "F16"),
        ("m-Q8_0.gguf", 7, Q4_K, "Q4_K", "Q8_0"),
        ("m-F16.gguf", 1, BF16, "BF16", "F16"),
        ("m-Q4_K_M.gguf", 15, F16, "F16", "Q4_K_M"),
        ("m-UD-Q4_K_XL.gguf", 15, Q4_K, "UD-Q4_K_XL", None),
        ("m-UD-Q8_K_XL.gguf", 7, F16, "UD-Q8_K_XL", None),
        ("m-Q4_K_M.gguf", 15, Q4_K, "Q4_K_M", None),
        ("m-Q6_K.gguf", 18, Q8_0, "Q6_K", None),  # rows that are no whole blocks of 256
        ("m-IQ2_M.gguf", 29, IQ4_NL, "IQ2_M", None),
        ("DeepSeek-R1-UD-TQ1_0.gguf", 36, TQ1_0, "UD-TQ1_0", None),
        ("m-IQ4_NL.gguf", 25, IQ4_NL, "IQ4_NL", None),
        ("m.i1-IQ4_NL.gguf", 25, IQ4_NL, "IQ4_NL", None),
        ("GLM-4.5-Air-smol-IQ4_KSS.gguf", 148, 137, "IQ4_KSS", None),  # ik_llama.cpp's own
        ("m-Q8_KV_R8.gguf", None, 398, "Q8_KV_R8", None),
        ("m-Q4_0_8_8.gguf", 35, 33, "Q4_0_8_8", None),
        ("Kimi-K2-BF16-384x14B-Q8_0-00001-of-00001.gguf", 7, Q8_0, "Q8_0", None),
        ("m.gguf", None, Q8_0, None, None),
    ],
)
def test_the_tensors_decide_what_a_quant_is(
    tmp_path: Path, name: str, file_type: int | None, code: int, quant: str, stated: str | None
) -> None:
    meta: dict[str, Meta] = {} if file_type is None else {"general.file_type": file_type}
    block, size = BLOCKS.get(code, (32, 18))
    experts = ("blk.0.ffn_up_exps.weight", (256, 2, 2), code, 1024 // block * size)
    model = known(put(tmp_path, name, gguf(meta, [experts])))
    assert (model.quant, model.quant_stated) == (quant, stated)


QUARK: dict[str, Any] = {"weight": {"dtype": "fp4", "group_size": 32}}


@pytest.mark.parametrize(
    ("stated", "label"),
    [
        ({"quant_method": "quark", "global_quant_config": QUARK}, "Quark-MXFP4"),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}},
                "layer_quant_config": {"*.mlp.*": QUARK},
            },
            "Quark-FP8+MXFP4",
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": [{"dtype": "fp8_e4m3"}, {"dtype": "int4"}]},
            },
            "Quark-Int4",
        ),
        ({"quant_method": "quark"}, "Quark"),
        ({"quant_method": "exl2", "bits": 4.25, "head_bits": 6}, "EXL2-4.25bpw"),
        ({"quant_method": "exl3", "bits": 3.0}, "EXL3-3bpw"),
        (
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}},
            "HQQ-4bit",
        ),
        (
            {
                "quant_method": "aqlm",
                "nbits_per_codebook": 16,
                "num_codebooks": 1,
                "in_group_size": 8,
                "out_group_size": 1,
            },
            "AQLM-2bit",
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}},
            },
            "torchao-Int4WeightOnly",
        ),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao-int4_weight_only"),
        ({"quant_method": "quanto", "weights": "int4"}, "Quanto-int4"),
        ({"quant_method": "fp_quant", "forward_dtype": "mxfp4"}, "FPQuant-mxfp4"),
        ({"quant_method": "bitnet"}, "BitNet"),
        ({"quant_method": "awq_marlin", "bits": 4}, "AWQ"),
        ({"quant_method": "compressed_tensors"}, "compressed-tensors"),
        ({"quant_method": "modelopt_fp4", "quant_algo": "NVFP4"}, "NVFP4"),
        ({"quant_method": "fbgemm_fp8"}, "FP8"),
        ({"quant_method": "mxfp8"}, "MXFP8"),
        ({"group_size": 64, "bits": 4}, "MLX-4bit"),  # mlx-lm writes it without a method as well
    ],
)
def test_each_quantizer_has_its_label(tmp_path: Path, stated: dict[str, Any], label: str) -> None:
    folder = model_folder(tmp_path / "m", config={"quantization_config": stated})
    assert known(folder).quant == label


@pytest.mark.parametrize(
    ("file", "stated", "label"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128, "desc_act": True}, "GPTQ-Int4"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128, "version": "GEMM"}, "AWQ"),
    ],
)
def test_older_quantizers_wrote_a_file_of_their_own(
    tmp_path: Path, file: str, stated: dict[str, Any], label: str
) -> None:
    assert known(model_folder(tmp_path / "m", files={file: json.dumps(stated)})).quant == label


# --- experts and tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "config"),
    [
        ("mlp.experts.{n}.up_proj", {"num_experts": 8, "num_experts_per_tok": 2}),
        ("mlp.switch_mlp.up_proj", {"num_experts": 8, "num_experts_per_tok": 2}),  # mlx-lm
        ("block_sparse_moe.input_linear", {"num_local_experts": 8, "num_experts_per_tok": 2}),
        ("mlp.output_linear", {"moe_num_experts": 8, "moe_top_k": 2}),  # JetMoE
        ("ffn.experts.mlp.w1", {"ffn_config": {"moe_num_experts": 8, "moe_top_k": 2}}),  # DBRX
        ("feed_forward.experts.gate_up_proj", {"num_local_experts": 8, "num_experts_per_tok": 2}),
        ("feed_forward.experts.{n}.down_proj", {"num_experts": 8, "num_experts_per_tok": 2}),
        ("moe.up_proj", {"moe_num_experts": 8, "moe_top_k": 2}),  # Step-3
        ("mlp.experts.{n}.up_proj", {"moe_num_experts": 8, "moe_topk": [2, 2, 2]}),  # Hunyuan
        ("mlp.whatever_it_is_called", {"num_experts": 8, "num_experts_per_tok": 2}),
    ],
)
def test_experts_are_known_by_every_name(
    tmp_path: Path, names: str, config: dict[str, Any]
) -> None:
    """ibm-granite, databricks/dbrx, ai21labs/Jamba, tencent/Hunyuan and stepfun-ai name them so."""
    prefix = "model.layers.0."
    experts: dict[str, tuple[str, tuple[int, ...]]] = (
        {f"{prefix}{names.format(n=n)}.weight": ("BF16", (16, 8)) for n in range(8)}
        if "{n}" in names
        else {f"{prefix}{names}.weight": ("BF16", (8, 16, 8))}
    )
    shared: Tensors = {
        f"{prefix}shared_mlp.input_linear.weight": ("BF16", (16, 8)),
        f"{prefix}mlp.shared_expert.up_proj.weight": ("BF16", (16, 8)),
    }
    dense = sum(100 * 8 * n for n in (1, 1)) + 16 * 8 + 8 + 2 * 128
    folder = model_folder(tmp_path / "m", {**DENSE, **experts, **shared}, config)
    assert known(folder).active_parameters == dense + 2 * 128
    read = needs.read_bytes_per_token(folder)
    assert read == 2 * (dense - 8 - 800 + 2 * 128) + 4 * 8


def test_files_from_before_2024_have_one_tensor_an_expert(tmp_path: Path) -> None:
    meta: dict[str, Meta] = {
        "general.architecture": "llama",
        "llama.expert_count": 2,
        "llama.expert_used_count": 1,
    }
    tensors = [(f"blk.0.ffn_up.{n}.weight", (32,), 8, 34) for n in range(2)]
    path = put(tmp_path, "m.gguf", gguf(meta, [EMBEDS, *tensors]))
    assert known(path).active_parameters == 64 + 32
    assert needs.read_bytes_per_token(path) == 68 + 34


@pytest.mark.parametrize(
    ("table", "output"),
    [
        ("model.embed_tokens", "lm_head"),
        ("language_model.model.embed_tokens", "language_model.lm_head"),
        ("tok_embeddings", "output"),  # Mistral's own
        ("model.tok_embeddings", "output"),  # InternLM 2
        ("transformer.wte", "lm_head"),
        ("gpt_neox.embed_in", "embed_out"),
        ("transformer.embedding.word_embeddings", "transformer.output_layer"),
        ("backbone.embeddings", "lm_head"),
    ],
)
def test_the_input_embedding_is_only_looked_up(tmp_path: Path, table: str, output: str) -> None:
    tensors: Tensors = {
        f"{table}.weight": ("BF16", (100, 8)),
        "model.layers.0.mlp.up_proj.weight": ("BF16", (16, 8)),
        "model.embed_tokens_per_layer.weight": ("BF16", (500, 8)),
    }
    tied = model_folder(tmp_path / "tied", tensors)
    assert needs.read_bytes_per_token(tied) == 2 * (800 + 128)
    own = model_folder(tmp_path / "own", {**tensors, f"{output}.weight": ("BF16", (100, 8))})
    assert needs.read_bytes_per_token(own) == 2 * (800 + 128)


def test_mistrals_own_format_needs_no_config_json(tmp_path: Path) -> None:
    folder = tmp_path / "Mistral-Small-24B"
    folder.mkdir()
    params = {
        "dim": 8,
        "n_layers": 1,
        "max_seq_len": 32768,
        "moe": {"num_experts": 4, "num_experts_per_tok": 1},
        "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
    }
    (folder / "params.json").write_text(json.dumps(params))
    tensors: Tensors = {
        "tok_embeddings.weight": ("BF16", (100, 8)),
        "output.weight": ("BF16", (100, 8)),
        "layers.0.experts.0.w1.weight": ("F8_E4M3", (16, 8)),
    }
    (folder / "consolidated.safetensors").write_bytes(safetensors(tensors))
    assert resolve(str(folder)) == folder
    model = known(folder)
    assert (model.family, model.quant, model.context_train) == ("Mistral-Small", "FP8", 32768)
    assert model.active_parameters == 1600 + 128 // 4
    (folder / "consolidated.safetensors").rename(folder / "consolidated-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match="consolidated-00002-of-00002"):
        known(folder)
