"""What a model keeps of a text, by its architecture, read from a GGUF header or a ``config.json``.

A header that does not settle it gives None, never a guess.

Sources: llama.cpp (``llama_hparams``, ``load_arch_hparams`` of each architecture,
``llama_model::create_memory``), vLLM's model definitions, the configurations of transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokrig.models.cache import CacheLayout, Layers
from tokrig.models.gguf import GgufHeader, read_gguf
from tokrig.models.safetensors import config_of, text_config

MAX_LAYERS = 512
"""llama.cpp's own limit."""
STATE_NUMBER_BYTES = 4
"""llama.cpp keeps states of constant size in 32 bits, whatever the cache's type."""


def layout_of(source: Path | GgufHeader | Mapping[str, Any]) -> CacheLayout | None:
    """The cache of a GGUF file, of its header, of a folder or of its configuration; None where
    they do not settle it. Raises ModelError for a file that cannot be read."""
    if isinstance(source, Path):
        source = config_of(source) if source.is_dir() else read_gguf(source)
    return _of_header(source) if isinstance(source, GgufHeader) else _of_config(source)


def kv_bytes_per_token(
    source: Path | GgufHeader, type_k: str = "f16", type_v: str = "f16", *, at_most: bool = False
) -> int | None:
    """Bytes by which a sequence's cache grows with each token; types as llama.cpp calls them.

    None where it does not grow evenly (sliding windows; ``at_most`` takes them for whole contexts:
    no cache grows by more), where the header does not settle it, and for a type that the engine
    refuses for this model. Raises InputError for an unknown type, ModelError for a file that
    cannot be read.
    """
    layout = layout_of(source)
    fits = (layout or CacheLayout(())).fits_type(type_k, type_v)
    if layout is None or not fits:
        return None
    if not at_most and any(part.window is not None for part in layout.layers):
        return None
    return layout.bytes_per_token(type_k, type_v)


# --- GGUF headers -------------------------------------------------------------------------------


class _Windowed(NamedTuple):
    """How llama.cpp lays out the windows of an architecture: one layer in ``every`` attends to
    everything, the first or else the last of them; 0: all have windows; None: the file says
    which. ``window`` where the file states none; ``fixed``: whatever it states."""

    every: int | None
    window: int | None = None
    first: bool = False
    fixed: bool = False
    chunked: bool = False


_WINDOWED = {
    "gemma2": _Windowed(2, 4096),
    "gemma3": _Windowed(6),
    "gemma3n": _Windowed(5),
    "gemma4": _Windowed(None),
    "llama4": _Windowed(4, 8192, fixed=True, chunked=True),
    "gpt-oss": _Windowed(2),
    "cohere2": _Windowed(4),
    "cohere2moe": _Windowed(4, first=True),
    "exaone4": _Windowed(4, 4096),
    "exaone-moe": _Windowed(4, 128),
    "olmo2": _Windowed(4),
    "afmoe": _Windowed(4),
    "smallthinker": _Windowed(4, first=True),
    "plamo3": _Windowed(8),
    "mellum": _Windowed(4),
    "laguna": _Windowed(4, first=True),
    "muse-glimmer": _Windowed(4),
    "lfm2": _Windowed(0),
    **dict.fromkeys(("granite_swa", "spark2_5", "step35", "mimo2", "maple"), _Windowed(None)),
}
_EXAONE4_LAYERS = 64  # the smaller ones have no windows
_SMALLTHINKER_WINDOW = 4096  # whatever its file states
# What llama.cpp reads no window of: the whole context stays in the cache.
_WINDOW_IGNORED = frozenset(
    "llama phi3 phimoe qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe starcoder2 mistral3"
    " mistral4 granite granitemoe granitehybrid minicpm3 glm4 glm4moe deepseek2".split()
)
# No cache at all: encoders, and diffusion models that compute the whole text again.
_WITHOUT = frozenset(
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert"
    " gemma-embedding wavtokenizer-dec dream llada llada-moe rnd1 clef t5encoder".split()
)
# Caches of kinds of their own, beside what is told here: compressed, pooled, of two models.
UNSETTLED = frozenset(
    "deepseek4 dots3note glm5-next qwen4exp minimax-m3 hy_v4 t5 eagle3 dflash gemma4-assistant"
    " graniteswitch".split()
)
_RECURRENT = frozenset("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7".split())
# One layer in so many attends, unless the file says which.
_LINEAR = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
_BOTH = "falcon-h1"  # each layer attends and keeps a state
_STATES = ("ssm.", "wkv.", "shortconv.", "kda.", "full_attention_interval")
_GEMMA3N_OWN = 20  # the first layers; the rest read those of others
_NEMOTRON = ("nemotron_h", "nemotron_h_moe")
_SPARSE = ("deepseek32", "glm-dsa")
_LONG_GLM = 1 << 20  # from this context on a default of llama.cpp's says which layers index


