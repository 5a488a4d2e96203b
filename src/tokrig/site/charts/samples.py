"""Charts of one run's samples: the times between its chunks, and each request's TTFT.

Stalls are rare and long. As on the terminal, what lies beyond the 99th percentile is counted,
not drawn: it would press everything else into one bar.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from tokrig.record.block import Percentiles
from tokrig.record.formulas import inter_chunk_s, ttft_s
from tokrig.record.samples import Cell, Phase, Sample
from tokrig.site import charts
from tokrig.site.charts import Drawing, Figure, Scale, at, colour, group, short
from tokrig.site.formats import NULL
from tokrig.units import human_seconds, significant

MAX_RESULTS = 12
BINS = 120
GAPS_WIDTH, GAPS_HEIGHT, GAPS_STEP = 380, 40, 50
REQUESTS_WIDTH, REQUESTS_HEIGHT, REQUESTS_COLUMNS = 165, 110, 3
# From one panel to the next, with room for their values: across, and down.
REQUESTS_PITCH = (212, 176)

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
        drawing=_histograms(shown),
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
            groups.setdefault(sample.cell, []).append(sample)
    for of_result in groups.values():
        of_result.sort(key=lambda s: (s.repeat, s.phase == "measured", s.sent_ns, s.worker))
    return groups


def _name(cell: Cell) -> str:
    return short(cell.label)


def _note(shown: int, all_of_them: int) -> list[str]:
    if shown == all_of_them:
        return []
    return [f"Drawn are {shown} of {all_of_them} results; the table has all."]


def _ms(seconds: float | None, digits: int = 4) -> str:
    return NULL if seconds is None else f"{significant(seconds * 1e3, digits):.10g}"


def _gaps_ms(samples: Sequence[Sample]) -> list[float]:
    return [
        (after - before) / 1e6
        for sample in samples
        for before, after in pairwise(sample.stream.stamps_ns)
    ]


def _p99(ordered: Sequence[float]) -> float:
    """The 99th percentile, nearest rank: where the drawing ends, whatever the number of values."""
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def _histograms(shown: dict[Cell, tuple[list[float], Percentiles]]) -> Drawing:
    """A row a result over one axis of times; each row's highest bar fills it."""
    end = max(_p99(gaps) for gaps, _ in shown.values()) or 1.0
    scale = Scale(0.0, end, GAPS_WIDTH)
    values = charts.ticks(0.0, end, 10)
    left = charts.LEFT + charts.reserved(map(_name, shown))
    rows, notes = [], []
    for place, (cell, (gaps, shares)) in enumerate(shown.items()):
        counts = Counter(min(BINS - 1, int(g / end * BINS)) for g in gaps if g <= _p99(gaps))
        share, width = GAPS_HEIGHT / max(counts.values()), GAPS_WIDTH / BINS
        bars = "".join(
            f"M{bin_ * width:.2f},{GAPS_HEIGHT}v{-count * share:.2f}h{width:.2f}V{GAPS_HEIGHT}Z"
            for bin_, count in sorted(counts.items())
        )
        beyond = sum(g > _p99(gaps) for g in gaps)
        stalls = f", {beyond} beyond p99" if beyond else ""
        notes.append(f"p50 {_ms(shares.p50, 3)} ms{stalls}")
        middle = [] if shares.p50 is None else [scale(shares.p50 * 1e3)]
        centre = GAPS_HEIGHT / 2 + 4
        rows.append(
            at(
                0,
                place * GAPS_STEP,
                charts.x_axis(scale, values, GAPS_HEIGHT, labels=place == len(shown) - 1),
                charts.element("path", d=bars, fill=colour(0)),
                group("middle-line", (charts.line(x, 0, x, GAPS_HEIGHT) for x in middle)),
                charts.text(-10, centre, _name(cell), style="label", text_anchor="end"),
                charts.text(GAPS_WIDTH + 10, centre, notes[-1], style="quiet"),
            )
        )
    height = GAPS_STEP * len(shown) - 10
    title = ["time between chunks, ms", "height: how many, each row on its own scale · line: p50"]
    rows.append(
        charts.text(GAPS_WIDTH / 2, height + 36, *title, style="quiet", text_anchor="middle")
    )
    whole = left + GAPS_WIDTH + 14 + charts.reserved(notes)
    return Drawing(whole, 10 + height + charts.BELOW, at(left, 10, *rows))


def ttft_of_requests(samples: Sequence[Sample]) -> Figure | None:
    """Time to first token of each request in the order they were sent, warm-ups apart."""
    found = {
        cell: answered
        for cell, of in _by_result(samples, warm_up=True).items()
        # An hour has too many for a drawing, and a chart of its own.
        if cell.load != "sustained"
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
        drawing=_requests(shown),
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


def _requests(shown: dict[Cell, list[Answered]]) -> Drawing:
    """A panel a result, each with its own axis from zero."""
    width, height = REQUESTS_WIDTH, REQUESTS_HEIGHT
    panels = []
    for place, (cell, answered) in enumerate(shown.items()):
        down, across = divmod(place, REQUESTS_COLUMNS)
        count, measured = len(answered), _measured(answered)
        x = Scale(0.5, count + 0.5, width)
        y = charts.from_zero(max(ttft for _, ttft in answered), height)
        points: dict[Phase, list[str]] = {"warmup": [], "measured": []}
        for number, (phase, ttft) in enumerate(answered, start=1):
            shape = charts.DIAMOND if phase == "warmup" else charts.SHAPES[0]
            points[phase].append(charts.point(x(number), y(ttft), shape))
        middle = [y(median(measured))] if measured else []
        panels.append(
            at(
                across * REQUESTS_PITCH[0],
                down * REQUESTS_PITCH[1],
                charts.text(0, -10, _name(cell), style="head"),
                group(
                    "quiet",
                    (
                        charts.text(x(number), height + 15.5, said)
                        for number, said in charts.ticks(1, max(count, 2), 4, least=1)
                        if number <= count
                    ),
                    text_anchor="middle",
                ),
                charts.y_axis(y, charts.ticks(0.0, y.low, 3), width),
                group("middle-line", (charts.line(0, at_y, width, at_y) for at_y in middle)),
                group("warm-up", points["warmup"]),
                charts.element("g", *points["measured"], fill=colour(0)),
            )
        )
    columns = min(len(shown), REQUESTS_COLUMNS)
    whole = columns * REQUESTS_PITCH[0] - (REQUESTS_PITCH[0] - width)
    bottom = math.ceil(len(shown) / REQUESTS_COLUMNS) * REQUESTS_PITCH[1] - (
        REQUESTS_PITCH[1] - height
    )
    title = [
        "TTFT, s, by request in the order sent",
        "dot: measured · diamond: warm-up · line: median",
    ]
    panels.append(charts.text(whole / 2, bottom + 36, *title, style="quiet", text_anchor="middle"))
    return Drawing(46 + whole + 8, 26 + bottom + charts.BELOW, at(46, 26, *panels))
