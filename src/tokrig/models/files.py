"""The files of a model: which make it up, which hold no language model one could chat with, their
SHA-256.

llama.cpp opens the parts of gguf-split as they are, if it is given the first. Parts that a plain
``split`` made (``.part1of2``) have to be joined before anything can open them; joining those of
gguf-split instead gives a file that nothing can.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError, StoreError
from tokrig.files import atomic_write, cache_dir
from tokrig.models.gguf import (
    GgufHeader,
    Tensor,
    bad,
    part_names,
    read_gguf,
    shown,
    unreadable,
)

# What split, 7-Zip and people name them: .part1of2, .part-00001, -split-a, .part01, .001, .aa
_CUT = re.compile(
    r"(?P<whole>.+\.gguf)[.-]"
    r"(?:(?:part|split)[-_.]?(?P<number>\d+|[a-z]{1,2})(?:[-_]?of[-_]?(?P<count>\d+))?"
    r"|(?P<plain>\d{2,5}|[a-z]{2}))",
    re.IGNORECASE,
)
_MAX_LISTED = 50


# --- which files --------------------------------------------------------------------------------


def files_of(path: Path) -> list[Path]:
    """All files of the model that ``path`` belongs to, the first part first: one unless its
    metadata says that it is split.

    Raises ModelError when a part is missing or when a renamed part hides where the others are.
    """
    _refuse_cut(path)
    return _named_by(path, read_gguf(path))


def _named_by(path: Path, header: GgufHeader) -> list[Path]:
    """The files that the header of one of them tells of."""
    count = header.integer("split.count") or 1
    if count <= 1:
        return [path]
    names = part_names(path.name)
    if names == [path.name]:
        if header.expected_bytes is not None and header.file_bytes > header.expected_bytes + 4096:
            raise bad(
                path,
                "parts of gguf-split, put one after the other: no engine opens that",
                "download the parts again and name the first; llama-gguf-split --merge FIRST WHOLE "
                "makes one file of them",
            )
        hint = f"give all parts their names back: …-00001-of-{count:05d}.gguf"
        raise bad(path, f"one of {count} parts, under a name that hides the others", hint)
    if len(names) != count:
        why = f"its metadata says {count} parts, its name {len(names)}"
        raise bad(path, why, "download all parts again from one place")
    files = [path.with_name(name) for name in names]
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
            raise bad(file, why, "it was renamed or is of another model; download that part again")
    stated = headers[0].integer("split.tensors.count")
    held = sum(len(header.tensors) for header in headers)
    if stated not in (None, held):
        why = f"{stated} tensors announced, all parts hold {held}"
        hint = "the parts are of different models; download all of them again from one place"
        raise bad(files[0], why, hint)
    return files, headers


def _refuse_cut(path: Path) -> None:
    """Raises ModelError for a piece of a file that was cut by bytes, and for a file of which there
    are only such pieces: it tells how to join them."""
    match = _CUT.fullmatch(path.name)
    whole = path.with_name(match["whole"]) if match else path
    if whole.exists():
        if match:
            why = f"a piece of {shown(whole)}, which lies beside it"
            raise bad(path, why, f"name {shown(whole)}")
        return
    beside = [piece.name for piece in whole.parent.iterdir()] if whole.parent.is_dir() else []
    found = [m for m in map(_CUT.fullmatch, beside) if m and m["whole"] == whole.name]
    if not found:
        return
    counts = [int(piece["count"]) for piece in found if piece["count"]]
    missing = set(range(1, min(max(counts, default=0), 1000) + 1))
    missing -= {int(piece["number"]) for piece in found if (piece["number"] or "").isdecimal()}
    why = "a piece of a file that was cut by bytes" if match else "only pieces of it are there"
    why += ", which no engine opens"
    if missing:
        why += f"; missing: number {', '.join(map(str, sorted(missing)[:5]))}"
    first = "download the rest, then " if missing or len(found) < 2 else ""
    pieces = sorted((piece.string for piece in found), key=_in_order)[:_MAX_LISTED]
    names = " ".join(shlex.quote(shown(Path(piece))) for piece in pieces)
    raise bad(path, why, f"{first}join them: cat {names} > {shlex.quote(shown(whole))}")


def _in_order(name: str) -> list[tuple[str, int]]:
    """Sorts 2 before 10."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def first_of(path: Path) -> Path:
    """The file that engines are to be given for a GGUF file, or for a folder that holds one model.

    Raises ModelError for a part whose set is not whole, and for a folder with several models.
    """
    if path.is_dir():
        return _only_model(path)
    _refuse_cut(path)
    return path if path.name == part_names(path.name)[0] else files_of(path)[0]


