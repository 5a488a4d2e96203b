"""What a model is called: family, variant and quant, from its metadata, its file's name and, for
the quant above both, its tensors.

Files and repositories follow the GGUF naming convention loosely:
``<base>-<size>-<finetune>-<quant>``. Metadata counts more than a name, which anyone can change;
the name adds what the metadata leaves out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokrig.models.gguf import GgufHeader, Tensor
from tokrig.quants import FILE_TYPES, TYPE_BITS, bits_per_weight

MAX_NAME = 120

# Sizes: 270M, 0.5B, 8x7B, E2B, 1.1b. No K: "4k" is a context length.
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:\d+x)?[AaEe]?\d+(?:\.\d+)?[MmBbTt](?![A-Za-z0-9])")
# What repositories append to say how their weights are stored: -AWQ, -GPTQ-Int4, -FP8-dynamic.
_PACKED = re.compile(
    r"[-_.](?:AWQ|GPTQ|AutoRound|Quark|HQQ|AQLM|torchao|exl[23]|FP8|NVFP4|MXFP[48]|GGUF|"
    r"(?:unsloth[-_])?bnb|quantized|w\d+a\d+|int[48]|[2-8]-?bit|\d(?:[.\d]*)bpw|BF16|FP16|MLX)"
    r"(?![A-Za-z]).*$",
    re.IGNORECASE,
)
_SNAPSHOT = re.compile(r"^models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)$")
_REPOSITORY = re.compile(r"(?:https?://[\w.-]+/)?([\w][\w.-]*/[\w][\w.-]*)/?")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_NOT_OF_A_NAME = "gguf-hf-imat-imatrix-quantized-model"
# What a released model was made for. A metadata finetune without any of them is the name of a
# training checkpoint, and says less than a file name that has one.
_PURPOSE = re.compile(
    r"(?<![a-z])(instruct|it|chat|base|thinking|reasoning|reasoner|coder|assistant|pt)(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Names:
    """What a model is called. ``source`` is ``file_name`` as soon as one part is guessed."""

    family: str
    variant: str | None
    source: Literal["metadata", "file_name"]


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a file of the Hugging Face cache comes from: ``owner/name`` at ``revision``."""

    owner: str
    name: str
    revision: str


def repository_of(path: Path) -> Repository | None:
    """The repository of a path ``…/models--owner--name/snapshots/revision/…``.

    That is how the Hugging Face client lays its cache out; None for any other path.
    """
    parts = path.absolute().parts
    for folder, middle, revision in zip(parts, parts[1:], parts[2:], strict=False):
        match = _SNAPSHOT.match(folder)
        if match and middle == "snapshots":
            return Repository(match["owner"], match["name"], revision)
    return None


def repository_id(text: str | None) -> str | None:
    """``owner/name`` of a repository's id or address; the last component of anything else."""
    match = _REPOSITORY.fullmatch((text or "").strip())
    return match[1][:MAX_NAME] if match else one_line(text)


def one_line(text: str | None, space: str = " ") -> str | None:
    """``text`` short, on one line, its last path component only, words joined by ``space``: safe
    in a record."""
    if text is None:
        return None
    text = re.split(r"[/\\]", text.strip().rstrip("/\\"))[-1]
    text = "".join(c if c.isprintable() else " " for c in text)
    return space.join(text.split())[:MAX_NAME] or None


# --- family and variant -------------------------------------------------------------------------


def folder_name_of(name: str, stated: str | None) -> Names:
    """Family and variant of a model folder called ``name``, whose configuration says ``stated``.

    Training tools leave the name of the model they began with in the configuration, so that one
    counts only where it names the folder's family, or where the folder's name says nothing.
    """
    folder = _split_at_size(_PACKED.sub("", one_line(name) or "") or "unnamed")
    if stated is None or not _REPOSITORY.fullmatch(stated):
        return Names(*folder, "file_name")
    family, variant = _split_at_size(_PACKED.sub("", stated.rpartition("/")[2]))
    if folder[1] is not None and not _same(family, folder[0]):
        return Names(*folder, "file_name")
    return _the_fuller(family, variant, folder)


