"""llmfit: what ``llmfit bench --share`` sends and keeps, and the JSON of ``llmfit bench --json``.

Fields after ``llmfit-core/src/share.rs`` and ``bench.rs`` (AlexsJones/llmfit, commit
3f44fd30a43d2619146f7bc0aa66c90aa54d78e6). Four short prompts, one request at a time. With Ollama
the rate is that of its own clock, and ``ttft`` its prompt time, which is none; with all others the
rate is tokens by the whole request, answered in one piece. What is shared has means; ``--json`` has
all runs. Engine versions are not told, nor what a model's file is beside its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import (
    UNKNOWN_ENGINE,
    Format,
    Found,
    Take,
    figures_of,
    objects,
    result_of,
    shape,
)
from tokrig.exchange.machine import card, machine
from tokrig.exchange.models import model_of
from tokrig.record.model import BackendFacts, Rig
from tokrig.units import GIB

_ENGINES = {"ollama": "Ollama", "vllm": "vLLM", "mlx": "mlx-lm", "llamacpp": "llama.cpp"}
_NO_TTFT = "ttft: the engine's prompt time, not the time to a first token"


def _takes(provider: str | None) -> tuple[Take, ...]:
    own = provider == "ollama"
    rate = "output_tok_per_s" if own else "end_to_end_tok_per_s"
    codes = ("engine_clock",) if own else ()
    return (
        Take("runs", f"{rate}.values", 1.0, codes),
        Take("avgTps", f"{rate}.mean", 1.0, codes),
        Take("minTps", f"{rate}.min"),
        Take("maxTps", f"{rate}.max"),
        Take("numRuns", f"{rate}.n"),
        Take("tokens", "output_tokens.values"),
        Take("avgOutputTokens", "output_tokens.mean"),
    )


def _read(document: Document) -> Iterable[Found]:
    for report in objects(document):
        if report.has("results"):
            rig, version = _machine(report), report.text("tool.version")
            for one in report.each("results"):
                yield _found(one, one, rig, version, one.has("avgTtftMs"))
        else:
            runs = report.each("runs")
            rates, tokens = (
                [run.positive(name) for run in runs] for name in ("tps", "output_tokens")
            )
            told = {"runs": [r for r in rates if r], "tokens": [t for t in tokens if t]}
            figures = Fields(told, report.name, report.place)
            yield _found(report, figures, None, None, True)


def _found(
    one: Fields, figures: Fields, rig: Rig | None, version: str | None, has_ttft: bool
) -> Found:
    provider = one.text("provider")
    found, codes = figures_of(figures, _takes(provider))
    rates = found.get("output_tok_per_s") or found.get("end_to_end_tok_per_s")
    if rates is not None and rates.n:
        found["requests"] = rates.n
    made = Found(
        model=model_of(one.text("model")),
        backend=BackendFacts(name=FORMAT.name, engine=_ENGINES.get(provider or "", UNKNOWN_ENGINE)),
        version=version,
        results=[result_of(found, codes, workload=shape(FORMAT.name, None, None), concurrency=1)],
    )
    if rig is not None:
        made.rig = rig
    if has_ttft and provider == "ollama":
        made.left_out[_NO_TTFT] = None
    return made


def _machine(report: Fields) -> Rig:
    vram, ram = report.positive("hardware.vramGb"), report.positive("hardware.ramGb")
    name, number = report.text("hardware.hardwareName"), report.count("hardware.gpuCount") or 0
    unified = report.flag("hardware.unifiedMemory")
    each = vram / number if vram and number and not unified else None
    return machine(
        report.text("hardware.cpu"),
        [card(name, each, unified=unified)] * min(number, 64) if name else [],
        memory_bytes=ram and ram * GIB,
        os=report.text("hardware.os"),
    )


FORMAT = Format(
    name="llmfit",
    title="llmfit bench",
    files="the JSON that --share sends, or that of --json",
    kinds=frozenset({"json"}),
    signatures=(
        frozenset({"schemaVersion", "tool.name", "hardware.hwClass", "results"}),
        frozenset({"model", "provider", "runs", "summary.avg_tps"}),
    ),
    read=_read,
)
