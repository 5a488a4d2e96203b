"""``tokrig campaign``: options and outcomes. The work is in ``tokrig.campaign``, the words in
``campaign_text``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import (
    F,
    Word,
    completing,
    content_and_json,
    even_if_busy,
    example,
    word_list,
)

if TYPE_CHECKING:
    from tokrig.plan import Plan

DOCS_DEFAULT = Path("docs/benchmark-campaign.md")


def _entries(ctx: click.Context) -> list[str]:
    from tokrig.campaign.planning import campaign_files

    files = campaign_files(list(ctx.params.get("files") or ()))
    return [entry.name for file in files for entry in file.campaign.entries]


files_argument = click.argument(
    "files", nargs=-1, metavar="[FILE.yaml|FOLDER]…", type=click.Path(path_type=Path)
)


def of_a_plan(command: F) -> F:
    """What every command takes that looks at the plan of campaigns."""
    only = click.option(
        "--only",
        multiple=True,
        callback=word_list,
        metavar="ENTRY",
        shell_complete=completing(_entries),
        help="Only these entries. Repeat it or use commas.",
    )
    rig = click.option(
        "--rig", metavar="ID", help="This machine's name.  [default: made from its hardware]"
    )
    return files_argument(only(rig(content_and_json(command))))


@click.group(
    "campaign",
    epilog=example(
        "tokrig campaign plan campaigns/first.yaml",
        "tokrig campaign run campaigns/first.yaml",
        "tokrig campaign status",
        "tokrig campaign docs",
    ),
)
def command() -> None:
    """Work through a declared matrix of runs; show what is left.

    A campaign file declares models, quants, backends, modes … and the runs that all of them
    make. The records in the content folder are its progress: whatever ends it, the next
    ``campaign run`` goes on. Without a FILE the folder campaigns is taken.
    """


@command.command("plan", epilog=example("tokrig campaign plan campaigns/first.yaml --json"))
@click.option("--all", "everything", is_flag=True, help="Every run, not only those to be done.")
@of_a_plan
def plan_command(
    files: tuple[Path, ...],
    only: list[str] | None,
    everything: bool,
    rig: str | None,
    content: Path,
    as_json: bool,
) -> None:
    """Show which runs a campaign means, in the order in which they are best done.

    Tells what is done, what does not fit and why, what is blocked, and what the rest will cost in
    time and downloads. Starts nothing, asks no network.
    """
    from tokrig.campaign.work import only_entries
    from tokrig.cli import campaign_text, present

    plan = only_entries(_plan(files, content, rig), only or ())
    if as_json:
        present.print_json(plan.as_json())
    else:
        campaign_text.print_plan(present.console(), plan, everything=everything)


@command.command("status", epilog=example("tokrig campaign status"))
@of_a_plan
def status_command(
    files: tuple[Path, ...],
    only: list[str] | None,
    rig: str | None,
    content: Path,
    as_json: bool,
) -> None:
    """Show how far each entry is, and what the comparisons that are complete say."""
    from tokrig.campaign.planning import comparisons
    from tokrig.campaign.work import only_entries
    from tokrig.cli import campaign_text, present
    from tokrig.store import Store

    plan = only_entries(_plan(files, content, rig), only or ())
    compared = comparisons(plan, Store(content))
    if as_json:
        present.print_json(campaign_text.status_json(plan, compared))
    else:
        campaign_text.print_status(present.console(), plan, compared)


@command.command(
    "run",
    epilog=example(
        "tokrig campaign run campaigns/first.yaml",
        "tokrig campaign run --only quants --limit 3",
        "tokrig campaign run --retry failed",
    ),
)
@click.option(
    "--retry",
    multiple=True,
    type=Word(("failed", "invalid")),
    help="Measure again what failed, or what came out invalid.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many runs.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; start nothing.")
@even_if_busy
@click.option(
    "--disk-budget",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="How much of the disk fetched models may take.  [default: the campaign's own]",
)
@click.option(
    "--executor",
    type=Word(("local", "ray")),
    default="local",
    show_default=True,
    help="Measure on this machine, or on the rigs of a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Where the Ray cluster's head answers.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; only the summary.")
@of_a_plan
def run_command(files: tuple[Path, ...], content: Path, as_json: bool, **asked: Any) -> int:
    """Work through the plan: measure what is not done yet, one run at a time on each rig.

    A run that fails becomes a failed record with its reason, and the rest goes on. Ctrl-C, a
    crash, a power cut: the same command goes on where it stopped, and repeats at most the run
    that was in flight.

    The summary goes to stdout, progress to stderr. Exit codes: 0 all done, 2 bad input or a full
    disk, 3 some runs failed or were put off, 130 interrupted.
    """
    from tokrig.cli.campaign_run import carry_out

    plan = _plan(files, content, asked["rig"])
    only, retry = tuple(asked.pop("only") or ()), frozenset(asked.pop("retry"))
    return carry_out(plan, content=content, as_json=as_json, only=only, retry=retry, **asked)


@command.command("docs", epilog=example("tokrig campaign docs --out docs/benchmark-campaign.md"))
@files_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=DOCS_DEFAULT,
    show_default=True,
    metavar="FILE",
    help="Where the page is written.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail when the page is out of date.")
@content_and_json
def docs_command(
    files: tuple[Path, ...], out: Path, check: bool, content: Path, as_json: bool
) -> None:
    """Write the public queue: every entry's state, what blocks it, the command that fills it."""
    from tokrig.campaign.docs import publish
    from tokrig.campaign.planning import campaign_files
    from tokrig.cli import present

    changed = publish(campaign_files(list(files)), content, out, check=check)
    if as_json:
        present.print_json({"path": str(out), "changed": changed})
    elif not check:
        click.echo(f"{out}: {'written' if changed else 'up to date'}")


def _plan(files: tuple[Path, ...], content: Path, rig: str | None) -> Plan:
    from tokrig.campaign.planning import campaign_files, make_plan
    from tokrig.rig import probe_rig

    return make_plan(campaign_files(list(files)), content, probe_rig(rig))
