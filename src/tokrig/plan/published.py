"""What the published records tell a plan: which runs are done, and what the machines are. Pure.

Nothing of this machine goes in, neither its disk nor its network: whoever plans from the same
content folder and the same campaigns gets the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from tokrig.naming import gpus_known
from tokrig.plan import Past, Plan, PlanInputs, RigMemory, Shape, plan
from tokrig.record.model import Rig
from tokrig.spec.campaign import CampaignFile
from tokrig.store.facts import RigFacts, RigFigures
from tokrig.store.load import Run

# What a campaign's runs stand under where neither it nor its entries name a machine.
ANY_RIG = "any-rig"


def public_plan(
    files: Sequence[CampaignFile], runs: Sequence[Run], rigs: Mapping[str, RigFacts]
) -> Plan:
    """The plan of ``files`` as far as records and the campaigns themselves tell: of a machine
    what its newest record says, and its written bandwidth. ``runs`` come newest first.

    Names of models are taken as they are: which ones a catalog or an engine's own store knows is
    for the machine to say that runs them. Raises SpecError with file and line.
    """
    machines: dict[str, RigMemory] = {}
    for run in runs:
        rig = run.record.rig
        if rig.id not in machines:
            machines[rig.id] = memory_of(rig, rigs.get(rig.id))
    shapes = _shapes(runs)
    return plan(
        files,
        PlanInputs(past=[_past(run) for run in runs], rigs=machines, shapes=shapes),
        here=ANY_RIG,
        catalog=None,
        own_models=(),
        needs={name: s.prompt_tokens + s.answer_tokens for name, s in shapes.items()},
    )


def _past(run: Run) -> Past:
    record, provenance = run.record, run.record.provenance
    return Past(
        id=record.id,
        planned=provenance.planned,
        status=record.status,
        verdict=record.validity.verdict,
        failure=record.failure.message if record.failure else None,
        rig=record.rig.id,
        level=provenance.level,
        results=len(record.results),
        started_at=provenance.started_at,
        duration_s=seconds_between(provenance.started_at, provenance.finished_at),
        model_bytes=record.model.bytes,
        backend=record.backend.name,
    )


def seconds_between(started_at: str | None, finished_at: str | None) -> float | None:
    """From one to the other; None for what are no two moments in order."""
    try:
        begin, end = (datetime.fromisoformat(one or "") for one in (started_at, finished_at))
        seconds = (end - begin).total_seconds()
    except (ValueError, TypeError):  # no date; one with and one without a time zone
        return None
    return seconds if seconds > 0 else None


def memory_of(rig: Rig, facts: RigFigures | None) -> RigMemory:
    """A machine as a plan knows it: from its record, and what is written about it."""
    sizes = [gpu.vram_bytes for gpu in rig.gpus if gpu.vram_bytes is not None]
    width = facts.memory_bandwidth_bytes_per_s if facts else None
    return RigMemory(
        vram_bytes=sum(sizes) if len(sizes) == len(rig.gpus) and gpus_known(rig) else None,
        memory_bytes=rig.memory.usable_bytes or rig.memory.total_bytes,
        bandwidth_bytes_per_s=(width.measured or width.theoretical) if width else None,
        power_w=_power_range(rig),
        driver=next((gpu.driver for gpu in rig.gpus if gpu.driver), None),
    )


def _power_range(rig: Rig) -> tuple[float, float] | None:
    """Caps that every card of the rig takes; None where they do not tell."""
    least = [gpu.power_min_w for gpu in rig.gpus if gpu.power_min_w is not None]
    most = [gpu.power_max_w for gpu in rig.gpus if gpu.power_max_w is not None]
    if not rig.gpus or not len(least) == len(most) == len(rig.gpus):
        return None
    return max(least), min(most)


def _shapes(runs: Iterable[Run]) -> dict[str, Shape]:
    """Workloads as they were measured: their longest prompts and answers, all concurrencies."""
    found: dict[str, Shape] = {}
    for run in runs:
        for result in run.record.results:
            shape = result.workload
            name, prompt, answer = shape.name, shape.prompt_tokens, shape.answer_tokens
            if prompt is None or answer is None:
                continue
            old = found.get(name, Shape(prompt, answer, ()))
            levels = tuple(sorted({*old.concurrencies, result.concurrency}))
            prompt, answer = max(prompt, old.prompt_tokens), max(answer, old.answer_tokens)
            found[name] = Shape(prompt, answer, levels)
    return found
