"""In which order runs are best done.

What is to be done before what is not; higher priorities first; then what was begun; then so that
as little as possible is changed on a rig: its driver, then the model's file (the one in use goes
on, then those at hand, then small downloads), then the quant made of it, then the power cap. What
is set when a group ends is what the next group begins with. Everything else stays in the order of
the files, and the runs of an A B B A sequence stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from math import inf

from tokrig.plan.model import TO_DO, RigMemory, Run
from tokrig.plan.sizes import Sizes
from tokrig.plan.states import Judgement

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
