"""``tokrig campaign run``: works through a plan before somebody's eyes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from tokrig.campaign import Executor
from tokrig.campaign.local import Local, Stopwatch
from tokrig.campaign.work import Began, Delayed, Done, News, Tally, Waiting, Work, selected
from tokrig.cli import campaign_text, live, present
from tokrig.cli.live import signals_interrupt
from tokrig.errors import EngineError, InputError, Interrupted, StoreError
from tokrig.measure import forget_stored, require_writable
from tokrig.plan import TO_DO, Plan, Planned
from tokrig.rig import probe_rig
from tokrig.run.journal import this_rig
from tokrig.run.monitor import Engine, Start, at_once, here
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener

GB = 10**9


def carry_out(
    plan: Plan,
    *,
    content: Path,
    as_json: bool,
    only: tuple[str, ...],
    retry: frozenset[str],
    limit: int | None,
    dry_run: bool,
    quiet: bool,
    **where: Any,
) -> int:
    """Do what is left of ``plan``, and sum it up; the exit code, which is not 0 when runs failed
    or were put off. ``where`` are the options of ``_executor``.

    Raises StoreError, Interrupted, PutOff on a busy machine.
    """
    local = where["executor"] == "local"
    if local:
        plan = _of_this_rig(plan, where["rig"], quiet)
    runs = selected(plan, only, retry, limit)
    if dry_run:
        if as_json:
            present.print_json(replace(plan, runs=runs).as_json())
        else:
            campaign_text.print_runs(present.console(), runs)
        return 0
    forget_stored(content)
    if not runs:
        if as_json:
            present.print_json(_summary(Tally(), None))
        else:
            click.echo(campaign_text.nothing_to_do(plan), err=True)
        return 0
    eyes = Eyes(quiet, runs)
    with signals_interrupt(), _executor(plan, content, eyes, **where) as executor:
        require_writable(content)
        work = Work(runs, executor, content, eyes.hear)
        try:
            work.all()
        except KeyboardInterrupt:
            raise _interrupted(work.tally) from None
        except Interrupted as problem:
            raise _interrupted(work.tally, problem) from None
        except StoreError as problem:
            problem.hint += "; the same command then goes on where this one stopped"
            raise
    return _sum_up(work.tally, eyes.watch if local else None, as_json)


@dataclass
class Eyes:
    """What a person sees of a campaign: a line for each run, and the frame of the current one."""

    quiet: bool
    runs: Sequence[Planned]
    watch: Stopwatch = field(default_factory=Stopwatch)
    began_s: float = field(default_factory=time.monotonic)
    done: int = 0
    failed: int = 0
    delayed: int = 0
    current: Planned | None = None
    steps: live.Status = field(init=False)

    def __post_init__(self) -> None:
        self.steps = live.Status(sys.stderr, quiet=self.quiet)

    def hear(self, news: News) -> None:
        """A line for what has happened."""
        match news:
            case Began():
                self.current = news.planned
                if not sys.stderr.isatty():
                    self._say(self.head())
            case Done():
                self.steps.end()
                self.failed += news.ended.error is not None
                self.done += news.ended.error is None
                self._say(campaign_text.done_line(news.planned, news.ended))
            case Delayed():
                self.steps.end()
                self.delayed += 1
                self._say(campaign_text.delayed_line(news.planned, news.why))
            case Waiting():
                self._say(f"  {campaign_text.run_name(news.planned.run)}: {news.text}")

    def head(self) -> str:
        """``run 3 of 12 · 2 done · about 14 min left``, and the current run's name."""
        return campaign_text.head(
            self.runs,
            done=self.done,
            failed=self.failed,
            delayed=self.delayed,
            current=self.current,
            elapsed_s=time.monotonic() - self.began_s,
        )

    def start(self, computes_on: frozenset[str], engine: Engine = list) -> None:
        """Let a run begin when the machine is quiet."""
        self.steps.start(computes_on, engine)

    def view(self, prepared: Prepared) -> AbstractContextManager[Listener]:
        """The frame of one run."""
        self.steps.end()
        return live.view(sys.stderr, prepared, quiet=self.quiet, head=self.head)

    def _say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)


