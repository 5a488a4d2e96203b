"""Safetensors folders: what their headers say, which are refused, what a model is called."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model_folder import DENSE, Tensors, model_folder, safetensors
from tokrig.errors import ModelError
from tokrig.models import identity
from tokrig.models.identity import identify
from tokrig.models.safetensors import read_safetensors
from tokrig.record.model import Model

CARD = """\
---
license: apache-2.0
base_model: Qwen/Qwen3-8B
---
# A model
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        identify(path)
    assert caught.value.hint
    assert str(path.parent) not in caught.value.message + caught.value.hint
    return caught.value


def stored(tmp_path: Path, tensors: Tensors, config: dict[str, Any]) -> Model:
    return identify(model_folder(tmp_path / "Toy-1B", tensors, config), sha256=False)


# --- what a folder is ---------------------------------------------------------------------------


def test_a_plain_model(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path / "Qwen3-8B-Instruct",
        config={"model_type": "qwen3", "max_position_embeddings": 4096},
        files={"chat_template.jinja": "{{ messages }}", "README.md": CARD},
    )
    model = identify(folder)
    content = (folder / "model.safetensors").read_bytes()
    assert (model.family, model.variant) == ("Qwen3", "8B-Instruct")
    assert model.identity_from == "file_name"
    assert (model.format, model.file) == ("safetensors", "Qwen3-8B-Instruct")
    assert (model.quant, model.quant_creator) == ("BF16", None)
    assert (model.bytes, model.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert model.parameters == 100 * 8 * 2 + 16 * 8 + 8
    assert model.bits_per_weight == pytest.approx((1728 * 16 + 8 * 32) / 1736, abs=1e-3)
    assert model.tensor_types == {"BF16": 3, "F32": 1}
    assert (model.context_train, model.architecture) == (4096, "qwen3")
    assert model.chat_template_sha256 == hashlib.sha256(b"{{ messages }}").hexdigest()
    assert (model.base_model, model.license) == ("Qwen/Qwen3-8B", "apache-2.0")
    assert (model.active_parameters, model.reasoning) == (None, None)


def test_a_multimodal_configuration_is_nested(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 131072}}
    model = stored(tmp_path, DENSE, config)
    assert (model.context_train, model.architecture) == (131072, "gemma3")
    config = {"model_type": "", "architectures": ["ToyForCausalLM"]}
    assert stored(tmp_path, DENSE, config).architecture == "ToyForCausalLM"


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"tokenizer_config.json": '{"chat_template": "T"}'}, "T"),
        (
            {
                "tokenizer_config.json": json.dumps(
                    {"chat_template": [{"name": "tool_use"}, {"name": "default", "template": "D"}]}
                )
            },
            "D",
        ),
        ({"chat_template.json": '{"chat_template": "J"}', "tokenizer_config.json": "{}"}, "J"),
        ({"chat_template.jinja": "A", "tokenizer_config.json": '{"chat_template": "T"}'}, "A"),
        ({"tokenizer_config.json": "broken"}, None),
        ({}, None),
    ],
)
def test_where_the_chat_template_is(
    tmp_path: Path, files: dict[str, str], template: str | None
) -> None:
    model = identify(model_folder(tmp_path / "m", files=files), sha256=False)
    expected = hashlib.sha256(template.encode()).hexdigest() if template else None
    assert model.chat_template_sha256 == expected


def test_all_parts_count_and_are_hashed_by_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    one, two = safetensors({"a.weight": ("F16", (4,))}), safetensors({"b.weight": ("F16", (6,))})
    (folder / "model-00002-of-00002.safetensors").write_bytes(two)
    (folder / "model-00001-of-00002.safetensors").write_bytes(one)
    (folder / "consolidated.safetensors").write_bytes(one + two)  # the same once more, unread
    for _ in range(2):
        model = identify(folder)
        assert (model.parameters, model.bytes) == (10, len(one + two))
        assert model.sha256 == hashlib.sha256(one + two).hexdigest()
        assert identify(folder, sha256=False).sha256 is None
        weight_map = {"a.weight": "model-00001-of-00002.safetensors"} | {
            "b.weight": "model-00002-of-00002.safetensors"
        }
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "stated", "expected"),
    [
        ("Qwen3-8B-AWQ", None, ("Qwen3", "8B", "file_name")),
        ("Qwen3-8B-AWQ", "Qwen/Qwen3-8B", ("Qwen3", "8B", "metadata")),
        ("Llama-3.1-8B-Instruct-GPTQ-Int4", None, ("Llama-3.1", "8B-Instruct", "file_name")),
        ("Qwen3-4B-unsloth-bnb-4bit", None, ("Qwen3", "4B", "file_name")),
        ("Meta-Llama-3-8B-quantized.w4a16", None, ("Meta-Llama-3", "8B", "file_name")),
        ("gemma-3-270m-it-4bit", None, ("gemma-3", "270M-it", "file_name")),
        ("Hermes-4-14B", "Qwen/Qwen3-14B", ("Hermes-4", "14B", "file_name")),
        ("model", "Qwen/Qwen3-14B-FP8", ("Qwen3", "14B", "metadata")),
        ("model", "/home/ann/ckpt-500", ("model", None, "file_name")),
        ("gpt-oss-20b", "./out", ("gpt-oss", "20B", "file_name")),
    ],
)
def test_names(
    tmp_path: Path, folder: str, stated: str | None, expected: tuple[str, str | None, str]
) -> None:
    config = {"_name_or_path": stated} if stated else {}
    model = identify(model_folder(tmp_path / folder, config=config), sha256=False)
    assert (model.family, model.variant, model.identity_from) == expected


