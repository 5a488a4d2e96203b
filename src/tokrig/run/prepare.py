"""From a spec to something that can be run: names become parts, the model becomes a file.

Everything that can be wrong with the request is found here, before anything is started.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tokrig import registry
from tokrig.backends import Backend, Launch, Speculation
from tokrig.errors import InputError, ModelError, SpecError
from tokrig.models import catalog, draft, identity
from tokrig.record.model import Mode, Model
from tokrig.run.binary import asked
from tokrig.run.progress import Cell
from tokrig.run.wire import Endpoint
from tokrig.spec.reasoning import Switch, switch_for, table
from tokrig.spec.run import LEVELS, Level, RunSpec
from tokrig.units import slug
from tokrig.workloads import Workload

CONTEXT_STEP = 256
# Room for what a chat template adds around the counted prompt when slots are sized.
CONTEXT_MARGIN = 64


@dataclass(frozen=True)
class Prepared:
    """A checked request. ``launch`` is None where tokrig attaches to a running server."""

    run_id: str
    spec: RunSpec
    level: Level
    backend: Backend
    workloads: Mapping[str, Workload]
    cells: tuple[Cell, ...]
    model: Model
    started: datetime
    mode: Mode = field(default_factory=Mode)
    launch: Launch | None = None
    endpoint: Endpoint | None = None
    reasoning: Switch | None = None

    @property
    def patience_s(self) -> float:
        """How long the engine may take to become ready."""
        return self.spec.patience_s or self.backend.patience_s

    def with_id(self, run_id: str, started: datetime) -> Prepared:
        """The same request under the identity of an earlier, unfinished run."""
        return replace(self, run_id=run_id, started=started)


def prepare(spec: RunSpec, now: datetime, switches: Path | None = None) -> Prepared:
    """Resolve all names of ``spec``; ``now`` (with a time zone) becomes part of the run's id.
    ``switches`` is a file that adds to the table of reasoning switches.

    Raises InputError for an unknown backend, workload or option combination, or for a binary that
    cannot do what is asked, ModelError for a model file that cannot be used.
    """
    backend: Backend = registry.load("backends", spec.backend, "BACKEND")
    workloads = _workloads(spec)
    cells = tuple(
        Cell(w.name, c)
        for w in workloads.values()
        for c in (spec.concurrency or list(w.concurrencies))
    )
    prepared = Prepared(
        run_id="",
        spec=spec,
        level=LEVELS[spec.level],
        backend=backend,
        workloads=workloads,
        cells=cells,
        model=Model(family="unknown"),
        started=now,
    )
    _require_able(spec, backend)
    prepared = _managed(prepared, switches) if spec.url is None else _attached(prepared, switches)
    return replace(prepared, run_id=run_id(prepared.model, backend.name, prepared.mode, now))


def _require_able(spec: RunSpec, backend: Backend) -> None:
    """What the engine can never do is refused before anything is read."""
    able = backend.capabilities
    if spec.speculative and spec.url is None and spec.speculative not in able.speculation:
        raise InputError(
            f"the backend {backend.name!r} knows no {spec.speculative!r} speculation",
            hint=f"it knows: {', '.join(able.speculation) or 'none'}",
        )
    if spec.api and able.apis and spec.api not in able.apis:
        raise InputError(
            f"the backend {backend.name!r} never computes with {spec.api!r}",
            hint=f"it knows: {', '.join(able.apis)}",
        )


def mode_of(spec: RunSpec, switch: Switch | None, draft_model: Model | None) -> Mode:
    """What is switched on beside the baseline, named: ``ngram+reasoning-off``."""
    reasoning = f"reasoning-{spec.reasoning}" if spec.reasoning else None
    return Mode(
        name="+".join(part for part in (spec.speculative, reasoning) if part) or "baseline",
        speculative=spec.speculative,
        draft_model=draft_model.file if draft_model else None,
        draft_sha256=draft_model.sha256 if draft_model else None,
        draft_tokens=spec.draft_tokens,
        reasoning_asked=spec.reasoning,
        reasoning_switch=switch.describe() if switch else None,
    )


def _workloads(spec: RunSpec) -> dict[str, Workload]:
    # The order in which people know the shapes; shapes of other packages follow.
    known = ["chat", "rag", "codegen", "agent"]
    names = spec.workloads or [*known, *(n for n in registry.names("workloads") if n not in known)]
    return {name: registry.load("workloads", name, "WORKLOAD") for name in names}


def run_id(model: Model, backend: str, mode: Mode, now: datetime) -> str:
    """``20261122-171500-gemma-3-270m-q4_k_m-embedded-3f2a``: sorts by time, says what it is."""
    parts = [model.family, model.variant or "", model.quant or "", backend]
    parts += [] if mode.name == "baseline" else [mode.name]
    words = slug("-".join(p for p in parts if p))[:80].strip("-")
    return f"{now:%Y%m%d-%H%M%S}-{words}-{secrets.token_hex(2)}"


def _managed(prepared: Prepared, switches: Path | None) -> Prepared:
    spec, backend = prepared.spec, prepared.backend
    if not backend.starts:
        raise SpecError(
            f"the backend {spec.backend!r} attaches to a running server and needs its address",
            hint="add --url http://127.0.0.1:8080/v1",
        )
    availability = backend.availability()
    if not availability.ok and not spec.server_bin:
        raise InputError(
            f"the backend {backend.name!r} is not usable here: {availability.detail}",
            hint=availability.hint,
        )
    if backend.own_models:
        path, model = Path(spec.model), _named_model(spec.model)
    else:
        path = catalog.resolve(spec.model).path
        model = identity.identify(path)
    speculation, draft_model = _speculation(spec, path)
    switch = _switch(spec, model, switches)
    launch = Launch(
        model=path,
        port=0,
        context_per_slot=context_per_slot(prepared, model),
        slots=max(cell.concurrency for cell in prepared.cells),
        threads=spec.threads,
        options=spec.options,
        binary=spec.server_bin,
        api=spec.api,
        devices=tuple(spec.devices or ()),
        speculation=speculation,
        reasoning=switch,
    )
    launch = replace(launch, answers=asked(backend.questions(launch)))
    backend.vet(launch)
    backend.command(launch)  # wrong options and a missing binary show here
    mode = mode_of(spec, switch, draft_model)
    return replace(prepared, model=model, launch=launch, reasoning=switch, mode=mode)


def _named_model(name: str) -> Model:
    """A model that only the server's own store knows."""
    return Model(family=name, identity_from="endpoint")