class _Header:
    """A header's figures by layer, as llama.cpp reads them."""

    def __init__(self, header: GgufHeader) -> None:
        self.header, self.kind = header, header.kind
        self.all = header.own("block_count") or 0
        self.served = self.all - (header.own("nextn_predict_layers") or 0)
        if self.kind == "nanbeige":  # goes through its layers several times
            self.all = self.served = self.all * (header.own("num_loops") or 1)

    def number(self, key: str, default: int = 0) -> int:
        found = self.header.own(key)
        return default if found is None else found

    def by_layer(self, key: str, default: Sequence[int] | None = None) -> list[int] | None:
        """A count for each layer, stated once or by layer; None for nonsense."""
        stated = self.header.metadata.get(f"{self.kind}.{key}")
        if stated is None:
            return None if default is None else list(default)
        values = list(stated) if isinstance(stated, tuple) else [stated] * self.all
        whole = [int(one) for one in values if isinstance(one, int) and 0 <= one < 2**20]
        return whole if len(whole) == len(values) and len(whole) == self.all else None

    def states(self) -> bool:
        """Whether the file tells of layers that keep a state of constant size."""
        mine = tuple(f"{self.kind}.{key}" for key in _STATES)
        return any(key.startswith(mine) for key in self.header.metadata)


def _of_header(header: GgufHeader) -> CacheLayout | None:
    kind, told = header.kind, _Header(header)
    if kind in _WITHOUT:
        return CacheLayout(())
    if kind in UNSETTLED or not 0 < told.served <= told.all <= MAX_LAYERS:
        return None
    query = told.by_layer("attention.head_count", [0] * told.all)
    heads = told.by_layer("attention.head_count_kv", query)
    recurrent = None if heads is None else _recurrent(told, heads)
    windowed = _windowed(told, recurrent or [])
    if query is None or heads is None or recurrent is None or windowed is None:
        return None
    attends = _attending(told, recurrent)
    if any(attends) and not (any(heads) and any(_lengths(told, query, windowed=False))):
        return None
    state = _state_numbers(told, query) if any(recurrent) else 0
    if state is None:
        return None
    parts, widest = _parts(told, query, heads, attends, windowed)
    return CacheLayout(
        layers=tuple(parts),
        state_bytes=state * sum(recurrent) * STATE_NUMBER_BYTES,
        widest_value=widest,
    )


def _parts(
    told: _Header,
    query: list[int],
    heads: list[int],
    attends: list[bool],
    windowed: list[int | None],
) -> tuple[list[Layers], int]:
    """The layers that attend, those of a kind together, and the widest value of all."""
    latent = told.number("attention.key_length_mla") and told.number("attention.value_length_mla")
    chunked = told.kind in _WINDOWED and _WINDOWED[told.kind].chunked
    sparse = told.number("attention.indexer.top_k") or None if told.kind in _SPARSE else None
    found, widest = Counter[Layers](), 0
    for number, count in enumerate(heads):
        window = windowed[number]
        key, value = _lengths(told, query, windowed=window is not None)
        widest = max(widest, count * value)
        if attends[number]:
            value = 0 if latent else value
            one = Layers(
                1,
                count * key,
                count * value,
                (key, value),
                window,
                chunked and window is not None,
                sparse,
                bool(latent),
            )
            found[one] += 1
    parts = [part._replace(layers=count) for part, count in found.items()]
    if told.kind in _SPARSE and (length := told.number("attention.indexer.key_length")):
        parts.append(Layers(_indexing(told), length, 0, (length, 0), latent=True))
    return parts, widest


def _indexing(told: _Header) -> int:
    """How many layers choose what is attended to, by keys of their own."""
    types = told.by_layer("attention.indexer.types", [1] * told.all) or [1] * told.all
    return sum(map(bool, types[: told.served])) if told.kind == "glm-dsa" else told.served


def _lengths(told: _Header, query: list[int], *, windowed: bool) -> tuple[int, int]:
    """Numbers in a key and in a value of one head."""
    first = query[0] or max(query)
    default = told.number("embedding_length") // first if first else 0
    key = told.number("attention.key_length", default)
    value = told.number("attention.value_length", default)
    if windowed:
        key = told.number("attention.key_length_swa", key)
        value = told.number("attention.value_length_swa", value)
    return (key, value) if 0 <= key < 2**20 and 0 <= value < 2**20 else (0, 0)


