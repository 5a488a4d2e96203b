"""From campaign files to a plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tokrig.errors import SpecError
from tokrig.plan.cost import Costs
from tokrig.plan.expand import expand, key_before
from tokrig.plan.fit import Fits
from tokrig.plan.model import TO_DO, Known, Plan, Planned, RigMemory, Run
from tokrig.plan.naming import Names
from tokrig.plan.order import ordered
from tokrig.plan.sizes import Sizes
from tokrig.plan.states import Judge
from tokrig.spec.campaign import CampaignFile, RigFacts
from tokrig.units import GIB


def plan(
    files: Sequence[CampaignFile],
    known: Known,
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


def _by_todays_keys(known: Known, runs: Sequence[Run]) -> Known:
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


def _rigs(files: Sequence[CampaignFile], known: Known) -> dict[str, RigMemory]:
    """What is known of the rigs; what campaigns declare fills the gaps, the first file first."""
    rigs = dict(known.rigs)
    for file in files:
        for rig, facts in file.campaign.rigs.items():
            rigs[rig] = _filled(rigs.get(rig, RigMemory()), facts)
    return rigs


def _filled(rig: RigMemory, facts: RigFacts) -> RigMemory:
    def first(known: float | None, declared: float | None, unit: float) -> float | None:
        return known if known is not None or declared is None else declared * unit

    vram = first(rig.vram_bytes, facts.vram_gib, GIB)
    memory = first(rig.memory_bytes, facts.memory_gib, GIB)
    return RigMemory(
        vram_bytes=None if vram is None else round(vram),
        memory_bytes=None if memory is None else round(memory),
        bandwidth_bytes_per_s=first(
            rig.bandwidth_bytes_per_s, facts.memory_bandwidth_gb_per_s, 1e9
        ),
        power_w=rig.power_w or facts.power_w,
        driver=rig.driver,
    )


def _download(run: Run, sizes: Sizes, fetched: set[tuple[str, str]]) -> int | None:
    """Bytes that this run has to fetch: a file that an earlier run of its rig fetches costs
    nothing. None where a size is not known."""
    total: int | None = 0
    for reference, count in sizes.downloads(run).items():
        if (run.rig, reference) not in fetched:
            fetched.add((run.rig, reference))
            total = None if total is None or count is None else total + count
    return total