def name_of(header: GgufHeader, file_name: str) -> Names:
    """Family and variant: ``Gemma-3`` and ``270M``, ``SmolLM2`` and ``135M-Instruct``."""
    stem = _without_quant(file_name)
    by_file = _split_at_size(stem)
    stated = _stated(header, by_file)
    if stated is None:
        return Names(*by_file, "file_name")
    name = _word(header, "general.name")
    variant = _with_words_left_out(*stated, stem, name)
    return _the_fuller(_spelling(stated[0], stem, name), variant, by_file)


def _the_fuller(family: str, variant: str | None, by_name: tuple[str, str | None]) -> Names:
    """What the metadata says; with the name's variant where that alone tells a purpose."""
    _, other = by_name
    if _same(family, by_name[0]) and variant and other and _PURPOSE.search(other):
        if not _PURPOSE.search(variant) and _same(variant.split("-")[0], other.split("-")[0]):
            return Names(family, other, "file_name")
    return Names(family, variant, "metadata")


def base_model_of(header: GgufHeader) -> str | None:
    """The model that this one was made from, as ``owner/name`` where the metadata has both."""
    address = header.text("general.base_model.0.repo_url")
    if address and _REPOSITORY.fullmatch(address.strip()):
        return repository_id(address)
    name = _word(header, "general.base_model.0.name")
    owner = _word(header, "general.base_model.0.organization")
    return f"{owner}/{name}" if owner and name else name


def _word(header: GgufHeader, key: str) -> str | None:
    return one_line(header.text(key), "-")


def _with_words_left_out(
    family: str, variant: str | None, stem: str, name: str | None
) -> str | None:
    """The variant with words that both the file's name and the metadata's have, and its parts
    have not: the basename of GLM-4.5-Air is GLM-4.5, that of another model."""
    has = {word.casefold() for word in f"{family}-{variant}-{_NOT_OF_A_NAME}".split("-")}
    in_file = {word.casefold() for word in stem.split("-")} - has
    words = (name or "").split("-")
    left_out = [word for word in words if word.isalpha() and word.casefold() in in_file]
    return "-".join(filter(None, (variant, *left_out))) or None


def _stated(header: GgufHeader, by_file: tuple[str, str | None]) -> tuple[str, str | None] | None:
    """Family and variant as the metadata has them; None when it says too little."""
    base, size = _word(header, "general.basename"), _word(header, "general.size_label")
    if base:
        family, variant = _split_at_size(base)
        more = [_word(header, key) for key in ("general.finetune", "general.version")]
        parts = [variant or size]
        parts += [word for word in more if word and word.casefold() not in base.casefold()]
        return family, "-".join(filter(None, parts)) or None
    name = _word(header, "general.name")
    if not name:
        return None
    family, variant = _split_at_size(name)
    if variant is None and size is None and by_file[1] is not None:
        return None  # "LLaMA v2": the file's name says more
    return family, variant or size


def _split_at_size(name: str) -> tuple[str, str | None]:
    """``Qwen3-30B-A3B-Instruct`` → ``Qwen3`` and ``30B-A3B-Instruct``."""
    match = _SIZE.search(name)
    if match is None or match.start() == 0:
        return name, None
    size = match.group().replace("X", "x")
    size = size[:-1] + size[-1].upper()
    return name[: match.start()].rstrip("-_. "), size + name[match.end() :]


def _spelling(family: str, *others: str | None) -> str:
    """``family`` as the first of ``others`` with capitals writes it: converters lower names."""
    if family != family.lower():
        return family
    for other in others:
        if other and _same(other[: len(family)], family) and other != other.lower():
            return other[: len(family)]
    return family


def _same(one: str, other: str) -> bool:
    return re.sub(r"[-_ .]", "-", one).casefold() == re.sub(r"[-_ .]", "-", other).casefold()


def _without_quant(file_name: str) -> str:
    stem = _SPLIT.sub("", re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE))
    matches = list(_QUANT.finditer(stem))
    if matches and matches[-1].start() > 0:
        stem = stem[: matches[-1].start()]
    return one_line(stem.rstrip("-_. "), "-") or "unnamed"


# --- quant --------------------------------------------------------------------------------------

# llama.cpp's recipes, ik_llama.cpp's (IQ4_KSS, Q8_KV, …_R4), those that repositories made of
# them (UD-Q4_K_XL, Q4_K_L), and the formats of other tools.
_QUANT = re.compile(
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
    matches = _QUANT.findall(file_name)
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
        if tensor.name.startswith("blk.") and len(tensor.dimensions) > 1:
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
