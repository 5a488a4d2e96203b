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
from tokrig.backends import Backend, Launch
from tokrig.errors import InputError, SpecError
from tokrig.models.shelf import Tell, quiet
from tokrig.record.model import Mode, Model
from tokrig.run.binary import asked
from tokrig.run.http import Endpoint
from tokrig.run.listening import Whereabouts, whereabouts
from tokrig.run.progress import Cell
from tokrig.run.weights import weights
from tokrig.spec.reasoning import Switch, switch_for, table
from tokrig.spec.run import LEVELS, Level, RunSpec
from tokrig.units import slug
from tokrig.workloads import Workload, tolerance

CONTEXT_STEP = 256
# Room for what a chat template adds around the counted prompt when slots are sized.
CONTEXT_MARGIN = 64


@dataclass(frozen=True)
class Prepared:
    """A checked request. ``launch`` is None where tokrig attaches to a running server;
    ``where`` is then where that is, once it was looked for."""

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
    where: Whereabouts | None = None

    @property
    def patience_s(self) -> float:
        """How long the engine may take to become ready."""
        return self.spec.patience_s or self.backend.patience_s

    def with_id(self, run_id: str, started: datetime) -> Prepared:
        """The same request under the identity of an earlier, unfinished run."""
        return replace(self, run_id=run_id, started=started)


def prepare(
    spec: RunSpec,
    now: datetime,
    switches: Path | None = None,
    tell: Tell = quiet,
    budget_bytes: int | None = None,
) -> Prepared:
    """Resolve all names of ``spec``; ``now`` (with a time zone) becomes part of the run's id.
    ``switches`` is a file that adds to the table of reasoning switches. A model that is not here
    is fetched, a quant that is not here is made; ``tell`` hears how far that is, and
    ``budget_bytes`` is how much of the disk the shelf of models may take.

    Raises InputError for an unknown backend, workload or option combination, or for a binary that
    cannot do what is asked, ModelError for a model file that cannot be used; what
    ``weights`` raises where something is fetched or made.
    """
    prepared = outline(spec, now)
    if spec.url is None:
        prepared = _managed(prepared, switches, tell, budget_bytes)
    else:
        prepared = _attached(prepared, switches)
    name = run_id(prepared.model, prepared.backend.name, prepared.mode, now)
    return replace(prepared, run_id=name)


def outline(spec: RunSpec, now: datetime) -> Prepared:
    """What can be told of a request without its model: nothing is fetched, read or asked.

    Raises InputError for an unknown backend or workload, or for what the engine can never do.
    """
    backend: Backend = registry.load("backends", spec.backend, "BACKEND")
    workloads = _workloads(spec)
    cells = tuple(
        Cell(w.name, c)
        for w in workloads.values()
        for c in (spec.concurrency or list(w.concurrencies))
    )
    _require_able(spec, backend)
    return Prepared(
        run_id="",
        spec=spec,
        level=LEVELS[spec.level],
        backend=backend,
        workloads=workloads,
        cells=cells,
        model=Model(family="unknown"),
        started=now,
        mode=mode_of(spec, None, None),
    )


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
    if spec.kv_type and spec.url is None and not able.kv_types:
        raise InputError(
            f"the backend {backend.name!r} has no switch for the type of its KV cache",
            hint="leave --kv-type out, or take a backend that has: llamacpp, embedded, vllm",
        )
    if spec.quantize and backend.own_models:
        raise InputError(
            f"the backend {backend.name!r} serves models of its own store: no quant is made for it",
            hint="leave --quantize out, or serve a GGUF file with --backend llamacpp",
        )


def mode_of(spec: RunSpec, switch: Switch | None, draft_model: Model | None) -> Mode:
    """What is switched on beside the baseline, named: ``ngram+reasoning-off+cap-250w``."""
    reasoning = f"reasoning-{spec.reasoning}" if spec.reasoning else None
    cap = f"cap-{spec.power_cap_w:g}w" if spec.power_cap_w else None
    return Mode(
        name="+".join(part for part in (spec.speculative, reasoning, cap) if part) or "baseline",
        speculative=spec.speculative,
        draft_model=draft_model.file if draft_model else None,
        draft_sha256=draft_model.sha256 if draft_model else None,
        draft_tokens=spec.draft_tokens,
        reasoning_asked=spec.reasoning,
        reasoning_switch=switch.describe() if switch else None,
        power_cap_w=spec.power_cap_w,
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


def _managed(
    prepared: Prepared, switches: Path | None, tell: Tell, budget_bytes: int | None
) -> Prepared:
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
    served = weights(spec, own_models=backend.own_models, tell=tell, budget_bytes=budget_bytes)
    switch = _switch(spec, served.model, switches)
    launch = Launch(
        model=served.path,
        port=0,
        context_per_slot=context_per_slot(prepared, served.model),
        slots=max(cell.concurrency for cell in prepared.cells),
        threads=spec.threads,
        options=spec.options,
        binary=spec.server_bin,
        api=spec.api,
        devices=tuple(spec.devices or ()),
        speculation=served.speculation,
        reasoning=switch,
        kv_type=spec.kv_type,
    )
    launch = replace(launch, answers=asked(backend.questions(launch)))
    backend.vet(launch)
    backend.command(launch)  # wrong options and a missing binary show here
    mode = mode_of(spec, switch, served.draft_model)
    return replace(prepared, model=served.model, launch=launch, reasoning=switch, mode=mode)


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


def need(workload: Workload, prompt_tokens: int | None = None) -> int:
    """Tokens of context one request of this shape takes, at its own prompt length or another."""
    prompt = prompt_tokens or workload.prompt_tokens
    return prompt + tolerance(prompt) + workload.answer_tokens


def _attached(prepared: Prepared, switches: Path | None) -> Prepared:
    spec, backend = prepared.spec, prepared.backend
    assert spec.url is not None
    if not backend.attaches:
        raise SpecError(
            f"the backend {backend.name!r} starts its own server and takes no --url",
            hint="leave --backend out: tokrig tells the engine behind an address by itself",
        )
    # Threads, context and KV type may be what the server has: its answer tells.
    of_its_start = (spec.options, spec.server_bin, spec.devices, spec.quantize)
    if any((*of_its_start, spec.draft_model, spec.draft_tokens)):
        raise SpecError(
            "engine options, devices, a draft model or length, a quant to make and --server-bin"
            " mean nothing to a server that is already running",
            hint="start the server with them, then measure it",
        )
    server = endpoint(spec)
    if spec.power_cap_w and not server.is_loopback:
        raise _cap_elsewhere(f"the server at {spec.url} may be on another")
    model = Model(family=spec.served_model or "endpoint", identity_from="endpoint")
    switch = _switch(spec, model, switches)
    return replace(
        prepared,
        model=model,
        endpoint=server,
        reasoning=switch,
        mode=mode_of(spec, switch, None),
    )


def located(prepared: Prepared) -> Prepared:
    """The same request, with where its running server is.

    Raises SpecError for a power cap that would be set on another machine than the server's.
    """
    if prepared.endpoint is None:
        return prepared
    where = whereabouts(prepared.endpoint)
    if prepared.spec.power_cap_w and not where.here:
        raise _cap_elsewhere(where.why)
    return replace(prepared, where=where)


def _cap_elsewhere(why: str) -> SpecError:
    return SpecError(
        f"a power cap is set on this machine, and {why}",
        hint="run tokrig on the server's own machine, with an address such as"
        " http://127.0.0.1:8080",
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
