"""Everything a run gathered becomes a record, without what is nobody's business: users, hosts,
paths, keys, addresses."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import tokrig
from tokrig.backends import Engine
from tokrig.errors import EngineError, TokrigError
from tokrig.record import METHODOLOGY_VERSION, checks
from tokrig.record.ceiling import ceiling, matrix_share
from tokrig.record.ceiling import fields as ceiling_fields
from tokrig.record.conditions import computed_on
from tokrig.record.ladder import ladder_of
from tokrig.record.loads import Ladder, LoadNodes
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
from tokrig.record.privacy import without_private
from tokrig.record.quality import Reference, quality
from tokrig.record.quality_file import from_parquet
from tokrig.record.rate_limits import rate_limits
from tokrig.record.samples import Cell
from tokrig.record.sustained import sustained
from tokrig.run import guard
from tokrig.run.fitting import target_of
from tokrig.run.journal import CellRecord, Observed
from tokrig.run.open_loop import arrivals_of
from tokrig.run.preflight import EngineState
from tokrig.run.prepare import Prepared
from tokrig.spec.run import RunSpec
from tokrig.spec.settings import asked_values
from tokrig.units import significant

GIT_S = 5.0
_Seen = TypeVar("_Seen", Interference, LoadNodes, PeakMemory)
_SCOPES: Mapping[frozenset[str], Literal["gpu", "package"]] = {
    frozenset({"gpu"}): "gpu",
    frozenset({"cpu"}): "package",
}
# Environment variables that change how an engine computes; nothing else is recorded.
ENVIRONMENT = tuple(
    "CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HSA_OVERRIDE_GFX_VERSION"
    " GGML_VK_VISIBLE_DEVICES OMP_NUM_THREADS OMP_WAIT_POLICY GOMP_SPINCOUNT GGML_CUDA_FORCE_MMQ"
    " GGML_CUDA_ENABLE_UNIFIED_MEMORY LLAMA_ARG_CPU_MOE LLAMA_ARG_KV_OFFLOAD"
    " LLAMA_ARG_NO_KV_OFFLOAD LLAMA_ARG_N_CPU_FFN LLAMA_ARG_N_CPU_MOE LLAMA_ARG_N_GPU_LAYERS"
    " LLAMA_ARG_N_GPU_LAYERS_DRAFT LLAMA_ARG_OVERRIDE_TENSOR LLAMA_ARG_SPEC_DRAFT_CPU_MOE"
    " LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE VLLM_CPU_OMP_THREADS_BIND VLLM_CPU_KVCACHE_SPACE".split()
)
# Those of them by which tokrig leaves an engine only some devices; -1 leaves none.
NARROWING = (
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("GGML_VK_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
)
# What stands in a record as the engine said it.
_OF_THE_ENGINE = ("engine", "build", "api", "api_confirmed", "wrapper")
_SECRETS = frozenset({"api-key", "hf-token", "api_key"})
_NOT_PRIVATE = frozenset({"root", "user", "localhost", "host"})


@dataclass(frozen=True)
class Gathered:
    """What a run knows at any moment."""

    prepared: Prepared
    rig: Rig
    told: EngineState
    cells: Sequence[CellRecord]
    skipped: Sequence[Skipped]
    tokrig_commit: str | None = None

    @property
    def planned(self) -> tuple[Cell, ...]:
        """The cells that are known before; of a search for a rate none is."""
        return () if self.prepared.spec.find_rate else self.prepared.cells

    @property
    def measured(self) -> list[Cell]:
        """The cells that were measured so far: as they were planned, probes of rates by rate."""
        found = dict.fromkeys(c.cell for c in self.cells)
        if not self.prepared.spec.find_rate:
            return [cell for cell in self.prepared.cells if cell in found]
        shapes = list(self.prepared.workloads)
        return sorted(found, key=lambda cell: (shapes.index(cell.workload), cell.rate_per_s or 0))

    def of(self, cell: Cell) -> list[CellRecord]:
        """The repeats of a cell that were measured so far."""
        return [c for c in self.cells if c.cell == cell]


def record(
    gathered: Gathered,
    error: EngineError | None,
    now: datetime | None = None,
    *,
    answers: bytes | None = None,
    reference: Reference | None = None,
) -> Record:
    """The record of a finished or failed run; ``answers`` is the file of the model's, held against
    ``reference``."""
    prepared, told = gathered.prepared, gathered.told
    results = [result(gathered, cell) for cell in gathered.measured]
    ladders = [found for name in prepared.workloads if (found := ladder(gathered, name, results))]
    asked_s = prepared.spec.sustain_s or 0.0
    cut = any(r.sustained and r.sustained.seconds < asked_s for r in results)
    status: Literal["failed", "interrupted", "complete"]
    status = "failed" if error else "interrupted" if cut else "complete"
    return Record(
        id=prepared.run_id,
        status=status,
        validity=checks.judge_run(results, complete=status == "complete", ladders=ladders),
        provenance=provenance(
            prepared.started,
            now,
            tokrig_commit=gathered.tokrig_commit,
            server_starts=told.server_starts or None,
            seed=prepared.spec.seed,
            **campaign(prepared.spec),
        ),
        model=told.model,
        rig=gathered.rig,
        backend=told.backend,
        mode=told.mode,
        cold_start=told.cold,
        load_memory=told.load_memory,
        reads=told.reads,
        results=results,
        ladders=ladders,
        rate_limits=rate_limits(results),
        quality=quality(from_parquet(answers, "the journal"), reference) if answers else None,
        skipped=list(gathered.skipped),
        failure=failure(error) if error else None,
        notes=prepared.spec.notes,
    )


def ladder(gathered: Gathered, workload: str, results: Iterable[Result]) -> Ladder | None:
    """The ladder of a workload as far as it was climbed; None in a run without any."""
    prepared = gathered.prepared
    steps = [c for c in prepared.cells if c.workload == workload]
    if prepared.spec.ladder is None or not steps:
        return None
    return ladder_of(
        [r for r in results if r.cell in steps],
        [s for c in gathered.cells if c.cell in steps for s in c.samples],
        gathered.skipped,
        most=steps[-1].concurrency,
        slots=gathered.told.backend.resolved.slots,
    )


def provenance(started: datetime, now: datetime | None = None, **known: Any) -> Provenance:
    """Where what was measured from ``started`` until ``now`` comes from."""
    return Provenance(
        kind="measured",
        tokrig_version=tokrig.__version__,
        methodology=METHODOLOGY_VERSION,
        started_at=_iso(started),
        finished_at=_iso(now or datetime.now(UTC)),
        **known,
    )


def campaign(spec: RunSpec) -> dict[str, Any]:
    """What of a spec stands in the provenance of each of its records."""
    return {"level": spec.level, "campaign": spec.campaign, "planned": spec.planned}


def failure(error: TokrigError) -> Failure:
    """Why a run did not finish, in words that may leave the machine."""
    log_tail = error.log_tail if isinstance(error, EngineError) else ""
    return Failure(code=error.code, message=scrub(error.message), log_tail=scrub(log_tail))


def result(gathered: Gathered, cell: Cell) -> Result:
    """The row of one cell over all repeats measured so far."""
    mine = gathered.of(cell)
    samples = [s for c in mine for s in c.samples]
    observed = [c.observed for c in mine]
    told, workload = gathered.told, gathered.prepared.workloads[cell.workload]
    counters = _counters(observed)
    asked = arrivals_of(gathered.prepared, cell) if cell.is_open else None
    if asked is not None:
        # The sums and the energy are of the warm-up window too.
        counters = {name: sum_ for name, sum_ in counters.items() if name == "cached_tokens"}
    # The repeats on a server that was running already are of one start.
    starts = None if told.backend.managed else 1
    found = figures(samples, counters, starts=starts, arrivals=asked)
    client_cpu_share = _highest(o.client_cpu_share for o in observed)
    if client_cpu_share is not None:
        client_cpu_share = round(client_cpu_share, 4)
    beside, nodes = interference(observed), load_nodes(observed)
    memory = _worst(PeakMemory, [o.memory for o in observed])
    target = target_of(workload, told.backend.prompting.template_tokens) + cell.depth_tokens
    # Of a trace each request has lengths of its own.
    own = (None, None) if cell.load == "trace" else (workload.prompt_tokens, workload.answer_tokens)
    shape = WorkloadFacts(
        name=workload.name,
        content_hash=workload.version(cell.depth_tokens),
        prompt_tokens=own[0],
        target_prompt_tokens=target if own[0] not in (None, target) else None,
        answer_tokens=own[1],
        turn_answer_tokens=[turn.answer_tokens for turn in workload.turns[: told.turns]],
        turn_prompt_tokens=told.turn_prompts if workload.sessions else [],
    )
    most = ceiling(gathered.rig, told.backend, told.mode, told.reads, cell, found)
    reached = ceiling_fields(most, found)
    reached |= matrix_share(gathered.rig, told.backend, told.mode, told.reads, found)
    validity = checks.judge(
        samples,
        checks.Seen(
            workload=shape,
            cell=cell,
            arrivals=asked,
            backend=told.backend,
            mode=told.mode,
            model=told.model,
            rig=gathered.rig,
            interference=beside,
            memory=memory,
            load_memory=told.load_memory or LoadMemory(),
            counters=counters,
            client_cpu_share=client_cpu_share,
            load_nodes=nodes,
            compared_greedy=cell.workload in told.greedy,
            ceiling_share=reached.get("ceiling_share"),
        ),
    )
    tokens = sum(s.output_tokens or 0 for s in samples if s.phase == "measured")
    return Result(
        workload=shape,
        concurrency=cell.concurrency,
        depth_tokens=cell.depth_tokens,
        load=cell.load,
        rate_per_s=cell.rate_per_s,
        arrivals=asked,
        validity=validity,
        **found,
        greedy=told.greedy.get(cell.workload),
        counters=counters or None,
        memory=memory,
        energy=None if asked else energy(observed, tokens, computed_on(told.backend, told.mode)),
        **reached,
        client_cpu_share=client_cpu_share,
        load_nodes=nodes,
        sustained=next(
            (
                sustained(samples, one.sustained_s, one.over_time)
                for one in observed
                if one.sustained_s is not None
            ),
            None,
        ),
        interference=beside,
    )


def backend_facts(
    prepared: Prepared, engine: Engine | None, bypass: str | None = None
) -> BackendFacts:
    """How the server was run, and what it says it is."""
    argv, env = None, {}
    if prepared.launch is not None:
        command = prepared.backend.command(replace(prepared.launch, port=0))
        argv = scrub_argv(command.argv)
        # tokrig's environment is that of an engine that it starts, of no other.
        env = environment() | {name: scrub(value) for name, value in command.env.items()}
    engine = engine or Engine("unknown")
    resolved = engine.resolved
    if engine.device_bytes:
        resolved = resolved.model_copy(update={"device_bytes": dict(engine.device_bytes)})
    return BackendFacts(
        name=prepared.backend.name,
        api_asked=prepared.spec.api,
        bypass=bypass,
        managed=prepared.launch is not None,
        argv=argv,
        env=env,
        asked=asked_values(prepared.spec.settings) | dict(engine.asked),
        resolved=resolved,
        **{name: getattr(engine, name) for name in _OF_THE_ENGINE},
    )


def with_devices(facts: BackendFacts, prepared: Prepared, cards: int) -> BackendFacts:
    """With the devices that were asked for as found, where the engine was left no others and uses
    as many: it numbers them anew, or does not tell them. ``cards`` is on how many it is seen."""
    launch, resolved = prepared.launch, facts.resolved
    if launch is None or not launch.devices:
        return facts
    env = prepared.backend.command(replace(launch, port=0)).env
    asked = list(launch.devices)
    used = len(resolved.devices) or cards or resolved.tensor_parallel
    used = used or int(facts.api not in (None, "cpu"))
    if used != len(asked) or all(env.get(name, "-1") == "-1" for name in NARROWING):
        return facts
    return facts.model_copy(update={"resolved": resolved.model_copy(update={"devices": asked})})


def environment() -> dict[str, str]:
    """What of this process's environment changes how an engine that it starts computes."""
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}


