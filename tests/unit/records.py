"""Whole records made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.checks import Seen, judge, judge_run
from tokrig.record.loads import Arrivals
from tokrig.record.metrics import figures
from tokrig.record.model import (
    BackendFacts,
    Interference,
    LoadMemory,
    Model,
    Provenance,
    Record,
    Result,
    Rig,
    WorkloadFacts,
)
from tokrig.record.samples import Sample


def record_of(
    samples: Sequence[Sample],
    run_id: str = "20261122-120000-tiny-aaaa",
    arrivals: Arrivals | None = None,
) -> Record:
    """The record that honestly follows from ``samples`` of one cell."""
    found = figures(samples, arrivals=arrivals)
    backend = BackendFacts(
        name="embedded", engine="llama.cpp", api="cpu", api_confirmed=True, managed=True
    )
    shape = WorkloadFacts(name=samples[0].workload, prompt_tokens=64, answer_tokens=21)
    interference = Interference(foreign_wait_share=0.0, throttle_reasons=[])
    load_memory = LoadMemory(spilled=False)
    seen = Seen(
        workload=shape,
        cell=samples[0].cell,
        arrivals=arrivals,
        backend=backend,
        interference=interference,
        load_memory=load_memory,
    )
    result = Result(
        workload=shape,
        concurrency=samples[0].concurrency,
        depth_tokens=samples[0].depth_tokens,
        load=samples[0].load,
        rate_per_s=samples[0].rate_per_s,
        arrivals=arrivals,
        validity=judge(samples, seen),
        interference=interference,
        **found,
    )
    return Record(
        id=run_id,
        status="complete",
        validity=judge_run([result], complete=True),
        provenance=Provenance(kind="measured", level="quick", methodology=METHODOLOGY_VERSION),
        model=Model(family="Tiny", quant="Q4_K_M"),
        rig=Rig(id="test-rig"),
        backend=backend,
        load_memory=load_memory,
        results=[result],
    )
