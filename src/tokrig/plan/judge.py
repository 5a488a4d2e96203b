"""In which state a run is: what its records say, whether it fits, how long it takes.

**States**, the first that holds: a complete valid record (*done*); a complete invalid one
(*invalid*: measured, and not to be measured again unasked); results in a journal (*unfinished*);
its entry is *blocked*; a *failed* record; it *does_not_fit*; else it is *todo*. So work begun goes
on before anything is judged again, and a failure is not hidden by an estimate.

**Time.** From records of plain results alone: that of the nearest model size on the same rig and
backend, else on the same rig. time = its duration × (bytes / its bytes) × (cells × server starts /
its own); a cell at a depth counts for as many plain ones as it has steps more.

From bytes, a lower bound in spirit and no prediction: a decode step reads the weights once,
whatever the concurrency, at ``EFFICIENCY`` of the rig's bandwidth; prefill is ``PREFILL_GAIN``
times as fast per token. For each server start:

    start = READY_S + bytes / LOAD_BYTES_PER_S
    steps = answer + concurrency × (depth + prompt) / PREFILL_GAIN
    cell  = (warm-ups + iterations) × steps × step

Requests that arrive by themselves take as long as they arrive, those of a trace as long as it is;
a search for a rate takes ``SEARCH_PROBES`` of these, and two for each further server start.

The constants are chosen (t); they decide estimates, never a published figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Literal

from tokrig.naming import of_hub
from tokrig.plan import (
    TO_DO,
    Past,
    PlanInputs,
    Planned,
    RigMemory,
    Run,
    Shape,
    State,
    Weights,
)
from tokrig.quants import OVERHEAD_BYTES, Size, bits_per_weight, cache_bytes, context_for, would_fit
from tokrig.record.samples import Cell
from tokrig.spec.arrivals import FIRST_RATE, SLOTS, planned_s, rate_ends
from tokrig.spec.campaign import CampaignFile, Condition, ModelSource
from tokrig.spec.run import LEVELS, SESSION, default_shapes, ladder_steps
from tokrig.units import human_bytes, seconds_of

EFFICIENCY = 0.6
PREFILL_GAIN = 10
READY_S = 10.0
LOAD_BYTES_PER_S = 1e9
NO_LIMIT = 1 << 62
# The first repeat of a search for a rate doubles it some times and halves what is between four
# times; each further one measures the two rates next to the limit.
SEARCH_PROBES = 8
TRACE: Literal["trace"] = "trace"
"""The name of a trace's requests, as a workload and as a load."""

Cells = list[Cell]
"""Workloads × concurrencies × depths."""


