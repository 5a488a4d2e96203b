"""Probes: facts about this machine, and what it does while a model runs.

One file a vendor exposing ``PROBE``. A probe that finds nothing says so in ``availability``
and yields nothing; it never guesses and never raises for missing hardware or permissions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tokrig.record.model import Cpu, Gpu, Memory
from tokrig.units import significant


@dataclass(frozen=True)
class Availability:
    """Whether a probe can read anything here, what it found, and how to get what is missing."""

    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Facts:
    """What one probe knows of the rig; parts it does not know stay None or empty."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    gpus: tuple[Gpu, ...] = ()
    os: str | None = None
    kernel: str | None = None
    virtualization: str | None = None
    board: str | None = None


@dataclass(frozen=True)
class Card:
    """A graphics card, or the slice of one that may be used, at one moment; None = not told.

    ``key`` tells the cards of a machine apart. ``gtt_used_bytes`` is main memory that the card
    has borrowed (AMD); where both share one memory ``memory_used_bytes`` includes it.
    ``compute_bytes`` and ``graphics_bytes`` are
    memory by process id, 0 where its size is not told; a process of both kinds stands in both.
    Unless ``complete`` they know only some of the processes, and tell nothing of whether others
    are there. ``process_busy`` is the share of the card's time that processes use at present, for
    those that are told of; ``busy`` the share in which anything used it. ``reasons`` are what
    holds its clocks down, in the words of ``record.rules``; ``held_s`` are counters of
    the seconds that each did, where a driver counts them. Energy is a counter, too.
    """

    key: str
    name: str = ""
    power_w: float | None = None
    limit_w: float | None = None
    enforced_limit_w: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    gtt_used_bytes: int | None = None
    compute_bytes: dict[int, int] | None = None
    graphics_bytes: dict[int, int] | None = None
    complete: bool = True
    busy: float | None = None
    process_busy: dict[int, float] | None = None
    reasons: tuple[str, ...] | None = None
    held_s: dict[str, float] = field(default_factory=dict)
    energy_j: float | None = None

    @property
    def process_bytes(self) -> dict[int, int] | None:
        """Memory by process, whatever its kind."""
        if self.compute_bytes is None and self.graphics_bytes is None:
            return None
        merged = dict(self.graphics_bytes or {})
        for pid, size in (self.compute_bytes or {}).items():
            merged[pid] = max(size, merged.get(pid, 0))
        return merged


@dataclass(frozen=True)
class Reading:
    """One look at the machine while it works; None = this probe cannot read it.

    ``package_j`` is an energy counter over all processor packages, ``cpu_throttles`` one of how
    often heat held processors down: only differences mean something. ``cpu_mhz`` is the mean clock
    of the processors, ``cpu_temperature_c`` that of the hottest place in them.
    """

    load_average: float | None = None
    busy_cpu_s: float | None = None
    cards: tuple[Card, ...] = ()
    package_j: float | None = None
    cpu_mhz: float | None = None
    cpu_temperature_c: float | None = None
    cpu_throttles: int | None = None


@dataclass(frozen=True)
class Cap:
    """The power cap of a graphics card, in watts; None = the driver does not tell.

    ``gpu`` is the card's name and ``index`` its place among the probe's cards. ``settable`` says
    whether this process may set the cap, ``why`` what keeps it from that and what to do.
    """

    gpu: str
    index: int
    limit_w: float | None
    default_w: float | None
    min_w: float | None
    max_w: float | None
    settable: bool
    why: str = ""


def by_driver(bytes_per_s: float | None) -> dict[str, Any]:
    """The fields of a card's bandwidth as its driver's figures give it."""
    if not bytes_per_s:
        return {}
    return {"bandwidth_bytes_per_s": significant(bytes_per_s), "bandwidth_from": "driver"}


class Probe(Protocol):
    """A vendor's window on the machine."""

    name: str

    def availability(self) -> Availability:
        """Whether this probe reads anything here."""
        ...

    def facts(self) -> Facts:
        """The lasting facts."""
        ...

    def read(self) -> Reading:
        """One reading; called about once a second while measuring, so it must be cheap (< 5 ms)."""
        ...


@runtime_checkable
class PowerProbe(Probe, Protocol):
    """A probe of graphics cards whose power can be capped."""

    def caps(self) -> tuple[Cap, ...]:
        """The caps as they are now, of the cards that have one."""
        ...

    def set_cap(self, index: int, watts: float) -> None:
        """Cap the power of a card of ``caps``.

        Raises InputError when the driver finds the value wrong, PutOff when it does not let this
        process set it, or cannot now. Drivers may round: read the cap back.
        """
        ...
