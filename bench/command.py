"""The command line of a series of tools, each measured in turn: its options, its end in order."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from platformdirs import user_cache_path

from bench.processes import Failed


def command(run: Callable[[], int], name: str) -> int:
    """The exit code of a series: 1 where something ended it, 130 where somebody did."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, too
    allowed = os.sched_getaffinity(0)
    try:
        return run()
    except Failed as why:
        print(f"{name}: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured is kept", file=sys.stderr)
        return 130
    finally:
        os.sched_setaffinity(0, allowed)


class Options(argparse.ArgumentParser):
    """What a series of ``tools`` under ``loads`` can be asked for."""

    def __init__(
        self, prog: str, description: str | None, tools: Iterable[str], loads: Iterable[str]
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._choices = {"only": list(tools), "loads": list(loads)}
        for name, choices in self._choices.items():
            self.add_argument(f"--{name}", help=f"some of {', '.join(choices)}")
        for name, what in {
            "fresh": "go on with no interrupted series",
            "page": "measure nothing: the page once more",
            "json": "print all runs; write no page",
            "even-if-busy": None,
            "keep": "keep the tools' own files",
        }.items():
            self.add_argument(f"--{name}", action="store_true", help=what)
        self.add_argument("--cache", type=Path, default=user_cache_path("tokrig") / "bench")

    def asked(self) -> argparse.Namespace:
        """What this command was asked for; names that it has not end it with a message."""
        asked = self.parse_args()
        for name, choices in self._choices.items():
            given = getattr(asked, name)
            names = given.split(",") if given else list(choices)
            if unknown := set(names) - set(choices):
                self.error(f"--{name}: {', '.join(unknown)} is none of {', '.join(choices)}")
            setattr(asked, name, names)
        if asked.repeats is not None and asked.repeats < 1:
            self.error("--repeats: at least 1")
        return asked
