"""How the figures of one result hang together. Pure: no samples, no I/O.

Every rule here holds for every honest result of any methodology; where an honest one could break
it, there is no rule. Most are bounds over all requests, which hold whatever the single requests
were: the slowest answer cannot have ended before its first token came. What is not known is
not-a-number here, with which every comparison is false: it breaks no tie.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import isnan, nan
from typing import Any, NamedTuple

from tokrig.record import conditions
from tokrig.record.block import Summary
from tokrig.record.ceiling import ABOVE_CEILING, ceiling_of, matrix_share
from tokrig.record.checks import CONCURRENCY_SHARE, PROMPT_SHARE, PROMPT_TOKENS
from tokrig.record.formulas import CLOCK_MISMATCH, MIN_REPEATS_FOR_INTERVAL
from tokrig.record.metrics import leaves
from tokrig.record.model import Record, Result

Broken = Iterator[tuple[str, str]]
"""Fields by their dotted path inside the block, and what speaks against each."""

# Figures have six significant digits.
ROUNDING = 3e-5
# The share of the ceiling has four.
SHARE_ROUNDING = 1e-3
# (t) The server's prompt time may exceed the client's TTFT by this: clocks and rounding.
CLOCK = 0.03
# (t) Requests follow one another; pauses between them may take half of the time.
PAUSES = 0.5
# (t) Mean power is of the card's own averages: it may run above the enforced limit for moments.
POWER = 1.5
REPEATS = {"quick": 1, "standard": 6, "publish": 10}
# A mean m keeps the share of values above k·m below 1/k.
_TIMES_THE_MEAN = {"p50": 2, "p90": 10, "p95": 20, "p99": 100}
_PERCENTILES = ("p50", "p90", "p95", "p99", "max")
_OF_KIND = {kind: [m for m in leaves() if m.kind == kind] for kind in ("summary", "percentiles")}
_MAY_BE_ZERO = ("useful_tok_per_s", "output_tokens")
_SHARES = {
    "answered_share": 1.0,
    "client_cpu_share": 1.1,  # of one core, by another clock
    "speculative.acceptance_rate": 1.0,
    "session.hit_rate": 1.0,
    "session.reusable_share": 1.0,
    "interference.client_wait_share": 1.1,
    "interference.client_late_share": 1.1,
    "interference.steal_share": 1.1,
    "interference.throttled_share": 1.1,
    "interference.power_limited_share": 1.1,
}


class Span(NamedTuple):
    """A figure over requests; lowest and highest value are known both or not at all."""

    low: float = nan
    high: float = nan
    median: float = nan
    n: float = nan


_UNKNOWN = Span()


@dataclass(frozen=True)
class Cell:
    """One result and the record it stands in."""

    record: Record
    result: Result

    @cached_property
    def good(self) -> int:
        """How many requests were answered; 0 where nobody knows."""
        return (self.result.requests or 0) - (self.result.request_errors or 0)

    @property
    def measured(self) -> bool:
        """Whether tokrig's own definitions hold: what others publish may mean something else."""
        return self.record.provenance.kind == "measured"

    @property
    def version(self) -> int:
        return self.record.provenance.methodology or 1

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        found = {metric.name: metric.of(self.result) for metric in _OF_KIND["summary"]}
        return {name: one for name, one in found.items() if one is not None}

    def __getitem__(self, name: str) -> Span:
        one = self.summaries.get(name)
        if one is None:
            return _UNKNOWN
        n = known(one.n)
        if one.min is None or one.max is None:
            return Span(median=one.median, n=n)
        return Span(one.min, one.max, one.median, n)

    def of_all(self, *names: str) -> bool:
        """Whether figures are of all answers: a stream that hides its pace gives no rate."""
        return all(self[name].n == self.good for name in names)


def wall_s(result: Result) -> float:
    """How long the answers took at least, all repeats together; not-a-number if nobody knows."""
    tokens, rate = result.output_tokens, result.system_tok_per_s
    if tokens is None or rate is None or result.requests is None:
        return nan
    return _by(
        known(tokens.min) * (result.requests - (result.request_errors or 0)), known(rate.max)
    )


