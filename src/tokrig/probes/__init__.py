"""Probes: facts about this machine, and what it does while a model runs.

One file a vendor exposing ``PROBE``. A probe that finds nothing says so in ``availability``
and yields nothing; it never guesses and never raises for missing hardware or permissions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tokrig.record.model import Cpu, Gpu, Memory


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


@dataclass(frozen=True)
class Reading:
    """One look at the machine while it works; None = this probe cannot read it.

    Energy values are counters: only differences mean something. Keys of ``energy_j`` are scopes:
    ``gpu``, ``package``. ``gpu_process_bytes`` holds 0 for a process whose size is not told;
    unless ``gpu_processes_complete`` it knows only some of the processes that use the GPU, and
    tells nothing of whether others do.
    """

    load_average: float | None = None
    busy_cpu_s: float | None = None
    gpu_power_w: float | None = None
    gpu_temperature_c: float | None = None
    gpu_clock_mhz: float | None = None
    gpu_memory_used_bytes: int | None = None
    gpu_process_bytes: dict[int, int] | None = None
    gpu_processes_complete: bool = True
    throttle_reasons: tuple[str, ...] | None = None
    energy_j: dict[str, float] = field(default_factory=dict)


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
