"""A Hugging Face model folder: which files are its weights, and what its small files say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokrig.documents import parse
from tokrig.errors import InputError, ModelError
from tokrig.models._names import one_line, repository_id
from tokrig.models._reader import shown

MAX_TEXT_BYTES = 32 * 1024 * 1024
MAX_CARD_BYTES = 256 * 1024
INDEXES = ("model.safetensors.index.json", "consolidated.safetensors.index.json")
# What quantizers write beside config.json: ModelOpt, AutoGPTQ, AutoAWQ.
_QUANTIZERS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WEIGHTS = ("*.safetensors", *_PICKLES)
_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.safetensors$")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Card:
    """What the front matter of ``README.md`` says, in short clean texts."""

    base_model: str | None = None
    license: str | None = None
    quantized_by: str | None = None


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
        raise ModelError(
            f"{shown(folder)}: an adapter (LoRA), not a model",
            hint="merge it into its base model and name the folder of the merged one",
        )
    for index in INDEXES:
        if (folder / index).exists():
            return _indexed(folder, index)
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise _without_weights(folder)
    single = folder / "model.safetensors"
    if single in found:
        return [single]
    # Mistral's own format lies beside the ordinary one and holds the same weights once more.
    ordinary = [file for file in found if not file.name.startswith("consolidated")]
    _check_parts(folder, ordinary or found)
    return ordinary or found


def _indexed(folder: Path, index: str) -> list[Path]:
    weight_map = _json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: holds no weight_map", hint="fetch it again")
    names = {str(name) for name in weight_map.values()}
    for name in names:
        if Path(name).name != name or name in (".", ".."):
            raise ModelError(
                f"{index}: names a file outside its folder", hint="fetch the model again"
            )
    files = sorted(folder / name for name in names)
    _refuse_missing(folder, [file.name for file in files if not file.exists()], len(files))
    return files


def _check_parts(folder: Path, files: list[Path]) -> None:
    wanted = set()
    for file in files:
        if match := _PART.match(file.name):
            count = min(int(match[3]), 10_000)
            wanted |= {f"{match[1]}-{n:05d}-of-{match[3]}.safetensors" for n in range(1, count + 1)}
    have = {file.name for file in files}
    _refuse_missing(folder, sorted(wanted - have), len(wanted))


def _refuse_missing(folder: Path, missing: list[str], count: int) -> None:
    if missing:
        named = ", ".join(shown(Path(name)) for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{shown(folder)}: {len(missing)} of {count} weight files missing: {named}{more}",
            hint="the download did not finish; fetch the missing files into that folder",
        )


def _without_weights(folder: Path) -> ModelError:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        return ModelError(
            f"{shown(folder)}: its weights are pickled ({shown(Path(pickles[0]))}); such a file "
            "can run any code when it is loaded",
            hint="use a safetensors version of this model",
        )
    return ModelError(
        f"{shown(folder)}: a folder without weights: no .safetensors file in it",
        hint="name a .gguf file, or the folder of a model in safetensors files",
    )


def config_of(folder: Path) -> dict[str, Any]:
    """``config.json``, or Mistral's ``params.json`` in the same words. Raises ModelError when it
    is missing or broken."""
    if not (folder / "config.json").exists() and (folder / "params.json").exists():
        params = _json(folder / "params.json")
        return {**params, **{new: params[old] for old, new in _PARAMS.items() if old in params}}
    return _json(folder / "config.json")


# Mistral's own names; its mixtures of experts lie under "moe", see ``text_config``.
_PARAMS = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seq_len": "max_position_embeddings",
}
# Where configurations keep the language model's part: multimodal ones, DBRX, Mistral.
_NESTED = (
    *("thinker_config", "text_config", "llm_config", "language_config"),
    *("ffn_config", "moe"),
)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with its part about the language model, often nested, on top."""
    for key in _NESTED:
        if isinstance(config.get(key), dict):
            config = {**config, **config[key]}
    return config


def quantizer_config(folder: Path) -> dict[str, Any]:
    """What a quantizer wrote in a file of its own; empty where there is none."""
    for name in _QUANTIZERS:
        if stated := optional_json(folder / name):
            return stated
    return {}


def optional_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when there is none or it is broken."""
    try:
        return _json(path)
    except ModelError:
        return {}


def chat_template(folder: Path) -> str | None:
    """The chat template, looked for where and in the order in which transformers does."""
    text = _text(folder / "chat_template.jinja")
    if text:
        return text
    for name in ("chat_template.json", "tokenizer_config.json"):
        stated = optional_json(folder / name).get("chat_template")
        if isinstance(stated, list):  # several, by name
            stated = next(
                (
                    entry.get("template")
                    for entry in stated
                    if isinstance(entry, dict) and entry.get("name") == "default"
                ),
                None,
            )
        if isinstance(stated, str) and stated:
            return stated
    return None


def card_of(folder: Path) -> Card:
    """The model card's front matter; nothing where there is none or it is broken."""
    match = _FRONT_MATTER.search(_text(folder / "README.md", MAX_CARD_BYTES) or "")
    if match is None:
        return Card()
    try:
        data = parse(match[1], "README.md")
    except InputError:
        return Card()
    if not isinstance(data, dict):
        return Card()
    licence = data.get("license")
    if licence == "other":
        licence = data.get("license_name") or licence
    return Card(
        base_model=", ".join(filter(None, map(repository_id, _texts(data.get("base_model")))))
        or None,
        license=one_line(licence) if isinstance(licence, str) else None,
        quantized_by=next(map(one_line, _texts(data.get("quantized_by"))), None),
    )


def _texts(value: Any) -> list[str]:
    """``value`` as a list of texts: a merge names several base models."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values[:8] if isinstance(text, str)]


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    if text is None:
        raise ModelError(
            f"{path.name}: missing, unreadable or not text",
            hint="fetch all files of the model, the small ones too, into one folder",
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{path.name}: not JSON", hint="fetch it again") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path.name}: not a JSON object", hint="fetch it again")
    return data


def _text(path: Path, limit: int = MAX_TEXT_BYTES) -> str | None:
    """The text of a small file, its beginning if it is above ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except OSError:
        return None
