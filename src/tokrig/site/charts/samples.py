"""Charts of one run's samples: the times between its chunks, and each request's TTFT.

Stalls are rare and long. As on the terminal, what lies beyond the 99th percentile is counted,
not drawn: it would press everything else into one bar.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from tokrig.record.formulas import inter_chunk_s, ttft_s
from tokrig.record.model import Percentiles
from tokrig.record.samples import Phase, Sample
from tokrig.site.charts import Figure
from tokrig.site.charts.draw import IN_ORDER, Spec, category, layer, quantity, repeated
from tokrig.site.charts.points import short
from tokrig.site.formats import NULL
from tokrig.units import human_seconds, significant

MAX_RESULTS = 12
BINS = 120
GAPS_WIDTH, GAPS_HEIGHT = 380, 40
REQUESTS_WIDTH, REQUESTS_HEIGHT, REQUESTS_COLUMNS = 165, 110, 3

# A result: workload and concurrency.
Cell = tuple[str, int]
# A request that answered: its phase, and its TTFT in seconds.
Answered = tuple[Phase, float]


def inter_chunk_times(samples: Sequence[Sample]) -> Figure | None:
    """Histograms of the gaps between token-bearing chunks, one a result."""
    found = {
        cell: (gaps, shares)
        for cell, of in _by_result(samples).items()
        if (gaps := sorted(_gaps_ms(of))) and gaps[-1] > 0 and (shares := inter_chunk_s(of))
    }
    if not found:
        return None
    shown = dict(list(found.items())[:MAX_RESULTS])
    facts = [
        f"{_name(cell)}: half of {len(gaps):,} gaps up to {_ms(shares.p50, 3)} ms, "
        f"the longest {human_seconds(gaps[-1] / 1e3)}."
        for cell, (gaps, shares) in shown.items()
    ]
    return Figure(
        slug="chunks",
        title="Time between chunks",
        text=" ".join([*facts, *_note(len(shown), len(found))]),
        spec=_histograms(shown),
        columns=("result", "gaps", "p50, ms", "p90, ms", "p95, ms", "p99, ms", "longest, ms"),
        rows=tuple(
            (
                _name(cell),
                f"{len(gaps):,}",
                *map(_ms, (shares.p50, shares.p90, shares.p95, shares.p99, gaps[-1] / 1e3)),
            )
            for cell, (gaps, shares) in found.items()
        ),
    )


def _by_result(samples: Sequence[Sample], *, warm_up: bool = False) -> dict[Cell, list[Sample]]:
    """Samples without errors by result, in the order they were sent."""
    groups: dict[Cell, list[Sample]] = {}
    for sample in samples:
        if sample.error is None and (warm_up or sample.phase == "measured"):
            groups.setdefault((sample.workload, sample.concurrency), []).append(sample)
    for group in groups.values():
        group.sort(key=lambda s: (s.repeat, s.phase == "measured", s.sent_ns, s.worker))
    return groups


def _name(cell: Cell) -> str:
    return f"{short(cell[0])} × {cell[1]}"


def _note(shown: int, all_of_them: int) -> list[str]:
    if shown == all_of_them:
        return []
    return [f"Drawn are {shown} of {all_of_them} results; the table has all."]


def _ms(seconds: float | None, digits: int = 4) -> str:
    return NULL if seconds is None else f"{significant(seconds * 1e3, digits):.10g}"


def _gaps_ms(samples: Sequence[Sample]) -> list[float]:
    return [
        (after.t_ns - before.t_ns) / 1e6
        for sample in samples
        for before, after in zip(sample.chunks, sample.chunks[1:], strict=False)
    ]


def _p99(ordered: Sequence[float]) -> float:
    """The 99th percentile, nearest rank: where the drawing ends, whatever the number of values."""
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def _histograms(shown: dict[Cell, tuple[list[float], Percentiles]]) -> Spec:
    """A row a result over one axis of times; each row's highest bar fills it."""
    end = max(_p99(gaps) for gaps, _ in shown.values()) or 1.0
    values: list[dict[str, Any]] = []
    for place, (cell, (gaps, shares)) in enumerate(shown.items()):
        row_of = {"result": _name(cell), "place": place}
        counts = Counter(min(BINS - 1, int(g / end * BINS)) for g in gaps if g <= _p99(gaps))
        highest = max(counts.values())
        values += [
            {
                **row_of,
                "from": bin_ * end / BINS,
                "to": (bin_ + 1) * end / BINS,
                "height": count / highest,
            }
            for bin_, count in sorted(counts.items())
        ]
        beyond = sum(g > _p99(gaps) for g in gaps)
        stalls = f", {beyond} beyond p99" if beyond else ""
        told = f"p50 {_ms(shares.p50, 3)} ms{stalls}"
        middle = None if shares.p50 is None else shares.p50 * 1e3
        values.append({**row_of, "p50": middle, "told": told})
    title = ["time between chunks, ms", "height: how many, each row on its own scale · line: p50"]
    x = quantity("from", scale={"domain": [0, end], "nice": False}, axis={"title": title})
    y = quantity("height", axis=None, scale={"domain": [0, 1]})
    centre = {"value": GAPS_HEIGHT / 2}
    right = {"value": GAPS_WIDTH}
    layers = [
        layer("rect", "isValid(datum.height)", x=x, x2={"field": "to"}, y=y),
        layer("rule", "datum.told", {"style": "mark-line"}, x=quantity("p50")),
        layer(
            "text",
            "datum.told",
            {"style": "row-label"},
            x={"value": 0},
            y=centre,
            text=category("result"),
        ),
        layer(
            "text", "datum.told", {"style": "row-note"}, x=right, y=centre, text=category("told")
        ),
    ]
    row = category("result", sort=IN_ORDER, header={"title": None, "labels": False})
    return repeated(layers, values, {"row": row}, (GAPS_WIDTH, GAPS_HEIGHT), spacing=8)


