"""What A/B entries say, as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokrig.cli import present
from tokrig.cli.campaign_words import fits, line
from tokrig.cli.compare import LABELS
from tokrig.cli.words import NULL, rate
from tokrig.query.ab import Effect, LeftOut, Outcome, Verdict
from tokrig.query.permutation import LEVEL
from tokrig.units import human_seconds

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "faster": ("B faster", "green"),
    "slower": ("B slower", "red"),
    "not_distinguishable": ("not distinguishable", "default"),
    "inconclusive": ("inconclusive", "yellow"),
    "not_comparable": ("not comparable", "yellow"),
}
HEADINGS = ("workload × conc.", "figure", "A", "B", "B / A", "p", "verdict")
NUMBERS = ("A", "B", "B / A", "p")
LISTED = 8


def print_outcomes(out: Console, outcomes: Sequence[Outcome]) -> None:
    """The comparisons of one entry, and what their verdicts rest on."""
    tests = [e for outcome in outcomes for e in outcome.effects if e.p is not None]
    for outcome in outcomes:
        _print_outcome(out, outcome)
    if not tests:
        return
    said = (
        f"p: exact permutation test, Holm-corrected over {len(tests)} figures; a difference needs"
        f" p ≤ {float(LEVEL):g}, an interval that excludes 1, and more than 2 % and the A/A noise"
    )
    out.print(Text(said, style="dim"))
    for settle in dict.fromkeys(e.settle for e in tests if e.settle):
        out.print(Text(f"inconclusive: {settle}", style="dim"))


def _print_outcome(out: Console, outcome: Outcome) -> None:
    told = [f"A/B {outcome.axis}", outcome.name, _order(outcome)]
    if outcome.reason:
        told.append(f"not comparable: {outcome.reason}")
    elif not outcome.complete:
        a, b = outcome.measured
        told.append(f"{a} and {b} of {outcome.repeats} repeats each are measured")
    elif any(e.ratio is not None and e.p is None for e in outcome.effects):
        told.append("waits for the entry's other comparisons")
    out.print(Text(line(" · ".join(filter(None, told)))))
    for entry in outcome.differing:
        out.print(Text(line(f"  {entry.key}: {entry.a} → {entry.b}"), style="dim"))
    if outcome.complete and outcome.effects:
        table = _table(outcome.effects)
        present.put(out, table if fits(out, table) else _listing(outcome.effects))
    for left_out in outcome.left_out[:LISTED]:
        out.print(Text(_left_out(left_out), style="dim"))
    if len(outcome.left_out) > LISTED:
        out.print(Text(f"… and {len(outcome.left_out) - LISTED} more left out", style="dim"))


def _order(outcome: Outcome) -> str:
    return f"measured as {outcome.order}" if outcome.order else ""


def _left_out(one: LeftOut) -> str:
    where = f" {one.where}" if one.where else ""
    return line(f"left out: arm {one.arm}, {one.record}{where}: {one.why}")


def _table(effects: Iterable[Effect]) -> Table:
    table = present.plain_table()
    for heading in HEADINGS:
        right = heading in NUMBERS
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for effect in effects:
        *cells, last = _cells(effect)
        table.add_row(*map(Text, cells), Text(last, style=VERDICTS[effect.verdict][1]))
    return table


def _listing(effects: Iterable[Effect]) -> Text:
    """A line or two each, where the table is too wide."""
    text = Text()
    for effect in effects:
        shape, figure, a, b, ratio, p, verdict = _cells(effect)
        text.append(f"{shape} {figure}: {a} → {b}, {ratio}, p {p}, ")
        text.append(f"{verdict}\n", style=VERDICTS[effect.verdict][1])
    text.rstrip()
    return text


def _cells(effect: Effect) -> tuple[str, ...]:
    text = human_seconds if effect.metric == "ttft_s" else rate
    values = (text(median(side)) if side else NULL for side in (effect.a, effect.b))
    return (
        line(f"{effect.shape} × {effect.concurrency}"),
        LABELS[effect.metric],
        *values,
        _ratio(effect),
        _p(effect),
        VERDICTS[effect.verdict][0] + (", unverified" if effect.unverified else ""),
    )


def _ratio(effect: Effect) -> str:
    if effect.ratio is None:
        return NULL
    shown = f"×{float(effect.ratio):.3f}"
    if effect.low is None or effect.high is None:
        return shown
    return f"{shown} ({effect.low:.2f}–{effect.high:.2f})"


def _p(effect: Effect) -> str:
    if effect.adjusted_p is None:
        return NULL
    p = float(effect.adjusted_p)
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"