def known(value: float | None) -> float:
    """A number that may be missing, for comparisons."""
    return nan if value is None else value


def _by(one: float, other: float) -> float:
    """The quotient where it says something."""
    return one / other if other > 0 else nan


def _above(one: float, other: float, slack: float = ROUNDING) -> bool:
    return one > other + abs(other) * slack + 1e-12


def _apart(one: float, other: float, slack: float = ROUNDING) -> bool:
    return _above(one, other, slack) or _above(other, one, slack)


def _metric_order(cell: Cell) -> Broken:
    for name, one in cell.summaries.items():
        low, high = known(one.min), known(one.max)
        if one.median < 0 or (one.median == 0 and name not in _MAY_BE_ZERO):
            yield f"{name}.median", f"{one.median}: no such thing takes place"
        if low < 0:
            yield f"{name}.min", f"{low}: below nothing"
        if _above(low, one.median):
            yield f"{name}.min", f"{low}, above the median {one.median}"
        if _above(one.median, high):
            yield f"{name}.max", f"{high}, below the median {one.median}"
        if one.n == 0:
            yield f"{name}.n", "a figure of no values"
        if one.n == 1 and _apart(low, high):
            yield f"{name}.n", f"1, with values from {low} to {high}"
        for field, why in _of_starts(one, cell.result.repeats):
            yield f"{name}.{field}", why


def _of_starts(one: Summary, repeats: int | None) -> Broken:
    low, high, most = known(one.min), known(one.max), known(repeats)
    first, last = one.ci95 or (nan, nan)
    if first > last:
        yield "ci95", f"{first} to {last} is no interval"
    elif _above(low, first) or _above(last, high):
        yield "ci95", f"{first} to {last}, outside {one.min} to {one.max}"
    if one.ci95 is not None and most < MIN_REPEATS_FOR_INTERVAL:
        yield "ci95", f"an interval from {repeats} repeats"
    if len(one.starts) > most:
        yield "starts", f"{len(one.starts)} of them in {repeats} repeats"
    if one.starts and _apart(statistics.median(one.starts), one.median):
        yield "median", f"{one.median}, the median of its starts is not"
    if one.starts and (_above(low, min(one.starts)) or _above(max(one.starts), high)):
        yield "starts", f"outside {one.min} to {one.max}"


def _percentiles(cell: Cell) -> Broken:
    for metric in _OF_KIND["percentiles"]:
        found = metric.of(cell.result)
        shares = [(name, known(getattr(found, name, None))) for name in _PERCENTILES]
        told = [(name, value) for name, value in shares if not isnan(value)]
        for (lower, one), (higher, other) in pairwise(told):
            if _above(one, other):
                yield f"{metric.name}.{higher}", f"{other}, below {lower} {one}"
        for name, value in told:
            if value < 0:
                yield f"{metric.name}.{name}", f"{value}: time does not run backwards"


def _gaps(cell: Cell) -> Broken:
    """The gaps between chunks add up to the time between first and last token."""
    found, tokens, tpot = cell.result.icl_s, cell["output_tokens"], cell["tpot_s"]
    if found is None or not cell.good or not found.n:
        return
    if found.n > tokens.high * cell.good:
        yield "icl_s.n", f"{found.n} gaps between at most {tokens.high * cell.good:g} tokens"
    if not cell.of_all("tpot_s"):
        return
    mean = tpot.high * tokens.high * cell.good / found.n
    for name, times in _TIMES_THE_MEAN.items():
        value = known(getattr(found, name))
        if _above(value, times * mean, 0.01):
            yield (
                f"icl_s.{name}",
                f"{value} s, where gaps are {mean:.3g} s at most on average",
            )


