"""Badges for a README: ``103.4 tok/s · valid · b9174`` as a small SVG, of a run, a model, and a
model on a machine; the last two show the newest run that may be quoted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from html import escape

from tokrig.site import Output, sharing
from tokrig.site.charts import element, short
from tokrig.site.context import Site, key_of
from tokrig.site.picture import tone, width
from tokrig.store.load import Run

HEIGHT, SIZE, PADDING = 20, 11, 6
MAX_BUILD = 40
LABEL = "tokrig"
# Verdana, of which shields are made, is wider than Arial; textLength makes any typeface fit.
WIDER = 1.16
FONT = "Verdana, DejaVu Sans, Geneva, sans-serif"
INK = "#3c4248"


def outputs(site: Site) -> Iterable[Output]:
    """``badges/runs/<id>.svg``, ``badges/models/<model>.svg``, ``…/<model>/<rig>.svg``."""
    for run in site.runs:
        yield _output(f"badges/runs/{run.id}.svg", *said(run))
    for address, runs in site.by_model.items():
        yield _output(f"badges/models/{address}.svg", *_of(runs))
        by_rig: dict[str, list[Run]] = {}
        for run in runs:
            by_rig.setdefault(run.record.rig.id, []).append(run)
        for rig, here in by_rig.items():
            yield _output(f"badges/models/{address}/{rig}.svg", *_of(here))


def _output(path: str, text: str, verdict: str) -> Output:
    return Output(path, key_of(text, verdict), partial(svg, text, verdict))


def _of(runs: Sequence[Run]) -> tuple[str, str]:
    return said(sharing.newest(runs) or runs[0])


def said(run: Run) -> tuple[str, str]:
    """What a run's badge says, and its verdict."""
    found, backend = sharing.headline(run.record), run.record.backend
    built = short(backend.build or backend.engine, MAX_BUILD)
    return " · ".join(filter(None, (found.figure, found.verdict, built))), found.verdict


def svg(text: str, verdict: str) -> bytes:
    """The badge: a title for those who cannot see it, white on dark, 20 pixels high."""
    left, right = (WIDER * width(one, SIZE) for one in (LABEL, text))
    split, whole = round(left) + 2 * PADDING, round(left) + round(right) + 4 * PADDING
    name = escape(f"{LABEL}: {text}")
    drawn = element(
        "svg",
        element("title", name),
        element("rect", width=whole, height=HEIGHT, rx=3, fill=INK),
        element("path", d=_right_half(split, whole), fill=tone(verdict)),
        *(
            element(
                "text", escape(one), x=x, y=14, textLength=long, lengthAdjust="spacingAndGlyphs"
            )
            for one, x, long in ((LABEL, PADDING, left), (text, split + PADDING, right))
        ),
        xmlns="http://www.w3.org/2000/svg",
        width=whole,
        height=HEIGHT,
        role="img",
        aria_label=name,
        font_family=FONT,
        font_size=SIZE,
        fill="#ffffff",
    )
    return f"{drawn}\n".encode("utf-8", "replace")


def _right_half(split: int, whole: int) -> str:
    """From ``split`` to the end, round at the right."""
    return f"M{split} 0H{whole - 3}a3 3 0 0 1 3 3V{HEIGHT - 3}a3 3 0 0 1 -3 3H{split}Z"


PAGE = outputs
