"""The cache of a model, by its architecture: what each layer keeps of a sequence, what one decode
step reads of it, what an engine allots for it.

Layers differ: some keep keys and values of the whole context, some of a sliding window or of the
chunk they are in, some share those of another layer, some keep one compressed vector a token
(MLA), and some a state of constant size (Mamba, RWKV, short convolutions, linear attention).
``models/architecture.py`` finds it in a model's file.

Sources: llama.cpp (``llama_kv_cache``, ``llama_kv_cache_iswa``, ``llama_memory_recurrent``), vLLM
(``v1/kv_cache_interface.py``, ``v1/core/kv_cache_utils.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

from tokrig.errors import InputError, did_you_mean
from tokrig.quants import CELLS_STEP, TENSOR_TYPES, UBATCH, cache_bytes, cache_cells

VLLM_BLOCK = 16
VLLM_BATCH = 2048
"""vLLM's own choices on a GPU; one batch may be in flight."""
MAX_TOKENS = 1 << 40
"""Longer than any context."""
MAX_SLOTS = 1 << 16
_TYPES = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}


class Layers(NamedTuple):
    """``layers`` of one kind. ``key`` and ``value`` are the numbers that one layer keeps of
    a token, ``head`` the lengths of one head's. ``window`` is the number of tokens that it attends
    to, None for all; a ``chunked`` one those since the last multiple of it. ``most_read`` bounds
    what a step reads of them (sparse attention). ``latent``: without values beside the keys."""

    layers: int
    key: int
    value: int
    head: tuple[int, int] = (0, 0)
    window: int | None = None
    chunked: bool = False
    most_read: int | None = None
    latent: bool = False

    def bytes_per_token(self, type_k: str, type_v: str) -> float:
        """Bytes by which all of them grow with a token, while the window is not full."""
        return self.layers * (self.key * _size(type_k) + self.value * _size(type_v))

    def attended(self, tokens: int) -> int:
        """How many of ``tokens`` in the context a step attends to."""
        if self.window is not None and tokens > 0:
            tokens = (tokens - 1) % self.window + 1 if self.chunked else min(tokens, self.window)
        return tokens if self.most_read is None else min(tokens, self.most_read)


class CacheGroup(NamedTuple):
    """Bytes that each token adds to what a step reads, of the last ``window_tokens`` alone."""

    bytes_per_token: int
    window_tokens: int | None


