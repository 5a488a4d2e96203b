"""What a run needs and in which state it is: sizes, whether it fits, what its records say.

States, the first that holds: a complete valid record (*done*); a complete invalid one (*invalid*:
measured, and not to be measured again unasked); results in a journal (*unfinished*); its entry is
*blocked*; a *failed* record; it *does_not_fit*; else it is *todo*. So work begun goes on before
anything is judged again, and a failure is not hidden by an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tokrig.naming import of_hub
from tokrig.plan.model import Past, PlanInputs, RigMemory, Run, Shape, State, Weights
from tokrig.quants import (
    OVERHEAD_BYTES,
    Size,
    bits_per_weight,
    cache_bytes,
    context_for,
    would_fit,
)
from tokrig.spec.campaign import CampaignFile, Condition, ModelSource
from tokrig.units import human_bytes

_Fit = tuple[bool | None, str]
"""Whether a run fits, None where nobody knows; a sentence unless it does."""


class Sizes:
    """Sizes of the models of these campaigns. ``here`` is the rig whose disk ``known`` tells of."""

    def __init__(self, files: Sequence[CampaignFile], known: PlanInputs, here: str | None) -> None:
        self.known, self.here = known, here
        self.models: Mapping[str, Mapping[str, ModelSource]] = {
            file.name: file.campaign.models for file in files
        }
        self._single = {
            (campaign, Weights(name, s.repo, s.revision, s.file, s.file).reference): s
            for campaign, models in self.models.items()
            for name, s in models.items()
            if not s.needs
        }
        self._served: dict[tuple[str, Weights, str | None], Size] = {}

    def source(self, run: Run) -> ModelSource | None:
        """What the campaign declares of a run's model."""
        return self.models[run.campaign].get(run.weights.name)

    def served(self, run: Run) -> Size:
        """Bytes of the weights that are loaded, and of the cache for each token.

        In this order: the file's own size, what the campaign declares for the quant, parameters ×
        bits per weight of the quant.
        """
        name = (run.campaign, run.weights, run.quant)
        if name not in self._served:
            self._served[name] = self._size(run)
        return self._served[name]

    def _size(self, run: Run) -> Size:
        known = self.known.sizes.get(run.weights.reference, Size())
        source = self.source(run)
        if source is None:
            return known
        cache = known.kv_bytes_per_token or source.kv_bytes_per_token
        if known.bytes is not None and run.weights.quantize is None:
            return replace(known, kv_bytes_per_token=cache)
        count, origin = _declared(source, run.quant)
        return Size(count, cache, known.here, origin)

    def read_share(self, run: Run) -> float:
        """The share of the weights that one token reads: all, or a mixture's active experts."""
        source = self.source(run)
        if source and source.parameters and source.active_parameters:
            return min(1.0, source.active_parameters / source.parameters)
        return 1.0

    def draft(self, run: Run) -> Size | None:
        """The draft model; None for a run without one."""
        reference = run.setting("draft_model")
        if reference is None:
            return None
        known = self.known.sizes.get(reference, Size())
        if known.bytes is None and (source := self._single.get((run.campaign, reference))):
            count, origin = _declared(source, None)
            return Size(count, known.kv_bytes_per_token, known.here, origin)
        return known

    def downloads(self, run: Run) -> dict[str, int | None]:
        """What of a hub a run needs that is not on its rig's disk: bytes by reference, None where
        unknown. What lies on the disks of other rigs than ``here`` is not known, and counts."""
        found: dict[str, int | None] = {}
        for reference, size in (
            (run.weights.reference, self.served(run)),
            (run.setting("draft_model"), self.draft(run)),
        ):
            if reference and size and of_hub(reference):
                if not (size.here and run.rig == self.here):
                    found[reference] = size.bytes
        return found


