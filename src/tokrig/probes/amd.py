"""AMD graphics processors through the files of the kernel driver amdgpu.

Meanings and units: kernel documentation, "GPU Power/Thermal Controls and Monitoring", "DRM client
usage stats" and the hwmon sysfs interface. A file that a card does not have leaves its field None.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tokrig.errors import InputError, PutOff
from tokrig.probes import Availability, Cap, Card, Facts, Reading, _sysfs, by_driver
from tokrig.record.model import Gpu

AMD = 0x1002
PCIE_GENERATION = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


class AmdProbe:
    """All cards that amdgpu drives. ``root`` is where ``/sys`` and ``/proc`` are."""

    name = "amd"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        # What the last reading found, for what only its growth tells.
        self._held: dict[Path, Mapping[str, int]] = {}
        self._used: dict[Path, tuple[float, dict[tuple[int, str], int]]] = {}

    def _devices(self) -> list[Path]:
        """The PCI folders of the cards; ``card0-DP-1`` and the like are its connectors."""
        cards = _sysfs.listing(self._root / "sys/class/drm", "card[0-9]*")
        devices = [c / "device" for c in cards if "-" not in c.name]
        return [d for d in devices if _sysfs.read_int(d / "vendor") == AMD]

    def availability(self) -> Availability:
        devices = self._devices()
        if not devices:
            return Availability(
                False,
                "no AMD card under /sys/class/drm",
                "with an AMD card: load the kernel driver amdgpu; in a container: start it with"
                " --device /dev/dri",
            )
        names = ", ".join(self._name(d) for d in devices)
        return Availability(True, f"{len(devices)} AMD card(s): {names}")

    def facts(self) -> Facts:
        return Facts(gpus=tuple(self._gpu(device) for device in self._devices()))

    def read(self) -> Reading:
        devices = self._devices()
        if not devices:
            return Reading()
        clients = _clients(self._root)
        queues = self._compute_queues()
        return Reading(cards=tuple(self._card(d, clients, queues) for d in devices))

    def _card(
        self, device: Path, clients: Sequence[_Client], queues: Mapping[str, dict[int, int]]
    ) -> Card:
        """Its processes are those of this user, which open its files, and all that compute with
        ROCm, which the compute driver lists whosever they are."""
        monitor, key = _monitor(device), device.resolve().name  # the PCI address
        metrics = _read_metrics(device / "gpu_metrics")
        unified = _unified(device, metrics)
        reasons = metrics.throttle_reasons
        if metrics.held is not None:
            # Counters of which a driver's unit is not told: that they grew is what they tell.
            before = self._held.get(device, metrics.held)
            reasons = tuple(w for w, n in metrics.held.items() if n != before.get(w, n))
            self._held[device] = metrics.held
        mine = [client for client in clients if client.card == key]
        busy = _sysfs.read_scaled(device / "gpu_busy_percent", 1e-2)
        cap = _scaled(monitor, "power1_cap", 1e-6)
        used = _sysfs.read_int(device / "mem_info_vram_used")
        gtt = _sysfs.read_int(device / "mem_info_gtt_used")
        compute = queues.get(key, {})
        sizes = _process_bytes(mine, ("vram", "gtt") if unified else ("vram",))
        return Card(
            key=key,
            name=self._name(device),
            power_w=_power(monitor),
            limit_w=cap,
            enforced_limit_w=cap,
            temperature_c=_scaled(monitor, "temp1_input", 1e-3),
            clock_mhz=_scaled(monitor, "freq1_input", 1e-6),
            # With unified memory what it borrows (GTT) is part of it.
            memory_used_bytes=used + (gtt or 0) if used is not None and unified else used,
            gtt_used_bytes=gtt,
            compute_bytes={pid: max(size, sizes.get(pid, 0)) for pid, size in compute.items()},
            graphics_bytes={pid: size for pid, size in sizes.items() if pid not in compute},
            # Files of other users are closed to this one.
            complete=False,
            busy=busy,
            process_busy=self._process_busy(device, mine),
            reasons=reasons,
            energy_j=_scaled(monitor, "energy1_input", 1e-6),
        )

    def _process_busy(self, device: Path, clients: Sequence[_Client]) -> dict[int, float] | None:
        """The share of the time since the last look in which each process used the card. Queues
        of ROCm are not told of."""
        now_s = time.monotonic()
        used = {(c.pid, c.number): c.engine_ns for c in clients}
        then_s, before = self._used.get(device, (now_s, used))
        self._used[device] = now_s, used
        found: dict[int, float] = {}
        for (pid, number), ns in used.items():
            grown = max(0, ns - before.get((pid, number), ns))
            if now_s > then_s:
                found[pid] = found.get(pid, 0.0) + grown / 1e9 / (now_s - then_s)
        return found

    def _compute_queues(self) -> dict[str, dict[int, int]]:
        """By PCI address, the memory of the processes that compute there: the compute driver's
        ``proc/PID/vram_GPU``, for which ``topology`` tells the address."""
        folder = self._root / "sys/class/kfd/kfd"
        address: dict[str, str] = {}
        for node in _sysfs.listing(folder / "topology/nodes", "*"):
            number = _sysfs.read_text(node / "gpu_id")
            told = _sysfs.key_values(_sysfs.read_text(node / "properties"), " ")
            place, domain = told.get("location_id", ""), told.get("domain", "0")
            if number and place.isdigit() and domain.isdigit():
                bus, slot = int(place) >> 8, int(place) & 0xFF
                address[number] = f"{int(domain):04x}:{bus:02x}:{slot >> 3:02x}.{slot & 7}"
        found: dict[str, dict[int, int]] = {}
        for file in _sysfs.listing(folder / "proc", "[0-9]*/vram_*"):
            card = address.get(file.name.removeprefix("vram_"))
            if card is not None and (size := _sysfs.read_int(file)):
                found.setdefault(card, {})[int(file.parent.name)] = size
        return found

    def caps(self) -> tuple[Cap, ...]:
        """Of the cards that have one; most integrated ones do not."""
        found = (self._cap(index, device) for index, device in enumerate(self._devices()))
        return tuple(filter(None, found))

    def _cap(self, index: int, device: Path) -> Cap | None:
        monitor = _monitor(device)
        if monitor is None or not (monitor / "power1_cap").exists():
            return None
        limit = _scaled(monitor, "power1_cap", 1e-6)
        why = ""
        if limit is None:
            # The driver answers EPERM rather than wake a card that is suspended.
            control = device / "power/control"
            why = f"it sleeps; keep it awake: echo on | sudo tee {control}"
        elif not os.access(monitor / "power1_cap", os.W_OK):
            why = _as_root(monitor / "power1_cap")
        return Cap(
            gpu=self._name(device),
            index=index,
            limit_w=limit,
            default_w=_scaled(monitor, "power1_cap_default", 1e-6),
            min_w=_scaled(monitor, "power1_cap_min", 1e-6),
            max_w=_scaled(monitor, "power1_cap_max", 1e-6),
            settable=not why,
            why=why,
        )

    def set_cap(self, index: int, watts: float) -> None:
        """Until it is set again or the machine starts anew. The driver drops what is below a
        watt."""
        device = self._devices()[index]
        monitor = _monitor(device)
        assert monitor is not None, "only a card of caps() can be capped"
        name = self._name(device)
        asked = f"{name}: a power cap of {watts:g} W"
        try:
            (monitor / "power1_cap").write_text(str(round(watts * 1e6)))
        except PermissionError:
            raise PutOff(
                f"the power cap of {name} may not be set", hint=_as_root(monitor / "power1_cap")
            ) from None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise InputError(
                    f"{asked} is not what the card allows", hint=f"see {monitor}/power1_cap_*"
                ) from None
            raise PutOff(f"{asked} failed: {error.strerror}", hint="see `sudo dmesg`") from None

    def _gpu(self, device: Path) -> Gpu:
        monitor, arch = _monitor(device), self._arch(device)
        unified = _unified(device, _read_metrics(device / "gpu_metrics"))
        generation, width = _slowest_link(device)
        return Gpu(
            name=self._name(device),
            vendor="amd",
            arch=arch,
            vram_bytes=_sysfs.read_int(device / "mem_info_vram_total"),
            unified_memory=unified,
            driver=self._driver(),
            power_limit_w=_scaled(monitor, "power1_cap", 1e-6),
            power_min_w=_scaled(monitor, "power1_cap_min", 1e-6),
            power_max_w=_scaled(monitor, "power1_cap_max", 1e-6),
            power_default_w=_scaled(monitor, "power1_cap_default", 1e-6),
            clock_max_mhz=_highest_level(device / "pp_dpm_sclk"),
            memory_clock_max_mhz=_highest_level(device / "pp_dpm_mclk"),
            pcie_generation=generation,
            pcie_width=width,
            **by_driver(self._bandwidth(device, arch, unified)),
        )

    def _bandwidth(self, device: Path, arch: str | None, unified: bool | None) -> float | None:
        """Bytes a second of the card's memory: the compute driver tells its width and its highest
        clock, the kind of memory the transfers a clock. None where one is not known."""
        node = self._node(device)
        for bank in _sysfs.listing(node, "mem_banks/*/properties") if node else []:
            told = _sysfs.key_values(_sysfs.read_text(bank), " ")
            width, clock = told.get("width", ""), told.get("mem_clk_max", "")
            if not (width.isdigit() and clock.isdigit() and int(width) and int(clock)):
                continue
            transfers = transfers_a_clock(arch, int(width), int(clock), unified)
            return None if transfers is None else int(clock) * 1e6 * transfers * int(width) / 8
        return None

    def _name(self, device: Path) -> str:
        """The board's own product name, else the name that libdrm's installed table has for
        this device and revision, else the bare device number."""
        if product := _sysfs.read_text(device / "product_name"):
            return product if "AMD" in product else f"AMD {product}"
        number = _sysfs.read_int(device / "device")
        revision = _sysfs.read_int(device / "revision")
        if number is None:
            return "AMD GPU"
        table = _sysfs.read_text(self._root / "usr/share/libdrm/amdgpu.ids") or ""
        for line in table.splitlines():
            fields = [f.strip() for f in line.split(",", 2)]
            if len(fields) == 3 and revision is not None:
                if fields[:2] == [f"{number:04X}", f"{revision:02X}"]:
                    return fields[2]
        return f"AMD GPU 0x{number:04x}"

    def _driver(self) -> str | None:
        """The version of an out-of-tree amdgpu; the one inside the kernel has the kernel's."""
        if version := _sysfs.read_text(self._root / "sys/module/amdgpu/version"):
            return f"amdgpu {version}"
        release = _sysfs.read_text(self._root / "proc/sys/kernel/osrelease")
        return f"amdgpu (kernel {release})" if release else None

    def _arch(self, device: Path) -> str | None:
        """``gfx1100``…, from the compute driver's node."""
        node = self._node(device)
        pairs = _sysfs.key_values(_sysfs.read_text(node / "properties") if node else None, " ")
        version = pairs.get("gfx_target_version", "0")
        return _gfx_name(int(version)) if version.isdigit() else None

    def _node(self, device: Path) -> Path | None:
        """The compute driver's node of the same render device."""
        renders = _sysfs.listing(device / "drm", "renderD*")
        minor = renders[0].name.removeprefix("renderD") if renders else None
        nodes = self._root / "sys/class/kfd/kfd/topology/nodes"
        for properties in _sysfs.listing(nodes, "*/properties"):
            pairs = _sysfs.key_values(_sysfs.read_text(properties), " ")
            if minor and pairs.get("drm_render_minor") == minor:
                return properties.parent
        return None


