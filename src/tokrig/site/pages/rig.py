"""The page of a rig: what the machine is, what it can do at most, and all that ran on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tokrig import naming
from tokrig.record.model import Rig
from tokrig.site import Output, formats, sharing, table
from tokrig.site.cells import histories
from tokrig.site.charts import Figure
from tokrig.site.charts.runs import MAX_ROWS, by_workload, models_on_rig
from tokrig.site.context import Site, key_of
from tokrig.store.facts import Family, Rate, RigFacts
from tokrig.store.load import Run


@dataclass(frozen=True)
class Capacity:
    """One capacity as it was written down; ``scale`` makes ``unit`` of its SI value."""

    name: str
    rate: Rate
    scale: float
    unit: str

    def text(self, value: float | None) -> str:
        """A value in ``unit``, empty where it is not known."""
        return "" if value is None else f"{value / self.scale:,.1f} {self.unit}"

    @property
    def share(self) -> float | None:
        """Measured / theoretical."""
        if self.rate.measured is None or self.rate.theoretical is None:
            return None
        return self.rate.measured / self.rate.theoretical


@dataclass(frozen=True)
class Setup:
    """What can change on a machine between two runs, and how many runs had it that way.

    ``since`` and ``until`` are the first and last day of those runs, empty where unknown.
    """

    rig: Rig
    runs: int
    since: str
    until: str


@dataclass(frozen=True)
class Level:
    """All lines at one concurrency, family by family. ``fastest`` is their highest tok/s."""

    concurrency: int
    groups: Sequence[table.Group]
    fastest: float


def outputs(site: Site) -> Iterable[Output]:
    """``rigs/<rig id>.html``."""
    for rig_id, runs in site.by_rig.items():
        path = f"rigs/{rig_id}.html"
        facts = site.rigs.get(rig_id)
        families = _families_of(runs, site.families)
        released = {name: family.released for name, family in families.items()}
        yield Output(
            path,
            key_of(
                [(run.digest, str(site.reproduced.get(run.id))) for run in runs],
                str(facts),
                released,
            ),
            partial(_page, site, path, runs, facts, families),
        )


def _page(
    site: Site,
    path: str,
    runs: Sequence[Run],
    facts: RigFacts | None,
    families: Mapping[str, Family],
) -> bytes:
    rig = runs[0].record.rig
    setups = _setups(runs)
    return site.page(
        path,
        "rig.html",
        reproduced=site.reproduced,
        title=(facts and facts.name) or naming.hardware_name(rig),
        card=sharing.of_many(runs, naming.hardware_name(rig), f"pictures/{path[:-5]}.png"),
        shared=sharing.Shared(path).on(site),
        rig=rig,
        facts=facts,
        capacities=_capacities(facts) if facts else [],
        backends=formats.backends(runs),
        setups=setups if len(setups) > 1 else [],
        runs=runs,
        apart=naming.apart(run.record for run in runs),
        models=len({naming.model_name(run.record.model) for run in runs}),
        charts=_charts(runs),
        drawn=MAX_ROWS,
        levels=_levels(runs, families),
        histories=histories(runs),
        invalid=[run for run in runs if _has_invalid(run)],
        unfinished=[run for run in runs if run.record.status != "complete" or run.record.skipped],
        errata=list(dict.fromkeys(erratum for run in runs for erratum in run.record.errata)),
    )


def _charts(runs: Sequence[Run]) -> list[Figure]:
    """The models of each shape side by side; the shapes side by side where there is one run."""
    if len(runs) == 1:
        drawn = [by_workload(runs, "decode")]
    else:
        drawn = [models_on_rig(runs, shape) for shape in table.shapes(runs)]
    return [figure for figure in drawn if figure]


def _families_of(runs: Iterable[Run], families: Mapping[str, Family]) -> dict[str, Family]:
    """What is known of the families that a machine ran."""
    named = {run.record.model.family for run in runs}
    return {name: families[name] for name in sorted(named & families.keys())}


def _capacities(facts: RigFacts) -> list[Capacity]:
    written = (
        ("memory bandwidth", facts.memory_bandwidth_bytes_per_s, 1e9, "GB/s"),
        ("matrix throughput", facts.matrix_flop_per_s, 1e12, "TFLOP/s"),
    )
    return [Capacity(name, rate, scale, unit) for name, rate, scale, unit in written if rate]


def _setups(runs: Iterable[Run]) -> list[Setup]:
    """The distinct setups, newest first: a driver or a power limit moves every figure."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        rig = run.record.rig
        cards = tuple((gpu.driver, gpu.power_limit_w) for gpu in rig.gpus)
        groups.setdefault((cards, rig.os, rig.kernel, rig.cpu.governor), []).append(run)
    found = []
    for group in groups.values():
        days = sorted(started[:10] for run in group if (started := _started(run)))
        since, until = (days[0], days[-1]) if days else ("", "")
        found.append(Setup(group[0].record.rig, len(group), since, until))
    return sorted(found, key=lambda setup: setup.until, reverse=True)


def _started(run: Run) -> str | None:
    return run.record.provenance.started_at


def _levels(runs: Sequence[Run], families: Mapping[str, Family]) -> list[Level]:
    there = {result.concurrency for run in runs for result in run.record.plain}
    found = []
    for concurrency in sorted(there):
        groups = table.groups(runs, families, concurrency)
        if groups:
            fastest = max(line.high for group in groups for line in group.lines)
            found.append(Level(concurrency, groups, fastest))
    return found


def _has_invalid(run: Run) -> bool:
    return any(result.validity.verdict == "invalid" for result in run.record.results)


PAGE = outputs
