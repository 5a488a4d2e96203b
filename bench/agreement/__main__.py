"""What other tools say of the same engine: tokrig, llama-bench, vllm bench serve, GuideLLM, AIPerf
and llama-benchy, in turn, on one llama-server with both small models.

    python -m bench.agreement [--only vllm,guidellm] [--loads smollm2-1] [--repeats 3] [--quick]

It takes the engine that `make test-engines` builds, installs the tools that are missing (in
$XDG_CACHE_HOME/tokrig), and writes docs/agreement.md: every figure beside tokrig's, and of what a
difference consists. It needs an idle machine with two processors for about a quarter of an hour.
What was measured is kept: an interrupted series goes on where it was. --page writes the page of the
last one again, --json prints figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from bench.agreement import report
from bench.agreement.engine import Bare, Load, Server, bare, prompts, serving, streamed, warm
from bench.agreement.tools import TOOLS, Job, Reading, Tool
from bench.command import Options, command
from bench.instrument.loads import compiled
from bench.instrument.peers import tokenizer
from bench.instrument.report import Facts
from bench.instrument.series import Series, digest
from bench.processes import Cores, Failed, Used, cores, require_idle
from tests.engines.llama_builds import builds
from tokrig.models import catalog

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODELS = {"smollm2": "smollm2-135m", "gemma": "gemma-3-270m"}
LOADS = {
    load.name: load
    for load in (
        Load("smollm2", "SmolLM2-135M, one request at a time", 1, 3),
        Load("gemma", "Gemma-3-270M, one request at a time", 1, 3),
        Load("smollm2", "SmolLM2-135M, four requests at a time", 4, 12),
    )
}
PASSES = 5  # of a native benchmark, each between answers of the server
STEADY = 0.03  # two answers of one speed
REPEATS = {1: 3, 4: 1}  # by concurrency: twelve requests take as long as three repeats of three
LONGEST_S = 600.0


def main() -> int:
    asked = arguments()
    return command(lambda: run(asked), "bench/agreement")


def arguments() -> argparse.Namespace:
    options = Options("python -m bench.agreement", __doc__, TOOLS, LOADS)
    options.add_argument("--repeats", type=int, help="of each load; by default 3, or 1 of four")
    options.add_argument("--quick", action="store_true", help="a trial: one request a tool, once")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "agreement.md")
    asked = options.asked()
    if report.OWN_NAME not in asked.only:
        asked.only.insert(0, report.OWN_NAME)
    return asked


def run(asked: argparse.Namespace) -> int:
    cache: Path = asked.cache.resolve()
    series = Series(cache / "agreement")
    tools: list[Tool] = [TOOLS[name] for name in asked.only]
    loads = [LOADS[name] for name in asked.loads]
    if asked.quick:
        loads = [replace(load, requests=load.concurrency) for load in loads]
    if not asked.page:
        measure(asked, cache, series, tools, loads)
    facts, runs = series.facts(), found(series)
    if asked.json:
        print(json.dumps({"facts": asdict(facts), "runs": runs}, indent=1))
        return 0
    asked.out.write_text(report.page(facts, runs, loads), "utf-8")
    print(asked.out, file=sys.stderr)
    failed = [f"{r['tool']}, {r['load']}: {r['failed']}" for r in runs if "failed" in r]
    unclear = [
        f"{each.tool.title}, {each.load.name}, {each.definition.name}"
        for each in report.found(runs, loads)
        if "not" in each.verdict
    ]
    for line in (*failed, *(f"not explained: {name}" for name in unclear)):
        print(line, file=sys.stderr)
    return 1 if failed or unclear else 0


def found(series: Series) -> list[dict[str, Any]]:
    """All runs that are there."""
    paths = [path for path in sorted(series.folder.glob("*.json")) if path != series.about]
    return [json.loads(path.read_text("utf-8")) for path in paths]


def measure(
    asked: argparse.Namespace, cache: Path, series: Series, tools: list[Tool], loads: list[Load]
) -> None:
    """All runs that are not there yet."""
    # `make` has a uv of its own where there is none on the PATH.
    os.environ.setdefault("UV", shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv"))
    with redirect_stdout(sys.stderr):  # figures alone go to standard output
        words = tokenizer(cache.parent / "engines")
        there, left_out = installed(tools, cache)
    bench = Bench(cache, words, cores(), series, keep=asked.keep)
    os.sched_setaffinity(0, bench.cores.others)
    if busy := require_idle(bench.cores, even_if_busy=asked.even_if_busy):
        print(f"warning: {busy}; the figures are worth nothing", file=sys.stderr)
    wanted = {
        load: asked.repeats or (1 if asked.quick else REPEATS[load.concurrency]) for load in loads
    }
    facts = Facts.here(
        {tool.title: tool.version() for tool in there}, left_out, asdict(bench.cores)
    )
    key = digest(
        [*map(repr, wanted.items()), *(tool.name for tool in there), repr(bench.cores)], HERE
    )
    series.begin(key, facts, fresh=asked.fresh)
    began = time.monotonic()
    for repeat in range(max(wanted.values())):
        for load in (load for load in loads if repeat < wanted[load]):
            bench.round(load, repeat, there)
    if not any("failed" in kept for kept in found(series)):  # else the same command tries again
        series.finish()
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)


def installed(tools: list[Tool], cache: Path) -> tuple[list[Tool], dict[str, str]]:
    """The tools that are there, and why the others are not."""
    there, left_out = [], {}
    for tool in tools:
        try:
            if tool.peer:
                tool.peer.install(cache)
            there.append(tool)
        except (Failed, OSError, subprocess.CalledProcessError) as why:
            left_out[tool.title] = str(why)
            print(f"{tool.title} is left out: {why}", file=sys.stderr)
    return there, left_out


class Bench:
    """Runs one tool after the other against one server."""

    def __init__(
        self, cache: Path, words: Path, where: Cores, series: Series, *, keep: bool
    ) -> None:
        self.cache, self.tokenizer, self.cores = cache, words, where
        self.series, self.keep = series, keep
        self.launcher = compiled("launch", cache)
        self.engine = builds(cache.parent / "engines")[0] / "llama-server"
        if not self.engine.exists():
            raise Failed(f"no {self.engine}: make test-engines builds it")

    def round(self, load: Load, repeat: int, tools: list[Tool]) -> None:
        """Every tool that can once, on one start of the server; each round begins with another."""
        able = [tool for tool in tools if tool.can(load)]
        turn = repeat % len(able)
        todo = [t for t in (*able[turn:], *able[:turn]) if not self.done(load, repeat, t)]
        if not todo:
            return
        model = catalog.resolve(MODELS[load.model])
        log = self.series.folder / f"{load.name}-{repeat}.log"
        with serving(self.engine, model, load, log, self.cores.server) as server:
            for tool in todo:
                print(f"{load.name}, repeat {repeat + 1}: {tool.title} …", file=sys.stderr, end=" ")
                sys.stderr.flush()
                told = self.one(tool, load, repeat, server, model)
                print(told, file=sys.stderr)

    def done(self, load: Load, repeat: int, tool: Tool) -> bool:
        with suppress(OSError, ValueError):
            kept = json.loads(self.series.path(load.name, repeat, tool.name).read_text("utf-8"))
            return "failed" not in kept
        return False

    def one(self, tool: Tool, load: Load, repeat: int, server: Server, model: Path) -> str:
        """Run it, keep what it said; how it went, in words."""
        path = self.series.path(load.name, repeat, tool.name)
        folder = path.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kept: dict[str, Any] = {"tool": tool.name, "load": load.name, "repeat": repeat}
        began = time.monotonic()
        try:
            texts = prompts(server, load.requests + load.concurrency, load.prompt, path.name)
            warm(server, texts[-1], load)
            kept |= self.measured(tool, Job(load, server, folder, texts, model, self.tokenizer))
        except (Failed, OSError, LookupError, TypeError, ValueError) as why:
            kind = "" if isinstance(why, Failed) else f"{type(why).__name__}: "
            kept["failed"] = f"{kind}{why}"
        path.write_text(json.dumps(kept), "utf-8")
        if not self.keep and "failed" not in kept:
            shutil.rmtree(folder)
        return kept.get("failed") or f"{time.monotonic() - began:.0f} s"

    def measured(self, tool: Tool, job: Job) -> dict[str, Any]:
        argv = [*tool.program(self.cache), *tool.arguments(job)]
        since = job.server.log.stat().st_size
        if tool.native:
            reading, used = self.between_answers(tool, argv, job)
            engine = job.server.answered(since, job.load, 2 * (PASSES + 1))[
                ::2
            ]  # the streamed ones
        else:
            used = [self.used(tool, argv, job)]
            reading = tool.read(job)
            engine = job.server.answered(since, job.load, tool.sends(job.load))
        return {
            "command": shown(argv, job),
            "cpu_s": sum(one.cpu_s for one in used),
            "foreign": max(one.foreign for one in used),
            "published": dict(reading.published),
            "told": dict(reading.told),
            "requests": [asdict(request) for request in reading.requests],
            "engine": [asdict(one) for one in engine],
            "remarks": list(reading.remarks),
        }

    def used(self, tool: Tool, argv: list[str], job: Job) -> Used:
        core = self.cores.server if tool.native else self.cores.client
        return Used.of(self.launcher, argv, tool.settings(), job.folder, core, LONGEST_S)

    def between_answers(self, tool: Tool, argv: list[str], job: Job) -> tuple[Reading, list[Used]]:
        """Passes of a native benchmark, each between answers of the server: as clients get them,
        and as the benchmark computes them. What it says are the medians of its passes; what the
        engine took for the same is told by the middle of the passes' ratios to the answers before
        and after them, since a machine may be of another speed a minute later."""
        found: list[tuple[Reading, Used]] = []
        served: list[Bare] = []
        for number in range(PASSES + 1):
            text = job.texts[number % len(job.texts)]
            streamed(job.server, text, job.load)
            served.append(bare(job.server, text, job.load))
            if number < PASSES:
                used = self.used(tool, argv, job)
                found.append((tool.read(job), used))
        says = {
            name: median(reading.published[name] for reading, _ in found)
            for name in found[0][0].published
        }
        decode = says["tg"] / beside(
            [reading.published["tg"] for reading, _ in found], [s.decode_per_s for s in served]
        )
        prefill = says["pp"] / beside(
            [reading.published["pp"] for reading, _ in found], [s.prefill_per_s for s in served]
        )
        told = {"bare_pace_s": 1 / decode, "bare_prompt_s": job.load.prompt / prefill}
        return Reading(says, told), [used for _, used in found]


def beside(passes: Sequence[float], answers: Sequence[float]) -> float:
    """The median ratio of passes to what lay before and after each of them; only of those between
    two alike, where there are any: the machine did not change its speed meanwhile."""
    around = list(zip(passes, answers, answers[1:], strict=False))
    steady = [each for each in around if abs(each[1] / each[2] - 1) <= STEADY]
    return median(one / sqrt(before * after) for one, before, after in steady or around)


def shown(argv: list[str], job: Job) -> str:
    """A command without what is of this machine or this run."""
    text = " ".join([Path(argv[0]).name, *argv[1:]])
    for found, name in (
        (str(job.folder), "OUT"),
        (str(job.tokenizer), "TOKENIZER"),
        (f"{job.server.program.parent}/", ""),
        (str(job.model), "MODEL.gguf"),
        (str(job.server.port), "PORT"),
    ):
        text = text.replace(found, name)
    return text


if __name__ == "__main__":
    sys.exit(main())
