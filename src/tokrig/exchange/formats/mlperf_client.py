"""MLPerf Client: ``results.json``, a line of JSON for each model and execution provider.

Fields after ``BenchmarkResultToJson`` of ``src/CIL/benchmark_logger.cpp`` (mlcommons/
mlperf_client, 2.0.0, commit b0e1d4520142e2cf4ee064a9eeed50a36444b30a). By category of prompts, TTFT
and the rate of all tokens but the first, means over its iterations; the geometric means over
categories are of no workload. The program runs the model itself: no server, no client.
"""

from __future__ import annotations

from tokrig.exchange.format import Format
from tokrig.exchange.values import V

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
    rows=("category_results",),
    keyed=True,
    skip=V.if_(V.flag("Is Agentic"), V.words("{}: an agent's loop, with its tools' time", V.key())),
    facts={
        "model.name": V.text("^Model Base Name", "^Model Name"),
        "engine": V.text("^Execution Provider Name"),
        "version": V.text("^BuildVer"),
        "complete": V.not_(V.is_(V.flag("^Benchmark Success"), False)),
        "rig.cpu": V.text("^SysInfo_CPUModel"),
        "rig.gpu": V.texts("^SysInfo_GPUNames"),
        "rig.cores": V.count("^SysInfo_CPUCores"),
        "rig.threads": V.count("^SysInfo_CPULogicalCores"),
        "rig.memory_bytes": V.count("^SysInfo_RAMTotal"),
        "rig.os": V.text("^SysInfo_OSName"),
    },
    raw=(
        {
            "test": V.slug(V.key()),
            "output_tokens": V.count("Avg Generated Tokens"),
            "depth_tokens": V.count("Avg Input Tokens"),
            "tok_per_s.mean": V.positive("Avg 2nd+ Token Generation Rate"),
            "tok_per_s.n": V.count("^Iterations"),
            "ttft_s.mean": V.positive("Avg Time to First Token"),
            "ttft_s.n": V.count("^Iterations"),
        },
    ),
    left_out=(
        V.if_(
            V.has_any("^overall_results"),
            "overall_results: geometric means over categories are of no workload",
        ),
    ),
)
