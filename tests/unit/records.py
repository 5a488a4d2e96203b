"""Whole records made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.record.checks import Circumstances, judge, judge_run
from tokrig.record.metrics import Figures, figures
from tokrig.record.model import (
    BackendFacts,
    Model,
    Provenance,
    Record,
    Result,
    Rig,
    WorkloadFacts,
)
from tokrig.record.samples import Sample


def record_of(samples: Sequence[Sample], run_id: str = "20261122-120000-tiny-aaaa") -> Record:
    """The record that honestly follows from ``samples`` of one cell."""
    found = figures(samples)
    seen = Circumstances(
        answer_tokens=11,
        prompt_tokens=64,
        throttle_reasons=[],
        spilled=False,
        api="cpu",
        api_confirmed=True,
    )
    result = Result(
        workload=WorkloadFacts(name=samples[0].workload, prompt_tokens=64, answer_tokens=11),
        concurrency=samples[0].concurrency,
        validity=judge(samples, seen),
        **{name: getattr(found, name) for name in Figures.__dataclass_fields__},
    )
    return Record(
        id=run_id,
        status="complete",
        validity=judge_run([result], complete=True),
        provenance=Provenance(kind="measured", level="quick"),
        model=Model(family="Tiny", quant="Q4_K_M"),
        rig=Rig(id="test-rig"),
        backend=BackendFacts(name="embedded", engine="llama.cpp", api="cpu", api_confirmed=True),
        results=[result],
    )