def test_the_cache_of_the_hub_names_repository_and_owner(tmp_path: Path) -> None:
    folder = tmp_path / "models--unsloth--Qwen3-8B-FP8" / "snapshots" / "0123456789abcdef"
    model = identify(model_folder(folder), sha256=False)
    assert (model.family, model.variant, model.quant_creator) == ("Qwen3", "8B", "unsloth")
    assert model.file == "Qwen3-8B-FP8@0123456789ab"


@pytest.mark.parametrize(
    ("card", "base", "licence"),
    [
        ("---\nlicense: other\nlicense_name: lfm1.0\n---\n", None, "lfm1.0"),
        ("---\nbase_model:\n- a/One-1B\n- b/Two-1B\n---\n", "a/One-1B, b/Two-1B", None),
        ("---\nbase_model: https://huggingface.co/a/One-1B\n---\n", "a/One-1B", None),
        ("---\nbase_model: /home/ann/secret/One-1B\n---\n", "One-1B", None),
        ("---\nlicense: [mit]\nbase_model: 3\n---\n", None, None),
        ("---\nlicense: &a mit\nother: *a\n---\n", None, None),
        ("---\n- a list\n---\n", None, None),
        ("no front matter\n---\nlicense: mit\n---\n", None, None),
        ("---\nlicense: 'two\n\n  lines'\n---\n", None, "two lines"),
    ],
)
def test_the_model_card_is_read_with_care(
    tmp_path: Path, card: str, base: str | None, licence: str | None
) -> None:
    model = identify(model_folder(tmp_path / "m", files={"README.md": card}), sha256=False)
    assert (model.base_model, model.license) == (base, licence)


# --- quantised weights --------------------------------------------------------------------------


def quantized(method: str, **stated: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **stated}}


def scheme(bits: int, kind: str, activations: int | None = None, **more: Any) -> dict[str, Any]:
    stated = None if activations is None else {"num_bits": activations, "type": kind}
    weights = {"num_bits": bits, "type": kind, **more}
    return {"weights": weights, "input_activations": stated}


