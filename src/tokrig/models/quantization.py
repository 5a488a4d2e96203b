"""How a model's weights are quantized: the quant of a GGUF file, and the packing of safetensors.

A GGUF's quant is a recipe over many types of tensors: its metadata and its name call it something,
its tensors decide. Safetensors are packed as the configuration of their quantizer says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokrig.models.gguf import GgufHeader, Tensor, one_line
from tokrig.quants import FILE_TYPES, TYPE_BITS, bits_per_weight

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
# Rows that are no whole blocks are stored wider: IQ4_NL for up to 3 bits, Q5_0, Q5_1, Q8_0 above.
_WIDEST = {"1": 4.5, "2": 4.5, "3": 4.5, "4": 5.5, "5": 6.0, "6": 8.5, "8": 8.5}
_MIXTURE = 1.5
"""How many times as wide as most of its weights a recipe's average may be: 1.3 is common."""


def quant_of(
    header: GgufHeader, file_name: str, tensors: Sequence[Tensor]
) -> tuple[str | None, str | None]:
    """The quant label, and what the metadata or the name call it where the tensors say otherwise:
    ``("UD-Q4_K_XL", None)``, ``("MXFP4_MOE", "F16")``. None where nothing states one.

    ``general.file_type`` names a recipe and the file's name may refine it, because recipes such
    as UD-Q4_K_XL have no number of their own; where the two disagree, the metadata counts. Both
    may be wrong: gpt-oss is published as "F16" and "Q8_0" with experts in MXFP4 throughout.
    """
    code = header.integer("general.file_type")
    by_type = FILE_TYPES.get(code) if code is not None else None
    matches = QUANT.findall(file_name)
    by_name = str(matches[-1]).upper().replace("UD_", "UD-") if matches else None
    by_name = by_name and by_name.replace("FP16", "F16").replace("FP32", "F32")
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


def _main_type(tensors: Sequence[Tensor]) -> str | None:
    """The type of most weights of the layers; None where that is one ggml does not have."""
    count: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            count[tensor.type] += tensor.elements
    main = count.most_common(1)[0][0] if count else None
    return main if main in TYPE_BITS else None


def _fits(label: str, main: str) -> bool:
    """Whether most weights of a file of that label may have the type ``main``."""
    base = label.removeprefix("UD-")
    if main in _OWN or base.startswith(_OWN):
        return base.startswith(main)
    if base in _FLOATS or main in _FLOATS:
        return base == main or (label.startswith("UD-Q8") and main in ("F16", "BF16"))
    promised, room = TYPE_BITS.get(base), 1.0
    if promised is None:
        promised, room = bits_per_weight(label), _MIXTURE
    if promised is None:
        return True
    digit = re.search(r"\d", base)
    widest = _WIDEST.get(digit[0], promised) if digit else promised
    return promised <= TYPE_BITS[main] * room and TYPE_BITS[main] <= max(widest, promised)


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


# --- safetensors --------------------------------------------------------------------------------

# By the configurations that the tools write: ``quantization_config`` (transformers: AWQ, GPTQ,
# AutoRound, FP8, bitsandbytes, MXFP4 and a dozen more; llm-compressor's compressed-tensors; AMD's
# Quark; NVIDIA ModelOpt, which also writes ``hf_quant_config.json``) and ``quantization`` (MLX, and
# Mistral's ``params.json``). AutoGPTQ and AutoAWQ once wrote files of their own.

# Tensors beside the weights: scales, zero points, permutations, shapes, quantizer state.
_BESIDE = re.compile(
    r"(?:^|\.)(?:scales|qzeros|g_idx|SCB|weight_(?:scale|scale_2|global_scale|zero_point|shape"
    r"|g_idx|format)|input_(?:scale|global_scale|zero_point)|(?:activation|[kvq])_scale"
    r"|[^.]*_scales|[^.]*_scale_inv)$"  # gpt-oss: …gate_up_proj_scales
    r"|\.weight\.(?:absmax|quant_map|nested_|quant_state)"
)
_PLAIN = ("F64", "F32", "F16", "BF16", "F8_", "F6_", "F4")
_WIDTH = {"U8": 8, "I8": 8, "I32": 32, "U32": 32, "I64": 64}
_BUFFERS = ("I64", "I32", "I16", "BOOL", "U16", "U64")


