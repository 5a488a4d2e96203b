"""Is B slower than A by more than a limit? PASS, FAIL or INCONCLUSIVE, figure by figure and over
all of them. Pure; docs/decisions/0020 has the reasons, docs/methodology.md the rules.

FAIL says of one figure at least that it is slower: every figure is a chance to be wrong, so the
p-values are Holm's (1979) over all figures judged together. PASS says of all of them that none is
slower by more than the limit: all have to show it, each by its own 95 % interval, and that needs
no correction (the intersection-union test, Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from tokrig.compare import (
    COMPARED,
    Cell,
    Comparison,
    Pair,
    comparison,
    is_one_metric,
    label,
    quality,
)
from tokrig.compare.pool import Group
from tokrig.compare.statistics import (
    LEVEL,
    MOST_STARTS,
    NO_INTERVAL,
    POWER_80,
    SMALLEST_EFFECT,
    STARTS_NEEDED,
    WIDEST,
    Side,
    Spread,
    critical,
    holm,
    of_starts,
    ratio_interval,
    too_few,
    usable,
    welch_p,
)
from tokrig.record.metrics import METRICS
from tokrig.record.model import Record

Word = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Place = tuple[str, tuple[int, int], str]
"""A shape, its concurrency on either side, a figure."""

# A median of n values has this times the standard error of their mean (π / 2 of its square).
OF_MEDIAN = math.sqrt(math.pi / 2)
# Of the normal distribution, what is exceeded in nine trials of ten: where two things have to come
# together, each is missed in one of ten, so that both come in four of five.
POWER_90 = 1.281552


@dataclass(frozen=True)
class Limits:
    """By which share of its time B may be slower: ``every`` figure, ``own`` single ones. Where only
    single ones are named, only they are judged; where nothing is, the noise is the limit."""

    every: float | None = None
    own: Mapping[str, float] = field(default_factory=dict)

    def judged(self) -> list[str]:
        """The figures that are judged, in the order of a table."""
        chosen = self.own if self.own and self.every is None else COMPARED
        return [name for name in COMPARED if name in chosen]

    def of(self, metric: str) -> float | None:
        """The limit of one figure; None is the noise."""
        return self.own.get(metric, self.every)

    def __str__(self) -> str:
        told = [] if self.every is None else [percent(self.every)]
        told += [f"{METRICS[name].label} {percent(one)}" for name, one in self.own.items()]
        return (f"the limits ({', '.join(told)})" if self.own else told[0]) if told else "the noise"


@dataclass(frozen=True)
class Verdict:
    """What is said of one figure of one cell.

    ``a`` and ``b`` are medians over ``starts`` starts, ``ratio`` is b / a with its own 95 %
    interval, ``slower`` the share of time by which B is slower (negative: faster). ``limit`` is
    what was asked for, ``least`` the effect that counts: the limit, 2 % or the noise, whichever is
    most. ``p`` comes from Welch's test, ``adjusted_p`` is Holm's. ``effect`` is empty unless a
    difference is shown. ``settle`` says what would settle what is inconclusive, ``starts_wanted``
    of how many starts on each side, where that is known.
    """

    shape: str
    concurrency: tuple[int, int]
    metric: str
    a: float | None
    b: float | None
    starts: tuple[int | None, int | None]
    least: float
    limit: float | None = None
    noise: float = 0.0
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    slower: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    verdict: Word = "INCONCLUSIVE"
    effect: Literal["", "faster", "slower"] = ""
    settle: str = ""
    starts_wanted: int | None = None
    unverified: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """``agent × 4 gen tok/s``."""
        return f"{label(self.shape, self.concurrency)} {METRICS[self.metric].label}"

    @property
    def span(self) -> tuple[float, float] | None:
        """The interval of ``slower``, from the fastest that B may be to the slowest."""
        if self.low is None or self.high is None:
            return None
        higher = COMPARED[self.metric]
        fast, slow = (1 / self.high, 1 / self.low) if higher else (self.low, self.high)
        return fast - 1, slow - 1


@dataclass(frozen=True)
class Judged:
    """Two groups beside each other: their comparison, its verdicts, what else is to be said beside
    speed, and what of either could not be judged."""

    a: Group
    b: Group
    found: Comparison
    verdicts: tuple[Verdict, ...]
    beside: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """All of it. ``tests`` is the size of the family that Holm's correction is over."""

    limits: Limits
    pairs: tuple[Judged, ...]
    tests: int
    left_out: tuple[str, ...] = ()

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all pairs."""
        return [verdict for pair in self.pairs for verdict in pair.verdicts]

    @property
    def verdict(self) -> Word:
        """FAIL where one figure fails; PASS where all there are pass and none is missing."""
        words = {one.verdict for one in self.verdicts}
        if "FAIL" in words:
            return "FAIL"
        whole = words == {"PASS"} and not any(pair.missing for pair in self.pairs)
        return "PASS" if whole else "INCONCLUSIVE"

    @property
    def rated(self) -> bool:
        """Whether there is any ratio at all."""
        return any(one.ratio is not None for one in self.verdicts)

    def of(self, word: Word) -> list[Verdict]:
        """Those of one verdict."""
        return [one for one in self.verdicts if one.verdict == word]

    @property
    def family(self) -> str:
        """What is tested together, in words."""
        tested = [one for one in self.verdicts if one.p is not None]
        cells = {
            (number, one.shape, one.concurrency)
            for number, pair in enumerate(self.pairs)
            for one in pair.verdicts
            if one.p is not None
        }
        names = dict.fromkeys(METRICS[one.metric].label for one in tested)
        parts = [f"{_count(len(names), 'figure')} ({', '.join(names)})", _count(len(cells), "cell")]
        if len(self.pairs) > 1:
            parts.append(f"{len(self.pairs)} pairs of configurations")
        return f"{_count(self.tests, 'test')}: " + " of ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "verdict": self.verdict,
            "limits": {"regression": self.limits.every, **self.limits.own},
            "family": {
                "tests": self.tests,
                "correction": "Holm",
                "level": float(LEVEL),
                "of": self.family if self.tests else "",
            },
            "verdicts": [
                {"pair": number, **asdict(verdict)}
                for number, pair in enumerate(self.pairs)
                for verdict in pair.verdicts
            ],
            "comparisons": [
                {
                    "records": {"a": pair.a.ids, "b": pair.b.ids},
                    "beside": pair.beside,
                    "missing": pair.missing,
                    **pair.found.as_dict(),
                }
                for pair in self.pairs
            ],
            "left_out": self.left_out,
        }


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def percent(share: float) -> str:
    """``3 %``, ``4.1 %``."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def judge(
    pairs: Iterable[tuple[Group, Group]],
    limits: Limits,
    *,
    control: Mapping[Place, float] | None = None,
    left_out: Sequence[str] = (),
) -> Judgement:
    """A verdict on every figure of every pair, all of them one family. ``control`` is by how much
    two arms of the same differed beside them, where that was measured."""
    opened = [(a, b, _Beside(a, b, limits, control or {})) for a, b in pairs]
    tested = [one for *_, beside in opened for one in beside.figures if one.verdict.p is not None]
    adjusted = holm([Fraction(one.verdict.p or 0.0) for one in tested])
    # What is not rejected stands at the step at which Holm's procedure ended.
    step = max(1, len(tested) - sum(p <= LEVEL for p in adjusted))
    for one, p in zip(tested, adjusted, strict=True):
        one.verdict = _called(one, float(p), step)
    judged = (
        Judged(
            a,
            b,
            beside.found,
            tuple(one.verdict for one in beside.figures),
            tuple(besides(a.records, b.records)),
            tuple(beside.missing),
        )
        for a, b, beside in opened
    )
    return Judgement(limits, tuple(judged), len(tested), tuple(left_out))


