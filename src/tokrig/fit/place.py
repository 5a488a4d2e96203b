"""Where a model goes on a machine, with how long a context, and what is to be expected of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tokrig.fit.estimate import Estimate, Estimator
from tokrig.fit.evidence import Candidate, Place
from tokrig.naming import hardware_name
from tokrig.quants import CELLS_STEP, OVERHEAD_BYTES
from tokrig.record.ceiling import bandwidth, with_stated
from tokrig.record.model import Resolved, Rig

Where = Literal["VRAM", "offload", "RAM", "no", "unknown"]
DECODE_AT = 512
"""Tokens in the context at which decoding is reckoned: a short chat."""
LONGEST = 1 << 24
"""No longer contexts are looked for."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of its memories and bytes a second that can be read from them; None where not known. A
    machine without ``vram_bytes`` computes on its processor. ``shared``: the graphics processor's
    memory is main memory. ``hardware`` is what records call it, empty where it is described by
    figures alone."""

    vram_bytes: int | None = None
    ram_bytes: int | None = None
    gpu_bytes_per_s: float | None = None
    cpu_bytes_per_s: float | None = None
    hardware: str = ""
    shared: bool = False

    @property
    def place(self) -> Place:
        """What computes a model that fits."""
        return "gpu" if self.vram_bytes else "cpu"


def machine_of(rig: Rig, stated: float | None) -> Machine:
    """The machine that records came from; ``stated`` is a bandwidth (bytes/s) that somebody wrote
    down. Of several cards the sum of their memories, and the bandwidth of one: layers on several
    cards are read in turn."""
    rig = with_stated(rig, stated)
    gpu, cpu = (bandwidth(rig, Resolved(split_mode="layer"), place) for place in ("gpu", "cpu"))
    sizes = [gpu_.vram_bytes for gpu_ in rig.gpus if gpu_.vram_bytes]
    return Machine(
        vram_bytes=sum(sizes) or None,
        ram_bytes=rig.memory.usable_bytes or rig.memory.total_bytes,
        gpu_bytes_per_s=gpu.bytes_per_s if gpu and rig.gpus else None,
        cpu_bytes_per_s=cpu.bytes_per_s if cpu else None,
        hardware=hardware_name(rig),
        shared=any(gpu_.unified_memory for gpu_ in rig.gpus),
    )


class Overhead(NamedTuple):
    """What an engine takes beside weights and cache; ``records`` it was measured in, 0 for a figure
    that was chosen."""

    bytes: int
    records: int


def overhead(measured: Sequence[int]) -> Overhead:
    """The figure that nine of ten records stayed within."""
    if not measured:
        return Overhead(OVERHEAD_BYTES, 0)
    ordered = sorted(measured)
    return Overhead(ordered[math.ceil(len(ordered) * 0.9) - 1], len(ordered))


class Row(NamedTuple):
    """One model on one machine. ``context`` is the longest that fits, at most what the model was
    made for; None where its cache is not known. ``needs_bytes`` are those at the context asked
    for, without a cache nobody knows; ``ceiling`` tokens a second."""

    candidate: Candidate
    where: Where
    needs_bytes: int | None
    context: int | None
    ceiling: float | None
    decode: Estimate | None
    prefill: Estimate | None

    def is_fast(self, least: float) -> bool:
        """Whether at least so many tokens a second are expected."""
        return self.decode is not None and self.decode.tok_per_s >= least


def rows(
    candidates: Iterable[Candidate],
    machine: Machine,
    taken: dict[Place, Overhead],
    decode: Estimator,
    prefill: Estimator,
    *,
    context: int,
    least: float,
) -> list[Row]:
    """One row a model: those that are fast enough first, then those that fit, then those of which
    something is not known, those that do not fit last; the largest first."""
    found = [_row(one, machine, taken, decode, prefill, context) for one in candidates]
    return sorted(found, key=lambda row: _order(row, least))


def _order(row: Row, least: float) -> tuple[int, int, str]:
    rank = 0 if row.is_fast(least) else 1
    if row.where in ("unknown", "no"):
        rank = 2 if row.where == "unknown" else 3
    return rank, -(row.candidate.bytes or 0), row.candidate.name


def _row(
    one: Candidate,
    machine: Machine,
    taken: dict[Place, Overhead],
    decode: Estimator,
    prefill: Estimator,
    context: int,
) -> Row:
    extra = taken[machine.place].bytes
    wanted = min(context, one.context_train or context)
    cache = one.cache_bytes(wanted)
    needs = None if one.bytes is None else one.bytes + (cache or 0) + extra
    where = _where(needs, machine)
    if where in ("no", "unknown"):
        return Row(one, where, needs, None, None, None, None)
    room = _room(machine, where) - (one.bytes or 0) - extra
    longest = _longest(one, room)
    top = _ceiling(one, machine, where, room + (one.bytes or 0))
    rate = read = None
    if where != "offload":  # what lies in two memories was measured too rarely to say
        rate = decode.estimate(one.model, machine.hardware, machine.place, top)
        read = prefill.estimate(one.model, machine.hardware, machine.place, one.active_parameters)
    return Row(one, where, needs, longest, top, rate, read)


def _where(needs: int | None, machine: Machine) -> Where:
    vram, ram = machine.vram_bytes, machine.ram_bytes
    if needs is None or (vram is None and ram is None):
        return "unknown"
    if vram is not None and needs <= vram:
        return "VRAM"
    if vram is None and ram is not None and needs <= ram:
        return "RAM"
    both = vram is not None and ram is not None and not machine.shared
    return "offload" if both and needs <= (vram or 0) + (ram or 0) else "no"


def _room(machine: Machine, where: Where) -> int:
    sizes = {"VRAM": machine.vram_bytes, "RAM": machine.ram_bytes}
    if where == "offload":
        return (machine.vram_bytes or 0) + (machine.ram_bytes or 0)
    return sizes[where] or 0


def _longest(one: Candidate, room: int) -> int | None:
    """The longest context whose cache fits, in the engine's steps."""
    if one.cache is None:
        return None
    low, high = 0, min(one.context_train or LONGEST, LONGEST) // CELLS_STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = (one.cache_bytes(middle * CELLS_STEP) or 0) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * CELLS_STEP


def _ceiling(one: Candidate, machine: Machine, where: Where, gpu_room: int) -> float | None:
    """Tokens a second that the memory allows. Of a model in two memories the times add up, as many
    of its bytes in VRAM as there is room for."""
    size = one.step_bytes(DECODE_AT)
    if not size:
        return None
    if where == "VRAM":
        return machine.gpu_bytes_per_s / size if machine.gpu_bytes_per_s else None
    if where == "RAM":
        return machine.cpu_bytes_per_s / size if machine.cpu_bytes_per_s else None
    if not (machine.gpu_bytes_per_s and machine.cpu_bytes_per_s and one.bytes):
        return None
    there = gpu_room - (machine.ram_bytes or 0)  # of the file, beside overhead in VRAM
    share = min(1.0, max(0.0, there / one.bytes))
    return 1 / size / (share / machine.gpu_bytes_per_s + (1 - share) / machine.cpu_bytes_per_s)
