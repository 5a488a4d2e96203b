"""Names of Arm processors, which tell numbers only: implementer and part of MIDR_EL1.

The kernel shows both in ``/proc/cpuinfo`` and the register below ``/sys/devices/system/cpu``. The
numbers are those of the kernel's ``cputype.h``, of LLVM's host detection and of util-linux; a part
that none of them names is told by its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from tokrig.probes import _sysfs

IMPLEMENTERS = {
    0x41: "ARM",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x50: "APM",
    0x51: "Qualcomm",
    0x53: "Samsung",
    0x56: "Marvell",
    0x61: "Apple",
    0x6D: "Microsoft",
    0x70: "Phytium",
    0xC0: "Ampere",
}


def _parts(implementer: int, text: str) -> dict[tuple[int, int], str]:
    """``d0b Cortex-A76, …`` as a table."""
    pairs = (entry.split(maxsplit=1) for entry in text.split(","))
    return {(implementer, int(part, 16)): name.strip() for part, name in pairs}


PARTS = {
    **_parts(
        0x41,
        "c07 Cortex-A7, c08 Cortex-A8, c09 Cortex-A9, c0d Cortex-A17, c0e Cortex-A17,"
        "c0f Cortex-A15, d01 Cortex-A32, d02 Cortex-A34, d03 Cortex-A53, d04 Cortex-A35,"
        "d05 Cortex-A55, d06 Cortex-A65, d07 Cortex-A57, d08 Cortex-A72, d09 Cortex-A73,"
        "d0a Cortex-A75, d0b Cortex-A76, d0c Neoverse-N1, d0d Cortex-A77, d0e Cortex-A76AE,"
        "d40 Neoverse-V1, d41 Cortex-A78, d42 Cortex-A78AE, d43 Cortex-A65AE, d44 Cortex-X1,"
        "d46 Cortex-A510, d47 Cortex-A710, d48 Cortex-X2, d49 Neoverse-N2, d4a Neoverse-E1,"
        "d4b Cortex-A78C, d4c Cortex-X1C, d4d Cortex-A715, d4e Cortex-X3, d4f Neoverse-V2,"
        "d80 Cortex-A520, d81 Cortex-A720, d82 Cortex-X4, d83 Neoverse-V3AE, d84 Neoverse-V3,"
        "d85 Cortex-X925, d87 Cortex-A725, d88 Cortex-A520AE, d89 Cortex-A720AE, d8a C1-Nano,"
        "d8b C1-Pro, d8c C1-Ultra, d8e Neoverse-N3, d8f Cortex-A320, d90 C1-Premium",
    ),
    **_parts(0x42, "100 Brahma-B53, 516 ThunderX2"),
    **_parts(
        0x43,
        "0a0 ThunderX, 0a1 ThunderX-88XX, 0a2 ThunderX-81XX, 0a3 ThunderX-83XX,"
        "0af ThunderX2-99xx, 0b1 OcteonTX2-98XX, 0b2 OcteonTX2-96XX, 0b3 OcteonTX2-95XX,"
        "0b8 ThunderX3-T110",
    ),
    **_parts(0x46, "001 A64FX, 003 MONAKA"),
    **_parts(0x48, "d01 TaiShan-v110, d02 TaiShan-v120, d06 HIP12, d40 Cortex-A76"),
    **_parts(0x4E, "000 Denver, 003 Denver-2, 004 Carmel, 010 Olympus"),
    **_parts(0x50, "000 X-Gene"),
    **_parts(
        0x51,
        "001 Oryon, 201 Kryo, 205 Kryo, 211 Kryo, 800 Kryo-2xx-Gold, 801 Kryo-2xx-Silver,"
        "802 Kryo-3xx-Gold, 803 Kryo-3xx-Silver, 804 Kryo-4xx-Gold, 805 Kryo-4xx-Silver,"
        "c00 Falkor, c01 Saphira",
    ),
    **_parts(0x53, "001 Exynos-M1, 002 Exynos-M3, 003 Exynos-M4, 004 Exynos-M5"),
    **_parts(
        0x61,
        "022 M1-Icestorm, 023 M1-Firestorm, 024 M1-Pro-Icestorm, 025 M1-Pro-Firestorm,"
        "028 M1-Max-Icestorm, 029 M1-Max-Firestorm, 032 M2-Blizzard, 033 M2-Avalanche,"
        "034 M2-Pro-Blizzard, 035 M2-Pro-Avalanche, 038 M2-Max-Blizzard, 039 M2-Max-Avalanche,"
        "048 M3-Max-Sawtooth, 049 M3-Max-Everest",
    ),
    **_parts(0x6D, "d49 Azure-Cobalt-100"),
    **_parts(0x70, "303 FTC310, 660 FTC660, 661 FTC661, 662 FTC662, 663 FTC663, 664 FTC664"),
    **_parts(0xC0, "ac3 Ampere-1, ac4 Ampere-1a"),
}


def processor(cpuinfo: str, root: Path) -> str | None:
    """``ARM Cortex-A76``, ``ARM 4x Cortex-A55 + 4x Cortex-A76``, ``Qualcomm Oryon``; None where
    nothing tells numbers."""
    found = list(_from_cpuinfo(cpuinfo)) or list(_from_registers(root))
    counts = Counter(found)
    if not counts:
        return None
    words = []
    for implementer, parts in groupby(counts, key=lambda pair: pair[0]):
        vendor = IMPLEMENTERS.get(implementer, f"implementer {implementer:#04x}")
        names = [
            f"{counts[pair]}x {_name(pair)}" if len(counts) > 1 else _name(pair) for pair in parts
        ]
        words.append(f"{vendor} {' + '.join(names)}")
    return " + ".join(words)


def _name(pair: tuple[int, int]) -> str:
    return PARTS.get(pair, f"part {pair[1]:#05x}")


def _from_cpuinfo(cpuinfo: str) -> Iterable[tuple[int, int]]:
    """Implementer and part of each processor; they stand in this order."""
    implementer = None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        number = _number(value)
        if key.strip() == "CPU implementer":
            implementer = number
        elif key.strip() == "CPU part" and implementer is not None and number is not None:
            yield implementer, number


def _from_registers(root: Path) -> Iterable[tuple[int, int]]:
    """The same by MIDR_EL1: bits 31 to 24 and 15 to 4 (Arm ARM, DDI 0487)."""
    folders = _sysfs.listing(root / "sys/devices/system/cpu", "cpu[0-9]*")
    for folder in sorted(folders, key=lambda f: (len(f.name), f.name)):
        register = _sysfs.read_int(folder / "regs/identification/midr_el1")
        if register:
            yield register >> 24 & 0xFF, register >> 4 & 0xFFF


def _number(text: str) -> int | None:
    try:
        return int(text.strip(), 16)
    except ValueError:
        return None