@dataclass(frozen=True)
class Packing:
    """How a model's weights are stored. ``bits`` is the width of one packed weight, None where
    it is unknown or differs; ``module_bits`` are exceptions by module. ``label`` is None for a
    model that is not quantized."""

    label: str | None = None
    bits: int | None = None
    module_bits: Mapping[str, int] = field(default_factory=dict)

    def parameters(self, weights: Sequence[Tensor]) -> int | None:
        """Parameters of the model stored in ``weights``; None where a tensor is packed and
        nothing says how. What lies beside a weight is no parameter."""
        names = {weight.name for weight in weights}
        counts = [self._count(weight, names) for weight in weights]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _count(self, weight: Tensor, names: Collection[str]) -> int | None:
        module, _, last = weight.name.rpartition(".")
        # MLX: its biases are zero points.
        zeros = last == "biases" and f"{module}.scales" in names
        if self.label is not None and (zeros or _BESIDE.search(weight.name)):
            return 0
        if weight.type.startswith(_PLAIN):
            return weight.elements
        if self.label is None:
            return 0 if weight.type in _BUFFERS else None
        if weight.type == "I8" and last == "weight":  # one weight each: nothing is packed
            return weight.elements
        bits, width = self.module_bits.get(module, self.bits), _WIDTH.get(weight.type)
        if bits is None or width is None or not 0 < bits <= width:
            return None
        return weight.elements * width // bits


