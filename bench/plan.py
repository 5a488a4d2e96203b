"""How long a plan of 100,000 cells over 10,000 records takes, beside json.dumps of its rows.

    python bench/plan.py [--records 10000] [--times 3]

Two campaigns of the same number of cells: few runs of four shapes, and a run for each cell. One
run in ten is done, one in a hundred failed, all must fit; the plan is made whole each time, from
the files as they were read to the ordered list with states, times and downloads.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from pathlib import Path

from tokrig import plan as p
from tokrig.plan.order import plan as planned
from tokrig.spec.campaign import CampaignFile, load_campaign

SHAPES = {
    "chat": p.Shape(512, 256),
    "rag": p.Shape(4096, 256),
    "codegen": p.Shape(1024, 512),
    "agent": p.Shape(2048, 128),
}
QUANTS = "Q2_K Q3_K_M Q4_K_S Q4_K_M Q5_K_M Q6_K Q8_0 F16".split()
RIGS = {f"rig-{n}": (8 * (n + 1), 200 + 100 * n) for n in range(10)}


def campaign_text(models: int, quants: list[str], shapes: list[str]) -> str:
    """Models × quants × 10 rigs × 5 APIs × 5 cache types × 5 caps: 1250 runs of each quant."""
    rigs = "".join(
        f"  {name}: {{vram_gib: {gib}, memory_bandwidth_gb_per_s: {rate}, power_w: [100, 400]}}\n"
        for name, (gib, rate) in RIGS.items()
    )
    declared = "".join(
        f"  model-{n}: {{repo: owner/model-{n}-GGUF, file: 'model-{n}-{{quant}}.gguf',"
        f" parameters: {(n + 1) * 1.0e9}, kv_bytes_per_token: {32768 * (n + 1)}}}\n"
        for n in range(models)
    )
    return f"""\
title: Many runs
models:
{declared}rigs:
{rigs}entries:
  - name: all
    title: Everything
    when: [fits_vram]
    matrix:
      rig: [{", ".join(RIGS)}]
      model: [{", ".join(f"model-{n}" for n in range(models))}]
      quant: [{", ".join(quants)}]
      backend: llamacpp
      api: [cuda, vulkan, rocm, sycl, null]
      kv_type: [null, q8_0, q5_1, q5_0, q4_0]
      power_cap_w: [null, 150, 200, 250, 300]
      workloads: [{", ".join(shapes)}]
      concurrency: 1
"""


def load(text: str) -> CampaignFile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.yaml"
        path.write_text(text, encoding="utf-8")
        return load_campaign(path)


def made(file: CampaignFile, past: list[p.Past]) -> p.Plan:
    needs = {name: shape.prompt_tokens + shape.answer_tokens for name, shape in SHAPES.items()}
    return planned(
        [file], p.PlanInputs(here="rig-0", catalog=(), needs=needs, shapes=SHAPES, past=past)
    )


def records(runs: list[p.Run], count: int) -> list[p.Past]:
    """``count`` records, nearly all of runs of this plan."""
    chance = random.Random(1)
    chosen = chance.sample(runs, min(count, len(runs)))
    return [
        p.Past(
            id=f"run-{n}",
            planned=run.key,
            status="failed" if n % 10 == 9 else "complete",
            verdict="valid",
            failure="the engine ended" if n % 10 == 9 else None,
            rig=run.rig,
            level="standard",
            results=len(run.workloads or ()),
            started_at=f"2026-11-22T{n % 24:02d}:00:00+00:00",
            duration_s=300 + 300 * chance.random(),
            model_bytes=chance.randrange(10**8, 10**11),
            backend=run.backend,
        )
        for n, run in enumerate(chosen)
    ]


def measure(text: str, count: int, times: int) -> None:
    began = time.perf_counter()
    file = load(text)
    loading = time.perf_counter() - began
    past = records([planned.run for planned in made(file, []).runs], count)
    took, beside = [], []
    for _ in range(times):
        began = time.perf_counter()
        plan = made(file, past)
        took.append(time.perf_counter() - began)
        rows = plan.as_json()["runs"]
        began = time.perf_counter()
        json.dumps(rows)
        beside.append(time.perf_counter() - began)
    cells = sum(planned.cells for planned in plan.runs)
    states = ", ".join(f"{count} {state}" for state, count in plan.counts.items() if count)
    print(
        f"{cells} cells in {len(plan.runs)} runs over {len(past)} records: {min(took):.2f} s,"
        f" {min(took) / len(plan.runs) * 1e6:.1f} µs a run; json.dumps of the rows"
        f" {min(beside):.2f} s, ratio {min(took) / min(beside):.1f} (reading the file:"
        f" {loading:.2f} s); {states}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    print(f"Python {platform.python_version()} on {platform.machine()}; best of {given.times}")
    measure(campaign_text(5, QUANTS[:4], list(SHAPES)), given.records, given.times)
    measure(campaign_text(10, QUANTS, ["chat"]), given.records, given.times)


if __name__ == "__main__":
    main()
