"""One run, from its spec to its record in the store: what ``tokrig run`` and campaigns share.

Lock the rig, check the request, open a journal (or the one that was left), cap the power where
that is asked for, execute, store, forget the journal. On every way out what was measured stays.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tokrig import __version__
from tokrig.errors import EngineError, InputError, Interrupted, StoreError, TokrigError
from tokrig.files import state_dir
from tokrig.models import shelf
from tokrig.models.shelf import Tell, quiet
from tokrig.naming import UNKNOWN_RIG
from tokrig.record import METHODOLOGY_VERSION, checks
from tokrig.record.ceiling import with_stated
from tokrig.record.model import BackendFacts, Mode, Model, Record, Rig
from tokrig.rig import probe_rig, rig_elsewhere, rig_of_server
from tokrig.run import assemble, clients, journal, load_nodes, power
from tokrig.run.detect import require_answer
from tokrig.run.execute import execute
from tokrig.run.journal import Journal, this_rig
from tokrig.run.monitor import Start, computes_on, patiently
from tokrig.run.prepare import Prepared, located, prepare, run_id
from tokrig.run.progress import Listener, Note
from tokrig.spec.run import RunSpec, merge
from tokrig.store import Store, unwritable
from tokrig.store.facts import load_rigs
from tokrig.store.references import reference_for
from tokrig.units import slug

log = logging.getLogger(__name__)
View = Callable[[Prepared], AbstractContextManager[Listener]]
"""Shows a run while it goes on."""

# What must not change while a run is under way: its key among the journal's facts, and in words.
_THE_SAME = {
    "rig": "the machine",
    "backend": "the backend",
    "model_sha256": "the model's file",
    "methodology": "the methodology",
    "slots": "how many slots fit into the memory that is free",
}


class Ways(TypedDict, total=False):
    """How a run is gone about: ``view`` shows it, ``tell`` hears how far fetching and making models
    are, ``budget_bytes`` is how much of the disk these may take, ``start`` decides whether the
    machine is quiet enough to begin."""

    view: View
    tell: Tell
    budget_bytes: int | None
    start: Start


@dataclass(frozen=True)
class Ended:
    """What came of a run: its record, stored at ``path``; ``error`` where it is a failed one."""

    record: Record
    path: Path
    error: EngineError | None = None


def measure_spec(spec: RunSpec, content: Path, key_before: str = "", **ways: Unpack[Ways]) -> Ended:
    """A planned run: goes on with what an earlier process measured of it, else begins it.
    ``key_before`` is the run's key as older versions made it.

    Raises what ``begin`` raises.
    """
    keys = {spec.planned, key_before} - {""}
    kept = next((run for run, key in unfinished_keys().items() if key in keys), None)
    if kept is not None:
        try:
            return go_on(kept, content, {"planned": spec.planned}, **ways)
        except InputError as problem:
            if problem.code not in ("run_changed", "run_damaged"):
                raise
            log.warning("note: %s; it is measured from the start", problem.message)
            with journal.reopen(kept) as left:
                left.discard()
    return begin(spec, content, **ways)


def begin(spec: RunSpec, content: Path, **ways: Unpack[Ways]) -> Ended:
    """A new run.

    Raises InputError for a request that cannot be carried out or a rig in use, PutOff for one
    that cannot be now, StoreError when the record cannot be stored (the journal then stays),
    Interrupted after Ctrl-C. An engine's failure is a failed record.
    """
    with (
        this_rig(f"a run of {spec.model}"),
        _ready(spec, content, ways) as (prepared, rig),
        journal.begin(prepared.run_id) as kept,
    ):
        kept.describe(_facts(prepared, rig, content))
        return _carry_out(prepared, rig, kept, content, ways)


def go_on(
    run: str, content: Path | None, changed: Mapping[str, Any], **ways: Unpack[Ways]
) -> Ended:
    """An unfinished run by its id; ``content`` None is the folder it was begun for, ``changed``
    are keys of its spec that do not change what is measured.

    Raises what ``begin`` raises; InputError also (``run_changed``) when what must not change
    under way has changed, and (``run_damaged``) for a journal that cannot be read.
    """
    with this_rig(f"the run {run}"), journal.reopen(run) as kept:
        facts = kept.facts()
        try:
            spec = merge(RunSpec(), facts["spec"])
            started, begun_for = datetime.fromisoformat(facts["started"]), Path(facts["content"])
        except (KeyError, TypeError, ValueError, InputError) as problem:
            raise journal.damaged(run, str(problem)) from None
        content = content or begun_for
        with _ready(merge(spec, changed), content, ways, (run, started)) as (prepared, rig):
            _refuse_mixing(facts, _facts(prepared, rig, content), run)
            return _carry_out(prepared, rig, kept, content, ways)


@contextlib.contextmanager
def _ready(
    spec: RunSpec, content: Path, ways: Ways, begun: tuple[str, datetime] | None = None
) -> Iterator[tuple[Prepared, Rig]]:
    """All is checked and the machine is quiet, and its power capped where that is asked for.
    Meanwhile no other process makes room by removing this run's models. ``begun`` is the identity
    of a run that goes on."""
    tell, budget_bytes = ways.get("tell", quiet), ways.get("budget_bytes")
    prepared = prepare(spec, datetime.now(UTC), switches(content), tell, budget_bytes)
    if begun:
        prepared = replace(prepared, run_id=begun[0], started=begun[1])
    prepared = located(prepared)
    require_writable(content)
    if prepared.endpoint is not None:
        require_answer(prepared.endpoint)
    start = ways.get("start", patiently)
    start(computes_on(prepared), prepared.where.processes if prepared.where else list)
    launch = prepared.launch
    with contextlib.ExitStack() as held:
        if prepared.endpoint is not None and spec.load_from is not None:
            asked = spec.load_from, spec.load_nodes, prepared.endpoint
            prepared = replace(prepared, nodes=held.enter_context(load_nodes.joined(*asked)))
        elif spec.clients is not None and spec.clients > 1:
            prepared = replace(prepared, nodes=held.enter_context(clients.several(spec.clients)))
        if launch is not None and not prepared.backend.own_models:
            held.enter_context(shelf.using(launch.model))
            if launch.speculation and launch.speculation.draft_model:
                held.enter_context(shelf.using(launch.speculation.draft_model))
        held.enter_context(power.capped(spec.power_cap_w))
        yield prepared, _rig(prepared, content)


def _rig(prepared: Prepared, content: Path) -> Rig:
    """The machine that is measured, with its cap: this one, or what the content folder states of
    another. Raises InputError for a broken file."""
    rig_id, where = prepared.spec.rig, prepared.where
    if where is not None and not where.here:
        facts = load_rigs(content).get(slug(rig_id)) if rig_id else None
        hardware = facts.hardware if facts else None
        stated = Rig(id=slug(rig_id or ""), **dict(hardware)) if hardware else None
        rig = rig_elsewhere(rig_id, stated)
    elif where is None:
        rig = probe_rig(rig_id)
    else:
        rig = rig_of_server(rig_id, next((p.pid for p in where.listening), None))
    facts = load_rigs(content).get(rig.id)
    return with_stated(rig, facts.bandwidth if facts else None)


def unfinished_keys() -> dict[str, str]:
    """Unfinished runs that a campaign asked for: the planned run's key by the run's id."""
    found = {}
    for run in journal.unfinished():
        spec = journal.described(run).get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("planned"), str):
            found[run] = spec["planned"]
    return found


def forget_stored(content: Path) -> None:
    """Throw away what is left of runs whose record is stored: of a process that was killed between
    the two."""
    stored = {path.stem for path in Store(content).iter_paths()}
    for run in unfinished_keys().keys() & stored:
        with contextlib.suppress(InputError), journal.reopen(run) as left:
            left.discard()


def store_failure(
    spec: RunSpec, model: Model, rig: Rig, error: TokrigError, content: Path
) -> Ended:
    """The record of a run that failed before anything could be started: a model that is not
    there, a binary that cannot do what is asked, a quant that cannot be made."""
    now = datetime.now(UTC)
    mode = Mode(name=spec.speculative or "baseline", speculative=spec.speculative)
    record = Record(
        id=run_id(model, spec.backend, mode, now),
        status="failed",
        validity=checks.judge_run([], complete=False),
        provenance=assemble.provenance(now, now, **assemble.campaign(spec)),
        model=model,
        rig=rig,
        backend=BackendFacts(name=spec.backend, engine=spec.backend, api_asked=spec.api),
        mode=mode,
        failure=assemble.failure(error),
        notes=spec.notes,
    )
    log_tail = error.log_tail if isinstance(error, EngineError) else ""
    failed = EngineError(error.message, hint=error.hint, code=error.code, log_tail=log_tail)
    return Ended(record, Store(content).save(record, []), failed)


def switches(content: Path) -> Path | None:
    """The content folder's own additions to the table of reasoning switches."""
    found = content / "reasoning.yaml"
    return found if found.is_file() else None