def ttft_of_requests(samples: Sequence[Sample]) -> Figure | None:
    """Time to first token of each request in the order they were sent, warm-ups apart."""
    found = {
        cell: answered
        for cell, of in _by_result(samples, warm_up=True).items()
        if (answered := [(s.phase, ttft) for s in of if (ttft := ttft_s(s)) is not None])
    }
    if not found:
        return None
    shown = dict(list(found.items())[:MAX_RESULTS])
    facts = [f"{_name(cell)}: {_told(answered)}." for cell, answered in shown.items()]
    return Figure(
        slug="requests",
        title="Time to first token of each request",
        text=" ".join([*facts, *_note(len(shown), len(found))]),
        spec=_requests(shown),
        columns=("result", "request", "phase", "TTFT, s"),
        rows=tuple(
            (_name(cell), str(number), _phase(phase), f"{significant(ttft, 4):.10g}")
            for cell, answered in found.items()
            for number, (phase, ttft) in enumerate(answered, start=1)
        ),
    )


def _phase(phase: Phase) -> str:
    return "warm-up" if phase == "warmup" else phase


def _measured(answered: Sequence[Answered]) -> list[float]:
    return [ttft for phase, ttft in answered if phase == "measured"]


def _told(answered: Sequence[Answered]) -> str:
    values = _measured(answered)
    if not values:
        return "warm-ups alone"
    low, high = human_seconds(min(values)), human_seconds(max(values))
    return f"median {human_seconds(median(values))}, {low} to {high} over {len(values)} requests"


def _requests(shown: dict[Cell, list[Answered]]) -> Spec:
    """A panel a result, each with its own axis from zero."""
    values: list[dict[str, Any]] = []
    for place, (cell, answered) in enumerate(shown.items()):
        panel = {"result": _name(cell), "place": place}
        values += [
            {**panel, "request": number, "ttft": ttft, "phase": phase}
            for number, (phase, ttft) in enumerate(answered, start=1)
        ]
        values.append({**panel, "head": _name(cell)})
        if measured := _measured(answered):
            values.append({**panel, "median": median(measured)})
    x_axis = {"title": None, "tickMinStep": 1, "tickCount": 4, "grid": False, "format": "d"}
    x = quantity("request", axis=x_axis, scale={"zero": False, "padding": 8})
    y = quantity("ttft", axis={"title": None, "tickCount": 3}, scale={"zero": True})
    warm_up = {"style": "quiet", "filled": False, "shape": "diamond"}
    head = {"x": {"value": 0}, "y": {"value": -14}, "text": category("head")}
    layers = [
        layer("rule", "isValid(datum.median)", {"style": "mark-line"}, y=quantity("median")),
        layer("point", "datum.phase == 'warmup'", warm_up, x=x, y=y),
        layer("point", "datum.phase == 'measured'", {"style": "dot"}, x=x, y=y),
        layer("text", "datum.head", {"style": "panel-head"}, **head),
    ]
    title = [
        "TTFT, s, by request in the order sent",
        "dot: measured · diamond: warm-up · line: median",
    ]
    header = {"title": title, "titleOrient": "bottom", "labelExpr": "''"}
    return repeated(
        layers,
        values,
        category("result", sort=IN_ORDER, header=header),
        (REQUESTS_WIDTH, REQUESTS_HEIGHT),
        columns=REQUESTS_COLUMNS,
        resolve={"scale": {"x": "independent", "y": "independent"}},
        spacing={"row": 8, "column": 24},
    )
