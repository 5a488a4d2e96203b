"""From a prepared run to an open session: start or attach, load the model, look at the memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tokrig.backends import Command
from tokrig.errors import EngineDied, StartError
from tokrig.run import server
from tokrig.run.detect import settled
from tokrig.run.listening import whereabouts
from tokrig.run.memory import look
from tokrig.run.monitor import Idle, Monitor, probes
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener, Note, Step
from tokrig.run.session import Session

LOAD_POLL_S = 0.5


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
    when nobody answers.
    """
    backend, launch = prepared.backend, prepared.launch
    if launch is None:
        assert prepared.endpoint is not None
        where = prepared.where or whereabouts(prepared.endpoint)
        # Nothing of this machine where the server is on another one.
        monitor = Monitor(probes() if where.here else [], where.processes, idle or Idle())
        endpoint = settled(prepared.endpoint, backend)
        monitor.look_before()
        session = Session(backend, prepared, endpoint, None, monitor)
        load_model(session, log_path, listen)
        try:
            session.inspect()
            yield session
        finally:
            if session.loaded:
                backend.unload(session.ask, session.model_name())
            if session.evicted:
                gone = ", ".join(session.evicted)
                listen(Note(f"{backend.title} put {gone} out of memory and does not load it again"))
        return
    watch = probes()
    alone = Monitor(watch, list, idle or Idle())
    alone.look_before()
    before = look(watch)
    with server.running(
        backend,
        lambda port: backend.command(replace(launch, port=port)),
        log_path,
        prepared.patience_s,
    ) as started:
        monitor = Monitor(watch, started.processes, alone.idle, alone.before, started=True)
        session = Session(backend, prepared, started.endpoint, started, monitor, before=before)
        try:
            load_model(session, log_path, listen)
            session.inspect()
            yield session
        except EngineDied:
            # Its own exit code and log say more than a refused connection.
            session.await_death()
            raise


def load_model(session: Session, log_path: Path, listen: Listener) -> None:
    """Let the server fetch and load its model. A wrapper that gives up on a slow first load is
    helped once: its bundled engine is started directly, which fills its kernel cache, and then
    the wrapper may try again.

    Raises StartError when patience ends or the wrapper gives up for good, with the log's own
    reason where there is a log.
    """
    if session.backend.own_models and session.wanted_model() is None:
        session.inspect()  # settles which of its models is meant
    before = session.residents()
    others = [model for model in before if model != session.model_name()]
    if others and session.model_name() not in before:
        title = session.backend.title
        listen(Note(f"{title} may put {', '.join(others)} out of memory to load another model"))
    try:
        try:
            load_s = _drive(session, listen)
        except StartError as error:
            if error.code != "load_gave_up" or not _bypassed(session, log_path, listen):
                raise
            load_s = _drive(session, listen)
    except StartError as error:
        raise _with_log(session, error) from None
    if session.server is not None:
        # Ready is who can answer, not who has opened a port.
        session.server.load_s += load_s
    if session.loaded:
        after = session.residents()
        session.evicted = tuple(model for model in others if model not in after)


def _with_log(session: Session, error: StartError) -> StartError:
    """The same error with what only the engine's log knows."""
    if session.server is None or error.log_tail:
        return error
    reason = session.backend.failure(session.log())
    return StartError(
        f"{error.message}: {reason}" if reason else error.message,
        hint=error.hint or f"its log: {session.server.log_path}",
        code=error.code,
        log_tail=session.server.log_tail(),
    )


def _drive(session: Session, listen: Listener) -> float:
    """Seconds that loading took, without the fetching before it."""
    backend, prepared = session.backend, session.prepared
    deadline = time.monotonic() + prepared.patience_s
    told, began = "", time.monotonic()
    for state in backend.load(session.ask_patiently, prepared.launch, session.model_name()):
        session.loaded = True
        session.require_alive()
        share = "" if state.share is None else f" {state.share:.0%}"
        if told != state.doing + share:
            told = state.doing + share
            listen(Step(told, phase="start"))
        if time.monotonic() > deadline:
            raise StartError(
                f"the model was not there within {prepared.patience_s:g} s ({state.doing})",
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

    def command(port: int) -> Command:
        found = backend.bypass(session.ask, launch, port)
        assert found is not None
        return found

    if backend.bypass(session.ask, launch, 0) is None:
        return False
    told = "the wrapper gave up on the first load: starting its engine directly"
    listen(Step(told, phase="start"))
    with server.running(
        backend,
        command,
        log_path.with_name("bypass.log"),
        session.prepared.patience_s,
        ready_path=backend.bypass_ready_path,
    ) as direct:
        session.bypass = (
            f"{backend.title} gave up on the first load; its bundled engine was started directly"
            f" for {direct.load_s:.0f} s to fill its kernel cache, then stopped"
        )
    return True