def require_writable(content: Path) -> None:
    """Found before minutes of measuring, not after. Raises StoreError."""
    if reason := unwritable(content):
        raise StoreError(
            f"the record could not be saved: {reason}",
            hint="choose another folder with --content or TOKRIG_CONTENT",
        )


def _carry_out(prepared: Prepared, rig: Rig, kept: Journal, content: Path, ways: Ways) -> Ended:
    view = ways.get("view") or (lambda prepared: contextlib.nullcontext(lambda event: None))
    again = f"tokrig run --resume {prepared.run_id}"
    if prepared.spec.campaign:
        again = "tokrig campaign run, as before"
    try:
        with view(prepared) as listen:
            if (nodes := prepared.nodes) is not None:
                nodes.note = lambda text: listen(Note(text))
                nodes.note(nodes.told())
            if prepared.where is not None and prepared.where.why:
                listen(Note(f"{prepared.where.why}: {_unknown_of(prepared, rig)}"))
            store = Store(content)
            find = partial(reference_for, store, run_id=prepared.run_id)
            outcome = execute(prepared, rig, kept, listen, find)
        path = store.save(outcome.record, outcome.samples, answers=outcome.answers, overwrite=True)
    except KeyboardInterrupt:
        done, of = len(kept.cells()), len(prepared.cells) * prepared.level.repeats
        if not done:
            kept.discard()
            raise Interrupted("interrupted before the first result; nothing is kept") from None
        # Where a ladder ends nobody knows before.
        number = f"{done}" if prepared.spec.ladder else f"{done} of {of}"
        raise Interrupted(
            f"interrupted: {number} results are kept", hint=f"go on with: {again}"
        ) from None
    except (TokrigError, OSError) as problem:
        if not kept.cells():
            kept.discard()
        elif isinstance(problem, StoreError):
            problem.hint += f"; then go on with: {again}"
        raise
    if (error := outcome.error) is not None:
        # The journal goes, the log of the failure stays where the hint can point to.
        last = state_dir() / "failed-engine.log"
        with contextlib.suppress(OSError):
            shutil.copyfile(kept.log_path, last)
            error.hint = error.hint.replace(str(kept.log_path), str(last))
    kept.discard()
    return Ended(outcome.record, path, outcome.error)


