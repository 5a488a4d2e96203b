"""tokrig's client beside its peers: the same server, the same loads, one core each.

    python -m bench.instrument [--only tokrig,vllm] [--loads fast,wide] [--repeats 3] [--quick]

It installs what is missing (in $XDG_CACHE_HOME/tokrig), runs every tool with every load, the tools
in turn within each repeat, and writes docs/peers.md. What was measured is kept: an interrupted
series goes on where it was. --page writes the page of the last one again, --json prints figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.command import Options, command
from bench.instrument import report
from bench.instrument.figures import Usage, figures
from bench.instrument.loads import (
    CEILING,
    HERE,
    LOADS,
    START,
    Load,
    compiled,
    read_log,
    serving,
)
from bench.instrument.peers import (
    SETTINGS,
    Job,
    Peer,
    aiperf,
    c_client,
    guidellm,
    llama_benchy,
    tokenizer,
    tokrig_run,
    vllm_bench,
)
from bench.instrument.series import Series, digest
from bench.processes import Cores, Failed, Used, cores, require_idle

ROOT = HERE.parent.parent
PEERS = {
    module.PEER.name: module.PEER
    for module in (tokrig_run, vllm_bench, aiperf, guidellm, llama_benchy, c_client)
}


def main() -> int:
    asked = arguments()
    return command(lambda: run(asked), "bench/instrument")


def arguments() -> argparse.Namespace:
    options = Options("python -m bench.instrument", __doc__, PEERS, LOADS)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="a trial: short loads, one repeat")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "peers.md")
    return options.asked()


def run(asked: argparse.Namespace) -> int:
    cache: Path = asked.cache.resolve()
    series = Series(cache / "runs")
    peers = [PEERS[name] for name in asked.only]
    loads = [LOADS[name].quick() if asked.quick else LOADS[name] for name in asked.loads]
    if not asked.page:
        measure(asked, cache, series, peers, loads)
    facts, runs = series.facts(), series.found(peers, loads)
    if asked.json:
        print(json.dumps({"facts": asdict(facts), "runs": runs}, indent=1))
        return 0
    there = {run["tool"] for run in runs}
    page = report.page(facts, runs, [peer for peer in peers if peer.name in there], loads)
    asked.out.write_text(page, "utf-8")
    print(asked.out, file=sys.stderr)
    return 0


def measure(
    asked: argparse.Namespace, cache: Path, series: Series, peers: list[Peer], loads: list[Load]
) -> None:
    """All runs that are not there yet."""
    # `make` has a uv of its own where there is none on the PATH.
    os.environ.setdefault("UV", shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv"))
    with redirect_stdout(sys.stderr):  # figures alone go to standard output
        model = tokenizer(cache.parent / "engines")
        there, left_out = installed(peers, cache)
    bench = Bench(cache, model, cores(), asked.keep)
    os.sched_setaffinity(0, bench.cores.others)
    if busy := require_idle(bench.cores, even_if_busy=asked.even_if_busy):
        print(f"warning: {busy}", file=sys.stderr)
    repeats = 1 if asked.quick else asked.repeats
    todo = [(load, n, peer) for load in loads for n in range(repeats) for peer in there]
    versions = {peer.title: peer.version() for peer in there}
    series.begin(
        digest([*map(repr, todo), repr(bench.cores)]),
        report.Facts.here(versions, left_out, asdict(bench.cores)),
        fresh=asked.fresh,
    )
    began = time.monotonic()
    for done, (load, repeat, peer) in enumerate(todo):
        told = f"[{done + 1}/{len(todo)}] {load.name}, repeat {repeat + 1}: {peer.title}"
        print(f"{told} …", file=sys.stderr, end=" ", flush=True)
        found = bench.kept(peer, load, repeat, series)
        print(found.get("failed") or f"{found['seconds']:.1f} s", file=sys.stderr)
    series.finish()
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)


def installed(peers: list[Peer], cache: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are there, and why the others are not."""
    there, left_out = [], {}
    for peer in peers:
        try:
            peer.install(cache)
            there.append(peer)
        except (Failed, OSError, subprocess.CalledProcessError) as why:
            left_out[peer.title] = str(why)
            print(f"{peer.title} is left out: {why}", file=sys.stderr)
    return there, left_out


@dataclass
class Bench:
    """Runs one tool with one load after the other."""

    cache: Path
    tokenizer: Path
    cores: Cores
    keep: bool

    def __post_init__(self) -> None:
        self.server, self.launcher = (compiled(n, self.cache) for n in ("server", "launch"))

    def kept(self, peer: Peer, load: Load, repeat: int, series: Series) -> dict[str, Any]:
        """The figures of a run, measured where they are not there yet."""
        kept = series.path(load.name, repeat, peer.name)
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
            if "failed" not in found:
                return found
        folder = kept.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found = {"tool": peer.name, "load": load.name, "repeat": repeat}
        try:
            found |= self.measured(peer, Job(load, 0, folder, self.tokenizer))
        except (Failed, OSError, LookupError, TypeError, ValueError) as why:
            kind = "" if isinstance(why, Failed) else f"{type(why).__name__}: "
            found["failed"] = f"{kind}{why}"
        kept.write_text(json.dumps(found), "utf-8")
        if not self.keep and "failed" not in found:
            shutil.rmtree(folder)
        return found

    def measured(self, peer: Peer, job: Job) -> dict[str, Any]:
        load, log = job.load, job.folder / "truth.bin"
        began = time.monotonic()
        with serving(self.server, load, log, self.cores.server) as port:
            job = Job(load, port, job.folder, job.tokenizer)
            argv = [*peer.program(self.cache), *peer.arguments(job)]
            used = Used.of(
                self.launcher, argv, {**SETTINGS, **peer.settings}, job.folder, self.cores.client
            )
        truth = read_log(log)
        if len(truth.sent) != load.streams:
            raise Failed(f"it sent {len(truth.sent)} of {load.streams} requests")
        timed_only = load.name in (CEILING, START)
        reading = None if timed_only else peer.read(job)
        if reading is not None and len(reading.ttft_s) != load.streams:
            raise Failed(f"it tells of {len(reading.ttft_s)} of {load.streams} requests")
        usage = Usage(used.cpu_s, used.peak_bytes, (min(truth.received) - used.start_ns) / 1e9)
        return {
            "command": shown(argv, job),
            "seconds": time.monotonic() - began,
            "means": bool(reading and reading.means),
            "foreign": used.foreign,
            "figures": figures(load, truth, reading, usage),
        }


def shown(argv: list[str], job: Job) -> str:
    """A command without what is of this machine or this run."""
    text = " ".join([Path(argv[0]).name, *argv[1:]])
    for found, name in (
        (str(job.folder), "OUT"),
        (str(job.tokenizer), "TOKENIZER"),
        (f"{ROOT}/", ""),
        (str(job.port), "PORT"),
    ):
        text = text.replace(found, name)
    return text


if __name__ == "__main__":
    sys.exit(main())
