"""Files and folders that hold no language model one could chat with, and what they hold instead.

Converters before 2025 wrote no ``general.type``: a projector is then known by its architecture
or its name. Architectures are llama.cpp's (``llama-arch.cpp``), those of pictures and video
ComfyUI-GGUF's, pooling types those of ``enum llama_pooling_type``; model types of folders are
transformers'. A folder of sentence-transformers has a ``modules.json``, one of diffusers a
``model_index.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokrig.models._reader import GgufHeader, Tensor

_THE_MODEL = "name the model's own .gguf file"
_ANOTHER = "tokrig measures models that write text, token by token"
_OTHER_TOOL = f"{_ANOTHER}; this one is for another program"

_BY_TYPE = {
    "adapter": "an adapter (LoRA)",
    "mmproj": "a multimodal projector",
    "imatrix": "an importance matrix",
}
_POOLING = {1: "an embedding model", 2: "an embedding model", 3: "an embedding model"}
_RANK = 4
_ENCODERS = frozenset(
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert "
    "gemma-embedding llama-embed t5encoder".split()
)
_DIFFUSING = frozenset(("dream", "llada", "llada-moe", "rnd1"))
_PICTURES = frozenset(
    "flux sd1 sdxl sd3 aura hidream cosmos ltxv hyvid wan lumina2 qwen_image pig z_image".split()
)
_SPEECH = frozenset(("wavtokenizer-dec", "whisper", "mimi", "snac"))


def what_else(
    header: GgufHeader, tensors: Sequence[Tensor], file_name: str
) -> tuple[str, str] | None:
    """What the file holds instead of a language model, and what to do; None where it holds one."""
    kind = header.text("general.architecture") or ""
    if stated := _BY_TYPE.get(header.text("general.type") or "") or _auxiliary(
        header, kind, tensors, file_name.lower()
    ):
        return stated, _THE_MODEL
    if not any(tensor.elements for tensor in tensors):
        return "a vocabulary without weights", _THE_MODEL
    if kind in _PICTURES:
        return "a model of pictures or video", _OTHER_TOOL
    if kind in _SPEECH:
        return "a model of speech", _OTHER_TOOL
    if kind in _DIFFUSING:
        return "a diffusion language model", f"{_ANOTHER}; this one writes all of them at once"
    if kind == "t5":
        return "an encoder-decoder model", f"{_ANOTHER}, by a chat; engines do not serve this one"
    pooling = header.integer(f"{kind}.pooling_type")
    if pooling == _RANK or "reranker" in file_name.lower():
        return "a reranking model", _ANOTHER
    if kind in _ENCODERS or pooling in _POOLING:
        return "an embedding model", _ANOTHER
    return None


def _auxiliary(header: GgufHeader, kind: str, tensors: Sequence[Tensor], name: str) -> str | None:
    """What serves beside a model, where the file does not state its type."""
    embeds = any(tensor.name == "token_embd.weight" for tensor in tensors)
    if kind == "clip" or ("mmproj" in name and not embeds):
        return _BY_TYPE["mmproj"]
    if kind == "imatrix" or "imatrix.chunk_count" in header.metadata:
        return _BY_TYPE["imatrix"]
    if kind == "controlvector" or "controlvector.layer_count" in header.metadata:
        return "a control vector"
    if "adapter.type" in header.metadata or any(t.name.endswith(".lora_a") for t in tensors):
        return _BY_TYPE["adapter"]
    return None


_SEQUENCE_TO_SEQUENCE = frozenset(
    "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 fsmt prophetnet led".split()
)
_HEARS = frozenset(("whisper", "wav2vec2", "hubert", "encodec", "vits", "bark", "speecht5"))
_HEADS = {
    "ForSequenceClassification": "a reranking or classifying model",
    "ForTokenClassification": "a classifying model",
    "ForMaskedLM": "an encoder",
}


def folder_is_else(folder: Path, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The same of a model folder, by its configuration and the files of other libraries."""
    kind = str(config.get("model_type") or "").lower()
    heads = config.get("architectures")
    head = str(heads[0]) if isinstance(heads, list) and heads else ""
    if (folder / "model_index.json").exists():
        return "a model of pictures or video", _OTHER_TOOL
    if kind in _HEARS:
        return "a model of speech", _OTHER_TOOL
    if kind in _DIFFUSING:
        return "a diffusion language model", f"{_ANOTHER}; this one writes all of them at once"
    if kind in _SEQUENCE_TO_SEQUENCE:
        return "an encoder-decoder model", f"{_ANOTHER}, by a chat; engines do not serve this one"
    for ending, what in _HEADS.items():
        if head.endswith(ending):
            return what, _ANOTHER
    if (folder / "modules.json").exists() or "bert" in kind:
        return "an embedding model", _ANOTHER
    return None
