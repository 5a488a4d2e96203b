"""What each tool's figures mean: formulas over requests, so that they can be held side by side.

Every client sees the same of a request: when it was sent, its first token, its last one. A
definition makes of that what one tool publishes. Applied to requests as tokrig would have seen them
it says what that tool has to publish of them; what is left between that and what it did publish is
the difference between the two clients, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

DECODE, TTFT, PREFILL = "decode", "TTFT", "prefill"


@dataclass(frozen=True)
class Request:
    """One answered request, in tokens and seconds: from sent to the first token, from there to the
    last one; ``prompt_s`` is the engine's own time for the prompt."""

    prompt_tokens: int
    tokens: int
    ttft_s: float
    window_s: float
    prompt_s: float

    @property
    def pace_s(self) -> float:
        """Seconds a token after the first."""
        return self.window_s / (self.tokens - 1)


@dataclass(frozen=True)
class Engine:
    """The engine's own log of one request. Its decode time runs from the first token to the
    last."""

    prompt_tokens: int
    prompt_s: float
    tokens: int
    decode_s: float


Requests = Sequence[Request]
Told = Mapping[str, float]
"""Seconds that belong to a definition and to no request: what a tool measured beforehand and takes
off, or what the engine takes for requests that are asked otherwise."""
Formula = Callable[[Requests, Told], float]


@dataclass(frozen=True)
class Definition:
    """A figure as one tool publishes it: ``name`` is the tool's own, ``words`` what is computed,
    ``of`` computes it, rates in tok/s and times in seconds. ``why`` tells with numbers what sets it
    apart from tokrig's. ``alone``: only where one request is in flight. Of several, each waits for
    the batch that is being computed when it comes, and the engine's log does not tell how long."""

    figure: str
    name: str
    words: str
    of: Formula
    why: Callable[[Requests, Told], str] = lambda requests, told: ""
    alone: bool = False


def of_each(value: Callable[[Request], float], over: Callable[[list[float]], float]) -> Formula:
    """Mean or median over requests."""
    return lambda requests, told: over([value(request) for request in requests])


def decode_rate(request: Request) -> float:
    return 1 / request.pace_s


def prompt_rate(request: Request) -> float:
    return request.prompt_tokens / request.prompt_s


def end_to_end_s(request: Request) -> float:
    return request.ttft_s + request.window_s


OWN = {
    DECODE: Definition(
        DECODE,
        "output_tok_per_s",
        "median of (N − 1) / (last token − first token)",
        of_each(decode_rate, median),
    ),
    TTFT: Definition(
        TTFT, "ttft_s", "median of first token − sent", of_each(lambda r: r.ttft_s, median)
    ),
    PREFILL: Definition(
        PREFILL,
        "prefill_tok_per_s",
        "median of uncached prompt tokens / the engine's prompt time",
        of_each(prompt_rate, median),
    ),
}


def seen(engine: Sequence[Engine], own: Requests, own_engine: Sequence[Engine]) -> list[Request]:
    """The requests of another tool as tokrig would have seen them: by the engine's log of them,
    with what lay between engine and client in tokrig's own requests: so many seconds before the
    first token, so many times the engine's decode time. ``own`` and ``own_engine`` are in any
    order."""
    before_s = median(r.ttft_s for r in own) - median(e.prompt_s for e in own_engine)
    stretch = median(r.pace_s for r in own) / median(
        e.decode_s / (e.tokens - 1) for e in own_engine
    )
    return [
        Request(e.prompt_tokens, e.tokens, e.prompt_s + before_s, e.decode_s * stretch, e.prompt_s)
        for e in engine
    ]


# How they differ, with numbers


def chunks_why(requests: Requests, told: Told) -> str:
    n = median(r.tokens for r in requests)
    return (
        "the chunk that opens an answer and the one that ends it count as tokens: "
        f"{n + 1:.0f} gaps in the time of {n - 1:.0f}, × {(n + 1) / (n - 1):.4f}"
    )


def whole_why(requests: Requests, told: Told) -> str:
    n, whole = median(r.tokens for r in requests), median(map(end_to_end_s, requests))
    window = median(r.window_s for r in requests)
    return (
        f"the time to the first token is in it: {n:.0f} tokens in {whole:.3f} s"
        f" instead of {n - 1:.0f} in {window:.3f} s, × {n / whole / ((n - 1) / window):.4f}"
    )


def ttft_rate_why(requests: Requests, told: Told) -> str:
    n = median(r.prompt_tokens for r in requests)
    prompt, ttft = (median(getattr(r, name) for r in requests) for name in ("prompt_s", "ttft_s"))
    less = told.get("latency_s", 0.0)
    taken = f" − {less:.4f} s for an empty request" if less else ""
    return (
        f"{n:.0f} tokens over the time to the first token ({ttft:.4f} s{taken}) instead of the"
        f" engine's {prompt:.4f} s for the prompt, × {prompt / (ttft - less):.4f}"
    )


