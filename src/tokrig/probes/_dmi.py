"""Memory modules out of the SMBIOS table (DMTF DSP0134, structure type 17, "Memory Device").

The kernel shows the table at ``/sys/firmware/dmi/tables/DMI``, to root alone. Nothing here
trusts a length that the table states: a broken table yields what came before the break.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MEMORY_DEVICE = 17
END_OF_TABLE = 127

# DSP0134, "Memory Device: Type". Values such as Other, Unknown or plain RAM tell nothing.
MEMORY_TYPES = {
    0x12: "DDR",
    0x13: "DDR2",
    0x18: "DDR3",
    0x1A: "DDR4",
    0x1B: "LPDDR",
    0x1C: "LPDDR2",
    0x1D: "LPDDR3",
    0x1E: "LPDDR4",
    0x20: "HBM",
    0x21: "HBM2",
    0x22: "DDR5",
    0x23: "LPDDR5",
    0x24: "HBM3",
}


@dataclass(frozen=True)
class Module:
    """One fitted memory module; ``speed_mt_per_s`` is the configured one where told."""

    type: str | None
    speed_mt_per_s: int | None


def _structures(table: bytes) -> Iterator[bytes]:
    """The formatted parts of all structures; their strings are skipped."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 4 or at + length > len(table):
            return
        yield table[at : at + length]
        end = table.find(b"\0\0", at + length)
        if kind == END_OF_TABLE or end < 0:
            return
        at = end + 2


def _word(structure: bytes, at: int, size: int = 2) -> int:
    """A little-endian number; 0 (= unknown) where the structure is too short to hold it."""
    return int.from_bytes(structure[at : at + size], "little") if at + size <= len(structure) else 0


def _speed(structure: bytes, at: int, extended_at: int) -> int:
    speed = _word(structure, at)
    return _word(structure, extended_at, 4) if speed == 0xFFFF else speed


def modules(table: bytes) -> list[Module]:
    """The fitted modules; empty slots are left out."""
    fitted = []
    for structure in _structures(table):
        if structure[0] != MEMORY_DEVICE or _word(structure, 0x0C) == 0:
            continue
        kind = structure[0x12] if len(structure) > 0x12 else 0
        speed = _speed(structure, 0x20, 0x58) or _speed(structure, 0x15, 0x54)
        fitted.append(Module(MEMORY_TYPES.get(kind), speed or None))
    return fitted


def type_and_speed(table: bytes | None) -> tuple[str | None, int | None]:
    """Memory type and speed (MT/s) of the whole machine.

    Modules of different speed run at the slowest one's; different types are joined by ``+``.
    """
    fitted = modules(table) if table else []
    types = sorted({m.type for m in fitted if m.type})
    speeds = [m.speed_mt_per_s for m in fitted if m.speed_mt_per_s]
    return "+".join(types) or None, min(speeds) if speeds else None
