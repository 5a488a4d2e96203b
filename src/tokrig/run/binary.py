"""What an engine's program says about itself before it is started: version, devices, flags."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tokrig.backends import asked_of
from tokrig.errors import InputError

# Python programs import their whole engine to print their flags: half a minute on a busy machine.
TIME_LIMIT_S = 180.0
MAX_CHARS = 1 << 20


def asked(questions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The output of each command line, errors included; an exit code says nothing here, for
    programs differ in what they think of ``--help``.

    Raises InputError for a program that cannot be run or does not end.
    """
    return tuple(_answer(argv) for argv in questions)


def _answer(argv: Sequence[str]) -> str:
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
        raise InputError(
            f"{asked_of(argv)} cannot be run: {error.strerror or error}",
            hint="give the path of the engine's program: run has --server-bin for it, raw --bin",
        ) from None
    return done.stdout.decode("utf-8", "replace")[:MAX_CHARS]
