"""A Hugging Face model folder: which files are its weights, what the headers of its safetensors
hold, and what its small files say.

Follows the format's own description (8 bytes of length, a JSON header, the data). Only headers
are read. The input is hostile until proven otherwise: whatever the bytes are, the answer is a
header or a ModelError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokrig.errors import ModelError
from tokrig.models.gguf import (
    FETCH_AGAIN,
    LFS_REMEDY,
    PAGE_REMEDY,
    Tensor,
    bad,
    check_file,
    part_names,
    shown,
    sniff,
    unreadable,
)
from tokrig.units import human_bytes

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""The format allows 100 MB; the largest published headers have a tenth of this."""
MAX_TENSORS = 262_144
MAX_TEXT_BYTES = 32 * 1024 * 1024

_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32",
    64: "U64 I64 F64 C64",
}
BITS = {name: bits for bits, names in _BITS.items() for name in names.split()}
"""Bits of one element, by the format's names of types."""

_INDEXES = ("model.safetensors.index.json", "consolidated.safetensors.index.json")
# What quantizers write beside config.json: ModelOpt, AutoGPTQ, AutoAWQ.
_QUANTIZERS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WEIGHTS = ("*.safetensors", *_PICKLES)


# --- the header of a file -----------------------------------------------------------------------


def read_safetensors(path: Path) -> tuple[Tensor, ...]:
    """The tensors that the header of the file ``path`` announces.

    Raises ModelError when the file is missing, is something else, is damaged, or ends before its
    tensors do.
    """
    size = check_file(path).st_size
    try:
        with path.open("rb") as file:
            head = file.read(512)
            what, remedy = sniff(head)
            if remedy in (LFS_REMEDY, PAGE_REMEDY):
                raise bad(path, f"not the weights, but {what}", remedy)
            length = int.from_bytes(head[:8], "little")
            file.seek(8)
            if length > MAX_HEADER_BYTES or size < 8:
                raise _damaged(path, f"it claims a header of {length} bytes")
            if 8 + length > size:
                raise _truncated(path, size, "its header")
            raw = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"it claims {len(header)} tensors")
    return tuple(_tensor(path, name, entry, size - 8 - length) for name, entry in header.items())


