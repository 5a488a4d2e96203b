"""Figures as Vega-Lite, and as SVG and PNG: tokrig's colours and type, drawn by Vega in this
process, offline.

The SVG for pages takes its colours from the page: Vega draws in the light colours, and each of
them is then replaced by a variable of the style sheet. The drawing is otherwise kept to shapes
and texts; what it says to those who cannot see it stands in its title and description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import vl_convert

from tokrig.site.charts import Figure
from tokrig.site.charts.points import plain, short

FONT = "system-ui, sans-serif"
FONT_SIZE = 12
MAX_TITLE, MAX_SUBTITLE = 90, 110

_SVG = "http://www.w3.org/2000/svg"
# What a member of a group takes from the group where it says nothing itself.
_INHERITED = (
    *("fill", "stroke", "stroke-width", "stroke-linecap", "stroke-dasharray"),
    *("font-size", "font-weight", "text-anchor"),
)
# Where Vega writes sixteen digits; a hundredth of a point is more than can be seen.
_GEOMETRY = ("transform", "d", "x", "y", "x2", "y2", "width", "height")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
# Vega's words for its own structure; the figure's title and description say it better.
_NOISE = ("aria-", "role", "class", "pointer-events", "font-family", "{")


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
_VARIABLES = {colour: f"var({name})" for name, colour in LIGHT.variables().items()}


_drawn = False


def has_drawn() -> bool:
    """Whether this process has drawn: Vega's engine then runs threads of its own, and a forked
    process, which has none of them, would wait for them for ever."""
    return _drawn


def _vega() -> ModuleType:
    global _drawn  # noqa: PLW0603 (a fact about the process)
    _drawn = True
    return vl_convert


def svg(figure: Figure) -> str:
    """The figure for a page: colours and type come from around it, as does its heading."""
    root = _tree(_vega().vegalite_to_svg(_styled(figure, LIGHT), allowed_base_urls=[]))
    for element in root.iter():
        for paint in ("fill", "stroke"):
            colour = element.get(paint)
            if colour in _VARIABLES:
                element.set(paint, _VARIABLES[colour])
    return _text(root, figure)


def svg_file(figure: Figure, *, subject: str = "", dark: bool = False) -> str:
    """The figure as a file of its own: its title, what it is about, its colours, its paper."""
    root = _tree(_vega().vegalite_to_svg(_whole(figure, subject, dark), allowed_base_urls=[]))
    root.set("font-family", FONT)
    return _text(root, figure)


def png(figure: Figure, *, subject: str = "", dark: bool = False, scale: float = 2) -> bytes:
    """The figure as a picture, with its title; ``scale`` pixels to a point."""
    spec = _whole(figure, subject, dark)
    picture: bytes = _vega().vegalite_to_png(spec, scale=scale, allowed_base_urls=[])
    return picture


def _whole(figure: Figure, subject: str, dark: bool) -> dict[str, Any]:
    """The specification of a chart that stands alone."""
    palette = DARK if dark else LIGHT
    title = {
        "text": short(figure.title, MAX_TITLE),
        "subtitle": short(subject, MAX_SUBTITLE),
        "anchor": "start",
        "frame": "bounds",
    }
    return {**_styled(figure, palette), "background": palette.paper, "title": title, "padding": 20}


def _styled(figure: Figure, palette: Palette) -> dict[str, Any]:
    return {
        **figure.spec,
        "config": _config(palette),
        "background": None,
        "padding": {"left": 16, "top": 4, "right": 4, "bottom": 4},
    }


def _config(palette: Palette) -> dict[str, Any]:
    text = {"labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal"}
    quiet = {"labelColor": palette.muted, "titleColor": palette.muted}
    first = {"color": palette.series[0]}
    return {
        "font": FONT,
        "view": {"stroke": None},
        "mark": {"color": palette.series[0]},
        "range": {"category": list(palette.series)},
        "title": {
            "color": palette.ink,
            "fontSize": 15,
            "fontWeight": 600,
            "offset": 18,
            "subtitleColor": palette.muted,
            "subtitleFontSize": FONT_SIZE,
            "subtitlePadding": 6,
        },
        "axis": {
            **text,
            **quiet,
            "gridColor": palette.grid,
            "domain": False,
            "ticks": False,
            "labelFlush": False,
            "labelPadding": 6,
            "titlePadding": 10,
        },
        "axisDiscrete": {"grid": False, "labelColor": palette.ink, "labelLimit": 320},
        "header": {
            **text,
            "labelColor": palette.ink,
            "titleColor": palette.muted,
            "labelFontWeight": 600,
            "labelPadding": 8,
        },
        "legend": {
            **text,
            **quiet,
            "labelColor": palette.ink,
            "labelLimit": 320,
            "symbolSize": 70,
            "symbolStrokeWidth": 0,
        },
        # What marks are called in the specifications of the charts.
        "style": {
            "dot": {"filled": True, "size": 56, "opacity": 1},
            "interval": {**first, "strokeWidth": 5, "opacity": 0.45, "strokeCap": "round"},
            "range": {**first, "strokeWidth": 1.25, "opacity": 1},
            "range-end": {**first, "thickness": 1.25, "size": 7, "opacity": 1},
            "interval-over-bar": {"color": palette.ink, "strokeWidth": 4, "opacity": 0.6},
            "range-over-bar": {"color": palette.ink, "strokeWidth": 1.25, "opacity": 1},
            "range-end-over-bar": {
                "color": palette.ink,
                "thickness": 1.25,
                "size": 7,
                "opacity": 1,
            },
            "value": {"color": palette.ink, "fontSize": FONT_SIZE, "align": "left", "dx": 8},
            "mark-line": {"color": palette.ink, "strokeWidth": 1, "strokeDash": [3, 2]},
            "row-label": {"color": palette.ink, "fontSize": FONT_SIZE, "align": "right", "dx": -10},
            "panel-head": {
                "color": palette.ink,
                "fontSize": FONT_SIZE,
                "fontWeight": 600,
                "align": "left",
            },
            "row-note": {"color": palette.muted, "fontSize": FONT_SIZE, "align": "left", "dx": 10},
            "quiet": {"color": palette.muted, "size": 40, "strokeWidth": 1.25, "opacity": 1},
        },
    }


def _tree(drawing: str) -> ElementTree.Element:
    """Vega's SVG without what it says about itself and without what cannot be seen."""
    root = ElementTree.fromstring(drawing)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if element.get("class") in ("background", "foreground") and not element.get("stroke"):
            element.set("display", "none")
        for name in list(element.attrib):
            if name.startswith(_NOISE) or (name, element.get(name)) == ("opacity", "1"):
                del element.attrib[name]
            elif name in _GEOMETRY:
                element.set(name, _LONG_NUMBER.sub(_rounded, element.get(name, "")))
    _simplify(root)
    return root


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _simplify(element: ElementTree.Element) -> None:
    """Drop what is hidden and groups that are empty or say nothing; what all members of a group
    have in common, the group says once."""
    for child in element:
        _simplify(child)
    seen = [
        child
        for child in element
        if child.get("display") != "none" and (child.tag != "g" or len(child))
    ]
    if element.tag == "g" and seen:
        for name in _INHERITED:
            shared = seen[0].get(name)
            if shared is not None and all(child.get(name) == shared for child in seen):
                element.set(name, shared)
                for child in seen:
                    del child.attrib[name]
    element[:] = [part for child in seen for part in _unwrapped(child)]


