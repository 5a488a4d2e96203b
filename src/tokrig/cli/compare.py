"""``tokrig compare``: is B slower than A? Records, folders and filters, or two specs measured
beside each other. And the comparisons of campaigns, arm against arm."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokrig.cli.options import (
    UnknownWord,
    content_and_json,
    even_if_busy,
    example,
)
from tokrig.cli.present import (
    NULL,
    console,
    figure_text,
    fits,
    line,
    plain_table,
    print_json,
    put,
)
from tokrig.cli.show import picture, require_picture
from tokrig.cli.sides import complete_side
from tokrig.errors import InputError
from tokrig.record.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console

    from tokrig.campaign.pair import Measured
    from tokrig.compare.ab import Effect, Outcome
    from tokrig.compare.judge import Judgement, Limits
    from tokrig.record.model import Record
    from tokrig.site.charts import Figure
    from tokrig.store import Store

AB_VERDICTS = {
    "faster": ("B faster", "green"),
    "slower": ("B slower", "red"),
    "not_distinguishable": ("not distinguishable", "default"),
    "inconclusive": ("inconclusive", "yellow"),
    "not_comparable": ("not comparable", "yellow"),
}
LISTED = 8
# So many of a rig's records tell its noise; more would take longer than they would add.
MOST_RECORDS = 60
REGRESSION = "regression"
LARGEST_LIMIT = 10.0
STARTS = 8
_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?%")


def _names() -> dict[str, str]:
    """The figures by all that people call them: ``ttft``, ``ttft_s``, ``gen``, ``output``."""
    from tokrig.compare import COMPARED

    found = {}
    for name in COMPARED:
        label = METRICS[name].label.lower()
        short = name.removesuffix("_s").removesuffix("_tok_per")
        for word in (name, short, short.replace("_", "-"), label, label.removesuffix(" tok/s")):
            found[word] = name
    return found


def _limits(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Limits:
    """``regression=3%,ttft=5%`` as limits."""
    from tokrig.compare.judge import Limits

    names, every, own = _names(), None, {}
    for word in (word.strip() for text in given for word in text.split(",") if word.strip()):
        name, equals, share = (part.strip() for part in word.partition("="))
        if name != REGRESSION and name.lower() not in names:
            raise UnknownWord(name, [REGRESSION, *names], ctx, param)
        match = _SHARE.fullmatch(share)
        if not equals or match is None or not 0 < float(match[1]) / 100 <= LARGEST_LIMIT:
            told = f"{word!r} names no share" if not share else f"{share!r} is no share"
            most = f"{100 * LARGEST_LIMIT:.0f}%"
            raise click.BadParameter(f"{told}: give percent above 0, at most {most}: {name}=3%")
        if name == REGRESSION:
            every = float(match[1]) / 100
        else:
            own[names[name.lower()]] = float(match[1]) / 100
    return Limits(every, own)


@click.command(
    "compare",
    epilog=example(
        "tokrig compare 20261122-171500 20261122-183111",
        "tokrig compare build=b9174 build=b9300 rig=my-rig --fail-on regression=3%",
        "tokrig compare baseline/ content/ --fail-on gen=3%,ttft=5% --markdown",
        "tokrig compare --measure before.yaml after.yaml --fail-on regression=3%",
    ),
)
@click.argument("sides", metavar="A B | KEY=VALUE…", nargs=-1, shell_complete=complete_side)
@click.option(
    "--fail-on",
    "limits",
    multiple=True,
    callback=_limits,
    metavar="FIGURE=N%",
    help="How much slower B may be: regression=3% for all figures, ttft=5% for one. Repeat it or"
    " use commas; where only single figures are named, only they are judged.  [default: the noise]",
)
@click.option("--strict", is_flag=True, help="Exit 1 too where the verdict is INCONCLUSIVE.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Only results at this one."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also draw all ratios with their intervals into FILE, .png or .svg.",
)
@click.option(
    "--measure", is_flag=True, help="A and B are spec files: measure both, interleaved, first."
)
@click.option(
    "--starts",
    type=click.IntRange(6, 100),
    default=STARTS,
    show_default=True,
    metavar="N",
    help="Starts of the engine for each side, with --measure.",
)
@click.option(
    "--control/--no-control",
    default=True,
    help="Measure A a second time beside both, so that the noise is known, with --measure.",
)
@even_if_busy
@click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")
@content_and_json
def command(
    sides: tuple[str, ...],
    limits: Limits,
    strict: bool,
    concurrency: int | None,
    measure: bool,
    content: Path,
    as_json: bool,
    **more: Any,
) -> int:
    """Is B slower than A? PASS, FAIL or INCONCLUSIVE, figure by figure.

    A is the reference; ratios are B / A. Each side is a record (its id, the beginning of one, the
    path of its file), several with commas between them, or a folder. Or filters: KEY=VALUE as in
    the list or as a comparison names variables; the key that has two values names the sides.
    Records of one configuration count together, start by start.

    FAIL takes 6 starts of the engine on both sides, p ≤ 0.05 after Holm's correction over all
    figures, and more than the limit. Exit codes: 0 PASS or INCONCLUSIVE, 1 FAIL (with --strict
    INCONCLUSIVE too), 2 bad input or nothing that can be compared, 3 an engine failed.
    """
    from tokrig.store import Store

    plot, markdown = more.pop("plot"), more.pop("markdown")
    if markdown and as_json:
        raise InputError("--markdown and --json are two forms of one answer", hint="give one")
    if plot is not None:
        require_picture(plot)
    control = None
    if not measure:
        _refuse_alone("starts", "control")
    if measure:
        if concurrency is not None:
            raise InputError(
                "--concurrency is of records", hint="the spec files say what to measure"
            )
        measured = _measured(sides, limits, content, **more)
        found, control = measured.judgement, measured.control
    else:
        found = _of_records(sides, limits, concurrency, Store(content), quiet=more["quiet"])
    if (limits.every or limits.own or strict or measure) and not found.rated:
        missing = [text for pair in found.pairs for text in pair.missing]
        raise InputError(
            f"nothing here can be judged: {'; '.join(missing) or 'no figure in common'}",
            hint="tokrig show ID tells what the codes mean"
            if measure
            else "tokrig compare A B, without limits, names what differs",
        )
    if plot is not None:
        _draw(found, plot)
    _print(found, control, markdown=markdown, as_json=as_json)
    return int(found.verdict == "FAIL" or (strict and found.verdict == "INCONCLUSIVE"))


def _refuse_alone(*names: str) -> None:
    """Raises InputError for options that nothing comes of without --measure."""
    ctx = click.get_current_context()
    for name in names:
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise InputError(
                f"--{name} says how two specs are measured", hint="add --measure, or leave it out"
            )


def _of_records(
    words: Sequence[str], limits: Limits, concurrency: int | None, store: Store, *, quiet: bool
) -> Judgement:
    """The judgement of records that are there."""
    from tokrig.cli.sides import sides_of
    from tokrig.compare import pool
    from tokrig.compare.judge import judge

    sides = sides_of(words, store)
    for note in sides.notes if not quiet else ():
        click.echo(f"note: {note}", err=True)
    for name, records in (("A", sides.a), ("B", sides.b)):
        _require_results(name, records, concurrency)
    noise = _noise(store, {record.rig.id for record in (*sides.a, *sides.b)})
    a, b = (pool.groups(side, concurrency=concurrency, noise=noise) for side in (sides.a, sides.b))
    found = pool.matched(a, b, sides.apart)
    alone = [
        f"{side}: {group.subject.id} ({group.subject.name} · {group.subject.place}): no partner"
        for side, group in found.alone
    ]
    return judge(found.pairs, limits, left_out=alone)


def _require_results(side: str, records: Sequence[Record], concurrency: int | None) -> None:
    """Raises InputError where a side has nothing to compare."""
    levels = sorted({result.concurrency for record in records for result in record.results})
    name = records[0].id if len(records) == 1 else f"side {side}"
    if not levels:
        raise InputError(
            f"{name} has no results to compare",
            hint=f"tokrig show {records[0].id} tells why the run failed",
        )
    if concurrency is not None and concurrency not in levels:
        raise InputError(
            f"{name} has no result at concurrency {concurrency}",
            hint=f"it has: {', '.join(map(str, levels))}",
        )


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


def _measured(
    words: Sequence[str],
    limits: Limits,
    content: Path,
    *,
    starts: int,
    control: bool,
    even_if_busy: bool,
    quiet: bool,
) -> Measured:
    """Measure two specs interleaved, and judge them."""
    from tokrig.campaign import pair
    from tokrig.cli.live import Watch, signals_interrupt
    from tokrig.measure import Ways, require_writable
    from tokrig.spec.run import load_spec

    if len(words) != 2:
        raise InputError(
            f"--measure takes two spec files, not {len(words)}",
            hint="tokrig compare --measure before.yaml after.yaml",
        )
    specs = [(word, load_spec(Path(word))) for word in words]
    pair.refuse(specs)
    require_writable(content)
    planned = pair.begun(specs[0][1], specs[1][1], starts, content, control=control)
    watch = Watch(quiet, even_if_busy)
    with signals_interrupt(), watch.preparing() as tell:
        ways = Ways(view=watch.view, tell=tell, start=watch.start)
        arms = pair.measure(planned, content, watch.note, **ways)
    return pair.judged(arms, limits)


def _draw(found: Judgement, plot: Path) -> None:
    def drawn() -> tuple[Figure, str]:
        from tokrig.site.charts.forest import forest

        if (figure := forest(found)) is None:
            raise InputError("there is nothing to draw", hint="a plot needs ratios: see the class")
        pair = found.pairs[0].found
        subject = f"A {pair.a.id}, B {pair.b.id}"
        return figure, subject if len(found.pairs) == 1 else f"{len(found.pairs)} pairs"

    name = picture(plot, drawn)
    click.echo(f"chart {name}: {plot}", err=True)


def _print(found: Judgement, control: Judgement | None, *, markdown: bool, as_json: bool) -> None:
    from tokrig.cli import judged

    if as_json:
        data = found.as_dict()
        if len(found.pairs) == 1:  # as before there were several
            data = found.pairs[0].found.as_dict() | data
        if control is not None:
            data["control"] = control.as_dict()
        print_json(data)
    elif markdown:
        click.echo(judged.markdown(found, control), nl=False)
    else:
        judged.print_judgement(console(), found, control)


# Campaigns


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


def _ratio(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return NULL
    shown = f"×{value:.3f}"
    return shown if low is None or high is None else f"{shown} ({low:.2f}–{high:.2f})"


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
        shown = _ratio(ratio, effect.low, effect.high)
        verdict += ", unverified" if effect.unverified else ""
        cells = (shape, metric.label, a, b, shown, p)
        table.add_row(*map(Text, cells), Text(verdict, style=style))
        listing.append(f"{shape} {metric.label}: {a} → {b}, {shown}, p {p}, ")
        listing.append(f"{verdict}\n", style=style)
    listing.rstrip()
    put(out, table if fits(out, table) else listing)
