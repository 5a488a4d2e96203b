"""How the figures of one result hang together: the rules of ``consistency`` about a cell. Pure.

Most are bounds over all requests, which hold whatever the single requests were: the slowest
answer cannot have ended before its first token came, and a median lies within its range. Figures
have six significant digits.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tokrig.record import rules
from tokrig.record.checks import (
    CONCURRENCY_SHARE,
    PROMPT_SHARE,
    PROMPT_TOKENS,
)
from tokrig.record.formulas import CLOCK_MISMATCH, MIN_REPEATS_FOR_INTERVAL
from tokrig.record.metrics import leaves
from tokrig.record.model import Percentiles, Record, Result, Summary
from tokrig.record.rules import not_resident

Broken = tuple[str, str]
"""A field by its dotted path inside the block, and what speaks against it."""

ROUNDING = 3e-5
# (t) The server's prompt time may exceed the client's TTFT by this: clocks and rounding.
CLOCK = 0.03
# (t) Requests follow one another; pauses between them may take half of the time.
PAUSES = 0.5
# (t) Mean power is of the card's own averages: it may run above the enforced limit for moments.
POWER = 1.5
REPEATS = {"quick": 1, "standard": 6, "publish": 10}
_CHANNELS = (
    *("reasoning_tokens_median", "content_tokens_median"),
    *("tool_call_tokens_median", "hidden_tokens_median"),
)
_SHARES_OF_THE_WINDOW = (
    *("client_wait_share", "client_late_share", "steal_share"),
    *("throttled_share", "power_limited_share"),
)
SUMMARIES = [metric for metric in leaves() if metric.kind == "summary"]
_MAY_BE_ZERO = ("useful_tok_per_s", "output_tokens")
_PERCENTILES = ("p50", "p90", "p95", "p99", "max")
# A mean m keeps the share of values above k·m below 1/k.
_TIMES_THE_MEAN = {"p50": 2, "p90": 10, "p95": 20, "p99": 100}


@dataclass(frozen=True)
class Cell:
    """One result and the record it stands in."""

    record: Record
    result: Result

    @property
    def good(self) -> int | None:
        """How many requests were answered."""
        if self.result.requests is None:
            return None
        return self.result.requests - (self.result.request_errors or 0)

    @property
    def measured(self) -> bool:
        """Whether tokrig's own definitions hold: what others publish may mean something else."""
        return self.record.provenance.kind == "measured"


@dataclass(frozen=True)
class Range:
    """The lowest and the highest value of a figure."""

    low: float
    high: float


def _range(metric: Summary | None) -> Range | None:
    if metric is None or metric.min is None or metric.max is None:
        return None
    return Range(metric.min, metric.max)


def wall_s(result: Result) -> float | None:
    """How long the answers took at least, all repeats together."""
    tokens, rate = _range(result.output_tokens), _range(result.system_tok_per_s)
    if tokens is None or rate is None or rate.high <= 0 or result.requests is None:
        return None
    return tokens.low * (result.requests - (result.request_errors or 0)) / rate.high


def _of_all(cell: Cell, *names: str) -> bool:
    """Whether figures are of all answers: a stream that hides its pace gives no rate."""
    metrics = [getattr(cell.result, name) for name in names]
    return all(metric is not None and metric.n == cell.good for metric in metrics)


def _above(one: float, other: float, slack: float = ROUNDING) -> bool:
    return one > other + abs(other) * slack + 1e-12


def _apart(one: float, other: float, slack: float = ROUNDING) -> bool:
    return _above(one, other, slack) or _above(other, one, slack)


def _all_metrics(result: Result) -> Iterator[tuple[str, Summary]]:
    for metric in SUMMARIES:
        if (found := metric.of(result)) is not None:
            yield metric.name, found


def _metric_order(cell: Cell) -> Iterator[Broken]:
    for name, metric in _all_metrics(cell.result):
        low, high, median = metric.min, metric.max, metric.median
        if median < 0 or (median == 0 and name not in _MAY_BE_ZERO):
            yield f"{name}.median", f"{median}: no such thing takes place"
        if low is not None and low < 0:
            yield f"{name}.min", f"{low}: below nothing"
        if low is not None and _above(low, median):
            yield f"{name}.min", f"{low}, above the median {median}"
        if high is not None and _above(median, high):
            yield f"{name}.max", f"{high}, below the median {median}"
        yield from _interval(name, metric)
        if metric.n == 0:
            yield f"{name}.n", "a figure of no values"
        if metric.n == 1 and low is not None and high is not None and _apart(low, high):
            yield f"{name}.n", f"1, with values from {low} to {high}"
        yield from _starts(name, metric, cell.result.repeats)


