"""Codegen: a short specification, and a long piece of code as the answer."""

from __future__ import annotations

from tokrig.workloads import Workload, blocks, question

# The endings ask for everything to be written out: the answer has to last for 1,024 tokens.
_ENDINGS, *_TASKS = blocks("codegen.txt")

WORKLOAD = Workload(
    name="codegen",
    summary=(
        "A short specification and a long program: one unbroken decode loop, the closest of "
        "the shapes to the speed that a model can sustain."
    ),
    prompt_tokens=96,
    answer_tokens=1024,
    concurrencies=(1,),
    variants=tuple(
        question(
            task + "{material}{ending}",
            (f"\n{bullet}" for bullet in requirements),
            (f"\n\n{ending}" for ending in _ENDINGS),
        )
        for task, *requirements in _TASKS
    ),
)
