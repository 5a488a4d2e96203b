"""Charts: figures of records drawn as SVG and PNG, with words and a table beside them.

A function of ``runs`` or ``samples`` takes records or samples and returns a ``Figure``, or None
where there is nothing to draw. A drawing is text, put together by the functions below in points
(1/72 inch); its colours are variables of the style sheet until a file of its own is made of it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

FONT = "system-ui, sans-serif"
FONT_SIZE = 12
MAX_PART, MAX_TITLE, MAX_SUBTITLE = 28, 90, 110
# A text's width is reserved by its length: the reader's typeface is not known here.
CHARACTER, TITLE_CHARACTER = 6.8, 8.6
LINE_STEP = 14
# What an axis takes: below a drawing for values and two lines of title, left of it for values.
BELOW, LEFT = 59, 22
# Above panels, for their heads.
HEAD = 25

_PAINT = re.compile(r'(?<==")var\((--chart-\w+)\)(?=")')


@dataclass(frozen=True)
class Drawing:
    """The parts of an SVG, and how much room they take."""

    width: float
    height: float
    parts: str


@dataclass(frozen=True)
class Figure:
    """One chart.

    ``slug`` is unique on its page. ``text`` tells in a sentence or two what can be seen, for
    those who cannot see it. ``columns`` and ``rows`` are the drawn data as a table of texts,
    numbers formatted, units in the column names.
    """

    slug: str
    title: str
    text: str
    drawing: Drawing
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Palette:
    """Colours as #rrggbb. ``series`` tell lines and points apart, with and without colour
    vision, and stand out 3 : 1 from ``paper``; shapes and labels say the same again."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, str, str, str, str, str]

    def variables(self) -> dict[str, str]:
        """The style sheet's variables: ``--chart-ink`` and so on."""
        named = {"ink": self.ink, "muted": self.muted, "grid": self.grid}
        numbered = {str(i): colour for i, colour in enumerate(self.series, start=1)}
        return {f"--chart-{name}": colour for name, colour in (named | numbered).items()}


LIGHT = Palette(
    paper="#ffffff",
    ink="#1c2128",
    muted="#5b6470",
    grid="#e4e7eb",
    series=("#2477cc", "#d9620f", "#0a5a4a", "#8426a8", "#5f4a00", "#cf5f86"),
)
DARK = Palette(
    paper="#14171c",
    ink="#e7eaee",
    muted="#9ba4b0",
    grid="#2c323a",
    series=("#7db4f5", "#e08a3c", "#5fe0b0", "#b45ae6", "#f2dd5e", "#e0527f"),
)


def plain(text: str) -> str:
    """``text`` on one line, without control, direction and other characters that draw nothing
    or that XML cannot hold."""
    if text.isprintable():
        return " ".join(text.split())
    visible = (c if unicodedata.category(c)[0] != "C" else " " * c.isspace() for c in text)
    return " ".join("".join(visible).split())


def short(text: str, length: int = MAX_PART) -> str:
    """``plain`` text of at most ``length`` characters, an ellipsis in its middle: names differ at
    their ends."""
    one_line = plain(text)
    if len(one_line) <= length:
        return one_line
    end = (length - 1) // 2
    return one_line[: length - 1 - end].rstrip() + "…" + one_line[-end:].lstrip()


# Whole drawings


def svg(figure: Figure) -> str:
    """The figure for a page: colours and type come from around it, as does its heading."""
    drawing = figure.drawing
    return _document(figure, drawing.width, drawing.height, drawing.parts)


def svg_file(figure: Figure, *, subject: str = "", dark: bool = False) -> str:
    """The figure as a file of its own: its title, what it is about, its colours, its paper."""
    drawing, colours = figure.drawing, DARK if dark else LIGHT
    title, subject = short(figure.title, MAX_TITLE), short(subject, MAX_SUBTITLE)
    texts = max(TITLE_CHARACTER * len(title), CHARACTER * len(subject))
    width, height = max(drawing.width, texts + 20) + 20, drawing.height + 82
    whole = _document(
        figure,
        width,
        height,
        element("rect", width=width, height=height, fill=colours.paper),
        text(21, 32, title, style="title"),
        text(21, 50, subject, style="quiet"),
        at(4, 66, drawing.parts),
        font_family=FONT,
    )
    variables = colours.variables()
    return _PAINT.sub(lambda paint: variables[paint[1]], whole)


def png(figure: Figure, *, subject: str = "", dark: bool = False, scale: float = 2) -> bytes:
    """The figure as a picture, with its title; ``scale`` pixels to a point."""
    import vl_convert

    picture: bytes = vl_convert.svg_to_png(
        svg_file(figure, subject=subject, dark=dark), scale=scale
    )
    return picture


