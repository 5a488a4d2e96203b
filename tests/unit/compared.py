"""Records to compare: one that tokrig measured with everything known, one that was transcribed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tokrig.record.block import Summary
from tokrig.record.model import (
    BackendFacts,
    Cpu,
    Gpu,
    Memory,
    Mode,
    Model,
    Provenance,
    Record,
    Resolved,
    Result,
    Rig,
    Speculative,
    Validity,
    WorkloadFacts,
)

GPU = Gpu(
    name="NVIDIA GeForce RTX 5070",
    vendor="nvidia",
    arch="Blackwell",
    vram_bytes=12_820_477_379,
    unified_memory=False,
    driver="595.58.03",
    power_limit_w=250.0,
    power_max_w=300.0,
    power_default_w=250.0,
    clock_max_mhz=3000.0,
    memory_clock_max_mhz=14000.0,
    pcie_generation=5,
    pcie_width=16,
)
RIG = Rig(
    id="geforce-rtx-5070-12gb",
    cpu=Cpu(
        model="AMD Ryzen 9 7900",
        cores=12,
        threads=24,
        governor="performance",
        max_mhz=5400.0,
        features=["avx2"],
    ),
    memory=Memory(total_bytes=32_641_751_450, speed_mt_per_s=6000, type="DDR5"),
    gpus=[GPU],
    os="CachyOS",
    kernel="7.0.0",
    virtualization="none",
)
MODEL = Model(
    family="Gemma-4",
    variant="E2B-it",
    quant="Q4_K_M",
    quant_creator="ggml-org",
    format="gguf",
    file="gemma-q4_k_m.gguf",
    sha256="a" * 64,
    bytes=3_000_000_000,
    parameters=5_000_000_000,
    active_parameters=2_000_000_000,
    bits_per_weight=4.8,
    tensor_types={"Q4_K": 10},
    context_train=32768,
    architecture="gemma4",
    chat_template_sha256="c" * 64,
    license="gemma",
    reasoning=False,
    identity_from="metadata",
)
BACKEND = BackendFacts(
    name="llamacpp",
    engine="llama.cpp",
    build="b9174",
    api="cuda",
    api_confirmed=True,
    managed=True,
    argv=["llama-server", "-m", "gemma-q4_k_m.gguf"],
    resolved=Resolved(
        context_per_slot=4352,
        slots=1,
        threads=8,
        threads_batch=8,
        batch=2048,
        ubatch=512,
        cache_type_k="f16",
        cache_type_v="f16",
        flash_attention="enabled",
        gpu_layers=31,
        layers=30,
        devices=["CUDA0"],
        cpu_features=["avx2"],
        chat_template="gemma",
    ),
)
SHAPES = ("chat", "rag", "agent")


# Where six starts lie within their spread.
PLACES = (-1.0, 0.6, -0.2, 0.2, -0.6, 1.0)


def cell(
    shape: str,
    concurrency: int = 1,
    speed: float = 100.0,
    *,
    hash: str | None = "abcd",
    valid: bool = True,
    spread: float | None = 0.01,
    starts: bool = True,
    prompt_tokens: float | None = 64.0,
    prefill_source: Any = "server",
) -> Result:
    """A result whose figures all follow from ``speed``, of six starts within ± ``spread``; without
    ``starts`` only the intervals are told, as older records do."""

    def figure(value: float) -> Summary:
        if spread is None:
            return Summary(median=value)
        low, high = value * (1 - spread), value * (1 + spread)
        each = [value * (1 + place * spread) for place in PLACES] if starts else []
        return Summary(median=value, min=low, max=high, n=18, ci95=(low, high), starts=each)

    return Result(
        workload=WorkloadFacts(name=shape, content_hash=hash),
        concurrency=concurrency,
        validity=Validity(
            verdict="valid" if valid else "invalid", reasons=[] if valid else ["cached_tokens"]
        ),
        repeats=6,
        prompt_tokens=None if prompt_tokens is None else Summary(median=prompt_tokens),
        output_tok_per_s=figure(speed),
        ttft_s=figure(10 / speed),
        prefill_tok_per_s=figure(20 * speed),
        prefill_source=prefill_source,
        end_to_end_tok_per_s=figure(0.8 * speed),
        system_tok_per_s=figure(0.79 * speed * concurrency),
    )


def measured() -> Record:
    """Everything known, three valid shapes."""
    return Record(
        id="20261122-120000-gemma-aaaa",
        status="complete",
        validity=Validity(verdict="valid"),
        provenance=Provenance(
            kind="measured",
            level="standard",
            methodology=2,
            tokrig_version="0.1.0",
            tokrig_commit="0000",
            server_starts=6,
            seed=1,
        ),
        model=MODEL,
        rig=RIG,
        backend=BACKEND,
        mode=Mode(reasoning_observed=False),
        results=[cell(shape) for shape in SHAPES],
    )


def transcribed() -> Record:
    """Names and medians only, from somebody's page."""
    gpu = Gpu(name=GPU.name, vendor="nvidia", driver=GPU.driver, power_limit_w=250.0)
    medians = [
        cell(shape, hash=None, spread=None, prompt_tokens=None, prefill_source=None).model_copy(
            update={"ttft_s": None, "prefill_tok_per_s": None, "repeats": None}
        )
        for shape in ("chat", "rag")
    ]
    return Record(
        id="seed-gemma-4-e2b-it-q4_k_m",
        status="complete",
        validity=Validity(verdict="valid"),
        provenance=Provenance(kind="transcribed", source="a published page"),
        model=Model(
            family="Gemma-4", variant="E2B-it", quant="Q4_K_M", identity_from="transcribed"
        ),
        rig=Rig(id=RIG.id, cpu=Cpu(model=RIG.cpu.model, cores=12), gpus=[gpu]),
        backend=BackendFacts(
            name="llamacpp", engine="llama.cpp", build="b9174", api="cuda", api_confirmed=False
        ),
        results=medians,
    )


def speculating(*accepted: int, **asked: Any) -> Record:
    """``measured`` with n-gram speculation, or what is ``asked``: of each shape so many of 100
    drafted tokens were accepted."""
    mode: dict[str, Any] = {"name": "ngram", "speculative": "ngram", "reasoning_observed": False}
    record = with_value(measured(), "mode", Mode(**mode | asked))
    argv = [*(record.backend.argv or []), "--spec-type", "ngram-simple"]
    shares = zip(record.results, accepted or (52, 52, 52), strict=True)
    results = [
        result.model_copy(
            update={"speculative": Speculative(drafted_tokens=100, accepted_tokens=share)}
        )
        for result, share in shares
    ]
    return with_value(with_value(record, "backend.argv", argv), "results", results)


def with_value(record: Record, path: str, value: Any) -> Record:
    """A copy of ``record`` with the field at a dotted path changed."""
    changed: Record = _with(record, path.split("."), value)
    return changed


def _with(block: Any, path: list[str], value: Any) -> Any:
    assert isinstance(block, BaseModel)
    name, *rest = path
    return block.model_copy(
        update={name: _with(getattr(block, name), rest, value) if rest else value}
    )
