"""From a spec to something that can be run: names become parts, models become files.

Everything that can be wrong with the request is found here, before anything is started.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from tokrig import registry
from tokrig.backends import ELSEWHERE, Backend, Launch, Speculation
from tokrig.errors import InputError, ModelError, SpecError
from tokrig.models import identity, shelf
from tokrig.models.needs import draft_mismatch
from tokrig.models.shelf import Tell, quiet
from tokrig.naming import SHAPES
from tokrig.record.model import Mode, Model
from tokrig.record.samples import Cell, Load
from tokrig.run import memory, quantize, room, traces
from tokrig.run.detect import Whereabouts, whereabouts
from tokrig.run.http import Endpoint
from tokrig.run.monitor import here
from tokrig.run.server import asked
from tokrig.run.traces import TraceFile
from tokrig.spec import arrivals
from tokrig.spec.reasoning import Switch, switch_for, table
from tokrig.spec.run import LEVELS, Level, RunSpec, default_shapes, ladder_steps, shapes_of
from tokrig.spec.settings import SETTINGS
from tokrig.units import human_bytes, slug
from tokrig.workloads import Workload

if TYPE_CHECKING:
    from tokrig.run.clients import Clients
    from tokrig.run.load_nodes import Nodes


@dataclass(frozen=True)
class Prepared:
    """A checked request. ``launch`` is None where tokrig attaches to a running server;
    ``where`` is then where that is, once it was looked for. ``nodes`` are the machines that send,
    where it is not this one. Of a ladder ``cells`` has all steps that there may be; ``remarks``
    tell what a person should know before anything starts."""

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
    remarks: tuple[str, ...] = ()
    nodes: Nodes | Clients | None = None
    trace: TraceFile | None = None

    @property
    def patience_s(self) -> float:
        """How long the engine may take to become ready."""
        return self.spec.patience_s or self.backend.patience_s


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
    cannot do what is asked, ModelError for a model file that cannot be used, or a draft model that
    cannot draft for it; what ``shelf.resolve`` and ``quantize.made`` raise.
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
    # Shapes of other packages follow.
    names = shapes_of(spec) or dict.fromkeys(
        (*SHAPES, *default_shapes(registry.names("workloads")))
    )
    level = LEVELS[spec.level]
    for refused, message, hint in (*arrivals.refusals(spec), *_refusals(spec, backend)):
        if refused:
            raise SpecError(message, hint=hint)
    if spec.url is None:
        backend.require_settings(spec.settings)
    trace = None
    workloads: dict[str, Workload]
    if spec.trace is not None:
        trace = traces.read(Path(spec.trace).expanduser(), spec.duration_s, _rates(spec)[0])
        workloads = {"trace": traces.shape(trace, arrivals.SLOTS)}
    else:
        workloads = {name: registry.load("workloads", name, "WORKLOAD") for name in names}
    return Prepared(
        run_id="",
        spec=spec,
        # What lasts is measured once, whatever the level.
        level=replace(level, repeats=1) if spec.sustain else level,
        backend=backend,
        workloads=workloads,
        cells=tuple(_cells(spec, workloads)),
        trace=trace,
        model=Model(family="unknown"),
        started=now,
        mode=mode_of(spec, None, None),
    )


def _load(spec: RunSpec, workload: Workload) -> Load:
    if workload.sessions:
        return "session"
    return "sustained" if spec.sustain else "closed"


def _in_flight(spec: RunSpec, workload: Workload) -> Sequence[int]:
    """How many requests are in flight in each cell of a shape."""
    if spec.ladder is not None:
        return ladder_steps(spec.ladder)
    found = spec.concurrency or workload.concurrencies
    return found[:1] if spec.sustain else found


def _require_bounds(spec: RunSpec, workload: Workload, rate: float | None) -> None:
    """Raises SpecError for more answers than can be kept until a measured phase ends."""
    lasts_s, answer_tokens = arrivals.duration_s(spec), workload.answer_tokens
    if rate and not spec.trace and rate > arrivals.highest_rate(lasts_s, answer_tokens):
        raise SpecError(
            f"{rate:g} requests/s of {workload.name} for {lasts_s:g} s are answers of"
            f" {rate * lasts_s * answer_tokens:,.0f} tokens, and {arrivals.MOST_ANSWER_TOKENS:,}"
            " are the limit",
            hint="make --duration shorter, or the rate lower",
        )


def _rates(spec: RunSpec) -> list[float | None]:
    """The rates that requests arrive at; a trace may have its own."""
    if spec.rate:
        return [arrivals.rate_ends(rate)[1] for rate in spec.rate]
    return [None if spec.trace else arrivals.rate_ends(arrivals.FIRST_RATE)[1]]


def _cells(spec: RunSpec, workloads: Mapping[str, Workload]) -> Iterator[Cell]:
    """What is measured; of a search for a rate only where it begins."""
    if arrivals.is_open(spec):
        # One that runs already has its own slots.
        slots = (spec.concurrency or [1 if spec.url else arrivals.SLOTS])[0]
        load = "trace" if spec.trace else spec.arrival or "poisson"
        for name, depth, rate in product(workloads, sorted(spec.depth or [0]), _rates(spec)):
            _require_bounds(spec, workloads[name], rate)
            yield Cell(name, slots, depth, load, rate)
        return
    for name, workload in workloads.items():
        for depth in sorted(spec.depth or [0]):
            for concurrency in _in_flight(spec, workload):
                yield Cell(name, concurrency, depth, _load(spec, workload))


def _refusals(spec: RunSpec, backend: Backend) -> Iterator[tuple[object, str, str]]:
    """What can never be, whatever the model: whether it is asked for, what is wrong, what to do."""
    able, name, starts = backend.capabilities, f"the backend {backend.name!r}", spec.url is None
    # Threads, context and KV type may be what a running server has: its answer tells.
    of_a_start = ("options", "devices", "draft_model", "draft_tokens", "quantize")
    given = [SETTINGS[key].option for key in of_a_start if getattr(spec, key)]
    given += ["--server-bin"] if spec.server_bin else []
    cores = len(os.sched_getaffinity(0))
    yield (
        starts and spec.speculative and spec.speculative not in able.speculation,
        f"{name} does not support {spec.speculative!r} speculation",
        f"it supports: {', '.join(able.speculation) or 'none'}",
    )
    yield (
        spec.api and able.apis and spec.api not in able.apis,
        f"{name} never computes with {spec.api!r}",
        f"it supports: {', '.join(able.apis)}",
    )
    yield (
        spec.quantize and backend.own_models,
        f"{name} serves models of its own store: no quant can be made for it",
        "leave --quantize out, or serve a GGUF file with --backend llamacpp",
    )
    yield (
        starts and not backend.starts,
        f"{name} attaches to a running server and needs its address",
        "add --url http://127.0.0.1:8080/v1",
    )
    yield (
        starts and spec.load_from,
        "--load-from: other machines cannot reach a server that tokrig starts",
        "start the server with an address in their network, then give that with --url",
    )
    yield (
        spec.clients and spec.load_from,
        "--clients and --load-from: the requests come from this machine or from others",
        "run several load nodes on a machine to have several clients there",
    )
    yield (
        spec.clients and spec.clients > cores,
        f"--clients {spec.clients}: this process may use {cores} of the processors here",
        "more clients than processors only wait for each other",
    )
    yield (
        not starts and not backend.attaches,
        f"{name} starts its own server and takes no --url",
        "leave --backend out: tokrig recognises the engine behind an address",
    )
    yield (
        not starts and given,
        f"{', '.join(given)}: a server that is already running cannot be given this",
        "start the server with it, then measure it without",
    )


def mode_of(spec: RunSpec, switch: Switch | None, draft_model: Model | None) -> Mode:
    """What is switched on beside the baseline, named: ``ngram+reasoning-off+cap-250w``."""
    asked = [(setting, spec.settings[name]) for name, setting in SETTINGS.items()
             if name in spec.settings]  # fmt: skip
    known = {
        path.removeprefix("mode."): value
        for setting, value in asked
        for path in setting.found
        if path.startswith("mode.")
    }
    known["draft_model"] = draft_model.file if draft_model else None
    return Mode(
        name="+".join(one.part.format(value) for one, value in asked if one.part) or "baseline",
        draft_sha256=draft_model.sha256 if draft_model else None,
        reasoning_switch=switch.describe() if switch else None,
        **known,
    )


def run_id(model: Model, backend: str, mode: Mode, now: datetime) -> str:
    """``20261122-171500-gemma-3-270m-q4_k_m-embedded-3f2a``: sorts by time, says what it is."""
    parts = [model.family, model.variant or "", model.quant or "", backend]
    parts += [] if mode.name == "baseline" else [mode.name]
    words = slug("-".join(p for p in parts if p))[:80].strip("-")
    return f"{now:%Y%m%d-%H%M%S}-{words}-{secrets.token_hex(2)}"


def _managed(
    prepared: Prepared, switches: Path | None, tell: Tell, budget_bytes: int | None
) -> Prepared:
    """With the model's file or folder, its name for an engine with a store of its own.

    Raises ModelError for a draft model that cannot draft for this one: engines would go on without
    it and say nothing.
    """
    spec, backend = prepared.spec, prepared.backend
    availability = backend.availability()
    if not availability.ok and not spec.server_bin:
        raise InputError(
            f"the backend {backend.name!r} is not usable here: {availability.detail}",
            hint=availability.hint,
        )
    path, drafts = Path(spec.model), None
    model = Model(family=spec.model, identity_from="endpoint")
    if not backend.own_models:
        path = shelf.resolve(spec.model, tell, budget_bytes=budget_bytes)
        if spec.quantize is not None:
            path = quantize.made(
                path,
                spec.quantize,
                server_bin=spec.server_bin,
                tell=tell,
                budget_bytes=budget_bytes,
            )
        model = identity.identify(path)
    if spec.speculative and spec.draft_model is not None:
        # Room for a draft model is not made by removing the model it drafts for.
        with shelf.using(path):
            drafts = shelf.resolve(spec.draft_model, tell, budget_bytes=budget_bytes)
        if spec.speculative == "draft" and (reason := draft_mismatch(path, drafts)):
            raise ModelError(
                f"{drafts.name} cannot draft for {path.name}: {reason}",
                hint="a draft model needs the vocabulary of the model it drafts for: take a smaller"
                " one of the same family",
                code="draft_mismatch",
            )
    if prepared.trace and (limit := spec.context or model.context_train):
        if message := traces.too_long(prepared.trace, limit):
            raise InputError(
                message, hint="leave the longer ones out of the file, or give more --context"
            )
    switch = _switch(spec, model, switches)
    if spec.ladder is not None:
        prepared = _lowered(prepared, path, model)
    wanted = room.contexts(prepared.cells, prepared.workloads)
    launch = Launch(
        model=path,
        port=0,
        context_per_slot=room.context_per_slot(wanted, spec.context, model.context_train),
        slots=max(cell.concurrency for cell in prepared.cells),
        settings={n: v for n, v in spec.settings.items() if n not in {*ELSEWHERE, "devices"}},
        options=spec.options,
        binary=spec.server_bin,
        api=spec.api,
        devices=tuple(spec.devices or ()),
        speculation=Speculation(spec.speculative, drafts, spec.draft_tokens)
        if spec.speculative
        else None,
        reasoning=switch,
        keeps_prompts=any(shape.sessions for shape in prepared.workloads.values()),
    )
    launch = room.with_room(
        launch, model, wanted, asked=spec.context, planned=spec.planned is not None
    )
    for shape in prepared.workloads.values():
        if shape.turns:
            launch, remark = room.with_turns(launch, model, shape, asked=spec.context)
            remarks = (*prepared.remarks, *filter(None, [remark]))
            prepared = replace(prepared, remarks=remarks)
    launch = replace(launch, answers=asked(backend.questions(launch)))
    backend.vet(launch)
    backend.command(launch)  # wrong options and a missing binary show here
    mode = mode_of(spec, switch, identity.identify(drafts) if drafts else None)
    return replace(prepared, model=model, launch=launch, reasoning=switch, mode=mode)


def _switch(spec: RunSpec, model: Model, switches: Path | None) -> Switch | None:
    if spec.reasoning is None:
        return None
    known = (model.family, model.variant, model.architecture, model.base_model, model.file)
    return switch_for(spec.reasoning, [name for name in known if name], table(switches))


def _lowered(prepared: Prepared, path: Path, model: Model) -> Prepared:
    """A ladder without the steps whose slots do not fit into the memory that is free now."""
    wanted = room.contexts(prepared.cells, prepared.workloads)
    spec = prepared.spec
    context = room.context_per_slot(wanted, spec.context, model.context_train)
    gpu = prepared.backend.name != "embedded" and "gpu" in here(spec.api)
    free = memory.free_bytes(gpu=gpu)
    of = "GPU memory" if gpu else "memory"
    slots = free and memory.slots_that_fit(path, model, context, spec.kv_type, free)
    highest = max(cell.concurrency for cell in prepared.cells)
    if slots is None or free is None:
        remark = f"whether {highest} slots of {context} tokens fit into {of} is not known"
        return replace(prepared, remarks=(*prepared.remarks, remark))
    if slots >= highest:
        return prepared
    kept = tuple(c for c in prepared.cells if c.concurrency <= max(slots, 1))
    remark = (
        f"the ladder ends at {max(cell.concurrency for cell in kept)} of {highest}: beside the"
        f" weights {slots} slots of {context} tokens fit into the {human_bytes(free)} of {of} that"
        " are free"
    )
    return replace(prepared, cells=kept, remarks=(*prepared.remarks, remark))


def _attached(prepared: Prepared, switches: Path | None) -> Prepared:
    spec = prepared.spec
    server = endpoint(spec)
    if spec.power_cap_w and not server.is_loopback:
        raise _cap_elsewhere(f"the server at {spec.url} may be on another")
    model = Model(family=spec.served_model or "endpoint", identity_from="endpoint")
    switch = _switch(spec, model, switches)
    mode = mode_of(spec, switch, None)
    return replace(prepared, model=model, endpoint=server, reasoning=switch, mode=mode)


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

    Raises SpecError when the named variable is not set.
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