def _rate_and_tpot(cell: Cell) -> Broken:
    """The decode rate is 1 / TPOT, request by request."""
    rate, tpot = cell["output_tok_per_s"], cell["tpot_s"]
    if rate.n != tpot.n:
        return
    if _apart(rate.high * tpot.low, 1):
        yield "output_tok_per_s.max", f"{rate.high}, not 1 / {tpot.low}, the lowest tpot_s"
    if _apart(rate.low * tpot.high, 1):
        yield "output_tok_per_s.min", f"{rate.low}, not 1 / {tpot.high}, the highest tpot_s"
    if isnan(rate.low) or isnan(tpot.low):
        spread = 1.05
    else:
        spread = rate.high / rate.low if rate.low > 0 else 1.0
    # Medians of an even number are means of two: (1 + s)² / 4s at each of the two levels.
    most = ((1 + spread) ** 2 / (4 * spread)) ** 2
    product = rate.median * tpot.median
    if _above(1, product) or _above(product, most):
        yield "output_tok_per_s.median", f"{rate.median}, not 1 / tpot_s ({tpot.median})"


def _counts(cell: Cell) -> Broken:
    result, good = cell.result, cell.good
    if result.requests is None:
        return
    if good < 0:
        yield "request_errors", f"{result.request_errors} of {result.requests} requests"
        return
    if result.requests < known(result.repeats):
        yield "requests", f"{result.requests} in {result.repeats} repeats"
    for name, one in cell.summaries.items():
        of = known(result.repeats) if name == "system_tok_per_s" else good
        if known(one.n) > of:
            yield f"{name}.n", f"{one.n} values from {of}"
    ended = sum(result.finish_reasons.values())
    if result.finish_reasons and ended != good:
        yield "finish_reasons", f"{ended} of them for {good} answers"


def _answers(cell: Cell) -> Broken:
    """How many of the answers each figure comes from."""
    result, good = cell.result, cell.good
    if not good:
        return
    if result.validity.verdict == "valid":
        for name in ("ttft_s", "end_to_end_tok_per_s", "prompt_tokens", "output_tokens"):
            one = cell.summaries.get(name)
            if one is not None and one.n is not None and one.n != good:
                yield f"{name}.n", f"{one.n} values of {good} answers, and nothing says why"
    rate, tpot, ttfa = result.output_tok_per_s, result.tpot_s, result.ttfa_s
    if rate is not None and tpot is not None and rate.n != tpot.n:
        yield "output_tok_per_s.n", f"{rate.n}, and tpot_s has {tpot.n}"
    answered = (ttfa.n or 0) if ttfa else 0
    if abs(answered / good - known(result.answered_share)) > 1e-4:
        yield "answered_share", f"{result.answered_share}, with {answered} of {good} answered"
    together = (result.repeats or 1) * max(result.concurrency, 1)
    whole = not result.request_errors and cell.record.status == "complete"
    if (
        whole
        and not result.sustained
        and not result.cell.is_open
        and (result.requests or 0) % together
    ):
        yield (
            "requests",
            f"{result.requests}, in {result.repeats} repeats of {result.concurrency} at a time",
        )


def _load_nodes(cell: Cell) -> Broken:
    """Who sends has a worker, and reaches no server that tokrig started for itself."""
    result, nodes = cell.result, cell.result.load_nodes
    if nodes is None:
        return
    if not nodes.nodes or not (result.cell.is_open or nodes.nodes <= result.concurrency):
        yield "load_nodes.nodes", f"{nodes.nodes} for {result.concurrency} requests at a time"
    if cell.record.backend.managed:
        yield "load_nodes", "a server that tokrig started is reached by its own machine alone"


def _level(cell: Cell) -> Broken:
    told, repeats = cell.record.provenance, cell.result.repeats
    expected = 1 if cell.result.sustained else REPEATS.get(told.level or "")
    if expected is None or repeats is None:
        return
    excused = any(s.cell == cell.result.cell for s in cell.record.skipped)
    # Only the rates next to the limit are measured in all repeats of a search.
    load = replace(cell.result.cell, rate_per_s=None).shape
    excused = excused or any(limit.load_shape == load for limit in cell.record.rate_limits)
    if repeats > expected:
        yield "repeats", f"{repeats}, where level {told.level} has {expected}"
    elif repeats < expected and cell.record.status == "complete" and not excused:
        yield "repeats", f"{repeats} of the {expected} of level {told.level}, in a complete run"
    starts = told.server_starts
    if cell.record.backend.managed and known(starts) < repeats:
        yield "repeats", f"{repeats}, each on a new start, with provenance.server_starts {starts}"


