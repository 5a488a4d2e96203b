"""Everything a run gathered becomes a record. Pure: no I/O but the clock it is handed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from tokrig import __version__
from tokrig.backends import Engine
from tokrig.errors import EngineError
from tokrig.record import checks
from tokrig.record.machine import computed_on
from tokrig.record.metrics import figures
from tokrig.record.model import (
    BackendFacts,
    Energy,
    Failure,
    Interference,
    LoadMemory,
    Model,
    PeakMemory,
    Provenance,
    Record,
    Result,
    Rig,
    Skipped,
    WorkloadFacts,
)
from tokrig.record.versions import METHODOLOGY_VERSION
from tokrig.run.journal import CellRecord, Observed
from tokrig.run.prepare import Prepared
from tokrig.run.privacy import ENVIRONMENT, scrub, scrub_argv
from tokrig.run.progress import Cell
from tokrig.run.prompting import target_of
from tokrig.run.state import EngineState, asked
from tokrig.units import significant

_SCOPES: Mapping[frozenset[str], Literal["gpu", "package"]] = {
    frozenset({"gpu"}): "gpu",
    frozenset({"cpu"}): "package",
}


@dataclass(frozen=True)
class Gathered:
    """What a run knows at any moment."""

    prepared: Prepared
    rig: Rig
    told: EngineState
    cells: Sequence[CellRecord]
    skipped: Sequence[Skipped]
    tokrig_commit: str | None = None


def record(gathered: Gathered, error: EngineError | None, now: datetime | None = None) -> Record:
    """The record of a finished or failed run."""
    prepared, told = gathered.prepared, gathered.told
    measured = {(c.workload, c.concurrency) for c in gathered.cells}
    results = [
        result(gathered, cell)
        for cell in prepared.cells
        if (cell.workload, cell.concurrency) in measured
    ]
    return Record(
        id=prepared.run_id,
        status="failed" if error else "complete",
        validity=checks.judge_run(results, complete=error is None),
        provenance=Provenance(
            kind="measured",
            tokrig_version=__version__,
            tokrig_commit=gathered.tokrig_commit,
            methodology=METHODOLOGY_VERSION,
            level=prepared.spec.level,
            started_at=_iso(prepared.started),
            finished_at=_iso(now or datetime.now(UTC)),
            server_starts=told.server_starts or None,
            seed=prepared.spec.seed,
            campaign=prepared.spec.campaign,
            planned=prepared.spec.planned,
        ),
        model=told.model,
        rig=gathered.rig,
        backend=told.backend,
        mode=told.mode,
        cold_start=told.cold,
        load_memory=told.load_memory,
        results=results,
        skipped=list(gathered.skipped),
        failure=_failure(error),
        notes=prepared.spec.notes,
    )


def result(gathered: Gathered, cell: Cell) -> Result:
    """The row of one cell over all repeats measured so far."""
    mine = [
        c
        for c in gathered.cells
        if (c.workload, c.concurrency) == (cell.workload, cell.concurrency)
    ]
    samples = [s for c in mine for s in c.samples]
    observed = [c.observed for c in mine]
    told, workload = gathered.told, gathered.prepared.workloads[cell.workload]
    counters = _counters(observed)
    # The repeats on a server that was running already are of one start.
    found = figures(samples, counters, starts=None if told.backend.managed else 1)
    client_cpu_share = _highest([o.client_cpu_share for o in observed])
    beside = interference(observed)
    memory = PeakMemory(
        engine_rss_bytes=_whole(_highest([o.engine_rss_bytes for o in observed])),
        engine_vram_bytes=_whole(_highest([o.engine_vram_bytes for o in observed])),
    )
    target = target_of(workload, told.backend.prompting.template_tokens)
    shape = WorkloadFacts(
        name=workload.name,
        content_hash=workload.content_hash,
        prompt_tokens=workload.prompt_tokens,
        target_prompt_tokens=target if target != workload.prompt_tokens else None,
        answer_tokens=workload.answer_tokens,
    )
    if client_cpu_share is not None:
        client_cpu_share = round(client_cpu_share, 4)
    validity = checks.judge(
        samples,
        checks.Seen(
            workload=shape,
            concurrency=cell.concurrency,
            backend=told.backend,
            mode=told.mode,
            model=told.model,
            rig=gathered.rig,
            interference=beside,
            memory=memory,
            load_memory=told.load_memory or LoadMemory(),
            counters=counters,
            client_cpu_share=client_cpu_share,
            compared_greedy=cell.workload in told.greedy,
        ),
    )
    tokens = sum(s.output_tokens or 0 for s in samples if s.phase == "measured")
    return Result(
        workload=shape,
        concurrency=cell.concurrency,
        validity=validity,
        **{name: getattr(found, name) for name in found.__dataclass_fields__},
        greedy=told.greedy.get(cell.workload),
        counters=counters or None,
        memory=memory,
        energy=energy(observed, tokens, computed_on(told.backend, told.mode)),
        client_cpu_share=client_cpu_share,
        interference=beside,
    )


def backend_facts(
    prepared: Prepared, engine: Engine | None, bypass: str | None = None
) -> BackendFacts:
    """How the server was run, and what it says it is."""
    argv, env = None, {}
    if prepared.launch is not None:
        # tokrig's environment is that of an engine that it starts, of no other.
        env = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        command = prepared.backend.command(replace(prepared.launch, port=0))
        argv = scrub_argv(command.argv)
        env |= {name: scrub(value) for name, value in command.env.items()}
    engine = engine or Engine("unknown")
    return BackendFacts(
        name=prepared.backend.name,
        engine=engine.engine,
        build=engine.build,
        api=engine.api,
        api_confirmed=engine.api_confirmed,
        api_asked=prepared.spec.api,
        wrapper=engine.wrapper,
        bypass=bypass,
        managed=prepared.launch is not None,
        argv=argv,
        env=env,
        asked=asked(prepared, engine),
        resolved=engine.resolved.model_copy(update={"device_bytes": dict(engine.device_bytes)})
        if engine.device_bytes
        else engine.resolved,
    )


def name_endpoint(model: Model, served_model: str | None) -> Model:
    """An endpoint's model is known only by the name it is served under."""
    if model.identity_from != "endpoint" or not served_model:
        return model
    return model.model_copy(update={"family": scrub(served_model)})


