"""What runs on a rig of a Ray cluster; ``ray_executor`` calls it from the head.

A record waits in the outbox, a content folder in the rig's state folder, until the head has it:
should the head end in between, the next one that asks gets it without measuring again. Errors
are told as data, so that they arrive whole and without Ray's traceback.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tokrig import errors, measure
from tokrig.errors import EngineError, RecordError, TokrigError
from tokrig.files import state_dir
from tokrig.record.model import Record
from tokrig.run.monitor import Start, at_once, patiently
from tokrig.spec.run import RunSpec
from tokrig.store import Store


@dataclass(frozen=True)
class SentError:
    """A TokrigError on its way to the head; ``kind`` is the name of its class."""

    kind: str
    message: str
    hint: str
    code: str
    log_tail: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of a request to measure: a record as YAML with its samples as Parquet, an error,
    or both for a failed run."""

    record: str | None = None
    samples: bytes = b""
    error: SentError | None = None


def run_planned(spec_json: str, switches: str | None = None, even_if_busy: bool = False) -> Answer:
    """Measure the run of a spec that has a ``planned`` key, or hand over what waits of it.

    ``switches`` is the text of the head's own table of reasoning switches; the rig is looked at
    before it starts unless ``even_if_busy``. A KeyboardInterrupt,
    Ray's way to cancel, leaves the journal for the next time.
    """
    try:
        spec = RunSpec.model_validate_json(spec_json)
        with _as_owner_set():
            path, error = _finished(spec.planned) or _measured(
                spec, switches, at_once if even_if_busy else patiently
            )
        store = Store(outbox())
        samples = store.samples_path(path.stem).read_bytes()
        return Answer(path.read_text("utf-8"), samples, sent(error) if error else None)
    except TokrigError as problem:
        return Answer(error=sent(problem))


def forget(planned: str) -> None:
    """The head has stored the record: remove it here, the record before its samples."""
    store = Store(outbox())
    for path, _ in _waiting(planned):
        path.unlink(missing_ok=True)
        store.samples_path(path.stem).unlink(missing_ok=True)


def outbox() -> Path:
    """The content folder of records that no head has stored yet."""
    return state_dir() / "outbox"


def sent(error: TokrigError) -> SentError:
    """An error as data."""
    log_tail = error.log_tail if isinstance(error, EngineError) else ""
    return SentError(type(error).__name__, error.message, error.hint, error.code, log_tail)


def raised(said: SentError, rig: str) -> TokrigError:
    """The error that was told, of its class, saying where it happened."""
    kind = getattr(errors, said.kind, TokrigError)
    if not (isinstance(kind, type) and issubclass(kind, TokrigError)):
        kind = TokrigError
    error: TokrigError = kind(f"rig {rig}: {said.message}", hint=said.hint, code=said.code)
    if isinstance(error, EngineError):
        error.log_tail = said.log_tail
    return error


def _measured(spec: RunSpec, switches: str | None, start: Start) -> tuple[Path, EngineError | None]:
    own = outbox() / "reasoning.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    if switches is None:
        own.unlink(missing_ok=True)
    else:
        own.write_text(switches, encoding="utf-8")
    ended = measure.measure_spec(spec, outbox(), start=start)
    return ended.path, ended.error


def _finished(planned: str | None) -> tuple[Path, EngineError | None] | None:
    for path, record in _waiting(planned):
        if record.failure is None:
            return path, None
        failure = record.failure
        return path, EngineError(failure.message, code=failure.code, log_tail=failure.log_tail)
    return None


def _waiting(planned: str | None) -> Iterator[tuple[Path, Record]]:
    """Records of a planned run in the outbox. One that cannot be read is nobody's answer."""
    store = Store(outbox())
    for path in store.iter_paths():
        with contextlib.suppress(RecordError):
            record = store.read(path)
            if planned is not None and record.provenance.planned == planned:
                yield path, record


@contextlib.contextmanager
def _as_owner_set() -> Iterator[None]:
    """The number of OpenMP threads as the rig's owner set it, or not at all.

    Ray tells its workers to compute with one thread, and engines would inherit that.
    """
    name = "OMP_NUM_THREADS"
    by_ray = os.environ.pop(name, None)
    owners = psutil.Process(os.getppid()).environ().get(name)
    if owners is not None:
        os.environ[name] = owners
    try:
        yield
    finally:
        if by_ray is not None:
            os.environ[name] = by_ray