def _unknown_of(prepared: Prepared, rig: Rig) -> str:
    """What cannot be told where tokrig cannot look at the server's machine or its processes."""
    if prepared.where is not None and prepared.where.here:
        return "its memory and what it may use of this machine are not known"
    if rig.facts_from == "user":
        return f"of its machine is known what the content folder states of {rig.id}"
    if rig.id == UNKNOWN_RIG:
        return "nothing is known of its machine; name it with --rig"
    return f"nothing is known of its machine; state its hardware in content/rigs/{rig.id}.md"


def _facts(prepared: Prepared, rig: Rig, content: Path) -> dict[str, Any]:
    """What going on needs: the request, in paths that hold from any folder, and what must not
    change under way."""
    spec, launch = prepared.spec.model_dump(mode="json"), prepared.launch
    if spec["trace"]:
        spec["trace"] = str(Path(spec["trace"]).expanduser().absolute())
    slots = None
    if launch is not None:
        if spec["ladder"]:  # whose steps were those that fit
            spec["ladder"] = slots = launch.slots
        if spec["quantize"]:
            there = Path(spec["model"]).expanduser()
            spec["model"] = str(there.absolute()) if there.exists() else spec["model"]
        elif not prepared.backend.own_models:
            spec["model"] = str(launch.model.absolute())
        if launch.speculation and launch.speculation.draft_model:
            spec["draft_model"] = str(launch.speculation.draft_model.absolute())
        if launch.binary:
            spec["server_bin"] = str(Path(shutil.which(launch.binary) or launch.binary).absolute())
    return {
        "spec": spec,
        "started": prepared.started.astimezone(UTC).isoformat(timespec="seconds"),
        "content": str(content.absolute()),
        "tokrig": __version__,
        "rig": rig.id,
        "backend": prepared.backend.name,
        "model_sha256": prepared.model.sha256,
        "methodology": METHODOLOGY_VERSION,
        "slots": slots,
        "workloads": {
            name: shape.version(max(spec["depth"] or [0]))
            for name, shape in prepared.workloads.items()
        },
    }


def _refuse_mixing(before: Mapping[str, Any], now: Mapping[str, Any], run: str) -> None:
    """One record holds one served configuration; what differs begins a new run."""
    changed = [words for key, words in _THE_SAME.items() if before.get(key) != now[key]]
    texts = before.get("workloads") or {}
    changed += [
        f"the text of workload {name!r}"
        for name, hashed in now["workloads"].items()
        if texts.get(name) != hashed
    ]
    if changed:
        raise InputError(
            f"the run {run} cannot go on: {', '.join(changed)} changed since it was begun",
            hint=f"start over, and discard it with: tokrig run --discard {run}",
            code="run_changed",
        )
