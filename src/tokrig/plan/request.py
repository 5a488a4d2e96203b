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
        level=run.level,  # type: ignore[arg-type]
        api=run.api,  # type: ignore[arg-type]
        speculative=run.mode.speculative,  # type: ignore[arg-type]
        draft_model=run.mode.draft_model,
        draft_tokens=run.mode.draft_tokens,
        reasoning=run.reasoning,  # type: ignore[arg-type]
        kv_type=run.kv_type,
        context=run.context,
        power_cap_w=run.power_cap_w,
        rig=run.rig,
        campaign=f"{run.campaign}/{run.entry}",
        planned=run.key,
        **run.spec_settings,
    )


def command(run: Run) -> str:
    """The line to copy that does the entry of ``run``, from the folder above ``campaigns/``."""
    return f"tokrig campaign run campaigns/{run.campaign}.yaml --only {run.entry}"