def _interval(name: str, metric: Summary) -> Iterator[Broken]:
    if metric.ci95 is None:
        return
    low, high = metric.ci95
    if low > high:
        yield f"{name}.ci95", f"{low} to {high} is no interval"
    elif (metric.min is not None and _above(metric.min, low)) or (
        metric.max is not None and _above(high, metric.max)
    ):
        yield f"{name}.ci95", f"{low} to {high}, outside {metric.min} to {metric.max}"


def _starts(name: str, metric: Summary, repeats: int | None) -> Iterator[Broken]:
    starts = metric.starts
    if repeats is not None and len(starts) > repeats:
        yield f"{name}.starts", f"{len(starts)} of them in {repeats} repeats"
    if metric.ci95 is not None and repeats is not None and repeats < MIN_REPEATS_FOR_INTERVAL:
        yield f"{name}.ci95", f"an interval from {repeats} repeats"
    if not starts:
        return
    if _apart(statistics.median(starts), metric.median):
        yield f"{name}.median", f"{metric.median}, the median of its starts is not"
    if (metric.min is not None and _above(metric.min, min(starts))) or (
        metric.max is not None and _above(max(starts), metric.max)
    ):
        yield f"{name}.starts", f"outside {metric.min} to {metric.max}"


def _percentiles(cell: Cell) -> Iterator[Broken]:
    found = cell.result.icl_s
    if found is None:
        return
    known = [(name, value) for name, value in _icl(found) if value is not None]
    for (lower, one), (higher, other) in pairwise(known):
        if _above(one, other):
            yield f"icl_s.{higher}", f"{other}, below {lower} {one}"
    for name, value in known:
        if value < 0:
            yield f"icl_s.{name}", f"{value}: time does not run backwards"
    yield from _gaps(cell, found, dict(known))


def _icl(found: Percentiles) -> Iterator[tuple[str, float | None]]:
    for name in _PERCENTILES:
        yield name, getattr(found, name, None)


def _gaps(cell: Cell, found: Percentiles, known: dict[str, float]) -> Iterator[Broken]:
    """The gaps between chunks add up to the time between first and last token."""
    tokens, tpot, good = _range(cell.result.output_tokens), _range(cell.result.tpot_s), cell.good
    if tokens is None or not good or not cell.measured or not found.n:
        return
    if found.n > tokens.high * good:
        yield "icl_s.n", f"{found.n} gaps between at most {tokens.high * good:g} tokens"
    if tpot is None or not _of_all(cell, "tpot_s"):
        return
    mean = tpot.high * tokens.high * good / found.n
    for name, times in _TIMES_THE_MEAN.items():
        if name in known and _above(known[name], times * mean, 0.01):
            yield (
                f"icl_s.{name}",
                f"{known[name]} s, where gaps are {mean:.3g} s at most on average",
            )


def _rate_and_tpot(cell: Cell) -> Iterator[Broken]:
    """The decode rate is 1 / TPOT, request by request."""
    rate, tpot = cell.result.output_tok_per_s, cell.result.tpot_s
    if rate is None or tpot is None or rate.n != tpot.n or not cell.measured:
        return
    rates, tpots = _range(rate), _range(tpot)
    if rates is not None and tpots is not None:
        if _apart(rates.high * tpots.low, 1):
            yield "output_tok_per_s.max", f"{rates.high}, not 1 / {tpots.low}, the lowest tpot_s"
        if _apart(rates.low * tpots.high, 1):
            yield "output_tok_per_s.min", f"{rates.low}, not 1 / {tpots.high}, the highest tpot_s"
        spread = rates.high / rates.low if rates.low > 0 else 1.0
    else:
        spread = 1.05
    # Medians of an even number are means of two: (1 + s)² / 4s at each of the two levels.
    most = ((1 + spread) ** 2 / (4 * spread)) ** 2
    product = rate.median * tpot.median
    if _above(1, product) or _above(product, most):
        yield "output_tok_per_s.median", f"{rate.median}, not 1 / tpot_s ({tpot.median})"


