"""Curves: how speed goes with depth, load, turns, time, quality and cost. Pure.

Each view has its data for the page's script and a picture for those without one. A *curve* is of
one run: ``run`` is its number among the runs of ``assets/rows.js``, ``key`` its name in addresses,
``of`` what of the run it is; all else are columns of equal length, a value a point, None where
nobody knows. The most complete curves come first, of those the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokrig import naming
from tokrig.record.block import Summary
from tokrig.record.loads import Ladder
from tokrig.record.model import Record, Result
from tokrig.record.sustained import edges
from tokrig.store.load import Run
from tokrig.units import significant

FAST_ENOUGH = {"reading": 7, "comfortable": 20}
"""Rates of one answer, tok/s: people read 4 to 5 words a second, and like an answer to be ahead."""
LEAST_POINTS = 2
JOULE_A_KWH = 3.6e6

Curve = dict[str, Any]


def depth(record: Record) -> Iterator[Curve]:
    """Rates and the wait after so many tokens of context."""
    for found in naming.depth_curves(record):
        stand = [one for one in found if one.validity.stands and _median(one.output_tok_per_s)]
        yield {
            "of": f"{found[0].workload.name} × {found[0].concurrency}",
            "depth": [one.depth_tokens for one in stand],
            "decode": [_median(one.output_tok_per_s) for one in stand],
            "prefill": [_median(one.prefill_tok_per_s) for one in stand],
            "ttft": [_median(one.ttft_s) for one in stand],
        }


def load(record: Record) -> Iterator[Curve]:
    """Each request's rate and that of all together, a point a step."""
    for ladder in record.ladders:
        steps = _steps(record, ladder)
        yield {
            "of": ladder.workload,
            "end": naming.ladder_end(ladder),
            "knee": ladder.knee,
            "flight": [one.concurrency for one in steps],
            "each": [_median(one.output_tok_per_s) for one in steps],
            "system": [_median(one.system_tok_per_s) for one in steps],
            "ttft": [_median(one.ttft_s) for one in steps],
        }


def _steps(record: Record, ladder: Ladder) -> list[Result]:
    return sorted(
        (
            one
            for one in record.results
            if ladder.has(one.cell)
            and one.output_tok_per_s
            and one.system_tok_per_s
            # At the last step of a ladder requests may wait: that is what it was to find.
            and (one.validity.stands or one.validity.reasons == ["concurrency_not_reached"])
        ),
        key=lambda one: one.concurrency,
    )


def session(record: Record) -> Iterator[Curve]:
    """What each turn sent, and how long it waited."""
    for result in record.results:
        if (found := result.session) is not None and result.validity.stands:
            turns = found.by_turn
            yield {
                "of": f"{result.workload.name} × {result.concurrency}",
                "cache": naming.session_cache(found),
                "turn": list(range(1, len(turns) + 1)),
                "prompt": [_number(one.prompt_tokens) for one in turns],
                "cached": [_number(one.cached_tokens) for one in turns],
                "ttft": [_number(one.ttft_s) for one in turns],
                "total": [_number(one.total_s) for one in turns],
            }


def sustained(record: Record) -> Iterator[Curve]:
    """Rate, clock, temperature and power over time; times are the middles of the points, s.
    ``each`` is the share of the rate that one of the requests in flight has."""
    for result in record.results:
        if (found := result.sustained) is None or not result.validity.stands:
            continue
        bounds, seen = edges(found.seconds), found.seen
        points = len(bounds) - 1
        if len(found.tok_per_s) != points:
            continue
        rates, why = naming.sustained_lines(found)
        yield {
            "of": f"{result.workload.name} × {result.concurrency}",
            "end": f"{rates}; {why}",
            "time": [significant((a + b) / 2, 4) for a, b in pairwise(bounds)],
            "rate": [_number(one) for one in found.tok_per_s],
            "each": [_number(one / result.concurrency) for one in found.tok_per_s],
            "clock": _series(seen.gpu_clock_mhz or seen.cpu_clock_mhz, points),
            "heat": _series(seen.temperature_c, points),
            "power": _series(seen.power_w, points),
        }


def _series(values: Sequence[float | None], points: int) -> list[float | int | None]:
    """The values where there is one for every point."""
    return [_number(one) for one in values] if len(values) == points else [None] * points


def quality(record: Record) -> Iterator[Curve]:
    """How near a quant is to its reference, and its decode rate: one point."""
    found, speed = record.quality, headline(record)
    if found is None or found.top1_agreement is None or found.kl_nats is None or speed is None:
        return
    yield {
        "quant": [record.model.quant or ""],
        "reference": [(found.reference and found.reference.quant) or ""],
        "agreement": [_number(found.top1_agreement.value)],
        "kl": [_number(found.kl_nats.value)],
        "decode": [_median(speed.output_tok_per_s)],
        "bytes": [record.model.bytes],
    }


