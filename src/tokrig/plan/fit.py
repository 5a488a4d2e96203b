"""Whether a run fits into its rig's memory, before anything is downloaded or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokrig.plan.model import RigMemory, Run, Shape
from tokrig.plan.sizes import Sizes
from tokrig.quants import BITS_PER_WEIGHT, bits_per_weight
from tokrig.spec.campaign import Condition
from tokrig.units import human_bytes

OVERHEAD_BYTES = 600 * 1024**2
"""What an engine takes beside weights and cache: compute buffers and the driver's own context.
Chosen (t): llama.cpp with batches of 512 stays between 0.3 and 0.6 GiB with models of up to some
30 B parameters."""

# As ``tokrig run`` sizes a slot: room for the chat template, then whole steps.
CONTEXT_MARGIN, CONTEXT_STEP = 64, 256

# Bytes of a number in the cache: whole numbers, and blocks of 32 with a 16-bit scale (ggml).
CACHE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "auto": 2.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0,
    "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fit:
    """``fits`` is None where nobody knows; ``why`` a sentence unless it fits."""

    fits: bool | None
    why: str = ""


class Fits:
    """Answers for the runs of one plan; ``needs`` are tokens of context by workload."""

    def __init__(
        self,
        sizes: Sizes,
        rigs: Mapping[str, RigMemory],
        shapes: Mapping[str, Shape],
        needs: Mapping[str, int],
    ) -> None:
        self.sizes, self.rigs, self.shapes, self.needs = sizes, rigs, shapes, needs
        self._found: dict[tuple[object, ...], Fit] = {}

    def of(self, run: Run, condition: Condition) -> Fit:
        """Whether weights, cache of all slots and overhead fit into the memory of ``condition``.

        Bytes = weights + draft model + cache per token × context per slot × slots + overhead.
        """
        asked = (run.setting(name) for name in ("draft_model", "kv_type", "context"))
        what = (run.campaign, run.rig, run.weights, run.quant, *asked)
        name = (*what, run.workloads, run.concurrency, condition)
        if name not in self._found:
            self._found[name] = self._fit(run, condition)
        return self._found[name]

    def _fit(self, run: Run, condition: Condition) -> Fit:
        rig = self.rigs.get(run.rig, RigMemory())
        room = rig.vram_bytes if condition == "fits_vram" else rig.memory_bytes
        memory = "VRAM" if condition == "fits_vram" else "memory"
        if room == 0:
            return Fit(False, f"{run.rig} has no graphics card")
        if room is None:
            return Fit(None, f"the {memory} of {run.rig} is not known")
        size, draft = self.sizes.served(run), self.sizes.draft(run)
        if size.bytes is None or (draft and draft.bytes is None):
            what = "model" if size.bytes is None else "draft model"
            return Fit(None, f"the size of the {what} is not known")
        weights = size.bytes + (draft.bytes or 0 if draft else 0)
        context, slots = self.context(run), self.slots(run)
        each = CACHE_BYTES.get(run.setting("kv_type") or "f16")
        if size.kv_bytes_per_token is None or each is None or context is None:
            if weights + OVERHEAD_BYTES > room:
                parts = f"weights of {human_bytes(weights)} ({size.source})"
                return Fit(False, _too_large(parts, weights + OVERHEAD_BYTES, room, memory))
            return Fit(None, _unknown_cache(run, each, context))
        token = size.kv_bytes_per_token * each / CACHE_BYTES["f16"]
        cache = round(token * context * slots)
        if (total := weights + cache + OVERHEAD_BYTES) <= room:
            return Fit(True)
        parts = f"weights of {human_bytes(weights)} ({size.source}), "
        parts += f"a cache of {human_bytes(cache)} for {slots} × {context:,} tokens"
        left = room - OVERHEAD_BYTES
        options = [
            *_smaller_quant(left - cache, weights, run.quant),
            *_smaller_cache((left - weights) / (token * slots), context),
        ]
        fitting = f"; would fit: {' or '.join(options)}" if options else ""
        return Fit(False, _too_large(parts, total, room, memory) + fitting)

    def context(self, run: Run) -> int | None:
        """Tokens per slot: as asked for, else what the longest shape takes that the model was
        made for. None where the length of a shape is not known."""
        if (asked := run.setting("context")) is not None:
            return int(asked)
        names = run.workloads or tuple(self.needs)
        if not names or any(name not in self.needs for name in names):
            return None
        source = self.sizes.source(run)
        limit = source.context if source and source.context else 1 << 62
        longest = max((self.needs[name] for name in names if self.needs[name] <= limit), default=0)
        return min(-(-(longest + CONTEXT_MARGIN) // CONTEXT_STEP) * CONTEXT_STEP, limit)

    def slots(self, run: Run) -> int:
        """Requests in flight at most."""
        if run.concurrency:
            return max(run.concurrency)
        names = run.workloads or tuple(self.needs)
        return max(
            (max(self.shapes[n].concurrencies) for n in names if n in self.shapes), default=1
        )


def _too_large(parts: str, total: int, room: int, memory: str) -> str:
    overhead = human_bytes(OVERHEAD_BYTES)
    whole = f"{human_bytes(total)} of {memory} needed, {human_bytes(room)} there"
    return f"{whole}: {parts}, {overhead} for the engine"


def _unknown_cache(run: Run, each: float | None, context: int | None) -> str:
    if each is None:
        return f"the size of a cache of type {run.setting('kv_type')} is not known"
    if context is None:
        return "the context that its shapes take is not known"
    return "the cache's bytes per token are not known"


def _smaller_quant(room: int, weights: int, quant: str | None) -> list[str]:
    """The largest common quant of the same weights that leaves the cache as it is."""
    bits = bits_per_weight(quant) if quant else None
    if not bits or room <= 0:
        return []
    for name in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "IQ2_XXS"):
        if weights * BITS_PER_WEIGHT[name] / bits <= room:
            return [f"a quant such as {name}"]
    return []


def _smaller_cache(tokens: float, context: int) -> list[str]:
    largest = int(max(tokens, 0)) // CONTEXT_STEP * CONTEXT_STEP
    return [f"a context of {largest:,} tokens"] if 0 < largest < context else []
