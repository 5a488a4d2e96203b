"""``hf:owner/name[@revision][/file.gguf]``: how a model of a hub is written down. The only place
that reads or writes this form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from tokrig.errors import ModelError

SCHEME = "hf:"

_REFERENCE = re.compile(
    r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[^/@\s]{0,127}))?(?:/(?P<file>.+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model of a hub: a GGUF file, or without a file a repository's folder of safetensors."""

    repo: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{revision}{f'/{self.file}' if self.file else ''}"


def of_hub(text: str) -> bool:
    """Whether ``text`` is meant as a model of a hub, a broken one included."""
    return text.strip().startswith(SCHEME)


def parse(text: str) -> Reference:
    """The parts of ``hf:owner/name[@revision][/file.gguf]``. Raises ModelError for other texts."""
    match = _REFERENCE.fullmatch(text.strip())
    if match is None or "--" in match["repo"] or ".." in match["repo"]:
        raise ModelError(
            f"{text!r} names no model of a hub",
            hint="write hf:owner/name/FILE.gguf, or hf:owner/name for a folder of safetensors; "
            "@revision may follow the name",
        )
    file = match["file"]
    if file is not None and not (file.endswith(".gguf") and stays_inside(file)):
        raise ModelError(
            f"{text!r}: {file!r} is no GGUF file of a repository",
            hint="name a .gguf file, or the repository alone for its safetensors",
        )
    return Reference(match["repo"], match["revision"] or "main", file)


def stays_inside(name: str) -> bool:
    """Whether a file's name is plain and cannot lead out of its repository."""
    path = PurePosixPath(name)
    return name.isprintable() and str(path) == name and not {"..", "/"} & {*path.parts}