def _tokens(cell: Cell) -> Broken:
    result, outputs, prompts = cell.result, cell["output_tokens"], cell["prompt_tokens"]
    for channel in ("reasoning", "content", "tool_call", "hidden"):
        name = f"{channel}_tokens_median"
        value = getattr(result, name) or 0.0
        if _above(value, outputs.high):
            yield name, f"{value:g} of at most {outputs.high:g} tokens"
    # Where all answers are of one length, what one channel has the others have not.
    two = (result.reasoning_tokens_median or 0.0) + (result.content_tokens_median or 0.0)
    if outputs.low == outputs.high and _above(two, outputs.high, 0.01):
        yield "content_tokens_median", f"with reasoning {two:g} of {outputs.high:g}"
    most = prompts.high * cell.good if cell.good else nan
    if known(result.cached_tokens) > most:
        yield "cached_tokens", f"{result.cached_tokens} of at most {most:g} prompt tokens"


def _end_to_end(cell: Cell) -> Broken:
    """N / (t_last − sent): the time to the first token, then TPOT for each further one."""
    whole, tokens = cell["end_to_end_tok_per_s"], cell["output_tokens"]
    ttft, tpot, gaps = cell["ttft_s"], cell["tpot_s"], cell.result.icl_s
    if not ttft.low > 0:
        return
    shortest_s = ttft.low
    if cell.of_all("tpot_s") and not isnan(tpot.low):
        slowest_s = ttft.high + tpot.high * max(tokens.high - 1, 0)
        if _above(_by(tokens.low, slowest_s), whole.low):
            yield "end_to_end_tok_per_s.min", f"{whole.low}: answers took {slowest_s:.4g} s at most"
        # What may have come with the first chunk: tokens that no gap tells.
        together = tokens.high
        if gaps is not None and gaps.n is not None and cell.good:
            together = max(tokens.high * cell.good - cell.good - gaps.n, 0.0)
        shortest_s += tpot.low * max(tokens.low - 1 - together, 0)
    if _above(whole.high, tokens.high / shortest_s):
        yield "end_to_end_tok_per_s.max", f"{whole.high}: answers took {shortest_s:.4g} s at least"
    last_s = _by(tokens.high, whole.low)
    if _above(ttft.high, last_s):
        yield "ttft_s.max", f"{ttft.high} s, after the last token at {last_s:.4g} s"


def _useful(cell: Cell) -> Broken:
    useful, whole = cell.result.useful_tok_per_s, cell.result.end_to_end_tok_per_s
    if useful is None or whole is None or useful.n != whole.n:
        return
    for name in ("median", "min", "max"):
        one, other = getattr(useful, name), getattr(whole, name)
        if _above(known(one), known(other)):
            yield f"useful_tok_per_s.{name}", f"{one}, above end_to_end_tok_per_s {other}"
    content = known(cell.result.content_tokens_median)
    tokens, rates = cell["output_tokens"], cell["end_to_end_tok_per_s"]
    least = _by(cell["useful_tok_per_s"].low * tokens.low, rates.high)
    most = _by(cell["useful_tok_per_s"].high * tokens.high, rates.low)
    if rates.low > 0 and (_above(least, content) or _above(content, most)):
        yield (
            "content_tokens_median",
            f"{content:g}, where useful_tok_per_s makes {least:.4g} to {most:.4g} of it",
        )


def _first_answer(cell: Cell) -> Broken:
    answer, first = cell.result.ttfa_s, cell.result.ttft_s
    if answer is None or first is None:
        return
    for name in ("median", "min", "max") if answer.n == first.n else ("min",):
        one, other = getattr(answer, name), getattr(first, name)
        if _above(known(other), known(one)):
            yield f"ttfa_s.{name}", f"{one} s, before the first token at {other} s"
    last_s = _by(cell["output_tokens"].high, cell["end_to_end_tok_per_s"].low)
    if _above(known(answer.max), last_s):
        yield "ttfa_s.max", f"{answer.max} s, after the last token at {last_s:.4g} s"


