"""A load that arrives by itself: what is sent when, and what of it is measured."""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokrig.backends import Request
from tokrig.record.loads import Arrivals, Slo
from tokrig.record.model import Result
from tokrig.record.open_loop import GIVEN_UP
from tokrig.record.rate_limits import LEAST_REQUESTS, limits, meets, next_rate, same_load
from tokrig.record.samples import Cell, Sample
from tokrig.run.arrivals import due_times
from tokrig.run.client import Open
from tokrig.run.prepare import Prepared
from tokrig.spec import arrivals as asked

# No more are sent while so many are in flight: the server is lost, and sockets are not endless.
MOST_IN_FLIGHT = 1000
SPARE_FILES = 64
# After the last arrival it is waited as long as they took to arrive, at least so long.
LEAST_PATIENCE_S = 60.0


def arrivals_of(prepared: Prepared, cell: Cell) -> Arrivals:
    """What is asked of a cell, as its result tells it."""
    spec, trace = prepared.spec, prepared.trace
    lasts_s = trace.duration_s if trace else asked.duration_s(spec)
    if spec.find_rate and cell.rate_per_s:
        # A probe must have requests enough to tell a share of them.
        of_window = LEAST_REQUESTS / cell.rate_per_s
        window = spec.warm_up_window_s
        enough = of_window / (1 - asked.WARM_UP_SHARE) if window is None else of_window + window
        lasts_s = max(lasts_s, enough)
    ends = [asked.rate_ends(rate) for rate in spec.rate or ()]
    first = next((first for first, last in ends if last == cell.rate_per_s and first != last), None)
    slo = {f"{name}_s": limit for name, limit in (spec.slo or {}).items()}
    return Arrivals(
        duration_s=round(lasts_s, 6),
        warm_up_window_s=round(asked.warm_up_window_s(spec, lasts_s), 6),
        burstiness=spec.burstiness,
        rate_from_per_s=first if cell.load == "ramp" else None,
        trace=trace.facts if trace else None,
        slo=Slo(**slo) if slo else None,
    )


@dataclass(frozen=True)
class Arrive:
    """Sends bodies when they are due (``due_s``, seconds after the start), as long as the server
    is worth waiting for. ``lengths`` are those of the prompts and answers of a trace."""

    asked: Arrivals
    due_s: Sequence[float]
    lengths: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(cls, prepared: Prepared, cell: Cell, repeat: int) -> Arrive:
        """The arrivals of a repeat: their times follow from the seed and its number."""
        told, spec = arrivals_of(prepared, cell), prepared.spec
        if prepared.trace is not None:
            each = prepared.trace.arrivals
            lengths = [(one.prompt_tokens, one.answer_tokens) for one in each]
            return cls(told, [one.due_s for one in each], lengths)
        assert cell.rate_per_s is not None
        assert cell.load in ("constant", "poisson", "gamma", "ramp")
        first = cell.rate_per_s if told.rate_from_per_s is None else told.rate_from_per_s
        rates, seed = (first, cell.rate_per_s), spec.seed + repeat
        return cls(told, due_times(cell.load, rates, told.duration_s, seed, told.burstiness))

    def __call__(self, bodies: Iterable[bytes]) -> Open:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(MOST_IN_FLIGHT, max(1, files - SPARE_FILES))
        lasts_s = self.asked.duration_s
        return Open(bodies, self.due_s, most, lasts_s + max(lasts_s, LEAST_PATIENCE_S))

    def in_flight(self, ended: int, elapsed_s: float) -> int:
        """How many have arrived and not ended."""
        return bisect_right(self.due_s, elapsed_s) - ended

    def observed(self, samples: Sequence[Sample], requests: Sequence[Request]) -> list[Sample]:
        """All that should have arrived, those that were not sent any more included; what was due
        in the warm-up window is no part of what is measured."""
        sent = {sample.iteration: sample for sample in samples}
        found = []
        for number, (due_s, request) in enumerate(zip(self.due_s, requests, strict=True)):
            sample = sent.get(number) or _not_sent(samples[0], number, round(due_s * 1e9), request)
            changes: dict[str, Any] = {}
            if due_s < self.asked.warm_up_window_s:
                changes["phase"] = "warmup"
            if self.lengths:
                prompt, answer = self.lengths[number]
                changes |= {"prompt_tokens_asked": prompt, "output_tokens_asked": answer}
            found.append(replace(sample, **changes))
        return found


def answered(samples: Sequence[Sample]) -> list[Sample]:
    """What may show that a server cannot be measured so: nothing, where it answered some requests
    and was too slow, or too busy, for others."""
    tried = [sample for sample in samples if sample.error not in GIVEN_UP]
    return [] if any(sample.error is None for sample in tried) else tried


def _not_sent(like: Sample, number: int, due_ns: int, request: Request) -> Sample:
    return Sample(
        **vars(like.cell),
        repeat=like.repeat,
        iteration=number,
        worker=number,
        phase="measured",
        variant=0,
        salt=request.salt,
        sent_ns=due_ns,
        due_ns=due_ns,
        error="not_sent",
        error_detail="too many requests were in flight",
    )


def probes(
    load: Cell, repeat: int, met: Callable[[], Mapping[float, bool]], highest: float
) -> Iterator[Cell]:
    """The cells of a search up to a ``highest`` rate, each after what is known of those before it:
    which rates ``met`` the SLO. The first repeat looks for the limit; the others measure the rates
    next to it again."""
    assert load.rate_per_s is not None
    if not repeat:
        while (rate := next_rate(met(), load.rate_per_s)) is not None and rate <= highest:
            yield replace(load, rate_per_s=rate)
        return
    for rate in limits(met()):
        if rate is not None:
            yield replace(load, rate_per_s=rate)


def met_by(
    load: Cell, results: Sequence[Result], skipped: Sequence[Cell] = ()
) -> dict[float, bool]:
    """Whether the rates that were tried of a load met its SLO. Where nobody can tell, they did
    not."""
    tried = {result.cell: meets(result) or False for result in results}
    tried |= dict.fromkeys(skipped, False)
    return {
        cell.rate_per_s: one
        for cell, one in tried.items()
        if cell.rate_per_s is not None and same_load(cell, load)
    }
