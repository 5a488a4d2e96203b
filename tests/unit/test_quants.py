"""ggml's numbers as llama.cpp's own Python package has them."""

from __future__ import annotations

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from tokrig.quants import BITS_PER_WEIGHT, FILE_TYPES, TENSOR_TYPES, bits_per_weight, cache_bytes

# Of a type that no file holds, the package has the size of before 2024; of types that are newer
# than its release it knows nothing.
OUTDATED = {"Q8_1"}
NEWER_THAN = max(kind.value for kind in GGMLQuantizationType)


def test_tensor_types_are_llama_cpps() -> None:
    theirs = {
        kind.value: (kind.name, *GGML_QUANT_SIZES[kind])
        for kind in GGMLQuantizationType
        if kind.name not in OUTDATED
    }
    ours = {number: tuple(kind) for number, kind in TENSOR_TYPES.items()}
    assert {number: kind for number, kind in ours.items() if number in theirs} == theirs
    assert all(
        number > NEWER_THAN or kind[0] in OUTDATED
        for number, kind in ours.items()
        if number not in theirs
    )


def test_file_types_are_llama_cpps() -> None:
    theirs = {
        kind.value: kind.name.removeprefix("ALL_").removeprefix("MOSTLY_") for kind in LlamaFileType
    }
    del theirs[LlamaFileType.GUESSED.value]
    assert {number: name for number, name in FILE_TYPES.items() if number in theirs} == theirs
    assert all(number > max(theirs) for number in FILE_TYPES if number not in theirs)


def test_a_recipe_of_a_creators_own_is_its_bases_middle_one() -> None:
    assert bits_per_weight("ud-q4_k_xl") == BITS_PER_WEIGHT["Q4_K_M"]
    assert bits_per_weight("gptq-int4") == 4.3
    assert bits_per_weight("Q9_0") is None


def test_what_a_number_takes_in_a_cache() -> None:
    names = ("f32", "f16", "bf16", "auto", "fp8", "q8_0", "q4_0", "iq4_nl", "q5_1", "odd")
    assert [cache_bytes(name) for name in names] == [
        *(4, 2, 2, 2, 1, 34 / 32, 18 / 32, 18 / 32, 24 / 32, None)
    ]
