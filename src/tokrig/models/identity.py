"""What model a path is: a GGUF file, or a folder of safetensors files; and where it is from."""

from __future__ import annotations

from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models import gguf, safetensors, shelf
from tokrig.models._folder import holds_gguf
from tokrig.models._names import repository_of
from tokrig.models._pieces import first_of
from tokrig.models._reader import shown
from tokrig.record.model import Model

MADE_HERE = "made here"
"""The quant creator of a file that was quantized on this rig, whoever made its source."""


def identify(path: Path | str, sha256: bool = True) -> Model:
    """What model ``path`` is; with repository and commit where it was fetched from a hub, and
    with what it was made of where its quant was made here. ``sha256=False`` leaves out what takes
    long for large models.

    Raises ModelError when a file is missing, damaged or truncated, or holds no model.
    """
    path = Path(path)
    if path.is_dir() and holds_gguf(path):
        path = first_of(path)
    if path.is_dir():
        return _with_origin(safetensors.identify(path, sha256), path)
    if path.suffix.lower() == ".safetensors" and path.exists():
        raise ModelError(
            f"{shown(path)}: one file of a model folder, which says what the model is",
            hint="name the folder it lies in",
        )
    return _with_origin(gguf.identify(path, sha256), path)


def _with_origin(model: Model, path: Path) -> Model:
    """The shelf and a hub's own cache tell the repository by the same names of folders."""
    fetched, origin = repository_of(path), shelf.origin(path)
    found: dict[str, object] = {}
    if fetched is not None:
        found |= {"repo": f"{fetched.owner}/{fetched.name}", "revision": fetched.revision}
    if origin is not None and origin.quantized_from is not None:
        found |= {"quantized_from": origin.quantized_from, "quant_creator": MADE_HERE}
    return model.model_copy(update=found)
