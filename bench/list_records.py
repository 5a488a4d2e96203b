"""How long a list of many records takes: cold (no index), warm (index), beside bare PyYAML.

    python bench/list_records.py [--records 1000]

Makes the records in a temporary folder with an index of its own; nothing of yours is touched.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tokrig.record import METHODOLOGY_VERSION
from tokrig.record import model as m
from tokrig.record.block import Percentiles, Summary
from tokrig.record.model import record_text
from tokrig.record.samples import Chunk, EngineTimings, Kind, Sample
from tokrig.store import Store

SHAPES = {"chat": (512, 256), "rag": (4096, 256), "codegen": (1024, 512), "agent": (2048, 128)}
MODELS = [("Gemma-3", "270m", "Q4_K_M"), ("SmolLM2", "135M-Instruct", "Q4_1")]


def metric(centre: float, chance: random.Random, n: int = 64) -> Summary:
    """A figure around ``centre`` with an interval."""
    low, high = centre * (1 - chance.random() / 20), centre * (1 + chance.random() / 20)
    digits = [float(f"{value:.5g}") for value in (low, centre, high)]
    return Summary(median=digits[1], min=digits[0], max=digits[2], n=n, ci95=(digits[0], digits[2]))


def example_result(shape: str, concurrency: int, chance: random.Random) -> m.Result:
    """A result with every figure there is."""
    prompt, answer = SHAPES[shape]
    rate = 40 + chance.random() * 60
    return m.Result(
        workload=m.WorkloadFacts(
            name=shape, content_hash="4be1c0ffee12", prompt_tokens=prompt, answer_tokens=answer
        ),
        concurrency=concurrency,
        validity=m.Validity(verdict="valid", unchecked=["throttling", "foreign_gpu_load"]),
        repeats=6,
        requests=64,
        request_errors=0,
        output_tok_per_s=metric(rate, chance),
        prefill_tok_per_s=metric(rate * 12, chance),
        prefill_source="server",
        ttft_s=metric(prompt / rate / 12, chance),
        ttfa_s=metric(prompt / rate / 11, chance),
        tpot_s=metric(1 / rate, chance),
        icl_s=Percentiles(p50=0.01634, p90=0.01712, p95=0.01893, p99=None, n=648),
        end_to_end_tok_per_s=metric(rate * 0.9, chance),
        useful_tok_per_s=metric(rate * 0.7, chance),
        system_tok_per_s=metric(rate * concurrency * 0.8, chance),
        prompt_tokens=metric(float(prompt), chance),
        output_tokens=metric(float(answer), chance),
        reasoning_tokens_median=48.0,
        content_tokens_median=answer - 48.0,
        answered_share=1.0,
        cached_tokens=0,
        token_count_source="server_usage",
        finish_reasons={"length": 62, "stop": 2},
        speculative=m.Speculative(
            drafted_tokens=9120, accepted_tokens=6511, acceptance_rate=0.7139
        ),
        server=m.ServerTimings(
            output_tok_per_s=metric(rate, chance),
            prefill_tok_per_s=metric(rate * 12, chance),
            difference=-0.0041,
        ),
        memory=m.PeakMemory(engine_rss_bytes=812_345_344, engine_vram_bytes=4_812_345_344),
        energy=m.Energy(
            scope="gpu",
            total_j=18231.5,
            j_per_output_token=1.127,
            idle_subtracted_j_per_output_token=0.93,
        ),
        ceiling_share=0.7312,
        client_cpu_share=0.041,
        interference=m.Interference(
            load_average_max=1.41,
            gpu_temperature_max_c=71.0,
            gpu_power_mean_w=168.2,
            foreign_gpu_processes=0,
            other_cpu_share_max=0.02,
        ),
    )


def example_backend() -> m.BackendFacts:
    """A server with a long command line."""
    flags = "-m gemma-3-270m-q4_k_m.gguf --port 0 --host loopback -c 24576 -np 4 -ngl 99 -fa on"
    more = "--cache-type-k f16 --cache-type-v f16 -b 2048 -ub 512 --no-webui --metrics --jinja"
    return m.BackendFacts(
        name="llamacpp",
        engine="llama.cpp",
        build="b9174",
        api="cuda",
        api_confirmed=True,
        managed=True,
        argv=["llama-server", *flags.split(), *more.split(), "--seed", "1"],
        env={"CUDA_VISIBLE_DEVICES": "0"},
        resolved=m.Resolved(
            context_per_slot=6144,
            slots=4,
            threads=8,
            threads_batch=8,
            batch=2048,
            ubatch=512,
            cache_type_k="f16",
            cache_type_v="f16",
            flash_attention="on",
            gpu_layers=19,
            layers=19,
            devices=["CUDA0"],
            cpu_features=["SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "AVX512", "LLAMAFILE"],
        ),
    )


def example_rig(rig: str) -> m.Rig:
    """A desktop machine with one graphics card."""
    return m.Rig(
        id=rig,
        cpu=m.Cpu(
            model="AMD Ryzen 9 7950X 16-Core Processor",
            cores=16,
            threads=32,
            governor="performance",
            max_mhz=5881.0,
            features=["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "f16c", "fma"],
        ),
        memory=m.Memory(total_bytes=64 * 1024**3, speed_mt_per_s=6000, type="DDR5"),
        gpus=[
            m.Gpu(
                name="NVIDIA GeForce RTX 3060",
                vendor="nvidia",
                arch="8.6",
                vram_bytes=12 * 1024**3,
                unified_memory=False,
                driver="580.65.06",
                power_limit_w=170.0,
                power_max_w=212.0,
                power_default_w=170.0,
                clock_max_mhz=2130.0,
                memory_clock_max_mhz=7501.0,
                pcie_generation=4,
                pcie_width=16,
            )
        ],
        os="Debian GNU/Linux 13",
        kernel="6.12.48-amd64",
    )


def example_record(number: int, results: int = 5) -> m.Record:
    """The ``number``-th record: complete, with every block a real one has."""
    chance = random.Random(number)
    family, variant, quant = MODELS[number % len(MODELS)]
    rig = f"desktop-{number % 7}"
    day, minute = 1 + number // 1440 % 28, number % 1440
    started = f"2026-11-{day:02d}T{minute // 60:02d}:{minute % 60:02d}:00Z"
    cells = [(shape, c) for c in (1, 4, 8) for shape in SHAPES][:results]
    return m.Record(
        id=f"{started[:16].replace(':', '').replace('T', '-').lower()}-{family.lower()}-{number}",
        status="complete",
        validity=m.Validity(verdict="valid", unchecked=["throttling"]),
        provenance=m.Provenance(
            kind="measured",
            tokrig_version="0.1.0",
            tokrig_commit="0123e45",
            methodology=METHODOLOGY_VERSION,
            level="standard",
            started_at=started,
            finished_at=started.replace(":00Z", ":59Z"),
            server_starts=6,
            seed=1,
        ),
        model=m.Model(
            family=family,
            variant=variant,
            quant=quant,
            quant_creator="ggml-org",
            format="gguf",
            file=f"{family.lower()}-{quant.lower()}.gguf",
            sha256="9f" * 32,
            bytes=253_115_680,
            parameters=268_098_176,
            bits_per_weight=7.5529,
            tensor_types={"F32": 109, "Q4_K": 54, "Q5_0": 55, "Q6_K": 9, "Q8_0": 9},
            context_train=32768,
            architecture="gemma3",
            chat_template_sha256="ab" * 32,
            license="gemma",
            reasoning=False,
            identity_from="metadata",
        ),
        rig=example_rig(rig),
        backend=example_backend(),
        cold_start=m.ColdStart(load_s=1.2345, first_ttft_s=0.4121),
        results=[example_result(shape, c, chance) for shape, c in cells],
        notes="Idle desktop, fans at the default curve.\nDisplay attached to the same card.\n",
    )


def example_samples(requests: int = 3, chunks: int = 16) -> list[Sample]:
    """The requests behind a result."""
    return [
        Sample(
            workload="chat",
            concurrency=1,
            repeat=0,
            iteration=number,
            worker=0,
            phase="measured",
            variant=number,
            salt=f"{number:016x}",
            sent_ns=number * 10**9,
            chunks=tuple(
                Chunk(t_ns=i * 16_000_000, kind=Kind.CONTENT, text=f" word{i}")
                for i in range(chunks)
            ),
            prompt_tokens=512,
            output_tokens=chunks,
            cached_tokens=0,
            count_source="server_usage",
            finish_reason="length",
            timings=EngineTimings(512, 391.2, chunks, 256.125),
        )
        for number in range(requests)
    ]


def timed(label: str, seconds: float) -> None:
    """One line of the report."""
    print(f"{label:<42}{seconds:8.3f} s")


def main() -> None:
    """Make the records, list them, print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    count: int = parser.parse_args().records
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}", end=", ")
    print(f"Python {platform.python_version()}, PyYAML {yaml.__version__}", end=" ")
    print("with libyaml" if yaml.__with_libyaml__ else "without libyaml")
    with tempfile.TemporaryDirectory() as folder:
        content, cache = Path(folder, "content"), Path(folder, "cache")
        store = Store(content, cache=cache)
        started = time.perf_counter()
        for number in range(count):
            path = store.record_path(example_record(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(record_text(example_record(number)), encoding="utf-8")
        timed(f"write {count} YAML files", time.perf_counter() - started)
        time.sleep(2.1)  # younger files are not trusted to the index

        started = time.perf_counter()
        for path in store.iter_paths():
            yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        timed("parse them with PyYAML, nothing else", time.perf_counter() - started)
        for label in ("Store.listing(), cold: no index", "Store.listing(), warm: index"):
            started = time.perf_counter()
            listing = Store(content, cache=cache).listing()
            timed(label, time.perf_counter() - started)
            assert len(listing.rows) == count and not listing.problems, listing.problems[:3]
        if importlib.util.find_spec("tokrig.__main__"):
            environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
            command = [sys.executable, "-m", "tokrig", "list", "--content", str(content)]
            for label in ("tokrig list, cold", "tokrig list, warm"):
                started = time.perf_counter()
                done = subprocess.run(command, env=environment, check=False, capture_output=True)
                if done.returncode == 0:
                    timed(label, time.perf_counter() - started)


if __name__ == "__main__":
    main()