def _unwrapped(element: ElementTree.Element) -> Iterable[ElementTree.Element]:
    return element if element.tag == "g" and not element.attrib else [element]


def _text(root: ElementTree.Element, figure: Figure) -> str:
    """The SVG's text, named and described, as wide as its container lets it be."""
    names = {"title": plain(figure.title), "desc": plain(figure.text)}
    ids = {tag: f"chart-{figure.slug}-{tag}" for tag in names}
    for place, (tag, said) in enumerate(names.items()):
        element = ElementTree.Element(tag, {"id": ids[tag]})
        element.text = said
        root.insert(place, element)
    del root.attrib["height"]  # it follows from the width and the viewBox
    root.attrib.pop("version", None)
    root.set("overflow", "visible")  # for typefaces wider than the one measured with
    root.set("xmlns", _SVG)
    root.set("role", "img")
    root.set("aria-labelledby", " ".join(ids.values()))
    return ElementTree.tostring(root, encoding="unicode")


# Parts of Vega-Lite specifications. That the whole is sound is tested against its schema.

Spec = dict[str, Any]


def quantity(field: str, **settings: Any) -> Spec:
    """An encoding by numbers; ``settings`` are the channel's (``axis``, ``scale``)."""
    return {"field": field, "type": "quantitative", **settings}


def category(field: str, **settings: Any) -> Spec:
    """An encoding by names."""
    return {"field": field, "type": "nominal", **settings}


def layer(mark: str, where: str = "", /, style: Spec | None = None, **encoding: Spec) -> Spec:
    """One drawing: ``mark`` with its channels, of those values for which ``where`` holds."""
    drawn: Spec = {"mark": {"type": mark, **(style or {})}, "encoding": encoding}
    return drawn | ({"transform": [{"filter": where}]} if where else {})


def single(layers: Sequence[Spec], values: Sequence[Spec], **size: Any) -> Spec:
    """One view of ``values``: layers over each other, the hindmost first; ``width`` and
    ``height`` in points."""
    return {"data": {"values": list(values)}, **size, "layer": list(layers)}


def repeated(
    layers: Sequence[Spec],
    values: Sequence[Spec],
    facet: Spec,
    size: tuple[int, int | Spec],
    **settings: Any,
) -> Spec:
    """One view for each value of the facet's field, in the order of ``place``; ``settings`` are
    Vega-Lite's for such views (``spacing``, ``columns``, ``resolve``)."""
    view = {"width": size[0], "height": size[1], "layer": list(layers)}
    return {"data": {"values": list(values)}, "facet": facet, "spec": view, **settings}


IN_ORDER = {"field": "place", "op": "min"}
"""How facets are sorted: by the place that each of their values names."""
