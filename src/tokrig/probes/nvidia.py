"""NVIDIA graphics processors through NVML, the library that comes with the driver.

Field meanings: NVIDIA, "NVML API Reference Guide". A field that a card or a driver does not
support is None. Python's side is the package nvidia-ml-py, whose module is ``pynvml``.
"""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokrig.errors import InputError, PutOff
from tokrig.probes import Availability, Cap, Card, Facts, Reading, _sysfs, by_driver
from tokrig.record.model import Gpu
from tokrig.registry import get_extra

# Bits of the clocks event reasons. Idling (bit 0) and the clocks that the user set (bit 1) hold
# nothing down that was to be higher.
REASONS = {
    2: "sw_power_cap",
    3: "hw_slowdown",
    4: "sync_boost",
    5: "sw_thermal_slowdown",
    6: "hw_thermal_slowdown",
    7: "hw_power_brake",
    8: "display_clock_setting",
}

# Counters of how long a limit held clocks down, by number: policies of nvmlDeviceGetViolationStatus
# and fields of nvmlDeviceGetFieldValues, both in ns.
POLICIES = {0: "sw_power_cap", 1: "thermal"}
FIELDS = {269: "sw_thermal_slowdown", 270: "hw_thermal_slowdown", 271: "hw_power_brake"}

# Transfers a clock of the memory clock that NVML tells, whatever the memory: NVIDIA's own formula
# ("How to Implement Performance Metrics in CUDA": 2 × memoryClockRate × memoryBusWidth / 8).
TRANSFERS = 2
# Of a card that is cut, a slice has so many eighths of its memory and of that memory's bandwidth
# (NVIDIA, "MIG User Guide": a memory slice is one eighth of both).
MEMORY_SLICES = 8

# The kernel driver asks for this capability, whoever the user is: root in a container lacks it.
CAP_SYS_ADMIN = 21
WHO_MAY = "NVIDIA's driver lets only an administrator set it"


@dataclass(frozen=True)
class _Device:
    """A card, or the slice of one (MIG): what NVML tells of the slice alone is asked by ``handle``,
    all else by ``board``."""

    key: str
    handle: Any
    board: Any

    @property
    def is_slice(self) -> bool:
        return self.handle is not self.board


_OF_WHOLE_CARDS = (
    *("PowerUsage", "PowerManagementLimit", "EnforcedPowerLimit", "TotalEnergyConsumption"),
)