@dataclass
class _Figure:
    """A verdict on its way, and the spreads between starts that it rests on."""

    verdict: Verdict
    of: Spread | None = None
    reference: Spread | None = None


class _Beside:
    """Two groups beside each other: what can be judged of them, and what cannot."""

    def __init__(self, a: Group, b: Group, limits: Limits, control: Mapping[Place, float]) -> None:
        self.found = comparison(a.subject, b.subject)
        self.limits, self.control = limits, control
        self.missing: list[str] = []
        self.figures: list[_Figure] = []
        if self.found.grade == "D":
            self.missing.append(f"not comparable: {self.found.reason}")
            self.missing += filter(None, map(_why_not, self.found.pairs))
            return
        alike = self.found.grade == "A" and not self.found.differences.changed
        known = () if alike else (a.subject.noise, b.subject.noise)
        self.noise = {
            name: max((n.get(name, 0.0) for n in known), default=0.0) for name in COMPARED
        }
        cells = [{(c.shape, c.concurrency): c for c in one.subject.cells} for one in (a, b)]
        paired = {(pair.shape, pair.concurrency[0]) for pair in self.found.pairs}
        for shape, level in cells[0].keys() - paired:
            self.missing.append(f"{label(shape, (level, level))}: only A has it")
        self.missing.sort()
        for pair in self.found.pairs:
            mine, other = (
                side[pair.shape, level] for side, level in zip(cells, pair.concurrency, strict=True)
            )
            self.figures += self._figures(pair, mine, other)

    def _figures(self, pair: Pair, a: Cell, b: Cell) -> Iterator[_Figure]:
        where = label(pair.shape, pair.concurrency)
        if why := _why_not(pair):
            self.missing.append(why)
            return
        codes = [
            c
            for v, cs in zip(pair.verdicts, pair.codes, strict=True)
            if v == "unverified"
            for c in cs
        ]
        for metric in self.limits.judged():
            sides = (b.side(metric), a.side(metric))
            if sides == (None, None):
                continue
            name = f"{where} {METRICS[metric].label}"
            usables = [side is not None and usable(side.metric.median) for side in sides]
            if not all(usables):
                self.missing.append(f"{name}: {'B' if usables[1] else 'A'} has no such figure")
            elif not is_one_metric(metric, a, b):
                self.missing.append(f"{name}: measured in two ways")
            else:
                yield self._figure(pair, metric, *sides, tuple(dict.fromkeys(codes)))

    def _figure(
        self, pair: Pair, metric: str, b: Side | None, a: Side | None, codes: tuple[str, ...]
    ) -> _Figure:
        assert a is not None
        assert b is not None
        noise = self.control.get((pair.shape, pair.concurrency, metric), self.noise[metric])
        limit, value = self.limits.of(metric), b.metric.median / a.metric.median
        verdict = Verdict(
            shape=pair.shape,
            concurrency=pair.concurrency,
            metric=metric,
            a=a.metric.median,
            b=b.metric.median,
            starts=(a.starts, b.starts),
            limit=limit,
            noise=noise,
            least=max(limit or 0.0, SMALLEST_EFFECT, noise),
            ratio=value,
            slower=(1 / value if COMPARED[metric] else value) - 1,
            unverified=codes,
        )
        of, reference = (of_starts(side.metric, side.starts) for side in (b, a))
        if of is None or reference is None:
            enough = min(a.starts or 0, b.starts or 0) >= STARTS_NEEDED
            settle = NO_INTERVAL if enough else too_few(a.starts, b.starts)
            return _Figure(replace(verdict, settle=settle))
        low, high = ratio_interval(of, reference, 1)
        verdict = replace(
            verdict, low=min(low, value), high=max(high, value), p=welch_p(of, reference)
        )
        return _Figure(verdict, of, reference)


