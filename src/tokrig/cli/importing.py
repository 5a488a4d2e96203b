"""``tokrig import``: files of other tools as records."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli import present
from tokrig.cli.options import (
    Word,
    complete_model,
    complete_rig,
    completing,
    content_and_json,
    example,
)
from tokrig.errors import ImportRefused, InputError, TokrigError, did_you_mean
from tokrig.registry import names

if TYPE_CHECKING:
    from tokrig.exchange.imports import Imported, Stated
    from tokrig.record.model import Record
    from tokrig.store import Store

# From so many files on it is told how far the work is.
MANY = 20
WRITTEN, SAME, WOULD = "written", "already there", "would be written"


def _formats() -> list[str]:
    return [name.replace("_", "-") for name in names("exchange.formats")]


class FormatName(Word):
    """The name of a format; the folder of formats is listed when it is asked for."""

    def __init__(self) -> None:
        super().__init__(_formats())


@dataclass
class Report:
    """What became of one file: its records and where they lie, or why there are none."""

    path: str
    imported: Imported | None = None
    records: list[tuple[Record, Path, str]] = field(default_factory=list)
    error: TokrigError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found, error = self.imported, self.error
        left_out = found.left_out if found else ()
        return {
            "path": self.path,
            "format": found.format.name if found else None,
            "sha256": found.sha256 if found else None,
            "records": [
                {
                    "id": record.id,
                    "path": str(path),
                    "outcome": outcome,
                    "rig": record.rig.id,
                    "model": record.model.model_dump(exclude_none=True),
                    "results": len(record.results),
                    "raw": len(record.raw),
                    "validity": record.validity.model_dump(),
                    "left_out": list(kept_out),
                }
                for (record, path, outcome), kept_out in zip(self.records, left_out, strict=False)
            ],
            "error": error and {"code": error.code, "message": error.message, "hint": error.hint},
        }


@click.command(
    "import",
    epilog=example(
        "tokrig import bench.json",
        "tokrig import results/*.json --rig my-rig --dry-run",
        "tokrig import batched.jsonl --model gemma-3-270m-it-Q8_0.gguf",
        "tokrig import table.csv --format csv",
    ),
)
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--format",
    "format_",
    type=FormatName(),
    metavar="NAME",
    shell_complete=completing(lambda ctx: _formats()),
    help=f"Read as a file of this tool: {', '.join(_formats())}.  [default: what it looks like]",
)
@click.option(
    "--rig",
    metavar="ID",
    shell_complete=complete_rig,
    help="The machine it was measured on, described in content/rigs/ID.md.",
)
@click.option(
    "--model",
    "-m",
    metavar="NAME|FILE",
    shell_complete=complete_model,
    help="The model it was measured with: a name, or its GGUF file or folder, whose header is"
    " read. For files that do not say it, or not all of it.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@content_and_json
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[Path, ...],
    format_: str | None,
    rig: str | None,
    model: str | None,
    dry_run: bool,
    content: Path,
    as_json: bool,
) -> None:
    """Import results of other tools as records.

    Which tool a file is of is seen from its content. A record has what its file says, converted to
    tokrig's units; what --rig and --model add is marked as said by you. What a tool measures
    otherwise than tokrig is named on every result, and none of them is more than unverified.
    The same file gives the same records. Exit code 1 when one of several files was refused.
    """
    from tokrig.exchange import imports
    from tokrig.store import Store

    said = imports.stated(*_machine(content, rig), model)
    store = Store(content)
    reports: list[Report] = []
    for number, path in enumerate(files, 1):
        _tell(number, len(files))
        reports.append(_examined(path, said, format_, reports))
    _save(reports, store, dry_run)
    if len(reports) == 1 and (error := reports[0].error):
        raise error
    failed = [report for report in reports if report.error]
    if as_json:
        present.print_json({"ok": not failed, "files": [report.as_dict() for report in reports]})
    else:
        _print(reports)
    if failed:
        ctx.exit(1)


def _machine(content: Path, rig: str | None) -> tuple[str | None, Any]:
    """The id of a rig and what is written of it. Raises InputError for one that nobody knows."""
    from tokrig.record.model import Rig
    from tokrig.store import Store
    from tokrig.store.facts import load_rigs
    from tokrig.units import slug

    if rig is None:
        return None, None
    facts = load_rigs(content)
    known = {*facts, *(path.parent.name for path in Store(content).iter_paths())}
    if slug(rig) not in known:
        raise InputError(
            f"no rig {rig!r} in {content}",
            hint=f"describe it in {content}/rigs/{slug(rig)}.md"
            + (f"; {did_you_mean(rig, known)}" if known else ""),
        )
    told = facts.get(slug(rig))
    hardware = told.hardware if told else None
    return rig, Rig(id=slug(rig), **dict(hardware)) if hardware else None


def _tell(number: int, of: int) -> None:
    if of >= MANY and sys.stderr.isatty():
        end = "\n" if number == of else ""
        click.echo(f"\rreading file {number} of {of}{end}", err=True, nl=False)


def _examined(path: Path, said: Stated, format_: str | None, before: Sequence[Report]) -> Report:
    """A file's records, none of them written yet."""
    from tokrig.exchange import imports

    report = Report(str(path))
    try:
        found = imports.read(path, said, format_)
        twin = next((r for r in before if r.imported and r.imported.sha256 == found.sha256), None)
        if twin is not None:
            raise ImportRefused(f"{path}: the same file as {twin.path}", hint="name it once")
        report.imported = found
    except TokrigError as problem:
        report.error = problem
    return report