LINEAR = "model.layers.0.mlp.up_proj"
GPTQ: Tensors = {
    f"{LINEAR}.qweight": ("I32", (128 // 8, 64)),
    f"{LINEAR}.qzeros": ("I32", (1, 8)),
    f"{LINEAR}.scales": ("F16", (1, 64)),
    f"{LINEAR}.g_idx": ("I32", (128,)),
}
GPTQ8: Tensors = {**GPTQ, f"{LINEAR}.qweight": ("I32", (128 // 4, 64))}
PACKED: Tensors = {
    f"{LINEAR}.weight_packed": ("I32", (64, 128 // 8)),
    f"{LINEAR}.weight_scale": ("BF16", (64, 1)),
    f"{LINEAR}.weight_shape": ("I64", (2,)),
}
NVFP4: Tensors = {
    f"{LINEAR}.weight_packed": ("U8", (64, 64)),
    f"{LINEAR}.weight_scale": ("F8_E4M3", (64, 8)),
    f"{LINEAR}.weight_global_scale": ("F32", (1,)),
    f"{LINEAR}.input_global_scale": ("F32", (1,)),
}
MODELOPT: Tensors = {
    f"{LINEAR}.weight": ("U8", (64, 64)),
    f"{LINEAR}.weight_scale": ("F8_E4M3", (64, 8)),
    f"{LINEAR}.weight_scale_2": ("F32", ()),
    f"{LINEAR}.input_scale": ("F32", ()),
}
FP8: Tensors = {
    f"{LINEAR}.weight": ("F8_E4M3", (64, 128)),
    f"{LINEAR}.weight_scale_inv": ("F32", (1, 1)),
}
INT8: Tensors = {
    f"{LINEAR}.weight": ("I8", (64, 128)),
    f"{LINEAR}.weight_scale": ("F32", (64, 1)),
}
BNB4: Tensors = {
    f"{LINEAR}.weight": ("U8", (64 * 64, 1)),
    f"{LINEAR}.weight.absmax": ("U8", (128,)),
    f"{LINEAR}.weight.quant_map": ("F32", (16,)),
    f"{LINEAR}.weight.nested_absmax": ("F32", (1,)),
    f"{LINEAR}.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
}
BNB8: Tensors = {**INT8, f"{LINEAR}.SCB": ("F32", (64,)), f"{LINEAR}.weight_format": ("U8", ())}
MXFP4: Tensors = {
    "model.layers.0.mlp.experts.gate_up_proj_blocks": ("U8", (1, 64, 4, 16)),
    "model.layers.0.mlp.experts.gate_up_proj_scales": ("U8", (1, 64, 4)),
}
MLX: Tensors = {
    f"{LINEAR}.weight": ("U32", (64, 16)),
    f"{LINEAR}.scales": ("BF16", (64, 2)),
    f"{LINEAR}.biases": ("BF16", (64, 2)),
}


def compressed(*groups: dict[str, Any]) -> dict[str, Any]:
    named = {f"group_{n}": group for n, group in enumerate(groups)}
    return quantized("compressed-tensors", format="…", config_groups=named)


@pytest.mark.parametrize(
    ("tensors", "config", "label"),
    [
        (GPTQ, quantized("gptq", bits=4, group_size=128), "GPTQ-Int4"),
        (GPTQ8, quantized("gptq", bits=8), "GPTQ-Int8"),
        (GPTQ, quantized("awq", bits=4), "AWQ"),
        (GPTQ, quantized("auto-round", bits=4), "AutoRound-Int4"),
        (FP8, quantized("fp8", fmt="e4m3"), "FP8"),
        (FP8, compressed(scheme(8, "float", 8)), "FP8"),
        (FP8, quantized("modelopt", quant_algo="FP8"), "FP8"),
        (PACKED, compressed(scheme(4, "int")), "W4A16"),
        (INT8, compressed(scheme(8, "int", 8)), "W8A8"),
        (NVFP4, compressed(scheme(4, "float", 4, group_size=16)), "NVFP4"),
        (
            NVFP4,
            compressed(scheme(4, "float", 4, group_size=16), scheme(8, "float", 8)),
            "FP8+NVFP4",
        ),
        (MODELOPT, quantized("modelopt", quant_algo="NVFP4"), "NVFP4"),
        (BNB4, quantized("bitsandbytes", load_in_4bit=True), "bnb-4bit"),
        (BNB8, quantized("bitsandbytes", load_in_8bit=True), "bnb-8bit"),
        (MXFP4, quantized("mxfp4"), "MXFP4"),
        (MLX, {"quantization": {"bits": 4, "group_size": 64}}, "MLX-4bit"),
        (MLX, {"quantization": {"bits": 8, LINEAR: {"bits": 4}}}, "MLX-8bit"),
    ],
)
def test_packed_weights_are_counted_unpacked(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], label: str
) -> None:
    model = stored(tmp_path, {**tensors, "model.norm.weight": ("BF16", (8,))}, config)
    assert (model.quant, model.parameters) == (label, 64 * 128 + 8)
    held = sum(w.bytes or 0 for w in read_safetensors(tmp_path / "Toy-1B" / "model.safetensors"))
    assert model.bits_per_weight == pytest.approx(8 * held / (64 * 128 + 8), rel=1e-4)


@pytest.mark.parametrize(
    ("tensors", "config", "label"),
    [
        (GPTQ, quantized("gptq", bits=4, dynamic={"+:.*up_proj": {"bits": 8}}), "GPTQ-Int4"),
        (PACKED, compressed(scheme(4, "int"), scheme(8, "int")), "W4A16+W8A16"),
        (GPTQ, quantized("aqlm"), "AQLM"),
        (PACKED, quantized("compressed-tensors"), "compressed-tensors"),
        ({f"{LINEAR}.weight": ("U8", (64, 64))}, {}, "U8"),
    ],
)
def test_an_unknown_packing_is_not_guessed(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], label: str
) -> None:
    model = stored(tmp_path, tensors, config)
    assert (model.quant, model.parameters, model.bits_per_weight) == (label, None, None)


def test_modelopt_may_say_it_in_a_file_of_its_own(tmp_path: Path) -> None:
    told = json.dumps({"quantization": {"quant_algo": "NVFP4"}})
    folder = model_folder(tmp_path / "m", MODELOPT, files={"hf_quant_config.json": told})
    model = identify(folder, sha256=False)
    assert (model.quant, model.parameters) == ("NVFP4", 64 * 128)


def test_buffers_are_no_parameters(tmp_path: Path) -> None:
    tensors = {**DENSE, "model.position_ids": ("I64", (1, 512))}
    assert stored(tmp_path, tensors, {}).parameters == 1736


def test_only_the_experts_in_use_are_active(tmp_path: Path) -> None:
    experts = {
        f"model.layers.0.mlp.experts.{n}.up_proj.weight": ("BF16", (16, 8)) for n in range(8)
    }
    shared = {"model.layers.0.mlp.shared_experts.up_proj.weight": ("BF16", (16, 8))}
    tensors = {**DENSE, **experts, **shared}
    config = {"num_experts": 8, "num_experts_per_tok": 2}
    model = stored(tmp_path, tensors, config)
    assert model.parameters == 1736 + 9 * 128
    assert model.active_parameters == 1736 + 3 * 128
    assert stored(tmp_path, tensors, {"text_config": config}).active_parameters == 2120
    assert stored(tmp_path, tensors, {"num_experts": 8}).active_parameters is None


# --- what is refused ----------------------------------------------------------------------------


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "without weights" in refused(empty).message
    (empty / "pytorch_model.bin").write_bytes(b"PK")
    assert "pickled (pytorch_model.bin)" in refused(empty).message
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(DENSE))
    assert "an adapter" in refused(adapter).message


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "missing"), ("{", "not JSON"), ("[]", "not a JSON object"), ("[" * 99999, "not JSON")],
)
def test_a_configuration_that_cannot_be_used(
    tmp_path: Path, content: str | None, word: str
) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert refused(folder).message.startswith("config.json")
    assert word in refused(folder).message


def test_missing_parts_are_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    whole = folder / "model.safetensors"
    whole.rename(folder / "model-00001-of-00003.safetensors")
    error = refused(folder)
    assert "2 of 3 weight files missing: model-00002-of-00003.safetensors" in error.message
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert "1 of 1 weight files missing: gone.safetensors" in refused(folder).message
    for outside in ("../other/model.safetensors", "/etc/passwd", ".."):
        index.write_text(json.dumps({"weight_map": {"a": outside}}))
        assert "outside its folder" in refused(folder).message
    index.write_text("{}")
    assert "no weight_map" in refused(folder).message


def header(entry: Any, name: str = "t", data: bytes = b"") -> bytes:
    raw = json.dumps({name: entry}).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def described(kind: Any = "F32", shape: Any = (2,), at: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": at}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty file"),
        (b"abc", "a header of"),
        ((2**40).to_bytes(8, "little"), "a header of 1099511627776"),
        ((500).to_bytes(8, "little") + b"{", "truncated, it ends within its header"),
        ((1).to_bytes(8, "little") + b"{", "not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        (header(described(), data=bytes(4)), "within tensor 't', 4 bytes"),
        (header(described(at=(8, 0)), data=bytes(8)), "ends before it begins"),
        (header(described(shape=(-1,)), data=bytes(8)), "impossible shape"),
        (header(described(shape=(2**60,)), data=bytes(8)), "impossible shape"),
        (header(described(shape=(3,)), data=bytes(8)), "contradicts its shape"),
        (header({"dtype": "F32"}), "not described"),
        (header(7), "not described"),
    ],
)
def test_files_that_cannot_be_right(tmp_path: Path, content: bytes, word: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(content)
    assert word in refused(folder).message


def test_one_file_is_not_enough(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    error = refused(folder / "model.safetensors")
    assert "folder" in error.hint
    with pytest.raises(ModelError, match="no such file"):
        identify(folder / "gone.safetensors")


def test_a_gguf_file_goes_to_its_own_reader(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="truncated"):
        identity.identify(tmp_path / "m.gguf")


@settings(max_examples=80)
@given(raw=st.binary(max_size=200), entry=st.dictionaries(st.text(), st.text() | st.integers()))
def test_whatever_the_bytes_are_it_is_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, entry: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    for content in (raw, len(raw).to_bytes(8, "little") + raw, header(described() | entry)):
        path.write_bytes(content)
        try:
            read_safetensors(path)
        except ModelError as error:
            assert error.hint
