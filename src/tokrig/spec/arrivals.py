"""Requests that arrive by themselves: what may be asked of an open loop, and how it is written.

``rate: 2/s`` · ``arrival: gamma``, ``burstiness: 0.5`` · ``rate: 1-4/s``, ``arrival: ramp`` ·
``trace: FILE`` · ``slo: ttft=0.5s,tpot=50ms`` with ``find_rate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tokrig.errors import did_you_mean
from tokrig.units import seconds_of

if TYPE_CHECKING:
    from tokrig.spec.run import RunSpec

Arrival = Literal["poisson", "constant", "gamma", "ramp"]
SloName = Literal["ttft", "tpot", "e2e"]
Refusal = tuple[object, str, str]
"""Whether something cannot be, what is wrong, what to do."""

OF_OPEN_LOOPS = (
    *("arrival", "burstiness", "duration_s", "warm_up_window_s", "trace", "slo", "find_rate"),
)
"""Keys of a run's spec that belong to open loops, beside their rates."""

DURATION_S = 60.0
# Where a search begins.
FIRST_RATE = "1/s"
# Of the duration: before it is over a server is not yet as busy as it will be.
WARM_UP_SHARE = 1 / 6
# Slots of an engine that is started for an open loop.
SLOTS = 4
# Bounds of one measured phase: its requests are made before it, its answers kept until it ends.
MOST_REQUESTS, MOST_ANSWER_TOKENS = 50_000, 5_000_000
MAX_RATE_PER_S = 10_000.0
MAX_DURATION_S = 86_400.0

