"""``tokrig check``: does a record hold what it says, and does it follow from its samples?"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli import present
from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.cli.show import root_of
from tokrig.errors import InputError, TokrigError

if TYPE_CHECKING:
    from rich.console import Console

    from tokrig.documents import Place
    from tokrig.record.model import Record
    from tokrig.record.quality import Quality
    from tokrig.store import Store
    from tokrig.store.facts import RigFacts


WORDS = ("valid", "unverified", "INVALID", "broken")


@dataclass
class Report:
    """What the check of one file found. Any problem makes the file broken; an INVALID result
    that is marked as such is none, nor is what is told: a rate beyond what is plausible."""

    path: Path
    record: Record | None = None
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        """``broken``, ``INVALID``, ``unverified`` or ``valid``."""
        if self.problems or self.record is None:
            return "broken"
        return present.verdict(self.record.validity)

    def fail(self, problem: TokrigError) -> None:
        """The file, or what belongs to it, cannot be read."""
        self.problems += problem.message.splitlines()
        self.hints += problem.hint.splitlines()

    def at_lines(self, found: Sequence[tuple[Place, str]]) -> list[str]:
        """``file:line: reason`` of places in the file, in its order."""
        from tokrig.documents import lines_of

        if not found:
            return []
        text = self.path.read_text(encoding="utf-8-sig")
        lines = lines_of(text, [place for place, _ in found])
        ordered = sorted(zip(lines, found, strict=True), key=lambda one: one[0])
        return [f"{self.path}:{line}: {reason}" for line, (_, reason) in ordered]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": str(self.path),
            "id": self.record.id if self.record else None,
            "status": self.record.status if self.record else None,
            "outcome": self.word,
            "problems": self.problems,
            "implausible": self.told,
            "hints": self.hints,
            "validity": self.record.validity.model_dump() if self.record else None,
        }


@click.command(
    "check",
    epilog=example("tokrig check", "tokrig check content/benchmarks/runs/my-rig/*.yaml"),
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, shell_complete=complete_run_id)
@click.option("--verbose", "-v", is_flag=True, help="Explain every code of every record.")
@content_and_json
@click.pass_context
def command(
    ctx: click.Context, paths: tuple[str, ...], verbose: bool, content: Path, as_json: bool
) -> None:
    """Validate records: schema, recomputation from samples, validity.

    A line a record, more of those with problems, then a summary. PATH is a file, a folder or a
    run's id; without one the whole content folder is checked.
    Every published figure is computed again from the samples, and held against the record's
    other fields. Exit code 1 when a record is broken, contradicts itself or its samples, or has
    lost them. A result marked INVALID is reported and is no error: it says so itself.
    """
    from tokrig.record.checks import HINTS
    from tokrig.store import Store

    files = list(dict.fromkeys(_files(paths, Store(content))))
    reports = [examine(file, Store(root_of(file) or content)) for file in files]
    tell_implausible(reports, content)
    broken = any(report.word == "broken" for report in reports)
    if as_json:
        found = [f.code for one in reports if one.record for f in present.findings(one.record)]
        codes = {code: HINTS.get(code, "") for code in sorted({*found})}
        records = [report.as_dict() for report in reports]
        present.print_json({"ok": not broken, "records": records, "codes": codes})
    elif reports:
        _print(present.console(), reports, verbose)
    if not files:
        click.echo(f"no records in {', '.join(paths) or content}", err=True)
    if broken:
        ctx.exit(1)


def _files(paths: Sequence[str], store: Store) -> Iterator[Path]:
    from tokrig.store import Store

    if not paths:
        yield from store.iter_paths()
    for given in paths:
        path = Path(given)
        if path.is_dir():
            own = Store(path)
            # Other YAML lives in a content folder too: facts about models are no records.
            yield from own.iter_paths() if own.runs.is_dir() else sorted(path.rglob("*.yaml"))
        elif path.is_file():
            yield path
        elif path.suffix or len(path.parts) > 1:
            raise InputError(f"no such file or folder: {given}", hint="tokrig list shows records")
        else:
            yield store.find(given)


def examine(path: Path, store: Store) -> Report:
    """Read a record and its samples, and compare them."""
    from tokrig.record import consistency

    report = Report(path)
    try:
        record = report.record = store.read(path)
    except TokrigError as problem:
        report.fail(problem)
        return report
    report.problems += [*_misplaced(record, path), *_other_source(record, store.content)]
    measured = record.provenance.kind == "measured"
    found = None
    try:
        if measured or store.samples_path(record.id).exists():
            found = consistency.contradictions(record, store.read_samples(record.id))
    except TokrigError as problem:
        # A run that failed before its first figure has nothing that samples could prove.
        if record.results or not measured:
            report.fail(problem)
    if found is None:
        found = consistency.own_contradictions(record)
    places = [(one.place, str(one)) for one in found]
    if record.quality is not None:
        _check_answers(report, record.quality, store, places)
    report.problems += report.at_lines(places)
    return report


def _check_answers(
    report: Report, told: Quality, store: Store, places: list[tuple[Place, str]]
) -> None:
    """Compute what is told of the answers again, from their file and the reference's. Where that
    one is not here nothing says that it is wrong."""
    from tokrig.record.quality import Reference, quality

    assert report.record is not None
    reference = None
    try:
        answers, _ = store.read_answers(report.record.id)
        if (named := told.reference) is not None:
            if not store.answers_path(named.id).exists():
                lost = f"the answers of its reference {named.id} are not here"
                report.hints.append(f"quality is not computed again: {lost}")
                return
            others, sha256 = store.read_answers(named.id)
            if sha256 != named.sha256:
                text = f"quality.reference.sha256 is not that of the answers of {named.id}"
                places.append((("quality", "reference", "sha256"), text))
                return
            reference = Reference(named.id, named.quant, sha256, others)
    except TokrigError as problem:
        report.fail(problem)
        return
    again = quality(answers, reference)
    for name in type(told).model_fields:
        old, new = getattr(told, name), getattr(again, name)
        if old != new:
            text = f"quality.{name} is {old}, the answers give {new}"
            places.append((("quality", name) if old is not None else ("quality",), text))


def _other_source(record: Record, content: Path) -> Iterator[str]:
    """A text that figures were taken from, kept in the repository, is the one that was meant."""
    told = record.provenance
    kept = content.absolute().parent / (told.source_url or "")
    if told.source_sha256 is None or "://" in (told.source_url or "") or not kept.is_file():
        return
    if hashlib.sha256(kept.read_bytes()).hexdigest() != told.source_sha256:
        yield f"provenance.source_sha256 does not match {told.source_url}"


def tell_implausible(reports: Sequence[Report], content: Path) -> None:
    """Marks what is not plausible beside its kin: all records that were given, and those that lie
    beside them."""
    from tokrig.compare import kin
    from tokrig.store import Store
    from tokrig.store.facts import load_rigs

    records = {report.path.absolute(): report.record for report in reports if report.record}
    store = Store(content)
    for folder in {path.parent for path in records}:
        for path in sorted(folder.glob("*.yaml")):
            if path.absolute() not in records:
                with contextlib.suppress(TokrigError):
                    records[path.absolute()] = store.read(path)
    facts: dict[str, RigFacts] = {}
    with contextlib.suppress(TokrigError):  # said where it matters: when the site is built
        for root in {root_of(report.path) or content for report in reports}:
            facts |= load_rigs(root)
    found = kin.implausible(records.values(), facts)
    for report in reports:
        if report.record and (told := found.get(report.record.id)):
            places = [("results", index, "output_tok_per_s", "median") for index in told]
            texts = kin.texts(report.record, told)
            report.told = report.at_lines(list(zip(places, texts, strict=True)))
            report.record = kin.marked(report.record, told)


def _misplaced(record: Record, path: Path) -> Iterator[str]:
    """A record is found by its file's name and its rig's folder."""
    if record.id != path.stem:
        yield f"the id {record.id!r} does not match the file name"
    if root_of(path) and record.rig.id != path.parent.name:
        yield f"the rig {record.rig.id!r} does not match the folder name"


def _print(out: Console, reports: Sequence[Report], verbose: bool) -> None:
    meanings: dict[str, str] = {}
    for report in reports:
        found = list(present.findings(report.record)) if report.record else []
        gravest = next((f.kind for f in found), "")
        codes = dict.fromkeys(f.code for f in found if f.kind == gravest != "unchecked")
        if report.word == "unverified":
            codes = codes or dict.fromkeys(f.code for f in found)
        why = f"  {', '.join(codes)}" if codes and not verbose else ""
        style = present.STYLES[report.word]
        out.print(f"{report.word:<10} {report.path}{why}", style=style, soft_wrap=True)
        lines = [(text, "") for text in (*report.problems, *report.told)]
        lines += [(f"hint: {hint}", "cyan") for hint in report.hints]
        if verbose:
            lines += [(f"{finding.kind}: {finding}", "") for finding in found]
            meanings |= {finding.code: finding.hint for finding in found}
        for text, style in lines:
            out.print(f"           {text}", style=style, soft_wrap=True)
    out.print()
    if meanings:
        present.print_pairs(out, meanings.items())
        out.print()
    words = [report.word for report in reports]
    counted = ", ".join(f"{words.count(w)} {w}" for w in WORDS)
    more = "" if verbose or set(words) == {"valid"} else "; -v explains the codes"
    out.print(f"{present.count(len(reports), 'record')}: {counted}{more}")
