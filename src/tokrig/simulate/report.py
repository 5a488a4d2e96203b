"""What a simulated server did: counts, lateness, and a log of stamps."""

from __future__ import annotations

import json
import time
from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokrig.errors import InputError

LATEST_US = 20_000  # lateness is counted in bins of 1 µs up to this
_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class Report:
    """What a server did. ``late_s`` is send time − due time over all sends that no slow reader
    held up (``held_up``), rounded up to µs; None where there were none. ``outcomes`` counts the
    requests: answered, failed, refused, cut, gone (the client hung up). ``tok_per_s`` is between
    the first token and the last; ``waiting`` and ``active`` are of this moment."""

    requests: int
    outcomes: dict[str, int]
    tokens: int
    tok_per_s: float | None
    sends: int
    held_up: int
    late_s: dict[str, float] | None
    cpu_s: float
    waiting: int
    active: int


class Tally:
    """Counts while it serves: bounded, and quick."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.late_us = array("q", bytes(8 * (LATEST_US + 1)))
        self.requests = self.tokens = self.held_up = 0
        self.latest_ns = self.first_ns = self.last_ns = 0
        self.began_cpu_s = time.process_time()

    def sent(self, tokens: int, now_ns: int, late_ns: int | None) -> None:
        """One send of so many tokens; None where a slow reader held it up."""
        if late_ns is None:
            self.held_up += 1
        else:
            self.late_us[min(late_ns // 1000, LATEST_US)] += 1
            self.latest_ns = max(self.latest_ns, late_ns)
        if tokens:
            self.tokens += tokens
            self.first_ns = self.first_ns or now_ns
            self.last_ns = now_ns

    def report(self, waiting: int, active: int) -> Report:
        """What was done so far."""
        below = [*accumulate(self.late_us)]
        sends, span_ns = below[-1], self.last_ns - self.first_ns
        ends_us = {n: bisect_left(below, share * sends) + 1 for n, share in _SHARES.items()}
        most_s = self.latest_ns / 1e9
        late_s = {n: us / 1e6 if us <= LATEST_US else most_s for n, us in ends_us.items()}
        return Report(
            requests=self.requests,
            outcomes=dict(self.outcomes),
            tokens=self.tokens,
            tok_per_s=(self.tokens - 1) / span_ns * 1e9 if span_ns > 0 else None,
            sends=sends + self.held_up,
            held_up=self.held_up,
            late_s={**late_s, "max": most_s} if sends else None,
            cpu_s=time.process_time() - self.began_cpu_s,
            waiting=waiting,
            active=active,
        )


class Stamps:
    """A log of when tokens were due and sent, a line of JSON a request that ended. It is written
    while nothing is due."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        try:
            self.file = path.open("wb")
        except OSError as problem:
            raise InputError(
                f"{path}: the log cannot be written: {problem.strerror or problem}",
                hint="--log names a file in a folder that is there",
            ) from None

    def write(self) -> None:
        """Write what has ended."""
        for line in self.lines:
            plain = {k: v.tolist() if isinstance(v, array) else v for k, v in line.items()}
            self.file.write(json.dumps(plain).encode() + b"\n")
        if self.lines:
            self.lines.clear()
            self.file.flush()

    def close(self) -> None:
        """Write the rest."""
        with self.file:
            self.write()
