"""Does a record follow from its samples? Pure comparison of published and recomputed figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel

from tokrig.record.metrics import Figures, figures
from tokrig.record.model import Record
from tokrig.record.samples import Sample

# Figures are published with six significant digits.
RELATIVE = 1e-5


@dataclass(frozen=True)
class Difference:
    """One published value that does not follow from the samples."""

    workload: str
    concurrency: int
    path: str
    published: Any
    recomputed: Any

    def __str__(self) -> str:
        return (
            f"{self.workload} × {self.concurrency}: {self.path} is {_show(self.published)}, "
            f"the samples give {_show(self.recomputed)}"
        )


def differences(record: Record, samples: Sequence[Sample]) -> list[Difference]:
    """All published figures that the samples contradict; empty when everything follows."""
    found: list[Difference] = []
    for result in record.results:
        key = (result.workload.name, result.concurrency)
        mine = [s for s in samples if (s.workload, s.concurrency) == key]
        again = figures(mine)
        for item in fields(Figures):
            published = getattr(result, item.name)
            recomputed = getattr(again, item.name)
            for path, old, new in _unequal(item.name, published, recomputed):
                found.append(Difference(*key, path, old, new))
    return found


def _unequal(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Leaves at which two values differ by more than rounding."""
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for name in type(old).model_fields:
            yield from _unequal(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _unequal(f"{path}[{index}]", a, b)
    elif _is_number(old) and _is_number(new):
        if not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=1e-12):
            yield path, old, new
    elif old != new:
        yield path, old, new


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: Any) -> str:
    return "missing" if value is None else f"{value}"
