"""Safetensors: the header of a file, and what model a folder of such files is.

Follows the format's own description (8 bytes of length, a JSON header, the data) and the layout
of Hugging Face model folders. Only headers are read. The input is hostile until proven
otherwise: whatever the bytes are, the answer is a header or a ModelError.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError
from tokrig.models import _folder
from tokrig.models._kinds import folder_is_else
from tokrig.models._names import folder_name_of, one_line, repository_of
from tokrig.models._packed import Quantization, quantization_of
from tokrig.models._reader import LFS_POINTER, LFS_REMEDY, check_file, shown
from tokrig.models._sha256 import sha256_of
from tokrig.record.model import Model
from tokrig.units import human_bytes, significant

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""The format allows 100 MB; the largest published headers have a tenth of this."""
MAX_TENSORS = 262_144

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}
"""Bits of one element, by the format's names of types."""

_COUNT_KEYS = (
    *("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    *("num_moe_experts", "num_routed_experts"),
)
_USED_KEYS = (
    *("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"),
    *("moe_top_k", "num_selected_experts", "experts_per_token", "num_active_experts"),
)
# How checkpoints call the weights of routed experts. By repository or library:
_EXPERTS = re.compile(
    r"\.experts\."  # Mixtral, Qwen, DeepSeek, DBRX, Jamba, Phi, Llama 4, gpt-oss, Gemma 4
    r"|\.switch_(?:mlp|glu)\."  # mlx-lm
    r"|\.block_sparse_moe\.(?:(?:in|out)put_linear|w[123])\b"  # Granite; Mixtral as released
    r"|\.mlp\.(?:in|out)put_linear\."  # JetMoE
    r"|\.moe\.(?:gate|up|down)_proj\."  # Step-3
)
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor as it is stored: ``shape`` counts stored elements, packed or not."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """How many stored elements the tensor has."""
        return prod(self.shape)


def read_safetensors(path: Path) -> tuple[Weight, ...]:
    """The tensors that the header of the file ``path`` announces.

    Raises ModelError when the file is missing, is something else, is damaged, or ends before its
    tensors do.
    """
    size = check_file(path).st_size
    try:
        with path.open("rb") as file:
            head = file.read(512)
            _refuse_other(path, head)
            length = int.from_bytes(head[:8], "little")
            file.seek(8)
            if length > MAX_HEADER_BYTES or size < 8:
                raise _damaged(path, f"it claims a header of {length} bytes")
            if 8 + length > size:
                raise _truncated(path, size, "its header")
            header = _json(path, file.read(length))
    except OSError as error:
        raise ModelError(
            f"{shown(path)}: cannot be read: {error.strerror}", hint="check the file's rights"
        ) from error
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"it claims {len(header)} tensors")
    return tuple(_weight(path, name, entry, size - 8 - length) for name, entry in header.items())


def _refuse_other(path: Path, head: bytes) -> None:
    if head.startswith(LFS_POINTER):
        raise ModelError(
            f"{shown(path)}: not the weights, but a Git LFS pointer to them", hint=LFS_REMEDY
        )
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(
            f"{shown(path)}: not the weights, but a web page",
            hint="the download returned a page; use the direct link, log in if asked",
        )


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


def _weight(path: Path, name: str, entry: Any, data_bytes: int) -> Weight:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise _damaged(path, f"tensor {name[:80]!r} is not described")
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape) or len(shape) > 16:
        raise _damaged(path, f"tensor {name[:80]!r} has an impossible shape")
    if not 0 <= start <= end:
        raise _damaged(path, f"tensor {name[:80]!r} ends before it begins")
    if end > data_bytes:
        raise _truncated(path, data_bytes, f"tensor {name[:80]!r}, {end - data_bytes} bytes")
    weight = Weight(name, kind, tuple(shape), end - start)
    bits = BITS.get(kind)
    if bits is not None and -(-weight.elements * bits // 8) != weight.bytes:
        raise _damaged(path, f"tensor {name[:80]!r} has another size than its shape says")
    return weight


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{shown(path)}: not a usable safetensors file: {why}",
        hint="the file is damaged or of another kind; fetch it again",
    )


def _truncated(path: Path, size: int, missing: str) -> ModelError:
    return ModelError(
        f"{shown(path)}: truncated, it ends within {missing} (there are {human_bytes(size)})",
        hint="the download or the copy did not finish; fetch the file again",
    )


def identify(folder: Path, sha256: bool = True) -> Model:
    """What model the Hugging Face model folder ``folder`` holds.

    ``parameters`` are those of the model: packed weights are counted unpacked, scales and zero
    points not at all, and where the packing is unknown nothing is claimed. Bits per weight =
    8 × bytes of all tensors / parameters. The SHA-256 is that of all weight files one after the
    other, in the order of their names.

    Raises ModelError when the folder holds no model, a part is missing or a file is damaged.
    """
    files = _folder.weight_files(folder)
    config = _folder.config_of(folder)
    if other := folder_is_else(folder, config):
        raise ModelError(f"{shown(folder)}: {other[0]}, not a model to chat with", hint=other[1])
    text = _folder.text_config(config)
    weights = [weight for file in files for weight in read_safetensors(file)]
    quantization = quantization_of(config, _folder.quantizer_config(folder))
    parameters = parameters_of(weights, quantization)
    source, card = repository_of(folder), _folder.card_of(folder)
    name = source.name if source else folder.absolute().name
    names = folder_name_of(name, config.get("_name_or_path"))
    template = _folder.chat_template(folder)
    return Model(
        family=names.family,
        variant=names.variant,
        quant=quantization.label or _widest(weights),
        quant_creator=card.quantized_by or (source.owner if source else None),
        format="safetensors",
        file=f"{source.name}@{source.revision[:12]}" if source else shown(Path(name)),
        sha256=sha256_of(files) if sha256 else None,
        bytes=sum(file.stat().st_size for file in files),
        parameters=parameters,
        active_parameters=_active(text, weights, quantization, parameters),
        bits_per_weight=significant(8 * sum(w.bytes for w in weights) / parameters)
        if parameters
        else None,
        tensor_types=dict(Counter(weight.type for weight in weights).most_common()),
        context_train=_first_integer(text, _CONTEXT_KEYS),
        architecture=_architecture(config),
        chat_template_sha256=hashlib.sha256(template.encode()).hexdigest() if template else None,
        base_model=card.base_model,
        license=card.license,
        identity_from=names.source,
    )


def parameters_of(weights: Sequence[Weight], quantization: Quantization) -> int | None:
    """Parameters of the model stored in ``weights``; None where a packing is unknown."""
    total = 0
    names = {weight.name for weight in weights}
    for weight in weights:
        count = quantization.parameters(weight.name, weight.type, weight.elements, names)
        if count is None:
            return None
        total += count
    return total


def experts_share(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Experts that a token uses and experts there are; None for a model without any."""
    text = _folder.text_config(config)
    count, used = _first_integer(text, _COUNT_KEYS), _first_integer(text, _USED_KEYS)
    return (used, count) if count and used and 0 < used <= count else None


def is_expert(weight: Weight, share: tuple[int, int] | None = None) -> bool:
    """Whether the tensor belongs to routed experts: ``…mlp.experts.17.down_proj.weight``, or to
    all of them at once, whatever it is called: the first of three dimensions is their number.

    Shared experts (``shared_experts``, ``shared_mlp``) work for every token.
    """
    if ".shared_" in weight.name:
        return False
    stacked = share is not None and len(weight.shape) > 2 and weight.shape[0] == share[1] > 1
    return stacked or _EXPERTS.search(f".{weight.name}") is not None


def _active(
    text: Mapping[str, Any],
    weights: Sequence[Weight],
    quantization: Quantization,
    parameters: int | None,
) -> int | None:
    """Parameters that one token touches: all others + experts × used / count."""
    share = experts_share(text)
    experts = parameters_of([w for w in weights if is_expert(w, share)], quantization)
    if share is None or parameters is None or not experts:
        return None
    return parameters - experts + experts * share[0] // share[1]


def _widest(weights: Sequence[Weight]) -> str | None:
    """The type that most bytes have: the "quant" of a model that is not quantised."""
    by_type: Counter[str] = Counter()
    for weight in weights:
        by_type[weight.type] += weight.bytes
    return by_type.most_common(1)[0][0] if by_type else None


def _architecture(config: Mapping[str, Any]) -> str | None:
    stated = config.get("model_type")
    if not stated and isinstance(config.get("architectures"), list):
        stated = next(iter(config["architectures"]), None)
    return one_line(stated) if isinstance(stated, str) else None


def _first_integer(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and len({*map(str, value)}) == 1:  # one a layer, all the same
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**48:
            return value
    return None
