"""Model folders for tests: small safetensors files, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from tokrig.models.safetensors import BITS

Tensors = Mapping[str, tuple[str, Sequence[int]]]  # name: (type, shape)


def safetensors(tensors: Tensors, **metadata: str) -> bytes:
    """A whole file: length, header, zeros as data."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (kind, shape) in tensors.items():
        end = at + prod(shape) * BITS[kind] // 8
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(at)


DENSE: Tensors = {
    "model.embed_tokens.weight": ("BF16", (100, 8)),
    "model.layers.0.mlp.up_proj.weight": ("BF16", (16, 8)),
    "model.layers.0.input_layernorm.weight": ("F32", (8,)),
    "lm_head.weight": ("BF16", (100, 8)),
}


def model_folder(
    path: Path,
    tensors: Tensors = DENSE,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """A folder with ``model.safetensors``, ``config.json`` and other ``files``."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(safetensors(tensors, format="pt"))
    stated = {"model_type": "llama", "num_hidden_layers": 1, **(config or {})}
    (path / "config.json").write_text(json.dumps(stated))
    for name, text in (files or {}).items():
        (path / name).write_text(text)
    return path
