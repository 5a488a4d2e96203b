"""What model a path is: a GGUF file, or a folder of safetensors files; and where it is from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokrig.models import needs, safetensors, shelf
from tokrig.models.disk import sha256_of
from tokrig.models.gguf import Tensor, bad, read_gguf, shown
from tokrig.models.names import (
    base_model_of,
    folder_name_of,
    name_of,
    one_line,
    quant_of,
    repository_of,
)
from tokrig.models.parts import first_of, folder_is_else, read_parts, what_else
from tokrig.models.safetensors import Weight, read_safetensors
from tokrig.record.model import Model
from tokrig.units import significant

MADE_HERE = "made here"
"""The quant creator of a file that was quantized on this rig, whoever made its source."""

# general.parameter_count is believed where it is this near to what the tensors hold: converters
# leave out helper tensors, but a figure further off belongs to another file.
_COUNT_TOLERANCE = 0.1
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


def identify(path: Path | str, sha256: bool = True) -> Model:
    """What model ``path`` is, over all parts when it is split; with repository and commit where it
    was fetched from a hub, and with what it was made of where its quant was made here.

    ``sha256=False`` leaves the hash out, which otherwise takes about a second per 300 MB the
    first time. Bits per weight = 8 × bytes of the tensors / parameters. Active parameters of a
    mixture of experts = all others + experts × used / count.

    Raises ModelError when a file is missing, damaged or truncated, or holds no model.
    """
    path = Path(path)
    if path.is_dir() and safetensors.holds_gguf(path):
        path = first_of(path)
    if path.suffix.lower() == ".safetensors" and path.is_file():
        why = "one file of a model folder, which says what the model is"
        raise bad(path, why, "name the folder it lies in")
    model = _of_folder(path, sha256) if path.is_dir() else _of_gguf(path, sha256)
    # The shelf and a hub's own cache tell the repository by the same names of folders.
    fetched, kept = repository_of(path), shelf.read_manifest(path)
    found: dict[str, object] = {}
    if fetched is not None:
        found |= {"repo": f"{fetched.owner}/{fetched.name}", "revision": fetched.revision}
    if kept is not None and kept.quantized_from is not None:
        found |= {"quantized_from": kept.quantized_from, "quant_creator": MADE_HERE}
    return model.model_copy(update=found)


def stated_quant(path: Path) -> str | None:
    """The quant of the GGUF file itself, whatever it is called.

    Raises ModelError when the file is missing, damaged or truncated.
    """
    header = read_gguf(path)
    return quant_of(header, "", header.tensors)[0]


def _of_gguf(path: Path, sha256: bool) -> Model:
    files, headers = read_parts(path)
    first, name = headers[0], shown(files[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    if other := what_else(first, tensors, name):
        raise bad(files[0], f"{other[0]}, not a model to chat with", other[1])
    names, source = name_of(first, name), repository_of(files[0])
    held = sum(tensor.elements for tensor in tensors)
    stated = first.integer("general.parameter_count")
    near = stated is not None and abs(stated - held) <= _COUNT_TOLERANCE * held
    parameters = stated if stated is not None and near else held
    sizes = [tensor.bytes for tensor in tensors if tensor.bytes is not None]
    quant, quant_stated = quant_of(first, name, tensors)
    context = first.own("context_length")
    owner = one_line(first.text("general.quantized_by")) or (source.owner if source else None)
    return Model(
        family=names.family,
        variant=names.variant,
        quant=quant,
        quant_stated=quant_stated,
        quant_creator=owner,
        format="gguf",
        file=name,
        sha256=sha256_of(files) if sha256 else None,
        bytes=sum(header.file_bytes for header in headers),
        parameters=parameters,
        active_parameters=_active(
            held,
            sum(tensor.elements for tensor in tensors if needs.is_routed(tensor)),
            needs.experts_in_use(first),
        ),
        bits_per_weight=_bits(sum(sizes), parameters) if len(sizes) == len(tensors) else None,
        tensor_types=_types(tensors),
        # Records hold 64-bit integers; a damaged file may state anything.
        context_train=context if context is not None and 0 <= context < 2**63 else None,
        architecture=one_line(first.text("general.architecture")),
        chat_template_sha256=_digest(first.text("tokenizer.chat_template")),
        base_model=base_model_of(first),
        license=one_line(first.text("general.license")),
        identity_from=names.source,
    )


def _of_folder(folder: Path, sha256: bool) -> Model:
    """``parameters`` are those of the model: packed weights are counted unpacked, scales and zero
    points not at all, and where the packing is unknown nothing is claimed. The SHA-256 is that of
    all weight files one after the other, in the order of their names."""
    files = safetensors.weight_files(folder)
    config = safetensors.config_of(folder)
    if other := folder_is_else(folder, config):
        raise bad(folder, f"{other[0]}, not a model to chat with", other[1])
    weights = [weight for file in files for weight in read_safetensors(file)]
    quantization = _quantization_of(config, safetensors.quantizer_config(folder))
    parameters = quantization.parameters(weights)
    source, card = repository_of(folder), safetensors.card_of(folder)
    name = source.name if source else folder.absolute().name
    names = folder_name_of(name, config.get("_name_or_path"))
    kinds: Counter[str] = Counter()
    for weight in weights:
        kinds[weight.type] += weight.bytes
    heads, kind = config.get("architectures"), config.get("model_type")
    if not kind and isinstance(heads, list):
        kind = next(iter(heads), None)
    return Model(
        family=names.family,
        variant=names.variant,
        # Of a model that is not quantised the type that most bytes have.
        quant=quantization.label or next((kind for kind, _ in kinds.most_common(1)), None),
        quant_creator=card.quantized_by or (source.owner if source else None),
        format="safetensors",
        file=f"{source.name}@{source.revision[:12]}" if source else shown(Path(name)),
        sha256=sha256_of(files) if sha256 else None,
        bytes=sum(file.stat().st_size for file in files),
        parameters=parameters,
        active_parameters=_active_of_folder(config, weights, quantization, parameters),
        bits_per_weight=_bits(kinds.total(), parameters) if parameters else None,
        tensor_types=_types(weights),
        context_train=needs.first_integer(safetensors.text_config(config), _CONTEXT_KEYS),
        architecture=one_line(kind) if isinstance(kind, str) else None,
        chat_template_sha256=_digest(safetensors.chat_template(folder)),
        base_model=card.base_model,
        license=card.license,
        identity_from=names.source,
    )


def _bits(size: int, parameters: int) -> float:
    return significant(8 * size / parameters)


def _types(tensors: Sequence[Tensor] | Sequence[Weight]) -> dict[str, int]:
    return dict(Counter(tensor.type for tensor in tensors).most_common())


def _digest(text: str | None) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _active(parameters: int, experts: int, share: needs.Share) -> int | None:
    """Parameters that one token touches; None where the model has no experts."""
    if share is None or not experts:
        return None
    return parameters - experts + experts * share[0] // share[1]


def _active_of_folder(
    config: Mapping[str, Any],
    weights: Sequence[Weight],
    quantization: _Quantization,
    parameters: int | None,
) -> int | None:
    share = needs.experts_share(config)
    experts = quantization.parameters([w for w in weights if needs.is_expert(w, share)])
    return None if parameters is None else _active(parameters, experts or 0, share)


# --- how quantised safetensors pack their weights -----------------------------------------------

# By the configurations that the tools write: ``quantization_config`` (transformers: AWQ, GPTQ,
# AutoRound, FP8, bitsandbytes, MXFP4 and a dozen more; llm-compressor's compressed-tensors; AMD's
# Quark; NVIDIA ModelOpt, which also writes ``hf_quant_config.json``) and ``quantization`` (MLX, and
# Mistral's ``params.json``). AutoGPTQ and AutoAWQ once wrote files of their own.

# Tensors beside the weights: scales, zero points, permutations, shapes, quantiser state.
_BESIDE = (
    "scales qzeros g_idx weight_scale weight_scale_inv weight_scale_2 weight_global_scale "
    "weight_zero_point weight_shape weight_g_idx input_scale input_scale_inv input_global_scale "
    "input_zero_point activation_scale k_scale v_scale q_scale SCB weight_format"
).split()
_BESIDE_ENDS = ("_scales", "_scale_inv")  # gpt-oss: …gate_up_proj_scales
_QUANTISER_STATE = (".weight.absmax", ".weight.quant_map", ".weight.nested_", ".weight.quant_state")
_PLAIN = ("F64", "F32", "F16", "BF16", "F8_", "F6_", "F4")
_WIDTH = {"U8": 8, "I8": 8, "I32": 32, "U32": 32, "I64": 64}
_BUFFERS = ("I64", "I32", "I16", "BOOL", "U16", "U64")


@dataclass(frozen=True)
class _Quantization:
    """How a model's weights are stored. ``bits`` is the width of one packed weight, None where
    it is unknown or differs; ``module_bits`` are exceptions by module. ``label`` is None for a
    model that is not quantised."""

    label: str | None = None
    bits: int | None = None
    module_bits: Mapping[str, int] = field(default_factory=dict)

    def parameters(self, weights: Sequence[Weight]) -> int | None:
        """Parameters of the model stored in ``weights``; None where a tensor is packed and
        nothing says how. What lies beside a weight is no parameter."""
        names = {weight.name for weight in weights}
        counts = [self._count(weight, names) for weight in weights]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _count(self, weight: Weight, names: Collection[str]) -> int | None:
        module, _, last = weight.name.rpartition(".")
        if self.label is not None and _is_beside(weight.name, module, last, names):
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


def _is_beside(name: str, module: str, last: str, names: Collection[str]) -> bool:
    if last in _BESIDE or last.endswith(_BESIDE_ENDS):
        return True
    if any(mark in name for mark in _QUANTISER_STATE):
        return True
    return last == "biases" and f"{module}.scales" in names  # MLX: zero points, not a bias


def _quantization_of(config: Mapping[str, Any], beside: Mapping[str, Any]) -> _Quantization:
    """The quantisation that ``config.json`` states, or one of the files ``beside`` it."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(stated, dict) and isinstance(config.get("text_config"), dict):
        stated = config["text_config"].get("quantization_config")
    if isinstance(stated, dict) and stated.get("quant_method"):
        return _by_method(stated)
    own = config.get("quantization") or stated
    if isinstance(own, dict) and own.get("qformat_weight"):
        return _Quantization(_format_label(str(own["qformat_weight"])))
    if isinstance(own, dict) and (
        "bits" in own or any(isinstance(v, dict) and "bits" in v for v in own.values())
    ):
        return _mlx(own)
    if isinstance(beside.get("quantization"), dict):
        return _modelopt(beside["quantization"])
    if "w_bit" in beside:
        return _by_method({"quant_method": "awq", **beside})
    if "bits" in beside and "group_size" in beside:
        return _by_method({"quant_method": "gptq", **beside})
    return _Quantization()


