"""Lines over an ordered axis: speed by requests in flight, speed by quant.

A series has a colour and a shape of its own, so that either tells it apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from tokrig.record.model import Model
from tokrig.site.charts.labels import short
from tokrig.site.charts.points import Point, spreads_key
from tokrig.site.charts.views import layered, repeated, single

MAX_QUANTS = 12
MAX_WORKLOADS = 6
PANEL_WIDTH, PANEL_HEIGHT = 210, 200
QUANT_STEP = 80


def by_concurrency(drawn: Sequence[tuple[str, str, Point]]) -> dict[str, Any]:
    """The specification for (panel, series, point): a panel of lines each."""
    panels = list(dict.fromkeys(panel for panel, _, _ in drawn))
    values = [
        {
            "panel": panel,
            "place": panels.index(panel),
            "series": series,
            "x": point.concurrency,
            **_speed(point),
        }
        for panel, series, point in drawn
    ]
    axis = alt.Axis(title=None, labelAngle=0)
    series = list(dict.fromkeys(name for _, name, _ in drawn))
    layers = _series_lines(alt.X("x:O", axis=axis), series)
    title = ["requests in flight", " · ".join(spreads_key(point for _, _, point in drawn))]
    header = alt.Header(title=title, titleOrient="bottom", labelAnchor="start")
    column = alt.Column("panel:N", sort=alt.EncodingSortField("place", op="min"), header=header)
    view = layered(layers, width=PANEL_WIDTH, height=PANEL_HEIGHT)
    return repeated(view, alt.FacetMapping(column=column), values, spacing=24)


def by_quant(found: Sequence[Point]) -> dict[str, Any]:
    """The specification for points in the order of their quants: a line a workload."""
    quants = list(dict.fromkeys(_quant_lines(p.run.record.model) for p in found))[:MAX_QUANTS]
    workloads = list(dict.fromkeys(p.workload for p in found))[:MAX_WORKLOADS]
    values = [
        {"series": short(p.workload), "x": _quant_lines(p.run.record.model), **_speed(p)}
        for p in found
        if _quant_lines(p.run.record.model) in quants and p.workload in workloads
    ]
    title = ["quant, bits per weight", " · ".join(spreads_key(found))]
    axis = alt.Axis(title=title, labelAngle=0, labelExpr="split(datum.label, '\\n')")
    x = alt.X("x:N", axis=axis, scale=alt.Scale(domain=quants))
    layers = _series_lines(x, [short(name) for name in workloads])
    return single(layered(layers, width=alt.Step(QUANT_STEP), height=PANEL_HEIGHT), values)


def _speed(point: Point) -> dict[str, Any]:
    shown = ("median", "low", "high", "spread")
    return {name: getattr(point, name) for name in shown}


def _quant_lines(model: Model) -> str:
    """The quant, its bits, its maker: a line each below its place on the axis."""
    bits = "" if model.bits_per_weight is None else f"{model.bits_per_weight:.2f}"
    parts = (short(model.quant or "", 12), bits, short(model.quant_creator or "", 12))
    return "\n".join(filter(None, parts))


def _series_lines(x: alt.X, series: Sequence[str]) -> list[alt.Chart]:
    """Medians joined by a line, with their interval or range as a bar through each."""
    legend = alt.Legend(title=None, orient="bottom", columns=2) if len(series) > 1 else None
    scale = alt.Scale(domain=series)
    base = alt.Chart().encode(x=x, color=alt.Color("series:N", scale=scale, legend=legend))
    y = alt.Y("median:Q", axis=alt.Axis(title="median, tok/s", tickCount=5))
    shape = alt.Shape("series:N", scale=scale, legend=legend)
    return [
        base.mark_line(strokeWidth=1.5).encode(y=y),
        *(
            base.transform_filter(f"datum.spread == '{spread}'")
            .mark_rule(style=style)
            .encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
            for spread, style in (("95 % interval", "interval"), ("range", "range"))
        ),
        base.mark_point(style="dot").encode(y=y, shape=shape),
    ]