def _declared(source: ModelSource, quant: str | None) -> tuple[int | None, str]:
    """Bytes that the campaign declares or lets estimate, and which of the two."""
    declared = source.bytes.get(quant) if quant else None
    if quant is None and len(source.bytes) == 1:
        declared = next(iter(source.bytes.values()))
    if declared is not None:
        return declared, "declared"
    bits = bits_per_weight(quant) if quant else None
    estimate = round(source.parameters * bits / 8) if source.parameters and bits else None
    return estimate, "estimated"


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
        self._found: dict[tuple[object, ...], _Fit] = {}

    def of(self, run: Run, condition: Condition) -> _Fit:
        """Whether weights, cache of all slots and overhead fit into the memory of ``condition``.

        Bytes = weights + draft model + cache per token × context per slot × slots + overhead.
        """
        asked = run.settings.get
        what = (run.campaign, run.rig, run.weights, run.quant, run.workloads, run.concurrency)
        name = (*what, asked("draft_model"), asked("kv_type"), asked("context"), condition)
        if name not in self._found:
            self._found[name] = self._fit(run, condition)
        return self._found[name]

    def _fit(self, run: Run, condition: Condition) -> _Fit:
        rig = self.rigs.get(run.rig, RigMemory())
        room = rig.vram_bytes if condition == "fits_vram" else rig.memory_bytes
        memory = "VRAM" if condition == "fits_vram" else "memory"
        if room == 0:
            return (False, f"{run.rig} has no graphics card")
        if room is None:
            return (None, f"the {memory} of {run.rig} is not known")
        size, draft = self.sizes.served(run), self.sizes.draft(run)
        if size.bytes is None or (draft and draft.bytes is None):
            what = "model" if size.bytes is None else "draft model"
            return (None, f"the size of the {what} is not known")
        weights = size.bytes + (draft.bytes or 0 if draft else 0)
        context, slots = self.context(run), self.slots(run)
        kv_type = run.setting("kv_type") or "f16"
        each = cache_bytes(kv_type)
        if size.kv_bytes_per_token is None or each is None or context is None:
            if weights + OVERHEAD_BYTES > room:
                parts = f"weights of {human_bytes(weights)} ({size.source})"
                return (False, _too_large(parts, weights + OVERHEAD_BYTES, room, memory))
            return (None, _unknown_cache(run, each, context))
        token = size.kv_bytes_per_token * slots
        cache = round(token * each / 2.0 * context)  # f16 takes two bytes
        if (total := weights + cache + OVERHEAD_BYTES) <= room:
            return True, ""
        parts = f"weights of {human_bytes(weights)} ({size.source}), "
        parts += f"a cache of {human_bytes(cache)} for {slots} × {context:,} tokens"
        options = would_fit(
            room - OVERHEAD_BYTES,
            weights,
            token,
            context,
            kv_type=kv_type,
            bits=bits_per_weight(run.quant) if run.quant else None,
            gguf=run.weights.repo is None or run.weights.file is not None,
        )
        fitting = f"; would fit: {' or '.join(options)}" if options else ""
        return (False, _too_large(parts, total, room, memory) + fitting)

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
        return context_for(longest, limit)

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


class Judgement(NamedTuple):
    """A state, with what there is to say about it."""

    state: State
    why: str = ""
    until: str = ""
    record: str | None = None


class Judge:
    """Judges the runs of these campaigns."""

    def __init__(
        self,
        files: Sequence[CampaignFile],
        past: Iterable[Past],
        unfinished: frozenset[str],
        fits: Fits,
    ) -> None:
        self.entries = {(f.name, entry.name): entry for f in files for entry in f.campaign.entries}
        self.best: dict[str, Past] = {}
        for record in past:
            if record.planned is not None:
                before = self.best.get(record.planned)
                if before is None or _rank(record) > _rank(before):
                    self.best[record.planned] = record
        self.unfinished, self.fits = unfinished, fits

    def state(self, run: Run) -> Judgement:
        """The state of a run."""
        record = self.best.get(run.key)
        if record and record.status == "complete":
            if record.verdict != "invalid":
                return Judgement("done", record=record.id)
            return Judgement("invalid", "its figures did not pass every check", record=record.id)
        if run.key in self.unfinished:
            return Judgement("unfinished")
        entry = self.entries[run.campaign, run.entry]
        if entry.blocked:
            return Judgement("blocked", entry.blocked.why, entry.blocked.until)
        if record:
            return Judgement("failed", record.failure or f"it was {record.status}", "", record.id)
        unknown = ""
        for condition in entry.when:
            fits, why = self.fits.of(run, condition)
            if fits is False:
                return Judgement("does_not_fit", why)
            unknown = unknown or why
        return Judgement("todo", f"not known whether it fits: {unknown}" if unknown else "")


def _rank(record: Past) -> tuple[bool, bool, str, str]:
    """What stands for a run: a complete record before a failed one, a valid one before an invalid
    one, then the newest."""
    complete = record.status == "complete"
    return complete, complete and record.verdict != "invalid", record.started_at or "", record.id