def _attending(told: _Header, recurrent: list[bool]) -> list[bool]:
    """Which layers have keys and values of their own."""
    if told.kind == _BOTH:
        return [True] * told.all
    attends = [not one for one in recurrent]
    if told.kind in _NEMOTRON:
        widths = told.by_layer("feed_forward_length", [0] * told.all) or [0] * told.all
        attends = [one and not width for one, width in zip(attends, widths, strict=True)]
    own = told.all
    if told.kind == "gemma3n":
        own = _GEMMA3N_OWN
    elif told.kind == "gemma4":
        own -= told.number("attention.shared_kv_layers")
    # Of drafting layers (MTP) the model itself has no cache.
    served = told.all if any(recurrent) and told.kind not in _LINEAR else told.served
    return [one and number < min(own, served) for number, one in enumerate(attends)]


def _recurrent(told: _Header, heads: list[int]) -> list[bool] | None:
    """Which layers keep a state of constant size; None where that is unsettled."""
    served = [number < told.served for number in range(told.all)]
    if told.kind in _RECURRENT or told.kind == _BOTH:
        return served
    if told.kind in _LINEAR:
        stated = told.by_layer("attention.recurrent_layers")
        if stated is not None:
            return [bool(one) for one in stated]
        every = told.number("full_attention_interval", _LINEAR[told.kind])
        if every <= 0:
            return None
        return [mine and (number + 1) % every != 0 for number, mine in enumerate(served)]
    if not told.states():
        return [False] * told.all
    if not isinstance(told.header.metadata.get(f"{told.kind}.attention.head_count_kv"), tuple):
        return None
    none = [mine and not count for mine, count in zip(served, heads, strict=True)]
    if told.kind in _NEMOTRON:
        widths = told.by_layer("feed_forward_length", [0] * told.all) or [0] * told.all
        none = [one and not width for one, width in zip(none, widths, strict=True)]
    return none


def _state_numbers(told: _Header, query: list[int]) -> int | None:
    """The numbers that a layer with a state keeps of a sequence (``n_embd_r`` + ``n_embd_s``);
    None where the header does not say."""
    number, width = told.number, told.number("embedding_length")
    kernel, inner = number("ssm.conv_kernel"), number("ssm.inner_size")
    state, groups = number("ssm.state_size"), number("ssm.group_count")
    if size := number("wkv.head_size"):
        found = number("token_shift_count", 2) * width + width * size
    elif length := number("shortconv.l_cache"):
        found = width * (length - 1)
    elif head := number("kda.head_dim"):
        found = 3 * ((kernel or 4) - 1) * query[0] * head + head * head * query[0]
    elif told.kind == "minimax-01":
        found = _lengths(told, query, windowed=False)[0] ** 2 * query[0]
    else:
        found = max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner
    return found if 0 < found < 2**40 else None


def _windowed(told: _Header, recurrent: list[bool]) -> list[int | None] | None:
    """Each layer's window, None for one without; None where that is unsettled."""
    whole: list[int | None] = [None] * told.all
    rule = _WINDOWED.get(told.kind)
    stated = told.header.own("attention.sliding_window")
    if rule is None:
        return whole if not stated or told.kind in _WINDOW_IGNORED else None
    if told.kind == "exaone4" and told.served != _EXAONE4_LAYERS:
        return whole
    if stated == 0 and (rule.fixed or rule.window is None):
        return whole
    window = rule.window if rule.fixed or not stated else stated
    if told.kind == "smallthinker" and window:
        window = _SMALLTHINKER_WINDOW
    if not window or window < 0:
        return whole
    pattern = told.header.metadata.get(f"{told.kind}.attention.sliding_window_pattern")
    if rule.every == 0:
        swa = [not one for one in recurrent]
    elif isinstance(pattern, tuple):
        swa = [bool(one) for one in pattern[: told.all]]
        swa += [False] * (told.all - len(swa))
    elif rule.every is None:
        return None
    else:
        every = pattern if isinstance(pattern, int) and pattern > 0 else rule.every
        full = 0 if rule.first else every - 1
        swa = [n % every != full and n < told.served for n in range(told.all)]
    return [window if one else None for one in swa]


# --- config.json --------------------------------------------------------------------------------

# One layer in so many attends to everything, where a configuration does not list its layers.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n_text": 5, "cohere2": 4}
_FULL = frozenset({"full_attention", "attention", "global"})
_LINEAR_LAYER = frozenset({"linear_attention", "conv", "mamba", "mamba2", "recurrent"})
# Keys of models whose layers with a state are not listed as ``layer_types``.
_STATE_KEYS = (
    "mamba_d_state state_size ssm_state_size time_mix_extra_dim attn_layer_period wkv_head_size"
    " hybrid_override_pattern linear_attn_config index_topk compress_ratios"
).split()