def _save(reports: Sequence[Report], store: Store, dry_run: bool) -> None:
    for report in reports:
        if report.imported is None:
            continue
        try:
            planned = [(record, *_place(record, store)) for record in report.imported.records]
            for record, path, is_there in planned:
                if not is_there and not dry_run:
                    store.save(record, None)
                outcome = SAME if is_there else WOULD if dry_run else WRITTEN
                report.records.append((record, path, outcome))
        except TokrigError as problem:
            report.error = problem


def _place(record: Record, store: Store) -> tuple[Path, bool]:
    """Where a record belongs, and whether it is there. Raises ImportRefused where another of its
    id is."""
    path = store.record_path(record)
    for there in store.runs.glob(f"*/{path.name}"):
        if there == path and store.read(there) == record:
            return path, True
        raise ImportRefused(
            f"{there}: this file was imported before, with another rig or model, or by another"
            " version of tokrig",
            hint=f"remove {there} to import it again",
        )
    return path, False


def _print(reports: Sequence[Report]) -> None:
    from tokrig.record.checks import HINTS

    out = present.console()
    codes: dict[str, None] = {}
    for report in reports:
        if report.error is not None:
            _refused(report.path, report.error)
        for record, path, outcome in report.records:
            assert report.imported is not None
            title = report.imported.format.title
            out.print(f"{outcome}: {path}", style="bold", soft_wrap=True)
            out.print(f"  {title}: {present.subject(record)}", soft_wrap=True)
            for line in _lines(record):
                out.print(f"  {line}", soft_wrap=True)
            codes |= dict.fromkeys(code for code in _told(record))
    if codes:
        out.print()
        present.print_pairs(out, [(code, HINTS[code]) for code in codes])
    ids = [record.id for report in reports for record, _, _ in report.records]
    if ids:
        out.print()
        out.print(f"{present.count(len(ids), 'record')}; tokrig show {ids[0]} shows one")


def _refused(path: str, problem: TokrigError) -> None:
    """A file among others, on stderr, as an error is told that ends a command."""
    for label, text, color in (("error:", problem.message, "red"), ("hint:", problem.hint, "cyan")):
        for line in filter(None, text.splitlines()):
            click.echo(f"{click.style(label, fg=color)} {line}", err=True)


def _told(record: Record) -> list[str]:
    found = [code for result in record.results for code in result.validity.unverified]
    return list(dict.fromkeys([*record.validity.reasons, *found, *record.validity.unverified]))


def _lines(record: Record) -> Iterator[str]:
    """What is in a record, in a line or two."""
    kinds = [(len(record.results), "result"), (len(record.raw), "raw figure")]
    counted = ", ".join(present.count(number, word) for number, word in kinds if number)
    yield f"{counted}, {present.verdict(record.validity)}: {', '.join(_told(record))}"
    yield from (record.notes or "").splitlines()
