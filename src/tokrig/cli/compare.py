"""``tokrig compare``: whether two records can be compared, what differs, how much faster."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rich.console import Console
    from rich.table import Table

    from tokrig.query.compare import Comparison
    from tokrig.query.pairs import Figure, Pair
    from tokrig.record.model import Record
    from tokrig.store import Store

LABELS = {
    "output_tok_per_s": "gen tok/s",
    "ttft_s": "TTFT",
    "prefill_tok_per_s": "prefill tok/s",
    "end_to_end_tok_per_s": "end-to-end tok/s",
    "system_tok_per_s": "system tok/s",
}
NOT_COMPARED = {
    "invalid": "not compared",
    "other_shape": "another shape of the same name",
    "other_length": "prompts of another length",
}
# So many of a rig's records tell its noise; more would take longer than they would add.
MOST_RECORDS = 60
GRADE_STYLES = {"A": "bold green", "B": "bold green", "C": "bold yellow", "D": "bold red"}


@click.command(
    "compare",
    epilog=example(
        "tokrig compare 20261122-171500 20261122-183111",
        "tokrig compare seed-gemma-4-e2b seed-gemma-4-e4b --concurrency 1",
    ),
)
@click.argument("a", metavar="A", shell_complete=complete_run_id)
@click.argument("b", metavar="B", shell_complete=complete_run_id)
@click.option("--concurrency", type=click.IntRange(min=1), help="Only results at this one.")
@content_and_json
def command(a: str, b: str, concurrency: int | None, content: Path, as_json: bool) -> None:
    """Compare two records: class, differing keys, ratios.

    A is the reference; ratios are B / A. Each is a record's id, the beginning of one, or the path
    of its file. Class A: same machine, at most one changed variable; B: same GPU model, build,
    model hash and shape; C: same model and quant, other hardware or not all known; D: not
    comparable, no ratios. Faster or slower takes 6 starts of the engine on both sides.
    """
    from tokrig.cli import present, words
    from tokrig.query.compare import comparison, subject
    from tokrig.store import Store

    store = Store(content)
    records = [store.read(store.find(wanted)) for wanted in (a, b)]
    for record in records:
        _refuse_empty(record, concurrency)
    noise = _noise(store, {record.rig.id for record in records})
    a_side, b_side = (
        subject(record, concurrency=concurrency, noise=noise.get(record.rig.id))
        for record in records
    )
    found = comparison(a_side, b_side)
    if as_json:
        words.print_json(found.as_dict())
    else:
        print_comparison(present.console(), found)


def _noise(store: Store, rigs: Collection[str]) -> dict[str, Mapping[str, float]]:
    """The A/A noise of these rigs, from their newest records with starts enough."""
    from tokrig.errors import TokrigError
    from tokrig.query.noise import noise_of

    found: list[Record] = []
    for row in store.listing().rows:
        if row.rig in rigs and row.level in ("standard", "publish") and len(found) < MOST_RECORDS:
            with contextlib.suppress(TokrigError):  # tokrig check names what cannot be read
                found.append(store.read(store.runs / row.path))
    return noise_of(found)


def _refuse_empty(record: Record, concurrency: int | None) -> None:
    levels = sorted({result.concurrency for result in record.results})
    if not levels:
        raise InputError(
            f"{record.id} has no results to compare", hint="tokrig show tells why a run failed"
        )
    if concurrency is not None and concurrency not in levels:
        known = ", ".join(map(str, levels))
        raise InputError(
            f"{record.id} has no result at concurrency {concurrency}", hint=f"it has: {known}"
        )


def print_comparison(out: Console, found: Comparison) -> None:
    """The class and its reason, what differs, the figures, what is not known."""
    from rich.text import Text

    from tokrig.cli import present

    sides = (("A", found.a), ("B", found.b))
    present.print_pairs(out, [(side, f"{one.id}  {one.name} · {one.place}") for side, one in sides])
    out.print()
    grade = Text(f"class {found.grade}", style=GRADE_STYLES[found.grade])
    present.put(out, grade.append(f": {found.reason}", style="default"))
    for note in found.notes:
        out.print(f"  {note}", style="dim")
    if found.differences.differing:
        out.print()
        present.put(out, _differing(found))
    if found.pairs:
        out.print()
        present.put(out, _figures(found))
        for line in _reading(found):
            present.put(out, Text(line, style="dim"))
    if found.differences.unknown:
        keys = ", ".join(entry.key for entry in found.differences.unknown)
        out.print()
        out.print(f"not known of both: {keys}", style="dim")


def _reading(found: Comparison) -> Iterator[str]:
    """What the verdicts rest on, and what would settle those that are inconclusive."""
    from tokrig.query.ratios import SMALLEST_EFFECT

    ratios = [figure.ratio for pair in found.pairs for figure in pair.figures]
    if all(ratio.value is None for ratio in ratios):
        return
    yield "ratio: B / A"
    tests = sum(ratio.basis == "starts" for ratio in ratios)
    if tests:
        yield (
            f"in brackets: its interval between starts, 95 % for all {tests} ratios together;"
            f" faster or slower: it excludes 1, and more than {100 * SMALLEST_EFFECT:g} %"
        )
    noise = max((n for side in (found.a, found.b) for n in side.noise.values()), default=0.0)
    if noise > SMALLEST_EFFECT and found.differences.changed:
        yield f"two runs of the same on this rig differ by up to {100 * noise:.1f} %: so must these"
    for settle in dict.fromkeys(ratio.settle for ratio in ratios if ratio.settle):
        yield f"inconclusive: {settle}"
    if any(
        "backend.managed" in side.keys and side.keys["backend.managed"] == "no"
        for side in (found.a, found.b)
    ):
        yield "a server that was attached to is one start: let tokrig start it, --level standard"


def _differing(found: Comparison) -> Table:
    from tokrig.cli import present

    table = present.plain_table()
    for heading in ("differs", "variable", "A", "B"):
        table.add_column(heading, overflow="fold")
    for entry in found.differences.differing:
        table.add_row(
            entry.key,
            entry.variable,
            str(entry.a),
            str(entry.b),
            style="" if entry.variable in found.differences.changed else "dim",
        )
    return table


def _figures(found: Comparison) -> Table:
    """Shape by shape; the geometric means where there are any."""
    from tokrig.cli import present

    table = present.plain_table()
    for place, heading in enumerate(("workload × conc.", "figure", "A", "B", "ratio", "verdict")):
        justify: Literal["left", "right"] = "right" if place in (2, 3) else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for pair in found.pairs:
        shown = [figure for figure in pair.figures if figure.a or figure.b]
        for place, figure in enumerate(shown):
            table.add_row(
                _label(pair.shape, pair.concurrency) if place == 0 else "",
                *_cells(pair, figure),
                end_section=place == len(shown) - 1,
            )
    for mean in found.means:
        where = _label(f"all {mean.shapes}", mean.concurrency)
        table.add_row(
            *(where, LABELS[mean.metric], "", "", f"×{mean.value:.2f}"),
            "geometric mean of ratios" + ("" if mean.verdict == "valid" else ", unverified"),
        )
    return table


def _label(shape: str, levels: tuple[int, int]) -> str:
    return f"{shape} × {' / '.join(dict.fromkeys(map(str, levels)))}"


def _cells(pair: Pair, figure: Figure) -> tuple[str, ...]:
    """Name, both values with their spreads, the ratio, the verdict."""
    from tokrig.cli.words import NULL, rate
    from tokrig.units import human_seconds

    text = human_seconds if figure.metric == "ttft_s" else rate
    values = (text(metric.median) if metric else NULL for metric in (figure.a, figure.b))
    ratio = figure.ratio
    shown = NULL if ratio.value is None else f"×{ratio.value:.2f}"
    if ratio.low is not None and ratio.high is not None:
        shown += f" ({ratio.low:.2f}–{ratio.high:.2f})"
    return LABELS[figure.metric], *values, shown, _verdict(pair, figure)


def _verdict(pair: Pair, figure: Figure) -> str:
    """The verdict, and the marks of the figures it is about."""
    if pair.comparable != "yes":
        said = NOT_COMPARED[pair.comparable]
    elif figure.ratio.verdict == "none":
        said = "no ratio"
    else:
        said = figure.ratio.verdict.replace("_", " ")
    return "; ".join([said, *_marks(pair)])


def _marks(pair: Pair) -> Iterator[str]:
    for side, verdict, codes in zip("AB", pair.verdicts, pair.codes, strict=True):
        if verdict != "valid":
            word = verdict.upper() if verdict == "invalid" else verdict
            yield f"{side} {word} ({', '.join(codes)})" if codes else f"{side} {word}"
