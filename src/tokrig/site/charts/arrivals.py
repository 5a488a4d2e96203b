"""Charts of requests that arrive by themselves: waiting by rate, and over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from tokrig import naming
from tokrig.record.block import Percentiles
from tokrig.record.loads import OpenLoop
from tokrig.record.model import Result
from tokrig.record.open_loop import ttft_due_s
from tokrig.record.samples import Sample
from tokrig.site import charts
from tokrig.site.charts import Drawing, Figure, Scale, at, colour, group, short
from tokrig.site.formats import NULL
from tokrig.units import human_seconds, significant

WIDTH, HEIGHT = 420, 200
MAX_CHARTS = 3

# What is drawn over the rate: a line each.
SERIES: dict[str, Callable[[OpenLoop], float | None]] = {
    "TTFT, p50": lambda of: _of(of.ttft_s, "p50"),
    "TTFT, longest": lambda of: _of(of.ttft_s, "max"),
    "latency, p50": lambda of: _of(of.latency_s, "p50"),
}


def _of(found: Percentiles | None, name: str) -> float | None:
    value: float | None = getattr(found, name, None)
    return value


def by_rate(results: Sequence[Result]) -> list[Figure]:
    """Waiting over the rate, of each load that was measured at several rates."""
    loads: dict[str, list[Result]] = {}
    for result in results:
        if result.open_loop is not None and result.rate_per_s is not None:
            load = replace(result.cell, rate_per_s=None).shape
            loads.setdefault(load, []).append(result)
    several = {name: of for name, of in loads.items() if len(of) > 1}
    drawn = list(several.items())[:MAX_CHARTS]
    slugs = ["rates"] if len(drawn) == 1 else [f"rates-{naming.address(name)}" for name, _ in drawn]
    return [_over_rates(slug, *one) for slug, one in zip(slugs, drawn, strict=True)]


def _over_rates(slug: str, load: str, results: Sequence[Result]) -> Figure:
    ordered = sorted(results, key=lambda result: result.rate_per_s or 0)
    rows = []
    for result in ordered:
        found = result.open_loop
        assert found is not None
        share = found.goodput_share
        rows.append(
            (
                f"{result.rate_per_s:g}",
                *(_text(value(found)) for value in SERIES.values()),
                NULL if share is None else f"{100 * share:.1f}",
                "yes" if found.overloaded else "no",
            )
        )
    low, high = ordered[0], ordered[-1]
    told = [f"at {r.rate_per_s:g}/s {human_seconds(_p50(r))}" for r in (low, high)]
    return Figure(
        slug=slug,
        title=f"Waiting by rate, {short(load)}",
        text=f"Median TTFT from when a request was due: {', '.join(told)}.",
        drawing=_rates(ordered),
        columns=("requests/s", *(f"{name}, s" for name in SERIES), "SLO met, %", "overloaded"),
        rows=tuple(rows),
    )


def _p50(result: Result) -> float | None:
    return _of(result.open_loop.ttft_s, "p50") if result.open_loop else None


def _text(seconds: float | None) -> str:
    return NULL if seconds is None else f"{significant(seconds, 4):.10g}"


def _rates(ordered: Sequence[Result]) -> Drawing:
    """Times on a logarithmic axis: a server that falls behind is slower by magnitudes. Rings are
    rates that did not meet the SLO."""
    found = [(r, r.open_loop) for r in ordered if r.open_loop is not None and r.rate_per_s]
    lines = {
        name: [(r.rate_per_s or 0.0, value(of)) for r, of in found]
        for name, value in SERIES.items()
    }
    known = [v for points in lines.values() for _, v in points if v]
    limits = _limits(ordered[0])
    decades = [math.floor(math.log10(min([*known, *limits.values()], default=1)))]
    decades.append(math.ceil(math.log10(max([*known, *limits.values()], default=1)) + 1e-9))
    bottom, top = 10.0 ** decades[0], 10.0 ** max(decades[1], decades[0] + 1)
    rates = [rate for rate, _ in next(iter(lines.values()))]
    x = Scale(0.0, max(rates) * 1.04, WIDTH)
    y = Scale(top, bottom, HEIGHT, logarithmic=True)
    parts = [
        charts.x_axis(x, charts.ticks(0.0, x.high, 7), HEIGHT),
        charts.y_axis(
            y,
            [(10.0**p, f"{10.0**p:,.12g}") for p in range(decades[0], decades[1] + 1)],
            WIDTH,
        ),
        group("middle-line", (charts.line(0, y(v), WIDTH, y(v)) for v in limits.values())),
    ]
    for number, points in enumerate(lines.values()):
        places = [(x(rate), y(value)) for rate, value in points if value]
        path = "M" + "L".join(f"{px:.2f},{py:.2f}" for px, py in places)
        parts.append(group("line", [charts.element("path", d=path)], stroke=colour(number)))
        marks = [charts.point(px, py, charts.SHAPES[number]) for px, py in places]
        parts.append(charts.element("g", *marks, fill=colour(number)))
    notes = [
        charts.text(WIDTH + 8, y(v) + 4, f"SLO: {name}", style="quiet")
        for name, v in limits.items()
    ]
    title = ["requests/s", "s, from when a request was due (logarithmic)"]
    parts += notes
    parts.append(charts.text(WIDTH / 2, HEIGHT + 36, *title, style="quiet", text_anchor="middle"))
    parts += charts.legend(list(SERIES), HEIGHT + charts.BELOW + 6)
    left = charts.LEFT + 30
    right = charts.reserved([f"SLO: {name}" for name in limits]) + 16
    return Drawing(left + WIDTH + right, HEIGHT + charts.BELOW + 66, at(left, 10, *parts))


def _limits(result: Result) -> dict[str, float]:
    """The limits that are times from when a request was due."""
    slo = result.arrivals.slo if result.arrivals else None
    named = {"TTFT": slo.ttft_s, "end to end": slo.e2e_s} if slo else {}
    return {name: limit for name, limit in named.items() if limit}


def over_time(samples: Sequence[Sample]) -> Figure | None:
    """TTFT of each request over when it was due, where one rate was measured: a server that falls
    behind shows as a slope."""
    arrived = [s for s in samples if s.due_ns is not None]
    cells = list(dict.fromkeys(s.cell for s in arrived))
    if len(cells) != 1:
        return None
    answered = [
        (s, (s.due_ns or 0) / 1e9, ttft) for s in arrived if (ttft := ttft_due_s(s)) is not None
    ]
    if not answered:
        return None
    answered.sort(key=lambda one: (one[0].repeat, one[1]))
    measured = sorted(ttft for s, _, ttft in answered if s.phase == "measured")
    usual = human_seconds(measured[len(measured) // 2]) if measured else NULL
    return Figure(
        slug="arrivals",
        title="Time to first token of requests as they arrived",
        text=f"{short(cells[0].label)}: median {usual}, from when a request was due.",
        drawing=_dots(answered),
        columns=("repeat", "due after, s", "phase", "TTFT from due, s", "lag, ms"),
        rows=tuple(
            (
                str(s.repeat + 1),
                f"{significant(due, 5):.10g}",
                "warm-up window" if s.phase == "warmup" else s.phase,
                f"{significant(ttft, 4):.10g}",
                f"{(s.sent_ns - (s.due_ns or 0)) / 1e6:.3f}",
            )
            for s, due, ttft in answered
        ),
    )


def _dots(answered: Sequence[tuple[Sample, float, float]]) -> Drawing:
    x = Scale(0.0, max(due for _, due, _ in answered) * 1.02 or 1.0, WIDTH)
    y = charts.from_zero(max(ttft for *_, ttft in answered), HEIGHT)
    marks: dict[str, list[str]] = {"warmup": [], "measured": []}
    for sample, due, ttft in answered:
        shape = charts.DIAMOND if sample.phase == "warmup" else charts.SHAPES[0]
        marks[sample.phase].append(charts.point(x(due), y(ttft), shape))
    title = ["seconds after the start · TTFT, s, from when a request was due",
             "dot: measured · diamond: warm-up window"]  # fmt: skip
    left = charts.LEFT + 24
    return Drawing(
        left + WIDTH + 8,
        HEIGHT + charts.BELOW + 10,
        at(
            left,
            10,
            charts.x_axis(x, charts.ticks(0.0, x.high, 6), HEIGHT),
            charts.y_axis(y, charts.ticks(0.0, y.low, 4), WIDTH),
            group("warm-up", marks["warmup"]),
            charts.element("g", *marks["measured"], fill=colour(0)),
            charts.text(WIDTH / 2, HEIGHT + 36, *title, style="quiet", text_anchor="middle"),
        ),
    )
