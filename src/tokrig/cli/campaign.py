"""``tokrig campaign``: options and outcomes. The work is in ``tokrig.campaign``, the words in
``campaign_text``."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
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
from tokrig.errors import EngineError, InputError, Interrupted, StoreError

if TYPE_CHECKING:
    from tokrig.campaign.work import Executor, Stopwatch, Tally
    from tokrig.cli.campaign_text import Eyes
    from tokrig.plan import Plan
    from tokrig.record.model import Rig

DOCS_DEFAULT = Path("docs/benchmark-campaign.md")
GB = 10**9


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
    from tokrig.cli import campaign_text, present
    from tokrig.rig import probe_rig

    plan = _plan(files, content, probe_rig(rig), only)
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
    from tokrig.cli import campaign_text, present
    from tokrig.rig import probe_rig
    from tokrig.store import Store

    plan = _plan(files, content, probe_rig(rig), only)
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
def run_command(
    files: tuple[Path, ...],
    only: list[str] | None,
    retry: tuple[Any, ...],
    limit: int | None,
    dry_run: bool,
    rig: str | None,
    content: Path,
    as_json: bool,
    **ways: Any,
) -> int:
    """Work through the plan: measure what is not done yet, one run at a time on each rig.

    A run that fails becomes a failed record with its reason, and the rest goes on. Ctrl-C, a
    crash, a power cut: the same command goes on where it stopped, and repeats at most the run
    that was in flight.

    The summary goes to stdout, progress to stderr. Exit codes: 0 all done, 2 bad input or a full
    disk, 3 some runs failed or were put off, 130 interrupted.
    """
    from tokrig.campaign.work import Tally
    from tokrig.cli import campaign_text, present
    from tokrig.measure import forget_stored
    from tokrig.plan import TO_DO
    from tokrig.rig import probe_rig

    local, address, here = ways["executor"] == "local", ways["address"], probe_rig(rig)
    if local and address is not None:
        hint = "add --executor ray, or leave it out"
        raise InputError("--address belongs to the executor ray", hint=hint)
    if not local and address is None:
        raise InputError("the Ray cluster's address is missing", hint="add --address HOST:PORT")
    plan = _plan(files, content, here, only)
    if local:
        plan = _of_this_rig(plan, here.id, ways["quiet"])
    runs = plan.of(*TO_DO, *retry)[:limit]
    if dry_run:
        if as_json:
            present.print_json(replace(plan, runs=runs).as_json())
        elif runs:
            campaign_text.print_runs(present.console(), runs)
        else:
            click.echo(campaign_text.nothing_to_do(plan), err=True)
        return 0
    forget_stored(content)
    tally = Tally(runs)
    watch = _work(tally, plan, content, here, **ways) if runs else None
    if as_json:
        present.print_json(campaign_text.summary_json(tally, watch))
    elif runs:
        campaign_text.print_summary(present.console(), tally, watch.spent_s if watch else {})
    else:
        click.echo(campaign_text.nothing_to_do(plan), err=True)
    if not (tally.failed or tally.delayed):
        return 0
    if as_json:
        return EngineError.exit_code
    parts = [(len(tally.failed), "failed"), (len(tally.delayed), "could not be done now")]
    hints = ["go on with the same command"] if tally.delayed else []
    hints += ["try the failed ones again with --retry failed"] if tally.failed else []
    told = " and ".join(f"{n} {word}" for n, word in parts if n)
    raise EngineError(f"of the runs {told}", hint="; ".join(hints), code="runs_left")


def _of_this_rig(plan: Plan, here: str, quiet: bool) -> Plan:
    """Without the runs of other machines, whose owners do them; a note tells how many."""
    from tokrig.plan import TO_DO

    others = Counter(p.run.rig for p in plan.of(*TO_DO) if p.run.rig != here)
    if others and not quiet:
        named = ", ".join(f"{rig} ({runs})" for rig, runs in others.items())
        click.echo(f"note: this machine is {here}; runs of other rigs are left: {named}", err=True)
    return replace(plan, runs=[planned for planned in plan.runs if planned.run.rig == here])


def _work(
    tally: Tally, plan: Plan, content: Path, rig: Rig, *, quiet: bool, **ways: Any
) -> Stopwatch | None:
    """Do what is wanted; where the time went, if that was here.

    Raises StoreError, Interrupted, PutOff on a busy machine.
    """
    from tokrig.campaign.work import Work
    from tokrig.cli import campaign_text, live
    from tokrig.measure import require_writable

    eyes = campaign_text.Eyes(tally, quiet)
    try:
        with live.signals_interrupt(), _executor(plan, content, rig, eyes, **ways) as executor:
            require_writable(content)
            Work(tally, executor, content, eyes.hear).all()
    except (KeyboardInterrupt, Interrupted) as problem:
        told = f"; the run in flight: {problem.message}" if isinstance(problem, Interrupted) else ""
        raise Interrupted(
            f"interrupted: {len(tally.done) + len(tally.failed)} runs have their records, "
            f"{tally.left} are left{told}",
            hint="go on with the same command",
        ) from None
    except StoreError as problem:
        problem.hint += "; the same command then goes on where this one stopped"
        raise
    return eyes.watch if ways["executor"] == "local" else None


@contextlib.contextmanager
def _executor(
    plan: Plan,
    content: Path,
    rig: Rig,
    eyes: Eyes,
    *,
    executor: str,
    address: str,
    even_if_busy: bool,
    disk_budget: float | None,
) -> Iterator[Executor]:
    if executor == "ray":
        from tokrig.campaign.ray_executor import RayExecutor
        from tokrig.cluster import unheard

        with unheard():
            on_rigs = RayExecutor(address, content, even_if_busy=even_if_busy)
            try:
                yield on_rigs
            finally:
                on_rigs.cancel()
        return
    from tokrig.campaign.work import Local
    from tokrig.run.journal import this_rig
    from tokrig.run.monitor import at_once, here

    declared = [file.campaign.disk_budget_gb for file in plan.campaigns]
    budget = disk_budget or min((gb for gb in declared if gb), default=None)
    start = at_once if even_if_busy else eyes.steps.start
    with this_rig("a campaign"):
        start(here(None), list)
        yield Local(
            rig,
            content,
            eyes.watch,
            view=eyes.view,
            tell=eyes.steps.tell,
            budget_bytes=None if budget is None else int(budget * GB),
            start=start,
        )


@command.command("recipe", epilog=example("tokrig campaign recipe --vram 12 > campaigns/mine.yaml"))
@click.option(
    "--vram",
    type=click.IntRange(min=0),
    metavar="GB",
    help="Of the machine that is to measure; 0 without a card.  [default: this machine's]",
)
@content_and_json
def recipe_command(vram: int | None, content: Path, as_json: bool) -> None:
    """Print a campaign of the models that machines like this one have measured.

    By the records in the content folder: what most machines with as much VRAM have comes first, so
    that new rows meet those of others.
    """
    from tokrig import naming
    from tokrig.cli import present
    from tokrig.documents import dump
    from tokrig.plan import recipe
    from tokrig.rig import probe_rig
    from tokrig.store import Store
    from tokrig.store.load import load

    held = naming.vram_gb(probe_rig(None)) if vram is None else vram
    size = recipe.fitting(held or 0)
    records = [run.record for run in load(Store(content), keep_going=True).runs]
    wanted = recipe.recipe(records, size)
    if not wanted:
        raise InputError(
            f"no record in {content} is of a machine {recipe.name_of(size)}",
            hint="name the page's content folder with --content, or another size with --vram",
        )
    found = recipe.campaign(wanted, size)
    if as_json:
        present.print_json(found)
    else:
        click.echo(dump(found), nl=False)


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


def _plan(files: tuple[Path, ...], content: Path, here: Rig, only: list[str] | None) -> Plan:
    from tokrig.campaign.planning import campaign_files, make_plan

    return make_plan(campaign_files(list(files)), content, here).only(only or ())