def _counts(cell: Cell) -> Iterator[Broken]:
    result, good = cell.result, cell.good
    if result.requests is None or good is None:
        return
    if good < 0:
        yield "request_errors", f"{result.request_errors} of {result.requests} requests"
        return
    if result.repeats is not None and result.requests < result.repeats:
        yield "requests", f"{result.requests} in {result.repeats} repeats"
    for name, metric in _all_metrics(result):
        of = result.repeats if name == "system_tok_per_s" else good
        if metric.n is not None and of is not None and metric.n > of:
            yield f"{name}.n", f"{metric.n} values from {of}"
    if result.finish_reasons and sum(result.finish_reasons.values()) != good:
        told = sum(result.finish_reasons.values())
        yield "finish_reasons", f"{told} of them for {good} answers"


def _answers(cell: Cell) -> Iterator[Broken]:
    """How many of the answers each figure comes from."""
    result, good = cell.result, cell.good
    if not good or not cell.measured:
        return
    if result.validity.verdict == "valid":
        for name in ("ttft_s", "end_to_end_tok_per_s", "prompt_tokens", "output_tokens"):
            metric = getattr(result, name)
            if metric is not None and metric.n is not None and metric.n != good:
                yield f"{name}.n", f"{metric.n} values of {good} answers, and nothing says why"
    rate, tpot = result.output_tok_per_s, result.tpot_s
    if rate is not None and tpot is not None and rate.n != tpot.n:
        yield "output_tok_per_s.n", f"{rate.n}, and tpot_s has {tpot.n}"
    if result.answered_share is not None:
        answered = result.ttfa_s.n if result.ttfa_s and result.ttfa_s.n is not None else 0
        if abs(answered / good - result.answered_share) > 1e-4:
            yield "answered_share", f"{result.answered_share}, with {answered} of {good} answered"
    together = (result.repeats or 1) * max(result.concurrency, 1)
    whole = not result.request_errors and cell.record.status == "complete"
    if whole and (result.requests or 0) % together:
        yield (
            "requests",
            f"{result.requests}, in {result.repeats} repeats of {result.concurrency} at a time",
        )


def _level(cell: Cell) -> Iterator[Broken]:
    told, repeats = cell.record.provenance, cell.result.repeats
    expected = REPEATS.get(told.level or "")
    if expected is None or repeats is None or not cell.measured:
        return
    shape = (cell.result.workload.name, cell.result.concurrency)
    excused = any((s.workload, s.concurrency) == shape for s in cell.record.skipped)
    if repeats > expected:
        yield "repeats", f"{repeats}, where level {told.level} has {expected}"
    elif repeats < expected and cell.record.status == "complete" and not excused:
        yield "repeats", f"{repeats} of the {expected} of level {told.level}, in a complete run"
    starts = told.server_starts
    if cell.record.backend.managed and starts is not None and starts < repeats:
        yield "repeats", f"{repeats}, each on a new start, with provenance.server_starts {starts}"


def _tokens(cell: Cell) -> Iterator[Broken]:
    result = cell.result
    outputs, prompts = _range(result.output_tokens), _range(result.prompt_tokens)
    if outputs is not None:
        parts = {name: getattr(result, name) or 0.0 for name in _CHANNELS}
        for name, value in parts.items():
            if _above(value, outputs.high):
                yield name, f"{value:g} of at most {outputs.high:g} tokens"
        # Where all answers are of one length, what one channel has the others have not.
        if outputs.low == outputs.high and _above(_two(parts), outputs.high, 0.01):
            yield "content_tokens_median", f"with reasoning {_two(parts):g} of {outputs.high:g}"
    if prompts is not None and cell.good and result.cached_tokens is not None:
        most = prompts.high * cell.good
        if result.cached_tokens > most:
            yield "cached_tokens", f"{result.cached_tokens} of at most {most:g} prompt tokens"


def _two(parts: dict[str, float]) -> float:
    return parts["reasoning_tokens_median"] + parts["content_tokens_median"]


def _end_to_end(cell: Cell) -> Iterator[Broken]:
    """N / (t_last − sent): the time to the first token, then TPOT for each further one."""
    result = cell.result
    whole, tokens = _range(result.end_to_end_tok_per_s), _range(result.output_tokens)
    ttft, tpot = _range(result.ttft_s), _range(result.tpot_s)
    if whole is None or tokens is None or ttft is None or not cell.measured or ttft.low <= 0:
        return
    shortest_s = ttft.low
    if tpot is not None and _of_all(cell, "tpot_s"):
        slowest_s = ttft.high + tpot.high * max(tokens.high - 1, 0)
        if _above(tokens.low / slowest_s, whole.low):
            yield "end_to_end_tok_per_s.min", f"{whole.low}: answers took {slowest_s:.4g} s at most"
        shortest_s += tpot.low * max(tokens.low - 1 - _together(cell, tokens), 0)
    if _above(whole.high, tokens.high / shortest_s):
        yield "end_to_end_tok_per_s.max", f"{whole.high}: answers took {shortest_s:.4g} s at least"
    if whole.low > 0 and _above(ttft.high, tokens.high / whole.low):
        yield (
            "ttft_s.max",
            f"{ttft.high} s, after the last token at {tokens.high / whole.low:.4g} s",
        )