# Transfers a clock of the memory clocks that amdgpu tells. By kind: Mesa's ac_memory_ops_per_clock
# (from PAL's MemoryOpsPerClockTable); of HBM3 twice those of HBM2, as AMD's own 5.3 TB/s of a
# MI300X at 1300 MHz and 8192 bits have it; of the LPDDR5X of Strix Halo 8, its 256 GB/s at 1000 MHz
# and 256 bits. Other processors' graphics tell a width of their memory that is not its own.
GDDR5, GDDR6, HBM2, HBM3, LPDDR5X = 4, 16, 2, 4, 8
HBM_BITS = 1024
"""No other memory is as wide."""
# Above it a clock is no GDDR6's, whose chips transfer 24 Gbit/s a pin at most.
GDDR6_MHZ = 1500


def transfers_a_clock(arch: str | None, bits: int, mhz: int, unified: bool | None) -> int | None:
    """By what a card is and how wide and fast its memory; None where that does not tell."""
    if arch is None:
        return None
    if arch == "gfx1151":
        return LPDDR5X if bits == 256 and mhz <= 1100 else None
    if bits >= HBM_BITS:
        return HBM3 if arch in ("gfx940", "gfx941", "gfx942", "gfx950") else HBM2
    # An integrated one may not say that it is: those with memory of their own name its maker.
    if unified is not False:
        return None
    generation = int(arch.removeprefix("gfx")[:-2])
    return GDDR6 if generation >= 10 and mhz <= GDDR6_MHZ else GDDR5


