"""Speed by depth: how fast a run reads a context, and how fast it answers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from tokrig import naming
from tokrig.record.model import Record, Result
from tokrig.record.samples import tokens
from tokrig.site import charts
from tokrig.site.charts import Drawing, Figure, Scale, at, colour, group
from tokrig.site.charts.points import DECODE, PREFILL, TTFT, Quantity

WIDTH, HEIGHT, PITCH = 250, 150, 310
MOST_CURVES = len(charts.SHAPES)
# Where depth 0 stands: so many doublings before the first depth that has a logarithm.
BEFORE = 1.0


def speed_by_depth(record: Record) -> Figure | None:
    """Two panels over one axis of depths, prefill and decode; a line a workload and concurrency.
    Results that failed a check are told in the table and not drawn."""
    curves = naming.depth_curves(record)
    drawn = [
        curve
        for every in curves
        if len(curve := [one for one in every if one.validity.stands and _value(one, DECODE)]) > 1
    ][:MOST_CURVES]
    if not drawn:
        return None
    return Figure(
        slug="depth",
        title="Speed by depth",
        text=". ".join(map(naming.depth_line, drawn)) + ".",
        drawing=_drawing(drawn),
        columns=(
            "result",
            "depth, tokens",
            *(f"{quantity.name}, {quantity.unit}" for quantity in (PREFILL, DECODE, TTFT)),
            "validity",
        ),
        rows=tuple(
            (
                _name(curve[0]),
                f"{one.depth_tokens:,}",
                *(quantity.cell(_value(one, quantity)) for quantity in (PREFILL, DECODE, TTFT)),
                one.validity.word,
            )
            for curve in curves
            for one in curve
        ),
    )


def _name(result: Result) -> str:
    return f"{result.workload.name} × {result.concurrency}"


def _value(result: Result, quantity: Quantity) -> float | None:
    found = getattr(result, quantity.field)
    return found.median if found else None


def _drawing(curves: Sequence[Sequence[Result]]) -> Drawing:
    depths = sorted({one.depth_tokens for curve in curves for one in curve})
    places = _places(depths)
    x = Scale(min(places.values()), max(places.values()) or 1.0, WIDTH)
    values = [(places[depth], tokens(depth)) for depth in depths]
    panels = []
    for number, quantity in enumerate((PREFILL, DECODE)):
        highest = max(_value(one, quantity) or 0.0 for curve in curves for one in curve)
        y = charts.from_zero(highest, HEIGHT)
        panels.append(
            at(
                number * PITCH,
                0,
                charts.text(0, -10, f"{quantity.name}, {quantity.unit}", style="head"),
                charts.x_axis(x, values, HEIGHT),
                charts.y_axis(y, charts.ticks(0.0, y.low, 4), WIDTH),
                *(_line(curve, places, quantity, x, y, at) for at, curve in enumerate(curves)),
            )
        )
    whole = PITCH + WIDTH
    title = "tokens of context before the prompt, on a logarithmic scale"
    panels.append(charts.text(whole / 2, HEIGHT + 36, title, style="quiet", text_anchor="middle"))
    height = 26 + HEIGHT + charts.BELOW
    names = [_name(curve[0]) for curve in curves]
    keys = [at(46, height, *charts.legend(names, 0))] if len(names) > 1 else []
    rows = (len(names) + 1) // 2 if keys else 0
    return Drawing(46 + whole + 8, height + 22 * rows, at(46, 26, *panels) + "".join(keys))


def _places(depths: Sequence[int]) -> dict[int, float]:
    """Each depth on the axis: its logarithm, and depth 0 before the first of them."""
    first = min(filter(None, depths))
    return {depth: log2(depth) if depth else log2(first) - BEFORE for depth in depths}


def _line(
    curve: Sequence[Result],
    places: dict[int, float],
    quantity: Quantity,
    x: Scale,
    y: Scale,
    number: int,
) -> str:
    points = [
        (x(places[one.depth_tokens]), y(value))
        for one in curve
        if (value := _value(one, quantity)) is not None
    ]
    path = "L".join(f"{across:.2f},{down:.2f}" for across, down in points)
    marks = (charts.point(*point, charts.SHAPES[number]) for point in points)
    return group(
        "line", [charts.element("path", d=f"M{path}")] if points else [], stroke=colour(number)
    ) + charts.element("g", *marks, fill=colour(number))