def name_endpoint(model: Model, served_model: str | None) -> Model:
    """An endpoint's model is known only by the name it is served under."""
    if model.identity_from != "endpoint" or not served_model:
        return model
    return model.model_copy(update={"family": scrub(served_model)})


def energy(observed: Sequence[Observed], tokens: int, computed: frozenset[str]) -> Energy | None:
    """Of the one device that computed, where every repeat could read its counter."""
    scope = _SCOPES.get(computed)
    if scope is None or not observed or not all(scope in o.energy_j for o in observed):
        return None
    total_j = sum(o.energy_j[scope] for o in observed)
    more_j = None
    if all(scope in o.idle_w for o in observed):
        more_j = total_j - sum(o.idle_w[scope] * o.window_s for o in observed)
    return Energy(
        scope=scope,
        total_j=round(total_j, 3),
        j_per_output_token=significant(total_j / tokens) if tokens else None,
        idle_subtracted_j_per_output_token=significant(more_j / tokens)
        if tokens and more_j is not None
        else None,
    )


def interference(observed: Sequence[Observed]) -> Interference:
    """The worst of all repeats; the reasons of all of them, where all of them know."""
    seen = [o.interference for o in observed]
    reasons: list[str] | None = None
    if all(one.throttle_reasons is not None for one in seen):
        reasons = sorted({reason for one in seen for reason in one.throttle_reasons or ()})
    ceilings = [c for one in seen if (c := one.client_ceiling_tok_per_s) is not None]
    lowest = min(ceilings, default=None)
    return _worst(Interference, seen, throttle_reasons=reasons, client_ceiling_tok_per_s=lowest)