def _as_root(path: Path) -> str:
    return (
        f"only root may set it: sudo chmod a+w {path} allows it until the next boot (in a container"
        " /sys must be writable), or run tokrig as root"
    )


def _gfx_name(version: int) -> str | None:
    """110501 → ``gfx1151``: major, two digits of minor, two of stepping, the latter in hex."""
    if not version:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _monitor(device: Path) -> Path | None:
    folders = _sysfs.listing(device / "hwmon", "hwmon*")
    return folders[0] if folders else None


def _scaled(monitor: Path | None, name: str, factor: float) -> float | None:
    return None if monitor is None else _sysfs.read_scaled(monitor / name, factor)


def _power(monitor: Path | None) -> float | None:
    """Watts: the driver's average where it has one, else the momentary value."""
    average = _scaled(monitor, "power1_average", 1e-6)
    return _scaled(monitor, "power1_input", 1e-6) if average is None else average


def _unified(device: Path, metrics: _Metrics) -> bool | None:
    """Whether the card lives in main memory: True by the APU form of its metrics, False where
    the driver names the maker of the card's own memory chips, else not known."""
    return False if (device / "mem_info_vram_vendor").exists() else metrics.apu


def _highest_level(path: Path) -> float | None:
    """The highest of ``1: 2500Mhz *`` lines, in MHz."""
    levels = re.findall(r"(\d+)\s*mhz", _sysfs.read_text(path) or "", re.IGNORECASE)
    return max((float(level) for level in levels), default=None)


