"""From a spec to something that can be run: names become parts, the model becomes a file.

Everything that can be wrong with the request is found here, before anything is started.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tokrig import registry
from tokrig.backends import Backend, Launch
from tokrig.errors import InputError, SpecError
from tokrig.models import catalog, gguf
from tokrig.record.model import Model
from tokrig.run.progress import Cell
from tokrig.run.wire import Endpoint
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
    launch: Launch | None = None
    endpoint: Endpoint | None = None

    def with_id(self, run_id: str, started: datetime) -> Prepared:
        """The same request under the identity of an earlier, unfinished run."""
        return replace(self, run_id=run_id, started=started)


def prepare(spec: RunSpec, now: datetime) -> Prepared:
    """Resolve all names of ``spec``; ``now`` (with a time zone) becomes part of the run's id.

    Raises InputError for an unknown backend, workload or option combination, ModelError for a
    model file that cannot be used.
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
    prepared = _managed(prepared) if backend.managed else _attached(prepared)
    return replace(prepared, run_id=run_id(prepared.model, backend.name, now))


def _workloads(spec: RunSpec) -> dict[str, Workload]:
    # The order in which people know the shapes; shapes of other packages follow.
    known = ["chat", "rag", "codegen", "agent"]
    names = spec.workloads or [*known, *(n for n in registry.names("workloads") if n not in known)]
    return {name: registry.load("workloads", name, "WORKLOAD") for name in names}


def run_id(model: Model, backend: str, now: datetime) -> str:
    """``20261122-171500-gemma-3-270m-q4_k_m-embedded-3f2a``: sorts by time, says what it is."""
    parts = [model.family, model.variant or "", model.quant or "", backend]
    words = slug("-".join(p for p in parts if p))[:80].strip("-")
    return f"{now:%Y%m%d-%H%M%S}-{words}-{secrets.token_hex(2)}"


def _managed(prepared: Prepared) -> Prepared:
    spec, backend = prepared.spec, prepared.backend
    if spec.url:
        raise SpecError(
            f"the backend {backend.name!r} starts its own server and takes no --url",
            hint="to measure a server that is running use --backend openai --url URL",
        )
    availability = backend.availability()
    if not availability.ok and not spec.server_bin:
        raise InputError(
            f"the backend {backend.name!r} is not usable here: {availability.detail}",
            hint=availability.hint,
        )
    source = catalog.resolve(spec.model)
    model = gguf.identify(source.path)
    launch = Launch(
        model=source.path,
        port=0,
        context_per_slot=context_per_slot(prepared, model),
        slots=max(cell.concurrency for cell in prepared.cells),
        threads=spec.threads,
        options=spec.options,
        binary=spec.server_bin,
    )
    backend.command(launch)  # wrong options and a missing binary show here
    return replace(prepared, model=model, launch=launch)


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


def _attached(prepared: Prepared) -> Prepared:
    spec = prepared.spec
    if not spec.url:
        raise SpecError(
            f"the backend {spec.backend!r} attaches to a running server and needs its address",
            hint="add --url http://127.0.0.1:8080/v1",
        )
    if spec.options or spec.server_bin:
        raise SpecError(
            "engine options and --server-bin mean nothing to a server that is already running",
            hint="start the server with them, then measure it",
        )
    headers = {}
    if spec.api_key_env:
        key = os.environ.get(spec.api_key_env)
        if not key:
            raise SpecError(
                f"the environment variable {spec.api_key_env} is not set",
                hint=f"export {spec.api_key_env}=… and run again",
            )
        headers["Authorization"] = f"Bearer {key}"
    model = Model(family=spec.served_model or "endpoint", identity_from="endpoint")
    return replace(prepared, model=model, endpoint=Endpoint.from_url(spec.url, headers))
