"""A real campaign, killed on its way: quants of SmolLM2 made on demand, on two engines.

``python -m tests.engines.real_campaign --engines DIR`` runs all of it (some twenty minutes) and
prints where the time went; ``test_campaign`` runs a small part.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.engines.llama_builds import builds
from tests.integration.cli import Home
from tokrig.models import catalog

QUANTS = ("Q8_0", "Q5_1", "Q5_0", "Q4_0")
WORKLOADS = ("chat", "codegen")
LONGEST_S = 3600


@dataclass(frozen=True)
class Killed:
    """How often the campaign was killed, after how many seconds each time, and its summary."""

    after_s: list[float]
    summary: dict[str, object]
    wall_s: float


def higher_precision(build: Path, folder: Path) -> Path:
    """SmolLM2 in 16 bits, the file that quants are made from. It comes in Q4_1, so its quants
    are no better than that; here only speed is looked at."""
    target = folder / "SmolLM2-135M-Instruct-F16.gguf"
    source = catalog.resolve("smollm2-135m")
    subprocess.run(
        [build / "llama-quantize", "--allow-requantize", source, target, "F16"],
        check=True,
        capture_output=True,
    )
    return target


def write_campaign(
    folder: Path, source: Path, build: Path, quants: Sequence[str], workloads: Sequence[str]
) -> Path:
    """A campaign file: the quants, and Gemma as it comes, on the embedded engine and on
    ``llama-server``."""
    backends = ["embedded", "llamacpp"]
    entries = []
    for backend in backends:
        shared = {"backend": backend, "workloads": list(workloads), "concurrency": 1}
        if backend == "llamacpp":
            shared["build"] = "from-source"
        quantized = {"model": "smollm2", "quant": list(quants), **shared}
        entries.append({"name": f"quants-{backend}", "title": "Quants", "matrix": quantized})
        if len(quants) > 2:
            matrix = {"model": "gemma-3-270m", **shared}
            entries.append({"name": f"gemma-{backend}", "title": "Gemma", "matrix": matrix})
    campaign = {
        "title": "Two models, two engines",
        "level": "quick",
        "models": {"smollm2": {"file": str(source), "quantize": True, "parameters": 134_515_008}},
        "builds": {"from-source": str(build / "llama-server")},
        "entries": entries,
    }
    path = folder / "real.yaml"
    # Through JSON, so that what two entries share is written out twice.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(campaign)), sort_keys=False))
    return path


def environment(build: Path, cache: Path) -> dict[str, str]:
    """The models that are made go to a cache of their own."""
    return {
        "TOKRIG_LLAMA_QUANTIZE": str(build / "llama-quantize"),
        "XDG_CACHE_HOME": str(cache),
    }


def killed_on_the_way(
    home: Home, campaign: Path, env: dict[str, str], kills: Sequence[float]
) -> Killed:
    """Start the campaign, kill -9 it after each of ``kills`` seconds, then let it end."""
    began, after_s = time.monotonic(), []
    words = ("campaign", "run", str(campaign), "--even-if-busy", "--json")
    for seconds in kills:
        process = home.start(*words, env=env)
        try:
            _, err = process.communicate(timeout=seconds)
            assert process.returncode == 0, err
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            after_s.append(seconds)
        assert home.no_engines_left(), "an engine outlived a killed campaign"
    process = home.start(*words, env=env)
    out, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, err
    return Killed(after_s, json.loads(out), time.monotonic() - began)


def require_exactly_the_planned(home: Home, campaign: Path, env: dict[str, str]) -> int:
    """Each planned run has one complete record, nothing else is there. Returns their number."""
    plan = home.tokrig("campaign", "plan", str(campaign), "--all", "--json", env=env).json
    wanted = {run["key"] for run in plan["runs"]}
    counts, records = plan["counts"], home.records()
    assert counts["done"] + counts["invalid"] == len(wanted) == len(plan["runs"]), counts
    for record in records:
        # A virtual machine whose processors were taken from it for a while says so, rightly.
        assert set(record["validity"].get("reasons", ())) <= {"foreign_cpu_load"}, record["id"]
    found = Counter(record["provenance"]["planned"] for record in records)
    assert found == dict.fromkeys(wanted, 1), "a run is missing, or was recorded twice"
    assert {record["status"] for record in records} == {"complete"}
    samples = {path.stem for path in (home.content / "benchmarks" / "samples").iterdir()}
    assert samples == {record["id"] for record in records}, "a stray or a missing samples file"
    assert not [name for name in home.files() if name.endswith(".tmp")], "a half file"
    assert home.unfinished() == [], "a journal is left"
    checked = home.tokrig("check", env=env)
    assert checked.code == (1 if counts["invalid"] else 0), checked.err
    assert home.no_engines_left()
    return len(wanted)


def main() -> int:
    """The whole campaign twice: undisturbed, for where the time goes, and killed five times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=5)
    asked = parser.parse_args()
    build, _ = builds(asked.engines)
    chance = random.Random(asked.seed)
    kills = [round(chance.uniform(5, 90), 1) for _ in range(asked.kills)]
    print(f"seed {asked.seed}: to be killed after {kills} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="real-campaign-") as temporary:
        folder = Path(temporary)
        env = environment(build, folder / "cache")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        source = higher_precision(build, folder)
        home = Home(folder)
        campaign = write_campaign(folder, source, build, QUANTS, WORKLOADS)
        found = killed_on_the_way(home, campaign, env, kills)
        number = require_exactly_the_planned(home, campaign, env)
        print(f"{number} runs, each with one complete record; killed {len(found.after_s)} times")
        print(f"wall time, kills included: {found.wall_s:.0f} s")
        print(json.dumps(found.summary["spent_s"]), "overhead", found.summary["overhead"])
        for record in home.records():
            print(record["id"], *record["validity"].values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
