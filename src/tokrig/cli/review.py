"""``tokrig review``: what a contribution of records changes, for whoever is to merge it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli import present
from tokrig.cli.options import content_and_json, example
from tokrig.naming import full_name, in_markdown

if TYPE_CHECKING:
    from tokrig.cli.check import Report
    from tokrig.store import Store
    from tokrig.store.load import Row, Run

RECORDS, SAMPLES = "benchmarks/runs/", "benchmarks/samples/"
BESIDE = ("rigs/", "models/", "urls.txt")
# Where the nearest record is of the same machine or card, such a distance wants a word.
OUTLIER = 0.10
SUMMARY_LINES = 10


@dataclass
class Found:
    """One changed file: what must be mended, what wants a look, how it stands among the others."""

    path: str
    change: str
    name: str = ""
    verdict: str = ""
    wrong: list[str] = field(default_factory=list)
    look: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ranks: list[str] = field(default_factory=list)


@click.command("review", epilog=example("tokrig review origin/main --markdown"))
@click.argument("base", metavar="BASE")
@click.option("--markdown", is_flag=True, help="Ten lines for a comment, details folded.")
@content_and_json
@click.pass_context
def command(ctx: click.Context, base: str, markdown: bool, content: Path, as_json: bool) -> None:
    """Review the records of a pull request: checks, kin, ranks.

    That is: those that were added or changed since BASE, a commit of their repository. Each is
    checked as tokrig check does, looked through for what is private, held against its kin and the
    nearest published record, and ranked. Published figures are never edited: a changed or removed
    record is told. Exit code 1 where something must be mended.
    """
    from tokrig import submission

    changes = submission.changed_since(content, base)
    found = list(_reviewed(changes, content))
    wrong = any(one.wrong for one in found)
    if as_json:
        present.print_json({"ok": not wrong, "files": [asdict(one) for one in found]})
    else:
        click.echo(_markdown(found) if markdown else _plain(found))
    if wrong:
        ctx.exit(1)


def _reviewed(changes: Sequence[tuple[str, str]], content: Path) -> Iterator[Found]:
    from tokrig.cli.check import examine, tell_implausible
    from tokrig.compare.reproduced import Beside
    from tokrig.store import Store
    from tokrig.store.load import load

    store = Store(content)
    reports = {
        path: examine(content / path, store)
        for change, path in changes
        if path.startswith(RECORDS) and change != "removed" and not (content / path).is_symlink()
    }
    tell_implausible(list(reports.values()), content)
    added = {r.record.id for r in reports.values() if r.record}
    runs = load(store, keep_going=True).runs
    standing = dict(_standing(runs, added))
    beside = Beside(run.record for run in runs)
    if outside := [path for _, path in changes if path.startswith("../")]:
        files = present.count(len(outside), "file")
        yield Found("..", "changed", look=[f"{files} outside the content folder: {outside[0]} …"])
    for change, path in changes:
        if path.startswith("../"):
            continue
        found = Found(path, change)
        if (content / path).is_symlink():
            found.wrong.append("a link: a contribution is of files")
        elif path in reports:
            _of_record(found, reports[path], store, added, standing)
            if (record := reports[path].record) and (others := beside.of(record)).others:
                told = found.look if others.word == "contradicted" else found.notes
                told.append(str(others))
        elif path.startswith(RECORDS):
            found.wrong.append("a published record was removed")
        elif path.startswith(SAMPLES):
            if Path(path).stem not in added:
                found.wrong.append("samples without a new record")
        elif not path.startswith(BESIDE):
            found.look.append("no part of a contribution")
        yield found


def _of_record(
    found: Found,
    report: Report,
    store: Store,
    added: set[str],
    standing: dict[str, list[str]],
) -> None:
    from tokrig.submission import looks_private, nearest

    found.verdict = report.word
    found.wrong += report.problems
    if report.record is None:
        return
    record = report.record
    found.name = " · ".join(filter(None, full_name(record)))
    found.ranks = standing.get(record.id, [])
    found.wrong += [f"looks private: {text}" for text in looks_private(record)]
    if found.change == "changed":
        found.wrong.append("a published record was edited: figures never are, errata stand beside")
    if report.word == "INVALID":
        found.look.append(f"INVALID: {', '.join(record.validity.reasons)}")
    found.look += report.told
    pair = nearest(record, store, without=added)
    if pair is None:
        found.notes.append("the first record of this model")
        return
    means = [mean.value for mean in pair.means if mean.metric == "output_tok_per_s"]
    ratio = f"gen {means[0]:.2f} ×" if means else "no ratio to"
    text = f"{ratio} the nearest record {pair.a.id}, class {pair.grade}: {pair.reason}"
    far = bool(means) and pair.grade in "AB" and abs(means[0] - 1) > OUTLIER
    (found.look if far else found.notes).append(text)


def _standing(runs: Sequence[Run], added: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The ranks of new records: ``chat × 1: 3 of 41``."""
    from tokrig.compare.statistics import ties
    from tokrig.store.load import Row

    cells = dict.fromkeys(r.cell for run in runs if run.id in added for r in run.record.plain)
    ranks: dict[str, list[str]] = {}
    for cell in cells:
        rows = [Row(run, r) for run in runs for r in run.record.plain if r.cell == cell]
        rows.sort(key=_rate, reverse=True)
        words = ties(rows)
        ranked = sum(map(bool, words))
        for row, word in zip(rows, words, strict=True):
            if row.run.id in added and word:
                ranks.setdefault(row.run.id, []).append(f"{cell.label}: {word} of {ranked}")
    yield from ranks.items()


