"""A forest plot: by how much B is slower than A, figure by figure, with the interval of each."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.compare.judge import Judgement, Verdict, percent
from tokrig.site import charts
from tokrig.site.charts import SHAPES, Drawing, Figure, Scale, at, colour, group

WIDTH, ROW = 360, 20
# More lines than fit on a page are not looked at one by one.
MOST_LINES = 80
ORDER = ("FAIL", "INCONCLUSIVE", "PASS")
MARKS = {"FAIL": (SHAPES[2], 1), "INCONCLUSIVE": (SHAPES[1], 4), "PASS": (SHAPES[0], 0)}


def forest(judgement: Judgement) -> Figure | None:
    """Lines of one pair after the other, what fails first; None where there is no ratio."""
    several = len(judgement.pairs) > 1
    lines = [
        (f"{number}: {one.where}" if several else one.where, one)
        for number, pair in enumerate(judgement.pairs, 1)
        for one in pair.verdicts
    ]
    if not lines:
        return None
    lines.sort(key=lambda line: ORDER.index(line[1].verdict))
    counts = {word: len(judgement.of(word)) for word in ORDER}  # type: ignore[arg-type]
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return Figure(
        slug="compared",
        title=f"{judgement.verdict}: is B slower than A by more than {judgement.limits}?",
        text=f"{told} of {len(lines)} figures. To the right B is slower.",
        drawing=_drawing(lines[:MOST_LINES], judgement),
        columns=("figure", "B is slower by", "95 % interval", "verdict"),
        rows=tuple(
            (name, percent(one.slower or 0.0), "–".join(map(percent, one.span or ())), one.verdict)
            for name, one in lines
        ),
    )


def _drawing(lines: Sequence[tuple[str, Verdict]], judgement: Judgement) -> Drawing:
    left = charts.reserved(name for name, _ in lines) + 12
    height = ROW * len(lines)
    values = [end for _, one in lines for end in (one.span or (one.slower or 0.0,))]
    limits = sorted({one.least for _, one in lines})
    low, high = min(0.0, *values), max(*limits, *values)
    room = 0.04 * (high - low)
    x = Scale(low - room, high + room, WIDTH)
    ticks = [(value, percent(value)) for value, _ in charts.ticks(x.low, x.high, 6)]
    parts = [
        charts.x_axis(x, ticks, height),
        charts.line(x(0), 0, x(0), height, stroke=colour("ink")),
        group("middle-line", [charts.line(x(one), 0, x(one), height) for one in limits[:1]]),
    ]
    for number, (name, one) in enumerate(lines):
        y = ROW * (number + 0.5)
        shape, series = MARKS[one.verdict]
        ends = one.span
        bar = [charts.line(x(ends[0]), y, x(ends[1]), y)] if ends else []
        parts += [
            charts.text(-10, y + 4.5, name, style="label", text_anchor="end"),
            group("range", bar, stroke=colour(series)),
            charts.point(x(one.slower or 0.0), y, shape, fill=colour(series)),
        ]
    title = "B is slower by (to the left: faster); dashed: the least that counts"
    parts.append(charts.text(WIDTH / 2, height + 36, title, style="quiet", text_anchor="middle"))
    keys = (
        at(
            n * 130,
            height + 52,
            charts.point(7, 7, MARKS[word][0], fill=colour(MARKS[word][1])),
            charts.text(18, 11, word, style="label"),
        )
        for n, word in enumerate(ORDER)
    )
    return Drawing(left + WIDTH + 16, 10 + height + 76, at(left, 10, *parts, *keys))
