"""Charts of runs: speed and waiting by workload, by concurrency, by quant, by backend, by model.

Two drawings serve them all. *Dots* stand side by side: a row a run, a panel a workload, a dot or
a bar each; a thick line through the mark is a 95 % interval, a thin one with ends the range.
*Lines* run over an ordered axis; a series has a colour and a shape of its own, so that either
tells it apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from tokrig import naming
from tokrig.record.checks import headline
from tokrig.record.model import Model
from tokrig.record.samples import Sample
from tokrig.site.charts import Figure
from tokrig.site.charts.draw import IN_ORDER, Spec, category, layer, quantity, repeated, single
from tokrig.site.charts.points import (
    DECODE,
    END_TO_END,
    PREFILL,
    SYSTEM,
    TTFT,
    Point,
    Quantity,
    at_lowest_concurrency,
    best_first,
    columns,
    points,
    rows,
    said,
    short,
    spreads_key,
    subject,
)
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.site.formats import NULL
from tokrig.store.load import Run

MAX_ROWS = 10
MAX_PANELS = 6
MAX_SERIES = 6
MAX_QUANTS = 12
# Sizes are in points (1/72 inch). Beside the highest mark there is room for its value.
ROW_STEP, QUANT_STEP = 26, 80
VALUE_WIDTH = 58
WIDTH, MIN_WIDTH, GAP = 520, 125, 18
PANEL_WIDTH, PANEL_HEIGHT = 210, 200
# A label's width is reserved by its length: the reader's typeface is not known here.
CHARACTER = 6.8

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
    drawn += [concurrency_drop([run]), inter_chunk_times(samples), ttft_of_requests(samples)]
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
        spec=_lines_by_concurrency(panels),
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
        spec=_lines_by_quant(found),
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
        spec=_dots_spec(drawn, quantity, mark, one_run=len(runs) == 1),
        columns=columns(quantity),
        rows=rows(drawn, quantity),
    )


def _summary(title: str, found: Sequence[Point], quantity: Quantity) -> str:
    first = found[0].run.id
    if all(point.run.id == first for point in found):
        facts = ", ".join(f"{p.workload} {said(p, quantity)}" for p in found[:MAX_ROWS])
        return f"{title}. {short(subject(found[0].run.record), 120)}: {facts}."
    groups: dict[str, list[Point]] = {}
    for point in found:
        groups.setdefault(point.workload, []).append(point)
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


def _dots_spec(found: Sequence[Point], of: Quantity, mark: Mark, *, one_run: bool) -> Spec:
    workloads = list(dict.fromkeys(p.workload for p in found))
    values = [
        {
            "row": short(p.workload) if one_run else p.label.short,
            "panel": short(p.workload),
            "place": workloads.index(p.workload),
            **_speed(p),
            "text": of.label(p.median),
        }
        for p in found
    ]
    panels = 1 if one_run else len(workloads)
    width = max(MIN_WIDTH, (WIDTH - GAP * (panels - 1)) // panels)
    # The axis with its unit, and below it what the marks stand for.
    scale = ", logarithmic" if of.is_time else ""
    key = " · ".join([f"{mark}: median", *spreads_key(found)])
    title = [f"{of.name}, {of.unit}{scale}", key]
    labels = list(dict.fromkeys(str(value["row"]) for value in values))
    y_axis = {"title": None, "minExtent": CHARACTER * max(map(len, labels))}
    y = category("row", axis=y_axis, scale={"domain": labels})
    x = _x(found, of, width, title if panels == 1 else None)
    layers = _layers(x, y, mark, {p.spread for p in found})
    if panels == 1:
        return single(layers, values, width=width, height={"step": ROW_STEP})
    return repeated(layers, values, _panels(title), (width, {"step": ROW_STEP}), spacing=GAP)


def _panels(title: list[str]) -> Spec:
    """Panels side by side in their order, with a title below them all."""
    header = {"title": title, "titleOrient": "bottom", "labelAnchor": "start"}
    return {"column": category("panel", sort=IN_ORDER, header=header)}


def _speed(point: Point) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("median", "low", "high", "spread")}


def _layers(x: Spec, y: Spec, mark: Mark, spreads: Collection[str]) -> list[Spec]:
    """From back to front: the bar, how sure the figure is, its value, the dot."""
    over = "-over-bar" if mark == "bar" else ""
    low, high, until = {**x, "field": "low"}, {**x, "field": "high"}, {"field": "high"}
    drawn = []
    if "95 % interval" in spreads:
        style = {"style": f"interval{over}"}
        drawn.append(layer("rule", "datum.spread == '95 % interval'", style, y=y, x=low, x2=until))
    if "range" in spreads:
        here, ends = "datum.spread == 'range'", {"style": f"range-end{over}"}
        drawn += [
            layer("rule", here, {"style": f"range{over}"}, y=y, x=low, x2=until),
            layer("tick", here, ends, y=y, x=low),
            layer("tick", here, ends, y=y, x=high),
        ]
    drawn.append(layer("text", style={"style": "value"}, y=y, x=high, text=category("text")))
    if mark == "bar":
        return [layer("bar", style={"height": {"band": 0.6}}, y=y, x=x), *drawn]
    return [*drawn, layer("point", style={"style": "dot"}, y=y, x=x)]


def _x(found: Sequence[Point], of: Quantity, width: int, title: list[str] | None) -> Spec:
    """The axis, with room for the values: from zero, or logarithmic where times span decades."""
    highest = max(p.high for p in found)
    share = VALUE_WIDTH / width
    axis: Spec = {"title": title}
    if not of.is_time:
        scale: Spec = {"domain": [0.0, (highest or 1.0) / (1 - share)], "nice": False}
        return quantity("median", axis=axis | {"tickCount": max(3, width // 70)}, scale=scale)
    low, high = min(p.low for p in found) / 1.25, highest * 1.1
    top = high * (high / low) ** (share / (1 - share))
    scale = {"type": "log", "domain": [low, top], "nice": False}
    axis |= {"values": decades(low, high, most=width // 30), "format": "~g"}
    return quantity("median", axis=axis, scale=scale)


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


# Lines


def _lines_by_concurrency(panels: dict[str, list[Point]]) -> Spec:
    values = [
        {"panel": panel, "place": place, "series": _series(p), "x": p.concurrency, **_speed(p)}
        for place, (panel, found) in enumerate(panels.items())
        for p in found
    ]
    drawn = [p for found in panels.values() for p in found]
    x = {"field": "x", "type": "ordinal", "axis": {"title": None, "labelAngle": 0}}
    layers = _series_lines(x, list(dict.fromkeys(map(_series, drawn))))
    title = ["requests in flight", " · ".join(spreads_key(drawn))]
    return repeated(layers, values, _panels(title), (PANEL_WIDTH, PANEL_HEIGHT), spacing=24)


def _lines_by_quant(found: Sequence[Point]) -> Spec:
    """Points in the order of their quants: a line a workload."""
    quants = list(dict.fromkeys(_quant_lines(p.run.record.model) for p in found))[:MAX_QUANTS]
    workloads = list(dict.fromkeys(p.workload for p in found))[:MAX_SERIES]
    values = [
        {"series": short(p.workload), "x": _quant_lines(p.run.record.model), **_speed(p)}
        for p in found
        if _quant_lines(p.run.record.model) in quants and p.workload in workloads
    ]
    title = ["quant, bits per weight", " · ".join(spreads_key(found))]
    axis = {"title": title, "labelAngle": 0, "labelExpr": "split(datum.label, '\\n')"}
    layers = _series_lines(
        category("x", axis=axis, scale={"domain": quants}), [short(name) for name in workloads]
    )
    return single(layers, values, width={"step": QUANT_STEP}, height=PANEL_HEIGHT)


def _quant_lines(model: Model) -> str:
    """The quant, its bits, its maker: a line each below its place on the axis."""
    parts = (short(model.quant or "", 12), _bits(model), short(model.quant_creator or "", 12))
    return "\n".join(filter(None, parts))


def _series_lines(x: Spec, series: Sequence[str]) -> list[Spec]:
    """Medians joined by a line, with their interval or range as a bar through each."""
    legend = {"title": None, "orient": "bottom", "columns": 2} if len(series) > 1 else None
    shape = category("series", scale={"domain": series}, legend=legend)
    base = {"x": x, "color": shape}
    y = quantity("median", axis={"title": "median, tok/s", "tickCount": 5})
    low, high = quantity("low"), {"field": "high"}
    return [
        layer("line", style={"strokeWidth": 1.5}, **base, y=y),
        *(
            layer("rule", f"datum.spread == '{spread}'", {"style": style}, **base, y=low, y2=high)
            for spread, style in (("95 % interval", "interval"), ("range", "range"))
        ),
        layer("point", style={"style": "dot"}, **base, y=y, shape=shape),
    ]
