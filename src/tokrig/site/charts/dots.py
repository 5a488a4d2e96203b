"""Figures of runs side by side: a row a run, a panel a workload, a dot or a bar each.

A thick line through the mark is a 95 % interval, a thin one with ends the range; a mark alone
has neither. The axis says which of them occur.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import altair as alt

from tokrig.site.charts import Figure
from tokrig.site.charts.labels import short, subject
from tokrig.site.charts.points import Point, Quantity, columns, rows, said, spreads_key
from tokrig.site.charts.views import layered, repeated, single

MAX_ROWS = 10
MAX_PANELS = 6
ROW_STEP = 26
# Beside the highest mark, room for its value: points (1/72 inch, as all sizes here).
VALUE_WIDTH = 58
WIDTH, MIN_WIDTH = 520, 125
GAP = 18
# A label's width is reserved by its length: the reader's typeface is not known here.
CHARACTER = 6.8

Mark = Literal["dot", "bar"]


def figure(
    slug: str, title: str, found: Sequence[Point], quantity: Quantity, mark: Mark = "dot"
) -> Figure | None:
    """The chart of ``found``, whose order is that of the rows; None without points.

    Many runs are a row each and a panel a workload; one run is a row a workload.
    """
    if not found:
        return None
    runs = list(dict.fromkeys(point.run.id for point in found))
    workloads = list(dict.fromkeys(point.workload for point in found))
    shown_runs, shown_workloads = set(runs[:MAX_ROWS]), set(workloads[:MAX_PANELS])
    drawn = [p for p in found if p.run.id in shown_runs and p.workload in shown_workloads]
    notes = []
    if len(runs) > MAX_ROWS:
        notes.append(f"Drawn are the first {MAX_ROWS} of {len(runs)} runs.")
    if len(workloads) > MAX_PANELS:
        notes.append(f"Drawn are {MAX_PANELS} of {len(workloads)} workloads.")
    return Figure(
        slug=slug,
        title=title,
        text=" ".join([_summary(title, found, quantity), *notes]),
        spec=_spec(drawn, quantity, mark, one_run=len(runs) == 1),
        columns=columns(quantity),
        rows=rows(drawn, quantity),
    )


def _summary(title: str, found: Sequence[Point], quantity: Quantity) -> str:
    first = found[0].run.id
    if all(point.run.id == first for point in found):
        facts = ", ".join(f"{p.workload} {said(p, quantity)}" for p in found[:MAX_ROWS])
        return f"{title}. {short(subject(found[0].run.record), 120)}: {facts}."
    by_workload: dict[str, list[Point]] = {}
    for point in found:
        by_workload.setdefault(point.workload, []).append(point)
    facts = "; ".join(
        f"{short(name)}: {_extremes(group, quantity)}"
        for name, group in list(by_workload.items())[:MAX_PANELS]
    )
    return f"{title}. {facts}."


def _extremes(group: Sequence[Point], quantity: Quantity) -> str:
    best, worst = sorted(
        (min(group, key=lambda p: p.median), max(group, key=lambda p: p.median)),
        key=lambda p: p.median,
        reverse=not quantity.less_is_better,
    )
    told = f"{best.label.short} {said(best, quantity)}"
    if worst.run.id == best.run.id:
        return told
    return f"from {told} to {worst.label.short} {said(worst, quantity)}"


def _spec(
    found: Sequence[Point], quantity: Quantity, mark: Mark, *, one_run: bool
) -> dict[str, Any]:
    workloads = list(dict.fromkeys(p.workload for p in found))
    values = [
        {
            "row": short(p.workload) if one_run else p.label.short,
            "panel": short(p.workload),
            "place": workloads.index(p.workload),
            "median": p.median,
            "low": p.low,
            "high": p.high,
            "spread": p.spread,
            "text": quantity.label(p.median),
        }
        for p in found
    ]
    panels = 1 if one_run else len(workloads)
    width = max(MIN_WIDTH, (WIDTH - GAP * (panels - 1)) // panels)
    title = _axis_title(found, quantity, mark)
    x = _x(found, quantity, width, title if panels == 1 else None)
    y = _y(list(dict.fromkeys(str(value["row"]) for value in values)))
    layers = _layers(x, y, mark, {p.spread for p in found})
    view = layered(layers, width=width, height=alt.Step(ROW_STEP))
    if panels == 1:
        return single(view, values)
    header = alt.Header(title=title, titleOrient="bottom", labelAnchor="start")
    column = alt.Column("panel:N", sort=alt.EncodingSortField("place", op="min"), header=header)
    return repeated(view, alt.FacetMapping(column=column), values, spacing=GAP)


def _layers(x: alt.X, y: alt.Y, mark: Mark, spreads: Collection[str]) -> list[alt.Chart]:
    """From back to front: the bar, how sure the figure is, its value, the dot."""
    base = alt.Chart().encode(y=y)
    over = "-over-bar" if mark == "bar" else ""
    low, high, until = _on(x, "low"), _on(x, "high"), alt.X2("high:Q")
    drawn = []
    if "95 % interval" in spreads:
        interval = base.transform_filter("datum.spread == '95 % interval'")
        drawn.append(interval.mark_rule(style=f"interval{over}").encode(x=low, x2=until))
    if "range" in spreads:
        ranges = base.transform_filter("datum.spread == 'range'")
        drawn += [
            ranges.mark_rule(style=f"range{over}").encode(x=low, x2=until),
            ranges.mark_tick(style=f"range-end{over}").encode(x=low),
            ranges.mark_tick(style=f"range-end{over}").encode(x=high),
        ]
    drawn.append(base.mark_text(style="value").encode(x=high, text=alt.Text("text:N")))
    if mark == "bar":
        return [base.mark_bar(height={"band": 0.6}).encode(x=x), *drawn]
    return [*drawn, base.mark_point(style="dot").encode(x=x)]


def _on(x: alt.X, field: str) -> alt.X:
    """The same axis for another field."""
    other: alt.X = x.copy(deep=False)
    other.shorthand = f"{field}:Q"
    return other


def _y(labels: Sequence[str]) -> alt.Y:
    """The rows in the order given."""
    axis = alt.Axis(title=None, minExtent=CHARACTER * max(map(len, labels)))
    return alt.Y("row:N", axis=axis, scale=alt.Scale(domain=labels))


def _x(found: Sequence[Point], quantity: Quantity, width: int, title: list[str] | None) -> alt.X:
    """The axis, with room for the values: from zero, or logarithmic where times span decades."""
    highest = max(p.high for p in found)
    share = VALUE_WIDTH / width
    if not quantity.logarithmic:
        domain = [0.0, (highest or 1.0) / (1 - share)]
        axis = alt.Axis(title=title, tickCount=max(3, width // 70))
        return alt.X("median:Q", axis=axis, scale=alt.Scale(domain=domain, nice=False))
    low, high = min(p.low for p in found) / 1.25, highest * 1.1
    top = high * (high / low) ** (share / (1 - share))
    ticks = decades(low, high, most=width // 30)
    scale = alt.Scale(type="log", domain=[low, top], nice=False)
    return alt.X("median:Q", axis=alt.Axis(title=title, values=ticks, format="~g"), scale=scale)


def decades(low: float, high: float, most: int) -> list[float]:
    """Round values between ``low`` and ``high`` for a logarithmic axis: 1, 2, 5 of each power of
    ten, 1 alone where those would be more than ``most``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{step}e{power}") for power in powers for step in steps]
        within = [value for value in values if low <= value <= high]
        if len(within) <= most:
            return within
    return within[:: math.ceil(len(within) / most)]


def _axis_title(found: Sequence[Point], quantity: Quantity, mark: Mark) -> list[str]:
    """The axis with its unit, and below it what the marks stand for."""
    key = [f"{mark}: median", *spreads_key(found)]
    scale = ", logarithmic" if quantity.logarithmic else ""
    return [f"{quantity.name}, {quantity.unit}{scale}", " · ".join(key)]