def _slowest_link(device: Path) -> tuple[int | None, int | None]:
    """PCIe generation and width of the slowest link between card and processor.

    Many AMD cards hold a switch: the link that the card's own files show is inside the card
    and says nothing of the slot. Speeds are the highest the links can do, for they drop while
    the card idles.
    """
    generations: list[int] = []
    widths: list[int] = []
    folder = device.resolve()
    while (folder / "max_link_speed").exists():
        speed = (_sysfs.read_text(folder / "max_link_speed") or "").split(" ")[0]
        if speed in PCIE_GENERATION:
            generations.append(PCIE_GENERATION[speed])
        width = _sysfs.read_int(folder / "current_link_width")
        # A port inside the processor's own complex can state width 0 or 255 (unknown).
        if width and width <= 32:
            widths.append(width)
        folder = folder.parent
    return min(generations, default=None), min(widths, default=None)


# --- processes that have a card's device file open ----------------------------------------------

# Memory in use is ``drm-resident-<region>``; before Linux 6.14 amdgpu had only
# ``drm-memory-<region>``, which newer ones keep with the same meaning.
_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2}


class _Client(NamedTuple):
    """One opening of a card's device file by a process, as its driver numbers it."""

    pid: int
    card: str
    number: str
    told: Mapping[str, str]

    @property
    def engine_ns(self) -> int:
        """Nanoseconds that the card's parts have worked for it, all together."""
        engines = [name for name in self.told if name.startswith("drm-engine-")]
        words = [self.told[n].partition(" ")[0] for n in engines if "-capacity-" not in n]
        return sum(int(word) for word in words if word.isdigit())


