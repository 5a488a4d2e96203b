"""Puts power caps back when tokrig ends, however it ends, kill -9 included.

Started by ``power`` with a pipe as its standard input, which closes when tokrig has ended or has
done with the caps. In a session of its own and deaf to what ends tokrig in order, so that Ctrl-C
in the terminal does not end it too. Says ``ready`` once nothing is left to be loaded; that it has
the drivers open by then also keeps NVIDIA's from being unloaded under the cap.
"""

from __future__ import annotations

import os
import signal
import sys

from tokrig.errors import TokrigError
from tokrig.run import power


def main() -> int:
    """Wait for the end of standard input, then put the caps back; 1 when that failed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    power.caps()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while os.read(0, 1):
        pass
    try:
        power.put_back()
    except TokrigError as problem:
        sys.stderr.write(f"tokrig: {problem.message}\n{problem.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