def load_nodes(observed: Sequence[Observed]) -> LoadNodes | None:
    """The fewest of all repeats, and the worst of their clocks; None where this machine sent."""
    seen = [o.load_nodes for o in observed if o.load_nodes is not None]
    return _worst(LoadNodes, seen, nodes=min(one.nodes for one in seen)) if seen else None


def _worst(kind: type[_Seen], seen: Sequence[_Seen], **known: Any) -> _Seen:
    """Each field at its highest."""
    names = kind.model_fields.keys() - known.keys()
    worst = {name: _highest(getattr(one, name) for one in seen) for name in names}
    return kind.model_validate({**worst, **known})


def _counters(observed: Sequence[Observed]) -> dict[str, float]:
    """Sums over all repeats, of what every repeat counted."""
    shared = set.intersection(*(set(o.counters) for o in observed)) if observed else ()
    return {k: round(sum(o.counters[k] for o in observed), 6) for k in sorted(shared)}


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def source_commit() -> str | None:
    """The short commit of the checkout tokrig runs from, ``-dirty`` when files differ from it.

    None for an installed package, or without git.
    """
    root = Path(tokrig.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src")
    return f"{commit}-dirty" if commit and changed else commit


def _git(root: Path, *words: str) -> str | None:
    try:
        told, code = guard.said(["git", "-C", str(root), *words], GIT_S, errors=False)
    except OSError:
        return None
    return told.strip() or None if code == 0 else None


def scrub(text: str) -> str:
    """Paths become file names; addresses, keys, the user's and the machine's name vanish."""
    text = without_private(text)
    for name in _names():
        text = re.sub(rf"\b{re.escape(name)}\b", "[private]", text)
    return text


def scrub_argv(argv: Sequence[str]) -> list[str]:
    """A command line without places or keys."""
    after = zip(["", *argv], argv, strict=False)
    return ["[key]" if last.lstrip("-") in _SECRETS else scrub(word) for last, word in after]


@cache
def _names() -> tuple[str, ...]:
    found = []
    for ask in (getpass.getuser, socket.gethostname):
        try:
            found.append(ask())
        except (OSError, KeyError, ImportError):
            continue
    return tuple(name for name in found if name.lower() not in _NOT_PRIVATE and len(name) > 2)
