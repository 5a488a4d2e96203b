"""A picture of what a page says, for previews of its link: one figure, large, and bars beside it.

Drawn with the typeface that the renderer brings along, so that the same records give the same
bytes on every machine. It is Liberation Sans: Latin, Greek, Cyrillic and Hebrew. Writing that it
lacks is left out with an ellipsis, never drawn as empty boxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tokrig import naming
from tokrig.site.charts import LIGHT, element, plain, short
from tokrig.site.fewer_colours import with_palette

WIDTH, HEIGHT = 1200, 630
MARGIN = 64
MOST_BARS = 4
LONGEST = 160  # characters: more are never seen
FONT = "Liberation Sans"
SIGN = "M1 13.5h14M2.5 11V7M6.2 11V2.5M9.8 11V5M13.5 11V8.5"  # as static/icon.svg
ACCENT, ACCENT_SOFT = "#0b5fae", "#b9d2ea"
INK, MUTED, PAPER = LIGHT.ink, LIGHT.muted, "#fdfdfc"
TONES = {"valid": "#1c6b3c", "unverified": "#7a4b00"}
BAD = "#a8241c"
# Advance widths of ASCII from space on in 1/1000 em: Arial's, whose metrics Liberation Sans has.
_WIDTHS = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 "
    "556 556 556 556 556 556 556 556 556 556 278 278 584 584 584 556 "
    "1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 "
    "667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 "
    "333 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 "
    "556 556 333 500 278 556 500 722 500 500 500 334 260 334 584"
)
ADVANCES = dict(enumerate(map(int, _WIDTHS.split()), start=ord(" ")))
WIDE, BOLD = 720, 1.1
_UNDRAWN = re.compile(
    "[^\x20-\x7e\xa0-\u017f\u0384-\u03ce\u0400-\u045f\u0490\u0491\u05d0-\u05ea\u1e80-\u1e85"
    "\u2013\u2014\u2018-\u201e\u2022\u2026\u20ac\u2122\u2212\u00d7]+"
)


@dataclass(frozen=True)
class Bar:
    """One of several things compared; ``ours`` is the one that the picture is about."""

    label: str
    value: float
    text: str
    ours: bool = False


@dataclass(frozen=True)
class Picture:
    """What is drawn, as texts. ``figure`` is large, ``unit`` and ``notes`` stand beside it;
    ``verdict`` is a word in a frame, "" for none."""

    title: str
    about: str
    figure: str
    unit: str
    notes: tuple[str, ...]
    verdict: str = ""
    bars: tuple[Bar, ...] = ()


def png(picture: Picture, scale: float = 1) -> bytes:
    """The picture, 1200 × 630 pixels times ``scale``."""
    import vl_convert

    return with_palette(vl_convert.svg_to_png(svg(picture), scale=scale))


def svg(picture: Picture) -> str:
    """The picture as SVG."""
    return element(
        "svg",
        element("rect", width=WIDTH, height=HEIGHT, fill=PAPER),
        *_head(picture.verdict),
        _text(MARGIN, 186, picture.title, 62, WIDTH - 2 * MARGIN, bold=True),
        _text(MARGIN, 240, picture.about, 34, WIDTH - 2 * MARGIN, fill=MUTED),
        *_figure(picture),
        *_bars(picture.bars),
        element("rect", y=HEIGHT - 12, width=WIDTH, height=12, fill=ACCENT),
        xmlns="http://www.w3.org/2000/svg",
        width=WIDTH,
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        font_family=FONT,
    )


def tone(verdict: str) -> str:
    """The colour of a verdict."""
    return TONES.get(verdict, BAD)


def drawable(text: str) -> str:
    """A text in what the typeface can write; a name of which nothing is left by its address."""
    shown = plain(_UNDRAWN.sub("…", short(text, LONGEST)))
    return shown if not text or re.search(r"\w", shown) else naming.address(text)


def width(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a text is."""
    return (size / 1000) * sum(
        ADVANCES.get(ord(one), WIDE) * (BOLD if bold and one.isalpha() else 1) for one in text
    )


def _text(
    x: float, y: float, said: str, size: float, room: float, *, bold: bool = False,
    fill: str = INK, end: bool = False,
) -> str:  # fmt: skip
    """A text, cut where it takes more than ``room``; at ``end`` it ends at x."""
    shown = drawable(said)
    if width(shown, size, bold=bold) > room:
        while shown and width(f"{shown}…", size, bold=bold) > room:
            shown = shown[:-1]
        shown = f"{shown.rstrip(' ·,')}…"
    extra: dict[str, float | str] = {"font_weight": 700} if bold else {}
    extra |= {"text_anchor": "end"} if end else {}
    return element("text", escape(shown), x=x, y=y, font_size=size, fill=fill, **extra)


def _head(verdict: str) -> Iterator[str]:
    sign = element("path", d=SIGN, transform=f"translate({MARGIN},52) scale(3)")
    yield element("g", sign, fill="none", stroke=ACCENT, stroke_width=2, stroke_linecap="round")
    yield _text(MARGIN + 64, 93, "tokrig", 42, 300, bold=True)
    if verdict:
        wide = width(verdict, 36, bold=True) + 44
        left = WIDTH - MARGIN - wide
        yield element(
            "rect", x=left, y=50, width=wide, height=56, rx=10,
            fill="none", stroke=tone(verdict), stroke_width=4,
        )  # fmt: skip
        yield _text(left + 22, 91, verdict, 36, wide, bold=True, fill=tone(verdict))


def _figure(picture: Picture) -> Iterator[str]:
    size = 168 if len(picture.figure) < 8 else 132
    fill = INK if picture.unit else BAD
    yield _text(MARGIN - 6, 404, picture.figure, size, WIDTH - 2 * MARGIN, bold=True, fill=fill)
    left = MARGIN + width(picture.figure, size, bold=True) + 28
    room = WIDTH - MARGIN - left
    yield _text(left, 304, picture.unit, 52, room, bold=True)
    for place, note in enumerate(picture.notes[:2]):
        yield _text(left, 356 + 46 * place, note, 34, room, fill=MUTED)


def _bars(bars: Sequence[Bar]) -> Iterator[str]:
    longest = max((bar.value for bar in bars), default=0) or 1
    for place, bar in enumerate(bars[:MOST_BARS]):
        y = 438 + 41 * place
        yield _text(MARGIN, y + 25, bar.label, 28, 460, bold=bar.ours)
        yield element(
            "rect", x=548, y=y, width=max(3, 440 * bar.value / longest), height=30, rx=3,
            fill=ACCENT if bar.ours else ACCENT_SOFT,
        )  # fmt: skip
        yield _text(WIDTH - MARGIN, y + 26, bar.text, 28, 140, bold=bar.ours, end=True)
