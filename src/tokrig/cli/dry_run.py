"""What a run would do, without doing it: nothing is fetched, made or started."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tokrig.cli import present
from tokrig.errors import PutOff
from tokrig.models import hub, shelf
from tokrig.record.model import Model
from tokrig.references import of_hub
from tokrig.run import quantize
from tokrig.run.prepare import Prepared, need, outline, prepare
from tokrig.spec.run import RunSpec
from tokrig.units import human_bytes


@dataclass(frozen=True)
class Foreseen:
    """A request as far as it can be prepared without doing anything. ``fetch`` are the models
    that are not here, with their bytes where a hub tells; ``making`` is how a quant is made."""

    prepared: Prepared
    fetch: Mapping[str, int | None] = field(default_factory=dict)
    making: quantize.Making | None = None


def foresee(spec: RunSpec, now: datetime, switches: Path | None) -> Foreseen:
    """What ``prepare`` would find. Raises what it raises before it fetches or makes anything."""
    outlined = outline(spec, now)
    if spec.url is not None or outlined.backend.own_models:
        return Foreseen(prepare(spec, now, switches))
    if fetch := _to_fetch(spec):
        return Foreseen(replace(outlined, model=Model(family=spec.model)), fetch)
    if spec.quantize is None:
        return Foreseen(prepare(spec, now, switches))
    source = shelf.resolve(spec.model).path
    making = quantize.how(source, spec.quantize, spec.server_bin)
    if making.done:
        return Foreseen(prepare(spec, now, switches), making=making)
    served = prepare(spec.model_copy(update={"quantize": None}), now, switches)
    assert served.launch is not None
    changed = {"quant": making.quant, "file": making.final.name}
    return Foreseen(
        replace(
            served,
            model=served.model.model_copy(update=changed),
            launch=replace(served.launch, model=making.final),
        ),
        making=making,
    )


def _to_fetch(spec: RunSpec) -> dict[str, int | None]:
    """Models of a hub that are not here. The hub is asked what it has now; where it cannot be
    reached, what it had when it was asked last."""
    found = {}
    for reference in filter(None, (spec.model, spec.draft_model)):
        if of_hub(reference):
            with contextlib.suppress(PutOff):
                hub.listed(reference)
            known = shelf.known_size(reference)
            if not known.here:
                found[reference] = known.bytes
    return found


def plan(found: Foreseen) -> dict[str, Any]:
    """The plan for machines. Requests are those of all repeats, warm-ups apart."""
    prepared, making = found.prepared, found.making
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
    quantized = making and {
        "quant": making.quant,
        "from": making.quantized_from.file,
        "tool": making.quantized_from.tool,
        "made": making.done,
    }
    return {
        "run_id": prepared.run_id or None,
        "model": present.model_name(prepared.model),
        "model_file": prepared.model.file,
        "fetch": [{"model": name, "bytes": size} for name, size in found.fetch.items()],
        "quantize": quantized,
        "backend": prepared.backend.name,
        "mode": prepared.mode.name,
        "kv_type": prepared.spec.kv_type,
        "level": prepared.spec.level,
        "server_starts": 0 if prepared.spec.url else level.repeats,
        "context_per_slot": launch.context_per_slot if launch else None,
        "slots": launch.slots if launch else None,
        "command": list(prepared.backend.command(replace(launch, port=0)).argv) if launch else None,
        "url": prepared.spec.url,
        "cells": cells,
    }


def print_plan(found: Foreseen, as_json: bool) -> None:
    """The plan on stdout."""
    told = plan(found)
    if as_json:
        present.print_json(told)
        return
    out = present.console()
    present.print_pairs(out, [*_before(found), *_pairs(found.prepared, told)])
    table = present.plain_table()
    for heading in ("workload", "concurrency", "prompt", "answer", "requests + warm-ups", ""):
        table.add_column(heading, justify="left" if heading in ("workload", "") else "right")
    for cell in told["cells"]:
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


def _before(found: Foreseen) -> list[tuple[str, str]]:
    """What comes before the engine is started."""
    pairs = [
        ("Fetch", f"{name}, {human_bytes(size) if size else 'of unknown size'}: not here yet")
        for name, size in found.fetch.items()
    ]
    asked = found.prepared.spec.quantize
    if making := found.making:
        state = "made already" if making.done else f"about {human_bytes(making.bytes_needed)}"
        by = f"from {making.quantized_from.file} by {making.quantized_from.tool}"
        pairs.append(("Quantize", f"{making.quant}, {by}: {state}"))
    elif asked:
        pairs.append(("Quantize", f"{asked}, once the model is here"))
    if cap := found.prepared.spec.power_cap_w:
        pairs.append(("Power cap", f"{cap:g} W on every graphics card, taken back afterwards"))
    return pairs


def _pairs(prepared: Prepared, told: Mapping[str, Any]) -> list[tuple[str, str]]:
    fitting = [cell for cell in told["cells"] if cell["fits_context"]]
    requests = sum(c["requests"] + c["warmup_requests"] for c in fitting)
    tokens = sum(
        (c["requests"] + c["warmup_requests"]) * (c["prompt_tokens"] + c["answer_tokens"])
        for c in fitting
    )
    level = prepared.level
    pairs = [
        ("Model", ", ".join(filter(None, (told["model"], told["model_file"])))),
        ("Backend", told["backend"]),
        (
            "Level",
            f"{told['level']}: {level.repeats} × {level.iterations} "
            f"iterations after {level.warmups} warm-up",
        ),
        ("Requests", f"about {requests}, with {tokens:,} tokens in all"),
    ]
    if told["mode"] != "baseline":
        pairs.append(("Mode", told["mode"]))
    if told["kv_type"]:
        pairs.append(("KV cache", told["kv_type"]))
    if told["command"]:
        pairs.append(
            ("Context", f"{told['context_per_slot']} tokens in each of {told['slots']} slots")
        )
        pairs.append(("Command", shlex.join(told["command"]) + "  (port 0: a free one)"))
    elif told["url"]:
        pairs.append(("Server", told["url"]))
    return pairs