def _why_not(pair: Pair) -> str:
    """Why the results of a cell are not judged; empty where they are."""
    where = label(pair.shape, pair.concurrency)
    marks = [
        f"{side} INVALID ({', '.join(codes)})"
        for side, verdict, codes in zip("AB", pair.verdicts, pair.codes, strict=True)
        if verdict == "invalid"
    ]
    others = {"other_shape": "other texts", "other_length": "another length"}
    why = "; ".join(marks) or others.get(pair.comparable, "")
    return f"{where}: {why}" if why else ""


def _called(figure: _Figure, adjusted: float, step: int) -> Verdict:
    """The verdict of a figure that was tested, after Holm's correction."""
    one = replace(figure.verdict, adjusted_p=adjusted)
    slower, (_, slowest) = one.slower or 0.0, one.span or (0.0, math.inf)
    room = max(WIDEST, one.least) if one.limit is None else one.limit
    apart = max(SMALLEST_EFFECT, one.noise)
    shown = adjusted <= LEVEL
    if shown and slower > apart:
        one = replace(one, effect="slower")
    elif shown and 1 / (1 + slower) - 1 > apart:
        one = replace(one, effect="faster")
    if shown and slower > one.least:
        return replace(one, verdict="FAIL")
    if slowest <= room and (one.noise <= room or one.effect == "faster"):
        return replace(one, verdict="PASS")
    return _open(figure, one, room, step)


