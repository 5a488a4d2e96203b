"""The quant label of a GGUF file: from its metadata, its name and, above both, its tensors.

``general.file_type`` names a recipe, a file's name may name a finer one, and both may be wrong:
gpt-oss is published as "F16" and "Q8_0" with experts in MXFP4 throughout, and a renamed file
keeps its tensors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tokrig.models._ggml import FILE_TYPES, TENSOR_TYPES
from tokrig.models._reader import GgufHeader, Tensor
from tokrig.quants import bits_per_weight

# llama.cpp's recipes, ik_llama.cpp's (IQ4_KSS, Q8_KV, …_R4), those that repositories made of
# them (UD-Q4_K_XL, Q4_K_L), and the formats of other tools.
QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?:i1-)?((?:UD[-_])?(?:"
    r"Q[1-8]_[01](?:_\d_\d)?(?:_R\d+)?|Q[2-8]_K(?:_(?:XXL|XL|XS|S|M|L|P|R\d+))?|Q8_KV(?:_R\d+)?|"
    r"IQ[1-6]_(?:XXS|XS|NL|S|M|KSS|KS|KT|KL|K|BN)(?:_XL|_L|_R\d+)?|"
    r"TQ[12]_0|I2_S|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_FLOATS = ("F64", "F32", "F16", "BF16")
# Types that llama.cpp's quantizer never falls back to: the quant of what has them in most weights.
_OWN = ("MXFP4", "NVFP4")
_BITS = {kind.name: 8 * kind.size / kind.block for kind in TENSOR_TYPES.values()}
# Rows that are no whole blocks are stored wider: IQ4_NL for up to 3 bits, Q5_0, Q5_1, Q8_0 above.
_WIDEST = {"1": 4.5, "2": 4.5, "3": 4.5, "4": 5.5, "5": 6.0, "6": 8.5, "8": 8.5}
_MIXTURE = 1.5
"""How many times as wide as most of its weights a recipe's average may be: 1.3 is common."""


def quant_of(
    header: GgufHeader, file_name: str, tensors: Sequence[Tensor]
) -> tuple[str | None, str | None]:
    """The quant label, and what the metadata or the name call it where the tensors say otherwise:
    ``("UD-Q4_K_XL", None)``, ``("MXFP4_MOE", "F16")``. None where nothing states one.

    The name refines the metadata where both agree, because recipes such as UD-Q4_K_XL have no
    number of their own; where they do not, the metadata counts.
    """
    code = header.integer("general.file_type")
    by_type = FILE_TYPES.get(code) if code is not None else None
    by_name = quant_in(file_name)
    stated = [label for label in (by_type, by_name) if label]
    main = _main_type(tensors)
    label = next((one for one in stated if main is None or _fits(one, main)), None)
    if label is not None and label == by_type and by_name and _agree(by_name, by_type):
        label = by_name
    elif label is None and main is not None and stated:
        moe = main == "MXFP4" and any("_exps" in tensor.name for tensor in tensors)
        label = "MXFP4_MOE" if moe else main
    others = dict.fromkeys(one for one in stated if label and not _says_no_other(one, label))
    return label, " / ".join(others) or None


def quant_in(file_name: str) -> str | None:
    """The last quant label in a file's name, in capitals."""
    matches = QUANT.findall(file_name)
    if not matches:
        return None
    label = str(matches[-1]).upper().replace("UD_", "UD-")
    return label.replace("FP16", "F16").replace("FP32", "F32")


def _main_type(tensors: Sequence[Tensor]) -> str | None:
    """The type of most weights of the layers; None where that is one ggml does not have."""
    count: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.name.startswith("blk.") and len(tensor.dimensions) > 1:
            count[tensor.type] += tensor.elements
    main = count.most_common(1)[0][0] if count else None
    return main if main in _BITS else None


def _fits(label: str, main: str) -> bool:
    """Whether most weights of a file of that label may have the type ``main``."""
    base = label.removeprefix("UD-")
    if main in _OWN or base.startswith(_OWN):
        return base.startswith(main)
    if base in _FLOATS or main in _FLOATS:
        return base == main or (label.startswith("UD-Q8") and main in ("F16", "BF16"))
    promised, room = (_BITS[base], 1.0) if base in _BITS else (bits_per_weight(label), _MIXTURE)
    if promised is None:
        return True
    digit = re.search(r"\d", base)
    widest = _WIDEST.get(digit[0], promised) if digit else promised
    return promised <= _BITS[main] * room and _BITS[main] <= max(widest, promised)


def _says_no_other(one: str, label: str) -> bool:
    """Whether ``one`` is ``label``, says less of it, or is the type that it refines."""
    short = one.removeprefix("UD-")
    return label.removeprefix("UD-").startswith(short) or _agree(label, one)


def _agree(by_name: str, by_type: str) -> bool:
    """Whether a label in a name is a recipe of the stated type: the same one, or one without a
    number of its own (UD-…, Q4_K_XL) of the same kind and bits. ``Q4_K`` is none: it says less
    than the stated Q4_K_M."""
    label = by_name.removeprefix("UD-")
    if label == by_type:
        return True
    kind, _, _ = by_type.partition("_")
    if label.partition("_")[0] != kind or by_type.startswith(label + "_"):
        return False
    return label != by_name or label not in FILE_TYPES.values()
