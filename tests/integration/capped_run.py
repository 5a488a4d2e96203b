"""Stands for a run under a power cap: ``capped_run.py WATTS``.

Says ``begin`` before it caps, and the caps after it; goes on when a line comes, ends in order when
standard input ends, and by an exception when the line is ``fail``.
"""

from __future__ import annotations

import signal
import sys

from tokrig.errors import TokrigError
from tokrig.run import power


def interrupt(number: int, frame: object) -> None:
    """As the command line does it."""
    raise KeyboardInterrupt


def main(watts: float | None) -> int:
    signal.signal(signal.SIGTERM, interrupt)
    print("begin", flush=True)
    try:
        with power.capped(watts) as caps:
            print(*(f"{cap.limit_w:g}" for cap in caps), flush=True)
            if sys.stdin.readline() == "fail\n":
                raise RuntimeError("made to fail")
    except TokrigError as error:
        print(f"{type(error).__name__}: {error.message}; {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else None))
