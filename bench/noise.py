"""Does a loaded machine show? The real engine again and again: alone, and beside loads of our own.

    python bench/noise.py --runs 10 > noise.md

Wants a machine on which nothing else runs: it says so when it does not. Every load is a process of
this program and ended by its id. A table of all runs, then what came of each kind of load: a result
beside a load must be invalid, or within 3 % of the idle rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BUSY = "while True: pass"
# Works so many seconds of every so many.
DUTY = """
import time
while True:
    began = time.monotonic()
    while time.monotonic() - began < {work_s}: pass
    time.sleep({every_s} - {work_s})
"""
QUARTER = DUTY.format(work_s=0.025, every_s=0.1)
BURSTS = DUTY.format(work_s=0.2, every_s=2.0)
CORES = len(os.sched_getaffinity(0))
LOADS = {
    "idle": [],
    "a busy loop a core": [BUSY] * CORES,
    "a quarter of a core": [QUARTER],
    "bursts on each core": [BURSTS] * CORES,
}
WITHIN = 0.03


@dataclass(frozen=True)
class Run:
    load: str
    tok_per_s: float
    verdict: str
    reasons: list[str]
    seen: dict[str, Any]


@contextlib.contextmanager
def beside(programs: list[str]) -> Iterator[None]:
    """Our own load, ended by its ids whatever happens."""
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(load: str, words: list[str]) -> list[Run]:
    """One run of the command line; a row for each of its results."""
    with tempfile.TemporaryDirectory() as folder, beside(LOADS[load]):
        command = [sys.executable, "-m", "tokrig", "run", *words]
        options = ["--even-if-busy", "--quiet", "--json", "--content", folder]
        env = {**os.environ, "TOKRIG_STATE": f"{folder}/state"}
        done = subprocess.run(
            [*command, *options], env=env, check=False, capture_output=True, text=True
        )
    if done.returncode:
        sys.exit(done.stderr)
    return [
        Run(
            load,
            result["output_tok_per_s"]["median"],
            result["validity"]["verdict"],
            result["validity"].get("reasons", []),
            result["interference"],
        )
        for result in json.loads(done.stdout)["record"]["results"]
    ]


SHARES = (
    ("waited", "engine_wait_share"),
    ("for others", "foreign_wait_share"),
    ("one thread", "thread_wait_share"),
    ("others, cores", "other_cores_mean"),
    ("stolen", "steal_share"),
    ("client waited", "client_wait_share"),
    ("client late", "client_late_share"),
)


def row(run: Run) -> str:
    shares = [run.seen.get(key) for _, key in SHARES]
    told = ["–" if share is None else f"{share:.4f}" for share in shares]
    what = ", ".join([run.verdict, *run.reasons])
    return f"| {run.load} | {run.tok_per_s:.1f} | {' | '.join(told)} | {what} |"


def summary(runs: list[Run]) -> Iterator[str]:
    """How many were invalid, and how far off the rest was."""
    idle = statistics.median(r.tok_per_s for r in runs if r.load == "idle")
    for load in dict.fromkeys(r.load for r in runs):
        mine = [r for r in runs if r.load == load]
        passed = [r for r in mine if r.verdict != "invalid"]
        off = max((abs(r.tok_per_s / idle - 1) for r in passed), default=0.0)
        wrong = [r for r in passed if load != "idle" and abs(r.tok_per_s / idle - 1) > WITHIN]
        yield (
            f"| {load} | {len(mine)} | {len(mine) - len(passed)} | {off:.1%} | "
            f"{len(wrong) if load != 'idle' else '–'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="of each kind")
    parser.add_argument("--only", choices=LOADS, action="append", help="these loads only")
    parser.add_argument("words", nargs="*", default=["--workload", "chat"], help="for tokrig run")
    asked = parser.parse_args()
    # However this ends, nothing that it started goes on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    loads = ["idle", *(load for load in asked.only or LOADS if load != "idle")]
    print(f"{CORES} cores; tokrig run {' '.join(asked.words)}\n")
    print(f"| load | tok/s | {' | '.join(name for name, _ in SHARES)} | verdict |")
    print("|" + "---|" * (len(SHARES) + 3), flush=True)
    runs: list[Run] = []
    # In turns, so that a machine that changes meanwhile changes for all.
    for _ in range(asked.runs):
        for load in loads:
            for run in measure(load, asked.words):
                runs.append(run)
                print(row(run), flush=True)
    print("\n| load | results | invalid | others off by at most | valid and off by more than 3 % |")
    print("|---|---|---|---|---|")
    for line in summary(runs):
        print(line)


if __name__ == "__main__":
    main()
