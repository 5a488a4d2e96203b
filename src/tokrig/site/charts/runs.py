"""Charts of runs: speed and waiting by workload, by concurrency, by quant, by backend, by model.

Two drawings serve them all. *Dots* stand side by side: a row a run, a panel a workload, a dot or
a bar each; a thick line through the mark is a 95 % interval, a thin one with ends the range.
*Lines* run over an ordered axis; a series has a colour and a shape of its own, so that either
tells it apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from tokrig import naming
from tokrig.record.checks import headline
from tokrig.record.model import Model
from tokrig.record.samples import Sample
from tokrig.site import charts
from tokrig.site.charts import Drawing, Figure, Scale, at, colour, group, reserved, short
from tokrig.site.charts.arrivals import by_rate, over_time
from tokrig.site.charts.load import ladder_chart, sustained_chart
from tokrig.site.charts.points import (
    DECODE,
    END_TO_END,
    PREFILL,
    SYSTEM,
    TTFT,
    Point,
    Quantity,
    Spread,
    at_lowest_concurrency,
    best_first,
    columns,
    points,
    rows,
    said,
    spreads_key,
    subject,
)
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.site.charts.sessions import by_turn
from tokrig.site.formats import NULL
from tokrig.store.load import Run

MAX_ROWS = 10
MAX_PANELS = 6
MAX_SERIES = len(charts.SHAPES)
MAX_QUANTS = 12
LEGEND_LABEL = 48
# Sizes are in points. Beside the highest mark there is room for its value.
ROW_STEP, QUANT_STEP = 26, 80
VALUE_WIDTH = 58
WIDTH, MIN_WIDTH, GAP = 520, 125, 18
PANEL_WIDTH, PANEL_HEIGHT = 210, 200

Mark = Literal["dot", "bar"]


def by_workload(runs: Sequence[Run], slug: str) -> Figure | None:
    """One quantity of each run in each workload, at the lowest concurrency: ``slug`` names a
    chart of ``BY_WORKLOAD``."""
    title, quantity = BY_WORKLOAD[slug]
    found = best_first(at_lowest_concurrency(points(runs, quantity)), quantity)
    return _dots(slug, _titled(title, found), found, quantity)


BY_WORKLOAD = {
    "decode": ("Decode speed by workload", DECODE),
    "ttft": ("Time to first token by workload", TTFT),
    "prefill": ("Prefill speed by workload", PREFILL),
    "end-to-end": ("End-to-end speed by workload", END_TO_END),
}


def of_record(run: Run, samples: Sequence[Sample]) -> dict[str, Figure]:
    """The charts that one record and its samples have, by slug, the most telling first."""
    drawn = [by_workload([run], slug) for slug in BY_WORKLOAD]
    drawn += [ladder_chart(run.record, one) for one in run.record.ladders]
    drawn += [sustained_chart(result) for result in run.record.results]
    drawn += [by_turn(run.record.results), concurrency_drop([run])]
    drawn += [*by_rate(run.record.results), over_time(samples)]
    drawn += [inter_chunk_times(samples), ttft_of_requests(samples)]
    return {figure.slug: figure for figure in drawn if figure is not None}


def models_on_rig(runs: Sequence[Run], workload: str = "chat") -> Figure | None:
    """gen tok/s of what ran on a rig, fastest first, in one workload."""
    of_shape = [point for point in points(runs, DECODE) if point.workload == workload]
    found = best_first(at_lowest_concurrency(of_shape), DECODE)
    title = _titled(f"Decode speed, {short(workload)}", found)
    return _dots(f"models-{naming.address(workload)}", title, found, DECODE, mark="bar")


def same_silicon(runs: Sequence[Run]) -> Figure | None:
    """gen tok/s of one model and quant on one rig under two or more backends: of several such
    groups the one with the most backends."""
    groups = by_backend(runs)
    if not groups:
        return None
    record = groups[0][0].record
    what = short(" · ".join(filter(None, (naming.model_name(record.model), record.model.quant))))
    title = f"Backends on the same machine, {what}, {short(naming.hardware_name(record.rig))}"
    found = best_first(at_lowest_concurrency(points(groups[0], DECODE)), DECODE)
    return _dots("backends", _titled(title, found), found, DECODE)


def by_backend(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs alike in rig, model, quant and mode under two or more backends, the most first."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in filter(_has_speed, runs):
        record = run.record
        key = (record.rig.id, naming.model_name(record.model), record.model.quant or "")
        groups.setdefault((*key, record.mode.name), []).append(run)
    several = [group for group in groups.values() if _backends(group) > 1]
    return sorted(several, key=_backends, reverse=True)


def _backends(group: Sequence[Run]) -> int:
    return len({naming.backend_name(run.record.backend) for run in group})


def _has_speed(run: Run) -> bool:
    return any(result.output_tok_per_s is not None for result in headline(run.record))


def _titled(title: str, found: Sequence[Point]) -> str:
    return f"{title}, concurrency {found[0].concurrency}" if found else title


def concurrency_drop(runs: Sequence[Run]) -> Figure | None:
    """gen tok/s of each request and tok/s of all together, over the requests in flight."""
    found = _at_several(points(runs, DECODE))
    if not found:
        return None
    panels = {"each request": found, "all together": _at_several(points(runs, SYSTEM))}
    series = list(dict.fromkeys(map(_series, found)))
    shown = series[:MAX_SERIES]
    notes = [f"Decode speed of each request: {'; '.join(_drop(name, found) for name in shown)}."]
    if len(series) > MAX_SERIES:
        notes.append(f"Drawn are {MAX_SERIES} of {len(series)} lines.")
    panels = {name: [p for p in of if _series(p) in shown] for name, of in panels.items()}
    heading, *others = columns(DECODE)
    return Figure(
        slug="concurrency",
        title="Speed by requests in flight",
        text=" ".join(notes),
        drawing=_lines_by_concurrency(panels),
        columns=(heading, "speed of", *others),
        rows=tuple(
            (first, panel, *rest)
            for panel, of in panels.items()
            for first, *rest in rows(of, DECODE)
        ),
    )


def _at_several(found: Sequence[Point]) -> list[Point]:
    """Points of the runs and workloads that were measured at more than one concurrency."""
    seen: dict[tuple[str, str], set[int]] = {}
    for point in found:
        seen.setdefault((point.run.id, point.workload), set()).add(point.concurrency)
    return [p for p in found if len(seen[p.run.id, p.workload]) > 1]


def _series(point: Point) -> str:
    return f"{short(point.workload)} · {point.label.short}"


def _drop(series: str, found: Sequence[Point]) -> str:
    steps = sorted((p for p in found if _series(p) == series), key=lambda p: p.concurrency)
    first, last = steps[0], steps[-1]
    return (
        f"{series}: {said(first, DECODE)} at {first.concurrency} in flight, "
        f"{said(last, DECODE)} at {last.concurrency}"
    )


def quant_sweep(runs: Sequence[Run]) -> Figure | None:
    """gen tok/s of one model's quants, fewest bits per weight first: of the rigs and backends
    that ran two quants or more, the one with the most."""
    groups = by_quant(runs)
    if not groups:
        return None
    ordered = sorted(groups[0], key=lambda run: run.record.model.bits_per_weight or math.inf)
    found = at_lowest_concurrency(points(ordered, DECODE))
    title = _titled("Decode speed by quant", found)
    facts = "; ".join(
        f"{short(p.run.record.model.quant or '')} {said(p, DECODE)}"
        for p in found[: MAX_QUANTS * 4]
        if p.workload == found[0].workload
    )
    heading, *others = columns(DECODE)
    return Figure(
        slug="quants",
        title=title,
        text=f"{title}, {short(subject(ordered[0].record), 120)} and others. "
        f"{short(found[0].workload)}, from fewest to most bits per weight: {facts}.",
        drawing=_lines_by_quant(found),
        columns=(heading, "bits per weight", *others),
        rows=tuple(
            (first, _bits(p.run.record.model) or NULL, *rest)
            for p, (first, *rest) in zip(found, rows(found, DECODE), strict=True)
        ),
    )


def by_quant(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs alike in all but the quant, of two quants or more, the most first; of each quant, the
    run that comes first in ``runs``."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], Run]] = {}
    for run in filter(_has_speed, runs):
        model, mode = run.record.model, run.record.mode
        if model.quant:
            place = (run.record.rig.id, naming.backend_name(run.record.backend), mode.name)
            of_model = groups.setdefault((*place, naming.model_name(model)), {})
            of_model.setdefault((model.quant, model.quant_creator or ""), run)
    several = [list(group.values()) for group in groups.values() if len(group) > 1]
    return sorted(several, key=len, reverse=True)


def _bits(model: Model) -> str:
    return "" if model.bits_per_weight is None else f"{model.bits_per_weight:.2f}"


# Dots


def _dots(
    slug: str, title: str, found: Sequence[Point], quantity: Quantity, mark: Mark = "dot"
) -> Figure | None:
    """The chart of ``found``, whose order is that of the rows; None without points. Many runs are
    a row each and a panel a workload; one run is a row a workload."""
    if not found:
        return None
    runs = list(dict.fromkeys(point.run.id for point in found))
    workloads = _workloads(found)
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
        drawing=_dots_drawing(drawn, quantity, mark, one_run=len(runs) == 1),
        columns=columns(quantity),
        rows=rows(drawn, quantity),
    )


def _workloads(found: Iterable[Point]) -> list[str]:
    return sorted({point.workload for point in found}, key=naming.shape_order)


def _summary(title: str, found: Sequence[Point], quantity: Quantity) -> str:
    first = found[0].run.id
    if all(point.run.id == first for point in found):
        facts = ", ".join(f"{p.workload} {said(p, quantity)}" for p in found[:MAX_ROWS])
        return f"{title}. {short(subject(found[0].run.record), 120)}: {facts}."
    groups: dict[str, list[Point]] = {name: [] for name in _workloads(found)}
    for point in found:
        groups[point.workload].append(point)
    facts = "; ".join(
        f"{short(name)}: {_extremes(group, quantity)}"
        for name, group in list(groups.items())[:MAX_PANELS]
    )
    return f"{title}. {facts}."


def _extremes(group: Sequence[Point], quantity: Quantity) -> str:
    lowest, highest = (pick(group, key=lambda p: p.median) for pick in (min, max))
    best, worst = (lowest, highest) if quantity.is_time else (highest, lowest)
    told = f"{best.label.short} {said(best, quantity)}"
    if worst.run.id == best.run.id:
        return told
    return f"from {told} to {worst.label.short} {said(worst, quantity)}"


def _dots_drawing(found: Sequence[Point], of: Quantity, mark: Mark, *, one_run: bool) -> Drawing:
    row_of: Callable[[Point], str] = (
        (lambda p: short(p.workload)) if one_run else (lambda p: p.label.short)
    )
    labels = list(dict.fromkeys(map(row_of, found)))
    middle = {label: ROW_STEP * (row + 0.5) for row, label in enumerate(labels)}
    names = [""] if one_run else map(short, _workloads(found))
    panels: dict[str, list[Point]] = {name: [] for name in names}
    for p in found:
        panels["" if one_run else short(p.workload)].append(p)
    several = len(panels) > 1
    width = max(MIN_WIDTH, (WIDTH - GAP * (len(panels) - 1)) // len(panels))
    height = ROW_STEP * len(labels)
    scale, values = _x(found, of, width)
    drawn = [
        at(
            place * (width + GAP),
            0,
            charts.text(0, -11, name, style="head") if several else "",
            charts.x_axis(scale, values, height),
            _row_marks([(p, middle[row_of(p)]) for p in of_panel], of, scale, mark),
        )
        for place, (name, of_panel) in enumerate(panels.items())
    ]
    rows = [charts.text(-6, y + 4, label) for label, y in middle.items()]
    whole = len(panels) * (width + GAP) - GAP
    # The axis with its unit, and below it what the marks stand for.
    title = f"{of.name}, {of.unit}{', logarithmic' if of.is_time else ''}"
    key = " · ".join([f"{mark}: median", *spreads_key(found)])
    left, top = charts.LEFT + reserved(labels), charts.HEAD if several else 4
    return Drawing(
        left + whole + 8,
        top + height + charts.BELOW,
        at(
            left,
            top,
            group("label", rows, text_anchor="end"),
            *drawn,
            charts.text(whole / 2, height + 36, title, key, style="quiet", text_anchor="middle"),
        ),
    )


def _row_marks(
    placed: Sequence[tuple[Point, float]], of: Quantity, scale: Scale, mark: Mark
) -> str:
    """From back to front: the bar, how sure the figure is, its value, the dot."""
    bars, dots, values = [], [], []
    lines: dict[Spread, list[str]] = {"95 % interval": [], "range": [], "": []}
    for p, y in placed:
        low, middle, high = map(scale, (p.low, p.median, p.high))
        if mark == "bar":
            bars.append(charts.element("rect", y=y - 7, width=middle, height=14))
        else:
            dots.append(charts.point(middle, y))
        lines[p.spread].append(charts.line(low, y, high, y))
        if p.spread == "range":
            lines["range"] += (charts.line(x, y - 3.5, x, y + 3.5) for x in (low, high))
        values.append(charts.text(high + 8, y + 4, of.label(p.median)))
    over, paint = ("-over-bar", colour("ink")) if mark == "bar" else ("", colour(0))
    return "".join(
        [
            charts.element("g", *bars, fill=colour(0)) if bars else "",
            group(f"interval{over}", lines["95 % interval"], stroke=paint),
            group("range", lines["range"], stroke=paint),
            group("label", values),
            charts.element("g", *dots, fill=colour(0)) if dots else "",
        ]
    )


def _x(
    found: Sequence[Point], of: Quantity, width: int
) -> tuple[Scale, Sequence[tuple[float, str]]]:
    """The scale, with room for the values: from zero, or logarithmic where times span decades;
    and the values at its axis."""
    highest = max(p.high for p in found)
    share = VALUE_WIDTH / width
    if not of.is_time:
        top = (highest or 1.0) / (1 - share)
        scale, values = Scale(0.0, top, width), charts.ticks(0.0, top, max(3, width // 70))
        # The last one touches none of the panel beside.
        return scale, [
            one for one in values if scale(one[0]) + reserved(one[1:]) / 2 < width + GAP / 2
        ]
    low, high = min(p.low for p in found) / 1.25, highest * 1.1
    top = high * (high / low) ** (share / (1 - share))
    values = charts.log_ticks(low, high, most=width // 30)
    return Scale(low, top, width, logarithmic=True), values


# Lines


def _lines_by_concurrency(panels: dict[str, list[Point]]) -> Drawing:
    drawn = [p for found in panels.values() for p in found]
    series = list(dict.fromkeys(map(_series, drawn)))
    levels = [str(one) for one in sorted({p.concurrency for p in drawn})]
    return _lines(
        {
            name: [(_series(p), str(p.concurrency), p) for p in found]
            for name, found in panels.items()
        },
        series,
        levels,
        PANEL_WIDTH / len(levels),
        ["requests in flight", " · ".join(spreads_key(drawn))],
    )


def _lines_by_quant(found: Sequence[Point]) -> Drawing:
    """Points in the order of their quants: a line a workload."""
    quants = list(dict.fromkeys(_quant_lines(p.run.record.model) for p in found))[:MAX_QUANTS]
    workloads = _workloads(found)[:MAX_SERIES]
    placed = [(p.workload, _quant_lines(p.run.record.model), p) for p in found]
    return _lines(
        {"": [one for one in placed if one[0] in workloads and one[1] in quants]},
        workloads,
        quants,
        QUANT_STEP,
        ["quant, bits per weight", " · ".join(spreads_key(found))],
    )


def _quant_lines(model: Model) -> str:
    """The quant, its bits, its maker: a line each below its place on the axis."""
    parts = (short(model.quant or "", 12), _bits(model), short(model.quant_creator or "", 12))
    return "\n".join(filter(None, parts))


def _lines(
    panels: dict[str, list[tuple[str, str, Point]]],
    series: Sequence[str],
    places: Sequence[str],
    step: float,
    title: Sequence[str],
) -> Drawing:
    """``panels`` are points by name of the panel, each with its series and its place on the
    axis: medians joined by lines, their interval or range as a bar through each."""
    width, height = step * len(places), PANEL_HEIGHT
    scale = charts.from_zero(max(p.high for of in panels.values() for *_, p in of), height)
    values = charts.ticks(0.0, scale.low, 5)
    middle = {place: step * (number + 0.5) for number, place in enumerate(places)}
    heads = [[*place.split("\n")] for place in places]
    below = height + 15.5 + charts.LINE_STEP * (max(map(len, heads)) - 1)
    figures = charts.reserved(text for _, text in values)
    parts = []
    for number, (name, of_panel) in enumerate(panels.items()):
        labels = [
            charts.text(x, height + 15.5, *head)
            for x, head in zip(middle.values(), heads, strict=True)
        ]
        parts.append(
            at(
                number * (width + 24),
                0,
                charts.text(0, -11, name, style="head"),
                charts.y_axis(scale, values, width, labels=number == 0),
                group("label", labels, text_anchor="middle"),
                *_line_marks(of_panel, series, middle, scale),
            )
        )
    whole = len(panels) * (width + 24) - 24
    left, top = charts.LEFT + 24 + figures, charts.HEAD if len(panels) > 1 else 10
    down = f"translate({-16 - figures:.2f},{height / 2}) rotate(-90)"
    parts += [
        charts.element(
            "text", "median, tok/s", transform=down, **charts.STYLES["quiet"], text_anchor="middle"
        ),
        charts.text(
            whole / 2, below + 21, *filter(None, title), style="quiet", text_anchor="middle"
        ),
    ]
    names = [short(name, LEGEND_LABEL) for name in series] if len(series) > 1 else []
    if names:
        parts += charts.legend(names, below + 48)
    return Drawing(
        left + max(whole, 2 * (38 + charts.reserved(names)) if names else 0) + 8,
        top + below + 44 + 22 * math.ceil(len(names) / 2),
        at(left, top, *parts),
    )


def _line_marks(
    placed: Sequence[tuple[str, str, Point]],
    series: Sequence[str],
    middle: dict[str, float],
    scale: Scale,
) -> list[str]:
    """From back to front: the lines, how sure the figures are, the points."""
    lines, dots = [], []
    sure: dict[str, list[str]] = {"interval": [], "range": []}
    for number, name in enumerate(series):
        of = [(middle[place], p) for one, place, p in placed if one == name]
        way = "L".join(f"{x:g},{scale(p.median):.2f}" for x, p in of)
        lines.append(charts.element("path", d=f"M{way}", stroke=colour(number)) if of else "")
        for x, p in of:
            dots.append(
                charts.point(x, scale(p.median), charts.SHAPES[number], fill=colour(number))
            )
            if p.spread:
                style = "range" if p.spread == "range" else "interval"
                sure[style].append(
                    charts.line(x, scale(p.low), x, scale(p.high), stroke=colour(number))
                )
    return [group("line", lines), *(group(style, of) for style, of in sure.items()), *dots]
