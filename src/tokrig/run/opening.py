"""How a session begins: an engine is started or found running, loads its model, is inspected and
says which file it serves."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokrig.errors import EngineDied, EngineError, ModelError, StartError
from tokrig.models import identity
from tokrig.record.model import Model
from tokrig.run import server
from tokrig.run.detect import settled, whereabouts
from tokrig.run.monitor import Idle, Monitor, probes
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener, Note, Step
from tokrig.run.session import Session

LOAD_POLL_S = 0.5
# Ollama's store names a file by its checksum.
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")


@contextlib.contextmanager
def opened(
    prepared: Prepared,
    log_path: Path,
    idle: Idle | None = None,
    listen: Listener = lambda _: None,
) -> Iterator[Session]:
    """A session with the prepared engine, started here or attached to, its model loaded, and
    inspected.

    ``idle`` is the machine without the engine where an earlier session of the run looked at it.
    Raises StartError when a managed engine does not start or cannot load the model, EngineDied
    when nobody answers; every EngineError gets the last lines of the engine's log.
    """
    reach = _started if prepared.launch else _attached
    with reach(prepared, log_path, idle or Idle()) as session:
        try:
            load_model(session, log_path, listen)
            session.inspect()
            yield session
        except EngineError as error:
            if isinstance(error, EngineDied):
                # Its own exit code and log say more than a refused connection.
                session.await_death()
            if session.server is not None:
                error.log_tail = error.log_tail or session.server.log_tail()
            raise
        finally:
            if session.server is None and session.loaded:
                prepared.backend.unload(session.ask, session.wanted_model())
            if session.server is None and session.evicted:
                gone, title = ", ".join(session.evicted), prepared.backend.title
                listen(Note(f"{title} unloaded {gone} and does not load it again"))


@contextlib.contextmanager
def _attached(prepared: Prepared, log_path: Path, idle: Idle) -> Iterator[Session]:
    assert prepared.endpoint is not None
    where = prepared.where or whereabouts(prepared.endpoint)
    # Nothing of this machine where the server is on another one.
    monitor = Monitor(probes() if where.here else [], where.processes, idle)
    if prepared.nodes is not None:
        monitor.clients = prepared.nodes.here
    endpoint = settled(prepared.endpoint, prepared.backend)
    monitor.look_before()
    yield Session(prepared, endpoint, None, monitor)


@contextlib.contextmanager
def _started(prepared: Prepared, log_path: Path, idle: Idle) -> Iterator[Session]:
    backend, launch, watch = prepared.backend, prepared.launch, probes()
    assert launch is not None
    alone = Monitor(watch, list, idle)
    alone.look_before()
    with server.running(
        backend,
        lambda port: backend.command(replace(launch, port=port)),
        log_path,
        prepared.patience_s,
    ) as started:
        monitor = Monitor(watch, started.processes, alone.idle, alone.before, started=True)
        if prepared.nodes is not None:
            monitor.clients = prepared.nodes.here
        yield Session(prepared, started.endpoint, started, monitor)


def load_model(session: Session, log_path: Path, listen: Listener) -> None:
    """Let the server fetch and load its model. A wrapper that gives up on a slow first load is
    helped once: its bundled engine is started directly, which fills its kernel cache, and then
    the wrapper may try again.

    Raises StartError when patience ends or the wrapper gives up for good, with the log's own
    reason where there is a log.
    """
    if session.backend.own_models and session.wanted_model() is None:
        session.inspect()  # settles which of its models is meant
    wanted, before = session.wanted_model(), session.residents()
    others = [model for model in before if model != wanted]
    if others and wanted not in before:
        title = session.backend.title
        listen(Note(f"{title} may unload {', '.join(others)} to load another model"))
    try:
        try:
            load_s = _drive(session, listen)
        except StartError as error:
            if error.code != "load_gave_up" or not _bypassed(session, log_path, listen):
                raise
            load_s = _drive(session, listen)
    except StartError as error:
        if session.server is not None and not error.log_tail:
            error.message += session.server.because()
            error.hint = error.hint or f"its log: {session.server.log_path}"
        raise
    if session.server is not None:
        # Ready is who can answer, not who has opened a port.
        session.server.load_s += load_s
    if session.loaded:
        after = session.residents()
        session.evicted = tuple(model for model in others if model not in after)


def _drive(session: Session, listen: Listener) -> float:
    """Seconds that loading took, without the fetching before it."""
    patience_s = session.prepared.patience_s
    # A wrapper's "load" may take as long as the engine may.
    ask = functools.partial(session.ask, timeout_s=patience_s)
    told, began = "", time.monotonic()
    deadline = began + patience_s
    for state in session.backend.load(ask, session.prepared.launch, session.wanted_model()):
        session.loaded = True
        session.require_alive()
        doing = state.doing + ("" if state.share is None else f" {state.share:.0%}")
        if told != doing:
            told = doing
            listen(Step(told, phase="start"))
        if time.monotonic() > deadline:
            raise StartError(
                f"the model was not loaded within {patience_s:g} s ({state.doing})",
                hint="give it more time with --patience",
                code="model_not_loaded",
            )
        if state.fetching:
            time.sleep(LOAD_POLL_S)
            began = time.monotonic()
    return time.monotonic() - began


def _bypassed(session: Session, log_path: Path, listen: Listener) -> bool:
    """Start the wrapper's bundled engine until it is ready, and stop it. False where the wrapper
    does not tell how."""
    backend, launch = session.backend, session.prepared.launch
    command = backend.bypass(session.ask, launch, 0)
    if command is None:
        return False
    listen(
        Step("the wrapper gave up on the first load: starting its engine directly", phase="start")
    )
    with server.running(
        backend,
        lambda port: backend.bypass(session.ask, launch, port) or command,
        log_path.with_name("bypass.log"),
        session.prepared.patience_s,
        ready_path=backend.bypass_ready_path,
    ) as direct:
        session.bypass = (
            f"{backend.title} gave up on the first load; its bundled engine was started directly"
            f" for {direct.load_s:.0f} s to fill its kernel cache, then stopped"
        )
    return True


def model_path(session: Session) -> Path | None:
    """Where the served model's file is: as it was started with, else as an engine on this machine
    says; None where it cannot be looked at. The path itself goes nowhere."""
    launch, where = session.prepared.launch, session.prepared.where
    if launch is not None and not session.prepared.backend.own_models:
        return launch.model
    told = session.engine.model_file
    here = session.endpoint.is_loopback and (where is None or where.here)
    # A relative path begins in a folder of the server's.
    if told is None or not here or not (path := Path(told)).is_absolute():
        return None
    with contextlib.suppress(OSError):
        there = where.found(path) if where else path
        return there if there is not None and there.is_file() else None
    return None


def identified(model: Model, session: Session) -> Model:
    """The model as its own file tells it, where an engine on this machine says where that lies.

    Reading all of a large file takes its time, once.
    """
    told, where = session.engine.model_file, session.prepared.where
    here = session.endpoint.is_loopback and (where is None or where.here)
    if model.identity_from != "endpoint" or told is None or not here:
        return model
    path, found = Path(told), None
    blob = _BLOB.fullmatch(path.name)
    # The name of a blob is its checksum, and tells nothing else.
    named: dict[str, Any] = {"sha256": blob[1], "file": None} if blob else {}
    with contextlib.suppress(ModelError, OSError):
        if (there := model_path(session)) is not None:
            found = identity.identify(there, sha256=blob is None)
    if blob and found and found.identity_from == "file_name":
        named |= {"family": model.family, "variant": None, "identity_from": "endpoint"}
    return (found or model).model_copy(update=named)
