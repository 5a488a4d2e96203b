"""A planned run as others take it: the spec that measures it, the command that a person types."""

from __future__ import annotations

from tokrig.plan.model import Run
from tokrig.spec.run import RunSpec


def run_spec(run: Run) -> RunSpec:
    """The spec whose record answers ``run``."""
    return RunSpec(
        model=run.weights.reference,
        quantize=run.weights.quantize,
        backend=run.backend,
        server_bin=run.server_bin,
        workloads=None if run.workloads is None else list(run.workloads),
        concurrency=None if run.concurrency is None else list(run.concurrency),
        level=run.level,
        rig=run.rig,
        campaign=f"{run.campaign}/{run.entry}",
        planned=run.key,
        **run.settings,
        **run.others,
    )


def command(run: Run) -> str:
    """The line to copy that does the entry of ``run``, from the folder above ``campaigns/``."""
    return f"tokrig campaign run campaigns/{run.campaign}.yaml --only {run.entry}"
