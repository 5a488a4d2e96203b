"""ggml's types, quants by name, and what of a memory a model takes: bits, bytes, what would fit.

Sources: ``enum ggml_type`` and the block structures of ggml (``ggml.h``, ``ggml-common.h``),
``enum llama_ftype`` of llama.cpp (``llama.h``). Ids that ggml has withdrawn (4, 5, 31 to 33,
36 to 38) are left out: no engine reads such files any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tokrig.units import MIB, human_bytes


class TensorType(NamedTuple):
    """``block`` elements are stored in ``size`` bytes."""

    name: str
    block: int
    size: int


def _rows(text: str) -> list[list[str]]:
    return [entry.split() for entry in text.split(",")]


# By elements in a block: number, name and the block's bytes.
_TENSOR_TYPES = {
    1: "0 F32 4, 1 F16 2, 24 I8 1, 25 I16 2, 26 I32 4, 27 I64 8, 28 F64 8, 30 BF16 2",
    32: "2 Q4_0 18, 3 Q4_1 20, 6 Q5_0 22, 7 Q5_1 24, 8 Q8_0 34, 9 Q8_1 36, 20 IQ4_NL 18,"
    "39 MXFP4 17",
    64: "40 NVFP4 36, 42 Q2_0 18",
    128: "41 Q1_0 18",
    256: "10 Q2_K 84, 11 Q3_K 110, 12 Q4_K 144, 13 Q5_K 176, 14 Q6_K 210, 15 Q8_K 292,"
    "16 IQ2_XXS 66, 17 IQ2_XS 74, 18 IQ3_XXS 98, 19 IQ1_S 50, 21 IQ3_S 110, 22 IQ2_S 82,"
    "23 IQ4_XS 136, 29 IQ1_M 56, 34 TQ1_0 54, 35 TQ2_0 66",
}
TENSOR_TYPES: Mapping[int, TensorType] = {
    int(number): TensorType(name, block, int(size))
    for block, text in _TENSOR_TYPES.items()
    for number, name, size in _rows(text)
}
TYPE_BITS: Mapping[str, float] = {
    kind.name: 8 * kind.size / kind.block for kind in TENSOR_TYPES.values()
}
"""Bits that an element takes in each of ggml's types."""

_FILE_TYPES = (
    "0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 7 Q8_0, 8 Q5_0, 9 Q5_1, 10 Q2_K, 11 Q3_K_S, 12 Q3_K_M,"
    "13 Q3_K_L, 14 Q4_K_S, 15 Q4_K_M, 16 Q5_K_S, 17 Q5_K_M, 18 Q6_K, 19 IQ2_XXS, 20 IQ2_XS,"
    "21 Q2_K_S, 22 IQ3_XS, 23 IQ3_XXS, 24 IQ1_S, 25 IQ4_NL, 26 IQ3_S, 27 IQ3_M, 28 IQ2_S,"
    "29 IQ2_M, 30 IQ4_XS, 31 IQ1_M, 32 BF16, 36 TQ1_0, 37 TQ2_0, 38 MXFP4_MOE, 39 NVFP4,"
    "40 Q1_0, 41 Q2_0"
)
FILE_TYPES: Mapping[int, str] = {int(number): name for number, name in _rows(_FILE_TYPES)}
"""The quant recipe that each number of ``general.file_type`` stands for."""

# Llama 3.1 8B in each recipe (llama.cpp, tools/quantize/README.md); then blocks of 32 weights with
# one or two 16-bit scales; then 8 bits, 4 bits with an 8-bit scale for 32 or 16 weights, and with
# a 16-bit scale and zero point for 128 of them.
_BITS_PER_WEIGHT = (
    "F16 16, Q8_0 8.5, Q6_K 6.56, Q5_K_M 5.7, Q5_K_S 5.57, Q4_K_M 4.89, Q4_K_S 4.67, IQ4_NL 4.68,"
    "IQ4_XS 4.46, Q3_K_L 4.3, Q3_K_M 4.0, Q3_K_S 3.64, IQ3_M 3.76, IQ3_S 3.66, IQ3_XS 3.5,"
    "IQ3_XXS 3.25, Q2_K 3.16, Q2_K_S 2.97, IQ2_M 2.93, IQ2_S 2.74, IQ2_XS 2.59, IQ2_XXS 2.38,"
    "IQ1_M 2.15, IQ1_S 2.0,"
    "Q5_1 6.0, Q5_0 5.5, Q4_1 5.0, Q4_0 4.5, F32 32.0, BF16 16.0,"
    "FP8 8.1, MXFP4 4.25, NVFP4 4.6, AWQ 4.3, GPTQ-Int4 4.3"
)
BITS_PER_WEIGHT: Mapping[str, float] = {name: float(bits) for name, bits in _rows(_BITS_PER_WEIGHT)}
_BY_NAME = {name.upper(): bits for name, bits in BITS_PER_WEIGHT.items()}
# Recipes of a creator's own keep the base's name: UD-Q4_K_XL.
_RECIPE = re.compile(r"(Q\d_K)_[A-Z]+")


