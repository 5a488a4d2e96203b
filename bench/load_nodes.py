"""Three load nodes beside one client: do they measure the same, and what does it cost?

    python -m bench.load_nodes --streams 48 --itl 0.01 --runs 3

Starts a Ray cluster of three nodes on this machine and a simulated server whose pace is known, then
measures it in turns: from this process alone, from the three nodes, and from the three while one is
killed under way. Prints a row a run, then the medians. All nodes share this machine's processors,
so what the three cost together is an upper bound of what each would cost on its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.integration.cli import Home
from tests.integration.ray_cluster import TOKEN, Cluster
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation

COLUMNS = {
    "tok/s of one": ("output_tok_per_s", "median"),
    "system tok/s": ("system_tok_per_s", "median"),
    "TTFT ms": ("ttft_s", "median"),
    "ICL p50 ms": ("icl_s", "p50"),
    "ICL p99 ms": ("icl_s", "p99"),
    "requests at once": ("concurrency_mean",),
    "client CPU": ("client_cpu_share",),
    "client waited": ("interference", "client_wait_share"),
    "client late": ("interference", "client_late_share"),
    "nodes": ("load_nodes", "nodes"),
    "lost": ("load_nodes", "lost"),
    "skew ms": ("load_nodes", "start_skew_s"),
    "clocks off ms": ("load_nodes", "clock_uncertainty_s"),
}


def measured(home: Home, words: list[str], cluster: Cluster, kill: bool) -> dict[str, Any]:
    """The result of one run, a rig's raylet killed while it is measured where that is asked."""
    rig = cluster.rigs["rig-b"]
    with home.start(*words, env=TOKEN) as process:
        assert process.stderr
        for line in process.stderr:
            if kill and "measuring" in line and rig.process.poll() is None:
                rig.kill_raylet()
    if process.returncode:
        sys.exit(f"tokrig {' '.join(words)} ended with {process.returncode}")
    if kill:
        rig.start()
        rig.wait_until_up()
    [result] = yaml.safe_load(home.record_paths()[-1].read_text())["results"]
    return dict(result)


def values(result: dict[str, Any]) -> list[float | None]:
    """One value a column."""
    found: list[float | None] = []
    for title, path in COLUMNS.items():
        one: Any = result
        for key in path:
            one = (one or {}).get(key)
        found.append(one * 1e3 if one is not None and title.endswith("ms") else one)
    return found


def row(name: str, numbers: list[float | None]) -> None:
    shown = ["–" if one is None else f"{one:.5g}" for one in numbers]
    print(f"| {' | '.join([name, *shown])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=48)
    parser.add_argument("--itl", type=float, default=0.01)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    # Ray's sockets lie in its folder, and a socket's path may not be long.
    root, home = Path(tempfile.mkdtemp(prefix="ray-")), Home(Path(tempfile.mkdtemp()))
    cluster, rows = Cluster(root), dict[str, list[list[float | None]]]()
    os.environ.setdefault("XDG_CACHE_HOME", str(home.root))
    try:
        cluster.start()
        with simulated(Simulation(ttft_s=0.1, itl_s=asked.itl)) as there:
            shape = ["--workload", "chat", "--concurrency", str(asked.streams), "--even-if-busy"]
            words = ["run", "--url", f"http://127.0.0.1:{there.port}", *shape]
            nodes = [*words, "--load-from", cluster.address]
            ways = {"one": (words, False), "three": (nodes, False), "one killed": (nodes, True)}
            print(f"{asked.streams} streams, a token every {asked.itl * 1e3:g} ms\n")
            print(f"| {' | '.join(['', *COLUMNS])} |\n|{'---|' * (len(COLUMNS) + 1)}")
            for _ in range(asked.runs):
                for name, (line, kill) in ways.items():
                    rows.setdefault(name, []).append(values(measured(home, line, cluster, kill)))
                    row(name, rows[name][-1])
        for name, found in rows.items():
            columns = zip(*found, strict=True)
            known = [[one for one in column if one is not None] for column in columns]
            row(f"{name}, median", [statistics.median(some) if some else None for some in known])
    finally:
        cluster.stop()
        shutil.rmtree(root)
        shutil.rmtree(home.root)


if __name__ == "__main__":
    main()
