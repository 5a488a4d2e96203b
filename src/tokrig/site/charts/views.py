"""The views of the curves page as pictures: for those without a script, and to take along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokrig.site.charts import Figure
from tokrig.site.charts.lines import Axis, Panel, Points, drawing
from tokrig.site.curves import FAST_ENOUGH, JOULE_A_KWH, Curve, frontier
from tokrig.site.formats import NULL, rate
from tokrig.units import human_seconds, significant

MOST = 4
RATE = Axis("tok/s", marks=FAST_ENOUGH)
DEPTH = Axis("tokens of context before the prompt", depth=True)
MINUTES = Axis("minutes")
EURO_A_KWH = 0.30
"""Of the picture; the page's script takes a reader's own price, and begins with this one."""
MILLION = f"€ a million tokens at €\u00a0{EURO_A_KWH:.2f} a kWh"
Drawn = Mapping[int, Points]


def picture(view: str, curves: Sequence[Curve], names: Sequence[str]) -> Figure | None:
    """The first curves of a view, which are the most complete, with their ``names``; None where
    there is nothing to draw."""
    shown = list(map(_paid, curves[:MOST])) if view == "cost" else list(curves[:MOST])
    labels = [name if curve["of"] in name else f"{name} · {curve['of']}"
              for name, curve in zip(names, shown, strict=False)]  # fmt: skip
    drawn = drawing(_PANELS[view](shown), labels)
    if drawn is None:
        return None
    title, columns, row = _TABLES[view]
    notes = [f"{name}: {curve['end']}." for name, curve in zip(labels, shown, strict=True)
             if "end" in curve]  # fmt: skip
    return Figure(
        slug=f"{view}-picture",
        title=title,
        text=" ".join([f"{len(shown)} of {len(curves)}, the most complete ones.", *notes]),
        drawing=drawn,
        columns=("run", *columns),
        rows=tuple(
            (name, *cells)
            for name, curve in zip(labels, shown, strict=True)
            for cells in row(curve)
        ),
    )


def _paid(curve: Curve) -> Curve:
    """With what a million tokens cost."""
    joules = curve["joule"]
    paid = [None if one is None else one * 1e6 / JOULE_A_KWH * EURO_A_KWH for one in joules]
    return {**curve, "million": paid}


def _lines(curves: Sequence[Curve], x: str, y: str, by: float = 1.0) -> Drawn:
    """Points of each curve that have both."""
    return {
        number: [
            (a / by, b)
            for a, b in zip(curve[x], curve[y], strict=True)
            if a is not None and b is not None
        ]
        for number, curve in enumerate(curves)
    }


def _depth(curves: Sequence[Curve]) -> list[Panel]:
    seconds = Axis("seconds", logarithmic=True)
    return [
        Panel("decode, tok/s", DEPTH, RATE, _lines(curves, "depth", "decode")),
        Panel("prefill, tok/s", DEPTH, Axis("tok/s"), _lines(curves, "depth", "prefill")),
        Panel("TTFT, s", DEPTH, seconds, _lines(curves, "depth", "ttft")),
    ]


def _load(curves: Sequence[Curve]) -> list[Panel]:
    each = Axis("each request, tok/s", marks=FAST_ENOUGH)
    lines = _lines(curves, "each", "system")
    return [Panel("all together, tok/s", each, Axis("tok/s"), lines)]


def _session(curves: Sequence[Curve]) -> list[Panel]:
    turn = Axis("turn")
    return [
        Panel("TTFT, s", turn, Axis("seconds"), _lines(curves, "turn", "ttft")),
        Panel("tokens from the cache", turn, Axis("tokens"), _lines(curves, "turn", "cached")),
    ]


def _sustained(curves: Sequence[Curve]) -> list[Panel]:
    rates = _lines(curves, "time", "each", by=60)
    clocks = _lines(curves, "time", "clock", by=60)
    return [
        Panel("each request, tok/s", MINUTES, RATE, rates),
        Panel("clock, MHz", MINUTES, Axis("MHz"), clocks),
    ]


def _quality(curves: Sequence[Curve]) -> list[Panel]:
    """The line goes along the frontier; what is off it stands in the table."""
    kl = Axis("KL divergence from the reference, nats", logarithmic=True)
    lines = {}
    for number, curve in enumerate(curves):
        best = frontier(curve["kl"], curve["decode"])
        points = zip(curve["kl"], curve["decode"], best, strict=True)
        lines[number] = [(near, fast) for near, fast, is_best in points if is_best and near > 0]
    return [Panel("decode, tok/s", kl, RATE, lines)]


def _cost(curves: Sequence[Curve]) -> list[Panel]:
    each = Axis("each request, tok/s", marks=FAST_ENOUGH)
    return [
        Panel(MILLION, each, Axis("€", logarithmic=True), _lines(curves, "each", "million")),
        Panel(
            "J a token, measured",
            each,
            Axis("J", logarithmic=True),
            _lines(curves, "each", "joule"),
        ),
    ]


_PANELS: Mapping[str, Callable[[Sequence[Curve]], list[Panel]]] = {
    "depth": _depth,
    "load": _load,
    "session": _session,
    "sustained": _sustained,
    "quality": _quality,
    "cost": _cost,
}


def _count(value: float | None) -> str:
    return NULL if value is None else f"{value:,.0f}"


def _short(value: float | None) -> str:
    return NULL if value is None else f"{significant(value, 4):,.10g}"


def _rate(value: float | None) -> str:
    return NULL if value is None else rate(value)


def _money(value: float | None) -> str:
    return NULL if value is None else f"€\u00a0{significant(value, 3):,.10g}"


def _wait(value: float | None) -> str:
    return NULL if value is None else human_seconds(value)


Text = Callable[[Any], str]


def _rows(*columns: tuple[str, Text]) -> Callable[[Curve], list[tuple[str, ...]]]:
    """A row a point, of those columns of a curve."""

    def rows(curve: Curve) -> list[tuple[str, ...]]:
        said = [[text(value) for value in curve[name]] for name, text in columns]
        return list(zip(*said, strict=True))

    return rows


_TABLES: Mapping[str, tuple[str, tuple[str, ...], Callable[[Curve], list[tuple[str, ...]]]]] = {
    "depth": (
        "Speed against depth",
        ("depth, tokens", "decode, tok/s", "prefill, tok/s", "TTFT"),
        _rows(("depth", _count), ("decode", _rate), ("prefill", _rate), ("ttft", _wait)),
    ),
    "load": (
        "Each request against all together",
        ("in flight", "each, tok/s", "all together, tok/s", "TTFT"),
        _rows(("flight", _count), ("each", _rate), ("system", _rate), ("ttft", _wait)),
    ),
    "session": (
        "A session, turn by turn",
        ("turn", "prompt, tokens", "from the cache", "TTFT", "whole turn"),
        _rows(("turn", _count), ("prompt", _count), ("cached", _count), ("ttft", _wait),
              ("total", _wait)),
    ),
    "sustained": (
        "A load that lasts",
        ("at, s", "each, tok/s", "all together, tok/s", "clock, MHz", "temperature, °C",
         "power, W"),
        _rows(("time", _short), ("each", _rate), ("rate", _rate), ("clock", _count),
              ("heat", _count), ("power", _count)),
    ),
    "quality": (
        "Speed against quality",
        ("quant", "KL, nats", "top-1 agreement", "decode, tok/s"),
        _rows(("quant", str), ("kl", _short), ("agreement", _short), ("decode", _rate)),
    ),
    "cost": (
        "Energy and money a token",
        ("in flight", "each, tok/s", "all together, tok/s", "J a token", MILLION),
        _rows(("flight", _count), ("each", _rate), ("system", _rate), ("joule", _short),
              ("million", _money)),
    ),
}  # fmt: skip
