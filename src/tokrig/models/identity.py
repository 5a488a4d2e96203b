"""What model a path is, a GGUF file or a folder of safetensors files: what it is called, what it
holds, where it is from.

Files and repositories follow the GGUF naming convention loosely:
``<base>-<size>-<finetune>-<quant>``. Metadata counts more than a name, which anyone can change;
the name adds what the metadata leaves out.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tokrig.documents import parse
from tokrig.errors import InputError
from tokrig.models import needs, safetensors, shelf
from tokrig.models.files import first_of, folder_is_else, read_parts, sha256_of, what_else
from tokrig.models.gguf import MAX_NAME, GgufHeader, Tensor, bad, one_line, read_gguf, shown
from tokrig.models.quantization import QUANT, packing_of, quant_of
from tokrig.models.safetensors import read_safetensors
from tokrig.naming import Reference
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
        raise bad(path, why, "name the folder it is in")
    model = _of_folder(path, sha256) if path.is_dir() else _of_gguf(path, sha256)
    # The shelf and a hub's own cache tell the repository by the same names of folders.
    fetched, kept = repository_of(path), shelf.read_manifest(path)
    found: dict[str, object] = {}
    if fetched is not None:
        owner = fetched.repo.partition("/")[0]
        found |= {"repo": fetched.repo, "revision": fetched.revision}
        found |= {"quant_creator": model.quant_creator or owner}
    if kept is not None and kept.quantized_from is not None:
        found |= {"quantized_from": kept.quantized_from, "quant_creator": MADE_HERE}
    return model.model_copy(update=found)


def named(name: str) -> Model:
    """What a bare name tells, a repository's, a model file's or one that a server gives: family,
    variant and quant, and nothing of the weights."""
    last = name.rpartition("/")[2] if name.count("/") == 1 else name
    is_file = last.lower().endswith(".gguf")
    stem = PACKED.sub("", last) if not is_file else last
    found = QUANT.search(last.replace(":", "-"))
    family, variant = _split_at_size(_without_quant(stem.replace(":", "-")))
    packed = PACKED.search(last)
    label = None if found or packed is None else packed.group().lstrip("-_.").split("-")[0]
    return Model(
        family=family,
        variant=variant,
        quant=found[1].upper() if found else label,
        format="gguf" if is_file else None,
        file=shown(Path(last)) if is_file else None,
        identity_from="file_name" if is_file else "endpoint",
    )


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
    family, variant, identity_from = _name_of_gguf(first, name)
    held = sum(tensor.elements for tensor in tensors)
    stated = first.integer("general.parameter_count")
    near = stated is not None and abs(stated - held) <= _COUNT_TOLERANCE * held
    experts = sum(tensor.elements for tensor in tensors if needs.is_expert(tensor))
    quant, quant_stated = quant_of(first, name, tensors)
    context = first.own("context_length")
    return Model(
        family=family,
        variant=variant,
        quant=quant,
        quant_stated=quant_stated,
        quant_creator=one_line(first.text("general.quantized_by")),
        format="gguf",
        file=name,
        **_measures(files, tensors, stated if near else held, sha256),
        active_parameters=_active(held, experts, needs.experts_in_use(first)),
        # Records hold 64-bit integers; a damaged file may state anything.
        context_train=context if context is not None and 0 <= context < 2**63 else None,
        architecture=one_line(first.text("general.architecture")),
        chat_template_sha256=_digest(first.text("tokenizer.chat_template")),
        base_model=_base_model_of(first),
        license=one_line(first.text("general.license")),
        identity_from=identity_from,
    )


def _of_folder(folder: Path, sha256: bool) -> Model:
    """``parameters`` are those of the model: packed weights are counted unpacked, scales and zero
    points not at all, and where the packing is unknown nothing is claimed. The SHA-256 is that of
    all weight files one after the other, in the order of their names."""
    files = safetensors.weight_files(folder)
    config = safetensors.config_of(folder)
    if other := folder_is_else(folder, config):
        raise bad(folder, f"{other[0]}, not a model to chat with", other[1])
    tensors = [tensor for file in files for tensor in read_safetensors(file)]
    packing = packing_of(config, safetensors.quantizer_config(folder))
    parameters, share = packing.parameters(tensors), needs.experts_share(config)
    experts = packing.parameters([one for one in tensors if needs.is_expert(one, share)])
    source = repository_of(folder)
    base_model, license_, quantized_by = _card_of(folder)
    name = source.repo.partition("/")[2] if source else folder.absolute().name
    family, variant, identity_from = _name_of_folder(name, config.get("_name_or_path"))
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.type] += tensor.bytes or 0
    heads, kind = config.get("architectures"), config.get("model_type")
    if not kind and isinstance(heads, list):
        kind = next(iter(heads), None)
    return Model(
        family=family,
        variant=variant,
        # Of a model that is not quantized the type that most bytes have.
        quant=packing.label or next((kind for kind, _ in by_type.most_common(1)), None),
        quant_creator=quantized_by,
        format="safetensors",
        file=f"{name}@{source.revision[:12]}" if source else shown(Path(name)),
        **_measures(files, tensors, parameters, sha256),
        active_parameters=None if parameters is None else _active(parameters, experts or 0, share),
        context_train=needs.first_integer(safetensors.text_config(config), _CONTEXT_KEYS),
        architecture=one_line(kind) if isinstance(kind, str) else None,
        chat_template_sha256=_digest(safetensors.chat_template(folder)),
        base_model=base_model,
        license=license_,
        identity_from=identity_from,
    )


def _measures(
    files: Sequence[Path], tensors: Sequence[Tensor], parameters: int | None, sha256: bool
) -> dict[str, Any]:
    """What a model's files and tensors say of its size, by the names of the record."""
    sizes = [tensor.bytes for tensor in tensors if tensor.bytes is not None]
    bits = None
    if parameters and len(sizes) == len(tensors):
        bits = significant(8 * sum(sizes) / parameters)
    return {
        "sha256": sha256_of(files) if sha256 else None,
        "bytes": sum(file.stat().st_size for file in files),
        "parameters": parameters,
        "bits_per_weight": bits,
        "tensor_types": dict(Counter(tensor.type for tensor in tensors).most_common()),
    }


