"""What a step of decoding reads, from the model's file and from where the engine put its parts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokrig.errors import InputError, ModelError
from tokrig.models import needs
from tokrig.models.architecture import layout_of
from tokrig.models.cache import CacheLayout
from tokrig.models.gguf import Tensor
from tokrig.record.conditions import computed_on, loaded_bytes
from tokrig.record.model import BackendFacts, Mode, Model, Resolved
from tokrig.record.reads import CacheRead, Place, Reads
from tokrig.run.opening import model_path
from tokrig.run.session import Session

# What llama.cpp keeps off the card, by its words in a record. The patterns are its own
# (LLM_FFN_EXPS_REGEX and LLM_FFN_DENSE_REGEX in common/common.h).
_PATTERNS = {
    "cpu-moe": r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps",
    "n-cpu-moe": r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps",
    "n-cpu-ffn": r"\.ffn_(?:up|down|gate)\.",
}
# From here on a file's weights are not quantized.
WHOLE_BITS = 15
_LAYERS = re.compile(r"(\d+) of (\d+) layers")
_SHARE = re.compile(r"(\d+) % on the GPU")


@dataclass
class Split:
    """What of a model lies in main memory beside a card: the layers before ``first``, of ``layers``
    that the engine counts with the output as the last; tensors of which a rule holds; or, where
    only that is told, a share of all."""

    first: int = 0
    layers: int | None = None
    rules: list[Callable[[str], object]] = field(default_factory=list)
    gpu_share: float | None = None
    cache_on_cpu: bool = False

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor of a GGUF file lies."""
        number = needs.layer_of(tensor.name)
        before = number < self.first if number >= 0 else self._output_stays
        return "cpu" if before or any(rule(tensor.name) for rule in self.rules) else "gpu"

    @property
    def _output_stays(self) -> bool:
        # Counted as the last layer, it is the first to move.
        return self.layers is not None and self.first >= self.layers

    @property
    def cache_gpu_share(self) -> float:
        """The share of the layers whose cache lies on the card: it goes where its layer is."""
        if self.cache_on_cpu:
            return 0.0
        if self.gpu_share is not None:
            return self.gpu_share
        blocks = (self.layers or 1) - 1
        return max(blocks - self.first, 0) / blocks if blocks else 1.0


def reads_of(session: Session, model: Model, backend: BackendFacts, mode: Mode) -> Reads | None:
    """What a step of an open session's engine reads; None where its file cannot be looked at, or
    where the engine does not tell which of its parts lie where."""
    path = model_path(session)
    if path is None:
        return None
    with contextlib.suppress(ModelError, InputError):
        return reads(path, model, backend, mode)
    return None


def reads(path: Path, model: Model, backend: BackendFacts, mode: Mode) -> Reads | None:
    """The same of a file. Raises ModelError for one that cannot be read."""
    where = computed_on(backend, mode)
    split = Split() if where == {"gpu"} else split_of(backend.resolved, mode.offload)
    if split is None or not where or _quantized_on_load(model, backend.resolved):
        return None
    on_cpu = where == {"cpu"}
    found = needs.read_bytes(path, (lambda tensor: "cpu") if on_cpu else split.place)
    if found is None:
        return None
    # As loaded: an engine may narrow their type.
    narrowed = loaded_bytes(model, backend.resolved) / model.bytes if model.bytes else 1.0
    weights = {place: int(size * narrowed) for place, size in found.bytes.items()}
    if split.gpu_share is not None:
        total = sum(weights.values())
        weights = {"gpu": int(total * split.gpu_share)}
        weights["cpu"] = total - weights["gpu"]
    share = 0.0 if on_cpu else split.cache_gpu_share
    resolved, cache = backend.resolved, list[CacheRead]()
    kinds = (resolved.cache_type_k or "f16", resolved.cache_type_v or "f16")
    layout = layout_of(path)
    if layout is not None and layout.fits_type(*kinds):
        cache = list(_cache(layout, kinds, share))
        for place, part in {"gpu": share, "cpu": 1 - share}.items():
            if part > 0:
                weights[place] = weights.get(place, 0) + round(layout.state_bytes * part)
    return Reads(
        weight_bytes=weights, routed=found.routed, multiplied=found.multiplied, cache=cache
    )


def _quantized_on_load(model: Model, resolved: Resolved) -> bool:
    """Whether the engine quantizes weights that its file has whole: nobody tells to what size."""
    return resolved.quantization is not None and (model.bits_per_weight or 0.0) >= WHOLE_BITS


def split_of(resolved: Resolved, offload: str | None) -> Split | None:
    """Where parts of a model lie that is not wholly on a card, by what was kept off it; None where
    that does not tell."""
    split = Split(layers=resolved.layers)
    if resolved.layers is not None and resolved.gpu_layers is not None:
        split.first = max(resolved.layers - resolved.gpu_layers, 0)
    for word in filter(None, (offload or "").split(", ")):
        kind, _, value = word.partition(" ")
        if found := _LAYERS.fullmatch(word):
            split.layers = int(found[2])
            split.first = split.layers - int(found[1])
        elif found := _SHARE.fullmatch(word):
            if resolved.gpu_layers is None:
                split.gpu_share = int(found[1]) / 100
        elif kind == "no-kv-offload":
            split.cache_on_cpu = True
        elif kind in _PATTERNS or kind == "override-tensor":
            try:
                split.rules += _rules(kind, value)
            except (re.error, ValueError):
                return None
        elif kind != "draft":
            return None
    return split


def _rules(kind: str, value: str) -> Iterator[Callable[[str], object]]:
    if kind == "override-tensor":
        for pair in value.split(","):
            yield re.compile(pair.rpartition("=")[0]).search
        return
    pattern, most = re.compile(_PATTERNS[kind]), int(value) if value else None
    yield lambda name: pattern.search(name) and (most is None or needs.layer_of(name) < most)


def _cache(layout: CacheLayout, kinds: tuple[str, str], gpu_share: float) -> Iterator[CacheRead]:
    shares: dict[Place, float] = {"gpu": gpu_share, "cpu": 1 - gpu_share}
    for place, share in shares.items():
        for group in layout.groups(*kinds) if share > 0 else ():
            yield CacheRead(
                place=place,
                bytes_per_token=round(group.bytes_per_token * share),
                window_tokens=group.window_tokens,
            )
