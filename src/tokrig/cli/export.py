"""``tokrig export``: records in the formats of other tools."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import (
    complete_run_id,
    completing,
    content_and_json,
    example,
    record_filters,
)
from tokrig.cli.present import bars, complain, count, print_json
from tokrig.errors import InputError, StoreError, did_you_mean
from tokrig.files import atomic_write

if TYPE_CHECKING:
    from tokrig.record.samples import Sample
    from tokrig.store import Store
    from tokrig.store.load import Run

LISTED = 10


def _formats() -> list[str]:
    from tokrig.exchange import exports

    return exports.names()


@click.command(
    "export",
    epilog=example(
        "tokrig export 20261122-171500 --format markdown",
        "tokrig export --model gemma --status valid -o gemma.csv",
        "tokrig export --all --format benchstat -o all.txt",
    ),
)
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=complete_run_id)
@click.option("--all", "every", is_flag=True, help="All records of the content folder.")
@record_filters
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    shell_complete=completing(lambda ctx: _formats()),
    help="csv, parquet, json, benchstat, vllm or markdown.  [default: by the end of FILE]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to FILE, whole or not at all; - is stdout.  [default: -]",
)
@content_and_json
def command(
    runs: tuple[str, ...],
    every: bool,
    format_name: str | None,
    output: Path | None,
    content: Path,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """Write records as CSV, Parquet, benchstat, vLLM JSON or Markdown.

    RUN is a record's id, the beginning of one, or the path of its file; the options choose as
    those of tokrig list do. CSV, JSON and Parquet have one row a result, as the page's data files;
    benchstat one line a start of the engine; vllm what vllm bench serve writes, computed from the
    samples; markdown a table for an issue or a forum. What a format has no place for is told on
    stderr.
    """
    from tokrig.exchange import exports
    from tokrig.store import Store

    file = None if output is None or str(output) == "-" else output
    name = _format(format_name, file)
    if as_json and file is None:
        raise InputError("--json tells of a file", hint="name one with -o FILE")
    format_ = exports.named(name)
    if file is None and not format_.text and sys.stdout.isatty():
        raise InputError(f"{name} is no text for a terminal", hint="name a file with -o FILE")
    store = Store(content)
    chosen = _chosen(store, runs, every, wanted)
    made = format_.make(chosen, partial(_samples, store))
    if file is None:
        sys.stdout.buffer.write(made.data)
    else:
        _write(file, made.data)
    for note in made.notes[:LISTED]:
        click.echo(f"note: {note}", err=True)
    if len(made.notes) > LISTED:
        click.echo(f"… and {len(made.notes) - LISTED} more such notes", err=True)
    results = sum(len(run.record.results) for run in chosen)
    if as_json:
        told = {"file": str(file), "format": name, "runs": len(chosen), "results": results}
        print_json({**told, "bytes": len(made.data), "notes": list(made.notes)})
    elif file is not None:
        what = f"{count(len(chosen), 'run')}, {count(results, 'result')}"
        click.echo(f"{what} as {name}: {file}", err=True)


def _format(name: str | None, file: Path | None) -> str:
    """The format that was asked for, or that of the file's name."""
    from tokrig.exchange import exports

    if name is None:
        name = exports.by_suffix(file.suffix) if file else "markdown"
    if name is None:
        raise InputError(
            f"the name {file} tells no format", hint=f"choose it with --format: {_listed()}"
        )
    if name not in exports.names():
        hint = did_you_mean(name, exports.names())
        raise InputError(f"--format: {name!r} is unknown", hint=hint)
    return name


def _listed() -> str:
    return ", ".join(_formats())


def _chosen(store: Store, given: Sequence[str], every: bool, wanted: dict[str, Any]) -> list[Run]:
    """The runs meant, with the verdicts that pages show."""
    from tokrig.compare.marked import load_marked
    from tokrig.store.filters import Filters

    if not (given or every or any(wanted.values())):
        raise InputError(
            "which records?", hint="name runs, choose with --model and its like, or take --all"
        )
    paths = [store.find(one) for one in given]
    if outside := [path for path in paths if store.runs.resolve() not in path.resolve().parents]:
        raise InputError(
            f"{outside[0]} lies in no {store.runs}", hint="--content names its content folder"
        )
    with bars() as tell:
        loaded = load_marked(
            store, keep_going=True, progress=lambda done, of: tell("records", done, of)
        )
    ids = {row.id for row in Filters(**wanted).of(store.listing().rows)}
    by_id = {run.id: run for run in loaded.runs if run.id in ids}
    named = list(dict.fromkeys(path.stem for path in paths))
    for problem in loaded.problems:
        if Path(problem.path).stem in named:
            raise InputError(problem.message, hint="tokrig check names all that is wrong in it")
    if not given:
        complain(loaded.problems)
    chosen = [by_id[one] for one in named if one in by_id] if given else list(by_id.values())
    if not chosen:
        told = f"none of {len(loaded.runs)} records matches" if loaded.runs else "no records"
        raise InputError(f"{told} in {store.content}", hint="tokrig list shows the records")
    return chosen


def _samples(store: Store, run: Run) -> list[Sample]:
    return store.read_samples(run.id) if run.samples_digest else []


def _write(file: Path, data: bytes) -> None:
    try:
        atomic_write(file, data)
    except OSError as problem:
        raise StoreError(
            f"{file}: cannot be written: {problem.strerror or problem}",
            hint="see to room and permissions, or choose another file with -o",
        ) from None
