"""From a spec to a stored record: journal, live view, interruption, resuming."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tokrig.cli import live, present
from tokrig.errors import InputError
from tokrig.measure import Ended, begin, go_on
from tokrig.models.shelf import Tell
from tokrig.record.model import Record
from tokrig.run import journal
from tokrig.run.monitor import Engine, patiently
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener
from tokrig.spec.run import RunSpec


@dataclass
class How:
    """How to tell about it, and where it goes."""

    content: Path
    quiet: bool = False
    as_json: bool = False
    content_was_given: bool = False
    even_if_busy: bool = False
    _before: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet:
            click.echo(f"note: {text}", err=True)

    @contextlib.contextmanager
    def patience(self, text: str) -> Iterator[None]:
        """A remark, if what follows takes longer than a second."""
        timer = threading.Timer(1.0, self.note, [f"{text} …"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[Tell]:
        """Tells what is done before a run can begin: hashing, fetching, quantizing."""
        steps = live.Steps(sys.stderr, quiet=self.quiet)
        with self._before:
            waiting = self.patience("reading the model's file; its checksum is made once")
            self._before.enter_context(waiting)
            self._before.callback(steps.end)
            yield steps.tell

    def start(self, computes_on: frozenset[str], engine: Engine = list) -> None:
        """Let a run begin, when the machine is quiet or that is not asked for."""
        self._before.close()
        if self.even_if_busy:
            return
        waiting = live.Waiting(sys.stderr, quiet=self.quiet)
        try:
            patiently(computes_on, engine, waiting.notice)
        finally:
            waiting.end()

    def view(self, prepared: Prepared) -> AbstractContextManager[Listener]:
        """The run itself, once it is prepared."""
        self._before.close()
        return live.view(sys.stderr, prepared, quiet=self.quiet)


def measure(spec: RunSpec, how: How) -> None:
    """A new run, from its first check to the printed table."""
    with signals_interrupt(), how.preparing() as tell:
        _mention_unfinished(how)
        _tell(begin(spec, how.content, view=how.view, tell=tell, start=how.start), how)


def resume(run_id: str | None, how: How, overrides: Mapping[str, Any]) -> None:
    """Go on with an unfinished run, the newest one without an id."""
    unfinished = journal.unfinished()
    if run_id is None and not unfinished:
        raise InputError("there is no unfinished run", hint="begin one with: tokrig run")
    content = how.content if how.content_was_given else None
    with signals_interrupt(), how.preparing() as tell:
        run_id = run_id or unfinished[-1]
        _tell(go_on(run_id, content, overrides, view=how.view, tell=tell, start=how.start), how)


def discard(run_id: str, as_json: bool) -> None:
    """Throw an unfinished run away."""
    with journal.reopen(run_id) as kept:
        kept.discard()
    if as_json:
        present.print_json({"discarded": run_id})
    else:
        click.echo(f"discarded {run_id}", err=True)


def _tell(ended: Ended, how: How) -> None:
    if how.as_json and ended.error is None:
        record = present.record_json(ended.record)
        present.print_json({"path": str(ended.path), "record": record})
    elif not how.as_json:
        _print(ended.record)
    if not how.quiet:
        click.echo(f"record: {ended.path}", err=True)
    if ended.error is not None:
        raise ended.error


def _print(record: Record) -> None:
    """The result table on stdout. A run without any result has only its error to tell."""
    out = present.console()
    if record.results:
        out.print(present.subject(record), style="bold", soft_wrap=True)
        out.print()
        present.print_results(out, record.results)
        out.print()
        out.print(present.caption(record), style="dim")
    present.print_skipped(out, record)
    if record.results:
        present.print_findings(out, record)


def _mention_unfinished(how: How) -> None:
    unfinished = journal.unfinished()
    if not unfinished:
        return
    kept = {run: journal.finished_cells(run) for run in unfinished}
    named = ", ".join(f"{run} ({n} result{'s' * (n != 1)})" for run, n in kept.items())
    many = "an unfinished run is" if len(unfinished) == 1 else "unfinished runs are"
    how.note(
        f"{many} kept: {named}; go on with: tokrig run --resume ID, "
        "or throw it away with: tokrig run --discard ID"
    )


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, unless they are ignored (nohup)."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
