"""What a run would do, without doing it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from tokrig.cli import present, words
from tokrig.run.prepare import Prepared, need


def plan(prepared: Prepared) -> dict[str, Any]:
    """The plan for machines. Requests are those of all repeats, warm-ups apart."""
    level, launch = prepared.level, prepared.launch
    cells = []
    for cell in prepared.cells:
        workload = prepared.workloads[cell.workload]
        cells.append(
            {
                "workload": cell.workload,
                "concurrency": cell.concurrency,
                "prompt_tokens": workload.prompt_tokens,
                "answer_tokens": workload.answer_tokens,
                "requests": level.repeats * level.iterations * cell.concurrency,
                "warmup_requests": level.repeats * level.warmups * cell.concurrency,
                "fits_context": launch is None or need(workload) <= launch.context_per_slot,
            }
        )
    return {
        "run_id": prepared.run_id,
        "model": words.model_name(prepared.model),
        "model_file": prepared.model.file,
        "backend": prepared.backend.name,
        "level": prepared.spec.level,
        "server_starts": level.repeats if launch else 0,
        "context_per_slot": launch.context_per_slot if launch else None,
        "slots": launch.slots if launch else None,
        "command": list(prepared.backend.command(replace(launch, port=0)).argv) if launch else None,
        "url": prepared.spec.url,
        "cells": cells,
    }


def print_plan(prepared: Prepared, as_json: bool) -> None:
    """The plan on stdout."""
    found = plan(prepared)
    if as_json:
        words.print_json(found)
        return
    out = present.console()
    cells = found["cells"]
    requests = sum(c["requests"] + c["warmup_requests"] for c in cells if c["fits_context"])
    tokens = sum(
        (c["requests"] + c["warmup_requests"]) * (c["prompt_tokens"] + c["answer_tokens"])
        for c in cells
        if c["fits_context"]
    )
    pairs = [
        ("Model", ", ".join(filter(None, (found["model"], found["model_file"])))),
        ("Backend", found["backend"]),
        (
            "Level",
            f"{found['level']}: {prepared.level.repeats} × {prepared.level.iterations} "
            f"iterations after {prepared.level.warmups} warm-up",
        ),
        ("Requests", f"about {requests}, with {tokens:,} tokens in all"),
    ]
    if found["command"]:
        pairs.append(
            ("Context", f"{found['context_per_slot']} tokens in each of {found['slots']} slots")
        )
        pairs.append(("Command", shlex.join(found["command"]) + "  (port 0: a free one)"))
    else:
        pairs.append(("Server", found["url"]))
    present.print_pairs(out, pairs)
    table = present.plain_table()
    for heading in ("workload", "concurrency", "prompt", "answer", "requests + warm-ups", ""):
        table.add_column(heading, justify="left" if heading in ("workload", "") else "right")
    for cell in cells:
        table.add_row(
            cell["workload"],
            str(cell["concurrency"]),
            str(cell["prompt_tokens"]),
            str(cell["answer_tokens"]),
            f"{cell['requests']} + {cell['warmup_requests']}",
            "" if cell["fits_context"] else "context too small: will be left out",
        )
    out.print()
    present.put(out, table)