def bare_decode_why(requests: Requests, told: Told) -> str:
    pace = median(r.pace_s for r in requests)
    bare = told["bare_pace_s"]
    return (
        f"no server and no sampler: a token takes {pace * 1e3:.3f} ms served, and"
        f" {bare * 1e3:.3f} ms when the likeliest is taken and the answer sent as a whole,"
        f" × {pace / bare:.4f}"
    )


def bare_prefill_why(requests: Requests, told: Told) -> str:
    prompt, bare = median(r.prompt_s for r in requests), told["bare_prompt_s"]
    return (
        f"no server and no sampler: the prompt takes {prompt:.4f} s served and {bare:.4f} s where"
        f" the likeliest first token is taken, × {prompt / bare:.4f}"
    )


def itl_of_chunks(requests: Requests, told: Told) -> float:
    return sum(r.tokens + 1 for r in requests) / sum(r.window_s for r in requests)


def mean_tpot(requests: Requests, told: Told) -> float:
    return 1 / fmean(r.pace_s for r in requests)


def output_throughput(requests: Requests, told: Told) -> float:
    return sum(r.tokens for r in requests) / sum(map(end_to_end_s, requests))


MEAN_TTFT = of_each(lambda r: r.ttft_s, fmean)

VLLM = (
    Definition(DECODE, "mean_tpot_ms", "1 / mean of (latency − TTFT) / (N − 1)", mean_tpot),
    Definition(DECODE, "mean_itl_ms", "1 / mean gap between chunks", itl_of_chunks, chunks_why),
    Definition(
        DECODE, "output_throughput", "ΣN / whole time", output_throughput, whole_why, alone=True
    ),
    Definition(TTFT, "mean_ttft_ms", "mean of first chunk − sent", MEAN_TTFT, alone=True),
)
GUIDELLM = (
    Definition(
        DECODE,
        "inter_token_latency_ms",
        "1 / median of (last − first token) / (N − 1)",
        lambda requests, told: 1 / median(r.pace_s for r in requests),
    ),
    Definition(
        DECODE,
        "time_per_output_token_ms",
        "1 / median of (last token − sent) / N",
        lambda requests, told: 1 / median(end_to_end_s(r) / r.tokens for r in requests),
        whole_why,
        alone=True,
    ),
    Definition(
        TTFT, "time_to_first_token_ms", "median of first token − sent", OWN[TTFT].of, alone=True
    ),
)
AIPERF = (
    Definition(
        DECODE,
        "output_token_throughput_per_user",
        "mean of (N − 1) / (last content − first content)",
        of_each(decode_rate, fmean),
    ),
    Definition(
        DECODE,
        "e2e_output_token_throughput",
        "mean of N / (last content − begun)",
        of_each(lambda r: r.tokens / end_to_end_s(r), fmean),
        whole_why,
        alone=True,
    ),
    Definition(TTFT, "time_to_first_token", "mean of first content − begun", MEAN_TTFT, alone=True),
    Definition(
        PREFILL,
        "prefill_throughput_per_user",
        "mean of prompt tokens / TTFT",
        of_each(lambda r: r.prompt_tokens / r.ttft_s, fmean),
        ttft_rate_why,
        alone=True,
    ),
)
LLAMA_BENCHY = (
    Definition(
        DECODE,
        "tg_req_throughput",
        "mean of tokens after the first stamp / (last − first stamp)",
        of_each(decode_rate, fmean),
    ),
    Definition(TTFT, "e2e_ttft", "mean of first token − begun", MEAN_TTFT, alone=True),
    Definition(
        PREFILL,
        "pp_req_throughput",
        "mean of prompt tokens / (first chunk − begun − latency of an empty request)",
        lambda requests, told: fmean(
            r.prompt_tokens / (r.ttft_s - told["latency_s"]) for r in requests
        ),
        ttft_rate_why,
        alone=True,
    ),
)
LLAMA_BENCH = (
    Definition(
        DECODE,
        "tg",
        "median of its passes, at the prompt's depth",
        lambda requests, told: 1 / told["bare_pace_s"],
        bare_decode_why,
    ),
    Definition(
        PREFILL,
        "pp",
        "median of its passes",
        lambda requests, told: median(r.prompt_tokens for r in requests) / told["bare_prompt_s"],
        bare_prefill_why,
    ),
)


# What a figure's difference consists of


@dataclass(frozen=True)
class Row:
    """One figure of one tool in one repeat. ``ratio`` to tokrig's is the product of three:
    ``engine``, how else the engine itself was with this tool's requests, by its own log;
    ``definition``, what the tool computes of the same requests over what tokrig does; and what is
    ``left``."""

    says: float
    ratio: float
    engine: float
    definition: float
    left: float
    why: str


def row(
    definition: Definition,
    says: float,
    told: Told,
    engine: Sequence[Engine],
    own: Requests,
    own_engine: Sequence[Engine],
) -> Row:
    """A tool's figure against tokrig's of the same repeat. A native benchmark sends nothing: its
    ``engine`` are answers that the server gave between its passes."""
    same = OWN[definition.figure].of
    requests = seen(engine, own, own_engine)
    mine, here = same(own, {}), same(requests, {})
    there = definition.of(requests, told)
    return Row(
        says, says / mine, here / mine, there / here, says / there, definition.why(requests, told)
    )
