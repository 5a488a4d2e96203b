"""How many bits a weight takes in each quant: sizes of models that are not here yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

BITS_PER_WEIGHT: Mapping[str, float] = MappingProxyType(
    {
        # Llama 3.1 8B in each recipe: llama.cpp, tools/quantize/README.md.
        "F16": 16.0,
        "Q8_0": 8.5,
        "Q6_K": 6.56,
        "Q5_K_M": 5.7,
        "Q5_K_S": 5.57,
        "Q4_K_M": 4.89,
        "Q4_K_S": 4.67,
        "IQ4_NL": 4.68,
        "IQ4_XS": 4.46,
        "Q3_K_L": 4.3,
        "Q3_K_M": 4.0,
        "Q3_K_S": 3.64,
        "IQ3_M": 3.76,
        "IQ3_S": 3.66,
        "IQ3_XS": 3.5,
        "IQ3_XXS": 3.25,
        "Q2_K": 3.16,
        "Q2_K_S": 2.97,
        "IQ2_M": 2.93,
        "IQ2_S": 2.74,
        "IQ2_XS": 2.59,
        "IQ2_XXS": 2.38,
        "IQ1_M": 2.15,
        "IQ1_S": 2.0,
        # Blocks of 32 weights with one or two 16-bit scales.
        "Q5_1": 6.0,
        "Q5_0": 5.5,
        "Q4_1": 5.0,
        "Q4_0": 4.5,
        "F32": 32.0,
        "BF16": 16.0,
        # 8 bits; 4 bits with an 8-bit scale for 32 or 16 weights, and with a 16-bit scale and zero
        # point for 128 of them.
        "FP8": 8.1,
        "MXFP4": 4.25,
        "NVFP4": 4.6,
        "AWQ": 4.3,
        "GPTQ-Int4": 4.3,
    }
)
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
