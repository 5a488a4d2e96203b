"""``tokrig compare``: whether two records can be compared, what differs, how much faster. And the
comparisons of campaigns, arm against arm."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.cli.present import (
    NULL,
    console,
    figure_text,
    fits,
    line,
    plain_table,
    print_json,
    print_pairs,
    put,
)
from tokrig.errors import InputError
from tokrig.record.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tokrig.compare import Comparison, Figure, Pair
    from tokrig.compare.ab import Effect, Outcome
    from tokrig.record.model import Record
    from tokrig.store import Store

NOT_COMPARED = {
    "invalid": "not compared",
    "other_shape": "another shape of the same name",
    "other_length": "prompts of another length",
}
# So many of a rig's records tell its noise; more would take longer than they would add.
MOST_RECORDS = 60
GRADE_STYLES = {"A": "bold green", "B": "bold green", "C": "bold yellow", "D": "bold red"}
AB_VERDICTS = {
    "faster": ("B faster", "green"),
    "slower": ("B slower", "red"),
    "not_distinguishable": ("not distinguishable", "default"),
    "inconclusive": ("inconclusive", "yellow"),
    "not_comparable": ("not comparable", "yellow"),
}
LISTED = 8


@click.command(
    "compare",
    epilog=example(
        "tokrig compare 20261122-171500 20261122-183111",
        "tokrig compare seed-gemma-4-e2b seed-gemma-4-e4b --concurrency 1",
    ),
)
@click.argument("a", metavar="A", shell_complete=complete_run_id)
@click.argument("b", metavar="B", shell_complete=complete_run_id)
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Only results at this one."
)
@content_and_json
def command(a: str, b: str, concurrency: int | None, content: Path, as_json: bool) -> None:
    """Compare two records: class, differing keys, ratios.

    A is the reference; ratios are B / A. Each is a record's id, the beginning of one, or the path
    of its file. Class A: same machine, at most one changed variable; B: same GPU model, build,
    model hash and shape; C: same model and quant, other hardware or not all known; D: not
    comparable, no ratios. Faster or slower takes 6 starts of the engine on both sides.
    """
    from tokrig.compare import comparison, subject
    from tokrig.store import Store

    store = Store(content)
    records = [store.read(store.find(wanted)) for wanted in (a, b)]
    for record in records:
        levels = sorted({result.concurrency for result in record.results})
        if not levels:
            raise InputError(
                f"{record.id} has no results to compare",
                hint=f"tokrig show {record.id} tells why the run failed",
            )
        if concurrency is not None and concurrency not in levels:
            raise InputError(
                f"{record.id} has no result at concurrency {concurrency}",
                hint=f"it has: {', '.join(map(str, levels))}",
            )
    noise = _noise(store, {record.rig.id for record in records})
    found = comparison(
        *(subject(r, concurrency=concurrency, noise=noise.get(r.rig.id)) for r in records)
    )
    if as_json:
        print_json(found.as_dict())
    else:
        print_comparison(console(), found)


def _noise(store: Store, rigs: Collection[str]) -> dict[str, Mapping[str, float]]:
    """The A/A noise of these rigs, from their newest records with starts enough."""
    from tokrig.compare.kin import noise_of
    from tokrig.errors import TokrigError

    found: list[Record] = []
    for row in store.listing().rows:
        if row.rig in rigs and row.level in ("standard", "publish") and len(found) < MOST_RECORDS:
            with contextlib.suppress(TokrigError):  # tokrig check names what cannot be read
                found.append(store.read(store.runs / row.path))
    return noise_of(found)


def print_comparison(out: Console, found: Comparison) -> None:
    """The class and its reason, what differs, the figures, what is not known."""
    from rich.text import Text

    sides = (("A", found.a), ("B", found.b))
    print_pairs(out, [(side, f"{one.id}  {one.name} · {one.place}") for side, one in sides])
    out.print()
    grade = Text(f"class {found.grade}", style=GRADE_STYLES[found.grade])
    put(out, grade.append(f": {found.reason}", style="default"))
    for note in found.notes:
        out.print(f"  {note}", style="dim")
    if found.differences.differing:
        out.print()
        table = plain_table("differs", "variable", "A", "B", fold=True)
        for entry in found.differences.differing:
            style = "" if entry.variable in found.differences.changed else "dim"
            table.add_row(entry.key, entry.variable, str(entry.a), str(entry.b), style=style)
        put(out, table)
    if found.pairs:
        out.print()
        put(out, _figures(found))
        for text in _reading(found):
            put(out, Text(text, style="dim"))
    if found.differences.unknown:
        keys = ", ".join(entry.key for entry in found.differences.unknown)
        out.print()
        out.print(f"not known for both: {keys}", style="dim")


def _reading(found: Comparison) -> Iterator[str]:
    """What the verdicts rest on, and what would settle those that are inconclusive."""
    from tokrig.compare.statistics import SMALLEST_EFFECT

    ratios = [figure.ratio for pair in found.pairs for figure in pair.figures]
    if all(ratio.value is None for ratio in ratios):
        return
    yield "ratio: B / A"
    tests = sum(ratio.basis == "starts" for ratio in ratios)
    if tests:
        yield (
            f"in brackets: the interval across starts, 95 % for all {tests} ratios together; faster"
            f" or slower: the interval excludes 1 and the ratio is off by more than"
            f" {100 * SMALLEST_EFFECT:g} %"
        )
    noise = max((n for side in (found.a, found.b) for n in side.noise.values()), default=0.0)
    if noise > SMALLEST_EFFECT and found.differences.changed:
        yield f"identical runs on this rig differ by up to {100 * noise:.1f} %: so must these"
    for settle in dict.fromkeys(ratio.settle for ratio in ratios if ratio.settle):
        yield f"inconclusive: {settle}"
    if any(side.keys.get("backend.managed") == "no" for side in (found.a, found.b)):
        yield "an attached server counts as one start: let tokrig start it with --level standard"


def _figures(found: Comparison) -> Table:
    """Shape by shape; the geometric means where there are any."""
    from tokrig.compare import label

    headings = ("workload × conc.", "figure", "A", "B", "ratio", "verdict")
    table = plain_table(*headings, right=("A", "B"), fold=True)
    for pair in found.pairs:
        where = label(pair.shape, pair.concurrency)
        for figure in (one for one in pair.figures if one.a or one.b):
            metric, ratio = METRICS[figure.metric], figure.ratio
            sides = (
                figure_text(metric.unit, m.median if m else None) for m in (figure.a, figure.b)
            )
            shown = _ratio(ratio.value, ratio.low, ratio.high)
            table.add_row(where, metric.label, *sides, shown, _verdict(pair, figure))
            where = ""
        table.add_section()
    for mean in found.means:
        verdict = "geometric mean of ratios" + ("" if mean.verdict == "valid" else ", unverified")
        where = label(f"all {mean.shapes}", mean.concurrency)
        table.add_row(where, METRICS[mean.metric].label, "", "", _ratio(mean.value), verdict)
    return table


def _ratio(
    value: float | None, low: float | None = None, high: float | None = None, decimals: int = 2
) -> str:
    if value is None:
        return NULL
    shown = f"×{value:.{decimals}f}"
    return shown if low is None or high is None else f"{shown} ({low:.2f}–{high:.2f})"


def _verdict(pair: Pair, figure: Figure) -> str:
    """The verdict, and the marks of the figures it is about."""
    word = "no ratio" if figure.ratio.verdict == "none" else figure.ratio.verdict.replace("_", " ")
    said = [NOT_COMPARED.get(pair.comparable, word)]
    for side, verdict, codes in zip("AB", pair.verdicts, pair.codes, strict=True):
        if verdict != "valid":
            word = verdict.upper() if verdict == "invalid" else verdict
            said.append(f"{side} {word}" + (f" ({', '.join(codes)})" if codes else ""))
    return "; ".join(said)


def print_outcomes(out: Console, outcomes: Sequence[Outcome]) -> None:
    """The comparisons of one campaign entry, and what their verdicts rest on."""
    from rich.text import Text

    from tokrig.compare.statistics import LEVEL

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
    from rich.text import Text

    told = [f"A/B {outcome.axis}", outcome.name]
    if outcome.order:
        told.append(f"measured as {outcome.order}")
    if outcome.reason:
        told.append(f"not comparable: {outcome.reason}")
    elif not outcome.complete:
        a, b = outcome.measured
        told.append(f"{a} and {b} of {outcome.repeats} repeats each are measured")
    elif any(e.ratio is not None and e.p is None for e in outcome.effects):
        told.append("waits for the entry's other comparisons")
    out.print(Text(line(" · ".join(told))))
    for entry in outcome.differing:
        out.print(Text(line(f"  {entry.key}: {entry.a} → {entry.b}"), style="dim"))
    if outcome.complete and outcome.effects:
        _print_effects(out, outcome.effects)
    for one in outcome.left_out[:LISTED]:
        where = f" {one.where}" if one.where else ""
        text = line(f"left out: arm {one.arm}, {one.record}{where}: {one.why}")
        out.print(Text(text, style="dim"))
    if len(outcome.left_out) > LISTED:
        out.print(Text(f"… and {len(outcome.left_out) - LISTED} more left out", style="dim"))


def _print_effects(out: Console, effects: Sequence[Effect]) -> None:
    """A table; a line or two each, where it is too wide."""
    from rich.text import Text

    numbers = ("A", "B", "B / A", "p")
    table = plain_table("workload × conc.", "figure", *numbers, "verdict", right=numbers)
    listing = Text()
    for effect in effects:
        metric, (verdict, style) = METRICS[effect.metric], AB_VERDICTS[effect.verdict]
        a, b = (
            figure_text(metric.unit, median(one) if one else None) for one in (effect.a, effect.b)
        )
        ratio = None if effect.ratio is None else float(effect.ratio)
        p = NULL
        if effect.adjusted_p is not None:
            p = "<0.0001" if effect.adjusted_p < 0.0001 else f"{float(effect.adjusted_p):.2g}"
        shape = line(f"{effect.shape} × {effect.concurrency}")
        shown = _ratio(ratio, effect.low, effect.high, decimals=3)
        verdict += ", unverified" if effect.unverified else ""
        cells = (shape, metric.label, a, b, shown, p)
        table.add_row(*map(Text, cells), Text(verdict, style=style))
        listing.append(f"{shape} {metric.label}: {a} → {b}, {shown}, p {p}, ")
        listing.append(f"{verdict}\n", style=style)
    listing.rstrip()
    put(out, table if fits(out, table) else listing)
