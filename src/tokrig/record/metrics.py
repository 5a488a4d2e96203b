"""``METRICS``: everything that is told of one workload at one concurrency, one entry a metric.

The record's model and JSON Schema, ``tokrig check``, the flat files, the pages and the commands
walk it: a new metric is one entry in ``Figures``, and its line in docs/methodology.md. Pure, and
light to load: the record's model is made from it, not the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tokrig.record import METHODOLOGY_VERSION, formulas, sessions
from tokrig.record.formulas import Counters, Measured
from tokrig.record.metric import (
    COMPARE,
    EVERYWHERE,
    NOWHERE,
    RUN,
    SHOW,
    TABLE,
    Metric,
    Place,
    each,
    part,
    tokens,
)
from tokrig.record.open_loop import open_loop
from tokrig.record.samples import Sample, concurrency_mean

if TYPE_CHECKING:
    from tokrig.record.block import Percentiles
    from tokrig.record.loads import Arrivals, LoadNodes, OpenLoop, SessionFigures, Sustained
    from tokrig.record.model import (
        Energy,
        Greedy,
        Interference,
        PeakMemory,
        ServerTimings,
        Speculative,
    )


class Figures:
    """The table, in the order of the file. A result has these attributes, of these types."""

    repeats: Metric[int | None] = Metric(
        "count",
        "repeats",
        "how often it was measured: a server start, a warm-up and a fixed request set each",
        compute=lambda of: of.repeats,
    )
    requests: Metric[int | None] = Metric(
        "count",
        "requests",
        "measured requests, those that failed included",
        compute=lambda of: of.requests,
        shown=SHOW,
    )
    request_errors: Metric[int | None] = Metric(
        "count",
        "failed requests",
        "measured requests that failed; they are in no other figure",
        compute=lambda of: of.requests - len(of.good),
        higher_is_better=False,
    )
    output_tok_per_s = each(
        "gen tok/s",
        "tok/s",
        "decode rate, 1 / TPOT. The headline",
        better=True,
        shown=EVERYWHERE,
        compute=lambda of: of.summary(
            lambda s: formulas.told_tok_per_s(s, of.confirmed), compared=True
        ),
        compute_v1=lambda of: of.summary(formulas.output_tok_per_s),
    )
    prefill_tok_per_s = each(
        "prefill tok/s",
        "tok/s",
        "uncached prompt tokens / server prompt time; null where it does not tell the cached ones."
        " Where the server gives no prompt time, uncached prompt tokens / TTFT, labelled"
        " `ttft_derived` in `prefill_source`: at concurrency 1, without hidden tokens, and with a"
        " first chunk whose further tokens took at most 1 % (t) of TTFT",
        better=True,
        shown=TABLE,
        compute=lambda of: of.prefill[0],
        compute_v1=lambda of: of.prefill_1[0],
    )
    prefill_source: Metric[str | None] = Metric(
        "text",
        "source of prefill tok/s",
        "`server`, its prompt times or its sums; or `ttft_derived`",
        compute=lambda of: of.prefill[1] if of.prefill[0] else None,
        compute_v1=lambda of: of.prefill_1[1] if of.prefill_1[0] else None,
        values=("server", "ttft_derived"),
        shown=NOWHERE,
    )
    ttft_s = each(
        "TTFT",
        "s",
        "first chunk with a non-empty reasoning, content or tool-call delta − request sent. A"
        " role-only or empty chunk never counts",
        formulas.ttft_s,
        better=False,
        shown=TABLE,
    )
    ttfa_s = each(
        "TTFA",
        "s",
        "time to first answer: first *content* delta that is more than white space − request sent;"
        " null when no answer arrived, never a copy of TTFT",
        formulas.ttfa_s,
        better=False,
        compute_v1=lambda of: of.summary(formulas.ttfa_1_s),
    )
    connect_s = each(
        "connecting",
        "s",
        "connecting until the request is sent, the TLS handshake with it; before TTFT begins",
        formulas.connect_s,
        later=True,
    )
    tpot_s = each(
        "TPOT",
        "s/token",
        "(t_last − t_first) / (N − n_first − hidden): N output tokens; n_first those that came with"
        " the first stamp, in however many chunks; hidden those that the server counts but no chunk"
        " carried, generated before the first stamp or after the last. Null below one such token,"
        " and where the stream does not tell (see *Tokens and stamps*)",
        better=False,
        compute=lambda of: of.summary(lambda s: formulas.told_tpot_s(s, of.confirmed)),
        compute_v1=lambda of: of.summary(formulas.tpot_s),
    )
    icl_s: Metric[Percentiles | None] = Metric(
        "percentiles",
        "inter-chunk latency",
        "ICL: distribution of the gaps between token-bearing chunks that did not come at once, and"
        " the longest of them (`max`). Called ITL only where one chunk carries one token",
        "s",
        compute=lambda of: formulas.inter_chunk_s(of.good),
        compute_v1=formulas.inter_chunk_1_s,
        higher_is_better=False,
    )
    end_to_end_tok_per_s = each(
        "end-to-end tok/s",
        "tok/s",
        "N / (t_last − sent)",
        formulas.end_to_end_tok_per_s,
        better=True,
        shown=TABLE,
    )
    useful_tok_per_s = each(
        "useful tok/s",
        "tok/s",
        "content tokens / (t_last − sent); 0 when the budget ended inside the reasoning",
        formulas.useful_tok_per_s,
        better=True,
    )
    system_tok_per_s = each(
        "system tok/s",
        "tok/s",
        "ΣN over all requests / wall time of the measured phase. Never mixed with rates of one"
        " request",
        better=True,
        shown=COMPARE,
        compute=formulas.system_tok_per_s,
    )
    concurrency_mean: Metric[float | None] = Metric(
        "amount",
        "concurrency reached",
        "mean number of requests that were being served beside each streamed chunk, its own"
        " included; null at concurrency 1",
        "requests",
        compute=lambda of: concurrency_mean(of.good),
        compute_v1=lambda of: None,
    )
    prompt_tokens = each(
        "prompt tokens",
        "tokens",
        "length of the prompt after the server's chat template",
        lambda s: s.prompt_tokens,
        shown=SHOW,
    )
    output_tokens = each(
        "output tokens",
        "tokens",
        "N, all tokens generated: reasoning, content and tool calls",
        lambda s: s.output_tokens,
        shown=SHOW,
    )
    reasoning_tokens_median = tokens(
        "reasoning tokens", "tokens of the answer that were thoughts, median", "reasoning_tokens"
    )
    content_tokens_median = tokens(
        "content tokens", "tokens of the answer proper, median", "content_tokens"
    )
    tool_call_tokens_median = tokens(
        "tool call tokens", "tokens of tool calls, median", "tool_call_tokens"
    )
    hidden_tokens_median = tokens(
        "tokens not shown",
        "tokens that the server counts but that no chunk carried, median",
        "hidden_tokens",
    )
    answered_share: Metric[float | None] = Metric(
        "share",
        "requests that answered",
        "share of the requests that sent content",
        compute=lambda of: formulas.share(of.good, formulas.ttfa_s),
        compute_v1=lambda of: formulas.share(of.good, formulas.ttfa_1_s),
        higher_is_better=True,
    )
    cached_tokens: Metric[int | None] = Metric(
        "count",
        "cached prompt tokens",
        "prompt tokens that the engine took from its cache, all requests together",
        "tokens",
        compute=lambda of: formulas.total(s.cached_tokens for s in of.good),
        shown=SHOW,
    )
    token_count_source: Metric[str | None] = Metric(
        "text",
        "source of token counts",
        "where the counts of output tokens come from",
        compute=lambda of: (
            "+".join(sorted({s.count_source for s in of.good if s.count_source})) or None
        ),
        shown=NOWHERE,
    )
    finish_reasons: Metric[dict[str, int]] = Metric(
        "counts",
        "finish reasons",
        "how many answers ended for which reason",
        compute=formulas.finish_reasons,
    )
    speculative: Metric[Speculative | None] = Metric(
        "block",
        "speculative decoding",
        "drafted and accepted tokens over all measured requests",
        compute=formulas.speculative,
        compute_v1=formulas.speculative_1,
        block="Speculative",
        parts=(
            part(
                "acceptance_rate",
                "share",
                "drafts accepted",
                "accepted / drafted tokens",
                better=True,
            ),
            part("drafted_tokens", "count", "drafted tokens", "how many were drafted", "tokens"),
            part("accepted_tokens", "count", "accepted tokens", "those that were kept", "tokens"),
            part(
                "steps",
                "count",
                "steps of decoding",
                "all of them; by methodology 1 only those with a draft",
                column="draft_steps",
            ),
            part("acceptance_length", "number", "acceptance length", "output tokens a step"),
        ),
    )
    greedy: Metric[Greedy | None] = Metric(
        "block",
        "greedy answers",
        "the greedy answer with speculation against the one without",
        block="Greedy",
        column="greedy_",
        parts=(
            part("same", "flag", "same greedy answer", "whether speculation left it as it was"),
            part("compared_characters", "count", "compared characters", "length that was compared"),
            part(
                "first_divergence_characters",
                "count",
                "first divergence",
                "characters that both answers begin with; null where they are the same",
            ),
            part(
                "first_divergence_tokens", "count", "first divergence, tokens", "the same in tokens"
            ),
        ),
    )
    session_s = each(
        "whole session",
        "s",
        "the last turn's last token − the first turn's request sent: what of a session is spent"
        " waiting for the engine, since no time passes between its turns",
        better=False,
        shown=RUN | {"compare"},
        compute=sessions.session_s,
        later=True,
    )
    session: Metric[SessionFigures | None] = Metric(
        "block",
        "session",
        "turns of one conversation, with the engine's prompt cache on",
        compute=sessions.session,
        block="SessionFigures",
        column="session_",
        later=True,
        parts=(
            part("turns", "count", "turns", "requests of one session"),
            part("sessions", "count", "sessions", "those of which every turn was answered"),
            part(
                "hit_rate",
                "share",
                "cache hit rate",
                "cached / all prompt tokens, all turns together; by the answers, else by the"
                " engine's sums; null where neither tells",
                better=True,
            ),
            part(
                "reusable_share",
                "share",
                "reusable share",
                "what a cache that loses nothing would have had: the prompts of the turns before /"
                " all prompt tokens",
            ),
        ),
    )
    server: Metric[ServerTimings | None] = Metric(
        "block",
        "the engine's clock",
        "the engine's own figures, beside the client's",
        compute=formulas.server,
        compute_v1=formulas.server_1,
        block="ServerTimings",
        column="server_",
        parts=(
            part(
                "output_tok_per_s",
                "summary",
                "the engine's own gen tok/s",
                "by its clock, corrected for the token that it counts but did not time",
                "tok/s",
                better=True,
                shown=SHOW,
            ),
            part(
                "prefill_tok_per_s",
                "summary",
                "the engine's own prefill tok/s",
                "uncached prompt tokens by its clock",
                "tok/s",
                better=True,
            ),
            part(
                "difference",
                "share",
                "client against engine",
                "the client's decode rate / the engine's − 1, median over requests",
                shown=SHOW,
            ),
            part(
                "difference_largest",
                "share",
                "client against engine, largest",
                "the same of the request in which they differ most",
            ),
            part(
                "source",
                "text",
                "engine's clock from",
                "`request`: timings of each; `counters`: sums alone",
            ),
        ),
    )
    open_loop: Metric[OpenLoop | None] = Metric(
        "block",
        "requests that arrive by themselves",
        "an open loop: latencies count from when a request was due",
        compute=open_loop,
        later=True,
        block="OpenLoop",
        column="open_loop_",
        parts=(
            part(
                "sent_per_s",
                "amount",
                "requests sent",
                "those due in the measured window that were sent / its length",
                "requests/s",
            ),
            part(
                "completed_per_s",
                "amount",
                "requests completed",
                "those whose last token came in the measured window / its length",
                "requests/s",
                better=True,
            ),
            part(
                "ttft_s",
                "percentiles",
                "TTFT from due",
                "first token-bearing chunk − due: waiting for a slot is in it, and the lag",
                "s",
                better=False,
            ),
            part(
                "latency_s",
                "percentiles",
                "latency from due",
                "last token-bearing chunk − due",
                "s",
                better=False,
            ),
            part(
                "tpot_s",
                "percentiles",
                "TPOT under load",
                "TPOT of each request, as the stamps have it",
                "s",
                better=False,
            ),
            part("lag_s", "percentiles", "lag", "sent − due, connecting included", "s"),
            part(
                "in_flight_max",
                "count",
                "most in flight",
                "requests sent and not yet answered, the most at the same time",
            ),
            part(
                "unfinished",
                "count",
                "given up",
                "requests still in flight when it was no longer waited for, and those not sent"
                " because too many were in flight",
            ),
            part(
                "overloaded",
                "flag",
                "overloaded",
                "whether requests arrived faster than they were answered (see *Arrivals*)",
            ),
            part(
                "goodput_per_s",
                "amount",
                "goodput",
                "requests that met all limits of the SLO / length of the measured window",
                "requests/s",
                better=True,
            ),
            part(
                "goodput_share",
                "share",
                "requests that met the SLO",
                "of all measured requests, those that failed included",
                better=True,
            ),
        ),
    )
    counters: Metric[dict[str, float] | None] = Metric(
        "sums", "the engine's counters", "what its own sums grew by meanwhile", shown=NOWHERE
    )
    memory: Metric[PeakMemory | None] = Metric(
        "block",
        "memory, peak",
        "the most that the engine's own processes held while it was measured",
        block="PeakMemory",
        parts=(
            part(
                "engine_vram_bytes",
                "count",
                "GPU memory",
                "the most that the engine held",
                "B",
                shown=RUN | {"table"},
            ),
            part(
                "engine_rss_bytes",
                "count",
                "main memory",
                "the most that the engine held",
                "B",
                shown=RUN | {"table"},
            ),
        ),
    )
    energy: Metric[Energy | None] = Metric(
        "block",
        "energy",
        "energy of the measured phase, from a counter with a named scope",
        block="Energy",
        parts=(
            part(
                "j_per_output_token",
                "number",
                "energy per token",
                "energy of the measured phase / ΣN",
                "J/token",
                better=False,
                shown=RUN | {"table"},
            ),
            part(
                "idle_subtracted_j_per_output_token",
                "number",
                "energy per token above idle",
                "the same without what the counter took at rest over the same time",
                "J/token",
                better=False,
            ),
            part(
                "total_j", "amount", "energy", "used in the measured phase", "J", column="energy_j"
            ),
            part(
                "scope",
                "text",
                "energy of",
                "`gpu`: the cards that hold the model; `package`: the processor; or `wall`",
                column="energy_scope",
            ),
        ),
    )
    ceiling_tok_per_s: Metric[float | None] = Metric(
        "amount",
        "decode ceiling",
        "bandwidth / bytes that a step reads: the highest decode rate of each request (see"
        " *Ceiling*)",
        "tok/s",
        later=True,
    )
    ceiling_kind: Metric[str | None] = Metric(
        "text",
        "bandwidth of the ceiling",
        "how the bandwidth is known: `measured`, from the `driver`, or `stated`; several, where"
        " parts of the model lie in several places",
        later=True,
    )
    ceiling_share: Metric[float | None] = Metric(
        "share",
        "share of the ceiling",
        "decode rate / decode ceiling (see *Ceiling*)",
        higher_is_better=True,
        shown=SHOW | {"table"},
    )
    prefill_matrix_share: Metric[float | None] = Metric(
        "share",
        "prefill, of measured matrix throughput",
        "2 × parameters of the layers that a token uses × prefill tok/s / what products of matrices"
        " were measured to reach (see *Ceiling*)",
        higher_is_better=True,
        later=True,
    )
    client_cpu_share: Metric[float | None] = Metric(
        "share",
        "client CPU, of one core",
        "share of one core that the measuring client used",
        higher_is_better=False,
        shown=SHOW,
    )
    load_nodes: Metric[LoadNodes | None] = Metric(
        "block",
        "load nodes",
        "the machines that sent the requests, where it was not the one that tokrig ran on",
        later=True,
        block="LoadNodes",
        column="load_",
        parts=(
            part(
                "nodes",
                "count",
                "load nodes",
                "machines that sent, the fewest of all repeats",
                column="nodes",
            ),
            part(
                "lost",
                "count",
                "load nodes lost",
                "machines that were lost before: what they had sent does not count",
            ),
            part(
                "start_skew_s",
                "amount",
                "start skew",
                "between the first and the last node's start, by clocks held against one another",
                "s",
            ),
            part(
                "clock_uncertainty_s",
                "amount",
                "clock uncertainty",
                "by how much the clocks of two nodes may be off from each other",
                "s",
            ),
        ),
    )
    sustained: Metric[Sustained | None] = Metric(
        "block",
        "sustained load",
        "one workload without a pause: whether its rate holds, and why not",
        block="Sustained",
        column="sustained_",
        parts=(
            part("seconds", "amount", "sustained for", "how long one workload was kept going", "s"),
            part(
                "tok_per_s_first",
                "number",
                "system tok/s, first minute",
                "ΣN / time, from when all workers had a first token; of the first sixth where the"
                " load lasted less than three minutes",
                "tok/s",
                better=True,
            ),
            part(
                "tok_per_s_last",
                "number",
                "system tok/s, last minute",
                "the same of the last minute, or sixth, before the time was over",
                "tok/s",
                better=True,
            ),
            part(
                "last_over_first",
                "share",
                "last over first minute",
                "the rate of the last window / that of the first",
                better=True,
            ),
            part(
                "clock_last_over_first",
                "share",
                "clocks, last over first minute",
                "mean clock of the cards that hold the model, else of the processor, likewise",
            ),
            part(
                "cause",
                "text",
                "why it fell",
                "where the clocks fell below 98 % (t): `heat`, `slowdown`, `power_limit` by what"
                " held them down, else `clocks_fell`; where the rate fell below 97 % (t) alone"
                " `same_clocks`, or `unknown` where nobody tells the clocks",
            ),
        ),
    )
    interference: Metric[Interference | None] = Metric(
        "block",
        "interference",
        "what else happened on the machine while it was measured",
        block="Interference",
        shown=NOWHERE,
    )


METRICS: dict[str, Metric[Any]] = {
    name: metric.named(name) for name, metric in vars(Figures).items() if isinstance(metric, Metric)
}
"""All metrics by the names of their fields, in the order of the file."""


def leaves() -> Iterator[Metric[Any]]:
    """All single figures: those of blocks one by one, under dotted names."""
    for metric in METRICS.values():
        yield from metric.parts if metric.kind == "block" else (metric,)


def shown_in(place: Place) -> list[Metric[Any]]:
    """The single figures that are shown in a place unless asked otherwise."""
    return [metric for metric in leaves() if place in metric.shown]


def figures(
    samples: Sequence[Sample],
    counters: Counters | None = None,
    *,
    methodology: int = METHODOLOGY_VERSION,
    starts: int | None = None,
    arrivals: Arrivals | None = None,
) -> dict[str, Any]:
    """All metrics that follow from the measured samples of *one* workload at one concurrency, by
    name. ``counters`` are what the engine's own sums grew by meanwhile; they serve where the
    samples carry no timings. ``methodology`` is the version that the samples were taken under,
    ``starts`` how many starts of the engine the repeats stand for: each for one, where it is not
    said; ``arrivals`` what was asked of an open loop."""
    measured = [s for s in samples if s.phase == "measured"]
    repeats, first = len({s.repeat for s in measured}), methodology == 1
    starts = repeats if starts is None or first else min(starts, repeats)
    of = Measured(
        good=[s for s in measured if s.error is None],
        requests=len(measured),
        repeats=repeats,
        counters=counters or {},
        starts=starts,
        by_start=not first and starts == repeats,
        arrivals=arrivals,
        arrived=[s for s in samples if s.due_ns is not None],
    )
    return {
        name: (metric.compute_v1 or metric.compute)(of) if first else metric.compute(of)
        for name, metric in METRICS.items()
        if metric.compute is not None and not (first and metric.later)
    }
