"""What a run would do, without doing it: nothing is fetched, made or started."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from tokrig.cli import present
from tokrig.errors import PutOff
from tokrig.models import hub, shelf
from tokrig.naming import Reference, model_label, of_hub, slo_text
from tokrig.record.model import Model
from tokrig.record.rate_limits import MOST_PROBES
from tokrig.record.samples import tokens
from tokrig.run import quantize
from tokrig.run.open_loop import Arrive, arrivals_of
from tokrig.run.prepare import Prepared, outline, prepare
from tokrig.run.room import LEAST_TURNS, NO_LIMIT, need, turns_in
from tokrig.run.session import silence_s
from tokrig.spec import arrivals
from tokrig.spec.run import RunSpec
from tokrig.spec.settings import said
from tokrig.units import human_bytes, human_seconds


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
    local = spec.url is None and not outlined.backend.own_models
    if local and (fetch := _to_fetch(spec)):
        return Foreseen(replace(outlined, model=Model(family=spec.model)), fetch)
    if not local or spec.quantize is None:
        return Foreseen(prepare(spec, now, switches))
    source = shelf.resolve(spec.model)
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
                hub.listing_of(Reference.parse(reference))
            known = shelf.known_size(reference)
            if not known.here:
                found[reference] = known.bytes
    return found


def print_plan(found: Foreseen, as_json: bool) -> None:
    """What would be done, on stdout."""
    plan = _plan(found)
    if as_json:
        present.print_json(plan)
        return
    out = present.console()
    present.print_pairs(out, _pairs(found, plan))
    headings = ("workload", "depth", "concurrency", "prompt", "answer", "requests + warm-ups", "")
    table = present.plain_table(*headings, right=headings[1:6])
    for cell in plan["cells"]:
        table.add_row(
            cell["workload"],
            tokens(cell["depth_tokens"]),
            *(str(cell[key]) for key in ("concurrency", "prompt_tokens", "answer_tokens")),
            f"{plan['sustain'] or cell['requests']} + {cell['warmup_requests']}",
            cell.get("note", "") if cell["fits_context"] else "context too small: will be left out",
        )
    out.print()
    present.put(out, table)


def _plan(found: Foreseen) -> dict[str, Any]:
    """For machines. Requests are those of all repeats, warm-ups apart."""
    prepared, making = found.prepared, found.making
    spec, level, launch = prepared.spec, prepared.level, prepared.launch
    cells = []
    for cell in prepared.cells:
        workload, starts = prepared.workloads[cell.workload], level.repeats * cell.concurrency
        room = launch.context_per_slot if launch else NO_LIMIT
        prompt = workload.prompt_tokens + cell.depth_tokens
        # A search has as many again at each rate that it tries.
        arrive = len(Arrive.of(prepared, cell, 0).due_s) if cell.is_open else None
        each = level.iterations * cell.concurrency if arrive is None else arrive
        facts = {
            "workload": cell.shape if cell.is_open else cell.workload,
            "concurrency": cell.concurrency,
            "depth_tokens": cell.depth_tokens,
            "prompt_tokens": prompt,
            "answer_tokens": workload.answer_tokens,
            # A load that lasts has as many as there is time for.
            "requests": None if spec.sustain else each * level.repeats,
            "warmup_requests": level.warmups * starts,
            "fits_context": need(workload, prompt) <= room,
        }
        if whole := len(workload.turns):
            turns = turns_in(workload, room)
            facts |= {
                "requests": turns * starts,
                "warmup_requests": starts,
                "fits_context": turns >= LEAST_TURNS,
                "turns": turns,
                "note": f"about {turns} of {whole} turns fit" if turns < whole else "",
            }
        cells.append(facts)
    return {
        "run_id": prepared.run_id or None,
        "model": model_label(prepared.model),
        "model_file": prepared.model.file,
        "fetch": [{"model": name, "bytes": size} for name, size in found.fetch.items()],
        "quantize": making
        and {
            "quant": making.quant,
            "from": making.quantized_from.file,
            "tool": making.quantized_from.tool,
            "made": making.done,
        },
        "backend": prepared.backend.name,
        "mode": prepared.mode.name,
        "kv_type": spec.kv_type,
        "settings": spec.settings,
        "level": spec.level,
        "sustain": spec.sustain,
        "remarks": list(prepared.remarks),
        "server_starts": 0 if spec.url else level.repeats,
        "context_per_slot": launch.context_per_slot if launch else None,
        "slots": launch.slots if launch else None,
        "command": list(prepared.backend.command(replace(launch, port=0)).argv) if launch else None,
        "url": spec.url,
        "load_from": spec.load_from,
        "load_nodes": spec.load_nodes,
        "clients": spec.clients,
        "cells": cells,
    }


def _arrivals(found: Foreseen) -> str:
    """``poisson for 60 s, the first 10 s not measured, SLO TTFT ≤ 500 ms``."""
    spec = found.prepared.spec
    told = arrivals_of(found.prepared, found.prepared.cells[0])
    trace = told.trace
    parts = [
        f"{trace.requests} of {trace.file} ({trace.format})" if trace else "",
        f"for {told.duration_s:g} s, the first {told.warm_up_window_s:g} s not measured",
        f"SLO {slo_text(told.slo)}" if told.slo else "",
        f"a search by at most {MOST_PROBES} rates" if spec.find_rate else "",
    ]
    return ", ".join(filter(None, parts))


def _pairs(found: Foreseen, plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spec = found.prepared.spec
    for name, size in found.fetch.items():
        yield "Fetch", f"{name}, {human_bytes(size) if size else 'of unknown size'}: not here yet"
    if making := found.making:
        state = "made already" if making.done else f"about {human_bytes(making.bytes_needed)}"
        by = f"from {making.quantized_from.file} by {making.quantized_from.tool}"
        yield "Quantize", f"{making.quant}, {by}: {state}"
    elif spec.quantize:
        yield "Quantize", f"{spec.quantize}, once the model is here"
    if cap := spec.power_cap_w:
        yield "Power cap", f"{cap:g} W on every graphics card, taken back afterwards"
    yield "Model", ", ".join(filter(None, (plan["model"], plan["model_file"])))
    yield "Backend", plan["backend"]
    yield from _amount(found, plan)
    if arrivals.is_open(spec):
        yield "Arrivals", _arrivals(found)
    deepest = max(found.prepared.cells, key=lambda cell: cell.depth_tokens * cell.concurrency)
    if deepest.depth_tokens:
        waits = human_seconds(silence_s(spec.request_timeout_s, deepest))
        yield "Time-out", f"{waits} without a token, for {deepest.label}"
    if told := said({**spec.settings, "quantize": None, "power_cap_w": None}):
        yield "Settings", ", ".join(told)
    if plan["command"]:
        yield "Context", f"{plan['context_per_slot']} tokens in each of {plan['slots']} slots"
        yield "Command", shlex.join(plan["command"]) + "  (port 0: a free one)"
    elif spec.url:
        yield "Server", spec.url
    if spec.clients:
        yield (
            "Load from",
            f"{spec.clients} process{'es' if spec.clients > 1 else ''} of this machine",
        )
    if spec.load_from:
        yield (
            "Load from",
            f"{spec.load_nodes or 'all'} load nodes of the Ray cluster at {spec.load_from}",
        )


def _amount(found: Foreseen, plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How much is measured."""
    spec, level = found.prepared.spec, found.prepared.level
    often = f"{level.repeats} × {level.iterations} iterations after {level.warmups} warm-up"
    if spec.sustain:
        often = f"once for {spec.sustain} after {level.warmups} warm-up"
    yield "Level", f"{spec.level}: {often}"
    if spec.ladder:
        highest = max(cell["concurrency"] for cell in plan["cells"])
        yield "Ladder", f"doubles the requests in flight while that pays, up to {highest}"
    for remark in plan["remarks"]:
        yield "Note", remark
    requests = all_tokens = 0
    for cell in plan["cells"]:
        if cell["fits_context"]:
            requests += (number := (cell["requests"] or 0) + cell["warmup_requests"])
            turns = found.prepared.workloads[cell["workload"]].turns[: cell.get("turns", 0)]
            lengths = [turn.prompt_tokens + turn.answer_tokens for turn in turns]
            each = fmean(lengths or [cell["prompt_tokens"] + cell["answer_tokens"]])
            all_tokens += round(number * each)
    if not spec.sustain:
        about = "at most" if spec.ladder else "about"
        yield "Requests", f"{about} {requests}, with {all_tokens:,} tokens in all"