def _failure(error: EngineError | None) -> Failure | None:
    if error is None:
        return None
    return Failure(code=error.code, message=scrub(error.message), log_tail=scrub(error.log_tail))


def energy(observed: Sequence[Observed], tokens: int, computed: frozenset[str]) -> Energy | None:
    """Of the one device that computed, where every repeat could read its counter."""
    scope = _SCOPES.get(computed)
    if scope is None or not observed or not all(scope in o.energy_j for o in observed):
        return None
    total_j = sum(o.energy_j[scope] for o in observed)
    idle_j = None
    if all(scope in o.idle_w for o in observed):
        idle_j = sum(o.idle_w[scope] * o.window_s for o in observed)
    return Energy(
        scope=scope,
        total_j=round(total_j, 3),
        j_per_output_token=significant(total_j / tokens) if tokens else None,
        idle_subtracted_j_per_output_token=significant((total_j - idle_j) / tokens)
        if tokens and idle_j is not None
        else None,
    )


def interference(observed: Sequence[Observed]) -> Interference:
    """The worst of all repeats."""
    worst = {
        name: _highest([getattr(o, name) for o in observed])
        for name in Interference.model_fields
        if name != "throttle_reasons"
    }
    return Interference.model_validate({**worst, "throttle_reasons": _throttle(observed)})


def _counters(observed: Sequence[Observed]) -> dict[str, float]:
    """Sums over all repeats, of what every repeat counted."""
    if not observed or not all(o.counters for o in observed):
        return {}
    shared = set.intersection(*(set(o.counters) for o in observed))
    return {k: round(sum(o.counters[k] for o in observed), 6) for k in sorted(shared)}


def _throttle(observed: Sequence[Observed]) -> list[str] | None:
    if any(o.throttle_reasons is None for o in observed):
        return None
    return sorted({reason for o in observed for reason in o.throttle_reasons or []})


def _highest(values: Sequence[float | int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
