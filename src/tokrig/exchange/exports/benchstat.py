"""Go's benchmark format, which benchstat reads: one line a start of the engine.

Lines are ``BenchmarkName/key=value ITERATIONS VALUE UNIT …``, configuration lines ``key: value``
stand before those that they hold for, ``Unit`` lines say what is better
(https://go.dev/design/14313-benchmark-format, and the package golang.org/x/perf/benchfmt, which
writes sub-names with ``=``). benchstat makes a table of each configuration and its statistics of
lines of one name: so a line is one start of the engine, never one request.

Two files, before and after, are compared only where their configurations are equal. So what a
comparison is usually about, the build and the run, is configuration only where a file holds
several runs (``benchstat -col build FILE``), else a comment. The format has no verdicts: invalid
results are left out, the others' marks stand in comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from tokrig import naming
from tokrig.exchange.exports import Export, Exported, Samples
from tokrig.record.block import Summary
from tokrig.record.metric import Metric
from tokrig.record.metrics import METRICS
from tokrig.record.model import Record, Result
from tokrig.store.load import Run
from tokrig.units import slug

# Units end with the unit itself, behind a hyphen: benchstat scales by it.
_UNITS = {"tok/s": "tok/s", "s": "sec"}
_FIGURES = {
    re.sub(r"(_tok_per_s|_s)$", "", name).replace("_", "-") + f"-{_UNITS[metric.unit]}": metric
    for name, metric in METRICS.items()
    if metric.kind == "summary" and metric.unit in _UNITS and metric.higher_is_better is not None
}
_RAW = "raw-tok/s"


def _make(runs: Sequence[Run], samples: Samples) -> Exported:
    lines = [
        f"Unit {unit} better={'higher' if metric.higher_is_better else 'lower'}"
        for unit, metric in _FIGURES.items()
    ]
    lines.append(f"Unit {_RAW} better=higher")
    notes: list[str] = []
    for run in runs:
        lines += ["", *_configuration(run.record, alone=len(runs) == 1)]
        for result in run.record.results:
            if result.validity.verdict == "invalid":
                why = ", ".join(result.validity.reasons)
                notes.append(f"{run.id}: {result.cell.label} is invalid and left out: {why}")
            else:
                lines += _result(result)
        lines += _raw(run.record)
    return Exported(("\n".join(lines) + "\n").encode("utf-8", "replace"), notes)


def _configuration(record: Record, *, alone: bool) -> Iterator[str]:
    gpus = [naming.gpu_name(gpu) for gpu in record.rig.gpus]
    told = {
        "rig": record.rig.id,
        "cpu": record.rig.cpu.model,
        "gpu": ", ".join(gpus),
        "model": naming.model_name(record.model),
        "quant": record.model.quant,
        "engine": record.backend.engine,
        "api": record.backend.api,
        "mode": record.mode.name,
        "provenance": record.provenance.kind,
    }
    about = {"build": record.backend.build, "run": record.id}
    comments = {"measured": record.provenance.started_at, "source": record.provenance.source}
    # An empty value ends what an earlier run said.
    for key, value in {**told, **({} if alone else about)}.items():
        yield f"{key}: {_one_line(value or '')}".rstrip()
    for key, value in {**(about if alone else {}), **comments}.items():
        if value:
            yield f"# {key}: {_one_line(value)}"


def _result(result: Result) -> Iterator[str]:
    found = {unit: _starts(metric, result) for unit, metric in _FIGURES.items()}
    found = {unit: values for unit, values in found.items() if values}
    if not found:
        return
    if result.validity.word != "valid":
        codes = ", ".join(result.validity.unverified)
        yield _one_line(f"# {result.cell.label} is unverified: {codes}")
    each = max((result.requests or 0) // (result.repeats or 1), 1)
    for values in zip_longest(*found.values()):
        pairs = zip(found, values, strict=True)
        line = " ".join(f"{value!r} {unit}" for unit, value in pairs if value is not None)
        yield f"{_name(result)} {each} {line}"


def _starts(metric: Metric[Summary | None], result: Result) -> list[float]:
    """The figure of each start, or the only one."""
    found = metric.of(result)
    return [] if found is None else found.starts or [found.median]


def _name(result: Result) -> str:
    """A name's end behind a hyphen would be read as a number of processors: none is there."""
    keys = {
        "depth": result.depth_tokens or None,
        "load": None if result.load == "closed" else result.load,
        "rate": result.rate_per_s,
        "concurrency": result.concurrency,
    }
    parts = [f"{key}={value}" for key, value in keys.items() if value is not None]
    return "/".join([f"Benchmark{_camel(result.workload.name)}", *parts])


def _raw(record: Record) -> Iterator[str]:
    for figure in record.raw:
        depth = f"/depth={figure.depth_tokens}" if figure.depth_tokens else ""
        name = f"BenchmarkRaw{_camel(figure.test)}{depth}/concurrency={figure.concurrency}"
        for value in figure.tok_per_s.starts or [figure.tok_per_s.median]:
            yield f"{name} 1 {value!r} {_RAW}"


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^a-z0-9]+", slug(name)))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


EXPORT = Export("Go's benchmark lines, one a start, for benchstat", (".txt", ".bench"), _make)