def bits_per_weight(quant: str) -> float | None:
    """Bits per weight of a quant, by its name without regard to case; None for an unknown one.

    A recipe that only its creator knows counts as the middle one of its base: ``UD-Q4_K_XL`` as
    ``Q4_K_M``.
    """
    name = quant.upper().removeprefix("UD-")
    if name not in _BY_NAME and (recipe := _RECIPE.fullmatch(name)):
        name = f"{recipe[1]}_M"
    return _BY_NAME.get(name)


# --- memory -------------------------------------------------------------------------------------

OVERHEAD_BYTES = 600 * MIB
"""What an engine takes beside weights and cache: compute buffers and the driver's own context.
Chosen (t): llama.cpp with batches of 512 stays between 0.3 and 0.6 GiB with models of up to some
30 B parameters. Plans judge by it and suggestions after a spill reckon with it, so that a plan
never promises what such a suggestion takes back."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a model's files: their bytes, and by how many an f16 cache grows with each
    token. ``here`` tells that nothing has to be downloaded. ``source`` says where the figure is
    from: "file", "repository", "declared", "estimated"."""

    bytes: int | None = None
    kv_bytes_per_token: int | None = None
    here: bool = False
    source: str = "estimated"


# A slot has room for the chat template, then whole steps.
CONTEXT_MARGIN, CONTEXT_STEP = 64, 256


def context_for(longest: int, limit: int) -> int:
    """Tokens of context that a slot gets for requests of up to ``longest`` tokens, with room for
    the chat template and in whole steps; at most the model's own ``limit``."""
    return min(-(-(longest + CONTEXT_MARGIN) // CONTEXT_STEP) * CONTEXT_STEP, limit)


CELLS_STEP = 256
"""llama.cpp's cells come in so many."""
UBATCH = 512
"""llama.cpp's own choice of a micro-batch."""


def cache_cells(
    context: int,
    slots: int = 1,
    window: int | None = None,
    *,
    unified: bool = False,
    ubatch: int = UBATCH,
) -> int:
    """Cells that llama.cpp allots in a layer for ``slots`` sequences of ``context`` tokens; where
    it looks no further back than ``window``, for the windows of all and one micro-batch."""

    def padded(cells: int) -> int:
        return -(-cells // CELLS_STEP) * CELLS_STEP

    total = padded(max(context, 1) * slots)
    streams, cells = (1, total) if unified else (slots, padded(-(-total // slots)))
    if window is not None:
        windows = window * (slots if unified else 1)
        cells = padded(min(cells, windows + min(ubatch, total)))
    return cells * streams


_F16_BYTES = 2.0
_CACHE_BYTES = {"auto": _F16_BYTES, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}
# What is suggested instead of what does not fit, the largest first.
_SMALLER_CACHES = ("q8_0", "q4_0")
_GGUF_QUANTS = "Q8_0 Q6_K Q5_K_M Q4_K_M IQ4_XS Q3_K_M IQ3_XXS IQ2_M IQ2_XXS IQ1_S".split()
_FOLDER_QUANTS = ["FP8", "NVFP4", "AWQ or GPTQ-Int4"]


def cache_bytes(kv_type: str) -> float | None:
    """Bytes that a number takes in a cache of that type; None for an unknown one."""
    bits = TYPE_BITS.get(kv_type.upper())
    return _CACHE_BYTES.get(kv_type) if bits is None else bits / 8


def would_fit(
    room_bytes: int,
    weights_bytes: int,
    kv_bytes_per_token: float,
    context: int,
    *,
    kv_type: str = "f16",
    bits: float | None = None,
    gguf: bool = True,
) -> list[str]:
    """What of a model would fit into ``room_bytes``, in short suggestions, the mildest first;
    none where it fits as it is.

    ``room_bytes`` are those for weights and cache. ``kv_bytes_per_token`` are those of an f16
    cache over all slots, 0 where unknown; ``context`` tokens a slot in a cache of ``kv_type``.
    ``bits`` are the bits per weight that ``weights_bytes`` come to, None where unknown.
    """
    size = cache_bytes(kv_type) or _F16_BYTES
    per_token = kv_bytes_per_token * size / _F16_BYTES
    left = room_bytes - weights_bytes
    if per_token * context <= left:
        return []
    found = []
    for name in _SMALLER_CACHES if per_token else ():
        share = (cache_bytes(name) or size) / size
        if share < 1 and per_token * context * share <= left:
            found.append(f"a cache in {name} instead of {kv_type}")
            break
    largest = int(max(left, 0) / per_token) // CONTEXT_STEP * CONTEXT_STEP if per_token else 0
    if 0 < largest < context:
        found.append(f"a context of {largest} tokens instead of {context}")

    def smaller_quant(room: float) -> str | None:
        most = (bits or 0) * room / weights_bytes if weights_bytes else 0
        for name in _GGUF_QUANTS if gguf else _FOLDER_QUANTS:
            if BITS_PER_WEIGHT[name.partition(" ")[0]] <= min(most, bits or 0):
                return f"a quant of at most {most:.1f} bits per weight, such as {name}"
        return None

    if quant := smaller_quant(room_bytes - per_token * context):
        found.append(quant)
    elif not found and (quant := smaller_quant(room_bytes - per_token * CONTEXT_STEP)):
        found.append(f"{quant}, together with a smaller context")
    elif not found:
        found.append(f"a smaller model: {human_bytes(max(room_bytes, 0))} are free for its weights")
    return found