class KeptGroup(NamedTuple):
    """Bytes by which a part of a cache grows with each token, up to ``window``."""

    bytes_per_token: int
    window: int | None


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """What a model keeps of one sequence. ``state_bytes`` do not grow. ``widest_value`` is the
    longest value of any layer: without flash attention llama.cpp gives all layers as much."""

    layers: tuple[Layers, ...]
    state_bytes: int = 0
    widest_value: int = 0

    def groups(self, type_k: str = "f16", type_v: str = "f16") -> list[CacheGroup]:
        """The parts that a step reads alike, those of the longest window first."""
        sizes = Counter[int | None]()
        for part in self.layers:
            bounds = [one for one in (part.window, part.most_read) if one is not None]
            sizes[min(bounds, default=None)] += round(part.bytes_per_token(type_k, type_v))
        order = sorted(sizes, key=lambda window: -(window or MAX_TOKENS))
        return [CacheGroup(sizes[window], window) for window in order if sizes[window]]

    def kept(self, type_k: str = "f16", type_v: str = "f16") -> list[KeptGroup]:
        """The parts that grow alike: what is kept of a token, up to the window."""
        sizes = Counter[int | None]()
        for part in self.layers:
            sizes[part.window] += round(part.bytes_per_token(type_k, type_v))
        return [KeptGroup(size, window) for window, size in sizes.items() if size]

    def fits_type(self, type_k: str, type_v: str) -> bool:
        """Whether heads are whole blocks of these types: engines refuse others. Raises InputError
        for a type that nobody knows."""
        for which, name in enumerate((type_k, type_v)):
            _size(name)
            block = _TYPES[name.lower()].block if name.lower() in _TYPES else 1
            if any(part.layers and part.head[which] % block for part in self.layers):
                return False
        return True

    def bytes_per_token(self, type_k: str = "f16", type_v: str = "f16") -> int:
        """Bytes by which the cache grows with a token while no window is full."""
        return round(sum(part.bytes_per_token(type_k, type_v) for part in self.layers))

    def read_bytes(self, tokens: int, type_k: str = "f16", type_v: str = "f16") -> int:
        """Bytes of a sequence's cache that one decode step reads with ``tokens`` in the context."""
        read = sum(
            part.bytes_per_token(type_k, type_v) * part.attended(tokens) for part in self.layers
        )
        return round(read) + self.state_bytes

    def allotted_bytes(
        self,
        context: int,
        slots: int = 1,
        *,
        type_k: str = "f16",
        type_v: str = "f16",
        unified: bool = False,
        ubatch: int = UBATCH,
        flash_attention: bool = True,
        swa_full: bool = False,
    ) -> int:
        """Bytes that llama.cpp allots for ``slots`` sequences of ``context`` tokens each.

        Cells in steps of 256; a window's cache has cells for the windows of all sequences and one
        micro-batch (``ubatch``) unless ``swa_full``; states of constant size in 32 bits.
        """
        size = 0.0
        for part in self.layers:
            window = None if swa_full else part.window
            cells = cache_cells(context, slots, window, unified=unified, ubatch=ubatch)
            value = part.value if flash_attention or part.latent else self.widest_value
            size += part._replace(value=value).bytes_per_token(type_k, type_v) * cells
        return round(size) + self.state_bytes * slots

    def vllm_bytes(
        self,
        context: int,
        slots: int = 1,
        *,
        kv_type: str = "auto",
        block: int = VLLM_BLOCK,
        in_flight: int = VLLM_BATCH,
    ) -> int | None:
        """Bytes of vLLM's blocks that ``slots`` requests of ``context`` tokens take; None for
        layers that keep a state, whose pages vLLM sizes by its backends.

        Blocks of ``block`` tokens. Layers with a window hold it and the tokens ``in_flight``.
        Layers of different kinds share blocks of one size: groups of as many layers as the rarest
        kind has, each with blocks of its own, the last of a kind padded.
        """
        if self.state_bytes:
            return None
        kinds = [part for part in self.layers if part.layers and part.key + part.value]
        if not kinds:
            return 0
        pages = [
            part._replace(layers=1).bytes_per_token(kv_type, kv_type) * block for part in kinds
        ]
        page = max(pages)
        counts = [part.layers for part in kinds]
        together = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
        blocks = 0
        for part, own in zip(kinds, pages, strict=True):
            tokens = block * int(page // own) if page % own == 0 else block
            blocks += ceil(part.layers / together) * _blocks(part, context, tokens, in_flight)
        return round(blocks * together * page) * slots

    def largest_context(self, room_bytes: int, slots: int = 1, **settings: Any) -> int:
        """The most tokens for each of ``slots`` sequences that llama.cpp can allot in
        ``room_bytes``, in steps of its cells; 0 where there is no room for any. ``settings`` are
        those of ``allotted_bytes``."""
        return CELLS_STEP * _most(
            lambda steps: self.allotted_bytes(steps * CELLS_STEP, slots, **settings) <= room_bytes,
            MAX_TOKENS // CELLS_STEP,
        )

    def most_slots(self, room_bytes: int, context: int, **settings: Any) -> int:
        """The most sequences of ``context`` tokens that llama.cpp can allot in ``room_bytes``."""
        return _most(
            lambda slots: self.allotted_bytes(context, slots, **settings) <= room_bytes, MAX_SLOTS
        )


def _most(fits: Callable[[int], bool], high: int) -> int:
    """The largest number up to ``high`` that fits, as all below it do; 0 where 1 does not."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _blocks(part: Layers, context: int, block: int, in_flight: int) -> int:
    if part.window is None:
        return ceil(context / block)
    if part.chunked:
        return ceil(min(part.window + in_flight, context) / block)
    return ceil(min(part.window - 1 + in_flight, context) / block) + 1


def _size(name: str) -> float:
    """Bytes of a number in a cache of that type."""
    if (size := cache_bytes(name.lower())) is None:
        raise InputError(f"unknown cache type {name!r}", hint=did_you_mean(name, _TYPES))
    return size