def cost(record: Record) -> Iterator[Curve]:
    """Energy a token and the rates, a point a concurrency of the first shape there is."""
    first = headline(record)
    if first is None:
        return
    mine = [r for r in record.plain if r.workload.name == first.workload.name]
    mine = [r for r in mine if r.validity.stands and r.output_tok_per_s and r.system_tok_per_s]
    mine.sort(key=lambda one: one.concurrency)
    yield {
        "of": first.workload.name,
        "flight": [one.concurrency for one in mine],
        "each": [_median(one.output_tok_per_s) for one in mine],
        "system": [_median(one.system_tok_per_s) for one in mine],
        "joule": [_number(one.energy.j_per_output_token if one.energy else None) for one in mine],
        "scope": next((one.energy.scope for one in mine if one.energy), None),
    }


def headline(record: Record) -> Result | None:
    """The result by which a run is placed beside others: one chat, else its first shape."""
    stand = [r for r in record.plain if r.validity.stands and r.output_tok_per_s]
    return min(
        stand,
        key=lambda r: (r.concurrency, naming.shape_order(r.workload.name)),
        default=None,
    )


VIEWS: Mapping[str, Callable[[Record], Iterator[Curve]]] = {
    "depth": depth,
    "load": load,
    "session": session,
    "sustained": sustained,
    "quality": quality,
    "cost": cost,
}
# Columns that a point has to have, and how many points make a curve.
NEEDED = {
    "depth": ("decode", LEAST_POINTS),
    "load": ("each", LEAST_POINTS),
    "session": ("ttft", LEAST_POINTS),
    "sustained": ("rate", LEAST_POINTS),
    "quality": ("decode", 1),
    "cost": ("each", 1),
}


def of_view(view: str, runs: Sequence[Run]) -> list[Curve]:
    """The curves of a view, the most complete first; runs come in the order of ``runs``."""
    column, least = NEEDED[view]
    found = []
    for curve in _by_model(runs) if view == "quality" else _each(view, runs):
        complete = sum(value is not None for value in curve[column])
        if complete >= least:
            found.append((complete, curve))
    began = [run.record.provenance.started_at or "" for run in runs]
    # Measured energy is more than what a reader states.
    found.sort(key=lambda one: began[one[1]["run"]], reverse=True)
    found.sort(key=lambda one: (one[0], bool(one[1].get("scope"))), reverse=True)
    return [curve for _, curve in found]


def _each(view: str, runs: Sequence[Run]) -> Iterator[Curve]:
    for number, run in enumerate(runs):
        for place, curve in enumerate(VIEWS[view](run.record)):
            key = f"{run.id}~{place}" if place else run.id
            yield {"run": number, "key": key, **curve}


def _by_model(runs: Sequence[Run]) -> Iterator[Curve]:
    """The quants of one model on one machine are a curve, the nearest to the reference first: a
    model is held against itself, and speeds of two machines say nothing of quants."""
    groups: dict[str, list[Curve]] = {}
    for curve in _each("quality", runs):
        record = runs[curve["run"]].record
        key = f"{naming.model_address(record.model)}~{record.rig.id}"
        groups.setdefault(key, []).append(curve)
    for key, group in groups.items():
        group.sort(key=lambda curve: (curve["kl"], curve["run"]))
        several = "" if len(group) == 1 else "s"
        columns = {
            name: [value for curve in group for value in curve[name]]
            for name in ("quant", "reference", "agreement", "kl", "decode", "bytes")
        }
        of = f"{len(group)} quant{several}"
        runs_of = [curve["run"] for curve in group]
        yield {"run": runs_of[-1], "key": key, "of": of, "runs": runs_of, **columns}


def frontier(near: Sequence[float], fast: Sequence[float]) -> list[bool]:
    """Of points that are the better the lower ``near`` and the higher ``fast`` is, those that no
    other beats in both."""
    order = sorted(range(len(near)), key=lambda n: (near[n], -fast[n]))
    best, found = -1.0, [False] * len(near)
    for n in order:
        found[n] = fast[n] > best
        best = max(best, fast[n])
    return found


def _median(summary: Summary | None) -> float | int | None:
    return _number(summary.median if summary else None)


def _number(value: float | None) -> float | int | None:
    """Four digits, short as JSON."""
    if value is None:
        return None
    short = significant(float(value), 4)
    return int(short) if short == int(short) else short