def _active(parameters: int, experts: int, share: needs.Share) -> int | None:
    """Parameters that one token touches; None where the model has no experts."""
    if share is None or not experts:
        return None
    return parameters - experts + experts * share[0] // share[1]


def _digest(text: str | None) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


# --- where it is from ---------------------------------------------------------------------------

_SNAPSHOT = re.compile(r"^models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)$")
_REPOSITORY = re.compile(r"(?:https?://[\w.-]+/)?([\w][\w.-]*/[\w][\w.-]*)/?")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_MAX_CARD_BYTES = 256 * 1024


def repository_of(path: Path) -> Reference | None:
    """The repository of a path ``…/models--owner--name/snapshots/commit/…``, at that commit.

    That is how the Hugging Face client lays its cache out; None for any other path.
    """
    parts = path.absolute().parts
    for folder, middle, revision in zip(parts, parts[1:], parts[2:], strict=False):
        match = _SNAPSHOT.match(folder)
        if match and middle == "snapshots":
            return Reference(f"{match['owner']}/{match['name']}", revision)
    return None


def _repository_id(text: str | None) -> str | None:
    """``owner/name`` of a repository's id or address; the last component of anything else."""
    match = _REPOSITORY.fullmatch((text or "").strip())
    return match[1][:MAX_NAME] if match else one_line(text)


def _base_model_of(header: GgufHeader) -> str | None:
    """The model that this one was made from, as ``owner/name`` where the metadata has both."""
    address = header.text("general.base_model.0.repo_url")
    if address and _REPOSITORY.fullmatch(address.strip()):
        return _repository_id(address)
    name = _word(header, "base_model.0.name")
    owner = _word(header, "base_model.0.organization")
    return f"{owner}/{name}" if owner and name else name


def _card_of(folder: Path) -> tuple[str | None, str | None, str | None]:
    """What the front matter of ``README.md`` says of base model, license and quantizer, in short
    clean texts; nothing where there is none or it is broken."""
    match = _FRONT_MATTER.search(safetensors.text_of(folder / "README.md", _MAX_CARD_BYTES) or "")
    try:
        data = parse(match[1], "README.md") if match else None
    except InputError:
        data = None
    if not isinstance(data, dict):
        return None, None, None
    license_ = data.get("license")
    if license_ == "other":
        license_ = data.get("license_name") or license_
    bases = filter(None, map(_repository_id, _texts(data.get("base_model"))))
    return (
        ", ".join(bases) or None,
        one_line(license_) if isinstance(license_, str) else None,
        next(map(one_line, _texts(data.get("quantized_by"))), None),
    )


