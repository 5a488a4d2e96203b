"""What tells two runs apart that would otherwise be called the same. Pure.

A model, its quant, a machine, an engine and a mode name most runs. Two runs that agree in all of
them may still be two configurations: then what differs is said, and where nothing that is known
differs, when they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokrig.query import labels
from tokrig.query.load import Run
from tokrig.record import names
from tokrig.record.model import Record


def name(record: Record) -> tuple[str, ...]:
    """What a run is called everywhere: model, quant, machine, engine, mode."""
    return (
        names.model_name(record.model),
        record.model.quant or "",
        names.hardware_name(record.rig),
        labels.backend(record.backend),
        labels.mode_besides(record.mode.name),
    )


def details(record: Record) -> tuple[str, ...]:
    """The settings behind a name, each in its place; "" where one is not known."""
    found, gpu = record.backend.resolved, next(iter(record.rig.gpus), None)
    kv_types = [t for t in (found.cache_type_k, found.cache_type_v) if t]
    limit = gpu.power_limit_w if gpu else None
    return (
        _said("by {}", record.model.quant_creator),
        _said("KV {}", "/".join(dict.fromkeys(kv_types)) or None),
        _said("context {:,}", found.context_per_slot),
        _said("{} threads", found.threads),
        _said("batch {}", found.batch),
        _said("micro-batch {}", found.ubatch),
        _said("flash attention {}", found.flash_attention),
        _said("{} layers on the GPU", found.gpu_layers),
        _said("{}", found.dtype),
        _said("{:.0f} W", limit),
        _said("driver {}", gpu.driver if gpu else None),
        _said("kernel {}", record.rig.kernel),
        _said("rig {}", record.rig.id),
    )


def apart(runs: Iterable[Run]) -> dict[str, str]:
    """By run id, what tells it apart from the other runs of its name: ``KV q8_0, 4 threads``,
    ``2026-11-22 18:31``. Runs whose name nobody else has are left out."""
    by_name: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_name.setdefault(name(run.record), []).append(run)
    found: dict[str, str] = {}
    for alike in by_name.values():
        if len(alike) > 1:
            found.update(zip((run.id for run in alike), _apart(alike), strict=True))
    return found


def _apart(runs: Sequence[Run]) -> list[str]:
    columns = zip(*(details(run.record) for run in runs), strict=True)
    differing = [column for column in columns if len(set(column)) > 1]
    words = [", ".join(filter(None, row)) for row in zip(*differing, strict=True)] or [""] * len(
        runs
    )
    for more in (_day, _minute, lambda run: run.id.rpartition("-")[2]):
        if len(set(words)) == len(words):
            break
        twice = {word for word in words if words.count(word) > 1}
        words = [
            ", ".join(filter(None, (word, more(run)))) if word in twice else word
            for word, run in zip(words, runs, strict=True)
        ]
    return words


def _day(run: Run) -> str:
    return (run.record.provenance.started_at or "")[:10]


def _minute(run: Run) -> str:
    return (run.record.provenance.started_at or "")[11:16]


def _said(text: str, value: object) -> str:
    return "" if value is None or value == "" else text.format(value)
