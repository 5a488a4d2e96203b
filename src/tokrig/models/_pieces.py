"""Models in several files: the parts of gguf-split, files cut by bytes, a folder's GGUF files.

llama.cpp opens the parts of gguf-split as they are, if it is given the first. Parts that a plain
``split`` made (``.part1of2``) have to be joined before anything can open them; joining those of
gguf-split instead gives a file that nothing can.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models._kinds import what_else
from tokrig.models._reader import GgufHeader, read_gguf, shown

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
# What split, 7-Zip and people name them: .part1of2, .part-00001, -split-a, .part01, .001, .aa
_CUT = re.compile(
    r"(?P<whole>.+\.gguf)[.-]"
    r"(?:(?:part|split)[-_.]?(?P<number>\d+|[a-z]{1,2})(?:[-_]?of[-_]?(?P<count>\d+))?"
    r"|(?P<plain>\d{2,5}|[a-z]{2}))",
    re.IGNORECASE,
)
_MAX_LISTED = 50


def parts_of(path: Path, header: GgufHeader) -> list[Path]:
    """All files of the model that ``path`` belongs to, the first part first.

    Raises ModelError when a part is missing or when a renamed part hides where the others are.
    """
    count = header.integer("split.count") or 1
    if count <= 1:
        return [path]
    match = _PART.match(path.name)
    if match is None:
        raise _renamed(path, header, count)
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


def _renamed(path: Path, header: GgufHeader, count: int) -> ModelError:
    if header.expected_bytes is not None and header.file_bytes > header.expected_bytes + 4096:
        return ModelError(
            f"{shown(path)}: parts of gguf-split, put one after the other: no engine opens that",
            hint="fetch the parts again and name the first; llama-gguf-split --merge FIRST WHOLE "
            "makes one file of them",
        )
    return ModelError(
        f"{shown(path)}: one of {count} parts, under a name that hides the others",
        hint=f"give all parts their names back: …-00001-of-{count:05d}.gguf",
    )


def check_parts(files: Sequence[Path], headers: Sequence[GgufHeader]) -> None:
    """Raises ModelError where the files are not all parts of one model, in order."""
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


def refuse_cut(path: Path) -> None:
    """Raises ModelError for a piece of a file that was cut by bytes, and for a file of which there
    are only such pieces: it tells how to join them."""
    match = _CUT.fullmatch(path.name)
    whole = path.with_name(match["whole"]) if match else path
    if whole.exists():
        if match is None:
            return
        raise ModelError(
            f"{shown(path)}: a piece of {shown(whole)}, which lies beside it",
            hint=f"name {shown(whole)}",
        )
    pieces = _pieces_of(whole)
    if not pieces:
        return
    what = "a piece of a file that was cut by bytes" if match else "only pieces of it are there"
    missing = _missing(pieces)
    told = f"; missing: number {', '.join(map(str, missing[:5]))}" if missing else ""
    names = " ".join(shlex.quote(shown(piece)) for piece in pieces)
    raise ModelError(
        f"{shown(path)}: {what}, which no engine opens{told}",
        hint=("fetch the rest, then " if missing or len(pieces) < 2 else "")
        + f"join them: cat {names} > {shlex.quote(shown(whole))}",
    )


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
    refuse_cut(path)
    match = _PART.match(path.name)
    if match is None or int(match[2]) == 1:
        return path
    return parts_of(path, read_gguf(path))[0]


def _only_model(folder: Path) -> Path:
    """The one model among a folder's GGUF files, or among those of its folders."""
    files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("*/*.gguf"))
    models, others = [], []
    for file in files[:_MAX_LISTED]:
        match = _PART.match(file.name)
        first = file.with_name(f"{match[1]}-00001-of-{match[3]}.gguf") if match else file
        if first != file and first in files:
            continue
        other = _something_else(file)
        if other is None:
            models.append(file)
        else:
            others.append(f"{shown(file)}, {other}")
    if len(models) == 1:
        return first_of(models[0])
    if not models:
        raise ModelError(
            f"{shown(folder)}: a folder without a model: it holds {'; '.join(others[:3])}",
            hint="fetch the model's own .gguf file into it, or name another folder",
        )
    names = ", ".join(str(file.relative_to(folder)) for file in models[:5])
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    raise ModelError(
        f"{shown(folder)}: a folder with {len(models)} models: {names}{more}",
        hint="name one of these files",
    )


def _something_else(file: Path) -> str | None:
    """What a file is that is no model; None also for one that cannot be read, which is told when
    it is used."""
    try:
        header = read_gguf(file)
    except ModelError:
        return None
    other = what_else(header, header.tensors, file.name)
    return other[0] if other else None
