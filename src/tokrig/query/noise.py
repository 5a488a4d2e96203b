"""A/A noise: by how much two records of the same configuration differ on one rig. Pure.

What moves all starts of a record together, a warm room or a busy neighbour, is in no interval
of that record. Two records of the same thing show it: nothing between them was changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from tokrig.query.pairs import METRICS
from tokrig.query.permutation import aa_noise
from tokrig.query.spread import STARTS_NEEDED, starts_of, usable
from tokrig.query.variables import VARIABLES, known_keys
from tokrig.record.model import Record, Result

# What makes two records of one configuration. What neither tells of an engine that tokrig started
# on the same rig with the same words is the same here.
_KEYS = tuple(key for v in VARIABLES if v.counts and v.name != "concurrency" for key in v.keys)


def noise_of(records: Iterable[Record]) -> dict[str, Mapping[str, float]]:
    """By rig, the median difference of consecutive records of one configuration, as a share, of
    every figure that was measured twice with six starts; ``records`` in any order."""
    alike: dict[tuple[object, ...], list[Record]] = {}
    # By little first: all keys of thousands of records that are alone would take their time.
    for group in _grouped(filter(tells_noise, records), _at_a_glance):
        if len(group) > 1:
            alike.update(
                (_configuration(same[0]), same) for same in _grouped(group, _configuration)
            )
    found: dict[str, dict[str, list[float]]] = {}
    for group in alike.values():
        group.sort(key=lambda record: record.provenance.started_at or "")
        for metric, shares in _differences(group).items():
            found.setdefault(group[0].rig.id, {}).setdefault(metric, []).extend(shares)
    return {
        rig: {metric: round(median(shares), 4) for metric, shares in metrics.items()}
        for rig, metrics in found.items()
    }


def tells_noise(record: Record) -> bool:
    """Whether a record of the same beside it would tell the noise of its rig."""
    starts = record.provenance.server_starts or 0
    is_ours = record.provenance.kind == "measured" and record.backend.managed is True
    return is_ours and starts >= STARTS_NEEDED


def _grouped(
    records: Iterable[Record], key: Callable[[Record], tuple[object, ...]]
) -> Iterable[list[Record]]:
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found.values()


def _at_a_glance(record: Record) -> tuple[object, ...]:
    model, backend = record.model, record.backend
    served = (model.sha256, model.file, model.quant, backend.engine, backend.build, backend.api)
    return (record.rig.id, record.provenance.methodology, record.mode.name, *served)


def _configuration(record: Record) -> tuple[object, ...]:
    keys = known_keys(record)
    return (record.provenance.methodology, *(keys.get(key) for key in _KEYS))


def _differences(group: Sequence[Record]) -> dict[str, list[float]]:
    """Of each figure, the shares by which it differs from one record to the next."""
    series: dict[tuple[object, ...], list[float]] = {}
    for record in group:
        for result in record.results:
            for metric in METRICS:
                if value := _value(record, result, metric):
                    series.setdefault((metric, *_cell(result)), []).append(value)
    found: dict[str, list[float]] = {}
    for (name, *_), values in series.items():
        for pair in itertools.pairwise(values):
            share = aa_noise(pair)
            found.setdefault(str(name), []).extend([float(share)] if share is not None else [])
    return found


def _cell(result: Result) -> tuple[object, ...]:
    shape = result.workload
    return shape.name, shape.content_hash, result.concurrency, result.prefill_source


def _value(record: Record, result: Result, metric: str) -> float | None:
    figure, starts = getattr(result, metric), starts_of(record, result)
    if figure is None or result.validity.word != "valid" or (starts or 0) < STARTS_NEEDED:
        return None
    return float(figure.median) if usable(figure.median) else None
