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
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, too
    allowed = os.sched_getaffinity(0)
    try:
        return run(asked)
    except Failed as why:
        print(f"bench/instrument: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured is kept", file=sys.stderr)
        return 130
    finally:
        os.sched_setaffinity(0, allowed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.instrument",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--loads", help=f"some of {', '.join(LOADS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a trial: short loads, one repeat")
    parser.add_argument("--fresh", action="store_true", help="go on with no interrupted series")
    parser.add_argument("--page", action="store_true", help="measure nothing: the page once more")
    parser.add_argument("--json", action="store_true", help="print all runs; write no page")
    parser.add_argument("--even-if-busy", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the tools' own files")
    parser.add_argument("--cache", type=Path, default=user_cache_path("tokrig") / "bench")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "peers.md")
    asked = parser.parse_args()
    for name, all_of_them in (("only", PEERS), ("loads", LOADS)):
        given = getattr(asked, name)
        names = given.split(",") if given else list(all_of_them)
        if unknown := set(names) - set(all_of_them):
            parser.error(f"--{name}: {', '.join(unknown)} is none of {', '.join(all_of_them)}")
        setattr(asked, name, names)
    if asked.repeats < 1:
        parser.error("--repeats: at least 1")
    return asked


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
