"""From a spec to a stored record: journal, live view, interruption, resuming."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tokrig import __version__
from tokrig.cli import live, present, words
from tokrig.cli.doctor import unwritable
from tokrig.errors import EngineError, InputError, Interrupted, StoreError, TokrigError
from tokrig.record.model import Record, Rig
from tokrig.record.versions import METHODOLOGY_VERSION
from tokrig.rig import probe_rig
from tokrig.run import journal
from tokrig.run.execute import Outcome, execute
from tokrig.run.journal import Journal
from tokrig.run.prepare import Prepared, prepare
from tokrig.spec.run import RunSpec, merge
from tokrig.store import Store


@dataclass
class How:
    """How to tell about it, and where it goes."""

    content: Path
    quiet: bool = False
    as_json: bool = False
    content_was_given: bool = False

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


def measure(spec: RunSpec, how: How) -> None:
    """A new run, from its first check to the printed table."""
    with signals_interrupt():
        with how.patience("reading the model's file; its checksum is made once"):
            prepared = prepare(spec, datetime.now(UTC), switches(how.content))
        require_writable(how.content)
        _mention_unfinished(how)
        rig = probe_rig(spec.rig)
        with journal.begin(prepared.run_id) as kept:
            kept.describe(_facts(prepared, rig, how.content))
            _carry_out(prepared, rig, kept, how)


def resume(run_id: str | None, how: How, overrides: Mapping[str, Any]) -> None:
    """Go on with an unfinished run, the newest one without an id."""
    unfinished = journal.unfinished()
    if run_id is None and not unfinished:
        raise InputError("there is no unfinished run", hint="begin one with: tokrig run")
    with signals_interrupt(), journal.reopen(run_id or unfinished[-1]) as kept:
        facts = kept.facts()
        try:
            changed = {k: v for k, v in overrides.items() if v is not None}
            spec = merge(RunSpec(), {**facts["spec"], **changed})
            started = datetime.fromisoformat(facts["started"])
            content = how.content if how.content_was_given else Path(facts["content"])
        except (KeyError, TypeError, ValueError) as problem:
            raise InputError(
                f"the unfinished run {kept.run_id} is damaged: {problem}",
                hint=f"discard it with: tokrig run --discard {kept.run_id}",
            ) from None
        prepared = prepare(spec, datetime.now(UTC), switches(content))
        prepared = prepared.with_id(kept.run_id, started)
        rig = probe_rig(spec.rig)
        _refuse_mixing(facts, _facts(prepared, rig, content), kept.run_id)
        require_writable(content)
        _carry_out(prepared, rig, kept, How(content, how.quiet, how.as_json))


def switches(content: Path) -> Path | None:
    """The content folder's own additions to the table of reasoning switches."""
    found = content / "reasoning.yaml"
    return found if found.is_file() else None


def discard(run_id: str, as_json: bool) -> None:
    """Throw an unfinished run away."""
    with journal.reopen(run_id) as kept:
        kept.discard()
    if as_json:
        words.print_json({"discarded": run_id})
    else:
        click.echo(f"discarded {run_id}", err=True)


def _carry_out(prepared: Prepared, rig: Rig, kept: Journal, how: How) -> None:
    """Execute, store, forget the journal, tell. On every way out the measured cells stay."""
    try:
        with live.view(sys.stderr, prepared, quiet=how.quiet) as listen:
            outcome = execute(prepared, rig, kept, listen)
        path = Store(how.content).save(outcome.record, outcome.samples, overwrite=True)
    except KeyboardInterrupt:
        raise _interrupted(prepared, kept) from None
    except (TokrigError, OSError) as problem:
        if not kept.cells():
            kept.discard()
        elif isinstance(problem, StoreError):
            problem.hint += f"; then go on with: tokrig run --resume {kept.run_id}"
        raise
    if outcome.error is not None:
        _keep_log(kept, outcome.error)
    kept.discard()
    _tell(outcome, path, how)


def _interrupted(prepared: Prepared, kept: Journal) -> Interrupted:
    done = len(kept.cells())
    if not done:
        kept.discard()
        return Interrupted("interrupted before the first result; nothing is kept")
    of = len(prepared.cells) * prepared.level.repeats
    return Interrupted(
        f"interrupted: {done} of {of} results are kept",
        hint=f"go on with: tokrig run --resume {kept.run_id}",
    )


def _keep_log(kept: Journal, error: EngineError) -> None:
    """The journal goes, the log of the failure stays where the hint can point to."""
    last = journal.state_folder() / "failed-engine.log"
    with contextlib.suppress(OSError):
        shutil.copyfile(kept.log_path, last)
        error.hint = error.hint.replace(str(kept.log_path), str(last))


def _tell(outcome: Outcome, path: Path, how: How) -> None:
    if how.as_json and outcome.error is None:
        record = present.record_json(outcome.record)
        words.print_json({"path": str(path), "record": record})
    elif not how.as_json:
        _print(outcome.record)
    if not how.quiet:
        click.echo(f"record: {path}", err=True)
    if outcome.error is not None:
        raise outcome.error


def _print(record: Record) -> None:
    """The result table on stdout. A run without any result has only its error to tell."""
    out = present.console()
    if record.results:
        out.print(words.subject(record), style="bold", soft_wrap=True)
        out.print()
        present.print_results(out, record.results)
        out.print()
        out.print(words.caption(record), style="dim")
    present.print_skipped(out, record)
    if record.results:
        present.print_findings(out, record)


def _facts(prepared: Prepared, rig: Rig, content: Path) -> dict[str, Any]:
    """What ``--resume`` needs: the request, and what must not change under way."""
    spec = prepared.spec.model_dump(mode="json")
    if prepared.launch is not None:
        # Resuming works from any folder.
        if not prepared.backend.own_models:
            spec["model"] = str(prepared.launch.model.absolute())
        if prepared.launch.speculation and prepared.launch.speculation.draft_model:
            spec["draft_model"] = str(prepared.launch.speculation.draft_model.absolute())
        if prepared.launch.binary:
            spec["server_bin"] = shutil.which(prepared.launch.binary) or prepared.launch.binary
            spec["server_bin"] = str(Path(spec["server_bin"]).absolute())
    return {
        "spec": spec,
        "started": prepared.started.astimezone(UTC).isoformat(timespec="seconds"),
        "content": str(content.absolute()),
        "tokrig": __version__,
        "rig": rig.id,
        "backend": prepared.backend.name,
        "model_sha256": prepared.model.sha256,
        "methodology": METHODOLOGY_VERSION,
        "workloads": {name: w.content_hash for name, w in prepared.workloads.items()},
    }


def _refuse_mixing(before: Mapping[str, Any], now: Mapping[str, Any], run_id: str) -> None:
    """One record holds one served configuration; what differs begins a new run."""
    words = {
        "rig": "the machine",
        "backend": "the backend",
        "model_sha256": "the model's file",
        "methodology": "the methodology",
    }
    changed = [words[key] for key in words if before.get(key) != now[key]]
    texts = before.get("workloads") or {}
    changed += [
        f"the text of workload {name!r}"
        for name, hashed in now["workloads"].items()
        if texts.get(name) != hashed
    ]
    if changed:
        raise InputError(
            f"the run {run_id} cannot go on: {', '.join(changed)} changed since it was begun",
            hint=f"begin anew, and discard it with: tokrig run --discard {run_id}",
        )


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


def require_writable(content: Path) -> None:
    """Found before minutes of measuring, not after."""
    if reason := unwritable(content):
        raise StoreError(
            f"the record could not be saved: {reason}",
            hint="choose another folder with --content or TOKRIG_CONTENT",
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
