"""The measuring client measured: how far its figures are from the truth, what they cost, and up to
which rate it is true.

A simulated server in a process of its own sends tokens whose text is the time right before they
were sent, and how late that was: a late send costs no accuracy. The real client receives and
decodes them. This is the one place where stamps of two processes are subtracted: both come from
CLOCK_MONOTONIC of the same machine, which Linux keeps the same for all processes. Their difference
contains the server's ``send``, the kernel's loopback and the wake-up of this process, so it is an
upper bound of what the client itself adds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokrig.errors import EngineDied, InputError
from tokrig.record.conditions import CLIENT_CPU_SHARE, CLIENT_LATE_SHARE
from tokrig.record.formulas import PERCENTILES_NEED
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Loop, closed_loop
from tokrig.run.http import Endpoint
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

PATIENCE_S = 10.0
TTFT_S = 0.05
# (t) Up to here a client is true: the error of the p99 of the gaps as a share of the interval, and
# of their mean as a share of it.
P99_OFF = 0.10
MEAN_OFF = 0.01
# Of the rate that was asked for: below it the server is the limit, not the client.
REACHED = 0.9
LADDER_STREAMS = 64
LADDER = (2_000, 4_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 128_000)
TRIES = 3  # of a rung: others may disturb one


@dataclass(frozen=True)
class Load:
    """``streams`` at once, each a token every ``interval_s``, ``tokens`` of them."""

    streams: int = 64
    interval_s: float = 0.001
    tokens: int = 1000

    def __post_init__(self) -> None:
        if self.streams < 1 or self.tokens < 2 or not 0 < self.interval_s < 60:
            raise InputError(
                f"cannot measure {self}",
                hint="at least 1 stream, 2 tokens and an interval above 0 and below a minute",
            )

    def __str__(self) -> str:
        return f"{self.streams} streams of {self.tokens} tokens every {self.interval_s * 1e3:g} ms"

    @property
    def tok_per_s(self) -> float:
        """All streams together."""
        return self.streams / self.interval_s

    @classmethod
    def lasting(cls, streams: int, interval_s: float, seconds: float) -> Load:
        """For about so long."""
        return cls(streams, interval_s, max(round(seconds / interval_s), 20))


@dataclass(frozen=True)
class Spread:
    """A distribution in seconds. p95 and p99 are null where there are too few values to tell."""

    p50: float
    p95: float | None
    p99: float | None
    max: float


@dataclass(frozen=True)
class InstrumentReport:
    """What the measuring client adds at a load.

    ``error_s`` is client stamp − send time, ``ttft_error_s`` the client's TTFT − the time from the
    request's arrival to the first send, ``server_late_s`` send time − due time. ``tpot_off`` is the
    largest error of a request's TPOT, as a share of it; ``itl_mean_off`` that of the mean gap.
    ``icl_error_s`` has the client's percentiles of all gaps − the true ones. ``coalesced_share`` is
    the share of tokens that came out of a read together with another one of the same stream: they
    share a stamp. ``receive_us_per_token`` is the client's CPU time while it measures,
    ``decode_us_per_token`` that spent afterwards on making chunks of the bytes;
    ``client_cpu_share`` and ``client_late_share`` are those of a record. ``tok_per_s`` is what the
    server really sent, all streams together.
    """

    streams: int
    tokens: int
    interval_s: float
    error_s: Spread
    ttft_error_s: Spread
    server_late_s: Spread
    tpot_off: float
    itl_mean_off: float
    icl_error_s: dict[str, float]
    coalesced_share: float
    receive_us_per_token: float
    decode_us_per_token: float
    client_cpu_share: float
    client_late_share: float
    tok_per_s: float

    @property
    def client_us_per_token(self) -> float:
        """All CPU time of the client per token, in µs."""
        return self.receive_us_per_token + self.decode_us_per_token

    @property
    def untrue(self) -> list[str]:
        """Why the client is not true at this load, in words; nothing where it is."""
        p99_off = abs(self.icl_error_s.get("p99", 0.0)) / self.interval_s
        rules = {
            f"p99 of the gaps off by {p99_off:.0%} of the interval": p99_off > P99_OFF,
            f"mean gap off by {self.itl_mean_off:.1%}": abs(self.itl_mean_off) > MEAN_OFF,
            f"{self.client_late_share:.1%} of the time in long rounds": self.client_late_share
            > CLIENT_LATE_SHARE,
            f"{self.client_cpu_share:.0%} of a core": self.client_cpu_share > CLIENT_CPU_SHARE,
        }
        return [words for words, is_so in rules.items() if is_so]

    @property
    def server_is_limit(self) -> bool:
        """Whether the server did not send as fast as was asked."""
        return self.tok_per_s < REACHED * self.streams / self.interval_s

    def to_json(self) -> dict[str, Any]:
        """All of it, the verdict too."""
        cost = {"client_us_per_token": self.client_us_per_token}
        return {**asdict(self), **cost, "untrue": self.untrue}


def measure(load: Load) -> InstrumentReport:
    """Receive a load and compare.

    Takes ``tokens`` × ``interval_s`` seconds and about one more. Raises EngineDied when the server
    does not do its part.
    """
    request = {"messages": [{"role": "user", "content": "count"}], "stream": True}
    body = json.dumps({**request, "max_tokens": load.tokens}).encode()
    made = Simulation(ttft_s=TTFT_S, itl_s=load.interval_s, stamps=True)
    with simulated(made) as server:
        loop = closed_loop(
            Endpoint(server.host, server.port),
            "/v1/chat/completions",
            [body] * load.streams,
            load.streams,
            silence_s=PATIENCE_S,
        )
    before = time.process_time()
    answers = [read_answer(response, lambda _: None) for response in loop.responses]
    decode_s = time.process_time() - before
    stamps, sends, late = _times(loop, answers, load.tokens)
    received = np.array([int(r.headers["x-received-ns"]) for r in loop.responses])
    sent = np.array([loop.start_ns + r.sent_ns for r in loop.responses])
    count = load.streams * load.tokens
    gaps, true_gaps = np.diff(stamps).ravel(), np.diff(sends).ravel()
    span, true_span = stamps[:, -1] - stamps[:, 0], sends[:, -1] - sends[:, 0]
    shares = [name for name, need in PERCENTILES_NEED.items() if gaps.size >= need]
    at = [50, *(int(name[1:]) for name in shares)]
    errors_s = (np.percentile(gaps, at) - np.percentile(true_gaps, at)) / 1e9
    return InstrumentReport(
        streams=load.streams,
        tokens=load.tokens,
        interval_s=load.interval_s,
        error_s=_spread(stamps - sends),
        ttft_error_s=_spread((stamps[:, 0] - sent) - (sends[:, 0] - received)),
        server_late_s=_spread(late),
        tpot_off=float(np.max(np.abs(span / true_span - 1))),
        itl_mean_off=float(gaps.mean() / true_gaps.mean() - 1),
        icl_error_s=dict(zip(["p50", *shares], map(float, errors_s), strict=True)),
        coalesced_share=coalesced(stamps) / count,
        receive_us_per_token=loop.client_cpu_s / count * 1e6,
        decode_us_per_token=decode_s / count * 1e6,
        client_cpu_share=loop.client_cpu_share,
        client_late_share=loop.late_share(load.interval_s) or 0.0,
        tok_per_s=(count - 1) / float(sends.max() - sends.min()) * 1e9,
    )


Ns = np.ndarray[Any, np.dtype[np.int64]]


def _times(loop: Loop, answers: Sequence[Answer], tokens: int) -> tuple[Ns, Ns, Ns]:
    """Client stamps, send times and lateness in ns, a row a stream. Raises EngineDied where a
    stream is not whole."""
    for answer in answers:
        if answer.error is not None or len(answer.chunks) != tokens:
            raise EngineDied(
                f"a stream of the instrument's server broke after {len(answer.chunks)} of {tokens} "
                f"tokens: {answer.error_detail or 'no reason known'}",
                hint="is the machine very busy? Try fewer streams or a longer interval",
            )
    began = np.array([[loop.start_ns + response.sent_ns] for response in loop.responses])
    stamps = began + np.array([answer.chunks.stamps_ns for answer in answers], dtype=np.int64)
    texts = np.array([answer.chunks.text.split() for answer in answers]).astype(np.int64)
    return stamps, texts[:, 0::2], texts[:, 1::2]


def coalesced(stamps: Ns) -> int:
    """How many stamps are the same as a neighbour's in their stream."""
    same = stamps[:, 1:] == stamps[:, :-1]
    return int(np.sum(np.pad(same, ((0, 0), (1, 0))) | np.pad(same, ((0, 0), (0, 1)))))