@contextlib.contextmanager
def _executor(
    plan: Plan,
    content: Path,
    eyes: Eyes,
    *,
    executor: str,
    address: str | None,
    rig: str | None,
    even_if_busy: bool,
    disk_budget: float | None,
) -> Iterator[Executor]:
    if executor == "ray":
        from tokrig.campaign.ray_executor import RayExecutor

        if address is None:
            raise InputError("the Ray cluster's address is missing", hint="add --address HOST:PORT")
        cluster = RayExecutor(address, content, even_if_busy=even_if_busy)
        try:
            yield cluster
        finally:
            cluster.cancel()
        return
    if address is not None:
        raise InputError(
            "--address belongs to the executor ray", hint="add --executor ray, or leave it out"
        )
    with this_rig("a campaign"):
        start: Start = at_once if even_if_busy else eyes.start
        start(here(None), list)
        declared = [file.campaign.disk_budget_gb for file in plan.campaigns]
        budget = disk_budget or min((gb for gb in declared if gb), default=None)
        yield Local(
            probe_rig(rig),
            content,
            eyes.view,
            eyes.steps.tell,
            eyes.watch,
            budget_bytes=None if budget is None else int(budget * GB),
            start=start,
        )


def _of_this_rig(plan: Plan, rig: str | None, quiet: bool) -> Plan:
    """Without the runs of other machines, whose owners do them; a note tells how many."""
    here = probe_rig(rig).id
    others = Counter(p.run.rig for p in plan.of(*TO_DO) if p.run.rig != here)
    if others and not quiet:
        named = ", ".join(f"{rig} ({runs})" for rig, runs in others.items())
        click.echo(f"note: this machine is {here}; runs of other rigs are left: {named}", err=True)
    return replace(plan, runs=[planned for planned in plan.runs if planned.run.rig == here])


def _interrupted(tally: Tally, problem: Interrupted | None = None) -> Interrupted:
    told = f"; the run in flight: {problem.message}" if problem else ""
    return Interrupted(
        f"interrupted: {len(tally.done) + len(tally.failed)} runs have their records, "
        f"{tally.left} are left{told}",
        hint="go on with the same command",
    )


def _sum_up(tally: Tally, watch: Stopwatch | None, as_json: bool) -> int:
    whole = not (tally.failed or tally.delayed)
    if as_json:
        present.print_json(_summary(tally, watch))
        return 0 if whole else EngineError.exit_code
    campaign_text.print_summary(present.console(), tally, watch.spent_s if watch else {})
    if whole:
        return 0
    parts = [(len(tally.failed), "failed"), (len(tally.delayed), "could not be done now")]
    told = " and ".join(f"{n} {word}" for n, word in parts if n)
    hints = ["go on with the same command"] if tally.delayed else []
    hints += ["try the failed ones again with --retry failed"] if tally.failed else []
    raise EngineError(f"of the runs {told}", hint="; ".join(hints), code="runs_left")


def _summary(tally: Tally, watch: Stopwatch | None) -> dict[str, Any]:
    def one(news: Done) -> dict[str, Any]:
        error = news.ended.error
        return {
            "planned": news.planned.run.key,
            "entry": f"{news.planned.run.campaign}/{news.planned.run.entry}",
            "record": news.ended.record.id,
            "path": str(news.ended.path),
            "verdict": news.ended.record.validity.verdict,
            **({"error": error.message, "code": error.code} if error else {}),
        }

    return {
        "done": [one(news) for news in tally.done],
        "failed": [one(news) for news in tally.failed],
        "put_off": [
            {"planned": news.planned.run.key, "why": news.why.message, "code": news.why.code}
            for news in tally.delayed
        ],
        "left": tally.left,
        "spent_s": {} if watch is None else {k: round(v, 3) for k, v in watch.spent_s.items()},
        "overhead": None if watch is None else watch.overhead,
    }
