"""The context that a run needs, and whether there is room for it: told before anything starts.

What a model was made for, what was asked for with ``--context``, and the memory that is free bound
a slot's context. Only what is known bounds it: where a model's header does not settle its cache, or
its layers are spread over devices, memory is not reckoned with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tokrig.backends import Launch
from tokrig.errors import InputError, ModelError
from tokrig.models.architecture import layout_of
from tokrig.models.cache import CacheLayout
from tokrig.quants import OVERHEAD_BYTES, context_for
from tokrig.record.model import Model
from tokrig.record.samples import Cell, tokens
from tokrig.run import memory
from tokrig.run.monitor import here
from tokrig.units import human_bytes
from tokrig.workloads import Turn, Workload, tolerance

NO_LIMIT = 1 << 62
# A text may have so many times the tokens of another tokenizer.
TOKENIZERS_DIFFER = 1.1
# Of a session one turn alone would be a cold prompt like any other.
LEAST_TURNS = 2
# The deepest is told in whole steps.
STEP = 1024


def need(workload: Workload, prompt_tokens: int | None = None) -> int:
    """Tokens of context one request of this shape takes, at its own prompt length or another."""
    if workload.turns:
        return turn_need(workload.turns[-1])
    prompt = prompt_tokens or workload.prompt_tokens
    return prompt + tolerance(prompt) + workload.answer_tokens


def turn_need(turn: Turn) -> int:
    """Tokens of context that one turn of a session takes by any tokenizer."""
    return round(turn.prompt_tokens * TOKENIZERS_DIFFER) + turn.answer_tokens


def turns_in(workload: Workload, context: int) -> int:
    """How many turns of a session fit into a context, before its tokenizer was asked."""
    return sum(turn_need(turn) <= context for turn in workload.turns)


def contexts(cells: Iterable[Cell], workloads: Mapping[str, Workload]) -> dict[Cell, int]:
    """The tokens of context that a request of each cell takes."""
    shapes = {cell: workloads[cell.workload] for cell in cells}
    return {cell: need(of, of.prompt_tokens + cell.depth_tokens) for cell, of in shapes.items()}


def context_per_slot(wanted: Mapping[Cell, int], asked: int | None, limit: int | None) -> int:
    """Tokens each slot must hold: those that were asked for, else of the longest cell that there
    is room for at all."""
    if asked is not None:
        return asked
    most = limit or NO_LIMIT
    # A session ends with the last turn that fits; a shape is measured whole or not at all.
    needs = [min(n, most) for cell, n in wanted.items() if n <= most or cell.load == "session"]
    return context_for(max(needs, default=0), most)


def with_room(
    launch: Launch, model: Model, wanted: Mapping[Cell, int], *, asked: int | None, planned: bool
) -> Launch:
    """``launch`` with a context for the cells that there is room for. Depths beyond that are left
    out of a ``planned`` run, whose campaign asks them of many models.

    Raises InputError for them in any other run, with the depths that fit.
    """
    deep = {cell: number for cell, number in wanted.items() if cell.depth_tokens}
    bounds = [_by_memory(launch, model)] if deep else []
    if asked is not None:
        bounds.append((asked, f"each slot has {asked:,} (--context)"))
    elif model.context_train is not None:
        named = model.file or model.family
        bounds.append((model.context_train, f"{named} was made for {model.context_train:,}"))
    limit, why = min(bounds, default=(NO_LIMIT, ""))
    beyond = [cell for cell, number in deep.items() if number > limit]
    if not beyond:
        return launch
    if planned:
        return replace(launch, context_per_slot=context_per_slot(wanted, asked, limit))
    raise InputError(
        f"--depth {tokens(beyond[0].depth_tokens)}: {beyond[0].workload} needs"
        f" {wanted[beyond[0]]:,} tokens of context there, and {why}",
        hint=_what_fits(wanted, beyond, limit),
    )


def with_turns(
    launch: Launch, model: Model, workload: Workload, *, asked: int | None
) -> tuple[Launch, str]:
    """``launch`` with the context that memory leaves to sessions, and which turns that is room for:
    empty where all of them fit.

    Raises InputError where not even the first turns do.
    """
    if asked is None and (most := _by_memory(launch, model)[0]) < launch.context_per_slot:
        launch = replace(launch, context_per_slot=most)
    room, whole = launch.context_per_slot, workload.turns
    turns = turns_in(workload, room)
    if turns < LEAST_TURNS:
        raise InputError(
            f"{workload.name}: its first {LEAST_TURNS} turns need about"
            f" {turn_need(whole[LEAST_TURNS - 1]):,} tokens of context, and a slot has {room:,}",
            hint=f"all {len(whole)} turns need about {turn_need(whole[-1]):,}: give more with"
            " --context, or take a model that was made for more",
        )
    if turns == len(whole):
        return launch, ""
    fit = f"about {turns} of {len(whole)} turns fit into a context of {room:,} tokens"
    return launch, f"{workload.name}: {fit}"


def _what_fits(wanted: Mapping[Cell, int], beyond: Iterable[Cell], limit: int) -> str:
    """The depths that were asked for and fit with every shape, and the deepest that would."""
    too_deep = {cell.depth_tokens for cell in beyond}
    fit = sorted({cell.depth_tokens for cell in wanted} - too_deep)
    # A tolerance of one percent belongs to what a depth takes.
    over = max(number - cell.depth_tokens * 1.01 for cell, number in wanted.items())
    deepest = int((limit - over) / 1.01) // STEP * STEP
    found = [f"--depth {','.join(map(tokens, fit))} fits"] if any(fit) else []
    if deepest > 0:
        found.append(f"the deepest that does is {tokens(deepest)}")
    return "; ".join(found) or "leave --depth out"


def _by_memory(launch: Launch, model: Model) -> tuple[int, str]:
    """The tokens that each slot can have in the memory that is free, and why no more."""
    kind = str(launch.settings.get("kv_type") or "f16")
    free = _free_bytes(launch)
    spread = launch.settings.get("gpu_layers") is not None or any(map(_spreads, launch.flags))
    try:
        # vLLM hands out blocks of a pool: more requests than it holds wait.
        layout = None if launch.model.is_dir() else layout_of(launch.model)
        if layout is None or not layout.fits_type(kind, kind):
            return NO_LIMIT, ""
    except (InputError, ModelError):
        return NO_LIMIT, ""
    if not (free and layout.layers and model.bytes) or spread:
        return NO_LIMIT, ""
    types = {"type_k": kind, "type_v": kind}
    most = layout.largest_context(
        free - model.bytes - OVERHEAD_BYTES,
        launch.slots,
        **types,
        swa_full="swa-full" in launch.flags,
    )
    return (
        most,
        f"its cache takes {human_bytes(layout.bytes_per_token(**types) * 1024)} for 1,024 tokens in"
        f" each of {launch.slots} slots{_until(layout)}: {human_bytes(free)} are free for it, for"
        f" weights of {human_bytes(model.bytes)} and for the engine",
    )


def _until(layout: CacheLayout) -> str:
    """What is to be said of a cache part of which stops growing."""
    whole = sum(part.layers for part in layout.layers)
    short = [part for part in layout.layers if part.window is not None]
    if not short:
        return ""
    longest = max(part.window or 0 for part in short)
    return f" ({sum(part.layers for part in short)} of {whole} layers up to {longest:,} tokens)"


def _spreads(flag: str) -> bool:
    """Whether an option of the engine's own keeps some of a model elsewhere."""
    return "moe" in flag or "offload" in flag or flag in ("ngl", "nkvo", "ot", "override-tensor")


def _free_bytes(launch: Launch) -> int | None:
    """The memory that the engine may still take, as far as its API tells; the larger of the cards'
    and main memory where nobody knows yet which computes, None where it is not told."""
    main = memory.free_bytes(gpu=False)
    if "gpu" not in here(launch.api):
        return main
    cards = memory.free_bytes(gpu=True)
    return cards if launch.api is not None or cards is None else max(cards, main or 0)
