"""Family and variant of a model, from what its metadata and its file's name say.

Files and repositories follow the GGUF naming convention loosely:
``<base>-<size>-<finetune>-<quant>``. Metadata counts more than a name, which anyone can change;
the name adds what the metadata leaves out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokrig.models._labels import QUANT
from tokrig.models._reader import GgufHeader

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
    if _same(family, folder[0]) and _adds_purpose(variant, folder[1]):
        return Names(family, folder[1], "file_name")
    return Names(family, variant, "metadata")


def name_of(header: GgufHeader, file_name: str) -> Names:
    """Family and variant: ``Gemma-3`` and ``270M``, ``SmolLM2`` and ``135M-Instruct``."""
    stem = _without_quant(file_name)
    by_file = _split_at_size(stem)
    stated = _stated(header, by_file)
    if stated is None:
        return Names(by_file[0], by_file[1], "file_name")
    family, variant = stated
    variant = _with_words_left_out(family, variant, stem, _clean(header.text("general.name")))
    family = _spelling(family, stem, _clean(header.text("general.name")))
    if _same(family, by_file[0]) and _adds_purpose(variant, by_file[1]):
        return Names(family, by_file[1], "file_name")
    return Names(family, variant, "metadata")


def stated_text(header: GgufHeader, key: str) -> str | None:
    """A short text of the metadata, on one line and without a path: it goes into a record."""
    return one_line(header.text(key))


def base_model_of(header: GgufHeader) -> str | None:
    """The model that this one was made from, as ``owner/name`` where the metadata has both."""
    address = header.text("general.base_model.0.repo_url")
    if address and _REPOSITORY.fullmatch(address.strip()):
        return repository_id(address)
    name = _clean(header.text("general.base_model.0.name"))
    owner = _clean(header.text("general.base_model.0.organization"))
    return f"{owner}/{name}" if owner and name else name


def _with_words_left_out(
    family: str, variant: str | None, stem: str, name: str | None
) -> str | None:
    """The variant with words that both the file's name and the metadata's have, and its parts
    have not: the basename of GLM-4.5-Air is GLM-4.5, that of another model."""
    has = {word.casefold() for word in f"{family}-{variant}-{_NOT_OF_A_NAME}".split("-")}
    in_file = {word.casefold() for word in stem.split("-")}
    left_out = [
        word
        for word in (name or "").split("-")
        if word.isalpha() and word.casefold() in in_file - has
    ]
    return "-".join(filter(None, (variant, *left_out))) or None


def _stated(header: GgufHeader, by_file: tuple[str, str | None]) -> tuple[str, str | None] | None:
    """Family and variant as the metadata has them; None when it says too little."""
    base = _clean(header.text("general.basename"))
    size = _clean(header.text("general.size_label"))
    if base:
        family, variant = _split_at_size(base)
        parts = [variant or size]
        for key in ("general.finetune", "general.version"):
            word = _clean(header.text(key))
            if word and word.casefold() not in base.casefold():
                parts.append(word)
        return family, "-".join(part for part in parts if part) or None
    name = _clean(header.text("general.name"))
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


def _adds_purpose(variant: str | None, by_file: str | None) -> bool:
    if variant is None or by_file is None or not _PURPOSE.search(by_file):
        return False
    return not _PURPOSE.search(variant) and _same(_first(variant), _first(by_file))


def _first(variant: str) -> str:
    return variant.split("-", 1)[0]


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
    matches = list(QUANT.finditer(stem))
    if matches and matches[-1].start() > 0:
        stem = stem[: matches[-1].start()]
    return _clean(stem.rstrip("-_. ")) or "unnamed"


def one_line(text: str | None) -> str | None:
    """``text`` short, on one line, its last path component only: safe in a record."""
    return _clean(text, space=" ")


def _clean(text: str | None, space: str = "-") -> str | None:
    """``text`` on one line, its last path component only, words joined by ``space``."""
    if text is None:
        return None
    text = re.split(r"[/\\]", text.strip().rstrip("/\\"))[-1]
    text = "".join(c if c.isprintable() else " " for c in text)
    return space.join(text.split())[:MAX_NAME] or None
