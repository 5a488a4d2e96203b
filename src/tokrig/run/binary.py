"""What an engine's program says about itself before it is started: version, devices, flags."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache

from tokrig.backends import asked_of
from tokrig.errors import InputError

# Python programs import their whole engine to print their flags: half a minute on a busy machine.
TIME_LIMIT_S = 180.0
MAX_CHARS = 1 << 20


def asked(questions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The output of each command line, errors included; an exit code says nothing here, for
    programs differ in what they think of ``--help``. A signal that ended it does, and stands in a
    last line. A campaign asks the same program before each
    of its runs: it is started again only when its file has changed.

    Raises InputError for a program that cannot be run or does not end.
    """
    return tuple(_answer(tuple(argv), _stamp(argv[0])) for argv in questions)


def _stamp(program: str) -> tuple[int, int] | None:
    """Tells one build of a program from the next at the same place."""
    try:
        found = os.stat(shutil.which(program) or program)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@cache
def _answer(argv: tuple[str, ...], stamp: tuple[int, int] | None) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{asked_of(argv)} did not end within {TIME_LIMIT_S:g} s",
            hint="is this the engine's server program? Run it by hand to see what it does",
        ) from None
    except OSError as error:
        hint = "give the path of the engine's program: run has --server-bin for it, raw --bin"
        if error.errno == errno.ENOEXEC:
            hint = "is it for another processor, or a script without a first line such as #!/bin/sh"
        raise InputError(
            f"{asked_of(argv)} cannot be run: {error.strerror or error}", hint=hint
        ) from None
    said = done.stdout.decode("utf-8", "replace")[:MAX_CHARS]
    return f"{said}\nended by {_signal(-done.returncode)}" if done.returncode < 0 else said


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