def _rate(row: Row) -> float:
    figure = row.result.output_tok_per_s
    return figure.median if figure else 0.0


# Words


def _lines(found: Sequence[Found]) -> list[str]:
    records = [one for one in found if one.verdict]
    words = [one.verdict for one in records]
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    wrong = sum(len(one.wrong) for one in found)
    head = f"{present.count(len(records), 'record')}" + (f": {counted}" if counted else "")
    state = f"{present.count(wrong, 'thing')} to mend" if wrong else "nothing to mend"
    return [f"{head}; {state}"]


def _details(one: Found) -> Iterator[str]:
    yield f"{one.change} {one.path}" + (f", {one.verdict}" if one.verdict else "")
    if one.name:
        yield f"  {one.name}"
    yield from (f"  mend: {text}" for text in one.wrong)
    yield from (f"  look: {text}" for text in one.look)
    yield from (f"  {text}" for text in one.notes)
    if one.ranks:
        yield f"  rank by gen tok/s: {'; '.join(one.ranks)}"


def _plain(found: Sequence[Found]) -> str:
    return "\n".join([*(line for one in found for line in _details(one)), *_lines(found)])


def _markdown(found: Sequence[Found]) -> str:
    """The gravest first, at most ten lines; all of it folded below."""
    ordered = sorted(found, key=lambda one: (not one.wrong, not one.look, not one.verdict))
    lines = [f"**{text}**" for text in _lines(found)]
    for one in ordered:
        if not (one.verdict or one.wrong or one.look):
            continue
        said = [*(f"mend: {text}" for text in one.wrong), *one.look, *one.ranks, *one.notes]
        mark = "❌" if one.wrong else "⚠️" if one.look else "✅"
        words = "; ".join(filter(None, (one.verdict or one.change, *said[:3])))
        lines.append(in_markdown(f"{mark} {one.name or one.path}: {words}"))
    if len(lines) > SUMMARY_LINES:
        more = len(lines) - SUMMARY_LINES + 1
        lines[SUMMARY_LINES - 1 :] = [f"… and {more} more below"]
    lines = [lines[0], "", *(f"- {line}" for line in lines[1:])]
    whole = "\n".join(line for one in found for line in _details(one)).replace("`", "'")
    fold = f"<details><summary>all {present.count(len(found), 'file')}</summary>"
    return "\n".join([*lines, "", fold, "", "```text", whole, "```", "", "</details>"])