def _together(cell: Cell, tokens: Range) -> float:
    """How many tokens of an answer may have come with its first chunk: those that no gap tells."""
    gaps, good = cell.result.icl_s, cell.good
    if gaps is None or not good:
        return tokens.high
    return max(tokens.high * good - good - gaps.n, 0.0)


def _useful(cell: Cell) -> Iterator[Broken]:
    useful, whole = cell.result.useful_tok_per_s, cell.result.end_to_end_tok_per_s
    if useful is None or whole is None or useful.n != whole.n or not cell.measured:
        return
    for name in ("median", "min", "max"):
        one, other = getattr(useful, name), getattr(whole, name)
        if one is not None and other is not None and _above(one, other):
            yield f"useful_tok_per_s.{name}", f"{one}, above end_to_end_tok_per_s {other}"
    content, tokens = cell.result.content_tokens_median, _range(cell.result.output_tokens)
    rates, useful_rates = _range(whole), _range(useful)
    if content is None or tokens is None or rates is None or useful_rates is None or rates.low <= 0:
        return
    least = useful_rates.low * tokens.low / rates.high
    most = useful_rates.high * tokens.high / rates.low
    if _above(least, content) or _above(content, most):
        yield (
            "content_tokens_median",
            f"{content:g}, where useful_tok_per_s makes {least:.4g} to {most:.4g} of it",
        )


def _first_answer(cell: Cell) -> Iterator[Broken]:
    answer, first = cell.result.ttfa_s, cell.result.ttft_s
    if answer is None or first is None or not cell.measured:
        return
    names = ("median", "min", "max") if answer.n == first.n else ("min",)
    for name in names:
        one, other = getattr(answer, name), getattr(first, name)
        if one is not None and other is not None and _above(other, one):
            yield f"ttfa_s.{name}", f"{one} s, before the first token at {other} s"
    tokens, whole = _range(cell.result.output_tokens), _range(cell.result.end_to_end_tok_per_s)
    if answer.max is not None and tokens and whole and whole.low > 0:
        last_s = tokens.high / whole.low
        if _above(answer.max, last_s):
            yield "ttfa_s.max", f"{answer.max} s, after the last token at {last_s:.4g} s"


def _system(cell: Cell) -> Iterator[Broken]:
    """All requests together: no faster than so many of the fastest, no slower than the slowest."""
    system, whole = _range(cell.result.system_tok_per_s), _range(cell.result.end_to_end_tok_per_s)
    if system is None or whole is None or not cell.measured:
        return
    most = whole.high * cell.result.concurrency
    if _above(system.high, most):
        yield (
            "system_tok_per_s.max",
            f"{system.high}, above {cell.result.concurrency} × end_to_end_tok_per_s {whole.high}",
        )
    if _above(whole.low * PAUSES, system.low):
        yield "system_tok_per_s.min", f"{system.low}, where single requests had {whole.low}"


def _prefill(cell: Cell) -> Iterator[Broken]:
    """Prompt tokens by their time: TTFT where it is derived, at most TTFT by the server's clock."""
    result = cell.result
    speed, prompts, ttft = (
        _range(result.prefill_tok_per_s),
        _range(result.prompt_tokens),
        _range(result.ttft_s),
    )
    if result.prefill_source is None and result.prefill_tok_per_s is not None and cell.measured:
        yield "prefill_source", "a prefill rate from nowhere"
    if speed is None or prompts is None or ttft is None or not cell.measured or ttft.low <= 0:
        return
    fresh = prompts.low if result.cached_tokens == 0 else 0.0
    slack = CLOCK if result.prefill_source == "server" else ROUNDING
    if _above(fresh / ttft.high, speed.low, slack):
        yield (
            "prefill_tok_per_s.min",
            f"{speed.low}: {fresh:g} tokens came before a first one at {ttft.high} s",
        )
    of_all = _of_all(cell, "prefill_tok_per_s", "ttft_s")
    if of_all and _above(fresh / speed.high, ttft.low, slack):
        yield "ttft_s.min", f"{ttft.low} s, for {fresh:g} tokens at no more than {speed.high} tok/s"
    if result.prefill_source == "ttft_derived" and _above(speed.high, prompts.high / ttft.low):
        yield (
            "prefill_tok_per_s.max",
            f"{speed.high}: at most {prompts.high:g} tokens in {ttft.low} s",
        )


