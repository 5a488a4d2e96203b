"""What a few of the runs measure beside the shapes: speed by depth, a ladder, sessions, a load
that lasts; and quality.

    depth      decode and prefill after so many tokens, by the formulas of ``setup``
    ladder     1, 2, 4 … in flight, while the system rate grows by 5 %
    session    TTFT, s = prefill of what is new; all of the turn before is in the cache
    sustained  clock(t) = 1 − drop × (1 − e^(−t / τ)), and the rate follows the clock
    quality    KL, nats = 6.2 × 2^(−1.55 × bits a weight) × (8e9 / parameters)^0.15
               top-1 agreement = 1 − 0.45 × √KL

The last two are fitted to what llama.cpp's ``tools/perplexity/README.md`` tells of an 8B.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import NamedTuple

from bench.many.results import (
    FIRST_CHUNK_S,
    REPEAT_NOISE,
    REQUEST_NOISE,
    Request,
    of_requests,
    requests,
    result,
    rounded,
    workload_facts,
)
from bench.many.setup import Setup
from tokrig.record import model as m
from tokrig.record.ladder import KNEE_KNOWN, Step, end_of, knee_of
from tokrig.record.loads import (
    Cause,
    Ladder,
    OverTime,
    SessionFigures,
    SessionTurn,
    Sustained,
)
from tokrig.record.quality import Interval, Quality, QualityReference
from tokrig.record.sustained import CLOCKS_FELL, RATE_FELL, edges, window_s
from tokrig.spec.run import Level
from tokrig.units import slug
from tokrig.workloads import Workload

KINDS = {"depth": 12, "ladder": 9, "session": 7, "sustained": 5, "": 67}
QUALITY_SHARE = 0.3
DEPTHS = (1024, 4096, 16384, 32768, 65536)
MOST_IN_FLIGHT = 64
SUSTAINED_S, IN_FLIGHT = 600.0, 4
CLOCK_MHZ, ROOM_C = 2500.0, 34.0
PROMPTS, POSITIONS = 24, 3072


class More(NamedTuple):
    """What a run has beside its shapes."""

    results: tuple[m.Result, ...] = ()
    ladders: tuple[Ladder, ...] = ()


def kind_of(setup: Setup, chance: Random) -> tuple[str, Setup]:
    """What such a run measures beside its shapes, and its setup then: nothing that does not fit
    the memory, and no context longer than the model was trained for."""
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    longest = setup.variant.context_train
    if kind == "depth":
        deep = [replace(setup, context=depth + 1024) for depth in DEPTHS]
        fitting = [one for one in deep if one.fits and one.context <= longest]
        return (kind, fitting[-1]) if len(fitting) > 1 else ("", setup)
    if kind == "ladder":
        slots = [2**power for power in range(2, 7)]
        fitting = [one for n in slots if (one := replace(setup, slots=n)).fits]
        return kind, fitting[-1]
    if kind == "session":
        long = replace(setup, context=17408)
        return (kind, long) if long.fits and long.context <= longest else ("", setup)
    return kind, setup


def more(
    kind: str,
    setup: Setup,
    plain: Sequence[m.Result],
    level: Level,
    shapes: dict[str, Workload],
    chance: Random,
) -> More:
    """The further results of a run whose ``plain`` ones are given."""
    chat = shapes["chat"]
    if kind == "depth":
        depths = [depth for depth in DEPTHS if depth + 1024 <= setup.context]
        return More(tuple(result(setup, chat, 1, level, chance, depth) for depth in depths))
    if kind == "ladder":
        return climb(setup, plain, level, chat, chance)
    if kind == "session":
        walks = (session(setup, n, level, shapes["session"], chance) for n in (1, 2))
        return More(tuple(walks))
    if kind == "sustained":
        return More((lasting(setup, level, chat, chance),))
    return More()


def climb(
    setup: Setup, plain: Sequence[m.Result], level: Level, workload: Workload, chance: Random
) -> More:
    """Steps until one says that it was the last; those among the ``plain`` results are taken."""
    there = {r.concurrency: r for r in plain if r.workload.name == workload.name}
    steps: list[m.Result] = []
    ended, now = None, 1
    while ended is None:
        steps.append(there.get(now) or result(setup, workload, now, level, chance))
        ended, now = end_of(list(map(_step, steps)), MOST_IN_FLIGHT, setup.slots), 2 * now
    steps += [one for at, one in there.items() if at >= now]
    ladder = Ladder(
        workload=workload.name,
        steps=[one.concurrency for one in steps],
        most=MOST_IN_FLIGHT,
        ended_by=ended,
        knee=knee_of(steps) if ended in KNEE_KNOWN else None,
    )
    return More(tuple(one for one in steps if one not in plain), (ladder,))


def _step(found: m.Result) -> Step:
    system = found.system_tok_per_s
    return Step(found.concurrency, system.median if system else None, waited=False)


def session(
    setup: Setup, sessions: int, level: Level, workload: Workload, chance: Random
) -> m.Result:
    """So many sessions at a time; each turn reads what is new."""
    prompts = [
        [round(turn.prompt_tokens * chance.uniform(0.98, 1.02)) for turn in workload.turns]
        for _ in range(sessions)
    ]
    repeats = []
    for _ in range(level.repeats):
        pace = chance.lognormvariate(0, REPEAT_NOISE)
        repeats.append(
            [
                _turn(setup, walk, number, turn.answer_tokens, sessions, pace, chance)
                for walk in prompts
                for number, turn in enumerate(workload.turns)
            ]
        )
    turns = [_figures(prompts, repeats, number) for number in range(len(workload.turns))]
    read = sum(turn.prompt_tokens or 0 for turn in turns)
    cached = sum(turn.cached_tokens or 0 for turn in turns)
    shape = workload_facts(workload).model_copy(
        update={
            "turn_answer_tokens": [turn.answer_tokens for turn in workload.turns],
            "turn_prompt_tokens": prompts,
        }
    )
    found = of_requests(
        setup, repeats, chance, {"workload": shape, "concurrency": sessions, "load": "session"},
        prompts[0][len(prompts[0]) // 2], may_fail=False,
    )  # fmt: skip
    figures = SessionFigures(
        turns=len(turns),
        sessions=sessions * level.repeats,
        hit_rate=rounded(cached / read),
        reusable_share=rounded(cached / read),
        by_turn=turns,
    )
    total = level.repeats * sum(sum(walk[:-1]) for walk in prompts)
    return found.model_copy(update={"session": figures, "cached_tokens": total})


def _turn(
    setup: Setup, walk: list[int], number: int, answer: int, sessions: int, pace: float,
    chance: Random,
) -> Request:  # fmt: skip
    new = walk[number] - (walk[number - 1] if number else 0)
    prefill_s = setup.prefill_s(new) * pace * chance.lognormvariate(0, REQUEST_NOISE)
    token_s = setup.token_s(walk[number], sessions) * pace
    return Request(
        token_s=token_s * chance.lognormvariate(0, REQUEST_NOISE),
        prefill_s=prefill_s,
        ttft_s=prefill_s * (sessions + 1) / 2 + FIRST_CHUNK_S,
        prompt=walk[number],
        answer=answer,
        reasoning=0,
    )


def _figures(prompts: list[list[int]], repeats: list[list[Request]], number: int) -> SessionTurn:
    """The first session's tokens and times stand for those of all."""
    turns = len(prompts[0])
    mine = [repeat[at] for repeat in repeats for at in range(number, len(repeat), turns)]
    prompt, before = prompts[0][number], prompts[0][number - 1] if number else 0
    middle = sorted(mine, key=lambda request: request.ttft_s)[len(mine) // 2]
    return SessionTurn(
        prompt_tokens=prompt,
        reusable_tokens=before,
        cached_tokens=before,
        new_tokens=prompt - before,
        output_tokens=middle.answer,
        ttft_s=rounded(middle.ttft_s),
        total_s=rounded(middle.total_s),
    )


def lasting(setup: Setup, level: Level, workload: Workload, chance: Random) -> m.Result:
    """One shape for ten minutes: a machine that is warm runs at a lower clock."""
    once = replace(level, repeats=1, iterations=1)
    first = requests(setup, workload, IN_FLIGHT, once, chance)[0][0]
    drop, slowly_s = chance.choice((0.0, 0.004, 0.05, 0.14)), chance.uniform(60, 150)
    clock = [1 - drop * (1 - math.exp(-at / slowly_s)) for at in _middles()]
    mean = sum(clock) / len(clock)
    slower = replace(setup, luck=setup.luck * mean)
    iterations = max(1, math.floor(SUSTAINED_S / (first.total_s / mean)))
    repeats = requests(slower, workload, IN_FLIGHT, replace(once, iterations=iterations), chance)
    shape = {"workload": workload_facts(workload), "concurrency": IN_FLIGHT, "load": "sustained"}
    context = workload.prompt_tokens + workload.answer_tokens / 2
    found = of_requests(slower, repeats, chance, shape, context, may_fail=False)
    system = found.system_tok_per_s
    rate = system.median if system else 0.0
    rates = [rounded(rate * of / mean * chance.lognormvariate(0, 0.01)) for of in clock]
    return found.model_copy(update={"sustained": _sustained(setup, rates, clock, chance)})


def _middles() -> list[float]:
    return [(low + high) / 2 for low, high in pairwise(edges(SUSTAINED_S))]


def _sustained(setup: Setup, rates: list[float], clock: list[float], chance: Random) -> Sustained:
    window = window_s(SUSTAINED_S)
    points = round(window / (SUSTAINED_S / len(rates)))
    first, last = (sum(part) / points for part in (rates[:points], rates[-points:]))
    fell = sum(clock[-points:]) / sum(clock[:points])
    hot = 30 + 14 * chance.random()
    warm = [1 - math.exp(-at / 90) for at in _middles()]
    limit_w = sum(gpu.power_limit_w or 0 for gpu in setup.machine.rig.gpus)
    reasons = (
        [] if fell >= CLOCKS_FELL else [chance.choice(("sw_thermal_slowdown", "sw_power_cap"))]
    )
    cause: Cause | None = None
    if reasons:
        cause = "heat" if reasons == ["sw_thermal_slowdown"] else "power_limit"
    elif last / first < RATE_FELL:
        cause = "same_clocks"
    clocks: list[float | None] = [round(CLOCK_MHZ * of) for of in clock]
    has_gpu = bool(setup.machine.rig.gpus)
    return Sustained(
        seconds=SUSTAINED_S,
        window_s=window,
        tok_per_s_first=rounded(first),
        tok_per_s_last=rounded(last),
        last_over_first=rounded(last / first),
        clock_last_over_first=rounded(fell),
        cause=cause,
        point_s=SUSTAINED_S / len(rates),
        tok_per_s=rates,
        seen=OverTime(
            gpu_clock_mhz=clocks if has_gpu else [],
            cpu_clock_mhz=[] if has_gpu else clocks,
            temperature_c=[round(ROOM_C + hot * of) for of in warm],
            power_w=[round(limit_w * 0.85 * of) for of in clock] if limit_w else [],
            reasons=reasons,
        ),
    )


def quality(setup: Setup, chance: Random) -> Quality | None:
    """Against the most precise file of the same model; that one is held against nothing."""
    if chance.random() >= QUALITY_SHARE:
        return None
    bits, variant = setup.quant.bits_per_weight, setup.variant
    if bits >= 16:
        return Quality(version="1", prompts=PROMPTS, not_compared="no_reference")
    smaller = (8e9 / variant.parameters) ** 0.15
    kl = 6.2 * 2 ** (-1.55 * bits) * smaller * chance.lognormvariate(0, 0.08)
    agreement = max(0.05, 1 - 0.45 * math.sqrt(kl))
    error = 1.96 * math.sqrt(agreement * (1 - agreement) / POSITIONS) * 1.6
    name = slug(f"{variant.family}-{variant.name}-f16")
    return Quality(
        version="1",
        prompts=PROMPTS,
        reference=QualityReference(
            id=f"20260601-000000-{name}",
            quant="F16",
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        ),
        positions=POSITIONS,
        other_prompts=0,
        top1_agreement=Interval(
            value=rounded(agreement),
            ci95=(rounded(max(0.0, agreement - error)), rounded(min(1.0, agreement + error))),
        ),
        kl_nats=Interval(value=rounded(kl), ci95=(rounded(kl * 0.93), rounded(kl * 1.07))),
    )
