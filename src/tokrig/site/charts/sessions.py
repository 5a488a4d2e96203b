"""A chart of sessions: what each turn sent and waited for, cached tokens against new ones."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.record.loads import SessionFigures
from tokrig.record.model import Result
from tokrig.site import charts
from tokrig.site.charts import SHAPES, Drawing, Figure, Scale, at, colour, group, short
from tokrig.site.formats import NULL
from tokrig.units import human_seconds

WIDTH, HEIGHT, PITCH = 320, 150, 400
MAX_RESULTS = 6
COLUMNS = ("turn", "prompt", "reusable", "cached", "new", "answer", "TTFT", "whole turn")

Sessions = Sequence[tuple[str, SessionFigures]]


def turns(found: SessionFigures) -> list[tuple[str, ...]]:
    """A row a turn, of texts, under ``COLUMNS``."""

    def said(tokens: float | None) -> str:
        return NULL if tokens is None else f"{tokens:,.0f}"

    return [
        (
            str(number),
            *map(said, (one.prompt_tokens, one.reusable_tokens, one.cached_tokens)),
            *map(said, (one.new_tokens, one.output_tokens)),
            *map(human_seconds, (one.ttft_s, one.total_s)),
        )
        for number, one in enumerate(found.by_turn, 1)
    ]


def by_turn(results: Sequence[Result]) -> Figure | None:
    """Cached and new tokens of each turn, and how long its first token took."""
    found = [(short(r.cell.label), r.session) for r in results if r.session]
    if not found:
        return None
    shown = found[:MAX_RESULTS]
    facts = [
        f"{name}: from {human_seconds(one.by_turn[0].ttft_s)} in the first turn to"
        f" {human_seconds(one.by_turn[-1].ttft_s)} in turn {one.turns}."
        for name, one in shown
    ]
    notes = [f"Drawn are {MAX_RESULTS} of {len(found)} results."] if shown != found else []
    return Figure(
        slug="session",
        title="Session, turn by turn",
        text=" ".join(["Time to the first token.", *facts, *notes]),
        drawing=_drawing(shown),
        columns=("result", *COLUMNS),
        rows=tuple((name, *row) for name, one in found for row in turns(one)),
    )


def _drawing(shown: Sessions) -> Drawing:
    """Left the tokens of the first result's turns, stacked; right the waits of all of them."""
    names = [name for name, _ in shown]
    told = any(one.cached_tokens is not None for one in shown[0][1].by_turn)
    tokens = ["cached tokens", "new tokens"] if told else ["prompt tokens, cached or not"]
    parts = [
        charts.text(0, 0, f"tokens of the prompt, {names[0]}", style="head"),
        charts.text(PITCH, 0, "time to first token, s", style="head"),
        at(0, 20, _bars(shown[0][1], told)),
        at(PITCH, 20, _waits(shown)),
    ]
    below = 20 + HEIGHT + charts.BELOW
    for x, labels in ((0, tokens), (PITCH, names)):
        parts.append(at(x, below - 8, *charts.legend(labels, 0)))
        parts.append(
            charts.text(
                x + WIDTH / 2, 20 + HEIGHT + 34, "turn", style="quiet", text_anchor="middle"
            )
        )
    left, rows = charts.LEFT + 40, -(-max(len(names), len(tokens)) // 2)
    height = below + 22 * rows
    return Drawing(left + PITCH + WIDTH + 20, height + 20, at(left, 20, *parts))


def _places(turns: int) -> tuple[Scale, list[tuple[float, str]]]:
    """The turns from left to right, and their numbers."""
    return Scale(0.5, turns + 0.5, WIDTH), [(float(n), str(n)) for n in range(1, turns + 1)]


def _bars(found: SessionFigures, told: bool) -> str:
    """Without what was cached, where nobody told that, each bar is of one part."""
    scale, numbers = _places(found.turns)
    most = max((one.prompt_tokens or 0.0 for one in found.by_turn), default=0.0)
    up, width = charts.from_zero(most, HEIGHT), 0.7 * WIDTH / max(found.turns, 1)
    bars = []
    for place, one in enumerate(found.by_turn, 1):
        cached, whole = one.cached_tokens or 0.0, one.prompt_tokens or 0.0
        for series, low, high in ((0, 0.0, cached), (int(told), cached, whole)):
            bars.append(
                charts.element(
                    "rect",
                    x=scale(place) - width / 2,
                    y=up(high),
                    width=width,
                    height=up(low) - up(high),
                    fill=colour(series),
                )
            )
    values = charts.ticks(0.0, up.low, 4, least=1.0)
    said = (charts.text(scale(place), HEIGHT + 15.5, number) for place, number in numbers)
    below = group("quiet", said, text_anchor="middle")
    return charts.y_axis(up, values, WIDTH) + below + "".join(bars)


def _waits(shown: Sessions) -> str:
    scale, numbers = _places(max(one.turns for _, one in shown))
    waits = [
        [(n, one.ttft_s) for n, one in enumerate(found.by_turn, 1) if one.ttft_s is not None]
        for _, found in shown
    ]
    up = charts.from_zero(max((s for of in waits for _, s in of), default=0.0), HEIGHT)
    marks = []
    for series, of in enumerate(waits):
        places = [(scale(n), up(seconds)) for n, seconds in of]
        path = "L".join(f"{x:.2f},{y:.2f}" for x, y in places)
        marks.append(group("line", [charts.element("path", d=f"M{path}", stroke=colour(series))]))
        marks += [charts.point(x, y, SHAPES[series], fill=colour(series)) for x, y in places]
    return (
        charts.y_axis(up, charts.ticks(0.0, up.low, 4), WIDTH)
        + charts.x_axis(scale, numbers, HEIGHT)
        + "".join(marks)
    )
