"""Every error tokrig raises on purpose, as a tree. Each says what, where, why, what to do.

    TokrigError
    ├── InputError            exit 2: what the user gave is wrong
    │   ├── SpecError         a spec file or option: unknown key, wrong type (file:line)
    │   ├── ModelError        a model file: missing, truncated, not GGUF
    │   └── RecordError       a record that cannot be read (file:line), or is of a newer schema
    ├── CheckFailed           exit 1: a check found something
    ├── EngineError           exit 3: the engine or its server failed
    │   ├── StartError        it never became ready
    │   ├── EngineDied        it ended while in use
    │   └── RequestError      it answered, but not with what was asked
    ├── StoreError            exit 2: reading or writing the content folder failed
    ├── PutOff                exit 3: a run cannot be done now, and that says nothing about it
    └── Interrupted           exit 130: Ctrl-C or SIGTERM; what was measured is kept

``code`` is a stable word for machines (records, ``--json``); ``hint`` tells people what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TokrigError(Exception):
    """Base of the tree. ``exit_code`` is what the command line returns for it."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code


class InputError(TokrigError):
    """What the user gave cannot be used."""

    exit_code = 2
    code = "bad_input"


class SpecError(InputError):
    """A spec file or a command-line option is wrong."""

    code = "bad_spec"


class ModelError(InputError):
    """A model file is missing, truncated, or no model file at all."""

    code = "bad_model"


class RecordError(InputError):
    """A record cannot be read: broken YAML, wrong field, newer schema."""

    code = "bad_record"


class CheckFailed(TokrigError):
    """A check ran and found something."""

    exit_code = 1
    code = "check_failed"


class EngineError(TokrigError):
    """The engine or the server around it failed. ``log_tail`` holds its last words."""

    exit_code = 3
    code = "engine_failed"

    def __init__(self, message: str, *, hint: str = "", code: str = "", log_tail: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.log_tail = log_tail


class StartError(EngineError):
    """The engine never became ready."""

    code = "engine_start_failed"


class EngineDied(EngineError):
    """The engine ended while it was in use."""

    code = "engine_died"


class RequestError(EngineError):
    """The engine answered a request with an error or with something unusable."""

    code = "request_failed"


class StoreError(TokrigError):
    """The content folder cannot be read or written."""

    exit_code = 2
    code = "store_failed"


class PutOff(TokrigError):
    """A run cannot be done now: no network, no permission, another driver, a rig that is away.
    Nothing is recorded, because nothing was learned."""

    exit_code = 3
    code = "put_off"


class Interrupted(TokrigError):
    """The user stopped the run; what was measured so far is kept."""

    exit_code = 130
    code = "interrupted"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}? Known: {', '.join(known)}"
    return f"known: {', '.join(known)}"