_PER = {"s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_RATE = re.compile(rf"({_NUMBER})(?: ?(?:-|\.\.|–) ?({_NUMBER}))?(?: ?/ ?(s|min|h))?")


def _rate(given: Any) -> str:
    """Canonical: ``2/s``, ``1-4/s``."""
    if isinstance(given, bool) or (found := _RATE.fullmatch(str(given).strip())) is None:
        raise ValueError(f"should be a rate such as 2/s, 30/min or 1-4/s, not {given!r}")
    ends = [float(one) / _PER[found[3] or "s"] for one in found.groups()[:2] if one]
    if not 0 < max(ends) <= MAX_RATE_PER_S:
        raise ValueError(f"should be above 0 and at most {MAX_RATE_PER_S:,.0f}/s, not {given!r}")
    return f"{'-'.join(f'{end:.6g}' for end in ends)}/s"


def rate_ends(rate: str) -> tuple[float, float]:
    """Requests a second at the beginning and at the end."""
    first, _, last = rate.removesuffix("/s").partition("-")
    return float(first), float(last or first)


def _seconds(given: Any) -> float:
    """A number of seconds, or a time with its unit."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    return seconds_of(str(given))


def _slo(given: Any) -> dict[str, float]:
    """``ttft=0.5s,tpot=50ms``, or a mapping of the same, in seconds."""
    if isinstance(given, Mapping):
        pairs = [(str(name), value) for name, value in given.items()]
    else:
        pairs = [(a.strip(), b.strip()) for a, _, b in
                 (one.partition("=") for one in str(given).split(","))]  # fmt: skip
    known, found = ("ttft", "tpot", "e2e"), {}
    for name, value in pairs:
        if name not in known:
            raise ValueError(f"{name!r} is no limit: {did_you_mean(name, known)}")
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        if isinstance(value, str) and re.fullmatch(_NUMBER, value):
            raise ValueError(
                f"{name}={value} has no unit: write {name}={value}s or {name}={value}ms"
            )
        try:
            found[name] = _seconds(value)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
        if not 0 < found[name] < MAX_DURATION_S:
            raise ValueError(f"{name}: should be above 0, not {value}")
    return found


Rate = Annotated[str, BeforeValidator(_rate)]
Duration = Annotated[
    float, BeforeValidator(_seconds), Field(gt=0, le=MAX_DURATION_S, allow_inf_nan=False)
]
Window = Annotated[
    float, BeforeValidator(_seconds), Field(ge=0, le=MAX_DURATION_S, allow_inf_nan=False)
]
Slo = Annotated[dict[SloName, float], BeforeValidator(_slo)]


def is_open(given: Any) -> bool:
    """Whether requests arrive by themselves in what a spec or a matrix asks for."""
    return any(getattr(given, name, None) for name in ("rate", "trace", "find_rate"))


def duration_s(spec: RunSpec) -> float:
    """How long requests arrive."""
    return float(spec.duration_s or DURATION_S)


def highest_rate(lasts_s: float, answer_tokens: int) -> float:
    """The highest mean rate, a second, of which a measured phase of that length can be kept."""
    most = min(MOST_REQUESTS, MOST_ANSWER_TOKENS / max(answer_tokens, 1))
    return min(MAX_RATE_PER_S, most / lasts_s)


def planned_s(others: Mapping[str, Any]) -> float:
    """The same of what an entry of a campaign sets."""
    return _seconds(others.get("duration_s") or DURATION_S)


def warm_up_window_s(spec: RunSpec, lasts_s: float) -> float:
    """How much of that is not measured."""
    asked = spec.warm_up_window_s
    return lasts_s * WARM_UP_SHARE if asked is None else float(asked)


def refusals(spec: RunSpec) -> Iterator[Refusal]:
    """What cannot be asked for together."""
    rates, arrival, lasts = spec.rate or [], spec.arrival, duration_s(spec)
    of_open = {
        "--arrival": arrival,
        "--burstiness": spec.burstiness,
        "--duration": spec.duration_s,
        "--warm-up-window": spec.warm_up_window_s,
        "--slo": spec.slo,
    }
    given = ", ".join(option for option, value in of_open.items() if value is not None)
    yield (
        not is_open(spec) and given,
        f"{given}: this belongs to requests that arrive by themselves",
        "say how many: --rate 2/s, --find-rate, or --trace FILE",
    )
    if not is_open(spec):
        return
    yield (
        spec.concurrency and len(spec.concurrency) > 1,
        "--concurrency is the number of slots where requests arrive by themselves: one number",
        "give one, or measure each in a run of its own",
    )
    of_rate = {
        "--arrival": arrival,
        "--burstiness": spec.burstiness,
        "--workload": spec.workloads,
        "--depth": spec.depth,
        "--find-rate": spec.find_rate or None,
    }
    given = ", ".join(option for option, value in of_rate.items() if value is not None)
    yield (
        spec.trace and (given or len(rates) > 1),
        f"--trace says when requests arrive and how long they are; with it there is no {given}"
        if given
        else "--trace takes one --rate, to which its own is stretched",
        "leave one of them out",
    )
    yield (
        (arrival == "gamma") != (spec.burstiness is not None),
        "--arrival gamma and --burstiness belong together",
        "add --burstiness X (below 1: in bursts; 1: as poisson; above: more regular)"
        if arrival == "gamma"
        else "add --arrival gamma",
    )
    ranges = ["-" in rate for rate in rates]
    yield (
        (arrival == "ramp" and not (rates and all(ranges))) or (arrival != "ramp" and any(ranges)),
        "a ramp goes from one rate to another: --arrival ramp --rate 1-4/s",
        "give both ends of it" if arrival == "ramp" else "add --arrival ramp",
    )
    yield (
        spec.find_rate and not spec.slo,
        "--find-rate looks for the highest rate that meets an SLO",
        "add --slo ttft=0.5s,tpot=50ms",
    )
    yield (
        spec.find_rate and (len(rates) > 1 or arrival == "ramp"),
        "--find-rate begins at one rate",
        "give one --rate, or none: it begins at 1/s",
    )
    warm = warm_up_window_s(spec, lasts)
    yield (
        not spec.trace and warm >= lasts,
        f"nothing is left of a duration of {lasts:g} s after a warm-up window of {warm:g} s",
        "make --duration longer",
    )
    for rate in rates:
        requests = lasts * sum(rate_ends(rate)) / 2
        yield (
            not spec.trace and requests > MOST_REQUESTS,
            f"{requests:,.0f} requests at {rate} for {lasts:g} s, and {MOST_REQUESTS:,} are the"
            " limit",
            "make --duration shorter, or the rate lower",
        )
