"""What a model needs: the weights that are read for each token, and of a draft model the same
tokens. Its cache: ``models/cache.py``.

Computed from headers and tokenizers alone. Where a header does not settle a figure it is None,
never a guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from tokrig.models.files import files_of
from tokrig.models.gguf import GgufHeader, Tensor, read_gguf
from tokrig.models.safetensors import (
    config_of,
    optional_json,
    read_safetensors,
    text_config,
    weight_files,
)

# --- weights ------------------------------------------------------------------------------------

# Tables of a GGUF of which one row is looked up for each token.
_LOOKED_UP = {"per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"}
# The input embedding and the output weights, as checkpoints call them: transformers; GPT-2, DBRX;
# GPT-NeoX; Falcon, ChatGLM; InternLM 2 and Mistral's own; hybrids (backbone.embeddings).
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings)\."
)
_OUTPUT = re.compile(
    r"(?:^|\.)(?:lm_head|embed_out)\.weight$|^(?:transformer\.|model\.)?output(?:_layer)?\.weight$"
)
# What a token does not read even where the embedding is the output too: tables looked up by row
# (Gemma 3n, GPT-2's positions) and what serves other inputs.
_NOT_READ = re.compile(
    r"(?:^|\.)(?:(?:embed_tokens_per_layer|wpe)\.|vision|visual|audio|multi_modal|mtp)"
)


def looked_up_bytes(model: Path) -> int:
    """Bytes of a GGUF's tables of which a token needs single rows: embeddings per layer, and
    input embeddings unless they serve as output weights too.

    Raises ModelError for a model that cannot be read.
    """
    tensors = [tensor for file in files_of(model) for tensor in read_gguf(file).tensors]
    tables = _tables(tensors)
    return sum(tensor.bytes or 0 for tensor in tensors if tensor.name in tables)


def _tables(tensors: Sequence[Tensor]) -> set[str]:
    own_output = any(tensor.name == "output.weight" for tensor in tensors)
    return _LOOKED_UP | {"token_embd.weight"} if own_output else _LOOKED_UP


# Types of a checkpoint of which every element is a weight.
_UNPACKED = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class ReadBytes(NamedTuple):
    """Bytes of weights by place; ``routed`` where some of them are a share of experts;
    ``multiplied`` are how many of the weights are matrices of layers, of experts that share; None
    where the file packs them."""

    bytes: Mapping[Any, int]
    routed: bool
    multiplied: int | None = None


def read_bytes_per_token(model: Path) -> int | None:
    """Bytes of weights that are read for each generated token, wherever they lie."""
    found = read_bytes(model)
    return None if found is None else sum(found.bytes.values())


def read_bytes(
    model: Path, place: Callable[[Tensor], object] = lambda tensor: None
) -> ReadBytes | None:
    """Bytes of weights that are read for each generated token, by what ``place`` says of tensors.

    All tensors, less what is only looked up (the input embedding where the output has a tensor
    of its own), what serves other inputs (vision) or drafting (MTP layers); of experts the share
    that a token uses. None where a tensor's size or that share is unknown.

    Raises ModelError for a model that cannot be read.
    """
    if model.is_dir():
        config = config_of(model)
        layers, share = text_config(config).get("num_hidden_layers"), experts_share(config)
        tensors = [tensor for file in weight_files(model) for tensor in read_safetensors(file)]
        own_output = any(_OUTPUT.search(tensor.name) for tensor in tensors)
        tables = {
            tensor.name
            for tensor in tensors
            if _NOT_READ.search(tensor.name) or (own_output and _EMBEDDING.search(tensor.name))
        }
        before_number, stacked = ".layers.", share
    else:
        headers = [read_gguf(file) for file in files_of(model)]
        tensors = [tensor for header in headers for tensor in header.tensors]
        layers, share = headers[0].own("block_count"), experts_in_use(headers[0])
        layers = (layers or 0) - (headers[0].own("nextn_predict_layers") or 0)
        tables, before_number, stacked = _tables(tensors), "blk.", None
    total, experts = Counter[object](), Counter[object]()
    matrices = Counter[bool]()
    for tensor in tensors:
        drafts = isinstance(layers, int) and layer_of(tensor.name, before_number) >= layers > 0
        if tensor.name in tables or drafts:
            continue
        if tensor.bytes is None:
            return None
        routed = is_expert(tensor, stacked)
        (experts if routed else total)[place(tensor)] += tensor.bytes
        if layer_of(tensor.name, before_number) >= 0 and len(tensor.shape) > 1:
            matrices[routed] += tensor.elements
    if experts and share is None:
        return None
    for where, size in experts.items():
        total[where] += size * share[0] // share[1] if share else 0
    packed = model.is_dir() and any(tensor.type not in _UNPACKED for tensor in tensors)
    used = matrices[True] * share[0] // share[1] if share else 0
    return ReadBytes(total, bool(experts), None if packed else matrices[False] + used)


def layer_of(name: str, before: str = "blk.") -> int:
    """The number of the layer that a tensor belongs to; -1 for one outside all layers."""
    number = f".{name}".partition(before)[2].partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 6 else -1


# --- mixtures of experts ------------------------------------------------------------------------

Share = tuple[int, int] | None
"""Experts that a token uses and experts there are; None for a model without any."""

_COUNT_KEYS = (
    "num_experts num_local_experts n_routed_experts moe_num_experts num_moe_experts "
    "num_routed_experts"
).split()
_USED_KEYS = (
    "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts moe_top_k "
    "num_selected_experts experts_per_token num_active_experts"
).split()
# How the weights of routed experts are called: in GGUF files, and in checkpoints.
_EXPERTS = re.compile(
    r"_exps\b|\.ffn_(?:gate|up|down)\.\d+\."  # the latter from before 2024
    r"|\.experts\."  # Mixtral, Qwen, DeepSeek, DBRX, Jamba, Phi, Llama 4, gpt-oss, Gemma 4
    r"|\.switch_(?:mlp|glu)\."  # mlx-lm
    r"|\.block_sparse_moe\.(?:(?:in|out)put_linear|w[123])\b"  # Granite; Mixtral as released
    r"|\.mlp\.(?:in|out)put_linear\."  # JetMoE
    r"|\.moe\.(?:gate|up|down)_proj\."  # Step-3
)


def experts_in_use(header: GgufHeader) -> Share:
    """Experts that a token uses and experts there are, of a GGUF file."""
    return _share(header.own("expert_used_count"), header.own("expert_count"))


def experts_share(config: Mapping[str, Any]) -> Share:
    """The same of a folder, by its configuration."""
    text = text_config(config)
    return _share(first_integer(text, _USED_KEYS), first_integer(text, _COUNT_KEYS))


def _share(used: int | None, count: int | None) -> Share:
    return (used, count) if count and used and 0 < used <= count else None


def is_expert(tensor: Tensor, share: Share = None) -> bool:
    """Whether the tensor belongs to routed experts: ``blk.0.ffn_up_exps.weight``,
    ``…mlp.experts.17.down_proj.weight``; in a folder whose ``share`` is given to all of them at
    once, whatever it is called: the first of three dimensions is their number.

    Shared experts (``ffn_up_shexp``, ``shared_experts``) work for every token.
    """
    if ".shared_" in tensor.name:
        return False
    stacked = share is not None and len(tensor.shape) > 2 and tensor.shape[0] == share[1] > 1
    return stacked or _EXPERTS.search(f".{tensor.name}") is not None


def first_integer(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """The first sensible count that the configuration has under one of these keys."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and len({*map(str, value)}) == 1:  # one a layer, all the same
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**48:
            return value
    return None


