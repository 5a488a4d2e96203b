"""Requests that such a configuration would answer, and their figures as a result has them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from bench.many.market import tables
from bench.many.setup import Setup
from tokrig.record import model as m
from tokrig.record.block import Percentiles, Summary
from tokrig.record.formulas import DIGITS, MIN_REPEATS_FOR_INTERVAL, PERCENTILES_NEED
from tokrig.spec.run import Level
from tokrig.units import significant
from tokrig.workloads import Workload, tolerance

FIRST_CHUNK_S = 0.003  # from the end of the prefill to the client
REPEAT_NOISE, REQUEST_NOISE = 0.006, 0.005
REASONING_TOKENS = 260  # median, where nothing stops it
INVALID_SHARE = 0.02
# What makes a result invalid, with a fact that shows it.
TROUBLES: dict[str, dict[str, Any]] = {
    "throttled": {"interference": m.Interference(throttle_reasons=["sw_thermal_slowdown"])},
    "foreign_gpu_load": {"interference": m.Interference(foreign_gpu_processes=1)},
    "client_bound": {"client_cpu_share": 0.871},
    "cached_tokens": {"cached_tokens": 9},
}
GOOD_PERCENTILES = {"p50": 1.0, "p90": 1.06, "p95": 1.1, "p99": 1.31}  # of the time per token


@dataclass(frozen=True)
class Request:
    """One request: seconds, and tokens."""

    token_s: float
    prefill_s: float
    ttft_s: float
    prompt: int
    answer: int
    reasoning: int

    @property
    def total_s(self) -> float:
        """Sent to last token."""
        return self.ttft_s + (self.answer - 1) * self.token_s

    @property
    def ttfa_s(self) -> float | None:
        """None when the budget ends inside the reasoning."""
        if self.reasoning >= self.answer:
            return None
        return self.ttft_s + self.reasoning * self.token_s


Repeats = Sequence[Sequence[Request]]


def result(
    setup: Setup,
    workload: Workload,
    concurrency: int,
    level: Level,
    chance: Random,
    depth: int = 0,
) -> m.Result:
    """One workload at one concurrency, after ``depth`` tokens of context."""
    repeats = requests(setup, workload, concurrency, level, chance, depth)
    shape = workload_facts(workload)
    if depth:
        target = depth + workload.prompt_tokens
        shape = shape.model_copy(update={"target_prompt_tokens": target})
    facts: dict[str, Any] = {"workload": shape, "concurrency": concurrency, "depth_tokens": depth}
    context = depth + workload.prompt_tokens + workload.answer_tokens / 2
    return of_requests(setup, repeats, chance, facts, context)


def of_requests(
    setup: Setup,
    repeats: Repeats,
    chance: Random,
    cell: dict[str, Any],
    context: float,
    *,
    may_fail: bool = True,
) -> m.Result:
    """What those requests give, for the ``cell`` that they are of; ``context`` is the length at
    which most of their tokens were made."""
    concurrency: int = cell["concurrency"]
    everyone = [request for repeat in repeats for request in repeat]
    decode = metric(repeats, lambda r: 1 / r.token_s)
    prefill = metric(repeats, lambda r: r.prompt / r.prefill_s)
    has_clock = setup.engine["server_clock"]
    system = metric(
        [repeat[:1] for repeat in repeats], lambda r: concurrency * r.answer / r.total_s
    )
    fails = may_fail and chance.random() < INVALID_SHARE
    trouble = chance.choice(list(TROUBLES)) if fails else None
    reasoning = statistics.median(request.reasoning for request in everyone)
    content = statistics.median(request.answer - request.reasoning for request in everyone)
    facts = {
        "validity": validity(setup, trouble),
        "repeats": len(repeats),
        "requests": len(everyone),
        "request_errors": 0,
        "output_tok_per_s": decode,
        "prefill_tok_per_s": prefill
        if has_clock
        else metric(repeats, lambda r: r.prompt / r.ttft_s),
        "prefill_source": "server" if has_clock else "ttft_derived",
        "ttft_s": metric(repeats, lambda r: r.ttft_s),
        "ttfa_s": metric(repeats, lambda r: r.ttfa_s),
        "tpot_s": metric(repeats, lambda r: r.token_s),
        "icl_s": inter_chunk_s(everyone),
        "end_to_end_tok_per_s": metric(repeats, lambda r: r.answer / r.total_s),
        "useful_tok_per_s": metric(repeats, lambda r: (r.answer - r.reasoning) / r.total_s),
        "system_tok_per_s": system,
        "prompt_tokens": metric(repeats, lambda r: r.prompt),
        "output_tokens": metric(repeats, lambda r: r.answer),
        "reasoning_tokens_median": float(reasoning),
        "content_tokens_median": float(content),
        "answered_share": round(sum(r.ttfa_s is not None for r in everyone) / len(everyone), 4),
        "cached_tokens": 0,
        "token_count_source": "usage",
        "finish_reasons": {"length": len(everyone)},
        "speculative": speculative(setup, everyone),
        "server": server_timings(decode, prefill, chance) if has_clock else None,
        "memory": m.PeakMemory(
            engine_rss_bytes=round(0.6e9 + setup.weights_bytes * (not setup.machine.rig.gpus)),
            engine_vram_bytes=round(setup.needed_bytes) if setup.machine.rig.gpus else None,
        ),
        "energy": energy(setup, everyone, system),
        "ceiling_share": ceiling_share(setup, context, decode) if concurrency == 1 else None,
        "client_cpu_share": round(chance.uniform(0.003, 0.03), 4),
        "interference": m.Interference(
            load_average_max=round(chance.uniform(0.2, 2.5), 2),
            other_cpu_share_max=round(chance.uniform(0, 0.2), 3),
        ),
    }
    return m.Result.model_validate(facts | cell | TROUBLES.get(trouble or "", {}))


@cache
def workload_facts(workload: Workload) -> m.WorkloadFacts:
    """Its hash is made of all its texts, and wanted for each result."""
    return m.WorkloadFacts(
        name=workload.name,
        content_hash=workload.content_hash,
        prompt_tokens=workload.prompt_tokens,
        answer_tokens=workload.answer_tokens,
    )


def requests(
    setup: Setup,
    workload: Workload,
    concurrency: int,
    level: Level,
    chance: Random,
    depth: int = 0,
) -> list[list[Request]]:
    """The requests of all repeats, with the noise of a repeat and of each request."""
    context = depth + workload.prompt_tokens + workload.answer_tokens / 2
    token_s = setup.token_s(context, concurrency)
    # Prompts that arrive together are worked off one after the other.
    waiting = (concurrency + 1) / 2
    repeats = []
    for _ in range(level.repeats):
        pace = chance.lognormvariate(0, REPEAT_NOISE)
        repeat = []
        for _ in range(level.iterations * concurrency):
            prompt = (
                depth
                + workload.prompt_tokens
                + chance.randint(-1, 1) * (tolerance(workload.prompt_tokens) // 2)
            )
            prefill_s = setup.prefill_s(prompt) * pace * chance.lognormvariate(0, REQUEST_NOISE)
            thought = int(chance.lognormvariate(0, 0.5) * REASONING_TOKENS)
            repeat.append(
                Request(
                    token_s=token_s * pace * chance.lognormvariate(0, REQUEST_NOISE),
                    prefill_s=prefill_s,
                    ttft_s=prefill_s * waiting + FIRST_CHUNK_S,
                    prompt=prompt,
                    answer=workload.answer_tokens,
                    reasoning=min(thought, workload.answer_tokens) if setup.reasons else 0,
                )
            )
        repeats.append(repeat)
    return repeats


def metric(repeats: Repeats, value: Callable[[Request], float | None]) -> Summary | None:
    """As tokrig computes it, but for the interval: that of the order statistics, which needs no
    resampling, stands in for the bootstrap."""
    groups = [[v for v in map(value, repeat) if v is not None] for repeat in repeats]
    medians = sorted(statistics.median(group) for group in groups if group)
    if not medians:
        return None
    values = [v for group in groups for v in group]
    interval = None
    if len(medians) >= MIN_REPEATS_FOR_INTERVAL:
        # The lowest and highest of 6 hold the median in 97 %, the second ones of 10 in 98 %.
        outside = 1 if len(medians) >= 9 else 0
        interval = (rounded(medians[outside]), rounded(medians[-1 - outside]))
    return Summary(
        median=rounded(statistics.median(medians)),
        min=rounded(min(values)),
        max=rounded(max(values)),
        n=len(values),
        ci95=interval,
    )


def rounded(value: float) -> float:
    return significant(float(value), DIGITS)


def inter_chunk_s(everyone: Sequence[Request]) -> Percentiles:
    """Gaps between chunks of one token each."""
    count = sum(request.answer - 1 for request in everyone)
    token_s = statistics.median(request.token_s for request in everyone)
    return Percentiles.model_validate(
        {
            name: rounded(token_s * factor)
            for name, factor in GOOD_PERCENTILES.items()
            if count >= PERCENTILES_NEED.get(name, 1)
        }
        | {"n": count}
    )


def validity(setup: Setup, trouble: str | None) -> m.Validity:
    """What this engine and rig let tokrig look at; ``trouble`` is the code of a failed check."""
    unchecked = [] if setup.engine["server_clock"] else ["server_clock"]
    if setup.machine.vendor != "nvidia":
        unchecked += ["throttle", "gpu_processes"] if setup.machine.rig.gpus else ["throttle"]
    return m.Validity(
        verdict="invalid" if trouble else "valid",
        reasons=[trouble] if trouble else [],
        unchecked=unchecked,
    )


def speculative(setup: Setup, everyone: Sequence[Request]) -> m.Speculative | None:
    """Drafted and accepted tokens; each step yields one token more than it accepts."""
    if setup.mode not in tables()["drafts"]:
        return None
    steps = sum(request.answer for request in everyone) / (1 + setup.accepted_a_step)
    drafted = round(steps * tables()["drafts"][setup.mode]["tokens"])
    accepted = round(steps * setup.accepted_a_step)
    return m.Speculative(
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance_rate=rounded(accepted / drafted),
    )


def server_timings(
    decode: Summary | None, prefill: Summary | None, chance: Random
) -> m.ServerTimings:
    """The engine's clock agrees but for a trace."""
    return m.ServerTimings(
        output_tok_per_s=decode,
        prefill_tok_per_s=prefill,
        difference=round(chance.gauss(0, 2e-4), 5),
    )


def energy(setup: Setup, everyone: Sequence[Request], system: Summary | None) -> m.Energy | None:
    """From the counters of cards that have one, at 85 % of the power limit."""
    power_w = sum(gpu.power_limit_w or 0 for gpu in setup.machine.rig.gpus)
    if setup.machine.vendor not in ("nvidia", "amd") or not system:
        return None
    tokens = sum(request.answer for request in everyone)
    per_token_j = power_w * 0.85 / system.median
    return m.Energy(
        scope="gpu",
        total_j=rounded(per_token_j * tokens),
        j_per_output_token=rounded(per_token_j),
        idle_subtracted_j_per_output_token=rounded(per_token_j * 0.9),
    )


def ceiling_share(setup: Setup, context: float, decode: Summary | None) -> float | None:
    """Decode rate / (bandwidth / bytes a token). Drafts break the ceiling, so they have none."""
    if setup.mode in tables()["drafts"] or decode is None:
        return None
    ceiling = setup.machine.bandwidth / setup.step_bytes(context, 1)
    return round(decode.median / ceiling, 4)