def _clients(root: Path) -> list[_Client]:
    """Each once, though it may have several descriptors. Only of processes whose files this user
    may look at, his own as a rule."""
    found: dict[tuple[int, str, str], _Client] = {}
    for process in _sysfs.listing(root / "proc", "[0-9]*"):
        for text in _device_files(process):
            told = _sysfs.key_values(text, ":")
            if told.get("drm-driver") == "amdgpu":
                key = int(process.name), told.get("drm-pdev", ""), told.get("drm-client-id", "")
                found[key] = _Client(*key, told)
    return list(found.values())


def _process_bytes(clients: Sequence[_Client], regions: Sequence[str]) -> dict[int, int]:
    """Bytes by process id in these regions of memory."""
    found = Counter[int]()
    for client in clients:
        found[client.pid] += sum(_resident(client.told, region) for region in regions)
    return dict(found)


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


# --- the binary metrics table -------------------------------------------------------------------

# Layout of ``gpu_metrics``: the kernel's ``kgd_pp_interface.h``. A header of four bytes (size,
# format revision, content revision) says which layout follows. Format 1 is that of cards, 2 and 3
# of APUs. Fields that the hardware does not fill hold all ones.

# Offset of the throttle status whose bits mean the same on every chip, by (format, content).
_STATUS_OFFSET = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}
_NOT_FILLED = 0xFFFF_FFFF_FFFF_FFFF

# Where the counters of format 3.0 begin, 32 bits each, and what holds when one of them grows.
_HELD_OFFSET = {(3, 0): 228}
_HELD = "prochot power_limit power_limit power_limit thermal thermal thermal".split()

# Bit ranges of that status (the driver's ``SMU_THROTTLER_*`` numbers), first and last.
_REASONS = {
    "power_limit": (0, 15),
    "current_limit": (16, 31),
    "thermal": (32, 45),
    "prochot": (46, 47),
    "other_limit": (56, 63),
}


class _Metrics(NamedTuple):
    """None: the table is missing, short, or of a form that does not tell. ``held`` are counters
    of how long each reason has held the clocks down, in a unit that the kernel leaves open."""

    apu: bool | None = None
    throttle_reasons: tuple[str, ...] | None = None
    held: dict[str, int] | None = None


def _read_metrics(path: Path) -> _Metrics:
    """The table at ``path``; an empty answer where it is missing, short or of unknown form."""
    raw = _sysfs.read_bytes(path)
    if raw is None or len(raw) < 4:
        return _Metrics()
    _size, form, content = struct.unpack_from("<HBB", raw)
    apu = True if form in (2, 3) else None
    if (at := _HELD_OFFSET.get((form, content))) is not None:
        return _Metrics(apu, held=_held(raw, at))
    at = _STATUS_OFFSET.get((form, content))
    if at is None or at + 8 > len(raw):
        return _Metrics(apu)
    (status,) = struct.unpack_from("<Q", raw, at)
    if status == _NOT_FILLED:
        return _Metrics(apu)
    bits = {word: range(first, last + 1) for word, (first, last) in _REASONS.items()}
    words = (word for word, own in bits.items() if any(status >> bit & 1 for bit in own))
    return _Metrics(apu, tuple(words))


def _held(raw: bytes, at: int) -> dict[str, int] | None:
    """Sums of the counters by reason; None where a chip does not fill them."""
    if at + 4 * len(_HELD) > len(raw):
        return None
    counters = struct.unpack_from(f"<{len(_HELD)}I", raw, at)
    if 0xFFFF_FFFF in counters:
        return None
    found = Counter[str]()
    for word, count in zip(_HELD, counters, strict=True):
        found[word] += count
    return dict(found)


PROBE = AmdProbe()