def _open(figure: _Figure, one: Verdict, room: float, step: int) -> Verdict:
    """What would settle an inconclusive one."""
    if figure.of is None or figure.reference is None:
        return one
    if one.noise > room:
        steady = f"two runs of the same differ by {percent(one.noise)} here, more than the limit"
        return replace(one, settle=f"{steady}: a steadier machine")
    wanted = starts_wanted(figure.of, figure.reference, one.slower or 0.0, one.least, room, step)
    if wanted is None:
        return replace(one, settle=f"more than {MOST_STARTS} starts on each side")
    have = " and ".join(dict.fromkeys(map(str, (figure.reference.count, figure.of.count))))
    settle = f"about {wanted} starts on each side; there are {have}"
    return replace(one, settle=settle, starts_wanted=wanted)


def starts_wanted(
    of: Spread, reference: Spread, slower: float, least: float, room: float, step: int
) -> int | None:
    """With how many starts on each side a verdict comes in 80 of 100 trials, if the ratio that was
    seen is the true one and the next starts are like these; None for more than ``MOST_STARTS``.

    A regression beyond ``least`` has to show in the test at this ``step`` of Holm's procedure, and
    in the median; anything less in an interval within ``room``.
    """
    seen = math.log1p(slower)
    both = math.hypot(of.deviation, reference.deviation)
    fails = seen > math.log1p(least)
    if not fails and seen >= math.log1p(room):
        return None
    for count in range(max(of.count, reference.count) + 1, MOST_STARTS + 1):
        error = both / math.sqrt(count)
        if fails:
            beyond = POWER_90 * OF_MEDIAN * error <= seen - math.log1p(least)
            enough = beyond and (critical(2 * count - 2, step) + POWER_90) * error <= seen
        else:
            enough = (critical(2 * count - 2) + POWER_80) * error <= math.log1p(room) - seen
        if enough:
            return count
    return None


def besides(a: Sequence[Record], b: Sequence[Record]) -> Iterator[str]:
    """What is to be said beside speed: whatever makes one figure of two sides no equal of another.
    A line each, for people."""
    for side, records in (("A", a), ("B", b)):
        changed = [
            result.cell.label
            for record in records
            for result in record.results
            if result.greedy is not None and result.greedy.same is False
        ]
        if changed:
            told = ", ".join(dict.fromkeys(changed))
            yield f"{side}: speculation changed the greedy answer of {told}"
    newest = [next((r for r in records if r.quality), records[0]) for records in (a, b)]
    yield from (f"answers: {text}" for text in quality.between(*newest))
    shares = [_ceiling_shares(records) for records in (a, b)]
    if all(shares):
        told = ", ".join(f"{side} {one}" for side, one in zip("AB", shares, strict=True))
        yield f"share of the decode ceiling: {told}"


def _ceiling_shares(records: Iterable[Record]) -> str:
    found = [
        result.ceiling_share
        for record in records
        for result in record.results
        if result.ceiling_share is not None
    ]
    if not found:
        return ""
    return "–".join(dict.fromkeys((percent(min(found)), percent(max(found)))))


def differing(judgement: Judgement) -> dict[Place, float]:
    """By how much the sides of a judgement differ, either way; the noise, if both are the same."""
    return {
        (one.shape, one.concurrency, one.metric): max(one.ratio, 1 / one.ratio) - 1
        for one in judgement.verdicts
        if one.ratio is not None
    }
