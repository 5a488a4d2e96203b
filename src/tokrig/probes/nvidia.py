"""NVIDIA graphics processors through NVML, the library that comes with the driver.

Field meanings: NVIDIA, "NVML API Reference Guide". A field that a card or a driver does not
support is None. Python's side is the package nvidia-ml-py, whose module is ``pynvml``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokrig.errors import InputError, PutOff
from tokrig.probes import Availability, Cap, Facts, Reading, _sysfs
from tokrig.record.model import Gpu

# Bits of the clocks event reasons that hold a card below its full clocks. Idling (bit 0) and
# the user's own application clocks (bit 1) are no throttling.
THROTTLE_BITS = {
    2: "sw_power_cap",
    3: "hw_slowdown",
    4: "sync_boost",
    5: "sw_thermal_slowdown",
    6: "hw_thermal_slowdown",
    7: "hw_power_brake",
    8: "display_clock_setting",
    9: "board_limit",
    10: "reliability",
}

# The kernel driver asks for this capability, whoever the user is: root in a container lacks it.
CAP_SYS_ADMIN = 21
WHO_MAY = "NVIDIA's driver lets only an administrator set it"


class NvidiaProbe:
    """All NVIDIA cards. ``binding`` is the module ``pynvml`` or a stand-in for it, ``root`` where
    ``/proc`` is."""

    name = "nvidia"

    def __init__(self, binding: Any = None, root: Path = Path("/")) -> None:
        # pynvml carries no types, so everything asked of it is Any from here on.
        self._nvml: Any = binding
        self._root = root
        self._cards: list[Any] = []
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
                "with an NVIDIA card: pip install 'tokrig[nvidia]'",
            )
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._cards = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
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
        if not self._cards:
            return Availability(False, "NVML works but shows no card", "see `nvidia-smi -L`")
        return Availability(True, f"{count} NVIDIA card(s), driver {self._driver() or 'unknown'}")

    def facts(self) -> Facts:
        if not self.availability().ok:
            return Facts()
        driver = self._driver()
        return Facts(gpus=tuple(self._gpu(card, driver) for card in self._cards))

    def read(self) -> Reading:
        """Power, memory and energy are sums over the cards; temperature and clock the highest.

        A sum is None when one card cannot tell, for a part would pass as the whole.
        """
        if not self.availability().ok:
            return Reading()
        nvml = self._nvml
        power = _sum(self._each("nvmlDeviceGetPowerUsage"))
        energy = _sum(self._each("nvmlDeviceGetTotalEnergyConsumption"))
        memory = self._each("nvmlDeviceGetMemoryInfo")
        return Reading(
            gpu_power_w=None if power is None else power / 1e3,
            gpu_temperature_c=_max([self._temperature(card) for card in self._cards]),
            gpu_clock_mhz=_max(self._each("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)),
            gpu_memory_used_bytes=_sum([None if m is None else m.used for m in memory]),
            gpu_process_bytes=self._processes(),
            throttle_reasons=self._throttle_reasons(),
            energy_j={} if energy is None else {"gpu": energy / 1e3},
        )

    def caps(self) -> tuple[Cap, ...]:
        """Of the cards whose cap can be set: many a laptop's card only tells its own."""
        if not self.availability().ok:
            return ()
        found = (self._cap(index, card) for index, card in enumerate(self._cards))
        return tuple(cap for cap in found if cap is not None)

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
        nvml, card = self._nvml, self._cards[index]
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
        # A newer or older binding may lack a function.
        ask: Callable[..., Any] | None = getattr(self._nvml, function, None)
        if ask is None:
            return None
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:
            return None

    def _each(self, function: str, *arguments: Any) -> list[Any]:
        return [self._ask(function, card, *arguments) for card in self._cards]

    def _driver(self) -> str | None:
        version = self._ask("nvmlSystemGetDriverVersion")
        return None if version is None else str(version)

    def _name(self, card: Any) -> str:
        return str(self._ask("nvmlDeviceGetName", card) or "NVIDIA GPU")

    def _gpu(self, card: Any, driver: str | None) -> Gpu:
        nvml = self._nvml
        memory = self._ask("nvmlDeviceGetMemoryInfo", card)
        bounds = self._ask("nvmlDeviceGetPowerManagementLimitConstraints", card)
        return Gpu(
            name=self._name(card),
            vendor="nvidia",
            arch=self._architecture(card),
            vram_bytes=None if memory is None else memory.total,
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
        )

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

    def _processes(self) -> dict[int, int] | None:
        """Bytes by process id over all cards; None when a card does not list its processes."""
        total: dict[int, int] = {}
        for card in self._cards:
            here: dict[int, int] = {}
            lists = [
                self._ask(f"nvmlDeviceGet{kind}RunningProcesses", card)
                for kind in ("Compute", "Graphics")
            ]
            if all(found is None for found in lists):
                return None
            for found in lists:
                for process in found or []:
                    # A process of both kinds stands in both lists with the same size.
                    size = process.usedGpuMemory or 0
                    here[process.pid] = max(here.get(process.pid, 0), size)
            for pid, size in here.items():
                total[pid] = total.get(pid, 0) + size
        return total

    def _throttle_reasons(self) -> tuple[str, ...] | None:
        """Of all cards; None when one cannot tell, for silence would pass as calm."""
        words: set[str] = set()
        for card in self._cards:
            bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", card)
            if bits is None:
                # Drivers before 535 know the function by its older name.
                bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", card)
            if bits is None:
                return None
            words |= {word for bit, word in THROTTLE_BITS.items() if bits >> bit & 1}
        return tuple(sorted(words))


def _as_administrator(index: int) -> str:
    return (
        "run tokrig as root (in a container: with CAP_SYS_ADMIN), or cap the card yourself with"
        f" `sudo nvidia-smi -i {index} -pl WATTS` and leave power_cap_w out"
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(v for v in known if v is not None)


def _max(values: Iterable[int | None]) -> int | None:
    return max((v for v in values if v is not None), default=None)


PROBE = NvidiaProbe()
