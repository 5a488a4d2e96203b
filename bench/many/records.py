"""Whole records, and the folder of them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from bench.many.curves import kind_of, more, quality
from bench.many.market import machines, tables, variants
from bench.many.results import result
from bench.many.setup import SLOTS, Setup, draw
from tokrig import __version__, registry
from tokrig.documents import dump
from tokrig.naming import address, hardware_name
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record import model as m
from tokrig.record.checks import judge_run
from tokrig.record.model import record_text
from tokrig.record.ties import wall_s
from tokrig.spec.run import LEVELS
from tokrig.store import Store
from tokrig.units import slug
from tokrig.workloads import Workload

FIRST_START, APART = datetime(2026, 7, 1), timedelta(minutes=20)
SHAPES = ("chat", "rag", "codegen", "agent")
MANY_STREAMS_SHARE, ERRATUM_SHARE = 0.1, 0.01

LevelName = Literal["quick", "standard", "publish"]
LEVEL_SHARES: dict[LevelName, int] = {"quick": 3, "standard": 80, "publish": 17}


def write_run(store: Store, seed: int, number: int) -> int:
    """Write the record of a number; its size in bytes."""
    record = make_record(seed, number)
    data = record_text(record).encode()
    path = store.record_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return len(data)


def write_facts(content: Path) -> None:
    """Release months of all families, a bandwidth and a line of prose on each rig."""
    for folder in ("models", "rigs"):
        (content / folder).mkdir(parents=True, exist_ok=True)
    for family, released in {v.family: v.released for v in variants()}.items():
        facts = dump({"family": family, "released": released})
        (content / "models" / f"{address(family)}.yaml").write_text(facts, encoding="utf-8")
    for machine in machines():
        figures = dump({"memory_bandwidth_bytes_per_s": {"theoretical": machine.bandwidth}})
        line = f"A made-up machine with {hardware_name(machine.rig)}."
        page = f"---\n{figures}---\n\n{line}\n"
        (content / "rigs" / f"{machine.rig.id}.md").write_text(page, encoding="utf-8")


def make_record(seed: int, number: int) -> m.Record:
    """The record of a number, the same for the same seed."""
    chance = Random(f"{seed}-{number}")
    setup = draw(chance)
    level_name = chance.choices(list(LEVEL_SHARES), list(LEVEL_SHARES.values()))[0]
    level = LEVELS[level_name]
    concurrencies = (1, SLOTS) if chance.random() < MANY_STREAMS_SHARE else (1,)
    # By a chance of its own: what it adds leaves all other figures as they were.
    further = Random(f"{seed}-{number}-further")
    kind, setup = kind_of(setup, further)
    results = [
        result(setup, workload(shape), concurrency, level, chance)
        for shape in SHAPES
        for concurrency in concurrencies
    ]
    shapes = {name: workload(name) for name in ("chat", "session")}
    beside = more(kind, setup, results, level, shapes, further)
    results += beside.results
    started = FIRST_START + number * APART
    finished = started + max(APART / 2, timedelta(seconds=1.2 * sum(map(_took_s, results))))
    model = model_facts(setup, chance)
    name = slug(f"{model.family}-{model.variant}-{model.quant}-{setup.engine['backend']}")
    return m.Record(
        id=f"{started:%Y%m%d-%H%M%S}-{name}-{number:04x}",
        status="complete",
        validity=judge_run(results, complete=True, ladders=beside.ladders),
        provenance=m.Provenance(
            kind="measured",
            tokrig_version=__version__,
            tokrig_commit="4c47876dbb68",
            methodology=METHODOLOGY_VERSION,
            level=level_name,
            started_at=f"{started:%Y-%m-%dT%H:%M:%SZ}",
            finished_at=f"{finished:%Y-%m-%dT%H:%M:%SZ}",
            server_starts=level.repeats,
            seed=1,
        ),
        model=model,
        rig=setup.machine.rig,
        backend=backend_facts(setup, str(model.file)),
        mode=mode_facts(setup),
        cold_start=m.ColdStart(
            load_s=round(0.8 + setup.weights_bytes / 2.5e9, 4),
            first_ttft_s=round(chance.uniform(0.1, 0.6), 4),
        ),
        results=results,
        ladders=list(beside.ladders),
        quality=quality(setup, further),
        errata=errata(started, chance),
    )


def _took_s(result: m.Result) -> float:
    return wall_s(result) or 0.0


@cache
def workload(shape: str) -> Workload:
    """The shape of that name."""
    loaded: Workload = registry.load("workloads", shape, "WORKLOAD")
    return loaded


def model_facts(setup: Setup, chance: Random) -> m.Model:
    """The model's file as its own metadata would describe it."""
    variant, quant, format_name = setup.variant, setup.quant, setup.engine["format"]
    name = f"{variant.family}-{variant.name}-{quant.label}"
    file = f"{name}.gguf" if format_name == "gguf" else name
    creator = chance.choice(tables()["formats"][format_name]["creators"])
    return m.Model(
        family=variant.family,
        variant=variant.name,
        quant=quant.label,
        quant_creator=creator,
        format=format_name,
        file=file,
        sha256=hashlib.sha256(f"{creator}/{file}".encode()).hexdigest(),
        bytes=round(setup.weights_bytes),
        parameters=variant.parameters,
        active_parameters=variant.active if variant.active < variant.parameters else None,
        bits_per_weight=quant.bits_per_weight,
        tensor_types={"F32": 4 * variant.layers + 1, quant.tensor_type: 7 * variant.layers + 1},
        context_train=variant.context_train,
        architecture=variant.architecture,
        license=variant.license,
        reasoning=setup.reasons,
        identity_from="metadata",
    )


def backend_facts(setup: Setup, file: str) -> m.BackendFacts:
    """A server started by tokrig, its settings read back."""
    cpu, layers = setup.machine.rig.cpu, setup.variant.layers + 1
    gpu_layers = layers if setup.machine.rig.gpus else 0
    slots = f"-c {setup.context * setup.slots} -np {setup.slots}"
    flags = f"--port 0 {slots} -ngl {gpu_layers} -fa on --jinja"
    return m.BackendFacts(
        name=setup.engine["backend"],
        engine=setup.engine["engine"],
        build=setup.build,
        api=setup.api,
        api_confirmed=True,
        managed=True,
        argv=[f"{setup.engine['backend']}-server", "-m", file, *flags.split()],
        resolved=m.Resolved(
            context_per_slot=setup.context,
            slots=setup.slots,
            threads=cpu.cores,
            threads_batch=cpu.cores,
            batch=2048,
            ubatch=512,
            cache_type_k="f16",
            cache_type_v="f16",
            flash_attention="enabled",
            gpu_layers=gpu_layers,
            layers=layers,
            devices=[f"{setup.api.upper()}{i}" for i in range(len(setup.machine.rig.gpus))],
            chat_template="model",
        ),
    )


def mode_facts(setup: Setup) -> m.Mode:
    """The mode, with what was asked of reasoning and what came."""
    return m.Mode(
        name=setup.mode,
        speculative=setup.mode if setup.mode in tables()["drafts"] else None,
        reasoning_asked="off" if setup.mode == "reasoning-off" else None,
        reasoning_observed=setup.reasons,
    )


def errata(started: datetime, chance: Random) -> list[m.Erratum]:
    """A correction on a few records."""
    if chance.random() >= ERRATUM_SHARE:
        return []
    return [
        m.Erratum(
            date=f"{started + timedelta(days=9):%Y-%m-%d}",
            field="rig.gpus[0].power_limit_w",
            text="The power limit was read before the cap was set; the figures are unaffected.",
        )
    ]
