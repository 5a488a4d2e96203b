"""Probes: facts about this machine, and what it does while a model runs.

One file a vendor exposing ``PROBE``. A probe that finds nothing says so in ``availability``
and yields nothing; it never guesses and never raises for missing hardware or permissions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

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