# --- a draft model ------------------------------------------------------------------------------

# For GGUF files by llama.cpp's rules (``common_speculative_are_compatible``): it refuses an unfit
# draft model at best, and at worst goes on without any speculation. For safetensors folders by
# vLLM's, which compares the sizes of the vocabularies, and by their tokens, which it does not look
# at: a draft of other tokens would run and never be accepted.
MAX_SIZE_DIFFERENCE = 128
FIRST_COMPARED_TOKEN = 5
"""Both as in llama.cpp: sizes may differ by padding, the first tokens by their spelling."""

# By ``tokenizer.ggml.model``: the tokenizer's kind; where the header leaves them out, the tokens
# that begin and end a text; which of the two are put around every text.
_BPE = ("BPE", 11, 11, False, False)
_KINDS: dict[str, tuple[str, int | None, int | None, bool, bool]] = {
    "llama": ("SPM", 1, 2, True, False),
    "bert": ("WPM", 101, None, True, False),
    "gpt2": _BPE,
    "hybriddna": _BPE,
    "whitespace": _BPE,
    "gemma4": ("BPE", None, None, True, False),
    "t5": ("UGM", None, 1, False, True),
    "rwkv": ("RWKV", None, None, False, False),
    "plamo2": ("PLaMo-2", 1, 2, False, False),
}
# Pre-tokenizers for which llama.cpp begins a text with BOS unless the header forbids it.
_BOS_FIRST = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken"
    " chameleon".split()
)