def _spread(values_ns: Ns) -> Spread:
    seconds = values_ns.ravel() / 1e9
    p95, p99 = (
        float(np.percentile(seconds, int(name[1:])))
        if seconds.size >= PERCENTILES_NEED[name]
        else None
        for name in ("p95", "p99")
    )
    return Spread(float(np.median(seconds)), p95, p99, float(seconds.max()))


# The rate up to which it is true.


@dataclass(frozen=True)
class Reach:
    """``tok_per_s`` is the highest rate of the ladder, as it was really sent, at which the client
    was true; None where it was so at none. ``at_least``: the server gave out first, or the ladder.
    ``limit`` says why it ended."""

    tok_per_s: float | None
    at_least: bool
    limit: str


def climb(
    one: Callable[[Load], InstrumentReport], rates: Sequence[float], seconds: float
) -> Iterator[tuple[InstrumentReport, Reach]]:
    """Measure with ``one`` at ever higher rates, until the client or the server gives out; each
    report with what is found so far. A rung is tried again where something went wrong."""
    best: float | None = None
    for rate in rates:
        load = Load.lasting(LADDER_STREAMS, LADDER_STREAMS / rate, seconds)
        for _ in range(TRIES):
            report = one(load)
            limit = "the server" if report.server_is_limit else ", ".join(report.untrue)
            if not limit:
                best = report.tok_per_s
                yield report, Reach(best, True, "the end of the ladder")
                break
            yield report, Reach(best, report.server_is_limit, f"{rate:,.0f} tok/s: {limit}")
        else:
            return