class NvidiaProbe:
    """All NVIDIA cards. ``binding`` is the module ``pynvml`` or a stand-in for it, ``root`` where
    ``/proc`` is. Of a card cut into slices (MIG) the one counts that programs here would use."""

    name = "nvidia"

    def __init__(self, binding: Any = None, root: Path = Path("/")) -> None:
        # pynvml carries no types, so everything asked of it is Any from here on.
        self._nvml: Any = binding
        self._root = root
        self._boards: list[Any] = []
        self._devices: list[_Device] = []
        self._sampled_us: dict[str, int] = {}
        self._state: Availability | None = None

    def availability(self) -> Availability:
        """Opens NVML at the first call of any method; later calls repeat that answer."""
        if self._state is None:
            self._state = self._open()
        return self._state

    def _open(self) -> Availability:
        try:
            self._nvml = self._nvml or importlib.import_module("pynvml")
        except ImportError:
            return Availability(
                False,
                "the package nvidia-ml-py is missing",
                f"with an NVIDIA card: {get_extra('nvidia')}",
            )
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._boards = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        except self._nvml.NVMLError_LibraryNotFound:
            return Availability(
                False,
                "NVML (libnvidia-ml.so.1) is not on this machine",
                "with an NVIDIA card: install its driver; in a container: start it with GPU"
                " access (docker run --gpus all)",
            )
        except self._nvml.NVMLError as error:
            return Availability(
                False, f"NVML does not start: {error}", "see whether `nvidia-smi` works"
            )
        if not self._boards:
            return Availability(False, "NVML works but shows no card", "see `nvidia-smi -L`")
        for number, board in enumerate(self._boards):
            slices = self._slices(board)
            self._devices += slices or [_Device(self._key(board, number), board, board)]
        return Availability(True, f"{count} NVIDIA card(s), driver {self._driver() or 'unknown'}")

    def facts(self) -> Facts:
        if not self.availability().ok:
            # Before JetPack 6 a Jetson has no NVML; its device tree names it all the same.
            jetson = _sysfs.tegra_graphics(self._root)
            if jetson is None:
                return Facts()
            name, arch = jetson
            return Facts(gpus=(Gpu(name=name, vendor="nvidia", arch=arch, unified_memory=True),))
        driver = self._driver()
        return Facts(gpus=tuple(self._gpu(device, driver) for device in self._devices))

    def read(self) -> Reading:
        if not self.availability().ok:
            return Reading()
        return Reading(cards=tuple(map(self._card, self._devices)))

    def _card(self, device: _Device) -> Card:
        """Power and energy of a slice are not told: NVML has those of the whole card only."""
        board = device.board
        memory = self._ask("nvmlDeviceGetMemoryInfo", device.handle)
        used = self._ask("nvmlDeviceGetUtilizationRates", device.handle)
        power, limit, enforced, energy = (
            None if device.is_slice else self._ask(f"nvmlDeviceGet{what}", board)
            for what in _OF_WHOLE_CARDS
        )
        return Card(
            key=device.key,
            name=self._name(board),
            power_w=_watts(power),
            limit_w=_watts(limit),
            enforced_limit_w=_watts(enforced),
            temperature_c=self._temperature(board),
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", board, self._nvml.NVML_CLOCK_SM),
            memory_used_bytes=None if memory is None else memory.used,
            compute_bytes=self._processes("Compute", device.handle),
            graphics_bytes=self._processes("Graphics", device.handle),
            busy=None if used is None else used.gpu / 100,
            process_busy=self._process_busy(device),
            reasons=self._reasons(board),
            held_s=self._held(board),
            energy_j=None if energy is None else energy / 1e3,
        )

    def caps(self) -> tuple[Cap, ...]:
        """Of the cards whose cap can be set: many a laptop's card only tells its own."""
        if not self.availability().ok:
            return ()
        return tuple(filter(None, (self._cap(i, card) for i, card in enumerate(self._boards))))

    def _cap(self, index: int, card: Any) -> Cap | None:
        limit = self._ask("nvmlDeviceGetPowerManagementLimit", card)
        bounds = self._ask("nvmlDeviceGetPowerManagementLimitConstraints", card)
        if limit is None or bounds is None:
            return None
        may = self._may_administer()
        return Cap(
            gpu=self._name(card),
            index=index,
            limit_w=_watts(limit),
            default_w=_watts(self._ask("nvmlDeviceGetPowerManagementDefaultLimit", card)),
            min_w=_watts(bounds[0]),
            max_w=_watts(bounds[1]),
            settable=may,
            why="" if may else f"{WHO_MAY}: {_as_administrator(index)}",
        )

    def set_cap(self, index: int, watts: float) -> None:
        """Until it is set again or the driver is unloaded, which happens without persistence mode
        as soon as no process uses the card."""
        self.availability()
        nvml, card = self._nvml, self._boards[index]
        name = self._name(card)
        asked = f"{name}: a power cap of {watts:g} W"
        try:
            nvml.nvmlDeviceSetPowerManagementLimit(card, round(watts * 1e3))
        except nvml.NVMLError_NoPermission:
            raise PutOff(
                f"the power cap of {name} may not be set: {WHO_MAY}", hint=_as_administrator(index)
            ) from None
        except nvml.NVMLError_InvalidArgument:
            raise InputError(
                f"{asked} is not what the card allows", hint="see `nvidia-smi -q -d POWER`"
            ) from None
        except nvml.NVMLError as error:
            raise PutOff(f"{asked} failed: {error}", hint="see `nvidia-smi -q -d POWER`") from None

    def _may_administer(self) -> bool:
        status = _sysfs.key_values(_sysfs.read_text(self._root / "proc/self/status"), ":")
        return bool(int(status.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """The answer of one NVML function, or None when card or driver do not give it."""
        try:
            # A newer or older binding may lack a function.
            return getattr(self._nvml, function, lambda *_: None)(*arguments)
        except self._nvml.NVMLError:
            return None

    def _key(self, handle: Any, number: int) -> str:
        return str(self._ask("nvmlDeviceGetUUID", handle) or f"nvidia{number}")

    def _slices(self, board: Any) -> list[_Device]:
        """The slice of a card that CUDA would use: those that CUDA_VISIBLE_DEVICES names, by the
        beginning of their ids, else the first. None of a card that is not cut."""
        mode = self._ask("nvmlDeviceGetMigMode", board)
        if mode is None or mode[0] != 1:
            return []
        found = []
        for number in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", board) or 0):
            handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", board, number)
            if handle is not None:
                found.append(_Device(self._key(handle, number), handle, board))
        words = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        wished = tuple(word.strip() for word in words if word.strip().startswith("MIG-"))
        return [d for d in found if d.key.startswith(wished)] if wished else found[:1]

    def _profile(self, device: _Device) -> str | None:
        """``1g.10gb``: the kind of a slice, the last word of its name, else from its size."""
        if not device.is_slice:
            return None
        _, mark, profile = self._name(device.handle).rpartition(" MIG ")
        if mark:
            return profile
        size = self._ask("nvmlDeviceGetAttributes", device.handle)
        if size is None:
            return "MIG"
        return f"{size.gpuInstanceSliceCount}g.{round(size.memorySizeMB / 1024)}gb"

    def _driver(self) -> str | None:
        version = self._ask("nvmlSystemGetDriverVersion")
        return None if version is None else str(version)

    def _name(self, card: Any) -> str:
        return str(self._ask("nvmlDeviceGetName", card) or "NVIDIA GPU")

    def _gpu(self, device: _Device, driver: str | None) -> Gpu:
        nvml, card = self._nvml, device.board
        # Not told where processor and card share one memory (GB10).
        memory = self._ask("nvmlDeviceGetMemoryInfo", device.handle)
        bounds = self._ask("nvmlDeviceGetPowerManagementLimitConstraints", card)
        return Gpu(
            name=self._name(card),
            vendor="nvidia",
            arch=self._architecture(card),
            mig_profile=self._profile(device),
            vram_bytes=None if memory is None else memory.total,
            unified_memory=True if _sysfs.tegra_graphics(self._root) else None,
            driver=driver,
            # The limit that an administrator set. The enforced one can be lower for a moment.
            power_limit_w=_watts(self._ask("nvmlDeviceGetPowerManagementLimit", card)),
            power_min_w=None if bounds is None else _watts(bounds[0]),
            power_max_w=None if bounds is None else _watts(bounds[1]),
            power_default_w=_watts(self._ask("nvmlDeviceGetPowerManagementDefaultLimit", card)),
            clock_max_mhz=self._ask("nvmlDeviceGetMaxClockInfo", card, nvml.NVML_CLOCK_SM),
            memory_clock_max_mhz=self._ask("nvmlDeviceGetMaxClockInfo", card, nvml.NVML_CLOCK_MEM),
            # What card and slot can do together. The current generation drops while the card
            # idles, which is when facts are read; the width does not.
            pcie_generation=self._ask("nvmlDeviceGetMaxPcieLinkGeneration", card),
            pcie_width=self._ask("nvmlDeviceGetCurrPcieLinkWidth", card),
            **by_driver(self._bandwidth(device)),
        )

    def _bandwidth(self, device: _Device) -> float | None:
        """Bytes a second of the card's memory, of a slice its part of them; None where the driver
        does not tell clock or width."""
        clock = self._ask("nvmlDeviceGetMaxClockInfo", device.board, self._nvml.NVML_CLOCK_MEM)
        width = self._ask("nvmlDeviceGetMemoryBusWidth", device.board)
        if not clock or not width:
            return None
        whole = float(clock * 1e6 * TRANSFERS * width / 8)
        if not device.is_slice:
            return whole
        sizes = (self._ask("nvmlDeviceGetMemoryInfo", h) for h in (device.handle, device.board))
        mine, all_ = (size.total if size else None for size in sizes)
        if not mine or not all_:
            return None
        return whole * int(max(1, round(MEMORY_SLICES * mine / all_))) / MEMORY_SLICES

    def _architecture(self, card: Any) -> str | None:
        """``Ada``, ``Hopper``…: the names are those of the binding's own constants."""
        number = self._ask("nvmlDeviceGetArchitecture", card)
        prefix = "NVML_DEVICE_ARCH_"
        for constant in dir(self._nvml):
            if constant.startswith(prefix) and getattr(self._nvml, constant) == number:
                name = constant.removeprefix(prefix)
                return None if name == "UNKNOWN" else name.title()
        return None

    def _temperature(self, card: Any) -> int | None:
        """Degrees Celsius; the older of the two functions is for drivers without the newer."""
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        value = self._ask("nvmlDeviceGetTemperatureV", card, sensor)
        if value is None:
            value = self._ask("nvmlDeviceGetTemperature", card, sensor)
        return None if value is None else int(value)

    def _processes(self, kind: str, handle: Any) -> dict[int, int] | None:
        """Bytes by process id; None when the card does not list its processes."""
        found = self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle)
        if found is None:
            return None
        sizes = Counter[int]()
        for process in found:
            sizes[process.pid] += process.usedGpuMemory or 0
        return dict(sizes)

    def _process_busy(self, device: _Device) -> dict[int, float] | None:
        """The share of the card's processors that each process used since the last time; None
        where that is not told, as for slices."""
        nvml = self._nvml
        ask = getattr(nvml, "nvmlDeviceGetProcessUtilization", None)
        if ask is None or device.is_slice:
            return None
        since = self._sampled_us.get(device.key, int((time.time() - 1) * 1e6))
        try:
            samples = ask(device.board, since)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
            return None
        except nvml.NVMLError:
            return {}  # nothing used it since
        found: dict[int, float] = {}
        for sample in samples:
            self._sampled_us[device.key] = max(since, sample.timeStamp)
            if sample.timeStamp > since and sample.smUtil <= 100:
                found[sample.pid] = max(found.get(sample.pid, 0.0), sample.smUtil / 100)
        return found

    def _reasons(self, card: Any) -> tuple[str, ...] | None:
        # Drivers before 535 know the function by its older name.
        for name in ("Event", "Throttle"):
            bits = self._ask(f"nvmlDeviceGetCurrentClocks{name}Reasons", card)
            if bits is not None:
                return tuple(sorted(word for bit, word in REASONS.items() if bits >> bit & 1))
        return None

    def _held(self, card: Any) -> dict[str, float]:
        """Seconds that limits held the clocks down, as far as the driver counts."""
        told = {p: self._ask("nvmlDeviceGetViolationStatus", card, p) for p in POLICIES}
        found = {POLICIES[p]: t.violationTime / 1e9 for p, t in told.items() if t is not None}
        for value in self._ask("nvmlDeviceGetFieldValues", card, list(FIELDS)) or ():
            if value.nvmlReturn == 0:
                found[FIELDS[value.fieldId]] = value.value.ullVal / 1e9
        return found


def _as_administrator(index: int) -> str:
    return (
        "run tokrig as root (in a container: with CAP_SYS_ADMIN), or cap the card yourself with"
        f" `sudo nvidia-smi -i {index} -pl WATTS` and leave power_cap_w out"
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


PROBE = NvidiaProbe()
