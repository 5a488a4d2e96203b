"""GGUF files: their header (``read_gguf``) and what model they are (``identify``)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models._kinds import what_else
from tokrig.models._labels import quant_of
from tokrig.models._names import base_model_of, name_of, repository_of, stated_text
from tokrig.models._pieces import check_parts, parts_of, refuse_cut
from tokrig.models._reader import GgufHeader, Omitted, Tensor, check_file, read_gguf, shown
from tokrig.models._sha256 import sha256_of
from tokrig.record.model import Model
from tokrig.units import significant

__all__ = [
    "GgufHeader",
    "Omitted",
    "Tensor",
    "check_file",
    "identify",
    "is_routed",
    "parts",
    "read_gguf",
    "stated_quant",
]

_ROUTED = re.compile(r"_exps\b|\.ffn_(?:gate|up|down)\.\d+\.")
# general.parameter_count is believed where it is this near to what the tensors hold: converters
# leave out helper tensors, but a figure further off belongs to another file.
_COUNT_TOLERANCE = 0.1


def identify(path: Path | str, sha256: bool = True) -> Model:
    """What model the file ``path`` is, over all parts when it is split.

    ``sha256=False`` leaves the hash out, which otherwise takes about a second per 300 MB the
    first time. Bits per weight = 8 × bytes of the tensors / parameters. Active parameters of a
    mixture of experts = all others + experts × used / count.

    Raises ModelError when a file is missing, damaged or truncated, or holds no model.
    """
    path = Path(path)
    refuse_cut(path)
    given = read_gguf(path)
    files = parts_of(path, given)
    headers = [given if file == path else read_gguf(file) for file in files]
    check_parts(files, headers)
    first, name = headers[0], shown(files[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_model(first, tensors, name)
    names = name_of(first, name)
    held = sum(tensor.elements for tensor in tensors)
    parameters = _parameters(first, held)
    quant, quant_stated = quant_of(first, name, tensors)
    template = first.text("tokenizer.chat_template")
    source = repository_of(files[0])
    return Model(
        family=names.family,
        variant=names.variant,
        quant=quant,
        quant_stated=quant_stated,
        quant_creator=stated_text(first, "general.quantized_by")
        or (source.owner if source else None),
        format="gguf",
        file=name,
        sha256=sha256_of(files) if sha256 else None,
        bytes=sum(header.file_bytes for header in headers),
        parameters=parameters,
        active_parameters=_active(first, tensors, held),
        bits_per_weight=_bits_per_weight(tensors, parameters),
        tensor_types=dict(Counter(tensor.type for tensor in tensors).most_common()),
        context_train=_context(first),
        architecture=stated_text(first, "general.architecture"),
        chat_template_sha256=hashlib.sha256(template.encode()).hexdigest() if template else None,
        base_model=base_model_of(first),
        license=stated_text(first, "general.license"),
        identity_from=names.source,
    )


def stated_quant(path: Path) -> str | None:
    """The quant of the file itself, whatever it is called.

    Raises ModelError when the file is missing, damaged or truncated.
    """
    header = read_gguf(path)
    return quant_of(header, "", header.tensors)[0]


def parts(path: Path) -> list[Path]:
    """All files of the model that ``path`` belongs to, the first part first.

    One file unless its metadata says that it is split. Raises ModelError when a part is missing
    or when a renamed part hides where the others are.
    """
    refuse_cut(path)
    return parts_of(path, read_gguf(path))


def _check_model(header: GgufHeader, tensors: Sequence[Tensor], name: str) -> None:
    if other := what_else(header, tensors, name):
        raise ModelError(f"{name}: {other[0]}, not a model to chat with", hint=other[1])


def _parameters(header: GgufHeader, held: int) -> int:
    stated = header.integer("general.parameter_count")
    if stated is not None and abs(stated - held) <= _COUNT_TOLERANCE * held:
        return stated
    return held


def _bits_per_weight(tensors: Sequence[Tensor], parameters: int) -> float | None:
    total = 0
    for tensor in tensors:
        if tensor.bytes is None:
            return None
        total += tensor.bytes
    return significant(8 * total / parameters)


def _active(header: GgufHeader, tensors: Sequence[Tensor], held: int) -> int | None:
    """Parameters that one token touches; None where the model has no experts."""
    architecture = header.text("general.architecture")
    count = header.integer(f"{architecture}.expert_count")
    used = header.integer(f"{architecture}.expert_used_count")
    experts = sum(tensor.elements for tensor in tensors if is_routed(tensor.name))
    if not count or not used or not 0 < used <= count or not experts:
        return None
    return held - experts + experts * used // count


def is_routed(name: str) -> bool:
    """Whether a tensor belongs to routed experts: ``ffn_up_exps``, or one a tensor, as in files
    from before 2024. Shared experts (``ffn_up_shexp``) work for every token."""
    return _ROUTED.search(name) is not None


def _context(header: GgufHeader) -> int | None:
    value = header.integer(f"{header.text('general.architecture')}.context_length")
    # Records hold 64-bit integers; a damaged file may state anything.
    return value if value is not None and 0 <= value < 2**63 else None