def _by_method(stated: Mapping[str, Any]) -> _Quantization:
    method = str(stated["quant_method"]).casefold().replace("_", "-").removesuffix("-marlin")
    bits = _integer(stated.get("bits")) or _integer(stated.get("w_bit"))
    # A mixture whose exceptions are given as patterns: the widths are not known by module.
    known = None if stated.get("dynamic") or stated.get("extra_config") else bits
    match method:
        case "bitsandbytes":
            four = bool(stated.get("load_in_4bit"))
            return _Quantization("bnb-4bit", 4) if four else _Quantization("bnb-8bit")
        case "awq":
            return _Quantization("AWQ" if bits in (4, None) else f"AWQ-Int{bits}", known)
        case "gptq" if bits is not None:
            return _Quantization(f"GPTQ-Int{bits}", known)
        case "auto-round" | "intel/auto-round" if bits is not None:
            return _Quantization(f"AutoRound-Int{bits}", known)
        case "aqlm":
            return _aqlm(stated)
        case "compressed-tensors":
            return _compressed(stated)
        case "quark":
            return _quark(stated)
    if method.startswith("modelopt"):
        return _modelopt(stated)
    if method.endswith(("fp8", "fp4")):
        width = 4 if "fp4" in method else None
        return _Quantization(_format_label(method.rpartition("-")[2]), width)
    return _other_tool(method, stated)


