"""What model a path is: a GGUF file, or a folder of safetensors files."""

from __future__ import annotations

from pathlib import Path

from tokrig.errors import ModelError
from tokrig.models import gguf, safetensors
from tokrig.models._reader import shown
from tokrig.record.model import Model


def identify(path: Path | str, sha256: bool = True) -> Model:
    """What model ``path`` is. ``sha256=False`` leaves out what takes long for large models.

    Raises ModelError when a file is missing, damaged or truncated, or holds no model.
    """
    path = Path(path)
    if path.is_dir():
        return safetensors.identify(path, sha256)
    if path.suffix.lower() == ".safetensors" and path.exists():
        raise ModelError(
            f"{shown(path)}: one file of a model folder, which says what the model is",
            hint="name the folder it lies in",
        )
    return gguf.identify(path, sha256)