def _server(cell: Cell) -> Iterator[Broken]:
    result, server = cell.result, cell.result.server
    if server is None or not cell.measured:
        return
    theirs, ours = server.prefill_tok_per_s, result.prefill_tok_per_s
    alike = theirs is not None and ours is not None and theirs.n == ours.n
    if result.prefill_source == "server" and alike and server.source == "request":
        for name in ("median", "min", "max"):
            one, other = getattr(ours, name), getattr(theirs, name)
            if one is not None and other is not None and _apart(one, other):
                yield f"prefill_tok_per_s.{name}", f"{one}, the server's own is {other}"
    rates, served = _range(result.output_tok_per_s), _range(server.output_tok_per_s)
    if server.difference is None or rates is None or served is None or served.low <= 0:
        return
    if rates_n(result) != cell.good:
        return
    version_2 = (cell.record.provenance.methodology or 1) >= 2
    agree = version_2 and "clock_mismatch" not in result.validity.reasons
    if agree and server.source == "request":
        for name, one, other in (("min", served.low, rates.low), ("max", served.high, rates.high)):
            if _apart(one, other, CLOCK + 0.01):
                yield f"server.output_tok_per_s.{name}", f"{one}, where the client saw {other}"
    low, high = rates.low / served.high - 1, rates.high / served.low - 1
    if not low - 2e-4 <= server.difference <= high + 2e-4:
        yield "server.difference", f"{server.difference}, from rates {low:.4g} to {high:.4g} apart"


def rates_n(result: Result) -> int | None:
    """How many answers gave a decode rate, by the client's clock and by the server's."""
    served = result.server.output_tok_per_s if result.server else None
    own = result.output_tok_per_s
    return own.n if own is not None and served is not None and own.n == served.n else None


def _speculative(cell: Cell) -> Iterator[Broken]:
    found = cell.result.speculative
    if found is None:
        return
    drafted, accepted = found.drafted_tokens, found.accepted_tokens
    if accepted > drafted:
        yield "speculative.accepted_tokens", f"{accepted} of {drafted} drafted"
    rate = found.acceptance_rate
    if rate is not None and drafted and _apart(rate, accepted / drafted):
        yield "speculative.acceptance_rate", f"{rate}, with {accepted} of {drafted} accepted"
    length, longest = found.acceptance_length, cell.record.mode.draft_tokens
    if length is not None and length < 1:
        yield "speculative.acceptance_length", f"{length}: every step gives a token"
    if length is not None and longest and _above(length, longest + 1):
        yield "speculative.acceptance_length", f"{length}, with drafts of {longest} at most"
    if found.steps and drafted and longest and drafted > found.steps * longest:
        yield "speculative.steps", f"{drafted} drafted in {found.steps} steps of {longest} at most"


def _shares(cell: Cell) -> Iterator[Broken]:
    result = cell.result
    shares = {
        "answered_share": (result.answered_share, 1.0),
        "ceiling_share": (result.ceiling_share, 1.05),
        "client_cpu_share": (result.client_cpu_share, 1.1),  # of one core, by another clock
    }
    if result.speculative is not None:
        shares["speculative.acceptance_rate"] = (result.speculative.acceptance_rate, 1.0)
    for name in _SHARES_OF_THE_WINDOW:
        shares[f"interference.{name}"] = (getattr(result.interference, name, None), 1.1)
    for path, (value, most) in shares.items():
        if isinstance(value, int | float) and not 0 <= value <= most * (1 + ROUNDING):
            yield path, f"{value}, no share of anything"


