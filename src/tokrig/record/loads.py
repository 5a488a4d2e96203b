"""What a record says of loads beyond one request after the other: sessions, sustained loads,
requests that arrive by themselves, ladders, and machines that sent."""

from __future__ import annotations

from typing import Literal

from tokrig.record.block import Block, Count, NonNegative, Percentiles
from tokrig.record.samples import Cell, Load


class SessionTurn(Block):
    """One turn: medians over all sessions. Of the prompt ``reusable_tokens`` are those of the turn
    before, ``cached_tokens`` what the engine took from its cache, ``new_tokens`` what it read."""

    prompt_tokens: NonNegative | None = None
    reusable_tokens: NonNegative | None = None
    cached_tokens: NonNegative | None = None
    new_tokens: NonNegative | None = None
    output_tokens: NonNegative | None = None
    ttft_s: NonNegative | None = None
    total_s: NonNegative | None = None


class SessionFigures(Block):
    """Sessions on an engine with its prompt cache on; ``by_turn`` in order."""

    turns: Count
    sessions: Count
    hit_rate: float | None = None
    reusable_share: float | None = None
    by_turn: list[SessionTurn] = []


class OverTime(Block):
    """What was seen over time, one value a point: of the graphics cards that hold the model, else
    of the processor. Empty where nobody tells. ``reasons`` are what held the clocks down in the
    last window, in the driver's words."""

    gpu_clock_mhz: list[NonNegative | None] = []
    cpu_clock_mhz: list[NonNegative | None] = []
    temperature_c: list[float | None] = []
    power_w: list[float | None] = []
    reasons: list[str] = []


Cause = Literal["heat", "power_limit", "slowdown", "clocks_fell", "same_clocks", "unknown"]


class Sustained(Block):
    """One workload without a pause for ``seconds``. ``window_s`` is the length of the first window,
    from when all workers had a first token, and of the last; ``tok_per_s`` has a rate for every
    ``point_s``. ``clock_last_over_first`` is of the clocks in these windows. ``cause`` says why
    the clocks or the rate fell; null where neither did."""

    seconds: NonNegative
    window_s: NonNegative
    tok_per_s_first: NonNegative | None = None
    tok_per_s_last: NonNegative | None = None
    last_over_first: NonNegative | None = None
    clock_last_over_first: NonNegative | None = None
    cause: Cause | None = None
    point_s: NonNegative
    tok_per_s: list[NonNegative] = []
    seen: OverTime = OverTime()


class Slo(Block):
    """What a request has to meet: from when it was due until its first token, a token after that,
    and until its last token."""

    ttft_s: NonNegative | None = None
    tpot_s: NonNegative | None = None
    e2e_s: NonNegative | None = None


class Trace(Block):
    """Where the arrivals are from: a file in one of the known formats; ``sha256`` is of the times
    and lengths of the ``requests`` that were taken from it."""

    file: str
    format: str
    requests: Count
    sha256: str


class Arrivals(Block):
    """What was asked of an open loop: for how long requests arrive, of which those due in
    ``warm_up_window_s`` are not measured. ``burstiness`` is the shape of gamma intervals,
    ``rate_from_per_s`` where a ramp to ``rate_per_s`` begins."""

    duration_s: NonNegative
    warm_up_window_s: NonNegative
    burstiness: NonNegative | None = None
    rate_from_per_s: NonNegative | None = None
    trace: Trace | None = None
    slo: Slo | None = None


class OpenLoop(Block):
    """Requests that arrived by themselves. Times count from when a request was due; ``lag_s`` is
    how much later it was sent. ``unfinished`` were given up or not sent any more; ``overloaded``
    says that requests arrived faster than they were answered. ``goodput_*`` are those that met the
    SLO."""

    sent_per_s: NonNegative
    completed_per_s: NonNegative
    ttft_s: Percentiles | None = None
    latency_s: Percentiles | None = None
    tpot_s: Percentiles | None = None
    lag_s: Percentiles | None = None
    in_flight_max: Count
    unfinished: Count
    overloaded: bool
    goodput_per_s: NonNegative | None = None
    goodput_share: NonNegative | None = None


class LoadNodes(Block):
    """The machines that sent the requests, where that was not the one that tokrig ran on.

    ``nodes`` sent, the fewest of all repeats; ``lost`` were there when the run began and gone when
    this was measured. ``start_skew_s`` lay between the first and the last start,
    ``clock_uncertainty_s`` is by how much the clocks of two nodes may be off from each other.
    """

    nodes: Count
    lost: Count = 0
    start_skew_s: NonNegative | None = None
    clock_uncertainty_s: NonNegative | None = None


EndedBy = Literal["growth", "slots", "most", "failed"]


class Ladder(Block):
    """Results of one workload at 1, 2, 4 … requests in flight. It ended because the system rate no
    longer grew by 5 % (``growth``), because requests waited for a slot or the server has no more of
    them (``slots``), at the highest step that was asked for or fits into memory (``most``), or
    because the next step could not be measured (``failed``); null where the run was cut off.
    ``knee`` is the smallest step with 95 % of the highest system rate, null where that still grew.
    """

    workload: str
    depth_tokens: Count = 0
    steps: list[Count]
    most: Count
    ended_by: EndedBy | None = None
    knee: Count | None = None

    def has(self, cell: Cell) -> bool:
        """Whether a cell is one of its steps, or could have been one."""
        place = (cell.workload, cell.depth_tokens)
        return cell.load == "closed" and place == (self.workload, self.depth_tokens)


class RateLimit(Block):
    """The highest of the ``rates`` of a load at which its SLO was met while the server kept up, and
    the lowest at which it was not: null where there was none."""

    workload: str
    concurrency: Count
    depth_tokens: Count = 0
    load: Load
    rate_per_s: NonNegative | None = None
    missed_per_s: NonNegative | None = None
    rates: Count

    @property
    def load_shape(self) -> str:
        """What was sent, whatever the rate: ``chat, poisson``."""
        return Cell(self.workload, self.concurrency, self.depth_tokens, self.load).shape
