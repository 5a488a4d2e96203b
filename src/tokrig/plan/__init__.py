"""From campaign files to runs: what they mean, what is done, what fits, what it costs, in which
order. Pure: no file is read, no clock, no randomness; the same input gives the same plan.
"""

from tokrig.plan.model import (
    STATES,
    TO_DO,
    Past,
    Plan,
    PlanInputs,
    Planned,
    RigMemory,
    Run,
    Shape,
    State,
    Weights,
    command,
    run_spec,
)
from tokrig.plan.order import plan
from tokrig.quants import Size

__all__ = [
    "STATES",
    "TO_DO",
    "Past",
    "Plan",
    "PlanInputs",
    "Planned",
    "RigMemory",
    "Run",
    "Shape",
    "Size",
    "State",
    "Weights",
    "command",
    "plan",
    "run_spec",
]