def packing_of(config: Mapping[str, Any], beside: Mapping[str, Any]) -> Packing:
    """The packing that ``config.json`` states, or one of the files ``beside`` it."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(stated, dict) and isinstance(config.get("text_config"), dict):
        stated = config["text_config"].get("quantization_config")
    if isinstance(stated, dict) and stated.get("quant_method"):
        return _by_method(stated)
    own = config.get("quantization") or stated
    if isinstance(own, dict) and own.get("qformat_weight"):
        return Packing(_format(str(own["qformat_weight"])))
    if isinstance(own, dict) and any("bits" in one for one in (own, *_dicts(own))):
        return _mlx(own)
    if isinstance(beside.get("quantization"), dict):
        return _modelopt(beside["quantization"])
    if "w_bit" in beside:
        return _by_method({"quant_method": "awq", **beside})
    if "bits" in beside and "group_size" in beside:
        return _by_method({"quant_method": "gptq", **beside})
    return Packing()


_BY_WIDTH = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "auto-round": "AutoRound",
    "intel/auto-round": "AutoRound",
}


def _by_method(stated: Mapping[str, Any]) -> Packing:
    method = str(stated["quant_method"]).casefold().replace("_", "-").removesuffix("-marlin")
    bits = _integer(stated.get("bits")) or _integer(stated.get("w_bit"))
    if method in _BY_WIDTH and (bits or method == "awq"):
        usual = method == "awq" and bits in (4, None)
        label = _BY_WIDTH[method] if usual else f"{_BY_WIDTH[method]}-Int{bits}"
        # A mixture whose exceptions are given as patterns: the widths are not known by module.
        mixed = stated.get("dynamic") or stated.get("extra_config")
        return Packing(label, None if mixed else bits)
    match method:
        case "bitsandbytes":
            four = stated.get("load_in_4bit")
            return Packing("bnb-4bit", 4) if four else Packing("bnb-8bit")
        case "aqlm":
            return _aqlm(stated)
        case "compressed-tensors":
            return _compressed(stated)
        case "quark":
            return _quark(stated)
    if method.startswith("modelopt"):
        return _modelopt(stated)
    if method.endswith(("fp8", "fp4")):
        return Packing(_format(method.rpartition("-")[2]), 4 if method.endswith("fp4") else None)
    return _other_tool(method, stated)


def _aqlm(stated: Mapping[str, Any]) -> Packing:
    """Codes of ``nbits_per_codebook`` bits for a group of weights, from several codebooks."""
    books, code = _integer(stated.get("num_codebooks")), _integer(stated.get("nbits_per_codebook"))
    rows = _integer(stated.get("out_group_size")) or 1
    group = (_integer(stated.get("in_group_size")) or 0) * rows
    return Packing(f"AQLM-{books * code / group:g}bit" if books and code and group else "AQLM")


def _quark(stated: Mapping[str, Any]) -> Packing:
    """AMD's Quark: one scheme for all modules and others by pattern. Of two stages (FP8, then
    INT4) the last is what is stored."""
    labels = set()
    schemes = _dicts({"": stated.get("global_quant_config")})
    for config in schemes + _dicts(stated.get("layer_quant_config")):
        weight = config.get("weight")
        weight = weight[-1] if isinstance(weight, list) and weight else weight
        if isinstance(weight, dict) and isinstance(weight.get("dtype"), str):
            dtype = weight["dtype"].casefold()
            if dtype.startswith("fp4"):
                labels.add("MXFP4" if weight.get("group_size") in (32, None) else "FP4")
            elif dtype in ("int4", "uint4", "int8", "uint8"):
                labels.add(f"Int{dtype[-1]}")
            else:
                labels.add(_format(dtype))
    name = "-".join(filter(None, ("Quark", "+".join(sorted(labels)))))
    return Packing(name, 4 if any(label.endswith("4") for label in labels) else None)


def _compressed(stated: Mapping[str, Any]) -> Packing:
    """compressed-tensors: groups of modules, each with a scheme for weights and activations."""
    labels, packed = set(), set()
    for group in _dicts(stated.get("config_groups")):
        weights, activations = group.get("weights"), group.get("input_activations")
        if not isinstance(weights, dict):
            continue
        bits = _integer(weights.get("num_bits"))
        if weights.get("type") != "float":
            other = activations.get("num_bits") if isinstance(activations, dict) else None
            labels.add(f"W{bits}A{_integer(other) or 16}")
        elif bits == 8:  # stored one by one: only what is packed needs a width
            labels.add("FP8")
            continue
        else:
            micro = "mxfp4" in str(group.get("format") or stated.get("format"))
            micro = micro or weights.get("group_size") == 32
            labels.add("MXFP4" if micro else f"NVFP{bits}")
        packed.add(bits)
    packed.discard(None)
    label = "+".join(sorted(labels)) or "compressed-tensors"
    return Packing(label, packed.pop() if len(packed) == 1 else None)


def _modelopt(stated: Mapping[str, Any]) -> Packing:
    algorithm = one_line(str(stated.get("quant_algo") or "")) or "ModelOpt"
    if algorithm == "MIXED_PRECISION":  # FP8 and NVFP4: only the latter is packed
        return Packing("ModelOpt-mixed", 4)
    return Packing(algorithm, 4 if "FP4" in algorithm or "W4A" in algorithm else None)


def _mlx(stated: Mapping[str, Any]) -> Packing:
    bits, mode = _integer(stated.get("bits")), str(stated.get("mode", "affine"))
    exceptions = {
        str(module): own
        for module, setting in stated.items()
        if isinstance(setting, dict) and (own := _integer(setting.get("bits")))
    }
    width = f"{bits}bit" if bits else "mixed"
    return Packing(f"MLX-{width if mode == 'affine' else one_line(mode.upper())}", bits, exceptions)


# Tools whose packing is not read here: how they are spelled.
_TITLES = {
    name.casefold(): name for name in "BitNet EXL2 EXL3 HIGGS HQQ Quanto SpQR VPTQ".split()
} | {"eetq": "EETQ-8bit", "fp-quant": "FPQuant"}


def _other_tool(method: str, stated: Mapping[str, Any]) -> Packing:
    """The tool's name and the width. exl2 and exl3 state a mean."""
    title = _TITLES.get(method) or one_line(str(stated["quant_method"])) or "quantized"
    nested = stated.get("quant_config")
    if isinstance(nested, dict) and isinstance(nested.get("weight_quant_params"), dict):
        stated = {**nested["weight_quant_params"], **stated}  # hqq
    for key in ("bits", "nbits", "num_bits", "w_bit", "wbits"):
        match stated.get(key):
            case bool():
                pass
            case int() | float() as width if 0 < width <= 32:
                return Packing(f"{title}-{width:g}{'bpw' if method.startswith('exl') else 'bit'}")
    named = stated.get("weights") or stated.get("forward_dtype") or stated.get("quant_type")
    if isinstance(named, dict) and isinstance(named.get("default"), dict):
        named = named["default"].get("_type")  # torchao
    text = one_line(named) if isinstance(named, str) else None
    return Packing(f"{title}-{text.removesuffix('Config')}" if text else title)


def _format(name: str) -> str:
    """``fp8_e4m3`` → ``FP8``; ``nvfp4`` → ``NVFP4``."""
    return (one_line(name.partition("_")[0]) or "quantized").upper()


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The objects among the values of an object; none where it is something else."""
    values = value.values() if isinstance(value, dict) else ()
    return [entry for entry in values if isinstance(entry, dict)]
