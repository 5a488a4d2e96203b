"""Every error tokrig raises on purpose. Each says what, where, why, what to do.

``exit_code`` is what the command line returns for it, ``code`` a stable word for machines (records,
``--json``); ``hint`` tells people what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TokrigError(Exception):
    """Base of them all."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.code


class InputError(TokrigError):
    """What the user gave cannot be used."""

    exit_code = 2
    code = "bad_input"


class SpecError(InputError):
    """A spec file or an option is wrong: an unknown key, a wrong type (file:line)."""

    code = "bad_spec"


class ModelError(InputError):
    """A model file is missing, truncated, or no model file at all."""

    code = "bad_model"


class RecordError(InputError):
    """A record cannot be read: broken YAML, a wrong field (file:line), a newer schema."""

    code = "bad_record"


class ImportRefused(InputError):
    """A file of another tool cannot be imported: not one that is known, broken, without figures."""

    code = "bad_import"


class CheckFailed(TokrigError):
    """A check ran and found something."""

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
    """Ctrl-C or SIGTERM stopped the run; what was measured so far is kept."""

    exit_code = 130
    code = "interrupted"


def no_port(host: str, port: int, why: Exception) -> InputError:
    """Why nothing can listen there."""
    return InputError(
        f"port {port} of {host} is unavailable: {getattr(why, 'strerror', None) or why}",
        hint="--port 0 takes a free one; --host, where there is one, names an address of this"
        " machine",
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    listed = ", ".join(known)
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"known: {listed}"