class _Vocabulary(NamedTuple):
    """``begin`` and ``end`` are the tokens put around every text; None where none is."""

    kind: str
    tokens: Sequence[str | None]
    begin: int | None = None
    end: int | None = None


def draft_mismatch(model: Path, draft: Path) -> str | None:
    """Why ``draft`` cannot draft for ``model``, in one line; None when it can.

    Both are GGUF files or both safetensors folders. Of folders without ``tokenizer.json`` only
    the sizes are compared. Raises ModelError when a file cannot be read.
    """
    if model.is_dir() != draft.is_dir():
        return "one is a GGUF file, the other a safetensors folder: no engine loads both"
    if not model.is_dir():
        return _compare(_of_gguf(model), _of_gguf(draft), MAX_SIZE_DIFFERENCE, FIRST_COMPARED_TOKEN)
    one, other = (text_config(config_of(path)).get("vocab_size") for path in (model, draft))
    if one != other:
        return _sizes(one, other)
    mine, its = _of_tokenizer(model), _of_tokenizer(draft)
    if mine is None or its is None:
        return None
    # The model's padding has no tokens: the lists may end at different places.
    return _compare(mine, its, max(len(mine.tokens), len(its.tokens)), 0)


def _compare(model: _Vocabulary, draft: _Vocabulary, difference: int, start: int) -> str | None:
    if model.kind != draft.kind:
        return f"its tokenizer is {draft.kind}, the model's {model.kind}"
    for what in ("begin", "end"):
        one, other = (
            "no special token" if token is None else f"token {token}"
            for token in (getattr(model, what), getattr(draft, what))
        )
        if one != other:
            return f"it {what}s texts with {other}, the model with {one}"
    if abs(len(model.tokens) - len(draft.tokens)) > difference:
        return _sizes(len(model.tokens), len(draft.tokens))
    for number, (mine, its) in enumerate(zip_longest(model.tokens, draft.tokens)):
        if number >= start and mine != its and mine is not None and its is not None:
            return f"token {number} is {its[:40]!r} there, {mine[:40]!r} in the model"
    return None


def _sizes(model: Any, draft: Any) -> str:
    its, own = (f"{n:,}" if isinstance(n, int) else "an unknown number of" for n in (draft, model))
    return f"its vocabulary has {its} tokens, the model's {own}"


def _of_gguf(path: Path) -> _Vocabulary:
    header = read_gguf(path, whole="tokenizer.ggml.tokens")
    stated = header.metadata.get("tokenizer.ggml.tokens")
    stated = stated if isinstance(stated, tuple) else ()
    tokens = [token if isinstance(token, str) else None for token in stated]
    name = header.text("tokenizer.ggml.model") or "none"
    kind, bos, eos, add_bos, add_eos = _KINDS.get(name, (name, None, None, False, False))
    add_bos = add_bos or header.text("tokenizer.ggml.pre") in _BOS_FIRST

    def special(which: str, default: int | None, added: bool) -> int | None:
        flag = header.metadata.get(f"tokenizer.ggml.add_{which}_token")
        number = header.integer(f"tokenizer.ggml.{which}_token_id")
        # llama.cpp overrides what the first Gemma 4 files say.
        if not (flag if isinstance(flag, bool) else added) and (which, name) != ("bos", "gemma4"):
            return None
        return number if number is not None and 0 <= number < len(tokens) else default

    return _Vocabulary(kind, tokens, special("bos", bos, add_bos), special("eos", eos, add_eos))


def _of_tokenizer(folder: Path) -> _Vocabulary | None:
    """The vocabulary in ``tokenizer.json``; None where there is none that can be read."""
    data = optional_json(folder / "tokenizer.json")
    model = data.get("model")
    if not isinstance(model, dict):
        return None
    by_number: dict[int, str] = {}
    match model.get("vocab"):
        case dict(vocabulary):
            by_number |= {n: text for text, n in vocabulary.items() if isinstance(n, int)}
        case [*pieces]:  # Unigram: pairs of a text and its score
            by_number |= {n: str(piece[0]) for n, piece in enumerate(pieces) if piece}
    for added in data.get("added_tokens") or ():
        if isinstance(added, dict) and isinstance(added.get("id"), int):
            by_number[added["id"]] = str(added.get("content"))
    size = 1 + max((n for n in by_number if 0 <= n < 2**24), default=-1)
    return _Vocabulary(str(model.get("type")), [by_number.get(n) for n in range(size)])