def _system(cell: Cell) -> Broken:
    """All requests together: no faster than so many of the fastest, no slower than the slowest,
    unless there were times without any."""
    system, whole = cell["system_tok_per_s"], cell["end_to_end_tok_per_s"]
    arrived = cell.result.open_loop
    at_once = arrived.in_flight_max if arrived else cell.result.concurrency
    if _above(system.high, whole.high * at_once):
        yield (
            "system_tok_per_s.max",
            f"{system.high}, above {at_once} × end_to_end_tok_per_s {whole.high}",
        )
    if not arrived and _above(whole.low * PAUSES, system.low):
        yield "system_tok_per_s.min", f"{system.low}, where single requests had {whole.low}"


def _prefill(cell: Cell) -> Broken:
    """Prompt tokens by their time: TTFT where it is derived, at most TTFT by the server's clock."""
    source, ttft = cell.result.prefill_source, cell["ttft_s"]
    speed, prompts = cell["prefill_tok_per_s"], cell["prompt_tokens"]
    if source is None and cell.result.prefill_tok_per_s is not None:
        yield "prefill_source", "a prefill rate from nowhere"
    if not ttft.low > 0:
        return
    fresh = prompts.low if cell.result.cached_tokens == 0 else prompts.low * 0
    slack = CLOCK if source == "server" else ROUNDING
    if _above(_by(fresh, ttft.high), speed.low, slack):
        yield (
            "prefill_tok_per_s.min",
            f"{speed.low}: {fresh:g} tokens came before a first one at {ttft.high} s",
        )
    of_all = cell.of_all("prefill_tok_per_s", "ttft_s")
    if of_all and _above(_by(fresh, speed.high), ttft.low, slack):
        yield "ttft_s.min", f"{ttft.low} s, for {fresh:g} tokens at no more than {speed.high} tok/s"
    if source == "ttft_derived" and _above(speed.high, prompts.high / ttft.low):
        most = f"at most {prompts.high:g} tokens in {ttft.low} s"
        yield "prefill_tok_per_s.max", f"{speed.high}: {most}"


def _server(cell: Cell) -> Broken:
    result, server = cell.result, cell.result.server
    if server is None:
        return
    theirs, ours = server.prefill_tok_per_s, result.prefill_tok_per_s
    by_request = server.source == "request"
    if result.prefill_source == "server" and by_request and theirs and ours and theirs.n == ours.n:
        for name in ("median", "min", "max"):
            one, other = getattr(ours, name), getattr(theirs, name)
            if _apart(known(one), known(other)):
                yield f"prefill_tok_per_s.{name}", f"{one}, the server's own is {other}"
    rates, served = cell["output_tok_per_s"], cell["server.output_tok_per_s"]
    all_told = cell.of_all("output_tok_per_s", "server.output_tok_per_s")
    if server.difference is None or not served.low > 0 or not all_told:
        return
    if by_request and cell.version >= 2 and "clock_mismatch" not in result.validity.reasons:
        for name, one, other in (("min", served.low, rates.low), ("max", served.high, rates.high)):
            if _apart(one, other, CLOCK + 0.01):
                yield f"server.output_tok_per_s.{name}", f"{one}, where the client saw {other}"
    low, high = rates.low / served.high - 1, rates.high / served.low - 1
    if server.difference < low - 2e-4 or server.difference > high + 2e-4:
        yield "server.difference", f"{server.difference}, from rates {low:.4g} to {high:.4g} apart"


def _speculative(cell: Cell) -> Broken:
    found = cell.result.speculative
    if found is None:
        return
    drafted, accepted = found.drafted_tokens, found.accepted_tokens
    if accepted > drafted:
        yield "speculative.accepted_tokens", f"{accepted} of {drafted} drafted"
    rate, length = known(found.acceptance_rate), known(found.acceptance_length)
    if _apart(rate, _by(accepted, drafted)):
        yield "speculative.acceptance_rate", f"{rate}, with {accepted} of {drafted} accepted"
    longest = cell.record.mode.draft_tokens or nan
    if length < 1:
        yield "speculative.acceptance_length", f"{length}: every step gives a token"
    if _above(length, longest + 1):
        yield "speculative.acceptance_length", f"{length}, with drafts of {longest} at most"
    if drafted > (found.steps or nan) * longest:
        yield "speculative.steps", f"{drafted} drafted in {found.steps} steps of {longest} at most"


