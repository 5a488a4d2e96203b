"""``hf:owner/name[@revision][/file.gguf]``: a model of a hub, and its files in a listing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tokrig.errors import ModelError, did_you_mean
from tokrig.models._manifest import File, Stored

SCHEME = "hf:"
COMMIT = re.compile(r"[0-9a-f]{40}")

_REFERENCE = re.compile(
    r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[^/@\s]{0,127}))?(?:/(?P<file>.+))?",
    re.ASCII,
)
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 1000
# Weights, configuration, tokenizer, chat template: what an engine or a record reads.
_FOLDER_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")


class Listing(Stored):
    """Files of a repository at the commit that ``revision`` was when it was asked for."""

    repo: str
    revision: str
    commit: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model of a hub: a GGUF file, or without a file a repository's folder of safetensors."""

    repo: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    def wanted(self, listing: Listing) -> Listing:
        """The same listing with the files that this model consists of, the first part first.

        Raises ModelError where the repository does not hold it.
        """
        files = self._folder(listing) if self.file is None else self._parts(self.file, listing)
        return listing.model_copy(update={"files": tuple(files)})

    def _parts(self, file: str, listing: Listing) -> list[File]:
        known = {one.name: one for one in listing.files}
        names, split = [file], _SPLIT.fullmatch(file)
        if split:
            count = min(int(split[3]), _MAX_PARTS)
            names = [f"{split[1]}-{n:05d}-of-{split[3]}.gguf" for n in range(1, count + 1)]
        missing = [name for name in names if name not in known]
        if missing:
            ggufs = _choices(known)
            raise ModelError(
                f"{self}: there is no file {missing[0]!r} in {self.repo} at {self.revision}",
                hint=did_you_mean(file, ggufs) if ggufs else "the repository holds no GGUF file",
                code="model_not_found",
            )
        return [known[name] for name in names]

    def _folder(self, listing: Listing) -> list[File]:
        files = [file for file in listing.files if _is_of_folder(file.name)]
        weights = [file.name for file in files if file.name.endswith(".safetensors")]
        if not weights:
            ggufs = _choices(file.name for file in listing.files)
            raise ModelError(
                f"{self}: the repository holds no safetensors weights",
                hint=f"name one of its files as {self}/FILE: {', '.join(ggufs)}"
                if ggufs
                else "name a repository of safetensors or GGUF files",
                code="model_not_found",
            )
        # Mistral's own format lies beside the ordinary one and holds the same weights once more.
        if not all(name.startswith("consolidated") for name in weights):
            files = [file for file in files if not file.name.startswith("consolidated")]
        return files


def _is_of_folder(name: str) -> bool:
    return "/" not in name and (name.endswith(_FOLDER_SUFFIXES) or name == "README.md")


def _choices(names: Iterable[str]) -> list[str]:
    """The GGUF files of models among ``names``, of split ones the first part."""
    ggufs = sorted(
        name
        for name in names
        if name.endswith(".gguf")
        and not any(word in name.lower() for word in ("mmproj", "imatrix"))
    )
    return [n for n in ggufs if (split := _SPLIT.fullmatch(n)) is None or split[2] == "00001"]


def parse(reference: str) -> Reference:
    """The parts of ``hf:owner/name[@revision][/file.gguf]``. Raises ModelError for other texts."""
    match = _REFERENCE.fullmatch(reference.strip())
    if match is None or "--" in match["repo"] or ".." in match["repo"]:
        raise ModelError(
            f"{reference!r} names no model of a hub",
            hint="write hf:owner/name/FILE.gguf, or hf:owner/name for a folder of safetensors; "
            "@revision may follow the name",
        )
    file = match["file"]
    if file is not None and not (file.endswith(".gguf") and stays_inside(file)):
        raise ModelError(
            f"{reference!r}: {file!r} is no GGUF file of a repository",
            hint="name a .gguf file, or the repository alone for its safetensors",
        )
    return Reference(match["repo"], match["revision"] or "main", file)


def stays_inside(name: str) -> bool:
    """Whether a file's name is plain and cannot lead out of its repository."""
    path = PurePosixPath(name)
    return name.isprintable() and str(path) == name and not {"..", "/"} & {*path.parts}