def _of_config(config: Mapping[str, Any]) -> CacheLayout | None:
    """The cache of a configuration, as vLLM keeps it: MLA compressed; of layers with a state only
    those whose sizes are plain."""
    text = text_config(config)
    layers = _count(text, "num_hidden_layers")
    if not 0 < layers <= MAX_LAYERS or any(text.get(key) for key in _STATE_KEYS):
        return None
    kinds = _layer_kinds(text, layers)
    if kinds is None:
        return None
    found, state = Counter[Layers](), 0
    shared = _count(text, "num_kv_shared_layers")
    for number, (kind, window) in enumerate(kinds):
        if kind in _LINEAR_LAYER:
            if (size := _state_of(text, kind)) is None:
                return None
            state += size
        elif number < layers - shared:
            key, value, head = _widths(text, window is not None)
            if not key:
                return None
            chunked = kind == "chunked_attention"
            found[Layers(1, key, value, head, window, chunked, latent=not value)] += 1
    parts = tuple(part._replace(layers=count) for part, count in found.items())
    return CacheLayout(parts, state, max((p.value for p in parts), default=0))


def _count(text: Mapping[str, Any], *keys: str) -> int:
    """The first whole number under these keys; 0 without one."""
    for key in keys:
        value = text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**24:
            return value
    return 0


def _layer_kinds(text: Mapping[str, Any], layers: int) -> list[tuple[str, int | None]] | None:
    """What each layer is, with its window; None where the configuration does not settle it."""
    window, chunk = _count(text, "sliding_window"), _count(text, "attention_chunk_size")
    listed = text.get("layer_types")
    if isinstance(listed, list):
        found = [_one_kind(str(kind), window, chunk) for kind in listed[:layers]]
        whole = [one for one in found if one is not None]
        return whole if len(whole) == layers else None
    model = str(text.get("model_type"))
    full: tuple[str, int | None] = ("full_attention", None)
    rope = text.get("no_rope_layers")
    if (
        chunk and isinstance(rope, list) and len(rope) == layers
    ):  # Llama 4: those without attend to all
        return [("chunked_attention", chunk) if uses else full for uses in rope]
    if not window or text.get("use_sliding_window") is False:
        return None if chunk else [full] * layers
    every = _count(text, "sliding_window_pattern") or _PATTERNS.get(model)
    if every:
        return [
            full if (n + 1) % every == 0 else ("sliding_attention", window) for n in range(layers)
        ]
    if _count(text, "max_window_layers") not in (0, layers):
        return None
    return [("sliding_attention", window)] * layers


def _one_kind(kind: str, window: int, chunk: int) -> tuple[str, int | None] | None:
    if kind in _FULL or kind in _LINEAR_LAYER:
        return kind, None
    size = {"sliding_attention": window, "chunked_attention": chunk}.get(kind)
    return (kind, size) if size else None


def _widths(text: Mapping[str, Any], windowed: bool) -> tuple[int, int, tuple[int, int]]:
    """Numbers in a layer's keys and values of a token, and in one head's; zeros where unsettled."""
    if latent := _count(text, "kv_lora_rank"):
        key = latent + _count(text, "qk_rope_head_dim")
        return key, 0, (key, 0)
    query = _count(text, "num_attention_heads")
    heads = _count(text, "num_key_value_heads", "num_attention_heads")
    length = _count(text, "head_dim") or (_count(text, "hidden_size") // query if query else 0)
    if not windowed:  # Gemma 4: layers that attend to everything have heads of their own
        heads = _count(text, "num_global_key_value_heads") or heads
        length = _count(text, "global_head_dim") or length
    return heads * length, heads * length, (length, length)


def _state_of(text: Mapping[str, Any], kind: str) -> int | None:
    """Bytes that a layer with a state keeps of a sequence, 16-bit numbers unless stated; None for
    kinds whose size is not plain."""
    if kind == "conv":
        length = _count(text, "conv_L_cache")
        return (length - 1) * _count(text, "hidden_size") * 2 if length else None
    heads = _count(text, "linear_num_value_heads")
    key, value = _count(text, "linear_key_head_dim"), _count(text, "linear_value_head_dim")
    kernel = _count(text, "linear_conv_kernel_dim")
    if kind != "linear_attention" or not (heads and key and value and kernel):
        return None
    channels = 2 * _count(text, "linear_num_key_heads") * key + heads * value
    number = 4 if text.get("mamba_ssm_dtype") == "float32" else 2
    return (kernel - 1) * channels * 2 + heads * key * value * number
