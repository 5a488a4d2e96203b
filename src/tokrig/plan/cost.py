"""What a run costs in time: by records of this rig, else by the bytes a token reads.

From records: that of the nearest model size on the same rig and backend, else on the same rig.
time = its duration × (bytes / its bytes) × (cells × server starts / its own).

From bytes, a lower bound in spirit and no prediction: a decode step reads the weights once,
whatever the concurrency, at ``EFFICIENCY`` of the rig's bandwidth; prefill is ``PREFILL_GAIN``
times as fast per token. For each server start:

    start = READY_S + bytes / LOAD_BYTES_PER_S
    cell  = (warm-ups + iterations) × (answer + concurrency × prompt / PREFILL_GAIN) × step

The constants are chosen (t); they decide estimates, never a published figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import log

from tokrig.plan.model import Past, RigMemory, Run, Shape
from tokrig.plan.sizes import Sizes
from tokrig.spec.run import LEVELS

EFFICIENCY = 0.6
PREFILL_GAIN = 10
READY_S = 10.0
LOAD_BYTES_PER_S = 1e9

_Sample = tuple[float, float]
"""A record as (log of the model's bytes, seconds for each byte, cell and server start)."""


class Costs:
    """Estimates for the runs of one plan; ``workloads`` are all that there are."""

    def __init__(
        self,
        past: Iterable[Past],
        sizes: Sizes,
        rigs: Mapping[str, RigMemory],
        shapes: Mapping[str, Shape],
        workloads: tuple[str, ...],
    ) -> None:
        self.sizes, self.rigs, self.shapes, self.workloads = sizes, rigs, shapes, workloads
        by_name: dict[tuple[str, str | None], list[_Sample]] = defaultdict(list)
        for record in past:
            if sample := _sample(record):
                by_name[record.rig, None].append(sample)
                if record.backend is not None:
                    by_name[record.rig, record.backend].append(sample)
        self.samples = {name: sorted(samples) for name, samples in by_name.items()}
        self._found: dict[tuple[object, ...], float | None] = {}

    def cells(self, run: Run) -> list[tuple[str, int]]:
        """Workloads × concurrencies of a run."""
        names = run.workloads or self.workloads
        if run.concurrency:
            return [(name, at) for name in names for at in run.concurrency]
        default = Shape(0, 0)
        return [(n, at) for n in names for at in self.shapes.get(n, default).concurrencies]

    def time_s(self, run: Run, cells: list[tuple[str, int]]) -> float | None:
        """Seconds that a run takes; None where nothing tells."""
        size = self.sizes.served(run).bytes
        if not size:
            return None
        share = self.sizes.read_share(run)
        shapes = (run.workloads, run.concurrency)
        name = (run.rig, run.backend, run.level, size, share, *shapes)
        if name not in self._found:
            by_records = self._by_records(run, size, len(cells))
            by_bytes = self._by_bytes(run, size, share, cells)
            self._found[name] = by_bytes if by_records is None else by_records
        return self._found[name]

    def _by_records(self, run: Run, size: int, cells: int) -> float | None:
        samples = self.samples.get((run.rig, run.backend)) or self.samples.get((run.rig, None))
        if not samples:
            return None
        at = bisect_left(samples, (log(size), 0.0))
        near = samples[max(at - 1, 0) : at + 1]
        _, seconds = min(near, key=lambda sample: abs(sample[0] - log(size)))
        return seconds * size * cells * LEVELS[run.level].repeats

    def _by_bytes(
        self, run: Run, size: int, share: float, cells: list[tuple[str, int]]
    ) -> float | None:
        bandwidth = self.rigs.get(run.rig, RigMemory()).bandwidth_bytes_per_s
        if not bandwidth or any(name not in self.shapes for name, _ in cells):
            return None
        level, step = LEVELS[run.level], size * share / (bandwidth * EFFICIENCY)
        start = READY_S + size / LOAD_BYTES_PER_S
        for name, concurrency in cells:
            shape = self.shapes[name]
            steps = shape.answer_tokens + concurrency * shape.prompt_tokens / PREFILL_GAIN
            start += (level.warmups + level.iterations) * steps * step
        return level.repeats * start


def _sample(record: Past) -> _Sample | None:
    """None for a record that does not tell how long its cells took."""
    size, duration = record.model_bytes, record.duration_s
    level = LEVELS.get(record.level or "")
    if record.status != "complete" or not (level and size and duration and record.results):
        return None
    return log(size), duration / (size * record.results * level.repeats)
