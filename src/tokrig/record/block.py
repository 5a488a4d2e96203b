"""What all parts of a record are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=2**63)]
NonNegative = Annotated[float, Field(ge=0)]


class Block(BaseModel):
    """Base of all blocks: unknown keys are errors, so a typo cannot pass as data, and so are
    infinity and not-a-number, which are no measurements."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Summary(Block):
    """One figure over the measured requests. ``median`` is the median of the repeats' medians,
    ``min`` and ``max`` run over all ``n`` values, ``ci95`` is the bootstrap interval of the median
    and exists from 6 repeats on. ``starts`` are the repeats' medians in their order, of figures
    that are compared. What others published may be a bare median."""

    median: float
    min: float | None = None
    max: float | None = None
    n: Count | None = None
    ci95: tuple[float, float] | None = None
    starts: list[float] = []
    is_mean: bool = False


class Percentiles(Block):
    """Percentiles over ``n`` pooled values; null where ``n`` is too small to tell, or where the
    values hide what is asked for. ``max`` is the largest of them. Others may not publish ``n``."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    n: Count | None = None
