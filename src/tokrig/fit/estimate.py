"""What to expect of a model on a machine, from what others were measured at, and how far off that
was wherever somebody has measured it since.

Three kinds of evidence, the best one counts:

    here       the same model and quant on the same hardware: the median of its records
    elsewhere  the same model and quant on other hardware: the share of the ceiling it reached
    like       other models: the share of the ceiling of those nearest by the rate it allows

An expected rate is a share × the ceiling of model and machine. Its interval is that of split
conformal prediction: each measured group (a model on a machine) is predicted from the others, left
out as the target is out (this hardware for *elsewhere*, this model's family for *like*), and the
interval is as wide as the errors that nine of ten of them stayed within, (n + 1)·0.9 rounded up
(Lei et al. 2018, "Distribution-free predictive inference for regression"). With fewer than nine
errors there is no such number, and no expected rate: too little data.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal, NamedTuple

from tokrig.fit.evidence import ModelKey, Place, Point, at_most

Kind = Literal["here", "elsewhere", "like"]
KINDS: tuple[Kind, ...] = ("here", "elsewhere", "like")
COVERED = 0.9
"""The share of cases that an interval should hold."""
ERRORS_NEEDED = math.ceil(COVERED / (1 - COVERED) - 1e-9)
"""With fewer no interval holds so many."""
NEAREST = 12
"""(t) Groups that an estimate by like models rests on."""
OTHER_HARDWARE = math.log(2)
"""(t) Another machine counts as far as a model of twice the ceiling on this one."""
LATEST = 20
"""Records of one group that count: the newest."""
MOST_GROUPS = 300
"""Groups that errors are found of: of more, every second, third, … one."""


class Estimate(NamedTuple):
    """Tokens a second expected, and the interval; ``low`` and ``high`` are None for a model that
    was measured here so rarely that nobody knows how much its records differ. ``errors`` is how
    many errors the interval rests on, ``records`` which records it was made from."""

    tok_per_s: float
    low: float | None
    high: float | None
    kind: Kind
    records: tuple[str, ...]
    errors: int


class Errors(NamedTuple):
    """How far off one kind of estimate was: ``errors`` as log(measured / expected)."""

    kind: Kind
    errors: tuple[float, ...]

    @property
    def median_share(self) -> float | None:
        """The median of |measured / expected − 1|, by the larger of both ways."""
        return math.expm1(median(map(abs, self.errors))) if self.errors else None

    @property
    def bound(self) -> float | None:
        """The log error that ``COVERED`` of new cases should stay within; None for too few."""
        n = len(self.errors)
        rank = math.ceil((n + 1) * COVERED - 1e-9)
        return sorted(map(abs, self.errors))[rank - 1] if 0 < rank <= n else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """One figure: ``value`` is log(what is alike between models), ``offset`` what it has to be
    multiplied by for a rate, as a logarithm and at the same time its place among others; None where
    the ceiling is not known."""

    point: Point
    rate: float
    value: float | None
    offset: float | None


class Estimator:
    """Estimates of one figure, ``decode`` or ``prefill``, from points.

    Decode rates are compared by the ceiling (bandwidth / bytes a token reads) on any hardware;
    prefill rates by the active parameters, on the same hardware alone: they are bound by
    arithmetic, whose peak is not known of most machines.
    """

    def __init__(self, points: Iterable[Point], figure: Literal["decode", "prefill"]) -> None:
        self.figure = figure
        every = [point for point in points if _rate(point, figure)]
        self.single = [_seen(point, figure) for point in every]
        self.groups = [_seen(point, figure) for point in at_most(every, LATEST)]
        self._by_model: dict[tuple[ModelKey, Place], list[_Seen]] = {}
        for one in self.groups:
            self._by_model.setdefault((one.point.model, one.point.place), []).append(one)
        self._records: dict[tuple[ModelKey, str, Place], list[_Seen]] = {}
        for one in self.single:
            name = (one.point.model, one.point.hardware, one.point.place)
            self._records.setdefault(name, []).append(one)
        self._by_offset: dict[tuple[Place, str | None], list[_Placed]] = {}
        for number, one in enumerate(self.groups):
            if one.offset is not None:
                for on in (one.point.hardware, None):
                    listed = self._by_offset.setdefault((one.point.place, on), [])
                    listed.append((one.offset, number, one))
        for listed in self._by_offset.values():
            listed.sort(key=lambda placed: placed[:2])

    def estimate(
        self, model: ModelKey, hardware: str, place: Place, scale: float | None
    ) -> Estimate | None:
        """What to expect of a model; ``scale`` is its ceiling on that machine, or its active
        parameters. None with too little data."""
        here = self._records.get((model, hardware, place), [])[:LATEST]
        if here:
            return self._here(here)
        if scale is None or not (scale > 0 and math.isfinite(scale)):
            return None
        offset = math.log(scale) * (1 if self.figure == "decode" else -1)
        for kind in ("elsewhere", "like"):
            used = (
                self._elsewhere(model, hardware, place)
                if kind == "elsewhere"
                else self._like(model, hardware, place, offset)
            )
            bound = self.errors(kind).bound
            if used and bound is not None:
                rate = _center(used) + offset
                return Estimate(
                    math.exp(rate),
                    math.exp(rate - bound),
                    math.exp(rate + bound),
                    kind,
                    tuple(one.point.record for one in used),
                    len(self.errors(kind).errors),
                )
        return None

    def _here(self, here: Sequence[_Seen]) -> Estimate:
        rate, found = median(one.rate for one in here), self.errors("here")
        names = tuple(one.point.record for one in here)
        bound = found.bound
        low, high = None, None
        if bound is not None:
            low, high = rate * math.exp(-bound), rate * math.exp(bound)
        return Estimate(rate, low, high, "here", names, len(found.errors))

    def _elsewhere(self, model: ModelKey, hardware: str, place: Place) -> list[_Seen]:
        if self.figure == "prefill":
            return []
        found = self._by_model.get((model, place), [])
        return [s for s in found if s.point.hardware != hardware and s.value is not None]

    def _like(self, model: ModelKey, hardware: str, place: Place, offset: float) -> list[_Seen]:
        """The nearest groups of other families."""

        def far(placed: _Placed) -> float:
            distance = abs(placed[0] - offset)
            return distance + (0.0 if placed[2].point.hardware == hardware else OTHER_HARDWARE)

        def others(one: _Seen) -> bool:
            return one.point.model[0] != model[0] and one.point.hardware != hardware

        def here(one: _Seen) -> bool:
            return one.point.model[0] != model[0]

        found = _nearest(self._by_offset.get((place, hardware), []), offset, here)
        if self.figure == "decode":
            found += _nearest(self._by_offset.get((place, None), []), offset, others)
        found.sort(key=lambda placed: placed[1])
        return [one for _, _, one in heapq.nsmallest(NEAREST, found, key=far)]

    def share(self, model: ModelKey, place: Place) -> tuple[float, int] | None:
        """The share of the ceiling that a model reached over all hardware of a place, and on how
        many kinds of it: what an estimate by *elsewhere* is made of."""
        used = self._elsewhere(model, "", place)
        return (math.exp(_center(used)), len(used)) if used else None

    def errors(self, kind: Kind) -> Errors:
        """The errors of one kind of estimate, each measured group left out in turn."""
        return self._errors[kind]

    @cached_property
    def _errors(self) -> dict[Kind, Errors]:
        here = [
            math.log(one.rate / median(other.rate for other in records if other is not one))
            for records in self._records.values()
            if len(records) > 1
            for one in records[:LATEST]
        ]
        elsewhere, like = [], []
        step = -(-len(self.groups) // MOST_GROUPS) or 1
        for one in self.groups[::step]:
            if one.value is None or one.offset is None:
                continue
            of = (one.point.model, one.point.hardware, one.point.place)
            if used := self._elsewhere(*of):
                elsewhere.append(one.value - _center(used))
            if used := self._like(*of, one.offset):
                like.append(one.value - _center(used))
        found: dict[Kind, list[float]] = {"here": here, "elsewhere": elsewhere, "like": like}
        return {kind: Errors(kind, tuple(errors)) for kind, errors in found.items()}


_Placed = tuple[float, int, _Seen]
"""An offset, the number of its group, and the group."""


def _nearest(
    ordered: Sequence[_Placed], offset: float, wanted: Callable[[_Seen], bool]
) -> list[_Placed]:
    """The nearest of those wanted, ``NEAREST`` and all that are as near as the last of them."""
    at = bisect_left(ordered, (offset,))
    outwards = heapq.merge(
        reversed(ordered[:at]), ordered[at:], key=lambda placed: abs(placed[0] - offset)
    )
    found: list[_Placed] = []
    for placed in outwards:
        if not wanted(placed[2]):
            continue
        if len(found) >= NEAREST and abs(placed[0] - offset) > abs(found[-1][0] - offset):
            break
        found.append(placed)
    return found


def _rate(point: Point, figure: str) -> float | None:
    return point.tok_per_s if figure == "decode" else point.prefill_tok_per_s


def _seen(point: Point, figure: str) -> _Seen:
    rate = _rate(point, figure) or 0.0
    scale = point.ideal if figure == "decode" else point.active_parameters
    if not scale or scale <= 0:
        return _Seen(point, rate, None, None)
    offset = math.log(scale) * (1 if figure == "decode" else -1)
    return _Seen(point, rate, math.log(rate) - offset, offset)


def _center(used: Sequence[_Seen]) -> float:
    return median(one.value for one in used if one.value is not None)
