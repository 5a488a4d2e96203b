"""Which files make up a model: the parts of gguf-split, files cut by bytes, a folder's GGUF files,
and files and folders that hold no language model one could chat with.

llama.cpp opens the parts of gguf-split as they are, if it is given the first. Parts that a plain
``split`` made (``.part1of2``) have to be joined before anything can open them; joining those of
gguf-split instead gives a file that nothing can.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError
from tokrig.models.gguf import GgufHeader, Tensor, bad, read_gguf, shown

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
# What split, 7-Zip and people name them: .part1of2, .part-00001, -split-a, .part01, .001, .aa
_CUT = re.compile(
    r"(?P<whole>.+\.gguf)[.-]"
    r"(?:(?:part|split)[-_.]?(?P<number>\d+|[a-z]{1,2})(?:[-_]?of[-_]?(?P<count>\d+))?"
    r"|(?P<plain>\d{2,5}|[a-z]{2}))",
    re.IGNORECASE,
)
_MAX_LISTED = 50


def files_of(path: Path) -> list[Path]:
    """All files of the model that ``path`` belongs to, the first part first: one unless its
    metadata says that it is split.

    Raises ModelError when a part is missing or when a renamed part hides where the others are.
    """
    _refuse_cut(path)
    return _named_by(path, read_gguf(path))


def _named_by(path: Path, header: GgufHeader) -> list[Path]:
    """The files of which the header of one tells."""
    count = header.integer("split.count") or 1
    if count <= 1:
        return [path]
    match = _PART.match(path.name)
    if match is None:
        if header.expected_bytes is not None and header.file_bytes > header.expected_bytes + 4096:
            raise bad(
                path,
                "parts of gguf-split, put one after the other: no engine opens that",
                "fetch the parts again and name the first; llama-gguf-split --merge FIRST WHOLE "
                "makes one file of them",
            )
        hint = f"give all parts their names back: …-00001-of-{count:05d}.gguf"
        raise bad(path, f"one of {count} parts, under a name that hides the others", hint)
    if int(match[3]) != count:
        why = f"its metadata says {count} parts, its name {int(match[3])}"
        raise bad(path, why, "fetch all parts again from one place")
    files = [path.with_name(f"{match[1]}-{n:05d}-of-{match[3]}.gguf") for n in range(1, count + 1)]
    if missing := [file for file in files if not file.exists()]:
        why = f"{len(missing)} of {count} parts missing, first {shown(missing[0])}"
        raise bad(path, why, "put all parts into one folder")
    return files


def read_parts(path: Path) -> tuple[list[Path], list[GgufHeader]]:
    """The files of the model that ``path`` belongs to, and their headers.

    Raises ModelError as ``files_of`` does, and where they are not all of one model, in order.
    """
    _refuse_cut(path)
    given = read_gguf(path)
    files = _named_by(path, given)
    headers = [given if file == path else read_gguf(file) for file in files]
    if len(files) == 1:
        return files, headers
    for number, (file, header) in enumerate(zip(files, headers, strict=True)):
        if (header.integer("split.no"), header.integer("split.count")) != (number, len(files)):
            why = f"its metadata does not say that it is part {number + 1} of {len(files)}"
            raise bad(file, why, "it was renamed or is of another model; fetch that part again")
    stated = headers[0].integer("split.tensors.count")
    held = sum(len(header.tensors) for header in headers)
    if stated is not None and stated != held:
        why = f"{stated} tensors announced, all parts hold {held}"
        hint = "the parts are of different models; fetch all of them again from one place"
        raise bad(files[0], why, hint)
    return files, headers


def _refuse_cut(path: Path) -> None:
    """Raises ModelError for a piece of a file that was cut by bytes, and for a file of which there
    are only such pieces: it tells how to join them."""
    match = _CUT.fullmatch(path.name)
    whole = path.with_name(match["whole"]) if match else path
    if whole.exists():
        if match is None:
            return
        why = f"a piece of {shown(whole)}, which lies beside it"
        raise bad(path, why, f"name {shown(whole)}")
    pieces = _pieces_of(whole)
    if not pieces:
        return
    missing = _missing(pieces)
    why = "a piece of a file that was cut by bytes" if match else "only pieces of it are there"
    why += ", which no engine opens"
    if missing:
        why += f"; missing: number {', '.join(map(str, missing[:5]))}"
    names = " ".join(shlex.quote(shown(piece)) for piece in pieces)
    first = "fetch the rest, then " if missing or len(pieces) < 2 else ""
    raise bad(path, why, f"{first}join them: cat {names} > {shlex.quote(shown(whole))}")


def _missing(pieces: Sequence[Path]) -> list[int]:
    """Numbers that are not there, as far as the names say how many there should be."""
    found = [match for piece in pieces if (match := _CUT.fullmatch(piece.name)) and match["count"]]
    wanted = range(1, min(int(found[0]["count"]), 1000) + 1) if found else ()
    return sorted(set(wanted) - {int(match["number"]) for match in found})


def _pieces_of(whole: Path) -> list[Path]:
    """The pieces beside it, in the order in which they follow one another: 2 before 10."""
    found = []
    for piece in whole.parent.iterdir() if whole.parent.is_dir() else ():
        match = _CUT.fullmatch(piece.name)
        if match and match["whole"] == whole.name:
            found.append(piece)
    found.sort(key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)])
    return found[:_MAX_LISTED]


def first_of(path: Path) -> Path:
    """The file that engines are to be given for a GGUF file, or for a folder that holds one model.

    Raises ModelError for a part whose set is not whole, and for a folder with several models.
    """
    if path.is_dir():
        return _only_model(path)
    _refuse_cut(path)
    match = _PART.match(path.name)
    return path if match is None or int(match[2]) == 1 else files_of(path)[0]


def _only_model(folder: Path) -> Path:
    """The one model among a folder's GGUF files, or among those of its folders."""
    files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("*/*.gguf"))
    models, others = [], []
    for file in files[:_MAX_LISTED]:
        match = _PART.match(file.name)
        first = file.with_name(f"{match[1]}-00001-of-{match[3]}.gguf") if match else file
        if first != file and first in files:
            continue
        try:
            header = read_gguf(file)
            other = what_else(header, header.tensors, file.name)
        except ModelError:  # told when it is used
            other = None
        if other is None:
            models.append(file)
        else:
            others.append(f"{shown(file)}, {other[0]}")
    if len(models) == 1:
        return first_of(models[0])
    if not models:
        why = f"a folder without a model: it holds {'; '.join(others[:3])}"
        raise bad(folder, why, "fetch the model's own .gguf file into it, or name another folder")
    names = ", ".join(str(file.relative_to(folder)) for file in models[:5])
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    why = f"a folder with {len(models)} models: {names}{more}"
    raise bad(folder, why, "name one of these files")