class Sizes:
    """Sizes of the models of these campaigns, as far as they are known."""

    def __init__(self, files: Sequence[CampaignFile], known: PlanInputs) -> None:
        self.known = known
        self.models = {file.name: file.campaign.models for file in files}
        self.single = {
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
            size, source = self.known.sizes.get(run.weights.reference, Size()), self.source(run)
            if source is not None:
                cache = size.kv_bytes_per_token or source.kv_bytes_per_token
                if size.bytes is None or run.weights.quantize is not None:
                    size = _declared(source, run.quant, size)
                size = replace(size, kv_bytes_per_token=cache)
            self._served[name] = size
        return self._served[name]

    def draft(self, run: Run) -> Size | None:
        """The draft model; None for a run without one."""
        reference = run.setting("draft_model")
        if reference is None:
            return None
        size = self.known.sizes.get(reference, Size())
        source = self.single.get((run.campaign, reference))
        return _declared(source, None, size) if source and size.bytes is None else size

    def downloads(self, run: Run) -> dict[str, int | None]:
        """What of a hub a run needs that is not on its rig's disk: bytes by reference, None where
        unknown. What lies on the disks of other rigs than ``here`` is not known, and counts."""
        needed = (
            (run.weights.reference, self.served(run)),
            (run.setting("draft_model"), self.draft(run)),
        )
        return {
            reference: size.bytes
            for reference, size in needed
            if reference and size and of_hub(reference)
            if not (size.here and run.rig == self.known.here)
        }


def _declared(source: ModelSource, quant: str | None, size: Size) -> Size:
    """``size`` with the bytes that the campaign declares or lets estimate."""
    declared = source.bytes.get(quant) if quant else None
    if quant is None and len(source.bytes) == 1:
        declared = next(iter(source.bytes.values()))
    if declared is not None:
        return replace(size, bytes=declared, source="declared")
    bits = bits_per_weight(quant) if quant else None
    estimate = round(source.parameters * bits / 8) if source.parameters and bits else None
    return replace(size, bytes=estimate, source="estimated")


class Judge:
    """Judges the runs of these campaigns."""

    def __init__(self, files: Sequence[CampaignFile], known: PlanInputs, sizes: Sizes) -> None:
        self.known, self.sizes = known, sizes
        self.entries = {(f.name, entry.name): entry for f in files for entry in f.campaign.entries}
        self.best = {past.planned: past for past in sorted(known.past, key=_rank)}
        # By rig and backend, and by rig: (log of the model's bytes, seconds for each byte, cell
        # and server start) of each record that tells how long its cells took.
        samples = defaultdict[tuple[str, str | None], list[tuple[float, float]]](list)
        for past in known.past:
            size, duration, level = past.model_bytes, past.duration_s, LEVELS.get(past.level or "")
            if past.status == "complete" and level and size and duration and past.results:
                sample = log(size), duration / (size * past.results * level.repeats)
                for backend in {past.backend, None}:
                    samples[past.rig, backend].append(sample)
        self.samples = {name: sorted(of_name) for name, of_name in samples.items()}

    def judged(self, run: Run) -> Planned:
        """The run with its state and its time; what it downloads depends on what comes before."""
        shapes, one = self.known.shapes, Shape(0, 0)
        steps = tuple(ladder_steps(run.ladder)) if run.ladder else run.concurrency
        rates = run.rate or ((FIRST_RATE,) if run.others.get("find_rate") else (None,))
        cells = [
            Cell(name, at, depth, *(("poisson", rate_ends(rate)[1]) if rate else ()))
            for name in run.workloads or tuple(self.known.needs)
            for depth in run.depth or (0,)
            for rate in rates
            for at in steps or ((SLOTS,) if rate else shapes.get(name, one).concurrencies)
        ]
        if run.others.get("trace"):
            cells = [Cell(TRACE, (steps or (SLOTS,))[0], load=TRACE)]
        cells = cells[:1] if run.sustain else cells
        state, why, until, record = self._state(run, cells)
        time_s = self._time_s(run, cells) if state in TO_DO else None
        return Planned(run, state, why, until, record, None, time_s, len(cells))

    def _names(self, run: Run) -> tuple[str, ...]:
        """The workloads of a run; one that names depths alone measures the chat."""
        if run.others.get("trace"):
            return (TRACE,)
        return run.workloads or (
            ("chat",) if run.depth else tuple(default_shapes(self.known.needs))
        )

    def _state(self, run: Run, cells: Cells) -> tuple[State, str, str, str | None]:
        """With why, until when, and the record that tells so."""
        past = self.best.get(run.key)
        if past and past.status == "complete":
            if past.verdict != "invalid":
                return "done", "", "", past.id
            return "invalid", "its figures did not pass every check", "", past.id
        if run.key in self.known.unfinished:
            return "unfinished", "", "", None
        entry = self.entries[run.campaign, run.entry]
        if entry.blocked:
            return "blocked", entry.blocked.why, entry.blocked.until, None
        if past:
            return "failed", past.failure or f"it was {past.status}", "", past.id
        unknown = ""
        for condition in entry.when:
            fits, why = self._fit(run, condition, cells)
            if fits is False:
                return "does_not_fit", why, "", None
            unknown = unknown or why
        return "todo", f"not known whether it fits: {unknown}" if unknown else "", "", None

    def _fit(self, run: Run, condition: Condition, cells: Cells) -> tuple[bool | None, str]:
        """Whether weights, cache of all slots and overhead fit into the memory of ``condition``,
        None where nobody knows; a sentence unless they do.

        Bytes = weights + draft model + cache per token × context per slot × slots + overhead.
        """
        rig = self.known.rigs.get(run.rig, RigMemory())
        room, memory = rig.memory_bytes, "memory"
        if condition == "fits_vram":
            room, memory = rig.vram_bytes, "VRAM"
        if room == 0:
            return False, f"{run.rig} has no graphics card"
        if room is None:
            return None, f"the {memory} of {run.rig} is not known"
        size, draft = self.sizes.served(run), self.sizes.draft(run)
        if size.bytes is None or (draft and draft.bytes is None):
            what = "model" if size.bytes is None else "draft model"
            return None, f"the size of the {what} is not known"
        weights = size.bytes + ((draft and draft.bytes) or 0)
        # A ladder has the steps that fit.
        slots = 1 if run.ladder else max((cell.concurrency for cell in cells), default=1)
        context = self._context(run)
        kv_type = run.setting("kv_type") or "f16"
        each, per_token = cache_bytes(kv_type), size.kv_bytes_per_token
        total, unknown, options, cache = weights + OVERHEAD_BYTES, "", [], ""
        if each is None:
            unknown = f"the size of a cache of type {kv_type} is not known"
        elif context is None:
            unknown = "the context that its shapes take is not known"
        elif per_token is None:
            unknown = "the cache's bytes per token are not known"
        else:
            held = round(per_token * slots * each / 2.0 * context)  # f16 takes two bytes
            cache = f", a cache of {human_bytes(held)} for {slots} × {context:,} tokens"
            if (total := total + held) > room:
                options = would_fit(
                    room - OVERHEAD_BYTES,
                    weights,
                    per_token * slots,
                    context,
                    kv_type=kv_type,
                    bits=bits_per_weight(run.quant) if run.quant else None,
                    gguf=run.weights.repo is None or run.weights.file is not None,
                )
        if total <= room:
            return (None, unknown) if unknown else (True, "")
        why = f"{human_bytes(total)} of {memory} needed, {human_bytes(room)} there: "
        why += f"weights of {human_bytes(weights)} ({size.source}){cache}, "
        why += f"{human_bytes(OVERHEAD_BYTES)} for the engine"
        return False, f"{why}; would fit: {' or '.join(options)}" if options else why

    def _context(self, run: Run) -> int | None:
        """Tokens per slot: as asked for, else what the longest shape takes that the model was
        made for. None where the length of a shape is not known."""
        if (asked := run.setting("context")) is not None:
            return int(asked)
        source, lengths = self.sizes.source(run), self.known.needs
        limit = source.context if source and source.context else NO_LIMIT
        names = self._names(run)
        if not names or any(name not in lengths for name in names):
            return None
        needs = [lengths[name] + depth for name in names for depth in run.depth or (0,)]
        if names == (SESSION,):  # it ends with the last turn that fits
            needs = [min(*needs, limit)]
        return context_for(max((need for need in needs if need <= limit), default=0), limit)

    def _time_s(self, run: Run, cells: Cells) -> float | None:
        """Seconds that a run takes; None where nothing tells."""
        size, level = self.sizes.served(run).bytes, LEVELS[run.level]
        if not size:
            return None
        if run.sustain:
            return READY_S + size / LOAD_BYTES_PER_S + seconds_of(run.sustain)
        if any(cell.is_open for cell in cells):
            lasts_s = planned_s(run.others)
            if run.others.get("trace"):
                lasts_s = self.known.traces_s.get(run.key, 0.0)
            phases = len(cells) * level.repeats
            if run.others.get("find_rate"):
                phases = len(cells) * (SEARCH_PROBES + 2 * (level.repeats - 1))
            start = READY_S + size / LOAD_BYTES_PER_S
            return level.repeats * start + phases * lasts_s if lasts_s else None
        samples = self.samples.get((run.rig, run.backend)) or self.samples.get((run.rig, None))
        if samples:
            wanted = log(size)
            at = bisect_left(samples, (wanted, 0.0))
            near = samples[max(at - 1, 0) : at + 1]
            _, seconds = min(near, key=lambda sample: abs(sample[0] - wanted))
            return seconds * size * sum(map(self._weight, cells)) * level.repeats
        bandwidth = self.known.rigs.get(run.rig, RigMemory()).bandwidth_bytes_per_s
        if not bandwidth or any(cell.workload not in self.known.shapes for cell in cells):
            return None
        source, share = self.sizes.source(run), 1.0  # of a mixture a token reads the active experts
        if source and source.parameters and source.active_parameters:
            share = min(1.0, source.active_parameters / source.parameters)
        step = size * share / (bandwidth * EFFICIENCY)
        start = READY_S + size / LOAD_BYTES_PER_S
        sets = level.warmups + level.iterations
        start += sum(sets * self._steps(cell, cell.depth_tokens) * step for cell in cells)
        return level.repeats * start

    def _steps(self, cell: Cell, depth_tokens: int) -> float:
        """Decode steps that take as long as one request of each worker does."""
        shape = self.known.shapes[cell.workload]
        prompt = depth_tokens + shape.prompt_tokens
        return shape.answer_tokens + cell.concurrency * prompt / PREFILL_GAIN

    def _weight(self, cell: Cell) -> float:
        """How many plain cells a cell takes as long as."""
        if not cell.depth_tokens or cell.workload not in self.known.shapes:
            return 1.0
        return self._steps(cell, cell.depth_tokens) / max(self._steps(cell, 0), 1.0)


def _rank(record: Past) -> tuple[bool, bool, str, str]:
    """What stands for a run comes last: a complete record after a failed one, a valid one after an
    invalid one, then the newest."""
    complete = record.status == "complete"
    return complete, complete and record.verdict != "invalid", record.started_at or "", record.id