def _document(
    figure: Figure, width: float, height: float, *parts: str, **attributes: float | str
) -> str:
    """An SVG, named and described, as wide as its container lets it be."""
    width, height = math.ceil(width), math.ceil(height)
    name, description = (f"chart-{figure.slug}-{part}" for part in ("title", "desc"))
    return element(
        "svg",
        element("title", escape(plain(figure.title)), id=name),
        element("desc", escape(plain(figure.text)), id=description),
        *parts,
        width=width,  # the height follows from it and the viewBox
        viewBox=f"0 0 {width} {height}",
        overflow="visible",  # for typefaces wider than was reckoned with
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        aria_labelledby=f"{name} {description}",
        **attributes,
    )


# Parts of drawings


def colour(name: str | int) -> str:
    """A colour of the palette: ``ink``, ``muted``, ``grid``, or the number of a series from 0."""
    return f"var(--chart-{name + 1 if isinstance(name, int) else name})"


STYLES: dict[str, dict[str, float | str]] = {
    "title": {"fill": colour("ink"), "font_size": 15, "font_weight": 600},
    "label": {"fill": colour("ink"), "font_size": FONT_SIZE},
    "head": {"fill": colour("ink"), "font_size": FONT_SIZE, "font_weight": 600},
    "quiet": {"fill": colour("muted"), "font_size": FONT_SIZE},
    "grid": {"stroke": colour("grid")},
    "range": {"stroke_width": 1.25},
    "interval": {"stroke_width": 5, "stroke_opacity": 0.45, "stroke_linecap": "round"},
    "interval-over-bar": {"stroke_width": 4, "stroke_opacity": 0.6},
    "line": {"stroke_width": 1.5, "fill": "none"},
    "middle-line": {"stroke": colour("ink"), "stroke_dasharray": "3,2"},
    "warm-up": {"stroke": colour("muted"), "stroke_width": 1.25, "fill": "none"},
}
# The marks of the series, of like area: circle, square, triangle, cross, diamond, and the
# triangle on its head.
SHAPES = (
    "M3.74,0A3.74,3.74,0,1,1,-3.74,0A3.74,3.74,0,1,1,3.74,0",
    "M-3.74,-3.74h7.48v7.48h-7.48Z",
    "M0,-3.74L-4.3,3.24L4.3,3.24Z",
    "M-3.74,-1.5V1.5H-1.5V3.74H1.5V1.5H3.74V-1.5H1.5V-3.74H-1.5V-1.5Z",
    "M0,-5L4.3,0L0,5L-4.3,0Z",
    "M0,3.74L-4.3,-3.24L4.3,-3.24Z",
)
DIAMOND = "M-3.16,0L0,-3.16L3.16,0L0,3.16Z"


def element(tag: str, *parts: str, **attributes: float | str) -> str:
    """``parts`` are SVG, or escaped text; numbers are given to a hundredth of a point."""
    named = "".join(
        f' {name.replace("_", "-")}="{value if isinstance(value, str) else _rounded(value)}"'
        for name, value in attributes.items()
    )
    inside = "".join(parts)
    return f"<{tag}{named}>{inside}</{tag}>" if inside else f"<{tag}{named}/>"


def _rounded(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"  # no "-0"


def group(style: str, parts: Iterable[str], **attributes: float | str) -> str:
    """Parts of one style, which is told once; nothing without parts."""
    inside = "".join(parts)
    return element("g", inside, **STYLES[style], **attributes) if inside else ""


def at(x: float, y: float, *parts: str) -> str:
    """Parts, moved."""
    return element("g", *parts, transform=f"translate({_rounded(x)},{_rounded(y)})")


def text(x: float, y: float, *lines: str, style: str = "", **attributes: float | str) -> str:
    """Lines of text, the first on the height ``y``."""
    said = [escape(line) for line in lines]
    if len(said) > 1:
        steps = {"x": x, "dy": LINE_STEP}
        said = [element("tspan", said[0]), *(element("tspan", one, **steps) for one in said[1:])]
    return element("text", *said, x=x, y=y, **STYLES.get(style, {}), **attributes)


def line(x: float, y: float, x2: float, y2: float, **attributes: float | str) -> str:
    """A line from one point to another."""
    return element("line", x1=x, y1=y, x2=x2, y2=y2, **attributes)


def point(x: float, y: float, shape: str = SHAPES[0], **attributes: float | str) -> str:
    """A mark around a point."""
    place = f"translate({_rounded(x)},{_rounded(y)})"
    return element("path", d=shape, transform=place, **attributes)


# Axes


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high``, on so many points."""

    low: float
    high: float
    length: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            return self.length * math.log(value / self.low) / math.log(self.high / self.low)
        return self.length * (value - self.low) / (self.high - self.low)


def from_zero(highest: float, height: float) -> Scale:
    """A scale upwards, to the next round value."""
    step = _step(highest or 1.0, 10)
    return Scale(math.ceil((highest or 1.0) / step - 1e-9) * step, 0.0, height)


def _step(length: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, so that about ``count`` steps fill ``length``."""
    power = 10.0 ** math.floor(math.log10(length / count))
    exact = length / count / power
    return power * (
        10 if exact >= 50**0.5 else 5 if exact >= 10**0.5 else 2 if exact >= 2**0.5 else 1
    )


def ticks(low: float, high: float, count: int, least: float = 0.0) -> list[tuple[float, str]]:
    """About ``count`` round values from ``low`` to ``high``, at least ``least`` apart, each with
    its text."""
    step = max(least, _step(high - low, count))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:,.{decimals}f}") for number in numbers]


