"""Whether a small model can draft for a large one: the two must speak the same tokens.

For GGUF files by llama.cpp's rules (``common_speculative_are_compatible``): it refuses an unfit
draft model at best, and at worst goes on without any speculation. For safetensors folders by
vLLM's, which compares the sizes of the vocabularies, and by their tokens, which it does not look
at: a draft of other tokens would run and never be accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from tokrig.models.gguf import read_gguf
from tokrig.models.safetensors import config_of, optional_json, text_config

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


def mismatch(model: Path, draft: Path) -> str | None:
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
