"""MLPerf Client: ``results.json``, a line of JSON for each model and execution provider.

Fields after ``BenchmarkResultToJson`` of ``src/CIL/benchmark_logger.cpp`` (mlcommons/
mlperf_client, 2.0.0, commit b0e1d4520142e2cf4ee064a9eeed50a36444b30a). By category of prompts, TTFT
and the rate of all tokens but the first, means over its iterations; the geometric means over
categories are of no workload. The program runs the model itself: no server, no client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import UNKNOWN_ENGINE, Format, Found, objects, summary
from tokrig.exchange.machine import card, machine
from tokrig.exchange.models import model_of
from tokrig.record.block import Summary
from tokrig.record.model import BackendFacts, Gpu, Raw
from tokrig.units import significant, slug

_OVERALL = "overall_results: geometric means over categories are of no workload"
_AGENTIC = "{}: an agent's loop, with its tools' time"


def _read(document: Document) -> Iterable[Found]:
    for one in objects(document):
        found = Found(
            model=model_of(one.text("Model Base Name") or one.text("Model Name")),
            backend=BackendFacts(
                name=FORMAT.name,
                engine=one.text("Execution Provider Name") or UNKNOWN_ENGINE,
            ),
            rig=machine(
                one.text("SysInfo_CPUModel"),
                _cards(one),
                cores=one.count("SysInfo_CPUCores"),
                threads=one.count("SysInfo_CPULogicalCores"),
                memory_bytes=one.count("SysInfo_RAMTotal"),
                os=one.text("SysInfo_OSName"),
            ),
            version=one.text("BuildVer"),
            complete=one.flag("Benchmark Success") is not False,
        )
        iterations = one.count("Iterations")
        for category in _categories(one):
            at = one.inside(f"category_results.{category}")
            if at is not None and at.flag("Is Agentic"):
                found.left_out[_AGENTIC.format(category)] = None
            elif at is not None:
                found.raw += _figures(at, category, iterations)
        if one.get("overall_results"):
            found.left_out[_OVERALL] = None
        yield found


def _categories(one: Fields) -> list[str]:
    by_name = one.inside("category_results")
    return [name for name in by_name.data if "." not in name] if by_name else []


def _cards(one: Fields) -> list[Gpu]:
    names = one.get("SysInfo_GPUNames")
    number = min(len(names), 64) if isinstance(names, list) else 0
    told = (one.text(f"SysInfo_GPUNames.{index}") for index in range(number))
    return [card(name) for name in told if name]


def _figures(at: Fields, category: str, iterations: int | None) -> Iterator[Raw]:
    rate = at.positive("Avg 2nd+ Token Generation Rate")
    ttft = at.positive("Avg Time to First Token")
    prompt, output = at.count("Avg Input Tokens") or 0, at.count("Avg Generated Tokens") or 0
    if rate is None:
        return
    yield Raw(
        test=slug(category),
        output_tokens=output,
        depth_tokens=prompt,
        tok_per_s=Summary(median=significant(rate, 6), n=iterations or None, is_mean=True),
        ttft_s=summary(mean=significant(ttft, 6), n=iterations) if ttft else None,
    )


FORMAT = Format(
    name="mlperf-client",
    title="MLPerf Client",
    files="results.json",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset(
            {"Scenario Name", "Execution Provider Name", "overall_results", "category_results"}
        ),
    ),
    read=_read,
)
