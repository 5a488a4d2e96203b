"""GGUF files: their header (``read_gguf``) and what model they are (``identify``)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models._names import (
    base_model_of,
    name_of,
    quant_of,
    repository_of,
    stated_text,
)
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
    "parts",
    "read_gguf",
    "stated_quant",
]

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
_NO_MODEL = {
    "adapter": "an adapter (LoRA)",
    "mmproj": "a multimodal projector",
    "imatrix": "an importance matrix",
}
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
    given = read_gguf(path)
    files = _parts(path, given)
    headers = [given if file == path else read_gguf(file) for file in files]
    _check_parts(files, headers)
    first, name = headers[0], shown(files[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    _check_model(first, tensors, name)
    names = name_of(first, name)
    held = sum(tensor.elements for tensor in tensors)
    parameters = _parameters(first, held)
    template = first.text("tokenizer.chat_template")
    source = repository_of(files[0])
    return Model(
        family=names.family,
        variant=names.variant,
        quant=quant_of(first, name),
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
    """The quant that the file itself states, whatever it is called.

    Raises ModelError when the file is missing, damaged or truncated.
    """
    return quant_of(read_gguf(path), "")


def parts(path: Path) -> list[Path]:
    """All files of the model that ``path`` belongs to, the first part first.

    One file unless its metadata says that it is split. Raises ModelError when a part is missing
    or when a renamed part hides where the others are.
    """
    return _parts(path, read_gguf(path))


def _parts(path: Path, header: GgufHeader) -> list[Path]:
    count = header.integer("split.count") or 1
    if count <= 1:
        return [path]
    match = _PART.match(path.name)
    if match is None:
        raise ModelError(
            f"{shown(path)}: one of {count} parts, under a name that hides the others",
            hint=f"give all parts their names back: …-00001-of-{count:05d}.gguf",
        )
    if int(match[3]) != count:
        raise ModelError(
            f"{shown(path)}: its metadata says {count} parts, its name {int(match[3])}",
            hint="fetch all parts again from one place",
        )
    files = [path.with_name(f"{match[1]}-{n:05d}-of-{match[3]}.gguf") for n in range(1, count + 1)]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise ModelError(
            f"{shown(path)}: {len(missing)} of {count} parts missing, first {shown(missing[0])}",
            hint="put all parts into one folder",
        )
    return files


def _check_parts(files: Sequence[Path], headers: Sequence[GgufHeader]) -> None:
    if len(files) == 1:
        return
    for number, (file, header) in enumerate(zip(files, headers, strict=True)):
        stated = (header.integer("split.no"), header.integer("split.count"))
        if stated != (number, len(files)):
            raise ModelError(
                f"{shown(file)}: its metadata does not say that it is part {number + 1}"
                f" of {len(files)}",
                hint="it was renamed or is of another model; fetch that part again",
            )
    stated_tensors = headers[0].integer("split.tensors.count")
    held = sum(len(header.tensors) for header in headers)
    if stated_tensors is not None and stated_tensors != held:
        raise ModelError(
            f"{shown(files[0])}: {stated_tensors} tensors announced, all parts hold {held}",
            hint="the parts are of different models; fetch all of them again from one place",
        )


def _check_model(header: GgufHeader, tensors: Sequence[Tensor], name: str) -> None:
    what = _NO_MODEL.get(header.text("general.type") or "")
    if what is None and not any(tensor.elements for tensor in tensors):
        what = "a vocabulary without weights"
    if what is not None:
        raise ModelError(f"{name}: {what}, not a model", hint="name the model's own .gguf file")


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
    experts = sum(tensor.elements for tensor in tensors if "_exps" in tensor.name)
    if not count or not used or not 0 < used <= count or not experts:
        return None
    return held - experts + experts * used // count


def _context(header: GgufHeader) -> int | None:
    value = header.integer(f"{header.text('general.architecture')}.context_length")
    # Records hold 64-bit integers; a damaged file may state anything.
    return value if value is not None and 0 <= value < 2**63 else None