def _session(cell: Cell) -> Broken:
    """What a session's turns say of it."""
    found, result = cell.result.session, cell.result
    if (found is not None) != (result.load == "session" and cell.good > 0):
        yield "session", f"a result under the load {result.load} with {cell.good} answers"
    if found is None:
        return
    asked = len(result.workload.turn_answer_tokens)
    if found.turns != len(found.by_turn) or (asked and found.turns > asked):
        yield "session.turns", f"{found.turns}, with {len(found.by_turn)} told and {asked} asked"
    if found.turns * found.sessions > (cell.good or nan):
        yield "session.sessions", f"{found.sessions} of {found.turns} turns in {cell.good} answers"
    for number, turn in enumerate(found.by_turn):
        place = f"session.by_turn.{number}"
        if _above(known(turn.ttft_s), known(turn.total_s)):
            yield f"{place}.ttft_s", f"{turn.ttft_s} s, after the last token at {turn.total_s} s"
        for name in ("cached_tokens", "new_tokens", "reusable_tokens"):
            if _above(known(getattr(turn, name)), known(turn.prompt_tokens)):
                yield f"{place}.{name}", f"{getattr(turn, name)} of {turn.prompt_tokens} tokens"


def _ceiling(cell: Cell) -> Broken:
    """The ceiling follows from bytes and bandwidth, its share from the decode rate."""
    result, share = cell.result, known(cell.result.ceiling_share)
    told, again = result.ceiling_tok_per_s, ceiling_of(cell.record, result)
    if share < 0:
        yield "ceiling_share", f"{share}: no such thing takes place"
    beyond = share > ABOVE_CEILING and cell.measured and cell.version >= 2
    if beyond and "above_ceiling" not in result.validity.unverified:
        yield "ceiling_share", f"{share}, and no above_ceiling among what is unverified"
    if told is None:
        return
    if again is None:
        yield "ceiling_tok_per_s", f"{told}, from no bandwidth or bytes that the record has"
    elif _apart(told, again.tok_per_s) or result.ceiling_kind != again.kind:
        yield (
            "ceiling_tok_per_s",
            f"{told} ({result.ceiling_kind}), what a step reads and the bandwidth give"
            f" {again.tok_per_s} ({again.kind})",
        )
    if _apart(share, cell["output_tok_per_s"].median / told, SHARE_ROUNDING):
        yield "ceiling_share", f"{share}, of {told} tok/s"


def _matrices(cell: Cell) -> Broken:
    """The share of the matrix throughput follows from parameters and prefill rate."""
    told, record = cell.result.prefill_matrix_share, cell.record
    parts = (record.rig, record.backend, record.mode, record.reads)
    again = matrix_share(*parts, dict(cell.result)).get("prefill_matrix_share")
    if told is not None and (again is None or _apart(told, again, SHARE_ROUNDING)):
        yield "prefill_matrix_share", f"{told}, the record gives {again}"


def _shares(cell: Cell) -> Broken:
    for path, most in _SHARES.items():
        value: Any = cell.result
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None and not 0 <= value <= most * (1 + ROUNDING):
            yield path, f"{value}, no share of anything"


def _energy(cell: Cell) -> Broken:
    energy = cell.result.energy
    if energy is None:
        return
    each, idle = known(energy.j_per_output_token), energy.idle_subtracted_j_per_output_token
    if _above(known(idle), each):
        yield "energy.idle_subtracted_j_per_output_token", f"{idle}, more than with idle ({each})"
    tokens, requests = cell["output_tokens"], cell.result.requests
    if not requests or not cell.measured or isnan(tokens.low):
        return
    low, high = tokens.low * cell.good * each, tokens.high * requests * each
    if energy.total_j < low * (1 - 1e-3) or energy.total_j > high * (1 + 1e-3):
        yield "energy.total_j", f"{energy.total_j} J, where {each} J a token make {low:.4g} J"
    limit_w = sum(gpu.power_limit_w or nan for gpu in cell.record.rig.gpus) or nan
    power_w = each * cell["system_tok_per_s"].low
    if energy.scope == "gpu" and power_w > POWER * limit_w:
        told = f"{power_w:.0f} W, on cards limited to {limit_w:g} W"
        yield "energy.j_per_output_token", told


