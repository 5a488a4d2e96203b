"""Charts of how a run bore its load: the steps of a ladder, and what lasted over its time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tokrig import naming
from tokrig.record.block import Summary
from tokrig.record.loads import Ladder
from tokrig.record.model import Record, Result
from tokrig.record.sustained import edges
from tokrig.site import charts
from tokrig.site.charts import Drawing, Figure, Scale, at, colour, group, short
from tokrig.site.formats import NULL, rate
from tokrig.units import duration, human_seconds

WIDTH, HEIGHT, PANEL_HEIGHT, PANEL_STEP = 440, 230, 110, 150


# A ladder


def ladder_chart(record: Record, ladder: Ladder) -> Figure | None:
    """The rate of each request against that of all together, a point a step, the knee marked."""
    steps = [result for result in record.results if ladder.has(result.cell)]
    drawn = [(r, r.output_tok_per_s, r.system_tok_per_s) for r in steps]
    points = [(r.concurrency, a.median, b.median) for r, a, b in drawn if a and b]
    if not points:
        return None
    facts = "; ".join(
        f"{n} in flight: {rate(each)} tok/s each, {rate(together)} together"
        for n, each, together in points
    )
    name = short(ladder.workload)
    return Figure(
        slug=f"ladder-{naming.address(ladder.workload)}",
        title=f"Each request against all together, {name}",
        text=f"{facts}. The ladder {naming.ladder_end(ladder)}.",
        drawing=_climb(points, ladder.knee),
        columns=(
            "in flight",
            "each, tok/s",
            "all together, tok/s",
            "TTFT",
            "served at once",
            "validity",
        ),
        rows=tuple(_step(result, ladder) for result in steps),
    )


def _step(result: Result, ladder: Ladder) -> tuple[str, ...]:
    def median(summary: Summary | None) -> float | None:
        return summary.median if summary else None

    knee = ", knee" if result.concurrency == ladder.knee else ""
    ttft, mean = median(result.ttft_s), result.concurrency_mean
    return (
        f"{result.concurrency}{knee}",
        *(_rate(median(one)) for one in (result.output_tok_per_s, result.system_tok_per_s)),
        NULL if ttft is None else human_seconds(ttft),
        NULL if mean is None else f"{mean:.1f}",
        result.validity.word,
    )


def _rate(value: float | None) -> str:
    return NULL if value is None else rate(value)


def _climb(points: Sequence[tuple[int, float, float]], knee: int | None) -> Drawing:
    x = Scale(0.0, charts.from_zero(max(each for _, each, _ in points) * 1.1, 1).low, WIDTH)
    y = charts.from_zero(max(together for *_, together in points) * 1.08, HEIGHT)
    values = charts.ticks(0.0, y.low, 5)
    places = [(n, x(each), y(together)) for n, each, together in points]
    way = "L".join(f"{px:.2f},{py:.2f}" for _, px, py in places)
    marks, labels = [], []
    for n, px, py in places:
        if n == knee:
            marks.append(charts.point(px, py, charts.DIAMOND, fill=colour(1), stroke=colour(1),
                                      stroke_width=4))  # fmt: skip
        else:
            marks.append(charts.point(px, py, fill=colour(0)))
        labels.append(charts.text(px + 9, py - 6, f"{n}, knee" if n == knee else str(n)))
    figures = charts.reserved(said for _, said in values)
    left = charts.LEFT + 24 + figures
    title = ["each request, tok/s", "number: requests in flight"]
    return Drawing(
        left + WIDTH + 60,
        14 + HEIGHT + charts.BELOW,
        at(
            left,
            14,
            charts.x_axis(x, charts.ticks(0.0, x.high, 6), HEIGHT),
            charts.y_axis(y, values, WIDTH),
            _beside(figures, HEIGHT, "all together, tok/s"),
            group("line", [charts.element("path", d=f"M{way}", stroke=colour(0))]),
            *marks,
            group("label", labels),
            charts.text(WIDTH / 2, HEIGHT + 36, *title, style="quiet", text_anchor="middle"),
        ),
    )


def _beside(figures: float, height: float, words: str) -> str:
    """The words of an upright axis."""
    turned = f"translate({-16 - figures:.2f},{height / 2}) rotate(-90)"
    style = charts.STYLES["quiet"]
    return charts.element("text", words, transform=turned, **style, text_anchor="middle")


# What lasted

_PANELS = (
    ("tok_per_s", "system tok/s"),
    ("gpu_clock_mhz", "GPU clock, MHz"),
    ("cpu_clock_mhz", "CPU clock, MHz"),
    ("temperature_c", "temperature, °C"),
    ("power_w", "power, W"),
)


def sustained_chart(result: Result) -> Figure | None:
    """Rate, clocks, temperature and power over time, one below the other; what has no value for
    every point of it is left out."""
    if (found := result.sustained) is None:
        return None
    bounds = edges(found.seconds)
    series: dict[str, Sequence[float | None]] = {
        words: values
        for name, words in _PANELS
        if (values := getattr(found if name == "tok_per_s" else found.seen, name))
        and len(values) == len(bounds) - 1
    }
    if not series:
        return None
    unit, of = ("min", 60) if found.seconds >= 180 else ("s", 1)
    rates, why = naming.sustained_lines(found)
    return Figure(
        slug=f"sustained-{naming.address(result.workload.name)}-{result.concurrency}",
        title=f"{result.cell.label}, {duration(round(found.seconds, 1))}",
        text=f"{rates}; {why}.",
        drawing=_lasting(series, bounds, of, unit),
        columns=(f"from, {unit}", *series),
        rows=tuple(
            (f"{begin / of:.4g}", *(NULL if v is None else f"{v:,.5g}" for v in values))
            for begin, values in zip(bounds, zip(*series.values(), strict=True), strict=False)
        ),
    )


def _lasting(
    series: dict[str, Sequence[float | None]], bounds: Sequence[float], of: float, unit: str
) -> Drawing:
    """A panel a series over one axis of time, each from zero; what is not known is a gap."""
    x = Scale(0.0, bounds[-1] / of, WIDTH)
    middles = [x((a + b) / 2 / of) for a, b in pairwise(bounds)]
    times = charts.ticks(0.0, x.high, 8)
    scales = {
        name: charts.from_zero(max((v for v in values if v is not None), default=1.0), PANEL_HEIGHT)
        for name, values in series.items()
    }
    values_of = {name: charts.ticks(0.0, scale.low, 4) for name, scale in scales.items()}
    figures = charts.reserved(said for values in values_of.values() for _, said in values)
    panels = []
    for number, (name, values) in enumerate(series.items()):
        scale, last = scales[name], number == len(series) - 1
        ways: list[list[str]] = [[]]
        for place, value in zip(middles, values, strict=True):
            if value is None:
                ways.append([])
            else:
                ways[-1].append(f"{place:.2f},{scale(value):.2f}")
        drawn = [
            charts.element("path", d=f"M{'L'.join(way)}", stroke=colour(number % 6))
            for way in ways
            if len(way) > 1
        ]
        panels.append(
            at(
                0,
                number * PANEL_STEP,
                charts.text(0, -9, name, style="head"),
                charts.x_axis(x, times, PANEL_HEIGHT, labels=last),
                charts.y_axis(scale, values_of[name], WIDTH),
                group("line", drawn),
            )
        )
    bottom = (len(series) - 1) * PANEL_STEP + PANEL_HEIGHT
    words = f"time, {unit}"
    panels.append(charts.text(WIDTH / 2, bottom + 36, words, style="quiet", text_anchor="middle"))
    left = charts.LEFT + figures
    return Drawing(left + WIDTH + 20, 26 + bottom + charts.BELOW, at(left, 26, *panels))
