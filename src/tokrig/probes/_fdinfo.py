"""GPU memory by process, as the kernel's graphics drivers tell it for each open device file.

Kernel documentation, "DRM client usage stats". Memory in use is ``drm-resident-<region>``; before
Linux 6.14 amdgpu had only ``drm-memory-<region>``, which newer ones keep with the same meaning.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokrig.probes import _sysfs

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2}


@dataclass(frozen=True)
class Client:
    """One opening of a card's device file by a process, as its driver numbers it."""

    pid: int
    card: str
    number: str
    told: Mapping[str, str]

    @property
    def engine_ns(self) -> int:
        """Nanoseconds that the card's parts have worked for it, all together."""
        words = [
            value.partition(" ")[0]
            for name, value in self.told.items()
            if name.startswith("drm-engine-") and not name.startswith("drm-engine-capacity-")
        ]
        return sum(int(word) for word in words if word.isdigit())


def clients(root: Path, driver: str) -> list[Client]:
    """Each once, though it may have several descriptors. Only of processes whose files this user
    may look at, his own as a rule."""
    found: dict[tuple[int, str, str], Client] = {}
    for process in _sysfs.listing(root / "proc", "[0-9]*"):
        for text in _device_files(process):
            told = _sysfs.key_values(text, ":")
            if told.get("drm-driver") == driver:
                card, number = told.get("drm-pdev", ""), told.get("drm-client-id", "")
                pid = int(process.name)
                found[pid, card, number] = Client(pid, card, number, told)
    return list(found.values())


def process_bytes(clients: Iterable[Client], regions: Iterable[str]) -> dict[int, int]:
    """Bytes by process id in these regions of memory."""
    regions, found = tuple(regions), dict[int, int]()
    for client in clients:
        size = sum(_resident(client.told, region) for region in regions)
        found[client.pid] = found.get(client.pid, 0) + size
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
