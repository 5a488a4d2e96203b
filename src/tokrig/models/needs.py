"""What a model needs: memory for its cache, bytes read for each token, and what would fit.

Computed from headers alone. Where a header does not settle a figure it is None, never a guess.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokrig.errors import InputError, did_you_mean
from tokrig.models import _folder
from tokrig.models._ggml import TENSOR_TYPES
from tokrig.models._reader import GgufHeader, Tensor, read_gguf
from tokrig.models.gguf import is_routed, parts
from tokrig.models.safetensors import Weight, experts_share, is_expert, read_safetensors
from tokrig.quants import BITS_PER_WEIGHT
from tokrig.record.model import Model
from tokrig.units import human_bytes

CONTEXT_STEP = 256

# llama.cpp gives these a window that their files need not state.
_WINDOWED = frozenset({"gemma2", "llama4", "exaone4"})
# llama.cpp ignores the stated window: the whole context stays in the cache.
_WINDOW_IGNORED = frozenset({"phi3"})
# The input embedding and the output weights, as checkpoints call them: transformers; GPT-2, DBRX;
# GPT-NeoX; Falcon, ChatGLM; InternLM 2 and Mistral's own; hybrids (backbone.embeddings).
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings)\."
)
_OUTPUT = re.compile(
    r"(?:^|\.)(?:lm_head|embed_out)\.weight$|^(?:transformer\.|model\.)?output(?:_layer)?\.weight$"
)
# Tables looked up by row even where the embedding is the output too: Gemma 3n, GPT-2's positions.
_ROWS = re.compile(r"(?:^|\.)(?:embed_tokens_per_layer|wpe)\.")
# Tables of which one row is looked up for each token.
LOOKED_UP = ("per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")

# What is suggested instead of a quant that does not fit, the largest first.
_GGUF_QUANTS = {
    name: BITS_PER_WEIGHT[name]
    for name in (
        *("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS"),
        *("Q3_K_M", "IQ3_XXS", "IQ2_M", "IQ2_XXS", "IQ1_S"),
    )
}
_FOLDER_QUANTS = {
    "FP8": BITS_PER_WEIGHT["FP8"],
    "NVFP4": BITS_PER_WEIGHT["NVFP4"],
    "AWQ or GPTQ-Int4": BITS_PER_WEIGHT["AWQ"],
}

_CACHE_TYPES = ("q8_0", "q4_0")
_F16_BYTES = 2.0


def kv_bytes_per_token(
    source: Path | GgufHeader, type_k: str = "f16", type_v: str = "f16"
) -> int | None:
    """Bytes by which a sequence's cache grows with each token; types as llama.cpp calls them.

    The sum over layers of key/value heads × (key length × bytes of K + value length × bytes of
    V), as ``llama_kv_cache`` allots it. Layers without attention have no heads in a hybrid's
    header and add nothing; their constant state is not counted. None where the cache does not
    grow evenly or a header does not say how: sliding windows, latent attention (MLA), hybrids
    whose header gives one number for all layers, and models that are not GGUF files.

    Raises InputError for an unknown type, ModelError for a file that cannot be read.
    """
    size_k, size_v = _cache_type(type_k), _cache_type(type_v)
    if isinstance(source, Path):
        if source.is_dir():
            return None
        source = read_gguf(source)
    heads = _heads_by_layer(source)
    lengths = _head_lengths(source)
    if heads is None or lengths is None:
        return None
    total = 0
    for count in heads:
        for length, (block, size) in zip(lengths, (size_k, size_v), strict=True):
            if count * length % block:
                return None  # the engine refuses such a type for this model
            total += count * length // block * size
    return total


def _cache_type(name: str) -> tuple[int, int]:
    """Elements in a block and its bytes."""
    types = {kind.name.lower(): (kind.block, kind.size) for kind in TENSOR_TYPES.values()}
    if name.lower() not in types:
        raise InputError(f"unknown cache type {name!r}", hint=did_you_mean(name, types))
    return types[name.lower()]


def _heads_by_layer(header: GgufHeader) -> list[int] | None:
    """Key/value heads of each layer that a served token passes; None where that is unsettled."""
    kind = header.text("general.architecture") or ""
    layers = header.integer(f"{kind}.block_count")
    window = header.integer(f"{kind}.attention.sliding_window") or 0
    if kind in _WINDOWED or (window > 0 and kind not in _WINDOW_IGNORED):
        return None
    if not layers or f"{kind}.attention.kv_lora_rank" in header.metadata:
        return None
    stated = header.metadata.get(f"{kind}.attention.head_count_kv")
    if stated is None:
        stated = header.metadata.get(f"{kind}.attention.head_count")
    served = layers - (header.integer(f"{kind}.nextn_predict_layers") or 0)
    if isinstance(stated, tuple):
        heads = [count for count in stated if isinstance(count, int) and count >= 0]
        return heads[:served] if len(heads) == layers else None
    if not isinstance(stated, int) or stated <= 0 or not 0 < served <= layers <= 4096:
        return None
    return None if _is_recurrent(header, kind) else [stated] * served


def _is_recurrent(header: GgufHeader, kind: str) -> bool:
    marks = (f"{kind}.ssm.", f"{kind}.wkv.", f"{kind}.shortconv.", f"{kind}.full_attention_inter")
    return any(key.startswith(marks) for key in header.metadata)


def _head_lengths(header: GgufHeader) -> tuple[int, int] | None:
    kind = header.text("general.architecture") or ""
    width = header.integer(f"{kind}.embedding_length")
    heads = header.metadata.get(f"{kind}.attention.head_count")
    if isinstance(heads, tuple):  # hybrids: the layers with attention have the same number
        heads = max((count for count in heads if isinstance(count, int)), default=0)
    default = width // heads if width and isinstance(heads, int) and heads > 0 else 0
    key = header.integer(f"{kind}.attention.key_length") or default
    value = header.integer(f"{kind}.attention.value_length") or default
    return (key, value) if 0 < key < 2**20 and 0 < value < 2**20 else None


def read_bytes_per_token(model: Path) -> int | None:
    """Bytes of weights that are read for each generated token.

    All tensors, less what is only looked up (the input embedding where the output has a tensor
    of its own), what serves other inputs (vision) or drafting (MTP layers); of experts the share
    that a token uses. None where a tensor's size or that share is unknown.

    Raises ModelError for a model that cannot be read.
    """
    return _folder_reads(model) if model.is_dir() else _gguf_reads(model)


def _gguf_reads(model: Path) -> int | None:
    headers = [read_gguf(file) for file in parts(model)]
    tensors = [tensor for header in headers for tensor in header.tensors]
    first = headers[0]
    kind = first.text("general.architecture") or ""
    count, used = (first.integer(f"{kind}.expert_{key}") for key in ("count", "used_count"))
    own_output = any(tensor.name == "output.weight" for tensor in tensors)
    served = (first.integer(f"{kind}.block_count") or 0) - (
        first.integer(f"{kind}.nextn_predict_layers") or 0
    )
    total = experts = 0
    for tensor in tensors:
        if tensor.bytes is None:
            return None
        if tensor.name in LOOKED_UP or (own_output and tensor.name == "token_embd.weight"):
            continue
        if _layer(tensor, "blk.") >= served > 0:
            continue
        if is_routed(tensor.name):
            experts += tensor.bytes
        else:
            total += tensor.bytes
    return _with_experts(total, experts, (used, count) if used and count else None)


def _folder_reads(model: Path) -> int | None:
    config = _folder.config_of(model)
    layers = _folder.text_config(config).get("num_hidden_layers")
    weights = [w for file in _folder.weight_files(model) for w in read_safetensors(file)]
    own_output = any(_OUTPUT.search(w.name) for w in weights)
    share = experts_share(config)
    total = experts = 0
    for weight in weights:
        if _ROWS.search(weight.name) or (own_output and _EMBEDDING.search(weight.name)):
            continue
        if _serves_something_else(weight.name):
            continue
        if isinstance(layers, int) and _layer(weight, ".layers.") >= layers:
            continue
        if is_expert(weight, share):
            experts += weight.bytes
        else:
            total += weight.bytes
    return _with_experts(total, experts, share)


def _serves_something_else(name: str) -> bool:
    parts_of_it = name.split(".")
    return any(
        part.startswith(("vision", "visual", "audio", "multi_modal", "mtp")) for part in parts_of_it
    )


def _layer(tensor: Tensor | Weight, before: str) -> int:
    """The number of the layer that a tensor belongs to; -1 for one outside all layers."""
    number = f".{tensor.name}".partition(before)[2].partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 6 else -1


def _with_experts(total: int, experts: int, share: tuple[int, int] | None) -> int | None:
    if not experts:
        return total
    if share is None or not 0 < share[0] <= share[1]:
        return None
    return total + experts * share[0] // share[1]


def fitting(
    free_bytes: int,
    model: Model,
    kv_bytes_per_token: int | None,
    context: int,
    slots: int,
    overhead: int,
) -> list[str]:
    """What of ``model`` would fit into ``free_bytes``, in short suggestions, the mildest first.

    ``kv_bytes_per_token`` is that of an f16 cache, None where unknown; ``context`` is tokens for
    each of ``slots``; ``overhead`` is what else the engine needs, in bytes.
    Empty when the model fits as it is.
    """
    weights, room = model.bytes or 0, free_bytes - overhead
    cache = (kv_bytes_per_token or 0) * context * slots
    if weights + cache <= room:
        return []
    found = []
    if kv_bytes_per_token:
        found = _smaller_cache(room - weights, kv_bytes_per_token * slots, context)
    least = (kv_bytes_per_token or 0) * slots * CONTEXT_STEP
    if quant := _smaller_quant(room - cache, model):
        found.append(quant)
    elif not found and (quant := _smaller_quant(room - least, model)):
        found.append(f"{quant}, together with a smaller context")
    elif not found:
        found.append(f"a smaller model: {human_bytes(max(room, 0))} are free for its weights")
    return found


def _smaller_cache(room: int, bytes_per_token: int, context: int) -> list[str]:
    found = []
    for name in _CACHE_TYPES:
        block, size = _cache_type(name)
        if context * bytes_per_token * size / block / _F16_BYTES <= room:
            found.append(f"a cache in {name} instead of f16")
            break
    largest = max(room, 0) // bytes_per_token // CONTEXT_STEP * CONTEXT_STEP
    if 0 < largest < context:
        found.append(f"a context of {largest} tokens instead of {context}")
    return found


def _smaller_quant(room: int, model: Model) -> str | None:
    """The largest common quant whose weights fit into ``room`` bytes; None when none does."""
    if not model.parameters or room <= 0:
        return None
    bits = 8 * room / model.parameters
    quants = _GGUF_QUANTS if model.format == "gguf" else _FOLDER_QUANTS
    for name, needed in quants.items():
        if needed <= bits and needed < (model.bits_per_weight or bits):
            return f"a quant of at most {bits:.1f} bits per weight, such as {name}"
    return None
