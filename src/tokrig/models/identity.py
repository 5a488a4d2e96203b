"""What model a path is: a GGUF file, or a folder of safetensors files; and where it is from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
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
from tokrig.models.packing import Quantization, quantization_of
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
    fetched, origin = repository_of(path), shelf.origin(path)
    found: dict[str, object] = {}
    if fetched is not None:
        found |= {"repo": f"{fetched.owner}/{fetched.name}", "revision": fetched.revision}
    if origin is not None and origin.quantized_from is not None:
        found |= {"quantized_from": origin.quantized_from, "quant_creator": MADE_HERE}
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
    quantization = quantization_of(config, safetensors.quantizer_config(folder))
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
    quantization: Quantization,
    parameters: int | None,
) -> int | None:
    share = needs.experts_share(config)
    experts = quantization.parameters([w for w in weights if needs.is_expert(w, share)])
    return None if parameters is None else _active(parameters, experts or 0, share)