def _texts(value: Any) -> list[str]:
    """``value`` as a list of texts: a merge names several base models."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values[:8] if isinstance(text, str)]


# --- family and variant -------------------------------------------------------------------------

# Sizes: 270M, 0.5B, 8x7B, E2B, 1.1b. No K: "4k" is a context length.
SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:\d+x)?[AaEe]?\d+(?:\.\d+)?[MmBbTt](?![A-Za-z0-9])")
# What repositories append to say how their weights are stored: -AWQ, -GPTQ-Int4, -FP8-dynamic.
PACKED = re.compile(
    r"[-_.](?:AWQ|GPTQ|AutoRound|Quark|HQQ|AQLM|torchao|exl[23]|FP8|NVFP4|MXFP[48]|GGUF|"
    r"(?:unsloth[-_])?bnb|quantized|w\d+a\d+|int[48]|[2-8]-?bit|\d(?:[.\d]*)bpw|BF16|FP16|MLX)"
    r"(?![A-Za-z]).*$",
    re.IGNORECASE,
)
SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_NOT_OF_A_NAME = "gguf-hf-imat-imatrix-quantized-model"
# What a released model was made for. A metadata finetune without any of them is the name of a
# training checkpoint, and says less than a file name that has one.
_PURPOSE = re.compile(
    r"(?<![a-z])(instruct|it|chat|base|thinking|reasoning|reasoner|coder|assistant|pt)(?![a-z])",
    re.IGNORECASE,
)

_Name = tuple[str, str | None]
"""Family and variant."""
_Names = tuple[str, str | None, Literal["metadata", "file_name"]]
"""The same, and where from: ``file_name`` as soon as one part is guessed."""


def _name_of_folder(name: str, stated: Any) -> _Names:
    """Family and variant of a model folder called ``name``, whose configuration says ``stated``.

    Training tools leave the name of the model they began with in the configuration, so that one
    counts only where it names the folder's family, or where the folder's name says nothing.
    """
    folder = _split_at_size(PACKED.sub("", one_line(name) or "") or "unnamed")
    if not isinstance(stated, str) or not _REPOSITORY.fullmatch(stated):
        return *folder, "file_name"
    named = _split_at_size(PACKED.sub("", stated.rpartition("/")[2]))
    if folder[1] is not None and not _same(named[0], folder[0]):
        return *folder, "file_name"
    return _the_fuller(named, folder)


def _name_of_gguf(header: GgufHeader, file_name: str) -> _Names:
    """Family and variant: ``Gemma-3`` and ``270M``, ``SmolLM2`` and ``135M-Instruct``."""
    stem = _without_quant(file_name)
    by_file, name = _split_at_size(stem), _word(header, "name")
    stated = _stated(header, name, by_file)
    if stated is None:
        return *by_file, "file_name"
    family, variant = stated
    # Words that both the file's name and the metadata's have, and its parts have not: the basename
    # of GLM-4.5-Air is GLM-4.5, that of another model.
    has = {word.casefold() for word in f"{family}-{variant}-{_NOT_OF_A_NAME}".split("-")}
    in_file = {word.casefold() for word in stem.split("-")} - has
    words = (name or "").split("-")
    left_out = [word for word in words if word.isalpha() and word.casefold() in in_file]
    if family == family.lower():  # converters lower names: as one with capitals writes it
        spelled = [other[: len(family)] for other in (stem, name or "") if other != other.lower()]
        family = next((start for start in spelled if _same(start, family)), family)
    return _the_fuller((family, "-".join(filter(None, (variant, *left_out))) or None), by_file)


def _the_fuller(stated: _Name, by_name: _Name) -> _Names:
    """What the metadata says; with the name's variant where that alone tells a purpose."""
    (family, variant), (other_family, other) = stated, by_name
    if _same(family, other_family) and variant and other and _PURPOSE.search(other):
        if not _PURPOSE.search(variant) and _same(variant.split("-")[0], other.split("-")[0]):
            return family, other, "file_name"
    return family, variant, "metadata"


def _stated(header: GgufHeader, name: str | None, by_file: _Name) -> _Name | None:
    """Family and variant as the metadata has them; None when it says too little."""
    base, size = _word(header, "basename"), _word(header, "size_label")
    if base:
        family, variant = _split_at_size(base)
        more = [_word(header, key) for key in ("finetune", "version")]
        parts = [variant or size]
        parts += [word for word in more if word and word.casefold() not in base.casefold()]
        return family, "-".join(filter(None, parts)) or None
    if not name:
        return None
    family, variant = _split_at_size(name)
    if variant is None and size is None and by_file[1] is not None:
        return None  # "LLaMA v2": the file's name says more
    return family, variant or size


def _word(header: GgufHeader, key: str) -> str | None:
    return one_line(header.text(f"general.{key}"), "-")


def _split_at_size(name: str) -> _Name:
    """``Qwen3-30B-A3B-Instruct`` → ``Qwen3`` and ``30B-A3B-Instruct``."""
    match = SIZE.search(name)
    if match is None or match.start() == 0:
        return name, None
    size = match.group().replace("X", "x")
    size = size[:-1] + size[-1].upper()
    return name[: match.start()].rstrip("-_. "), size + name[match.end() :]


def _same(one: str, other: str) -> bool:
    return re.sub(r"[-_ .]", "-", one).casefold() == re.sub(r"[-_ .]", "-", other).casefold()


def _without_quant(file_name: str) -> str:
    stem = SPLIT.sub("", re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE))
    matches = list(QUANT.finditer(stem))
    if matches and matches[-1].start() > 0:
        stem = stem[: matches[-1].start()]
    return one_line(stem.rstrip("-_. "), "-") or "unnamed"
