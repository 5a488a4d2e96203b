"""``tokrig submit``: records as a branch and a pull request's text, checked, nothing uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.errors import CheckFailed

if TYPE_CHECKING:
    from tokrig.store import Store
    from tokrig.submission import Submission


@click.command(
    "submit",
    epilog=example("tokrig submit ID --dry-run", "tokrig submit ID --to ~/tokrig/content"),
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run_id)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Content folder of a clone of the page's repository.  [default: --content]",
)
@click.option("--base", metavar="COMMIT", help="What to branch off.  [default: the remote's main]")
@click.option("--dry-run", is_flag=True, help="Show it all, make no branch.")
@click.option("--not-private", is_flag=True, help="What looks private is not: go on.")
@content_and_json
def command(
    runs: tuple[str, ...],
    to: Path | None,
    base: str | None,
    dry_run: bool,
    not_private: bool,
    content: Path,
    as_json: bool,
) -> None:
    """Make a checked branch of records for a pull request.

    RUN is a record's id, the beginning of one, or its file. Each is checked as tokrig check does,
    looked through for what is private, and compared with the nearest published record. The branch
    is made beside what is checked out, and nothing is uploaded.
    """
    from tokrig import submission
    from tokrig.cli import present
    from tokrig.store import Store

    store = Store(content)
    paths = [store.find(run) for run in runs]
    _require_sound(paths, store)
    found = submission.gathered(paths, store, to or content, base)
    private = {entry.record.id: list(entry.private) for entry in found.entries if entry.private}
    if as_json:
        present.print_json(_as_json(found, private))
    else:
        _print(found)
    if private and not not_private:
        places = "; ".join(text for texts in private.values() for text in texts)
        raise CheckFailed(
            f"this looks private: {places}",
            hint="take it out of the record, or go on with --not-private",
        )
    if dry_run:
        click.echo("nothing was made: leave out --dry-run for the branch", err=True)
        return
    commit = submission.committed(found)
    where = "" if found.root == Path.cwd() else f"-C {found.root} "
    click.echo(f"branch {found.branch} at {commit[:12]}; nothing was uploaded", err=True)
    click.echo("send it with:", err=True)
    click.echo(f"  git {where}push -u origin {found.branch}", err=True)
    click.echo(f"  gh pr create --head {found.branch} --fill", err=True)


def _require_sound(paths: list[Path], store: Store) -> None:
    from tokrig.cli.check import examine
    from tokrig.cli.show import root_of
    from tokrig.store import Store

    for path in paths:
        report = examine(path, Store(root_of(path) or store.content))
        if report.word in ("broken", "INVALID"):
            why = report.problems or report.record.validity.reasons if report.record else []
            raise CheckFailed(
                f"{path}: {report.word}: {'; '.join(why or report.problems)}",
                hint=f"tokrig check -v {path} explains; measure again on a quiet machine",
            )


def _as_json(found: Submission, private: dict[str, list[str]]) -> dict[str, Any]:
    from tokrig.submission import text_of

    return {
        "branch": found.branch,
        "base": found.base,
        "title": found.title,
        "text": text_of(found),
        "private": private,
        "files": [f"{found.content}/{place}" for one in found.entries for place in one.files],
        "nearest": {
            one.record.id: {"id": one.nearest.a.id, "class": one.nearest.grade}
            for one in found.entries
            if one.nearest
        },
    }


def _print(found: Submission) -> None:
    from tokrig.cli import present
    from tokrig.submission import text_of
    from tokrig.units import human_bytes

    out = present.console()
    out.print("what is published", style="bold")
    for entry in found.entries:
        for place, data in entry.files.items():
            out.print(f"  {found.content}/{place}, {human_bytes(len(data))}", soft_wrap=True)
        for text in entry.private:
            out.print(f"  looks private: {text}", style="yellow", soft_wrap=True)
    out.print()
    out.print(found.title, style="bold", soft_wrap=True)
    out.print(text_of(found), soft_wrap=True, markup=False, highlight=False)
    out.print()