def _speculation(spec: RunSpec, model: Path) -> tuple[Speculation | None, Model | None]:
    """Raises InputError for a draft model that cannot draft for this one: engines would go on
    without it and say nothing."""
    if spec.speculative is None:
        return None, None
    if spec.draft_model is None:
        return Speculation(spec.speculative, None, spec.draft_tokens), None
    path = catalog.resolve(spec.draft_model).path
    if spec.speculative == "draft" and (reason := draft.mismatch(model, path)):
        raise ModelError(
            f"{path.name} cannot draft for {model.name}: {reason}",
            hint="a draft model needs the vocabulary of the model it drafts for: take a smaller"
            " one of the same family",
            code="draft_mismatch",
        )
    return Speculation(spec.speculative, path, spec.draft_tokens), identity.identify(path)


def _switch(spec: RunSpec, model: Model, switches: Path | None) -> Switch | None:
    if spec.reasoning is None:
        return None
    known = (model.family, model.variant, model.architecture, model.base_model, model.file)
    return switch_for(spec.reasoning, [name for name in known if name], table(switches))


def context_per_slot(prepared: Prepared, model: Model) -> int:
    """Tokens each slot must hold: the longest selected shape that the model can take at all."""
    if prepared.spec.context is not None:
        return prepared.spec.context
    limit = model.context_train or 1 << 62
    needs = [n for n in map(need, prepared.workloads.values()) if n <= limit]
    longest = max(needs, default=0) + CONTEXT_MARGIN
    return min(-(-longest // CONTEXT_STEP) * CONTEXT_STEP, limit)


def need(workload: Workload) -> int:
    """Tokens of context one request of this shape takes."""
    return workload.prompt_tokens + workload.tolerance_tokens + workload.answer_tokens


def _attached(prepared: Prepared, switches: Path | None) -> Prepared:
    spec, backend = prepared.spec, prepared.backend
    assert spec.url is not None
    if not backend.attaches:
        raise SpecError(
            f"the backend {backend.name!r} starts its own server and takes no --url",
            hint="leave --backend out: tokrig tells the engine behind an address by itself",
        )
    if spec.options or spec.server_bin or spec.devices or spec.draft_model:
        raise SpecError(
            "engine options, devices, a draft model and --server-bin mean nothing to a server that"
            " is already running",
            hint="start the server with them, then measure it",
        )
    model = Model(family=spec.served_model or "endpoint", identity_from="endpoint")
    switch = _switch(spec, model, switches)
    return replace(
        prepared,
        model=model,
        endpoint=endpoint(spec),
        reasoning=switch,
        mode=mode_of(spec, switch, None),
    )


def endpoint(spec: RunSpec) -> Endpoint:
    """The address of a running server, with the key its user named.

    Raises InputError when the named variable is not set.
    """
    assert spec.url is not None
    headers = {}
    if spec.api_key_env:
        key = os.environ.get(spec.api_key_env)
        if not key:
            raise SpecError(
                f"the environment variable {spec.api_key_env} is not set",
                hint=f"export {spec.api_key_env}=… and run again",
            )
        headers["Authorization"] = f"Bearer {key}"
    return Endpoint.from_url(spec.url, headers)
