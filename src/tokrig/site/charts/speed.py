"""Charts of speed: by workload, by concurrency, by quant, by backend, by model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tokrig.query.load import Run
from tokrig.record import names
from tokrig.record.checks import headline
from tokrig.record.model import Model
from tokrig.site.charts import Figure, dots, lines
from tokrig.site.charts.labels import short, subject
from tokrig.site.charts.points import (
    DECODE,
    END_TO_END,
    NULL,
    SYSTEM,
    Point,
    Quantity,
    at_lowest_concurrency,
    best_first,
    columns,
    points,
    rows,
    said,
)

MAX_SERIES = 6


def decode_by_workload(runs: Sequence[Run]) -> Figure | None:
    """gen tok/s of each run in each workload, at the lowest concurrency."""
    return _by_workload("decode", "Decode speed by workload", runs, DECODE)


def end_to_end_by_workload(runs: Sequence[Run]) -> Figure | None:
    """Tokens over the whole time of a request, in each workload, at the lowest concurrency."""
    return _by_workload("end-to-end", "End-to-end speed by workload", runs, END_TO_END)


def _by_workload(slug: str, title: str, runs: Sequence[Run], quantity: Quantity) -> Figure | None:
    found = best_first(at_lowest_concurrency(points(runs, quantity)), quantity)
    return dots.figure(slug, _titled(title, found), found, quantity)


def models_on_rig(runs: Sequence[Run], workload: str = "chat") -> Figure | None:
    """gen tok/s of what ran on a rig, fastest first, in one workload."""
    of_shape = [point for point in points(runs, DECODE) if point.workload == workload]
    found = best_first(at_lowest_concurrency(of_shape), DECODE)
    title = _titled(f"Decode speed, {short(workload)}", found)
    return dots.figure(f"models-{names.address(workload)}", title, found, DECODE, mark="bar")


def same_silicon(runs: Sequence[Run]) -> Figure | None:
    """gen tok/s of one model and quant on one rig under two or more backends.

    Where several rigs or quants have that, the one with the most backends.
    """
    groups = by_backend(runs)
    if not groups:
        return None
    record = groups[0][0].record
    what = short(" · ".join(filter(None, (names.model_name(record.model), record.model.quant))))
    title = f"Backends on the same machine, {what}, {short(names.hardware_name(record.rig))}"
    found = best_first(at_lowest_concurrency(points(groups[0], DECODE)), DECODE)
    return dots.figure("backends", _titled(title, found), found, DECODE)


def by_backend(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs alike in rig, model, quant and mode under two or more backends, the most first."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in filter(_has_speed, runs):
        record = run.record
        key = (record.rig.id, names.model_name(record.model), record.model.quant or "")
        groups.setdefault((*key, record.mode.name), []).append(run)
    several = [group for group in groups.values() if _backends(group) > 1]
    return sorted(several, key=_backends, reverse=True)


def _backends(group: Sequence[Run]) -> int:
    return len({names.backend_name(run.record.backend) for run in group})


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
    drawn = [(panel, _series(p), p) for panel, of in panels.items() for p in of]
    heading, *others = columns(DECODE)
    return Figure(
        slug="concurrency",
        title="Speed by requests in flight",
        text=" ".join(notes),
        spec=lines.by_concurrency(drawn),
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
    """gen tok/s of one model's quants, fewest bits per weight first.

    Of the rigs and backends that ran two quants or more, the one with the most.
    """
    groups = by_quant(runs)
    if not groups:
        return None
    ordered = sorted(groups[0], key=lambda run: _bits(run.record.model))
    found = at_lowest_concurrency(points(ordered, DECODE))
    title = _titled("Decode speed by quant", found)
    facts = "; ".join(
        f"{short(p.run.record.model.quant or '')} {said(p, DECODE)}"
        for p in found[: lines.MAX_QUANTS * 4]
        if p.workload == found[0].workload
    )
    heading, *others = columns(DECODE)
    return Figure(
        slug="quants",
        title=title,
        text=f"{title}, {short(subject(ordered[0].record), 120)} and others. "
        f"{short(found[0].workload)}, from fewest to most bits per weight: {facts}.",
        spec=lines.by_quant(found),
        columns=(heading, "bits per weight", *others),
        rows=tuple(
            (first, _bits_text(p.run.record.model), *rest)
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
            place = (run.record.rig.id, names.backend_name(run.record.backend), mode.name)
            of_model = groups.setdefault((*place, names.model_name(model)), {})
            of_model.setdefault((model.quant, model.quant_creator or ""), run)
    several = [list(group.values()) for group in groups.values() if len(group) > 1]
    return sorted(several, key=len, reverse=True)


def _bits(model: Model) -> float:
    """Bits per weight; those not known come last."""
    return math.inf if model.bits_per_weight is None else model.bits_per_weight


def _bits_text(model: Model) -> str:
    return NULL if model.bits_per_weight is None else f"{model.bits_per_weight:.2f}"