def _energy(cell: Cell) -> Iterator[Broken]:
    result, energy = cell.result, cell.result.energy
    if energy is None:
        return
    each, idle = energy.j_per_output_token, energy.idle_subtracted_j_per_output_token
    if each is not None and idle is not None and _above(idle, each):
        yield (
            "energy.idle_subtracted_j_per_output_token",
            f"{idle}, more than with idle ({each})",
        )
    tokens, system = _range(result.output_tokens), _range(result.system_tok_per_s)
    if each is None or tokens is None or not result.requests or not cell.measured:
        return
    low, high = tokens.low * (cell.good or 0) * each, tokens.high * result.requests * each
    if not low * (1 - 1e-3) <= energy.total_j <= high * (1 + 1e-3):
        yield "energy.total_j", f"{energy.total_j}, where {each} J a token make {low:.4g} J"
    limits = [gpu.power_limit_w for gpu in cell.record.rig.gpus if gpu.power_limit_w]
    if energy.scope == "gpu" and system and limits and len(limits) == len(cell.record.rig.gpus):
        power_w = each * system.low
        if power_w > POWER * sum(limits):
            yield (
                "energy.j_per_output_token",
                f"{power_w:.0f} W, on cards limited to {sum(limits):g} W",
            )


def _memory(cell: Cell) -> Iterator[Broken]:
    record, memory = cell.record, cell.result.memory
    if memory is None:
        return
    total = record.rig.memory.total_bytes
    if total and (memory.engine_rss_bytes or 0) > total:
        yield "memory.engine_rss_bytes", f"{memory.engine_rss_bytes} of {total} bytes"
    cards = [gpu.vram_bytes for gpu in record.rig.gpus]
    unified = any(gpu.unified_memory for gpu in record.rig.gpus)
    held = memory.engine_vram_bytes or 0
    if cards and all(cards) and not unified and held > sum(filter(None, cards)):
        yield "memory.engine_vram_bytes", f"{held} bytes, on cards of {sum(filter(None, cards))}"
    looked_up = record.load_memory.looked_up_bytes if record.load_memory else None
    version_2 = (record.provenance.methodology or 1) >= 2 and cell.measured
    told = "not_resident" in cell.result.validity.reasons
    if (
        version_2
        and not told
        and not_resident(record.model, record.backend, memory.engine_rss_bytes, looked_up)
    ):
        yield (
            "memory.engine_rss_bytes",
            f"{memory.engine_rss_bytes} bytes held of a model of {record.model.bytes},"
            " and no not_resident among the reasons",
        )


def _codes(cell: Cell) -> Iterator[Broken]:
    """Reasons that the figures themselves give."""
    result, shape = cell.result, cell.result.workload
    if not cell.measured:
        return
    reasons = result.validity.reasons
    prompts, outputs = _range(result.prompt_tokens), _range(result.output_tokens)
    version_1 = (cell.record.provenance.methodology or 1) < 2
    missed, target = False, shape.target_prompt_tokens or shape.prompt_tokens
    if prompts is not None and target is not None:
        allowed = max(PROMPT_TOKENS, round(target * PROMPT_SHARE))
        missed = prompts.low < target - allowed or prompts.high > target + allowed
    streams = result.concurrency_mean
    difference = result.server.difference if result.server else None
    holds = {
        "request_errors": bool(result.request_errors),
        "prompt_length": missed,
        "concurrency_not_reached": streams is not None
        and streams < CONCURRENCY_SHARE * result.concurrency,
        "clock_mismatch": difference is not None and abs(difference) > CLOCK_MISMATCH + 1e-5,
        "client_bound": version_1 and (result.client_cpu_share or 0) > rules.CLIENT_CPU_SHARE,
        "output_length": outputs is not None
        and shape.answer_tokens is not None
        and (outputs.low, outputs.high) != (shape.answer_tokens, shape.answer_tokens),
    }
    for code, is_so in holds.items():
        if is_so and code not in reasons:
            yield "validity.reasons", f"without {code}, which the figures give"
    if "request_errors" in reasons and result.request_errors == 0:
        yield "validity.reasons", "request_errors, and there was none"


RESULT_RULES: tuple[tuple[str, Callable[[Cell], Iterator[Broken]]], ...] = (
    ("metric order", _metric_order),
    ("percentiles", _percentiles),
    ("rate and tpot", _rate_and_tpot),
    ("counts", _counts),
    ("answers", _answers),
    ("level", _level),
    ("tokens", _tokens),
    ("end to end", _end_to_end),
    ("useful", _useful),
    ("first answer", _first_answer),
    ("system", _system),
    ("prefill", _prefill),
    ("server", _server),
    ("speculative", _speculative),
    ("shares", _shares),
    ("energy", _energy),
    ("memory", _memory),
    ("codes", _codes),
)
