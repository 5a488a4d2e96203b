"""How quantised safetensors pack their weights: the label, and how many parameters are in there.

By the configurations that the tools write: ``quantization_config`` (transformers: AWQ, GPTQ,
AutoRound, FP8, bitsandbytes, MXFP4; llm-compressor's compressed-tensors; NVIDIA ModelOpt, which
also writes ``hf_quant_config.json``) and ``quantization`` (MLX).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokrig.models._names import one_line

# Tensors beside the weights: scales, zero points, permutations, shapes, quantiser state.
_BESIDE = (
    "scales",
    "qzeros",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "input_scale",
    "input_scale_inv",
    "input_global_scale",
    "input_zero_point",
    "activation_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "SCB",
    "weight_format",
)
_BESIDE_ENDS = ("_scales", "_scale_inv")  # gpt-oss: …gate_up_proj_scales
_QUANTISER_STATE = (".weight.absmax", ".weight.quant_map", ".weight.nested_", ".weight.quant_state")
_PLAIN = ("F64", "F32", "F16", "BF16", "F8_", "F6_", "F4")
_WIDTH = {"U8": 8, "I8": 8, "I32": 32, "U32": 32, "I64": 64}
_BUFFERS = ("I64", "I32", "I16", "BOOL", "U16", "U64")


@dataclass(frozen=True)
class Quantization:
    """How a model's weights are stored. ``bits`` is the width of one packed weight, None where
    it is unknown or differs; ``module_bits`` are exceptions by module. ``label`` is None for a
    model that is not quantised."""

    label: str | None = None
    bits: int | None = None
    module_bits: Mapping[str, int] = field(default_factory=dict)

    def parameters(self, name: str, kind: str, elements: int, names: Collection[str]) -> int | None:
        """How many parameters the tensor ``name`` holds in ``elements`` of type ``kind``.

        ``names`` are all tensors: what lies beside a weight is no parameter. None where the
        tensor is packed and nothing says how.
        """
        module, _, last = name.rpartition(".")
        if self.label is not None and _beside(name, module, last, names):
            return 0
        if kind.startswith(_PLAIN):
            return elements
        if self.label is None:
            return 0 if kind in _BUFFERS else None
        if kind == "I8" and last == "weight":  # one weight each: nothing is packed
            return elements
        bits, width = self.module_bits.get(module, self.bits), _WIDTH.get(kind)
        if bits is None or width is None or not 0 < bits <= width:
            return None
        return elements * width // bits


def _beside(name: str, module: str, last: str, names: Collection[str]) -> bool:
    if last in _BESIDE or last.endswith(_BESIDE_ENDS):
        return True
    if any(mark in name for mark in _QUANTISER_STATE):
        return True
    return last == "biases" and f"{module}.scales" in names  # MLX: zero points, not a bias


def quantization_of(config: Mapping[str, Any], modelopt: Mapping[str, Any]) -> Quantization:
    """The quantisation that ``config.json`` or ModelOpt's ``hf_quant_config.json`` states."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(stated, dict) and isinstance(config.get("text_config"), dict):
        stated = config["text_config"].get("quantization_config")
    if isinstance(stated, dict) and stated.get("quant_method"):
        return _by_method(stated)
    if isinstance(config.get("quantization"), dict):
        return _mlx(config["quantization"])
    if isinstance(modelopt.get("quantization"), dict):
        return _modelopt(modelopt["quantization"])
    return Quantization()


def _by_method(stated: Mapping[str, Any]) -> Quantization:
    method = str(stated["quant_method"]).casefold()
    if method == "compressed-tensors":
        return _compressed(stated)
    if method == "modelopt" or method.startswith("modelopt"):
        return _modelopt(stated)
    if method == "bitsandbytes":
        return (
            Quantization("bnb-4bit", 4) if stated.get("load_in_4bit") else Quantization("bnb-8bit")
        )
    if method == "mxfp4":
        return Quantization("MXFP4", 4)
    if method in ("fp8", "fbgemm_fp8"):
        return Quantization("FP8")
    bits = _integer(stated.get("bits")) or _integer(stated.get("w_bit"))
    # A mixture whose exceptions are given as patterns: the widths are not known by module.
    known = None if stated.get("dynamic") or stated.get("extra_config") else bits
    if method == "awq":
        return Quantization("AWQ" if bits in (4, None) else f"AWQ-Int{bits}", known)
    title = {"gptq": "GPTQ", "auto-round": "AutoRound", "auto_round": "AutoRound"}.get(method)
    if title is not None and bits is not None:
        return Quantization(f"{title}-Int{bits}", known)
    label = one_line(str(stated["quant_method"]))
    return Quantization(f"{label}-{bits}bit" if bits else label)


def _compressed(stated: Mapping[str, Any]) -> Quantization:
    """compressed-tensors: groups of modules, each with a scheme for weights and activations."""
    groups = stated.get("config_groups")
    schemes: list[tuple[str, int | None]] = []
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            schemes.append(_scheme(group, str(group.get("format") or stated.get("format"))))
    labels = sorted({label for label, _ in schemes})
    # FP8 weights are stored one by one: only what is packed needs a width.
    packed = {bits for _, bits in schemes if bits is not None}
    bits = packed.pop() if len(packed) == 1 else None
    return Quantization("+".join(labels) or "compressed-tensors", bits)


def _scheme(group: Mapping[str, Any], format_name: str) -> tuple[str, int | None]:
    weights, activations = group["weights"], group.get("input_activations")
    bits = _integer(weights.get("num_bits"))
    if weights.get("type") == "float":
        if bits == 8:
            return "FP8", None
        micro = "mxfp4" in format_name or weights.get("group_size") == 32
        return "MXFP4" if micro else f"NVFP{bits}", bits
    other = _integer(activations.get("num_bits")) if isinstance(activations, dict) else None
    return f"W{bits}A{other or 16}", bits


def _modelopt(stated: Mapping[str, Any]) -> Quantization:
    algorithm = one_line(str(stated.get("quant_algo") or "")) or "ModelOpt"
    if algorithm == "MIXED_PRECISION":  # FP8 and NVFP4: only the latter is packed
        return Quantization("ModelOpt-mixed", 4)
    return Quantization(algorithm, 4 if "FP4" in algorithm or "W4A" in algorithm else None)


def _mlx(stated: Mapping[str, Any]) -> Quantization:
    bits = _integer(stated.get("bits"))
    mode = str(stated.get("mode", "affine"))
    exceptions = {
        str(module): own
        for module, setting in stated.items()
        if isinstance(setting, dict) and (own := _integer(setting.get("bits")))
    }
    name = f"{bits}bit" if mode == "affine" else one_line(mode.upper())
    return Quantization(f"MLX-{name}", bits, exceptions)


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