# --- what is no model to chat with --------------------------------------------------------------

# Converters before 2025 wrote no ``general.type``: a projector is then known by its architecture
# or its name. Architectures are llama.cpp's (``llama-arch.cpp``), those of pictures and video
# ComfyUI-GGUF's, pooling types those of ``enum llama_pooling_type``; model types of folders are
# transformers'.
_THE_MODEL = "name the model's own .gguf file"
_ANOTHER = "tokrig measures models that write text, token by token"
_OTHER_TOOL = f"{_ANOTHER}; this one is for another program"
_BY_TYPE = {
    "adapter": "an adapter (LoRA)",
    "mmproj": "a multimodal projector",
    "imatrix": "an importance matrix",
}
_PICTURES = ("a model of pictures or video", _OTHER_TOOL)
_SPEECH = ("a model of speech", _OTHER_TOOL)
_SEQUENCES = (
    "an encoder-decoder model",
    f"{_ANOTHER}, by a chat; engines do not serve this one",
)
_EMBEDS = ("an embedding model", _ANOTHER)
_BY_ARCHITECTURE = {
    kind: answer
    for kinds, answer in (
        (
            "flux sd1 sdxl sd3 aura hidream cosmos ltxv hyvid wan lumina2 qwen_image pig z_image",
            _PICTURES,
        ),
        (
            "wavtokenizer-dec whisper mimi snac wav2vec2 hubert encodec vits bark speecht5",
            _SPEECH,
        ),
        (
            "dream llada llada-moe rnd1",
            ("a diffusion language model", f"{_ANOTHER}; this one writes all of them at once"),
        ),
        (
            "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 fsmt prophetnet led",
            _SEQUENCES,
        ),
    )
    for kind in kinds.split()
}
_ENCODERS = (
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert "
    "gemma-embedding llama-embed t5encoder"
).split()
_HEADS = {
    "ForSequenceClassification": "a reranking or classifying model",
    "ForTokenClassification": "a classifying model",
    "ForMaskedLM": "an encoder",
}
_EMBEDDING_POOLINGS, _RANK_POOLING = (1, 2, 3), 4


def what_else(
    header: GgufHeader, tensors: Sequence[Tensor], file_name: str
) -> tuple[str, str] | None:
    """What the file holds instead of a language model, and what to do; None where it holds one."""
    name = file_name.lower()
    stated = _BY_TYPE.get(header.text("general.type") or "") or _auxiliary(header, tensors, name)
    if stated is None and not any(tensor.elements for tensor in tensors):
        stated = "a vocabulary without weights"
    if stated:
        return stated, _THE_MODEL
    if header.kind in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[header.kind]
    pooling = header.own("pooling_type")
    if pooling == _RANK_POOLING or "reranker" in name:
        return "a reranking model", _ANOTHER
    return _EMBEDS if header.kind in _ENCODERS or pooling in _EMBEDDING_POOLINGS else None


def _auxiliary(header: GgufHeader, tensors: Sequence[Tensor], name: str) -> str | None:
    """What serves beside a model, where the file does not state its type."""
    has = header.metadata
    embeds = any(tensor.name == "token_embd.weight" for tensor in tensors)
    if header.kind == "clip" or ("mmproj" in name and not embeds):
        return _BY_TYPE["mmproj"]
    if header.kind == "imatrix" or "imatrix.chunk_count" in has:
        return _BY_TYPE["imatrix"]
    if header.kind == "controlvector" or "controlvector.layer_count" in has:
        return "a control vector"
    if "adapter.type" in has or any(t.name.endswith(".lora_a") for t in tensors):
        return _BY_TYPE["adapter"]
    return None


def folder_is_else(folder: Path, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The same of a model folder, by its configuration and the files of other libraries:
    ``model_index.json`` is diffusers', ``modules.json`` sentence-transformers'."""
    kind = str(config.get("model_type") or "").lower()
    heads = config.get("architectures")
    head = str(heads[0]) if isinstance(heads, list) and heads else ""
    if (folder / "model_index.json").exists():
        return _PICTURES
    if kind in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[kind]
    for ending, what in _HEADS.items():
        if head.endswith(ending):
            return what, _ANOTHER
    return _EMBEDS if (folder / "modules.json").exists() or "bert" in kind else None