def _tensor(path: Path, name: str, entry: Any, data_bytes: int) -> Tensor:
    called = f"tensor {name[:80]!r}"
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise _damaged(path, f"{called} is not described")
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape) or len(shape) > 16:
        raise _damaged(path, f"{called} has an impossible shape")
    if not 0 <= start <= end:
        raise _damaged(path, f"{called} ends before it begins")
    if end > data_bytes:
        raise _truncated(path, data_bytes, f"{called}, {end - data_bytes} bytes")
    tensor = Tensor(name, tuple(shape), kind, end - start)
    if kind in BITS and -(-tensor.elements * BITS[kind] // 8) != tensor.bytes:
        raise _damaged(path, f"the size of {called} contradicts its shape")
    return tensor


def _damaged(path: Path, why: str) -> ModelError:
    hint = "the file is damaged or of another kind; download it again"
    return bad(path, f"not a usable safetensors file: {why}", hint)


def _truncated(path: Path, size: int, missing: str) -> ModelError:
    there = human_bytes(size)
    return bad(path, f"truncated, it ends within {missing} (there are {there})", FETCH_AGAIN)


# --- the files of a folder ----------------------------------------------------------------------


def looks_like_one(folder: Path) -> bool:
    """Whether ``folder`` is meant as a model folder, a broken one included."""
    described = _holds(folder, ("config.json", "params.json", "adapter_config.json"))
    return _holds(folder, _WEIGHTS) or (described and not holds_gguf(folder))


def holds_gguf(folder: Path) -> bool:
    """Whether ``folder`` holds GGUF files, or folders of them; some have a config.json beside."""
    return not _holds(folder, _WEIGHTS) and _holds(folder, ("*.gguf", "*/*.gguf"))


def _holds(folder: Path, patterns: Sequence[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, by name: those of the index, where there is one.

    Raises ModelError for a folder without weights, with some missing, or with pickled ones.
    """
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        hint = "merge it into its base model and name the folder of the merged model"
        raise bad(folder, "an adapter (LoRA), not a model", hint)
    names = _indexed(folder)
    if not names:
        found = [path.name for path in folder.glob("*.safetensors")]
        # Mistral's own format lies beside the ordinary one and holds the same weights once more.
        ordinary = [name for name in found if not name.startswith("consolidated")] or found
        single = "model.safetensors" in found
        names = (
            {"model.safetensors"} if single else {n for one in ordinary for n in part_names(one)}
        )
    if not names:
        if pickles := sorted(path for pattern in _PICKLES for path in folder.glob(pattern)):
            why = f"its weights are pickled ({shown(pickles[0])}), and loading can run any code"
            raise bad(folder, why, "use a safetensors version of this model")
        hint = "name a .gguf file, or the folder of a model in safetensors files"
        raise bad(folder, "a folder without weights: no .safetensors file in it", hint)
    files = sorted(folder / name for name in names)
    if missing := [shown(file) for file in files if not file.exists()]:
        named = ", ".join(missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        why = f"{len(missing)} of {len(files)} weight files missing: {named}{more}"
        raise bad(folder, why, "download the missing files into that folder")
    return files


def _indexed(folder: Path) -> set[str]:
    """The files that the folder's index names; none without an index."""
    index = next((folder / name for name in _INDEXES if (folder / name).exists()), None)
    if index is None:
        return set()
    weight_map = _json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise bad(index, "holds no weight_map", "download it again")
    names = {str(name) for name in weight_map.values()}
    if any(Path(name).name != name or name in (".", "..") for name in names):
        raise bad(index, "names a file outside its folder", "download the model again")
    return names


# --- its small files ----------------------------------------------------------------------------

# Mistral's own names; its mixtures of experts lie under "moe", see ``text_config``.
_PARAMS = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seq_len": "max_position_embeddings",
}
# Where configurations keep the language model's part: multimodal ones, DBRX, Mistral.
_NESTED = "thinker_config text_config llm_config language_config ffn_config moe".split()


def config_of(folder: Path) -> dict[str, Any]:
    """``config.json``, or Mistral's ``params.json`` in the same words. Raises ModelError when it
    is missing or broken."""
    if not (folder / "config.json").exists() and (folder / "params.json").exists():
        params = _json(folder / "params.json")
        return {**params, **{new: params[old] for old, new in _PARAMS.items() if old in params}}
    return _json(folder / "config.json")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with its part about the language model, often nested, on top."""
    for key in _NESTED:
        if isinstance(config.get(key), dict):
            config = {**config, **config[key]}
    return config


def quantizer_config(folder: Path) -> dict[str, Any]:
    """What a quantizer wrote in a file of its own; empty where there is none."""
    return next(filter(None, (optional_json(folder / name) for name in _QUANTIZERS)), {})


def optional_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when there is none or it is broken."""
    try:
        return _json(path)
    except ModelError:
        return {}


def chat_template(folder: Path) -> str | None:
    """The chat template, looked for where and in the order in which transformers does."""
    if text := text_of(folder / "chat_template.jinja"):
        return text
    for name in ("chat_template.json", "tokenizer_config.json"):
        stated = optional_json(folder / name).get("chat_template")
        if isinstance(stated, list):  # several, by name
            entries = [entry for entry in stated if isinstance(entry, dict)]
            stated = next((e.get("template") for e in entries if e.get("name") == "default"), None)
        if isinstance(stated, str) and stated:
            return stated
    return None


def _json(path: Path) -> dict[str, Any]:
    text = text_of(path)
    if text is None:
        hint = "download all files of the model, the small ones too, into one folder"
        raise bad(path, "missing or unreadable", hint)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise bad(path, "not JSON", "download it again") from None
    if not isinstance(data, dict):
        raise bad(path, "not a JSON object", "download it again")
    return data


def text_of(path: Path, limit: int = MAX_TEXT_BYTES) -> str | None:
    """The text of a small file, its beginning if it is above ``limit`` bytes; None without one."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except OSError:
        return None