def _memory(cell: Cell) -> Broken:
    record, memory = cell.record, cell.result.memory
    if memory is None:
        return
    held, total = memory.engine_rss_bytes, record.rig.memory.total_bytes
    if (held or 0) > (total or nan):
        yield "memory.engine_rss_bytes", f"{held} of {total} bytes"
    cards = sum(gpu.vram_bytes or nan for gpu in record.rig.gpus) or nan
    unified = any(gpu.unified_memory for gpu in record.rig.gpus)
    if not unified and (memory.engine_vram_bytes or 0) > cards:
        told = f"{memory.engine_vram_bytes} bytes, on cards of {cards}"
        yield "memory.engine_vram_bytes", told
    looked_up = record.load_memory.looked_up_bytes if record.load_memory else None
    judged = cell.version >= 2 and cell.measured
    judged = judged and "not_resident" not in cell.result.validity.reasons
    if judged and conditions.not_resident(record.model, record.backend, held, looked_up):
        yield (
            "memory.engine_rss_bytes",
            f"{held} bytes held of a model of {record.model.bytes},"
            " and no not_resident among the reasons",
        )


def _codes(cell: Cell) -> Broken:
    """Reasons that the figures themselves give."""
    result, shape, reasons = cell.result, cell.result.workload, cell.result.validity.reasons
    prompts, outputs = cell["prompt_tokens"], cell["output_tokens"]
    by_turn = shape.turn_answer_tokens
    target = nan if by_turn else known(shape.target_prompt_tokens or shape.prompt_tokens)
    allowed = nan if isnan(target) else max(PROMPT_TOKENS, round(target * PROMPT_SHARE))
    asked = known(shape.answer_tokens)
    lengths = [] if isnan(outputs.low) or isnan(asked) else [outputs.low, outputs.high]
    difference = result.server.difference if result.server else None
    busy = cell.version < 2 and (result.client_cpu_share or 0) > conditions.CLIENT_CPU_SHARE
    holds = {
        "request_errors": bool(result.request_errors),
        "prompt_length": prompts.low < target - allowed or prompts.high > target + allowed,
        "concurrency_not_reached": known(result.concurrency_mean)
        < CONCURRENCY_SHARE * result.concurrency,
        "clock_mismatch": abs(known(difference)) > CLOCK_MISMATCH + 1e-5,
        "client_bound": busy,
        "output_length": any(length not in (by_turn or (asked,)) for length in lengths),
    }
    for code, is_so in holds.items():
        if is_so and code not in reasons:
            yield "validity.reasons", f"without {code}, which the figures give"
    if "request_errors" in reasons and result.request_errors == 0:
        yield "validity.reasons", "request_errors, and there was none"


ResultRule = Callable[[Cell], Broken]

RESULT_RULES: dict[str, ResultRule] = {
    "metric order": _metric_order,
    "percentiles": _percentiles,
    "counts": _counts,
    "tokens": _tokens,
    "speculative": _speculative,
    "shares": _shares,
    "ceiling": _ceiling,
    "matrices": _matrices,
    "energy": _energy,
    "memory": _memory,
}
MEASURED_RULES: dict[str, ResultRule] = {
    "gaps": _gaps,
    "rate and tpot": _rate_and_tpot,
    "answers": _answers,
    "load nodes": _load_nodes,
    "level": _level,
    "end to end": _end_to_end,
    "useful": _useful,
    "session": _session,
    "first answer": _first_answer,
    "system": _system,
    "prefill": _prefill,
    "server": _server,
    "codes": _codes,
}
"""These need tokrig's own definitions."""
