"""GPU memory by process, as the kernel's graphics drivers tell it for each open device file.

Kernel documentation, "DRM client usage stats". Memory in use is ``drm-resident-<region>``; before
Linux 6.14 amdgpu had only ``drm-memory-<region>``, which newer ones keep with the same meaning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokrig.probes import _sysfs

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2}


def process_bytes(
    root: Path, driver: str, regions: Mapping[str, tuple[str, ...]]
) -> dict[int, int]:
    """Bytes by process id over the cards in ``regions``: PCI address → regions that count.

    Only processes whose files this user may look at, his own as a rule.
    """
    found: dict[int, int] = {}
    for process in _sysfs.listing(root / "proc", "[0-9]*"):
        # One open file may have several descriptors.
        clients: dict[tuple[str, str], int] = {}
        for text in _device_files(process):
            told = _sysfs.key_values(text, ":")
            card = told.get("drm-pdev", "")
            if told.get("drm-driver") == driver and card in regions:
                size = sum(_resident(told, region) for region in regions[card])
                clients[card, told.get("drm-client-id", "")] = size
        if clients:
            found[int(process.name)] = sum(clients.values())
    return found


def _device_files(process: Path) -> Iterator[str | None]:
    """What the kernel tells of each descriptor of a graphics device."""
    try:
        numbers = os.listdir(process / "fd")
    except OSError:
        return
    for number in numbers:
        try:
            target = os.readlink(f"{process}/fd/{number}")
        except OSError:
            continue
        if target.startswith("/dev/dri/"):
            yield _sysfs.read_text(process / "fdinfo" / number)


def _resident(told: Mapping[str, str], region: str) -> int:
    words = told.get(f"drm-resident-{region}") or told.get(f"drm-memory-{region}") or "0"
    number, _, unit = words.partition(" ")
    return int(number) * _UNITS.get(unit, 0) if number.isdigit() else 0