def _only_model(folder: Path) -> Path:
    """The one model among a folder's GGUF files, or among those of its folders."""
    files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("*/*.gguf"))
    models, others = [], []
    for file in files[:_MAX_LISTED]:
        first = file.with_name(part_names(file.name)[0])
        if first != file and first in files:
            continue
        other = None
        with contextlib.suppress(ModelError):  # told when it is used
            header = read_gguf(file)
            other = what_else(header, header.tensors, file.name)
        if other is None:
            models.append(file)
        else:
            others.append(f"{shown(file)}, {other[0]}")
    if len(models) == 1:
        return first_of(models[0])
    if not models:
        why = f"a folder without a model: it holds {'; '.join(others[:3])}"
        hint = "download the model's own .gguf file into it, or name another folder"
        raise bad(folder, why, hint)
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
_PROJECTOR, _ADAPTER = "a multimodal projector", "an adapter (LoRA)"
# What serves beside a model: its ``general.type``, its architecture, a key that only it has.
_AUXILIARY = (
    (_ADAPTER, "adapter", None, "adapter.type"),
    (_PROJECTOR, "mmproj", "clip", None),
    ("an importance matrix", "imatrix", "imatrix", "imatrix.chunk_count"),
    ("a control vector", None, "controlvector", "controlvector.layer_count"),
)
_PICTURES = ("a model of pictures or video", _OTHER_TOOL)
_EMBEDS = ("an embedding model", _ANOTHER)
_BY_ARCHITECTURE = {
    kind: (what, hint)
    for (what, hint), kinds in (
        (
            _PICTURES,
            "flux sd1 sdxl sd3 aura hidream cosmos ltxv hyvid wan lumina2 qwen_image pig z_image",
        ),
        (
            ("a model of speech", _OTHER_TOOL),
            "wavtokenizer-dec whisper mimi snac wav2vec2 hubert encodec vits bark speecht5",
        ),
        (
            ("a diffusion language model", f"{_ANOTHER}; this one writes all of them at once"),
            "dream llada llada-moe rnd1",
        ),
        (
            ("an encoder-decoder model", f"{_ANOTHER}, in a chat; engines do not serve this one"),
            "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 fsmt prophetnet led",
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
    name, pooling = file_name.lower(), header.own("pooling_type")
    if auxiliary := _auxiliary(header, tensors, name):
        return auxiliary, _THE_MODEL
    if header.kind in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[header.kind]
    if pooling == _RANK_POOLING or "reranker" in name:
        return "a reranking model", _ANOTHER
    return _EMBEDS if header.kind in _ENCODERS or pooling in _EMBEDDING_POOLINGS else None


def _auxiliary(header: GgufHeader, tensors: Sequence[Tensor], name: str) -> str | None:
    stated = header.text("general.type")
    for what, kind, architecture, key in _AUXILIARY:
        if (kind and kind == stated) or architecture == header.kind or key in header.metadata:
            return what
    if "mmproj" in name and not any(tensor.name == "token_embd.weight" for tensor in tensors):
        return _PROJECTOR
    if any(tensor.name.endswith(".lora_a") for tensor in tensors):
        return _ADAPTER
    has_weights = any(tensor.elements for tensor in tensors)
    return None if has_weights else "a vocabulary without weights"


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


# --- their SHA-256 ------------------------------------------------------------------------------

# A large file takes minutes to hash, so its SHA-256 is remembered: in a JSON in the user's cache
# folder, which holds hashes of paths, no paths, and is only a saving. Unreadable, unwritable or
# missing, the file is hashed again.
MAX_REMEMBERED = 1000
FRESH_S = 2.0
"""A file changed less than this ago may change again within one tick of its time stamp."""


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256, in hex, of the files one after the other: what ``cat … | sha256sum`` prints.

    Raises ModelError when a file cannot be read, or changes meanwhile.
    """
    try:
        key, before = _key(paths), _stamps(paths)
        match _remembered().get(key):
            case {"stamps": stamps, "sha256": str(digest)} if (stamps, len(digest)) == (before, 64):
                return digest
        digest = read_sha256(paths)
        after = _stamps(paths)
    except OSError as error:
        raise unreadable(paths[0], error) from error
    if after != before:
        hint = "wait until its download or copy has finished"
        raise bad(paths[0], "changed while it was read", hint)
    if abs(time.time_ns() - max(stamp[1] for stamp in after)) > FRESH_S * 1e9:
        _remember(key, after, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """``digest`` is the file's, known from elsewhere: from before it got its name."""
    with contextlib.suppress(OSError):
        _remember(_key([path]), _stamps([path]), digest)


def read_sha256(paths: Sequence[Path]) -> str:
    """The same by reading every byte now, whatever was known. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _key(paths: Sequence[Path]) -> str:
    real = "\0".join(str(path.resolve()) for path in paths)
    return hashlib.sha256(real.encode("utf-8", errors="surrogateescape")).hexdigest()


def _stamps(paths: Sequence[Path]) -> list[list[int]]:
    states = [path.stat() for path in paths]
    return [[state.st_size, state.st_mtime_ns] for state in states]


def _remembered() -> dict[str, Any]:
    try:
        found = json.loads((cache_dir() / "sha256.json").read_bytes())
    except (OSError, ValueError, RecursionError, StoreError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(key: str, stamps: list[list[int]], digest: str) -> None:
    found = _remembered()
    found.pop(key, None)  # the newest stands last, the oldest goes first
    found[key] = {"stamps": stamps, "sha256": digest}
    kept = dict(list(found.items())[-MAX_REMEMBERED:])
    with contextlib.suppress(OSError, StoreError):
        atomic_write(cache_dir() / "sha256.json", json.dumps(kept), sync=False)


def refused(what: Path, error: OSError) -> StoreError:
    """The system's refusal to write ``what`` among tokrig's models, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"{shown(what)}: no space left on the disk of the models",
            hint="free some space, or set XDG_CACHE_HOME to a folder on a larger disk; "
            "what was written is kept",
            code="disk_full",
        )
    return StoreError(
        f"{shown(what)}: cannot be written to tokrig's folder of models: {error.strerror or error}",
        hint="make ~/.cache writable, or set XDG_CACHE_HOME to a folder that is",
    )