def _format_label(name: str) -> str:
    """``fp8_e4m3`` → ``FP8``; ``nvfp4`` → ``NVFP4``."""
    return (one_line(name.partition("_")[0]) or "quantized").upper()


_TITLES = {
    "bitnet": "BitNet",
    "eetq": "EETQ-8bit",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fp-quant": "FPQuant",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "quanto": "Quanto",
    "spqr": "SpQR",
    "vptq": "VPTQ",
}
_WIDTHS = ("bits", "nbits", "num_bits", "w_bit", "wbits")


def _other_tool(method: str, stated: Mapping[str, Any]) -> _Quantization:
    """Tools whose packing is not read here: the name and the width. exl2 and exl3 state a mean."""
    title = _TITLES.get(method) or one_line(str(stated["quant_method"])) or "quantized"
    nested = stated.get("quant_config")
    if isinstance(nested, dict) and isinstance(nested.get("weight_quant_params"), dict):
        stated = {**nested["weight_quant_params"], **stated}  # hqq
    width = next((stated[key] for key in _WIDTHS if _is_width(stated.get(key))), None)
    if width is not None:
        unit = "bpw" if method.startswith("exl") else "bit"
        return _Quantization(f"{title}-{width:g}{unit}")
    named = stated.get("weights") or stated.get("forward_dtype") or stated.get("quant_type")
    if isinstance(named, dict) and isinstance(named.get("default"), dict):
        named = named["default"].get("_type")  # torchao
    text = one_line(named) if isinstance(named, str) else None
    return _Quantization(f"{title}-{text.removesuffix('Config')}" if text else title)


