"""The binary metrics table of amdgpu (``gpu_metrics``): what it tells of throttling.

Layout: the kernel's ``kgd_pp_interface.h``. A header of four bytes (size, format revision,
content revision) says which layout follows. Format 1 is that of cards, 2 and 3 of APUs.
Fields that the hardware does not fill hold all ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tokrig.probes import _sysfs

# Offset of the throttle status whose bits mean the same on every chip, by (format, content).
STATUS_OFFSET = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}
NOT_FILLED = 0xFFFF_FFFF_FFFF_FFFF

# Where the counters of format 3.0 begin, 32 bits each, and what holds when one of them grows.
HELD_OFFSET = {(3, 0): 228}
HELD = "prochot power_limit power_limit power_limit thermal thermal thermal".split()

# Bit ranges of that status (the driver's ``SMU_THROTTLER_*`` numbers), first and last.
REASONS = {
    "power_limit": (0, 15),
    "current_limit": (16, 31),
    "thermal": (32, 45),
    "prochot": (46, 47),
    "other_limit": (56, 63),
}


@dataclass(frozen=True)
class Metrics:
    """None: the table is missing, short, or of a form that does not tell. ``held`` are counters
    of how long each reason has held the clocks down, in a unit that the kernel leaves open."""

    apu: bool | None = None
    throttle_reasons: tuple[str, ...] | None = None
    held: dict[str, int] | None = None


def read(path: Path) -> Metrics:
    """The table at ``path``; an empty answer where it is missing, short or of unknown form."""
    raw = _sysfs.read_bytes(path)
    if raw is None or len(raw) < 4:
        return Metrics()
    _size, form, content = struct.unpack_from("<HBB", raw)
    apu = True if form in (2, 3) else None
    if (at := HELD_OFFSET.get((form, content))) is not None:
        return Metrics(apu, held=_held(raw, at))
    at = STATUS_OFFSET.get((form, content))
    if at is None or at + 8 > len(raw):
        return Metrics(apu)
    (status,) = struct.unpack_from("<Q", raw, at)
    if status == NOT_FILLED:
        return Metrics(apu)
    words = (
        word
        for word, (first, last) in REASONS.items()
        if status >> first & ((1 << (last - first + 1)) - 1)
    )
    return Metrics(apu, tuple(words))


def _held(raw: bytes, at: int) -> dict[str, int] | None:
    """Sums of the counters by reason; None where a chip does not fill them."""
    if at + 4 * len(HELD) > len(raw):
        return None
    counters = struct.unpack_from(f"<{len(HELD)}I", raw, at)
    if 0xFFFF_FFFF in counters:
        return None
    found: dict[str, int] = {}
    for word, count in zip(HELD, counters, strict=True):
        found[word] = found.get(word, 0) + count
    return found