def log_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round values between ``low`` and ``high`` for a logarithmic axis, each with its text: 1, 2, 5
    of each power of ten, 1 alone where those would be more than ``most``; where less than two of
    them lie between, those of ``ticks``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{step}e{power}") for power in powers for step in steps]
        within = [value for value in values if low <= value <= high]
        if len(within) <= most:
            break
    else:
        within = within[:: math.ceil(len(within) / most)]
    if len(within) < 2:
        return ticks(low, high, most)
    decimals = [max(0, -math.floor(math.log10(value) + 1e-9)) for value in within]
    return [(value, f"{value:,.{n}f}") for value, n in zip(within, decimals, strict=True)]


def apart(places: Sequence[tuple[float, float]], room: float = CHARACTER) -> list[bool]:
    """Which of some labels are shown, so that none touches another: of those at even steps every
    second, every fifth …, of others each that has room behind the last one. ``places`` are middles
    and lengths along the axis, in its order; ``room`` is left free between two."""

    def free(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return abs(other[0] - one[0]) >= (one[1] + other[1]) / 2 + room

    steps = [abs(b - a) for (a, _), (b, _) in pairwise(places)]
    if steps and max(steps) < 1.01 * min(steps):
        strides = (1, 2, 5, 10, 20, 50, 100, 1000)
        fitting = (n for n in strides if all(free(*two) for two in pairwise(places[::n])))
        every = next(fitting, len(places))
        return [number % every == 0 for number in range(len(places))]
    shown: list[bool] = []
    last: tuple[float, float] | None = None
    for place in places:
        shown.append(last is None or free(last, place))
        last = place if shown[-1] else last
    return shown


def x_axis(
    scale: Scale, values: Sequence[tuple[float, str]], height: float, *, labels: bool = True
) -> str:
    """Lines from the bottom to the top, with the values below them, as many as have room."""
    places = [round(scale(value)) + 0.5 for value, _ in values]
    shown = apart([(scale(value), CHARACTER * len(one)) for value, one in values], 2 * CHARACTER)
    said = (
        text(scale(value), height + 15.5, one)
        for (value, one), is_shown in zip(values, shown, strict=True)
        if labels and is_shown
    )
    return group("grid", (line(x, 0, x, height) for x in places)) + group(
        "quiet", said, text_anchor="middle"
    )


def y_axis(
    scale: Scale, values: Sequence[tuple[float, str]], width: float, *, labels: bool = True
) -> str:
    """Lines from left to right, with the values beside them, as many as have room."""
    places = [round(scale(value)) + 0.5 for value, _ in values]
    shown = apart([(scale(value), FONT_SIZE) for value, _ in values], room=2)
    said = (
        text(-6, scale(value) + 4.5, one)
        for (value, one), is_shown in zip(values, shown, strict=True)
        if labels and is_shown
    )
    return group("grid", (line(0, y, width, y) for y in places)) + group(
        "quiet", said, text_anchor="end"
    )


def reserved(labels: Iterable[str]) -> float:
    """The width of the longest of some texts."""
    return CHARACTER * max(map(len, labels), default=0)


def legend(names: Sequence[str], y: float) -> Iterator[str]:
    """The marks and names of the series, two in a row."""
    column = 38 + reserved(names)
    for number, name in enumerate(names):
        row, place = divmod(number, 2)
        yield at(
            place * column,
            y + 22 * row,
            point(7, 7, SHAPES[number], fill=colour(number)),
            text(18, 11, name, style="label"),
        )