def _is_width(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 32


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The objects among the values of an object; none where it is something else."""
    values = value.values() if isinstance(value, dict) else ()
    return [entry for entry in values if isinstance(entry, dict)]


def _aqlm(stated: Mapping[str, Any]) -> _Quantization:
    """Codes of ``nbits_per_codebook`` bits for a group of weights, from several codebooks."""
    books, code = _integer(stated.get("num_codebooks")), _integer(stated.get("nbits_per_codebook"))
    rows = _integer(stated.get("out_group_size")) or 1
    group = (_integer(stated.get("in_group_size")) or 0) * rows
    return _Quantization(
        f"AQLM-{books * code / group:g}bit" if books and code and group else "AQLM"
    )


def _quark(stated: Mapping[str, Any]) -> _Quantization:
    """AMD's Quark: one scheme for all modules and others by pattern. Of two stages (FP8, then
    INT4) the last is what is stored."""
    labels = set()
    for config in _dicts({"": stated.get("global_quant_config")}) + _dicts(
        stated.get("layer_quant_config")
    ):
        weight = config.get("weight")
        weight = weight[-1] if isinstance(weight, list) and weight else weight
        if isinstance(weight, dict) and isinstance(weight.get("dtype"), str):
            labels.add(_quark_label(weight["dtype"].casefold(), weight.get("group_size")))
    packed = any(label.endswith("4") for label in labels)
    name = "Quark-" + "+".join(sorted(labels)) if labels else "Quark"
    return _Quantization(name, 4 if packed else None)


def _quark_label(dtype: str, group_size: Any) -> str:
    if dtype.startswith("fp4"):
        return "MXFP4" if group_size in (32, None) else "FP4"
    if dtype in ("int4", "uint4", "int8", "uint8"):
        return f"Int{dtype[-1]}"
    return _format_label(dtype)


def _compressed(stated: Mapping[str, Any]) -> _Quantization:
    """compressed-tensors: groups of modules, each with a scheme for weights and activations."""
    schemes = [
        _scheme(group, str(group.get("format") or stated.get("format")))
        for group in _dicts(stated.get("config_groups"))
        if isinstance(group.get("weights"), dict)
    ]
    labels = sorted({label for label, _ in schemes})
    # FP8 weights are stored one by one: only what is packed needs a width.
    packed = {bits for _, bits in schemes if bits is not None}
    bits = packed.pop() if len(packed) == 1 else None
    return _Quantization("+".join(labels) or "compressed-tensors", bits)


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


def _modelopt(stated: Mapping[str, Any]) -> _Quantization:
    algorithm = one_line(str(stated.get("quant_algo") or "")) or "ModelOpt"
    if algorithm == "MIXED_PRECISION":  # FP8 and NVFP4: only the latter is packed
        return _Quantization("ModelOpt-mixed", 4)
    return _Quantization(algorithm, 4 if "FP4" in algorithm or "W4A" in algorithm else None)


def _mlx(stated: Mapping[str, Any]) -> _Quantization:
    bits, mode = _integer(stated.get("bits")), str(stated.get("mode", "affine"))
    exceptions = {
        str(module): own
        for module, setting in stated.items()
        if isinstance(setting, dict) and (own := _integer(setting.get("bits")))
    }
    width = f"{bits}bit" if bits else "mixed"
    name = width if mode == "affine" else one_line(mode.upper())
    return _Quantization(f"MLX-{name}", bits, exceptions)
