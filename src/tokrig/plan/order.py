"""From campaign files to a plan: all runs with their states and costs, in the order to do them.

What is to be done before what is not; higher priorities first; then what was begun; then so that
as little as possible is changed on a rig: its driver, then the model's file (the one in use goes
on, then those at hand, then small downloads), then the quant made of it, then the power cap. What
is set when a group ends is what the next group begins with. Everything else stays in the order of
the files, and the runs of an A B B A sequence stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from tokrig.errors import SpecError
from tokrig.plan import TO_DO, Plan, PlanInputs, Planned, RigMemory, Run
from tokrig.plan.expand import expand, key_before
from tokrig.plan.judge import Judge, Sizes
from tokrig.spec.campaign import CampaignFile
from tokrig.units import GIB

_Unit = list[Planned]
"""Runs that stay together: one, or a whole A B B A sequence."""

# What a run needs to be set, from what is most to what is least trouble to change.
_SET: tuple[Callable[[Run], Hashable], ...] = (
    lambda run: run.driver,
    lambda run: run.weights.reference,
    lambda run: run.weights,
    lambda run: run.setting("power_cap_w"),
)


def plan(files: Sequence[CampaignFile], known: PlanInputs) -> Plan:
    """All runs that ``files`` mean, with their states and costs, in the order to do them.

    Raises SpecError with file and line: an unknown model or rig, a cap outside the card's range,
    an exclude that leaves nothing out, two entries that mean the same run.
    """
    runs = [run for file in files for run in expand(file, known)]
    _require_distinct(files, runs)
    known = replace(_by_todays_keys(known, runs), rigs=_with_declared(files, known))
    sizes = Sizes(files, known)
    judge = Judge(files, known, sizes)
    ordered = _ordered([judge.judged(run) for run in runs], sizes)
    fetched: set[tuple[str, str]] = set()
    for place, planned in enumerate(ordered):
        if planned.state in TO_DO:
            bytes_ = _download(planned.run, sizes, fetched)
            ordered[place] = replace(planned, download_bytes=bytes_)
    return Plan(tuple(files), tuple(ordered))


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
        first_file = by_name.setdefault(file.name, file)
        if first_file is not file:
            raise SpecError(
                f"{file.path}: there is a campaign {file.name!r} already: {first_file.path}",
                hint="records name their campaign: rename one of the files, or name it once",
            )
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


def _with_declared(files: Sequence[CampaignFile], known: PlanInputs) -> dict[str, RigMemory]:
    """What is known of the rigs; what campaigns declare fills the gaps, the first file first."""
    rigs = dict(known.rigs)
    for file in files:
        for name, facts in file.campaign.rigs.items():
            declared: dict[str, Any] = {
                "vram_bytes": _times(facts.vram_gib, GIB),
                "memory_bytes": _times(facts.memory_gib, GIB),
                "bandwidth_bytes_per_s": _times(facts.memory_bandwidth_gb_per_s, 10**9),
                "power_w": facts.power_w,
            }
            rig = rigs.get(name, RigMemory())
            gaps = {key: told for key, told in declared.items() if getattr(rig, key) is None}
            rigs[name] = replace(rig, **gaps)
    return rigs


def _times(declared: float | None, unit: int) -> int | None:
    return None if declared is None else round(declared * unit)


def _download(run: Run, sizes: Sizes, fetched: set[tuple[str, str]]) -> int | None:
    """Bytes that this run has to fetch: a file that an earlier run of its rig fetches costs
    nothing. None where a size is not known."""
    needed = sizes.downloads(run)
    new = [count for name, count in needed.items() if (run.rig, name) not in fetched]
    fetched.update((run.rig, name) for name in needed)
    return None if None in new else sum(filter(None, new))


def _ordered(runs: Sequence[Planned], sizes: Sizes) -> list[Planned]:
    """The same runs in the order to do them; ``runs`` come as their campaigns name them."""
    turns: dict[tuple[bool, int, bool], dict[str, list[_Unit]]] = {}
    for unit in _units(runs):
        turns.setdefault(_turn(unit), {}).setdefault(unit[0].run.rig, []).append(unit)
    by_rig: dict[str, _Changes] = {}
    found: list[Planned] = []
    for turn in sorted(turns):
        for rig, units in turns[turn].items():
            if rig not in by_rig:
                by_rig[rig] = _Changes(sizes, sizes.known.rigs.get(rig, RigMemory()).driver)
            for unit in by_rig[rig].fewest(units):
                found += unit
    return found


def _units(runs: Sequence[Planned]) -> Iterator[_Unit]:
    unit: _Unit = []
    for planned in runs:
        if unit and planned.run.position <= 1:
            yield unit
            unit = []
        unit.append(planned)
    if unit:
        yield unit


def _turn(unit: _Unit) -> tuple[bool, int, bool]:
    """What comes before all economy: something to do, the priority, having been begun."""
    states = {planned.state for planned in unit}
    idle = states.isdisjoint(TO_DO)
    begun = "unfinished" in states or (not idle and len(states) > 1)
    return idle, -unit[0].run.priority, not begun


class _Changes:
    """One rig, with what is set on it at this point of the plan."""

    def __init__(self, sizes: Sizes, driver: str | None) -> None:
        self.sizes = sizes
        self.now: list[Hashable] = [driver, None, None, None]

    def fewest(self, units: list[_Unit], level: int = 0) -> list[_Unit]:
        """``units`` grouped by what they need set, level by level, what is set already first."""
        if level == len(_SET) or len(units) == 1:
            last = units[-1][-1].run
            self.now = [last.driver or self.now[0], *(value(last) for value in _SET[1:])]
            return units
        groups: dict[Hashable, list[_Unit]] = {}
        for unit in units:
            value = _SET[level](unit[0].run)
            if level == 0 and value is None:  # any driver will do
                value = self.now[0]
            groups.setdefault(value, []).append(unit)
        found: list[_Unit] = []
        for value in sorted(groups, key=lambda v: self.trouble(level, v, groups[v][0][0].run)):
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
        wanted = (run.weights.reference, run.weights.quantize)
        return True, level == 2 and wanted[1] is not None and wanted not in self.sizes.known.made
