"""From campaign files to a plan: all runs with their states and costs, in the order to do them.

**Order.** What is to be done before what is not; higher priorities first; then what was begun;
then so that as little as possible is changed on a rig: its driver, then the model's file (the one
in use goes on, then those at hand, then small downloads), then the quant made of it, then the
power cap. What is set when a group ends is what the next group begins with. Everything else stays
in the order of the files, and the runs of an A B B A sequence stay together.

**Time.** From records: that of the nearest model size on the same rig and backend, else on the
same rig. time = its duration × (bytes / its bytes) × (cells × server starts / its own).

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
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, log

from tokrig.errors import SpecError
from tokrig.plan.expand import Names, expand, key_before
from tokrig.plan.judge import Fits, Judge, Judgement, Sizes
from tokrig.plan.model import TO_DO, Past, Plan, PlanInputs, Planned, RigMemory, Run, Shape
from tokrig.spec.campaign import CampaignFile
from tokrig.spec.run import LEVELS
from tokrig.units import GIB

EFFICIENCY = 0.6
PREFILL_GAIN = 10
READY_S = 10.0
LOAD_BYTES_PER_S = 1e9

_Sample = tuple[float, float]
"""A record as (log of the model's bytes, seconds for each byte, cell and server start)."""

Judged = tuple[Run, Judgement]
_Unit = list[Judged]
"""Runs that stay together: one, or a whole A B B A sequence."""

# What a run needs to be set, from what is most to what is least trouble to change.
_SET: tuple[Callable[[Run], Hashable], ...] = (
    lambda run: run.driver,
    lambda run: run.weights.reference,
    lambda run: run.weights,
    lambda run: run.setting("power_cap_w"),
)


def plan(
    files: Sequence[CampaignFile],
    known: PlanInputs,
    *,
    here: str | None,
    catalog: Collection[str] | None,
    own_models: Collection[str],
    needs: Mapping[str, int],
) -> Plan:
    """All runs that ``files`` mean, with their states and costs, in the order to do them.

    ``here`` is this machine's rig id: the rig of campaigns that name none (None refuses those),
    and the one whose files ``known.sizes`` calls here. ``catalog`` are the names of models that
    need no declaration, None takes any; ``own_models`` the backends that know models by names of
    their own; ``needs`` the tokens of context that one request of a workload takes, for all
    workloads.

    Raises SpecError with file and line: an unknown model or rig, a cap outside the card's range,
    an exclude that leaves nothing out, two entries that mean the same run.
    """
    names = Names(here, catalog, own_models, known.rigs)
    runs = [run for file in files for run in expand(file, names)]
    _require_distinct(files, runs)
    rigs = _rigs(files, known)
    sizes = Sizes(files, known, here)
    known = _by_todays_keys(known, runs)
    judge = Judge(files, known.past, known.unfinished, Fits(sizes, rigs, known.shapes, needs))
    judged = ordered([(run, judge.state(run)) for run in runs], sizes, rigs)
    costs = Costs(known.past, sizes, rigs, known.shapes, tuple(needs))
    fetched: set[tuple[str, str]] = set()
    planned = []
    for run, (state, why, until, record) in judged:
        cells, download, time_s = costs.cells(run), None, None
        if state in TO_DO:
            time_s = costs.time_s(run, cells)
            download = _download(run, sizes, fetched)
        planned.append(Planned(run, state, why, until, record, download, time_s, len(cells)))
    return Plan(tuple(files), tuple(planned))


def _by_todays_keys(known: PlanInputs, runs: Sequence[Run]) -> PlanInputs:
    """The same with the keys of today in place of those that runs had before."""
    answered = {past.planned for past in known.past if past.planned} | known.unfinished
    if not (other := answered - {run.key for run in runs}):
        return known
    today = {key: run.key for run in runs if (key := key_before(run)) in other}
    past = [replace(p, planned=today.get(p.planned or "", p.planned)) for p in known.past]
    unfinished = frozenset(today.get(key, key) for key in known.unfinished)
    return replace(known, past=past, unfinished=unfinished) if today else known


def _require_distinct(files: Sequence[CampaignFile], runs: Sequence[Run]) -> None:
    """Raises SpecError for two campaigns of one name, or two runs that mean the same."""
    by_name: dict[str, CampaignFile] = {}
    for file in files:
        if file.name in by_name:
            raise SpecError(
                f"{file.path}: there is a campaign {file.name!r} already:"
                f" {by_name[file.name].path}",
                hint="records name their campaign: rename one of the files, or name it once",
            )
        by_name[file.name] = file
    seen: dict[str, Run] = {}
    for run in runs:
        first = seen.setdefault(run.key, run)
        if first is not run:
            one = by_name[first.campaign].where(first.entry)
            two = by_name[run.campaign].where(run.entry)
            what = " ".join(filter(None, (run.weights.name, run.quant, "with", run.backend)))
            if one == two:
                raise SpecError(
                    f"{two}: entry {run.entry!r} means the same run twice: {what} on {run.rig}",
                    hint="an axis changes nothing for this model, or an include repeats the matrix:"
                    " exclude one of the two",
                )
            raise SpecError(
                f"{two}: two entries mean the same run: {run.entry!r} and {first.entry!r} ({one})"
                f" both want {what} on {run.rig}",
                hint="exclude it from one of them, or ask one of them for more repeats",
            )


def _rigs(files: Sequence[CampaignFile], known: PlanInputs) -> dict[str, RigMemory]:
    """What is known of the rigs; what campaigns declare fills the gaps, the first file first."""
    rigs = dict(known.rigs)
    for file in files:
        for name, facts in file.campaign.rigs.items():
            rig = rigs.get(name, RigMemory())
            rigs[name] = RigMemory(
                vram_bytes=_first(rig.vram_bytes, facts.vram_gib, GIB),
                memory_bytes=_first(rig.memory_bytes, facts.memory_gib, GIB),
                bandwidth_bytes_per_s=_first(
                    rig.bandwidth_bytes_per_s, facts.memory_bandwidth_gb_per_s, 10**9
                ),
                power_w=rig.power_w or facts.power_w,
                driver=rig.driver,
            )
    return rigs


def _first(known: float | None, declared: float | None, unit: int) -> int | None:
    found = declared * unit if known is None and declared is not None else known
    return None if found is None else round(found)


def _download(run: Run, sizes: Sizes, fetched: set[tuple[str, str]]) -> int | None:
    """Bytes that this run has to fetch: a file that an earlier run of its rig fetches costs
    nothing. None where a size is not known."""
    total: int | None = 0
    for reference, count in sizes.downloads(run).items():
        if (run.rig, reference) not in fetched:
            fetched.add((run.rig, reference))
            total = None if total is None or count is None else total + count
    return total


def ordered(runs: Sequence[Judged], sizes: Sizes, rigs: Mapping[str, RigMemory]) -> list[Judged]:
    """The same runs in the order to do them; ``runs`` come as their campaigns name them."""
    turns: dict[tuple[bool, int, bool], dict[str, list[_Unit]]] = {}
    for unit in _units(runs):
        turns.setdefault(_turn(unit), {}).setdefault(unit[0][0].rig, []).append(unit)
    by_rig: dict[str, _Changes] = {}
    found: list[Judged] = []
    for turn in sorted(turns):
        for rig, units in turns[turn].items():
            if rig not in by_rig:
                by_rig[rig] = _Changes(sizes, rigs.get(rig, RigMemory()).driver)
            for unit in by_rig[rig].fewest(units):
                found += unit
    return found


def _units(runs: Sequence[Judged]) -> Iterator[_Unit]:
    unit: _Unit = []
    for judged in runs:
        if unit and judged[0].position <= 1:
            yield unit
            unit = []
        unit.append(judged)
    if unit:
        yield unit


def _turn(unit: _Unit) -> tuple[bool, int, bool]:
    """What comes before all economy: something to do, the priority, having been begun."""
    run, judgement = unit[0]
    if len(unit) == 1:
        state = judgement.state
        return state not in TO_DO, -run.priority, state != "unfinished"
    states = {judgement.state for _, judgement in unit}
    idle = states.isdisjoint(TO_DO)
    begun = "unfinished" in states or (not idle and len(states) > 1)
    return idle, -run.priority, not begun


class _Changes:
    """One rig, with what is set on it at this point of the plan."""

    def __init__(self, sizes: Sizes, driver: str | None) -> None:
        self.sizes = sizes
        self.now: list[Hashable] = [driver, None, None, None]

    def fewest(self, units: list[_Unit], level: int = 0) -> list[_Unit]:
        """``units`` grouped by what they need set, level by level, what is set already first."""
        if level == len(_SET) or len(units) == 1:
            last = units[-1][-1][0]
            self.now = [last.driver or self.now[0], *(value(last) for value in _SET[1:])]
            return units
        groups: dict[Hashable, list[_Unit]] = {}
        for unit in units:
            value = _SET[level](unit[0][0])
            if level == 0 and value is None:  # any driver will do
                value = self.now[0]
            groups.setdefault(value, []).append(unit)
        found: list[_Unit] = []
        for value in sorted(groups, key=lambda v: self.trouble(level, v, groups[v][0][0][0])):
            found += self.fewest(groups[value], level + 1)
        return found

    def trouble(self, level: int, value: Hashable, run: Run) -> tuple[bool, float]:
        """How much it takes to set a value: nothing where it is set; bytes to fetch of a file;
        making a quant that was not made before."""
        if value == self.now[level]:
            return False, 0
        if level == 1:
            counts = self.sizes.downloads(run).values()
            return True, sum(inf if count is None else count for count in counts)
        if level == 2:
            made = (run.weights.reference, run.weights.quantize) in self.sizes.known.made
            return True, 0 if made or run.weights.quantize is None else 1
        return True, 0


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
