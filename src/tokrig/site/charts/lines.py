"""Lines of several runs over one axis: panels side by side or below each other, one legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2

from tokrig.record.samples import tokens
from tokrig.site import charts
from tokrig.site.charts import SHAPES, Drawing, Scale, at, colour, group, short

WIDTH, HEIGHT, MOST = 320, 190, len(SHAPES)
GAP = 52
MAX_NAME = 100
# Above this, marks of a linear axis would lie on each other.
MARKS_APART = 120
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What an axis tells. ``marks`` are named values that get a line of their own, and are to be
    told apart whatever the other values are; ``depth`` says that it has tokens of context, whose
    axis is logarithmic and has a place for none."""

    title: str
    logarithmic: bool = False
    depth: bool = False
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """Lines by the number of their run in the legend; ``joined`` says whether points are."""

    title: str
    x: Axis
    y: Axis
    lines: Mapping[int, Points]
    joined: bool = True


def drawing(panels: Sequence[Panel], names: Sequence[str]) -> Drawing | None:
    """Panels beside each other, two in a row, and the names of their lines. None without any."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        return None
    left, pitch = 62.0, WIDTH + 62.0 + GAP
    down = 26 + HEIGHT + charts.BELOW
    parts = [
        at(left + (n % 2) * pitch, 26 + (n // 2) * down, *_panel(panel))
        for n, panel in enumerate(drawn)
    ]
    rows = (len(drawn) + 1) // 2
    keys = [short(name, MAX_NAME) for name in names]
    below = rows * down
    for number, name in enumerate(keys):
        mark = charts.point(7, 7, SHAPES[number], fill=colour(number))
        parts.append(at(left, below + 22 * number, mark, charts.text(22, 11, name, style="label")))
    width = left + WIDTH + GAP + (pitch if len(drawn) > 1 else 0)
    width = max(width, left + 30 + charts.reserved(keys))
    return Drawing(width, below + 22 * len(keys) + 4, "".join(parts))


def _panel(panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    x, across = _axis(panel.x, [a for a, _ in points], WIDTH, most=6)
    y, values = _axis(panel.y, [b for _, b in points], HEIGHT, most=5, upright=True)
    places = depth_places([a for a, _ in points]) if panel.x.depth else None
    put = (lambda value: x(places[value])) if places else x
    parts = [
        charts.text(-40, -10, panel.title, style="head"),
        charts.x_axis(x, across, HEIGHT),
        charts.y_axis(y, values, WIDTH),
        *_marks(panel, x, y),
    ]
    for number, line in panel.lines.items():
        spots = [(put(a), y(b)) for a, b in line]
        way = "L".join(f"{px:.2f},{py:.2f}" for px, py in spots)
        if panel.joined and len(spots) > 1:
            path = [charts.element("path", d=f"M{way}")]
            parts.append(group("line", path, stroke=colour(number)))
        if len(spots) <= 40:
            marks = (charts.point(*spot, SHAPES[number]) for spot in spots)
            parts.append(charts.element("g", *marks, fill=colour(number)))
    middle = {"style": "quiet", "text_anchor": "middle"}
    parts.append(charts.text(WIDTH / 2, HEIGHT + 36, panel.x.title, **middle))
    return parts


def _marks(panel: Panel, x: Scale, y: Scale) -> list[str]:
    """The named values, each on its line; one outside the axis is left out."""
    parts = []
    for number, (name, value) in enumerate(panel.y.marks.items()):
        if 0 < (py := y(value)) < HEIGHT:
            # Two names on neighbouring lines stand at both ends.
            side, anchor = (4.0, "start") if number else (WIDTH - 2.0, "end")
            said = f"{name} {value:g}"
            parts.append(group("middle-line", [charts.line(0, py, WIDTH, py)]))
            parts.append(charts.text(side, py - 4, said, style="quiet", text_anchor=anchor))
    for number, (name, value) in enumerate(panel.x.marks.items()):
        if 0 < (px := x(value)) < WIDTH:
            parts.append(group("middle-line", [charts.line(px, 0, px, HEIGHT)]))
            down = 12 + number * charts.LINE_STEP
            parts.append(charts.text(px + 4, down, f"{name} {value:g}", style="quiet"))
    return parts


def _axis(
    axis: Axis, values: Sequence[float], length: float, *, most: int, upright: bool = False
) -> tuple[Scale, list[tuple[float, str]]]:
    """The scale over the values, and what stands beside it: from zero, or logarithmic."""
    if axis.depth:
        places = depth_places(values)
        said = [(place, tokens(int(deep))) for deep, place in places.items()]
        return Scale(min(places.values()), max(places.values()) or 1.0, length), said
    known = [value for value in values if value > 0]
    if known and (axis.logarithmic or (axis.marks and max(known) > MARKS_APART)):
        low = min([*known, *(value / 1.2 for value in axis.marks.values())]) / 1.3
        high = max(known) * 1.3
        ticks = charts.log_ticks(low, high, most)
        return _turned(Scale(low, high, length, logarithmic=True), upright), ticks
    scale = charts.from_zero(max(values) * 1.05, length)
    ticks = charts.ticks(0.0, scale.low, most)
    return (scale if upright else Scale(0.0, scale.low, length)), ticks


def _turned(scale: Scale, upright: bool) -> Scale:
    return Scale(scale.high, scale.low, scale.length, scale.logarithmic) if upright else scale


def depth_places(depths: Sequence[float]) -> dict[float, float]:
    """Each depth on its axis: its logarithm, and depth 0 one doubling before the first of them."""
    several = sorted(set(depths))
    first = next(filter(None, several), 1.0)
    return {deep: log2(deep) if deep else log2(first) - 1 for deep in several}
